"""What a campaign begins with: valid bytes of every kind, and all vectors of the specification.

Rules of this file: the same seed gives the same samples in the same order, on every machine.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import numpy as np

from mfd.cli.parts import split
from mfd.net.keys import KeyPair
from mfd.packet import (
    PLAN_DOMAIN,
    Encoding,
    Envelope,
    LayerRef,
    Manifest,
    Packet,
    Piece,
    decode,
    decode_piece,
    encode,
    encode_chunk,
    encode_piece,
    encode_plan,
    head_of,
    pack_layer,
    pieces_of,
    seal,
    wrap_object,
    write_safetensors,
)
from mfd.packet.carried import CarriedObject
from mfd.packet.limits import CHUNK_BYTES
from tests.fuzz.forms import (
    CHUNK_HEAD,
    LooseChunk,
    LooseObject,
    LoosePacket,
    read_bundle,
    write_bundle,
    write_chunk,
)
from tests.fuzz.held import BASE, HELD
from tests.fuzz.models import Layers, headers, models, plan, weights, wide
from tests.packet.keys import HashSigner

KINDS = (
    "packet",
    "manifest",
    "plan",
    "envelope",
    "record",
    "layer",
    "chunk",
    "safetensors",
    "piece",
    "pieces",
    "files",
)
VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
PIECES_MAX = 8
LARGE = 100_000  # bytes; larger samples are drawn seldom, for they take long
SPLIT_BYTES = 1 << 10
SPLIT_MAX = 2  # encodings of a packet that are split into files

__all__ = ["KINDS", "Corpus", "Sample", "make_corpus", "take_apart"]


@dataclass(slots=True)
class Sample:
    """One input to begin with, and, where that is possible, the same taken apart."""

    body: bytes
    tree: Any = None  # of a header: its map; of a layer: its rows; of a packet: a LoosePacket
    files: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def apart(self) -> bool:
        """Whether it can be changed by its form."""
        return self.tree is not None


@dataclass(slots=True)
class Corpus:
    """Samples by kind, small and large ones apart."""

    small: dict[str, list[Sample]]
    large: dict[str, list[Sample]]
    signer: KeyPair
    known: set[tuple[str, bytes]] = field(default_factory=set)

    def add(self, kind: str, body: bytes) -> None:
        """Take one more sample, once."""
        if (kind, body) in self.known:
            return
        self.known.add((kind, body))
        shelf = self.large if len(body) > LARGE else self.small
        shelf[kind].append(take_apart(kind, body))

    def shelf(self, kind: str, *, large: bool = False) -> list[Sample]:
        """The samples of a kind; packets that are to be signed are packets."""
        return (self.large if large else self.small)["packet" if kind == "signed" else kind]


def make_corpus(seed: int) -> Corpus:
    """Make all samples of a seed."""
    rng = np.random.default_rng(seed)
    signer = KeyPair.from_seed(rng.bytes(32))
    corpus = Corpus({kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}, signer)
    _add_packets(corpus, rng)
    for kind, body in headers(rng):
        corpus.add(kind, body)
        if kind == "plan":
            corpus.add("record", seal(PLAN_DOMAIN, body, HashSigner("walker")))
    for layers in models(rng).values():
        for tensors in layers.values():
            corpus.add("layer", pack_layer(tensors).tobytes())
    for body in _chunks(rng):
        corpus.add("chunk", body)
    for body in _safetensors(rng):
        corpus.add("safetensors", body)
        corpus.add("files", write_bundle([("a.safetensors", body)]))
    for kind, body in _vectors():
        corpus.add(kind, body)
    return corpus


def _packet(rng: np.random.Generator, layers: Layers, signer: KeyPair, *, whole: bool) -> Packet:
    packed = {name: pack_layer(tensors) for name, tensors in layers.items()}
    record = wrap_object(seal(PLAN_DOMAIN, encode_plan(plan(rng, signer.public_key)), signer))
    manifest = Manifest(
        walker=rng.bytes(32),
        model=rng.bytes(32),
        seq=int(rng.integers(1 << 30)),
        layers=tuple(
            LayerRef(i, name, item.digest, item.raw_bytes)
            for i, (name, item) in enumerate(packed.items())
        ),
        plan=record.digest,
        trainer=signer.public_key,
        claims={"loss": 0.25, "samples": 7},
    )
    objects = [*packed.values(), *([record] if whole else [])]
    return Packet.of(manifest, objects, signer=signer, envelope=Envelope("digits/train"))


def _add_packets(corpus: Corpus, rng: np.random.Generator) -> None:
    with TemporaryDirectory() as folder:
        for name, layers in (models(rng) | wide(rng)).items():
            packet = _packet(rng, layers, corpus.signer, whole=name != "tiny")
            whole = list(dict.fromkeys(_encoded(packet)))
            for number, body in enumerate(whole):
                corpus.add("packet", body)
                if len(body) > LARGE:
                    continue
                size = int.from_bytes(body[6:8], "little")
                corpus.add("envelope", body[16 : 16 + size])
                apart = loosen(body)
                for chunk in _chunks_in(apart):
                    corpus.add("chunk", chunk)
                if number >= SPLIT_MAX or any(item.base for item in apart.objects):
                    continue
                for files in _split(Path(folder) / f"{name}{number}.mfd", body):
                    corpus.add("files", write_bundle(files))
                    for called, part in files[:2]:
                        if called.endswith(".mfd"):
                            corpus.add("packet", part)
            if len(whole[0]) <= LARGE:
                _add_pieces(corpus, packet)
            corpus.add("manifest", packet.manifest_bytes)
            corpus.add("files", write_bundle([("a.mfd", whole[0]), ("b.mfd", whole[-1])]))


def _encoded(packet: Packet) -> Iterator[bytes]:
    """The packet in every encoding, as it is and upon what every reader holds."""
    for encoding in Encoding:
        yield b"".join(encode(packet, encoding))
        yield b"".join(encode(packet, encoding, base=HELD))


def _add_pieces(corpus: Corpus, packet: Packet) -> None:
    for encoding in Encoding:
        made = [b"".join(encode_piece(piece)) for piece in pieces_of(packet, encoding, base=HELD)]
        for body in made:
            corpus.add("piece", body)
        if len(made) < PIECES_MAX:
            files = [("head", head_of(packet)), *(("piece", body) for body in made)]
            corpus.add("pieces", write_bundle(files))


def _chunks_in(packet: LoosePacket) -> Iterator[bytes]:
    """The encoded chunks of a packet: every form that a writer of packets gives."""
    for item in packet.objects:
        if item.encoding and item.raw_bytes <= CHUNK_BYTES:
            based = item.base is not None
            for chunk in item.chunks:
                yield write_chunk(chunk.encoding, item.raw_bytes, chunk.body, base=based).body


def _split(path: Path, body: bytes) -> Iterator[list[tuple[str, bytes]]]:
    """The parts of a file, by layer and by bytes."""
    path.write_bytes(body)
    for number, how in enumerate(
        ({"by": "layer", "slice_bytes": None}, {"by": None, "slice_bytes": SPLIT_BYTES})
    ):
        out = path.with_suffix(f".{number}")
        out.mkdir()
        with redirect_stdout(io.StringIO()):
            split(path, out=out, as_json=True, **how)  # type: ignore[arg-type]
        found = [(part.name, part.read_bytes()) for part in sorted(out.iterdir())]
        if len(found) <= 6:
            yield found


def loosen(body: bytes) -> LoosePacket:
    """Take a sound packet apart."""
    packet = decode(body, held=HELD)
    sizes = [int.from_bytes(body[at : at + size], "little") for at, size in ((6, 2), (8, 4))]
    envelope = msgpack.unpackb(body[16 : 16 + sizes[0]], strict_map_key=False)
    objects = []
    for entry in packet.envelope.index:
        item = packet.objects[entry.digest]
        assert isinstance(item, CarriedObject)
        chunks = [
            LooseChunk(how, bytes(view), digest)
            for (how, view), digest in zip(item.bodies, item.chunks, strict=True)
        ]
        raw = bytes(item.buffer())
        objects.append(
            LooseObject(entry.raw_bytes, entry.encoding, entry.base, chunks, entry.digest, raw)
        )
    manifest = msgpack.unpackb(packet.manifest_bytes, strict_map_key=False)
    return LoosePacket(envelope, manifest, objects)


def take_apart(kind: str, body: bytes) -> Sample:
    """Return bytes with their tree, where they have one: those that are wrong deep inside do."""
    sample = Sample(body)
    try:
        match kind:
            case "packet" | "signed":
                sample.tree = loosen(body)
            case "manifest" | "plan" | "envelope":
                sample.tree = msgpack.unpackb(body, strict_map_key=False)
            case "record":
                sample.tree = msgpack.unpackb(body[96:], strict_map_key=False)
            case "layer":
                size = int.from_bytes(body[:4], "little")
                sample.tree = msgpack.unpackb(body[8 : 8 + size])
            case "safetensors":
                size = int.from_bytes(body[:8], "little")
                sample.tree = json.loads(body[8 : 8 + size])
            case "chunk" if len(body) >= CHUNK_HEAD.size:
                sample.tree = body
            case "piece":
                sample.tree = decode_piece(body)
            case "files" | "pieces":
                sample.files = read_bundle(body)
                sample.tree = sample.files or None
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return Sample(body)
    wanted = {"packet": LoosePacket, "signed": LoosePacket, "chunk": bytes}
    wanted |= {"piece": Piece, **dict.fromkeys(("layer", "files", "pieces"), list)}
    if not isinstance(sample.tree, wanted.get(kind, dict)):
        sample.tree = None
    return sample


def _chunks(rng: np.random.Generator) -> Iterator[bytes]:
    """Bodies of every encoding and width, with and without a base."""
    contents = {
        "floats": weights(rng, 1024).tobytes(),
        "base": BASE,
        "zeros": bytes(5000),
        "noise": rng.bytes(200),
        "odd": np.arange(2000).astype("<u2").tobytes() + b"abc",
        "ones": b"\x01",
        "whole": bytes(1 << 20),
    }
    for raw in contents.values():
        for encoding in Encoding:
            for width in (1, 2, 4, 8):
                for base in (None, BASE):
                    used, body = encode_chunk(raw, item_bytes=width, encoding=encoding, base=base)
                    if used == encoding and (used or (width == 1 and base is None)):
                        yield write_chunk(used, len(raw), bytes(body), base=base is not None).body


def _safetensors(rng: np.random.Generator) -> Iterator[bytes]:
    for layers in models(rng).values():
        for tensors in layers.values():
            try:
                yield b"".join(write_safetensors(tensors, {"format": "pt", "alias": "w"}))
            except ValueError:
                continue
    yield b"".join(write_safetensors({"x": np.ones((2, 3), "<f4")}))


def _vectors() -> Iterator[tuple[str, bytes]]:
    """Every vector as an input of its kind, the invalid ones too."""
    for path in sorted(VECTORS.glob("*valid/*.json")):
        vector = json.loads(path.read_text())
        body = bytes.fromhex(vector["hex"]) + bytes(vector["args"].get("zeros", 0))
        kind, args = vector["kind"], vector["args"]
        if kind == "chunk":
            head = CHUNK_HEAD.pack(args["encoding"] & 255, "base" in args, 0, args["raw_bytes"])
            body = head + body
        if kind in KINDS and len(body) < 4 * LARGE:
            yield kind, body
