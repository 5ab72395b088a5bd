"""Write the test vectors of the compact forms, of bases and of pieces: `make_forms.py`, by hand.

Bodies are put together here from numbers, not by the encoder, so that a mistake in one shows in the
other. Form of the files: see make.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from struct import pack
from typing import Any

import numpy as np
from make import (
    ALICE,
    ENVELOPE,
    LAYER,
    MANIFEST,
    PLAN_RECORD,
    Vector,
    header,
    named,
    patched,
    planes,
    with_entry,
    write,
    zstd_frame,
)

from mfd.packet import (
    Encoding,
    LayerRef,
    Packet,
    encode,
    encode_manifest,
    pack_layer,
    version_of,
    wrap_object,
)

Case = tuple[str, str, str, bytes, dict[str, Any], Any]
Plane = tuple[bool, bytes]  # True: a zstd frame


def heads_and(bodies: Sequence[Plane]) -> bytes:
    """Return planes behind their heads."""
    heads = b"".join((len(body) | coded << 31).to_bytes(4, "little") for coded, body in bodies)
    return heads + b"".join(body for _, body in bodies)


def blocks(
    based: int, runs: Sequence[tuple[int, int, int]], bodies: Sequence[Plane], rest: bytes = b""
) -> bytes:
    """Return a body of INT8, INT4 or SIGN; a run is (first byte, type, elements)."""
    rows = b"".join(pack("<II", first, kind | items << 8) for first, kind, items in runs)
    return pack("<BBH", based, 0, len(runs)) + rows + heads_and(bodies) + rest


def sparse(width: int, code: int, gaps: bytes, bodies: Sequence[Plane], **other: Any) -> bytes:
    """Return a body of SPARSE."""
    changed = other.get("changed", len(bodies[0][1]))
    head = pack("<BBHII", width, code, 0, changed, other.get("gap_bytes", len(gaps)))
    return head + heads_and([(False, gaps), *bodies]) + other.get("tail", b"")


def bits(values: Any) -> str:
    """Return floats of 32 bits as hex."""
    return np.asarray(values, "<f4").tobytes().hex()


def raw(*parts: bytes) -> Plane:
    """Return a plane as it is."""
    return False, b"".join(parts)


def codes_of(values: Sequence[int]) -> bytes:
    """Return codes of 8 bits."""
    return bytes(value & 255 for value in values)


def nibbles_of(values: Sequence[int]) -> bytes:
    """Return codes of 4 bits, the even one of a pair in the low half."""
    even = [*values, 0][: len(values) + len(values) % 2]
    return bytes(
        (low & 15) | (high & 15) << 4 for low, high in zip(even[::2], even[1::2], strict=True)
    )


# 67 floats from byte 64 on: blocks of 64 and 3 elements, scales 0.5 and 2^-20, 12 bytes behind.
CODES = [i - 32 for i in range(64)] + [127, -127, 0]
SCALES = [0.5] * 64 + [2.0**-20] * 3
INT8 = blocks(
    0,
    [(64, 0, 67)],
    [raw(b"\x00\x80"), raw(b"\x3f\x35"), raw(codes_of(CODES))],
    bytes(range(64)) + b"twelve bytes",
)
INT8_RAW = (
    bytes(range(64)).hex()
    + bits([c * s for c, s in zip(CODES, SCALES, strict=True)])
    + b"twelve bytes".hex()
)
ARGS = {"encoding": 3, "raw_bytes": 64 + 268 + 12}

# The same codes upon a base that counts up: all zstd where it can be.
BASE = [1.0 + i / 8 for i in range(67)]
BASED = blocks(1, [(0, 0, 67)], [raw(b"\x00\x80"), raw(b"\x3f\x35"), raw(codes_of(CODES))])
BASED_ARGS = {"encoding": 3, "raw_bytes": 268, "base": bits(BASE)}

# 65 floats: a scale of 1.5 (0x3fc0) for 64, of 0.25 (0x3e80) for the last; codes -7 to 7.
SMALL = [(i % 15) - 7 for i in range(64)] + [-5]
INT4 = blocks(0, [(0, 0, 65)], [raw(b"\xc0\x80"), raw(b"\x3f\x3e"), raw(nibbles_of(SMALL))])
INT4_ARGS = {"encoding": 4, "raw_bytes": 260}

# 70 floats: steps of 2^-3 (e = 124) for 64, of 0 for 6; every third one down.
DOWN = [i % 3 == 0 for i in range(70)]
SIGNS = bytes(sum(DOWN[8 * i + j] << j for j in range(8) if 8 * i + j < 70) for i in range(9))
SIGN = blocks(1, [(0, 0, 70)], [raw(b"\x7c\x00"), raw(SIGNS)])
SIGN_ARGS = {"encoding": 5, "raw_bytes": 280, "base": bits([2.0] * 64 + [-0.0] * 6)}

# Of 600 floats of 1.0, numbers 2, 300 and 599 are 1, 2 and 3 floats further on.
SPARSE = sparse(4, 2, b"\x02\xff\x2a\xff\x2b", [raw(b"\x02\x04\x06"), *[raw(bytes(3))] * 3])
SPARSE_ARGS = {"encoding": 6, "raw_bytes": 2400, "base": "0000803f" * 600}


def valid() -> Iterator[Case]:
    """Yield (name, about, kind, bytes, args, value)."""
    yield "int8", "two blocks of floats, bytes on both sides", "chunk", INT8, ARGS, INT8_RAW
    sums = [np.float32(b) + np.float32(c * s) for b, c, s in zip(BASE, CODES, SCALES, strict=True)]
    yield "int8_based", "the same codes upon a base", "chunk", BASED, BASED_ARGS, bits(sums)
    halves = blocks(
        0,
        [(0, 1, 100), (256, 2, 100)],
        [(True, zstd_frame(0, 4)), raw(b"\x3c\x38\x3c\x40"), (True, zstd_frame(0xFD, 200))],
        bytes(56) + b"tail",
    )
    # q = -3; scales 2^-7, 2^-15 for f16; 2^-7, 2.0 for bf16
    value = (
        np.repeat(np.float16([-3 * 2.0**-7, -3 * 2.0**-15]), [64, 36]).tobytes().hex()
        + "00" * 56
        + (np.repeat(np.float32([-3 * 2.0**-7, -6.0]), [64, 36]).view("<u4") >> 16)
        .astype("<u2")
        .tobytes()
        .hex()
        + b"tail".hex()
    )
    args = {"encoding": 3, "raw_bytes": 200 + 56 + 200 + 4}
    yield "int8_halves", "runs of f16 and bf16, zstd frames", "chunk", halves, args, value
    two = blocks(
        0,
        [(0, 0, 65), (264, 0, 66)],
        [raw(b"\xc0\x80\xc0\x80"), raw(b"\x3f\x3e\x3f\x3e"), raw(nibbles_of([*SMALL, *SMALL, 7]))],
        b"four",
    )
    value = [q * (1.5 if i % 65 < 64 else 0.25) for i, q in enumerate([*SMALL, *SMALL])]
    value = [abs(v) if v == 0 else v for v in [*value, 1.75]]
    args = {"encoding": 4, "raw_bytes": 528}
    whole = bits(value[:65]) + b"four".hex() + bits(value[65:])
    yield "int4_runs", "two runs, the first of an odd number of codes", "chunk", two, args, whole
    values = [q * (1.5 if i < 64 else 0.25) for i, q in enumerate(SMALL)]
    values = [abs(v) if v == 0 else v for v in values]
    yield "int4", "an odd number of codes", "chunk", INT4, INT4_ARGS, bits(values)
    moved = [2.0 + (-0.125 if d else 0.125) for d in DOWN[:64]] + [0.0] * 6
    yield "sign", "steps of 1/8, and of 0 from -0", "chunk", SIGN, SIGN_ARGS, bits(moved)
    items = [0x3F800000] * 600
    items[2], items[300], items[599] = 0x3F800001, 0x3F800002, 0x3F800003
    value = b"".join(item.to_bytes(4, "little") for item in items).hex()
    yield "sparse", "gaps of one and two bytes", "chunk", SPARSE, SPARSE_ARGS, value
    wide = b"\x28\xb5\x2f\xfd\xc0\x68" + (128).to_bytes(8, "little") + b"\x03\x04\x00\x7f"
    body = planes(4, [*[(True, zstd_frame(0, 128))] * 3, (True, wide)])
    args = {"encoding": 1, "raw_bytes": 512}
    about = "a frame with a window of 8 MiB"
    yield "planes_window", about, "chunk", body, args, "0000803f" * 128
    same = sparse(2, 1, b"", [raw(), raw()], tail=b"\x05")
    args = {"encoding": 6, "raw_bytes": 31, "base": "07" * 31}
    yield "sparse_nothing", "no element changed, a tail", "chunk", same, args, "07" * 30 + "05"
    yield from valid_pieces()
    yield based_packet()


BASE_LAYER = pack_layer({"weight": np.ones(128, "<f4")})
NEXT_LAYER = pack_layer({"weight": np.nextafter(np.ones(128, "<f4"), np.float32(2))})


def based_packet() -> Case:
    """Return a packet whose layer is a DELTA."""
    head, entry = based()
    manifest = decode_version(head)
    layer = {"weight": ["f32", [128], "0100803f" * 128]}
    value = {"version": manifest, "layer": layer, "destination": "digits/train"}
    args = {"held": {BASE_LAYER.digest.hex(): BASE_LAYER.tobytes().hex()}}
    return "packet_based", "a layer as DELTA from one that is held", "packet", entry, args, value


def decode_version(packet: bytes) -> str:
    """Return the version of the packet's manifest."""
    start = 16 + int.from_bytes(packet[6:8], "little")
    return version_of(packet[start : start + int.from_bytes(packet[8:12], "little")]).hex()


