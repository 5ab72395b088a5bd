"""The decoder in JavaScript, written from the text of packet.md, says what this one says.

It needs node and `npm ci --prefix spec`; without them these tests are skipped. One node process
reads everything.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mfd.packet import (
    DTYPES,
    CarriedObject,
    Encoding,
    Packet,
    PacketError,
    Tensor,
    commit,
    decode,
    decode_piece,
    encode,
    encode_piece,
    pieces_of,
    signing_input,
    version_of,
)
from tests.packet.keys import verify_ed25519

SPEC = Path(__file__).parents[2] / "spec"
VECTORS = sorted((SPEC / "vectors").glob("*valid/*.json"))
NODE = shutil.which("node")
SECONDS_MAX = 60
FLIPS = 60

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="the second decoder needs node (20 or newer)"),
    pytest.mark.skipif(
        not (SPEC / "node_modules" / "zstddec").is_dir(),
        reason="the second decoder needs its packages: npm ci --prefix spec",
    ),
]


class Key:
    """Ed25519 from a fixed seed."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, domain: str, body: bytes) -> bytes:
        return self._key.sign(signing_input(domain, body))


def of_every_type(rng: np.random.Generator) -> dict[str, Tensor]:
    """One tensor of each element type, with some of no elements and of no extents."""
    tensors = {}
    for at, (dtype, (size, _)) in enumerate(DTYPES.items()):
        shape = [(5, 3), (), (2, 0, 3), (17,)][at % 4]
        data = rng.integers(0, 2 if dtype == "bool" else 256, size * int(np.prod(shape)))
        tensors[f"t/{dtype}"] = Tensor(dtype, shape, memoryview(data.astype(np.uint8).tobytes()))
    return tensors


def weights(rng: np.random.Generator, dtype: str, count: int) -> Tensor:
    """Numbers as they lie in a trained layer: planes make them smaller."""
    values = rng.standard_normal(count) * 0.02
    if dtype == "bf16":
        high = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
        return Tensor("bf16", (count,), memoryview(high.tobytes()))
    return Tensor.of(values.astype(DTYPES[dtype][1]))


def make_packets() -> dict[str, tuple[Packet, bytes]]:
    """Signed packets by name, raw and in planes; some objects span many chunks."""
    rng = np.random.default_rng(7)
    models: dict[str, dict[str, dict[str, Any]]] = {
        "types": {"all": of_every_type(rng), "none": {}},
        "names": {"\u00e9\U0001f600": {"__proto__": np.ones(3, np.float32), "z" * 512: np.ones(1)}},
        "chunks": {
            "floats": {"w": weights(rng, "f32", 300_001), "ones": np.ones(9)},
            "halves": {"h": weights(rng, "f16", 600_000), "b": weights(rng, "bf16", 3_001)},
            "doubles": {"d": weights(rng, "f64", 20_003), "i": np.arange(70_001)},
            "bytes": {"u": rng.integers(0, 4, 99_999).astype(np.uint8)},
        },
    }
    packets = {}
    for name, layers in models.items():
        packet = signed(layers)
        for encoding in Encoding.RAW, Encoding.PLANES:
            body = b"".join(encode(packet, encoding))
            packets[f"{name}-{encoding.name.lower()}"] = packet, body
    return packets | make_based_packets(rng)


def make_based_packets(rng: np.random.Generator) -> dict[str, tuple[Packet, bytes]]:
    """Packets in compact forms and as differences; the first is what the others build upon."""
    old = {
        "long": {"w": weights(rng, "f32", 400_003), "b": weights(rng, "f32", 77)},
        "short": {"w": weights(rng, "f32", 900)},
    }
    moved = {
        layer: {
            name: (t.array() + rng.normal(0, 2e-5, t.shape)).astype("<f4")
            for name, t in tensors.items()
        }
        for layer, tensors in old.items()
    }
    halves = {"long": {"h": weights(rng, "f16", 300_001)}, "short": {"h": weights(rng, "bf16", 99)}}
    base = signed(old)
    packets = {"held": (base, b"".join(encode(base, Encoding.PLANES)))}
    for name, encoding, source, way in (
        ("based-delta", Encoding.DELTA, moved, None),
        ("based-int8", Encoding.INT8, moved, "delta-int8"),
        ("based-int4", Encoding.INT4, moved, "delta-int4"),
        ("based-sign", Encoding.SIGN, moved, "delta-sign"),
        ("based-sparse", Encoding.SPARSE, moved, "top-k"),
        ("alone-int8", Encoding.INT8, halves, "int8"),
        ("alone-int4", Encoding.INT4, halves, "int4"),
        # A chunk that was not committed goes as DELTA or PLANES beside others that were.
        ("mixed-int8", Encoding.INT8, {**moved, "long": old["long"]}, "int8-first"),
    ):
        under = base if name.startswith("based") else None
        if way == "int8-first":
            layers = {**source, "long": commit(source["long"], "int8").tensors}
            layers["long"]["a"] = weights(rng, "f32", 270_000)
        elif way:
            layers = {
                layer: commit(tensors, way, base=old[layer] if under else None).tensors
                for layer, tensors in source.items()
            }
        else:
            layers = source
        packet = signed(layers)
        packets[name] = packet, b"".join(encode(packet, encoding, base=under))
    return packets


