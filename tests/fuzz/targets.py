"""What is fuzzed: each line of TARGETS is one function from bytes to anything.

Rules of this file: a target takes bytes alone, and gives a value or raises one of its `errors`;
whatever else it does is a finding. To fuzz another decoder, write its line. `memory` follows from
the limits of spec/packet.md, section 10, and is held against the peak of resident memory.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from zlib import crc32

from mfd.cli import damage, differences, packets, parts
from mfd.cli.errors import CommandError
from mfd.net.keys import verify
from mfd.packet import (
    PLAN_DOMAIN,
    Assembly,
    Axes,
    Fault,
    PacketError,
    StreamDecoder,
    Verifier,
    decode,
    decode_chunk,
    decode_envelope,
    decode_manifest,
    decode_piece,
    decode_plan,
    encode_envelope,
    encode_manifest,
    encode_plan,
    object_digest,
    open_sealed,
    read_safetensors,
    survey,
    unpack_layer,
)
from mfd.packet.limits import PLAN_BYTES_MAX
from mfd.packet.objects import read_table
from tests.fuzz.forms import CHUNK_HEAD, read_bundle
from tests.fuzz.held import BASE, HELD
from tests.packet.keys import verify_hash

__all__ = ["TARGETS", "Target"]

MIB = 1 << 20
DECODED_BYTES_MAX = 4 * MIB  # what a packet here may come to
FILES_MAX = 8
PIECES_MAX = 32
SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,60}")

# The first check of each form: an input that ends there has not come far.
HEADERS = ("manifest", "plan", "envelope")
HEADER = (
    *(f"MSGPACK {name}" for name in HEADERS),
    *(f"MSGPACK {name} is not a map with integer keys" for name in HEADERS),
    *(f"LIMIT {name} of" for name in HEADERS),
)
LAYER = (
    "TRUNCATED layer object head", "TRUNCATED layer table", "PADDING layer object head",
    "LIMIT layer table of", "MSGPACK layer table",
)  # fmt: skip
PACKET = (
    "MAGIC", "FORMAT format", "FORMAT signature of", "TRUNCATED preamble", "TRUNCATED headers",
    "LIMIT manifest of", "PADDING after the signature",
)  # fmt: skip
CHUNK = (
    "LIMIT a chunk of", "ENCODING number", "ENCODING raw chunk of", "TRUNCATED input",
    "ENCODING planes are not shorter than raw", "BASE a chunk that is a delta",
    "ENCODING a body that is not shorter than raw", "BASE a chunk that builds upon another",
)  # fmt: skip
PIECE = ("MAGIC piece", "TRUNCATED head of a piece", "FORMAT piece of format")
RECORD = ("TRUNCATED record", "LIMIT record")
FORM = (
    "TRUNCATED safetensors length", "TRUNCATED safetensors header",
    "LIMIT safetensors header of", "FIELD safetensors header is not",
    "FIELD safetensors header is no map",
)  # fmt: skip
COMMAND = ("CommandError of the form", "Misuse")


@dataclass(frozen=True, slots=True)
class Target:
    """One function under test."""

    name: str
    run: Callable[[bytes], object]
    kind: str  # of samples in the corpus that it is fed with
    weight: int = 10  # how often, against the others
    memory: int = 16 * MIB  # peak above what was there before, in bytes ...
    per_byte: int = 8  # ... and this much more for each byte of input
    first: tuple[str, ...] = ()  # faults, with the words of their place, of the first check
    errors: tuple[type[Exception], ...] = (PacketError,)


def _packet(data: bytes, check: Verifier | None = None) -> None:
    packet = decode(data, check, held=HELD, decoded_bytes_max=DECODED_BYTES_MAX)
    packet.check()
    for layer in packet.tensors().values():
        for tensor in layer.values():
            tensor.array()
    if packet.manifest.plan in packet.objects:
        _plan_record(bytes(packet.object(packet.manifest.plan)))
    for ref in packet.manifest.layers:
        packet.object(ref.digest)  # those that it does not carry, too


def _signed_packet(data: bytes) -> None:
    _packet(data, verify)


def _outcome(read: Callable[[], object]) -> Fault | None:
    """How reading ends, as what other readers of the same bytes are to be held against."""
    try:
        read()
    except PacketError as exc:
        return exc.fault
    return None


def _stream(data: bytes) -> None:
    """In any cuts a stream is taken where the packet is, and refused where it is not."""

    def whole() -> None:
        decode(data, held=HELD, decoded_bytes_max=DECODED_BYTES_MAX).check()

    def parts() -> None:
        decoder = StreamDecoder(held=HELD, decoded_bytes_max=DECODED_BYTES_MAX)
        step = 1 + crc32(data[-64:]) % 5000
        for at in range(0, len(data), step):
            decoder.feed(data[at : at + step])
        decoder.close()

    fault = _outcome(whole)
    assert (_outcome(parts) is None) == (fault is None), fault
    if fault is not None:
        raise PacketError(fault)


def _survey(data: bytes) -> None:
    """What a survey calls good is good, and it calls a packet sound where it is."""
    found = survey(data, held=HELD, decoded_bytes_max=DECODED_BYTES_MAX)
    packet = found.assembly(held=HELD, decoded_bytes_max=DECODED_BYTES_MAX).packet()
    assert _outcome(packet.check) is None
    whole = decode(data, held=HELD, decoded_bytes_max=DECODED_BYTES_MAX)
    assert (_outcome(whole.check) is None) == found.sound


def _assembly(data: bytes) -> None:
    """Whatever the pieces, what is put together has its digests."""
    files = read_bundle(data)[:PIECES_MAX]
    if not files:
        raise PacketError(Fault.TRUNCATED, "input")
    head = decode(files[0][1], held=HELD, decoded_bytes_max=DECODED_BYTES_MAX)
    made = Assembly(head, held=HELD, decoded_bytes_max=DECODED_BYTES_MAX)
    faults = [_outcome(partial(made.add, body)) for _, body in files[1:]]
    before = set(made.missing())
    made.resume()
    assert set(made.missing()) <= before  # memory taken anew may hold the right bytes by luck
    packet = made.packet()
    for digest in packet.objects.keys() - head.objects.keys():
        assert object_digest(packet.object(digest)) == digest
    for fault in faults:
        if fault is not None:
            raise PacketError(fault, "a piece")


def _layer(data: bytes) -> None:
    for tensor in unpack_layer(data).values():
        tensor.array()


def _chunk(data: bytes) -> None:
    if len(data) < CHUNK_HEAD.size:
        raise PacketError(Fault.TRUNCATED, "input")
    encoding, base, _, raw_bytes = CHUNK_HEAD.unpack_from(data)
    body = memoryview(data)[CHUNK_HEAD.size :]
    raw = decode_chunk(encoding, body, raw_bytes=raw_bytes, base=BASE if base else None)
    assert len(raw) == raw_bytes


def _record(data: bytes) -> None:
    _, body = open_sealed(PLAN_DOMAIN, data, verify_hash, PLAN_BYTES_MAX)
    decode_plan(body)


def _plan_record(data: bytes) -> None:
    _, body = open_sealed(PLAN_DOMAIN, data, verify, PLAN_BYTES_MAX)
    decode_plan(body)


def _axes(data: bytes) -> None:
    """What a remote plan says may be cut of its model."""
    axes = Axes.of(decode_plan(data).recipe.get("axes"))
    for name in ("w", "layer.0.weight"):
        axes.cuts(name)


def _safetensors(data: bytes) -> None:
    found = read_safetensors(data)
    assert found.aliases is not None
    for tensor in found.tensors.values():
        tensor.array()


def _again(
    decoder: Callable[[bytes], object], encoder: Callable[..., bytes]
) -> Callable[[bytes], None]:
    """What a header's reader takes, its writer gives back to the byte."""

    def run(data: bytes) -> None:
        assert encoder(decoder(data)) == data

    return run