def based() -> tuple[bytes, bytes]:
    """Return the packet with its layer raw, and with it as DELTA from BASE_LAYER."""
    manifest = replace(
        MANIFEST, layers=(LayerRef(0, "block", NEXT_LAYER.digest, NEXT_LAYER.raw_bytes),)
    )
    objects = [NEXT_LAYER, wrap_object(PLAN_RECORD)]
    packet = Packet.of(manifest, objects, signer=ALICE, envelope=ENVELOPE)
    plain = b"".join(encode(packet, Encoding.RAW))
    # The chunk: 16 elements of table, which are those of the base, and 128 with a difference of 1.
    steps = bytes(16) + bytes([2]) * 128
    body = planes(4, [raw(steps), *[(True, zstd_frame(0, 144))] * 3], code=2)
    row = NEXT_LAYER.chunks[0] + bytes([2, 0, 0, 0]) + len(body).to_bytes(4, "little")
    region = row + bytes(24) + body + bytes(-len(body) % 64)
    columns = {1: 2, 2: BASE_LAYER.digest, 3: len(region)}
    head = with_entry(columns, plain)
    at = head.index(NEXT_LAYER.chunks[0])
    return plain, head[:at] + region + head[at + 64 + NEXT_LAYER.raw_bytes :]


def piece(kind: int, body: bytes, **other: Any) -> bytes:
    """Return a piece of LAYER."""
    head = b"\x93MFP" + bytes([other.get("format", 1), kind, other.get("encoding", 0), 0])
    head += pack("<II", other.get("index", 0), other.get("body_bytes", len(body)))
    head += pack("<QQ", other.get("raw_bytes", LAYER.raw_bytes), 0)
    return head + LAYER.digest + other.get("base", bytes(32)) + body