def signed(layers: dict[str, dict[str, Any]]) -> Packet:
    claims = {"loss": 0.25, "samples": -7}
    return Packet.from_tensors(layers, signer=Key(), seq=3, claims=claims, software="t")


def flipped(body: bytes) -> list[bytes]:
    """Copies with one bit changed, each in another place."""
    dice = random.Random(11)
    copies = []
    for at in dice.sample(range(len(body)), FLIPS):
        copy = bytearray(body)
        copy[at] ^= 1 << dice.randrange(8)
        copies.append(bytes(copy))
    return copies


PACKETS = make_packets()
HELD = PACKETS["held"][0]
PIECES = [b"".join(encode_piece(piece)) for piece in pieces_of(HELD)]
DAMAGED = [copy for name in ("types-raw", "types-planes") for copy in flipped(PACKETS[name][1])]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What the second decoder says of each file, by the file's name."""
    folder = tmp_path_factory.mktemp("packets")
    bodies = {name: body for name, (_, body) in PACKETS.items()}
    bodies |= {f"damaged-{at}": body for at, body in enumerate(DAMAGED)}
    bodies |= {f"piece-{at}": body for at, body in enumerate(PIECES)}
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    files = [*VECTORS, *(folder / name for name in bodies)]
    assert NODE is not None
    done = subprocess.run(
        [
            NODE,
            str(SPEC / "decoder.mjs"),
            "--verify",
            "--held",
            str(folder / "held"),
            *map(str, files),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        lines.setdefault(line["file"], []).append(line)
    return {
        str(Path(file).relative_to(folder if file.startswith(str(folder)) else SPEC)): told
        for file, told in lines.items()
    }


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_second_decoder_reads_every_vector(
    path: Path, said: dict[str, list[dict[str, Any]]]
) -> None:
    """Rules: P-01, P-03, P-04, P-43, P-44, P-45, P-46, P-47"""
    vector = json.loads(path.read_text())
    (told,) = said[str(path.relative_to(SPEC))]
    if "fault" in vector:
        assert told.get("fault") == vector["fault"], told
    else:
        assert told.get("value") == vector["value"], told


@pytest.mark.parametrize("name", PACKETS)
def test_the_second_decoder_reads_these_packets(
    name: str, said: dict[str, list[dict[str, Any]]]
) -> None:
    """Rules: P-26, P-42, P-60, P-61, P-62"""
    packet, body = PACKETS[name]
    head, *rows = said[name]
    assert "fault" not in head, head
    assert head["version"] == version_of(packet.manifest_bytes).hex()
    assert head["signed"]
    assert head["manifest"]["claims"] == {"loss": 0.25, "samples": -7}
    found = {(row["layer"], row["name"]): row for row in rows}
    for layer, tensors in decode(body, held=HELD).tensors().items():
        for key, tensor in tensors.items():
            row = found.pop((layer, key))
            assert (row["dtype"], row["shape"]) == (tensor.dtype, list(tensor.shape))
            assert row["blake3"] == blake3(tensor.data).hexdigest()
    assert not found


@pytest.mark.parametrize("name", [n for n in PACKETS if n.startswith(("based", "alone", "mixed"))])
def test_the_forms_are_among_what_it_read(name: str) -> None:
    """Else the tests above would show less than they say.

    Rules: P-61
    """
    packet = decode(PACKETS[name][1], held=HELD)
    wanted = Encoding[name.partition("-")[2].upper()]
    used = {
        encoding
        for item in packet.objects.values()
        if isinstance(item, CarriedObject)
        for encoding, _ in item.bodies
    }
    assert wanted in used
    assert not name.startswith("mixed") or len(used) > 1
    assert any(entry.base for entry in packet.envelope.index) == name.startswith("based")


def test_it_reads_pieces(said: dict[str, list[dict[str, Any]]]) -> None:
    """Rules: P-90, P-91"""
    for at, body in enumerate(PIECES):
        (told,) = said[f"piece-{at}"]
        piece = decode_piece(body)
        assert told["body"] == piece.body.hex()
        assert (told["kind"], told["index"], told["encoding"]) == (
            piece.kind,
            piece.index,
            piece.encoding,
        )
        assert told["object"] == piece.object.hex()


def test_planes_are_among_what_it_read() -> None:
    """Else the tests above would show less than they say."""
    index = decode(PACKETS["chunks-planes"][1]).envelope.index
    assert [entry.encoding for entry in index] == [Encoding.PLANES] * 4
    assert sum(entry.chunk_count for entry in index) > len(index) + 1


def test_both_refuse_the_same_damaged_packets(said: dict[str, list[dict[str, Any]]]) -> None:
    """Rules: P-70"""
    for at, body in enumerate(DAMAGED):
        try:
            packet = decode(body, verify_ed25519)
            packet.check()
            packet.tensors()
        except PacketError:
            refused = True
        else:
            refused = False
        assert ("fault" in said[f"damaged-{at}"][0]) is refused, (at, said[f"damaged-{at}"])
