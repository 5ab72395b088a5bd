"""Raw chunks <-> their encodings on the wire, each chunk by itself.

Rules of this file: lossless always; what does not pay stays raw; a body never decodes to more than
the caller declared, and that memory is the only memory taken. Safe to call from many threads at
once: no state is shared, and numpy and zstd let go of the interpreter while they work.
Source: spec/packet.md, section "Chunk encodings".
"""

from __future__ import annotations

from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
import zstandard

from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import ALIGN_BYTES, CHUNK_BYTES
from mfd.packet.objects import DTYPES, HEAD_BYTES, Buffer, read_table

__all__ = ["Encoding", "decode_chunk", "encode_chunk", "item_bytes_at", "item_bytes_of"]

HEAD = 4  # u8 item bytes, 3 zero
PLANE_HEAD = 4  # u32: bytes of the plane's body, top bit set where it is a zstd frame
ZSTD_BIT = 1 << 31
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PROBE_BYTES = 16 << 10  # of each plane, coded first: most mantissa planes give up here
PAYS = 0.98  # a plane that keeps more than this share of its bytes is cheaper raw
# Almost no matches, so that what remains is zstd's Huffman coder: exponents have low entropy and
# no repeats. Against level 1: 9 % smaller, 2.8 times as fast (spec/rationale.md).
HUFFMAN = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST,
    min_match=7,
    hash_log=6,
    window_log=20,
    write_content_size=True,
    write_checksum=False,
    write_dict_id=False,
)
UINTS: dict[int, str] = {1: "|u1", 2: "<u2", 4: "<u4", 8: "<u8"}
# Complex numbers are pairs of floats.
ITEM_BYTES = {
    name: size // 2 if name.startswith("c") else size for name, (size, _) in DTYPES.items()
}

Array = np.ndarray[Any, Any]


class Encoding(IntEnum):
    """How a chunk's bytes are written on the wire."""

    RAW = 0
    PLANES = 1


def encode_chunk(
    raw: Buffer, *, item_bytes: int, encoding: Encoding = Encoding.PLANES
) -> tuple[Encoding, Buffer]:
    """Return the encoding used and the body; RAW and `raw` itself where coding does not pay.

    `item_bytes` (1, 2, 4 or 8) is the width of most elements in the chunk; it affects size alone.
    Raises: ValueError for an empty chunk, one above 1 MiB, or another width.
    """
    if not 0 < len(raw) <= CHUNK_BYTES:
        raise ValueError(f"a chunk of {len(raw)} bytes; 1 to {CHUNK_BYTES} are allowed")
    if item_bytes not in UINTS:
        raise ValueError(f"elements of {item_bytes} bytes; 1, 2, 4 or 8 are allowed")
    if encoding is Encoding.RAW:
        return Encoding.RAW, raw
    body = _encode_planes(raw, item_bytes)
    return (Encoding.PLANES, body) if len(body) < PAYS * len(raw) else (Encoding.RAW, raw)


def decode_chunk(encoding: int, body: Buffer, *, raw_bytes: int) -> Buffer:
    """Return exactly `raw_bytes` of raw content; a RAW body comes back as it is, uncopied.

    The digest is the caller's business.
    Raises: PacketError, whatever the body; Fault.LIMIT where raw_bytes is no chunk's size.
    """
    if not 0 < raw_bytes <= CHUNK_BYTES:
        raise PacketError(Fault.LIMIT, f"a chunk of {raw_bytes} bytes")
    if encoding == Encoding.RAW:
        if len(body) != raw_bytes:
            raise PacketError(Fault.ENCODING, f"raw chunk of {len(body)}, not {raw_bytes} bytes")
        return body
    if encoding != Encoding.PLANES:
        raise PacketError(Fault.ENCODING, f"number {encoding}")
    if len(body) >= raw_bytes:
        raise PacketError(Fault.ENCODING, "planes are not shorter than raw")
    return _decode_planes(memoryview(body).cast("B"), raw_bytes)


def _encode_planes(raw: Buffer, width: int) -> bytes:
    """| u8 item bytes | 3 zero | u32 per plane: its head | planes | bytes that fill no item |."""
    count = len(raw) // width
    items: Array = np.frombuffer(raw, dtype=UINTS[width], count=count)
    if width > 1:  # the sign leaves the byte of the exponent to the exponent alone
        items = (items << 1) | (items >> (8 * width - 1))
    heads, bodies = bytearray(), []
    for index in range(width):
        plane = np.empty(count, np.uint8)
        np.copyto(plane, items >> (8 * index), casting="unsafe")
        coded, body = _encode_plane(plane)
        heads += (len(body) | (ZSTD_BIT if coded else 0)).to_bytes(PLANE_HEAD, "little")
        bodies.append(body)
    tail = memoryview(raw).cast("B")[count * width :]
    return b"".join([bytes([width, 0, 0, 0]), heads, *bodies, tail])


