"""A second reader of spec/packet.md, written from its text and slow: it shares no code with mfd.

It believes its input; refusing is the business of the first reader.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgpack
import zstandard
from blake3 import blake3

from tests.packet import exact

CHUNK = 1 << 20
WIDTHS = {
    "bool u8 i8 f8_e4m3fn f8_e5m2 f8_e4m3fnuz f8_e5m2fnuz f8_e8m0fnu f4_e2m1fn_x2": 1,
    "u16 i16 f16 bf16": 2,
    "u32 i32 f32 c32": 4,
    "u64 i64 f64 c64": 8,
    "c128": 16,
}


def le(data: bytes) -> int:
    return int.from_bytes(data, "little")


def digest(raw: bytes) -> bytes:
    chunks = [blake3(raw[at : at + CHUNK]).digest() for at in range(0, len(raw), CHUNK)]
    return blake3(b"mfd.object.v1" + len(raw).to_bytes(8, "little") + b"".join(chunks)).digest()


def layer(raw: bytes) -> dict[str, list[Any]]:
    """name -> [dtype, shape, hex]"""
    table_bytes = le(raw[:4])
    at, tensors = 8 + table_bytes, {}
    for name, dtype, shape in msgpack.unpackb(raw[8:at]):
        at += -at % 64
        size = next(width for names, width in WIDTHS.items() if dtype in names.split())
        for extent in shape:
            size *= extent
        tensors[name] = [dtype, shape, raw[at : at + size].hex()]
        at += size
    return tensors


def chunk(encoding: int, body: bytes, raw_bytes: int, base: bytes = b"") -> bytes:
    if encoding == 0:
        return body
    if encoding in (3, 4, 5):
        return blocks(encoding, body, raw_bytes, base + bytes(raw_bytes))
    if encoding == 6:
        return changes(body, raw_bytes, base + bytes(raw_bytes))
    width = body[0]
    count = raw_bytes // width
    at, planes = 4 + 4 * width, []
    for i in range(width):
        head = le(body[4 + 4 * i : 8 + 4 * i])
        size = head & 0x7FFFFFFF
        plane = body[at : at + size]
        planes.append(zstandard.ZstdDecompressor().decompress(plane) if head >> 31 else plane)
        at += size
    bits = 8 * width
    raw = bytearray()
    for i in range(count):
        item = sum(plane[i] << 8 * k for k, plane in enumerate(planes))
        if encoding == 2:
            there = le((base + bytes(raw_bytes))[i * width : (i + 1) * width])
            item = undo(item, there, bits, floats=body[1] == 2)
        elif width > 1:
            item = item >> 1 | (item & 1) << bits - 1
        raw += item.to_bytes(width, "little")
    return bytes(raw) + body[at:]


def read_planes(body: bytes, at: int, count: int) -> tuple[list[bytes], bytes]:
    """`count` planes whose heads begin at byte `at`, and what follows them"""
    heads = [le(body[at + 4 * i : at + 4 * i + 4]) for i in range(count)]
    at += 4 * count
    planes = []
    for head in heads:
        plane = body[at : at + (head & 0x7FFFFFFF)]
        at += len(plane)
        planes.append(zstandard.ZstdDecompressor().decompress(plane) if head >> 31 else plane)
    return planes, body[at:]


def blocks(encoding: int, body: bytes, raw_bytes: int, base: bytes) -> bytes:
    """INT8, INT4 and SIGN, in exact fractions"""
    runs = [
        (le(body[at : at + 4]), body[at + 4], le(body[at + 5 : at + 8]))
        for at in range(4, 4 + 8 * le(body[2:4]), 8)
    ]
    planes, rest = read_planes(body, 4 + 8 * len(runs), 2 if encoding == 5 else 3)
    *scale_planes, codes = planes
    raw, block, item = bytearray(), 0, 0
    for first, kind, items in runs:
        gap = first - len(raw)
        raw, rest = raw + rest[:gap], rest[gap:]
        for i in range(items):
            at = block + i // 64
            if encoding == 5:
                e = scale_planes[0][at]
                scale = Fraction(2) ** (e - 127) if e else Fraction(0)
                code = 1 - 2 * (codes[item // 8] >> item % 8 & 1)
            else:
                upper = bytes([0, 0, scale_planes[0][at], scale_planes[1][at]])
                ((scale, _),) = exact.read(upper, "f32")
                code = codes[item] if encoding == 3 else codes[item // 2] >> 4 * (item % 2) & 15
                bits = 8 if encoding == 3 else 4
                code -= code >> bits - 1 << bits
            value = code * scale
            if body[0]:
                ((there, _),) = exact.read(base[len(raw) : len(raw) + 4], "f32")
                value = exact.rounded(value + there)
            raw += exact.write([(value, value < 0)], ("f32", "f16", "bf16")[kind])
            item += 1
        block += -(-items // 64)
    return bytes(raw) + rest


def changes(body: bytes, raw_bytes: int, base: bytes) -> bytes:
    """SPARSE"""
    width, floats, changed = body[0], body[1] == 2, le(body[4:8])
    (gaps, *planes), tail = read_planes(body, 12, width + 1)
    count = raw_bytes // width
    raw = bytearray(base[: count * width])
    place = done = 0
    for gap in gaps:
        place += gap
        if gap < 255:
            item = sum(plane[done] << 8 * k for k, plane in enumerate(planes))
            at = place * width
            there = le(base[at : at + width])
            raw[at : at + width] = undo(item, there, 8 * width, floats=floats).to_bytes(
                width, "little"
            )
            place += 1
            done += 1
    assert done == changed
    return bytes(raw) + tail


def undo(difference: int, base: int, bits: int, *, floats: bool) -> int:
    def turned(item: int) -> int:
        return item ^ ((1 << bits - 1) - 1) if floats and item >> bits - 1 else item

    step = -(difference + 1 >> 1) if difference % 2 else difference >> 1
    return turned((turned(base) + step) % (1 << bits))


def packet(
    data: bytes, held: dict[bytes, bytes] | None = None
) -> tuple[dict[int, Any], dict[int, Any], bytes, dict[bytes, bytes]]:
    """envelope, manifest, signature, raw objects by digest"""
    envelope_end = 16 + le(data[6:8])
    manifest_end = envelope_end + le(data[8:12])
    at = manifest_end + le(data[12:14])
    signature = data[manifest_end:at]
    envelope = msgpack.unpackb(data[16:envelope_end], strict_map_key=False)
    manifest = msgpack.unpackb(data[envelope_end:manifest_end], strict_map_key=False)
    at += -at % 64
    objects = {}
    for name, _, base, _, count, raw_bytes in envelope[10]:
        under = (held or {}).get(base, b"")
        rows = [data[at + 40 * i : at + 40 * (i + 1)] for i in range(count)]
        at += 40 * count
        raw = b""
        for row in rows:
            at += -at % 64
            size = le(row[36:40])
            piece = under[len(raw) : len(raw) + CHUNK]
            raw += chunk(row[32], data[at : at + size], min(CHUNK, raw_bytes - len(raw)), piece)
            at += size
        at += -at % 64
        objects[name] = raw
    return envelope, manifest, signature, objects