@cache
def _folder(process: int) -> Path:
    return Path(mkdtemp(prefix=f"mfd-fuzz-{process}-"))


def _written(data: bytes) -> list[Path]:
    folder = _folder(os.getpid())
    for old in folder.iterdir():
        old.unlink()
    paths = []
    for name, body in read_bundle(data)[:FILES_MAX]:
        if SAFE_NAME.fullmatch(name):
            paths.append(folder / name)
            paths[-1].write_bytes(body)
    return paths


def _command(run: Callable[[list[Path]], None]) -> Callable[[bytes], None]:
    """A command of `mfd packet` over the files of a bundle; what it prints goes nowhere."""

    def target(data: bytes) -> None:
        if paths := _written(data):
            with redirect_stdout(io.StringIO()):
                run(paths)

    return target


def _out(path: Path, ending: str) -> Path:
    return path.with_name(f"out{ending}")


def _inspect(paths: list[Path]) -> None:
    table = paths[0].stat().st_size % 8 == 0  # drawing it takes far longer than all the rest
    packets.inspect(paths[0], as_json=not table)


def _verify(paths: list[Path]) -> None:
    base = paths[1] if len(paths) > 1 else None
    damage.verify_file(paths[0], base=base, signed_only=False, as_json=True)


def _convert(paths: list[Path]) -> None:
    other = ".mfd" if paths[0].suffix == ".safetensors" else ".safetensors"
    out, base = _out(paths[0], other), paths[1] if len(paths) > 1 else None
    packets.convert(paths[0], out, encoding=None, base=base, link=None, as_json=True)


