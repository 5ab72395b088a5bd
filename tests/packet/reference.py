"""A second reader of spec/packet.md, written from its text and slow: it shares no code with mfd.

It believes its input; refusing is the business of the first reader.
"""

from __future__ import annotations

from typing import Any

import msgpack
import zstandard
from blake3 import blake3

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


def undo(difference: int, base: int, bits: int, *, floats: bool) -> int:
    def turned(item: int) -> int:
        return item ^ ((1 << bits - 1) - 1) if floats and item >> bits - 1 else item

    step = -(difference + 1 >> 1) if difference % 2 else difference >> 1
    return turned((turned(base) + step) % (1 << bits))


def packet(data: bytes) -> tuple[dict[int, Any], dict[int, Any], bytes, dict[bytes, bytes]]:
    """envelope, manifest, signature, raw objects by digest"""
    envelope_end = 16 + le(data[6:8])
    manifest_end = envelope_end + le(data[8:12])
    at = manifest_end + le(data[12:14])
    signature = data[manifest_end:at]
    envelope = msgpack.unpackb(data[16:envelope_end], strict_map_key=False)
    manifest = msgpack.unpackb(data[envelope_end:manifest_end], strict_map_key=False)
    at += -at % 64
    objects = {}
    for name, _, _, _, count, raw_bytes in envelope[10]:
        rows = [data[at + 40 * i : at + 40 * (i + 1)] for i in range(count)]
        at += 40 * count
        raw = b""
        for row in rows:
            at += -at % 64
            size = le(row[36:40])
            raw += chunk(row[32], data[at : at + size], min(CHUNK, raw_bytes - len(raw)))
            at += size
        at += -at % 64
        objects[name] = raw
    return envelope, manifest, signature, objects
