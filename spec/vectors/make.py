"""Write the test vectors of packet.md: `python spec/vectors/make.py`. Deterministic.

One JSON file a vector: `about`, `kind` (what to read it as), `hex`, `args`, and either `value` (in
valid/) or `fault` (in invalid/). zstd frames are built by hand, so no library's version shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mfd.packet import (
    PLAN_DOMAIN,
    Encoding,
    Envelope,
    LayerRef,
    Manifest,
    Packet,
    Plan,
    Progress,
    Scale,
    Tensor,
    encode,
    encode_envelope,
    encode_manifest,
    encode_plan,
    object_digest,
    pack_layer,
    seal,
    signing_input,
    version_of,
    wrap_object,
)

Vector = tuple[str, dict[str, Any]]  # path below this folder, content


class Key:
    """Ed25519 from a fixed seed: for test vectors only."""

    def __init__(self, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, domain: str, body: bytes) -> bytes:
        """Return the signature of packet.md, section 4."""
        return self._key.sign(signing_input(domain, body))


ALICE = Key(1)
TENSORS = {
    "weight": np.arange(6, dtype="<f4").reshape(2, 3),
    "bias": Tensor("bf16", (2,), memoryview(bytes.fromhex("803f00c0"))),
    "steps": np.array(7, dtype="<i8"),
    "none": np.zeros((0, 4), dtype="<f2"),
}
LAYER = pack_layer(TENSORS)
PLAN = Plan(
    recipe={"zoo": "cnn", "inputs": [1, 8, 8]},
    names=("digits/train",),
    home=ALICE.public_key,
    learn={"lr": 0.001, "epochs": 1},
)
PLAN_RECORD = seal(PLAN_DOMAIN, encode_plan(PLAN), ALICE)
MANIFEST = Manifest(
    walker=b"\x11" * 32,
    model=b"\x22" * 32,
    seq=5,
    layers=(LayerRef(0, "block", LAYER.digest, LAYER.raw_bytes),),
    plan=object_digest(PLAN_RECORD),
    trainer=ALICE.public_key,
    parents=(b"\x33" * 32,),
    trained=((0, 1),),
    scale=Scale(0.5, 3, 8),
    progress=Progress(lap=1, cursor=0, step=40, stops=4, holders=3, visited=(b"\x44" * 8,)),
    claims={"samples": 128, "loss": 0.5, "norm": float("inf")},
    software="mfd 0.1",
    extra={7: ["kept", {"a": 1}]},
)
ENVELOPE = Envelope(destination="digits/train", hop_limit=9, trace=bytes(range(16)))


def zstd_frame(value: int, count: int, *, declared: int | None = None) -> bytes:
    """Return a frame of `count` (below 2^20) equal bytes that declares `declared` of them."""
    size = (count if declared is None else declared).to_bytes(8, "little")
    block = (count << 3 | 0b011).to_bytes(3, "little") + bytes([value])
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + size + block


def planes(
    width: int, bodies: list[tuple[bool, bytes]], tail: bytes = b"", *, code: int = 0
) -> bytes:
    """Return a PLANES body, or a DELTA body where there is a code; True marks a zstd frame."""
    heads = b"".join((len(b) | coded << 31).to_bytes(4, "little") for coded, b in bodies)
    return bytes([width, code, 0, 0]) + heads + b"".join(b for _, b in bodies) + tail


# 128 floats of 1.0 = 0x3f800000; rotated left by one bit: 0x7f000000
ONES = planes(4, [(True, zstd_frame(value, 128)) for value in (0, 0, 0, 0x7F)])
# Every float is the next one above its base: a difference of 1, which zig-zag writes as 2.
NEXT = planes(4, [(True, zstd_frame(value, 128)) for value in (2, 0, 0, 0)], code=2)


def layer_bytes(rows: Any, regions: bytes = b"") -> bytes:
    """Return a layer object with any table."""
    table = rows if isinstance(rows, bytes) else msgpack.packb(rows)
    head = len(table).to_bytes(4, "little") + bytes(4) + table
    return head + bytes(-len(head) % 64) + regions


def packet_bytes(encoding: Encoding = Encoding.RAW, **changes: Any) -> bytearray:
    """Return a signed packet with its layer and its plan record."""
    manifest = replace(MANIFEST, **changes)
    packet = Packet.of(manifest, [LAYER, wrap_object(PLAN_RECORD)], signer=ALICE, envelope=ENVELOPE)
    return bytearray(b"".join(encode(packet, encoding)))


def with_entry(change: dict[int, Any], packet: bytes | None = None) -> bytes:
    """Return a packet whose first index entry has other columns."""
    packet = packet_bytes() if packet is None else packet
    size = int.from_bytes(packet[6:8], "little")
    fields = msgpack.unpackb(packet[16 : 16 + size], strict_map_key=False)
    for column, value in change.items():
        fields[10][0][column] = value
    envelope = msgpack.packb(fields)
    head_end = 16 + size + int.from_bytes(packet[8:12], "little") + 64
    head = packet[:6] + len(envelope).to_bytes(2, "little") + packet[8:16] + envelope
    head += packet[16 + size : head_end]
    return bytes(head) + bytes(-len(head) % 64) + bytes(packet[head_end + -head_end % 64 :])


def with_more_room() -> bytes:
    """Return a packet whose first object has 64 zeros behind its last chunk."""
    packet = with_entry({3: LAYER.raw_bytes + 128})
    end = packet.index(LAYER.tobytes()) + LAYER.raw_bytes
    return packet[:end] + bytes(64) + packet[end:]


def header(body: bytes, change: dict[int, Any], drop: int | None = None) -> bytes:
    """Return a header with other fields."""
    fields = msgpack.unpackb(body, strict_map_key=False) | change
    return msgpack.packb({key: fields[key] for key in sorted(fields) if key != drop})


def patched(source: bytes, at: int, value: bytes) -> bytes:
    """Return a copy with some bytes replaced."""
    return source[:at] + value + source[at + len(value) :]


def valid() -> Iterator[tuple[str, str, str, bytes, dict[str, Any], Any]]:
    """Yield (name, about, kind, bytes, args, value)."""
    tensors = {k: Tensor.of(v) for k, v in TENSORS.items()}
    layer = {k: [t.dtype, list(t.shape), t.data.hex()] for k, t in tensors.items()}
    yield "layer", "four tensors, one empty, one a scalar", "layer", LAYER.tobytes(), {}, layer
    two = bytes(i % 251 for i in range((1 << 20) + 1))
    yield (
        "digest",
        "raw content is byte i = i mod 251; value: its digest",
        "digest",
        b"",
        {"raw_bytes": len(two)},
        object_digest(two).hex(),
    )
    body = encode_manifest(MANIFEST)
    value: Any = {"version": version_of(body).hex(), "claims": {**MANIFEST.claims, "norm": "inf"}}
    yield "manifest", "every field, one unknown odd key", "manifest", body, {}, value
    value = {"names": list(PLAN.names), "recipe": PLAN.recipe, "laps": PLAN.laps}
    yield "plan", "defaults", "plan", encode_plan(PLAN), {}, value
    parts = replace(PLAN, order="sweep", layers_per_stop=0, first=True, body=(1, 4))
    yield "plan_parts", "the fields 31 and 33", "plan", encode_plan(parts), {}, value
    args: dict[str, Any] = {"domain": PLAN_DOMAIN, "limit": 65536}
    value = {"key": ALICE.public_key.hex(), "body": encode_plan(PLAN).hex()}
    yield "record", "a plan record", "record", PLAN_RECORD, args, value
    args = {"encoding": 1, "raw_bytes": 512}
    yield "planes", "128 floats of 1.0", "chunk", ONES, args, "0000803f" * 128
    mixed = planes(2, [(False, bytes(range(100))), (True, zstd_frame(5, 100))], b"\x09")
    raw = b"".join(((0x500 | i) >> 1 | (i & 1) << 15).to_bytes(2, "little") for i in range(100))
    args = {"encoding": 1, "raw_bytes": 201}
    yield "planes_tail", "a raw plane and a tail", "chunk", mixed, args, (raw + b"\x09").hex()
    yield from valid_deltas()
    value = {"version": version_of(body).hex(), "layer": layer, "destination": "digits/train"}
    yield "packet", "signed, raw, with layer and plan", "packet", bytes(packet_bytes()), {}, value


def valid_deltas() -> Iterator[tuple[str, str, str, bytes, dict[str, Any], Any]]:
    """Yield the DELTA chunks: floats that cross zero and are not numbers, wrapping integers."""
    pairs = [
        ("0000803f", "0100803f"),  # 1.0 and the next float
        ("00000080", "00000000"),  # -0.0 and 0.0
        ("01000080", "00000080"),  # the largest float below -0.0, and -0.0
        ("ffff7f7f", "0000807f"),  # the largest finite float and infinity
        ("000080ff", "ffff7fff"),  # minus infinity and the smallest finite float
        ("4523c17f", "4623c17f"),  # NaNs with payloads
    ]
    old, new = ("".join(column) * 22 for column in zip(*pairs, strict=True))
    args = {"encoding": 2, "raw_bytes": 512, "base": old[:1024]}
    about = "128 floats, each the next one above its base"
    yield "delta", about, "chunk", NEXT, args, new[:1024]
    # Plus 1, minus 1, 0, minus 2, minus 128: from 0xffff for 100 elements, then from 0.
    written = bytes([2, 1, 0, 3, 255]) * 40
    body = planes(2, [(False, written), (True, zstd_frame(0, 200))], b"\x09", code=1)
    steps = [1, -1, 0, -2, -128] * 40
    sums = [step + (0xFFFF if i < 100 else 0) for i, step in enumerate(steps)]
    raw = b"".join((value % 0x10000).to_bytes(2, "little") for value in sums)
    args = {"encoding": 2, "raw_bytes": 401, "base": "ff" * 200}
    about = "16-bit integers that wrap, a base of half the size, a tail"
    yield "delta_integers", about, "chunk", body, args, (raw + b"\x09").hex()


def invalid() -> Iterator[tuple[str, str, str, bytes, dict[str, Any], str]]:
    """Yield (name, about, kind, bytes, args, fault)."""
    yield from invalid_layers()
    yield from invalid_headers()
    yield from invalid_chunks()
    yield from invalid_packets()


def invalid_layers() -> Iterator[tuple[str, str, str, bytes, dict[str, Any], str]]:
    """Yield the layer objects that are to be refused."""
    good = LAYER.tobytes()
    row = ["a", "f4", [1]]
    cases: list[tuple[str, str, bytes, str]] = [
        ("short", "the last byte is missing", good[:-1], "TRUNCATED"),
        ("long", "64 bytes too many", good + bytes(64), "TRAILING"),
        ("zero", "the second u32 is 1", patched(good, 4, b"\x01"), "PADDING"),
        ("padding", "padding of 0xff", good[:-1] + b"\xff", "PADDING"),
        ("table_size", "a table of 2^32 - 1 bytes", b"\xff" * 4 + bytes(60), "LIMIT"),
        ("no_list", "the table is a map", layer_bytes({}), "MSGPACK"),
        ("deep", "lists in lists", layer_bytes(b"\x91" * 2000), "MSGPACK"),
        ("spelling", "extent 1 as u8", layer_bytes(b"\x91\x93\xa1a\xa3f32\x91\xcc\x01"), "MSGPACK"),
        ("row", "a row of two", layer_bytes([row[:2]]), "FIELD"),
        ("count", "2^32 - 1 rows", layer_bytes(b"\xdd\xff\xff\xff\xff"), "LIMIT"),
        ("dtype", "an unknown type", layer_bytes([row]), "DTYPE"),
        ("negative", "an extent of -1", layer_bytes([["a", "u8", [-1]]]), "SHAPE"),
        ("order", "b before a", layer_bytes([["b", "u8", [0]], ["a", "u8", [0]]]), "ORDER"),
        ("twice", "a and a", layer_bytes([["a", "u8", [0]], ["a", "u8", [0]]]), "ORDER"),
        ("huge", "2^41 bytes", layer_bytes([["a", "u16", [1 << 40]]]), "LIMIT"),
        ("hollow", "0 x 2^40 x 2^40", layer_bytes([["a", "u8", [0, 1 << 40, 1 << 40]]]), "LIMIT"),
        ("rank", "17 extents", layer_bytes([["a", "u8", [1] * 17]]), "LIMIT"),
    ]
    for name, about, body, fault in cases:
        yield f"layer_{name}", about, "layer", body, {}, fault


def invalid_headers() -> Iterator[tuple[str, str, str, bytes, dict[str, Any], str]]:
    """Yield the manifests, plans, envelopes and records that are to be refused."""
    good = encode_manifest(MANIFEST)
    ref = [0, "block", LAYER.digest, LAYER.raw_bytes]
    twins = [ref, [1, *ref[1:]]]
    progress = [0, 0, 0, 0, 0, bytes(7), b""]
    many = [bytes([i]) * 32 for i in range(65)]
    nested: Any = 1
    for _ in range(8):
        nested = [nested]
    cases: list[tuple[str, str, str, bytes, str]] = [
        ("empty", "no bytes", "manifest", b"", "MSGPACK"),
        ("short", "cut in the middle", "manifest", good[:100], "MSGPACK"),
        ("after", "a byte after the map", "manifest", good + b"\xc0", "MSGPACK"),
        ("no_map", "a list", "manifest", b"\x90", "MSGPACK"),
        ("text_key", "a text as key", "manifest", b"\x81\xa1a\x00", "MSGPACK"),
        ("order", "keys descend", "manifest", b"\x82\x02\x00\x00\x00", "MSGPACK"),
        ("nan", "not a number", "manifest", header(good, {1: {"a": float("nan")}}), "FIELD"),
        ("bool", "seq is true", "manifest", header(good, {4: True}), "FIELD"),
        ("missing", "no seq", "manifest", header(good, {}, 4), "FIELD"),
        ("critical", "unknown key 100", "manifest", header(good, {100: 0}), "CRITICAL"),
        ("nesting", "nine deep", "manifest", header(good, {101: nested}), "LIMIT"),
        ("parents", "one parent twice", "manifest", header(good, {6: [bytes(32)] * 2}), "ORDER"),
        ("many", "65 parents", "manifest", header(good, {6: many}), "LIMIT"),
        ("index", "layer 0 has index 1", "manifest", header(good, {8: twins[1:]}), "ORDER"),
        ("names", "two layers of one name", "manifest", header(good, {8: twins}), "ORDER"),
        ("range", "layers 0 to 1 of 1", "manifest", header(good, {14: [[0, 2]]}), "FIELD"),
        ("overlap", "ranges overlap", "manifest", header(good, {14: [[0, 1], [0, 1]]}), "ORDER"),
        ("scale", "2/4 is 1/2", "manifest", header(good, {16: [2, 4, 0, 0]}), "FIELD"),
        ("visited", "seven bytes", "manifest", header(good, {20: progress}), "FIELD"),
        ("kind", "kind 7", "manifest", header(good, {10: 7}), "FIELD"),
    ]
    plan = encode_plan(PLAN)
    envelope = encode_envelope(ENVELOPE)
    back = {14: "boustrophedon", 16: 0}
    cases += [
        ("plan_laps", "no laps", "plan", header(plan, {12: 0}), "FIELD"),
        ("plan_mode", "an unknown mode", "plan", header(plan, {6: "swim"}), "FIELD"),
        ("plan_recipe", "bytes in the recipe", "plan", header(plan, {0: {"a": b"x"}}), "FIELD"),
        ("plan_names", "a name twice", "plan", header(plan, {2: ["a", "a"]}), "ORDER"),
        ("plan_learn", "a list in learn", "plan", header(plan, {26: {"a": []}}), "FIELD"),
        ("plan_first", "a default written out", "plan", header(plan, {31: False}), "FIELD"),
        ("plan_body", "an empty range", "plan", header(plan, {33: [2, 2]}), "FIELD"),
        ("plan_way_back", "0 layers, there and back", "plan", header(plan, back), "FIELD"),
        ("envelope_hops", "hop limit 256", "envelope", header(envelope, {2: 256}), "FIELD"),
        ("envelope_target", "31 bytes", "envelope", header(envelope, {0: bytes(31)}), "FIELD"),
    ]
    for name, about, kind, body, fault in cases:
        full = name if "_" in name and kind != "manifest" else f"{kind}_{name}"
        yield full, about, kind, body, {}, fault
    yield "manifest_large", "32,769 zeros", "manifest", b"", {"zeros": 32769}, "LIMIT"
    yield "plan_large", "65,537 zeros", "plan", b"", {"zeros": 65537}, "LIMIT"
    args = {"domain": PLAN_DOMAIN, "limit": 65536}
    yield "record_short", "95 bytes", "record", PLAN_RECORD[:95], args, "TRUNCATED"
    flipped = PLAN_RECORD[:-1] + bytes([PLAN_RECORD[-1] ^ 1])
    yield "record_forged", "one bit of the body", "record", flipped, args, "SIGNATURE"
    yield "record_large", "above its limit", "record", PLAN_RECORD, {**args, "limit": 9}, "LIMIT"
    args = {**args, "domain": "mfd.manifest.v1"}
    yield "record_domain", "another domain", "record", PLAN_RECORD, args, "SIGNATURE"


def invalid_chunks() -> Iterator[tuple[str, str, str, bytes, dict[str, Any], str]]:
    """Yield the chunk bodies that are to be refused."""
    frame = zstd_frame(0, 128)
    three = [(True, frame)] * 3
    checks: list[tuple[str, str, int, bytes, int, str]] = [
        ("number", "encoding 7", 7, bytes(9), 10, "ENCODING"),
        ("raw", "nine bytes for ten", 0, bytes(9), 10, "ENCODING"),
        ("size", "2 MiB", 0, bytes(9), 2 << 20, "LIMIT"),
        ("nothing", "0 bytes", 0, b"", 0, "LIMIT"),
        ("longer", "108 bytes for 100", 1, planes(1, [(False, bytes(100))]), 100, "ENCODING"),
        ("width", "elements of 3 bytes", 1, patched(ONES, 0, b"\x03"), 512, "ENCODING"),
        ("head", "the zero bytes are not", 1, patched(ONES, 1, b"\x01"), 512, "ENCODING"),
        ("short", "the last byte is missing", 1, ONES[:-1], 512, "ENCODING"),
        ("other_size", "decodes to 512, not 508", 1, ONES, 508, "ENCODING"),
        (
            "bomb",
            "a frame that declares 2^40 bytes",
            1,
            planes(4, [*three, (True, zstd_frame(0, 128, declared=1 << 40))]),
            512,
            "ENCODING",
        ),
        (
            "liar",
            "a frame that declares 128 and holds 1,000 bytes",
            1,
            planes(4, [*three, (True, zstd_frame(0, 1000, declared=128))]),
            512,
            "ENCODING",
        ),
        ("after", "a byte more", 1, planes(4, [*three, (True, frame + b"0")]), 512, "ENCODING"),
        ("no_zstd", "no frame", 1, planes(4, [*three, (True, b"0" * 17)]), 512, "ENCODING"),
        (
            "skippable",
            "a skippable frame",
            1,
            planes(4, [*three, (True, b"\x50\x2a\x4d\x18" + bytes(4))]),
            512,
            "ENCODING",
        ),
    ]
    for name, about, encoding, body, raw_bytes, fault in checks:
        args = {"encoding": encoding, "raw_bytes": raw_bytes}
        yield f"chunk_{name}", about, "chunk", body, args, fault
    args = {"encoding": 2, "raw_bytes": 512}
    yield "chunk_no_base", "a delta without its base", "chunk", NEXT, args, "BASE"
    args = {**args, "base": "00" * 512}
    yield "chunk_no_code", "a delta of code 0", "chunk", ONES, args, "ENCODING"
    yield "chunk_code", "a delta of code 3", "chunk", patched(NEXT, 1, b"\x03"), args, "ENCODING"
    cut = "a delta without its last byte"
    yield "chunk_delta_short", cut, "chunk", NEXT[:-1], args, "ENCODING"


def invalid_packets() -> Iterator[tuple[str, str, str, bytes, dict[str, Any], str]]:
    """Yield the packets that are to be refused."""
    good = bytes(packet_bytes())
    unsigned = Packet.of(MANIFEST, [LAYER], envelope=ENVELOPE)
    partial = Packet.of(MANIFEST, [], signer=ALICE, envelope=ENVELOPE)
    body_at = good.index(LAYER.tobytes())
    table_at = good.index(LAYER.chunks[0])
    manifest_at = 16 + int.from_bytes(good[6:8], "little")
    cases: list[tuple[str, str, bytes, str]] = [
        ("empty", "no bytes", b"", "TRUNCATED"),
        ("magic", "another magic", b"PK" + good[2:], "MAGIC"),
        ("version", "format 2", patched(good, 4, b"\x02"), "FORMAT"),
        ("flags", "flag 1", patched(good, 5, b"\x01"), "FORMAT"),
        ("reserved", "the last u16 is 1", patched(good, 14, b"\x01"), "FORMAT"),
        ("manifest", "a manifest of 2^32 - 1 bytes", patched(good, 8, b"\xff" * 4), "LIMIT"),
        ("signature", "a signature of 63 bytes", patched(good, 12, b"\x3f"), "FORMAT"),
        ("short", "the last byte is missing", good[:-1], "TRUNCATED"),
        ("long", "64 bytes too many", good + bytes(64), "TRAILING"),
        ("padding", "padding of 0xff", good[:-1] + b"\xff", "PADDING"),
        ("forged", "one bit of the manifest", patched(good, manifest_at + 4, b"\x99"), "SIGNATURE"),
        ("unsigned", "no signature, a verifier", b"".join(encode(unsigned)), "SIGNATURE"),
        ("content", "one byte of a tensor", patched(good, body_at + 200, b"\x99"), "DIGEST"),
        ("table", "one byte of a chunk digest", patched(good, table_at, b"\x99"), "DIGEST"),
        (
            "chunk",
            "a RAW body of another size",
            patched(good, table_at + 36, b"\xff\0"),
            "ENCODING",
        ),
        ("table_zero", "the zero bytes are not", patched(good, table_at + 33, b"\x01"), "PADDING"),
        ("base", "a base", with_entry({2: bytes(32)}), "BASE"),
        ("encoding", "encoding 77", with_entry({1: 77}), "ENCODING"),
        ("delta", "a delta from nothing", with_entry({1: 2}), "ENCODING"),
        ("stranger", "an object without a name", with_entry({0: bytes(32)}), "FIELD"),
        ("other_size", "other raw bytes", with_entry({5: LAYER.raw_bytes + 1}), "FIELD"),
        ("chunks", "two chunks for one", with_entry({4: 2}), "FIELD"),
        ("region", "64 encoded bytes more", with_more_room(), "TRAILING"),
        ("twice", "an object twice", with_entry({0: object_digest(PLAN_RECORD)}), "ORDER"),
    ]
    for name, about, body, fault in cases:
        yield f"packet_{name}", about, "packet", body, {}, fault
    about = "asked for a layer that is not carried"
    yield "packet_absent", about, "packet", b"".join(encode(partial)), {"layer": 0}, "OBJECT"


def named(found: Iterable[Any], kind_of: str, last: str) -> Iterator[Vector]:
    """Turn cases into files: `last` is `value` in valid/, `fault` in invalid/."""
    for name, about, kind, body, args, told in found:
        content = {"about": about, "kind": kind, "hex": body.hex(), "args": args, last: told}
        yield f"{kind_of}/{name}.json", content


def vectors() -> Iterator[Vector]:
    """Yield every vector."""
    yield from named(valid(), "valid", "value")
    yield from named(invalid(), "invalid", "fault")


def write(made: Iterable[Vector]) -> None:
    """Write files beside this one."""
    here = Path(__file__).parent
    for path, content in made:
        (here / path).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    write(vectors())