def _split(paths: list[Path]) -> None:
    parts.split(paths[0], by="layer", slice_bytes=None, out=None, as_json=False)


def _join(paths: list[Path]) -> None:
    parts.join(paths, _out(paths[0], ".mfd"), as_json=True)


def _diff(paths: list[Path]) -> None:
    differences.diff(paths[0], paths[-1], as_json=True)


def _cli(name: str, run: Callable[[list[Path]], None], weight: int = 1) -> Target:
    return Target(
        f"cli {name}", _command(run), "files", weight, 64 * MIB, 16, COMMAND, (CommandError,)
    )


def _read_table(data: bytes) -> None:
    read_table(data)


PACKET_MEMORY = 16 * MIB + 3 * DECODED_BYTES_MAX
MANIFEST_AGAIN = _again(decode_manifest, encode_manifest)
PLAN_AGAIN = _again(decode_plan, encode_plan)
ENVELOPE_AGAIN = _again(decode_envelope, encode_envelope)

TARGETS: tuple[Target, ...] = (
    Target("packet", _packet, "packet", 28, PACKET_MEMORY, first=PACKET),
    Target("signed packet", _signed_packet, "signed", 6, PACKET_MEMORY, first=PACKET),
    Target("stream", _stream, "packet", 8, PACKET_MEMORY, first=("MAGIC", "FORMAT")),
    Target("survey", _survey, "packet", 8, PACKET_MEMORY, first=PACKET),
    Target("piece", decode_piece, "piece", 12, first=PIECE),
    Target("assembly", _assembly, "pieces", 10, PACKET_MEMORY, first=PACKET),
    Target("manifest", decode_manifest, "manifest", 24, per_byte=80, first=HEADER),
    Target("plan", decode_plan, "plan", 20, per_byte=80, first=HEADER),
    Target("envelope", decode_envelope, "envelope", 20, per_byte=80, first=HEADER),
    Target("manifest again", MANIFEST_AGAIN, "manifest", 4, per_byte=160, first=HEADER),
    Target("plan again", PLAN_AGAIN, "plan", 4, per_byte=160, first=HEADER),
    Target("envelope again", ENVELOPE_AGAIN, "envelope", 4, per_byte=160, first=HEADER),
    Target("axes", _axes, "plan", 4, per_byte=80, first=HEADER, errors=(PacketError, ValueError)),
    Target("layer", _layer, "layer", 24, first=LAYER),
    Target("layer table", _read_table, "layer", 8, first=LAYER),
    Target("chunk", _chunk, "chunk", 40, first=CHUNK),
    Target("record", _record, "record", 8, per_byte=80, first=RECORD),
    Target("safetensors", _safetensors, "safetensors", 20, per_byte=48, first=FORM),
    _cli("inspect", _inspect),
    _cli("verify", _verify),
    _cli("convert", _convert),
    _cli("split", _split),
    _cli("join", _join, 2),
    _cli("diff", _diff),
)  # fmt: skip