LIST = piece(0, LAYER.chunks[0])
CHUNK = piece(1, LAYER.tobytes())


def valid_pieces() -> Iterator[Case]:
    """Yield a list, and a chunk that builds upon a base."""
    value = {
        "kind": 0,
        "object": LAYER.digest.hex(),
        "raw_bytes": LAYER.raw_bytes,
        "index": 0,
        "encoding": 0,
        "base": None,
        "body": LAYER.chunks[0].hex(),
    }
    yield "piece_list", "the list of one chunk", "piece", LIST, {}, value
    value = {**value, "kind": 1, "index": 2, "raw_bytes": 3 << 20, "encoding": 2}
    value = {**value, "base": "ab" * 32, "body": "c0ffee"}
    body = piece(
        1, b"\xc0\xff\xee", index=2, raw_bytes=3 << 20, encoding=2, base=bytes.fromhex("ab" * 32)
    )
    yield "piece_chunk", "the third chunk of three, a difference", "piece", body, {}, value


def invalid() -> Iterator[Case]:
    """Yield (name, about, kind, bytes, args, fault)."""
    yield from invalid_blocks()
    yield from invalid_codes()
    yield from invalid_sparse()
    yield from invalid_pieces()
    checked = b"\x28\xb5\x2f\xfd\xe4" + (128).to_bytes(8, "little") + b"\x03\x04\x00\x7f" + bytes(4)
    body = planes(4, [*[(True, zstd_frame(0, 128))] * 3, (True, checked)])
    args: dict[str, Any] = {"encoding": 1, "raw_bytes": 512}
    yield "chunk_checksum", "a frame whose checksum is wrong", "chunk", body, args, "ENCODING"
    refs = [[0, "a", LAYER.digest, 64], [1, "b", LAYER.digest, 128]]
    body = header(encode_manifest(MANIFEST), {8: refs})
    about = "one digest for objects of two sizes"
    yield "manifest_two_sizes", about, "manifest", body, {}, "FIELD"
    _, packet = based()
    yield "packet_no_base", "a base that is not held", "packet", packet, {}, "BASE"
    args = {"held": {BASE_LAYER.digest.hex(): BASE_LAYER.tobytes().hex()}}
    broken = patched(packet, packet.index(bytes([2]) * 128), b"\x04")
    yield "packet_based_content", "another difference", "packet", broken, args, "DIGEST"
    own = with_entry({1: 2, 2: LAYER.digest})
    args = {"held": {LAYER.digest.hex(): LAYER.tobytes().hex()}}
    yield "packet_own_base", "an object upon itself", "packet", own, args, "ENCODING"