def _encode_plane(plane: Array) -> tuple[bool, Buffer]:
    coder = zstandard.ZstdCompressor(compression_params=HUFFMAN)
    middle = max(0, len(plane) - PROBE_BYTES) // 2
    probe = plane[middle : middle + PROBE_BYTES]
    if len(coder.compress(probe.data)) > PAYS * len(probe):
        return False, plane.data
    body = coder.compress(plane.data)
    return (True, body) if len(body) < PAYS * len(plane) else (False, plane.data)


def _decode_planes(body: memoryview, raw_bytes: int) -> Buffer:
    width = body[0] if len(body) >= HEAD else 0
    start = HEAD + PLANE_HEAD * width
    if width not in UINTS or body[1:HEAD] != bytes(HEAD - 1) or len(body) < start:
        raise PacketError(Fault.ENCODING, "head of the planes")
    count = raw_bytes // width
    heads = [int.from_bytes(body[at : at + 4], "little") for at in range(HEAD, start, PLANE_HEAD)]
    tail_bytes = raw_bytes - count * width
    if start + sum(head & ~ZSTD_BIT for head in heads) + tail_bytes != len(body):
        raise PacketError(Fault.ENCODING, "planes do not fill their body")
    planes: list[Array] = []
    for head in heads:
        end = start + (head & ~ZSTD_BIT)
        planes.append(_decode_plane(body[start:end], bool(head & ZSTD_BIT), count))
        start = end
    merged = _merge(planes, width)
    if tail_bytes == 0:
        return merged.data.cast("B")
    return b"".join([merged.data.cast("B"), body[start:]])


def _decode_plane(body: memoryview, coded: bool, count: int) -> Array:
    if not coded:
        if len(body) != count:
            raise PacketError(Fault.ENCODING, f"plane of {len(body)}, not {count} bytes")
        return np.frombuffer(body, np.uint8)
    try:
        # A frame must tell its size, so that no more memory than that is ever taken.
        if body[:4] != ZSTD_MAGIC or zstandard.frame_content_size(body) != count:
            raise PacketError(Fault.ENCODING, f"zstd frame of other than {count} bytes")
        plane = zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise PacketError(Fault.ENCODING, "zstd frame") from exc
    if len(plane) != count:
        raise PacketError(Fault.ENCODING, f"zstd frame of other than {count} bytes")
    return np.frombuffer(plane, np.uint8)


def _merge(planes: list[Array], width: int) -> Array:
    """Put the planes, lowest byte first, together again and rotate right by one bit."""
    size = 1
    while size < width:  # pairs of bytes to u16, of u16 to u32: twice as fast as strided writes
        size *= 2
        wider = []
        for low, high in zip(planes[::2], planes[1::2], strict=True):
            items = high.astype(UINTS[size])
            items <<= 4 * size
            items |= low
            wider.append(items)
        planes = wider
    items = planes[0]
    return (items >> 1) | (items << (8 * width - 1)) if width > 1 else items


def item_bytes_of(layer: Buffer, raw_bytes: int | None = None) -> list[int]:
    """Return, for each chunk of a layer object, the width that holds most of its bytes.

    The first bytes up to the end of the table are enough where `raw_bytes` tells the object's size.
    An object that is no layer gives 1 throughout.
    """
    size = len(layer) if raw_bytes is None else raw_bytes
    chunks = -(-size // CHUNK_BYTES)
    try:
        table_bytes, rows = read_table(layer)
    except PacketError:
        return [1] * chunks
    counts: list[dict[int, int]] = [{} for _ in range(chunks)]
    offset = HEAD_BYTES + table_bytes
    for _, dtype, shape in rows:
        offset += -offset % ALIGN_BYTES
        end = min(offset + DTYPES[dtype][0] * prod(shape), size)
        while offset < end:
            index = offset // CHUNK_BYTES
            upto = min(end, (index + 1) * CHUNK_BYTES)
            width = ITEM_BYTES[dtype]
            counts[index][width] = counts[index].get(width, 0) + upto - offset
            offset = upto
    return [max(count, key=lambda w: (count[w], w)) if count else 1 for count in counts]


def item_bytes_at(layer: Buffer, chunk: int) -> int:
    """Return the element width for one chunk of a layer object, as `item_bytes_of` does for all."""
    return item_bytes_of(layer)[chunk]