def invalid_blocks() -> Iterator[Case]:
    """Yield bodies whose runs or heads are wrong."""
    scales = [raw(b"\x00\x80"), raw(b"\x3f\x35")]
    bodies = [*scales, raw(codes_of(CODES))]
    rest = bytes(76)
    cases: list[tuple[str, str, bytes]] = [
        ("short", "three bytes", INT8[:3]),
        ("based", "based is 2", patched(INT8, 0, b"\x02")),
        ("zero", "the zero byte is not", patched(INT8, 1, b"\x01")),
        ("cut_run", "256 runs told, one there", patched(INT8, 2, b"\x00\x01")),
        ("many_runs", "1,025 runs told", patched(INT8, 2, b"\x01\x04")),
        ("type", "a run of type 3", blocks(0, [(64, 3, 67)], bodies, rest)),
        ("empty_run", "a run of no elements", blocks(0, [(64, 0, 67), (340, 0, 0)], bodies, rest)),
        ("odd_place", "a run at byte 62", blocks(0, [(62, 0, 67)], bodies, rest)),
        ("beyond", "a run that ends 4 bytes behind", blocks(0, [(80, 0, 67)], bodies, rest)),
        (
            "overlap",
            "runs that overlap",
            blocks(0, [(0, 0, 64), (252, 0, 3)], bodies, bytes(344 - 268)),
        ),
        ("order", "runs that descend", blocks(0, [(256, 0, 3), (0, 0, 64)], bodies, rest)),
        ("rest", "the last byte is missing", INT8[:-1]),
        ("after", "a byte more", INT8 + b"\x00"),
        (
            "scale_size",
            "a plane of scales of three bytes",
            blocks(0, [(64, 0, 67)], [raw(b"\x00\x80\x00"), *bodies[1:]], rest[:-1]),
        ),
        (
            "bomb",
            "a frame that declares 2^40 codes",
            blocks(0, [(64, 0, 67)], [*scales, (True, zstd_frame(1, 67, declared=1 << 40))], rest),
        ),
    ]
    for name, about, body in cases:
        yield f"int8_{name}", about, "chunk", body, ARGS, "ENCODING"
    about = "type f16 upon a base"
    body = blocks(1, [(0, 1, 67)], bodies)
    yield "int8_based_type", about, "chunk", body, {**BASED_ARGS, "raw_bytes": 134}, "ENCODING"
    args = {key: value for key, value in BASED_ARGS.items() if key != "base"}
    yield "int8_no_base", "based, and no base", "chunk", BASED, args, "BASE"
    window = b"\x28\xb5\x2f\xfd\xc0\x70" + (67).to_bytes(8, "little") + b"\x1b\x02\x00\x01"
    body = blocks(0, [(64, 0, 67)], [*scales, (True, window)], rest)
    yield "int8_window", "a frame with a window of 16 MiB", "chunk", body, ARGS, "ENCODING"


def invalid_codes() -> Iterator[Case]:
    """Yield bodies whose scales, codes or results are wrong."""

    def of(low: bytes, high: bytes, codes: bytes = codes_of(CODES)) -> bytes:  # fmt: skip
        return blocks(0, [(64, 0, 67)], [raw(low), raw(high), raw(codes)], bytes(76))

    yield "int8_negative", "a scale of -0.5", "chunk", of(b"\0\0", b"\xbf\x3f"), ARGS, "ENCODING"
    yield "int8_minus_zero", "a scale of -0", "chunk", of(b"\0\0", b"\x80\x3f"), ARGS, "ENCODING"
    yield "int8_inf", "an infinite scale", "chunk", of(b"\x80\0", b"\x7f\x3f"), ARGS, "ENCODING"
    yield (
        "int8_nan",
        "a scale that is no number",
        "chunk",
        of(b"\xc0\0", b"\x7f\0"),
        ARGS,
        "ENCODING",
    )
    low = of(b"\0\0", b"\x3f\x3f", b"\x80" + bytes(66))
    yield "int8_code", "a code of -128", "chunk", low, ARGS, "ENCODING"
    high = of(b"\x7f\0", b"\x7f\x3f")
    yield "int8_large", "a product above the largest float", "chunk", high, ARGS, "ENCODING"
    fine = blocks(0, [(0, 1, 67)], [raw(b"\0\0"), raw(b"\x30\x30"), raw(codes_of(CODES))])
    args = {"encoding": 3, "raw_bytes": 134}
    yield "int8_inexact", "a product finer than f16", "chunk", fine, args, "ENCODING"
    args = {**BASED_ARGS, "base": "0000c07f" * 67}
    yield "int8_nan_base", "a base that is no number", "chunk", BASED, args, "ENCODING"
    top = blocks(1, [(0, 0, 67)], [raw(b"\0\0"), raw(b"\x7b\x7b"), raw(codes_of([127] * 67))])
    args = {**BASED_ARGS, "base": "ffff7f7f" * 67}
    yield "int8_large_sum", "a sum above the largest float", "chunk", top, args, "ENCODING"
    spare = patched(INT4, len(INT4) - 1, bytes([INT4[-1] | 0x10]))
    yield "int4_spare", "a code after the last", "chunk", spare, INT4_ARGS, "ENCODING"
    eight = patched(INT4, len(INT4) - 2, b"\x08")
    yield "int4_code", "a code of -8", "chunk", eight, INT4_ARGS, "ENCODING"
    plain = patched(SIGN, 0, b"\x00")
    yield "sign_plain", "signs without a base", "chunk", plain, SIGN_ARGS, "ENCODING"
    args = {key: value for key, value in SIGN_ARGS.items() if key != "base"}
    yield "sign_no_base", "no base", "chunk", SIGN, args, "BASE"
    inf = patched(SIGN, SIGN.index(b"\x7c\x00"), b"\xff")
    yield "sign_inf", "a step of e = 255", "chunk", inf, SIGN_ARGS, "ENCODING"
    spare = patched(SIGN, len(SIGN) - 1, bytes([SIGN[-1] | 0x80]))
    yield "sign_spare", "a sign after the last", "chunk", spare, SIGN_ARGS, "ENCODING"


def invalid_sparse() -> Iterator[Case]:
    """Yield bodies of SPARSE that are wrong."""
    steps = [raw(b"\x02\x04\x06"), *[raw(bytes(3))] * 3]
    gaps = b"\x02\xff\x2a\xff\x2b"
    cases: list[tuple[str, str, bytes]] = [
        ("short", "eleven bytes", SPARSE[:11]),
        ("width", "elements of 3 bytes", patched(SPARSE, 0, b"\x03")),
        ("code", "code 0", patched(SPARSE, 1, b"\x00")),
        ("zero", "the zero bytes are not", patched(SPARSE, 2, b"\x01")),
        ("cut", "the last byte is missing", SPARSE[:-1]),
        ("after", "a byte more", SPARSE + b"\x00"),
        ("changed", "more changes than elements", sparse(4, 2, gaps, steps, changed=601)),
        ("gap_bytes", "more bytes of gaps than can be", sparse(4, 2, gaps + b"\xff", steps)),
        ("few_gaps", "two gaps for three changes", sparse(4, 2, b"\x02\xff\xff\x2a", steps)),
        ("open_gap", "the last gap has no end", sparse(4, 2, b"\x02\x03\x04\xff", steps)),
        ("far", "a change behind the last element", sparse(4, 2, b"\x03\xff\x2a\xff\x2b", steps)),
        (
            "empty_frame",
            "a frame for a plane of no bytes",
            sparse(4, 2, b"", [(True, zstd_frame(0, 0)), *[raw()] * 3], changed=0),
        ),
    ]
    for name, about, body in cases:
        yield f"sparse_{name}", about, "chunk", body, SPARSE_ARGS, "ENCODING"
    args = {key: value for key, value in SPARSE_ARGS.items() if key != "base"}
    yield "sparse_no_base", "no base", "chunk", SPARSE, args, "BASE"


def invalid_pieces() -> Iterator[Case]:
    """Yield pieces that are to be refused."""
    cases: list[tuple[str, str, bytes, str]] = [
        ("empty", "no bytes", b"", "TRUNCATED"),
        ("magic", "the magic of a packet", patched(LIST, 3, b"D"), "MAGIC"),
        ("head", "95 bytes", LIST[:95], "TRUNCATED"),
        ("format", "format 2", piece(0, LAYER.chunks[0], format=2), "FORMAT"),
        ("kind", "kind 2", piece(2, LAYER.chunks[0]), "FORMAT"),
        ("zero", "the fourth byte of the kinds", patched(LIST, 7, b"\x01"), "PADDING"),
        ("zeros", "the u64 of zeros", patched(LIST, 31, b"\x01"), "PADDING"),
        ("large", "a body of 1 MiB and 1", piece(1, b"x", body_bytes=(1 << 20) + 1), "LIMIT"),
        ("nothing", "a body of no bytes", piece(1, b""), "LIMIT"),
        ("short", "the last byte is missing", CHUNK[:-1], "TRUNCATED"),
        ("long", "a byte more", CHUNK + b"\0", "TRAILING"),
        ("raw_bytes", "an object of no bytes", piece(1, b"x", raw_bytes=0), "FIELD"),
        ("index", "chunk 1 of 1", piece(1, b"x", index=1), "FIELD"),
        ("list", "33 bytes of digests", piece(0, bytes(33)), "FIELD"),
        ("long_list", "two digests for one chunk", piece(0, bytes(64)), "FIELD"),
        ("list_encoding", "a list in planes", piece(0, bytes(32), encoding=1), "FIELD"),
        ("list_base", "a list upon a base", piece(0, bytes(32), base=b"b" * 32), "FIELD"),
    ]
    for name, about, body, fault in cases:
        yield f"piece_{name}", about, "piece", body, {}, fault


def vectors() -> Iterator[Vector]:
    """Yield every vector."""
    yield from named(valid(), "valid", "value")
    yield from named(invalid(), "invalid", "fault")


if __name__ == "__main__":
    write(vectors())
