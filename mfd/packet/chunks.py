"""Raw chunks <-> their encodings on the wire, each chunk by itself.

Rules of this file: lossless always; what does not pay stays raw; a body never decodes to more than
the caller declared, and that memory is the only memory taken. Safe to call from many threads at
once: no state is shared, and numpy, zstd and the kernel let go of the interpreter while they work.
Source: spec/packet.md, section "Chunk encodings".
"""

from __future__ import annotations

from enum import IntEnum
from math import prod

import numpy as np
import zstandard

from mfd.packet.delta import Array, fitted
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import ALIGN_BYTES, CHUNK_BYTES
from mfd.packet.objects import DTYPES, HEAD_BYTES, Buffer, read_table
from mfd.packet.planes import UINTS, Code, merge, split

__all__ = [
    "Encoding",
    "coded_share",
    "decode_chunk",
    "encode_chunk",
    "item_bytes_at",
    "item_bytes_of",
    "items_of",
]

HEAD = 4  # u8 item bytes, u8 code, 2 zero
PLANE_HEAD = 4  # u32: bytes of the plane's body, top bit set where it is a zstd frame
ZSTD_BIT = 1 << 31
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PROBE_BYTES = 16 << 10  # of each plane, coded first: most mantissa planes give up here
PAYS = 0.98  # a plane that keeps more than this share of its bytes is cheaper raw
DELTA_WINS = 0.6  # no weights fill fewer planes than that; above it both encodings are tried
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
# Sign, exponent, mantissa: not two numbers in a byte, nor an exponent alone.
FLOATS = {n for n in DTYPES if n[0] in "fc" or n == "bf16"} - {"f4_e2m1fn_x2", "f8_e8m0fnu"}
# Complex numbers are pairs of floats.
ITEM_BYTES = {
    name: size // 2 if name.startswith("c") else size for name, (size, _) in DTYPES.items()
}


class Encoding(IntEnum):
    """How a chunk's bytes are written on the wire."""

    RAW = 0
    PLANES = 1
    DELTA = 2


def encode_chunk(
    raw: Buffer,
    *,
    item_bytes: int,
    encoding: Encoding = Encoding.PLANES,
    base: Buffer | None = None,
    floats: bool = True,
) -> tuple[Encoding, Buffer]:
    """Return the encoding used and the body: what was asked for, or what is smaller without it.

    DELTA needs `base`, the raw chunk of the same index of an object that the reader holds, and
    gives way to PLANES; PLANES give way to RAW, which is `raw` itself. `item_bytes` (1, 2, 4 or 8)
    is the width of most elements in the chunk, `floats` tells their kind; both affect size alone.
    Raises: ValueError for an empty chunk, one above 1 MiB, or another width.
    """
    if not 0 < len(raw) <= CHUNK_BYTES:
        raise ValueError(f"a chunk of {len(raw)} bytes; 1 to {CHUNK_BYTES} are allowed")
    if item_bytes not in UINTS:
        raise ValueError(f"elements of {item_bytes} bytes; 1, 2, 4 or 8 are allowed")
    if encoding is Encoding.RAW:
        return Encoding.RAW, raw
    used, body = encoding, b""
    if encoding is Encoding.DELTA and base is not None:
        body = _encode_planes(raw, item_bytes, Code.FLOATS if floats else Code.INTEGERS, base)
    if not body or len(body) > DELTA_WINS * len(raw):
        planes = _encode_planes(raw, item_bytes, Code.ROTATED, None)
        if not body or len(planes) <= len(body):
            used, body = Encoding.PLANES, planes
    return (used, body) if len(body) < PAYS * len(raw) else (Encoding.RAW, raw)


def decode_chunk(
    encoding: int,
    body: Buffer,
    *,
    raw_bytes: int,
    base: Buffer | None = None,
    out: memoryview | None = None,
) -> Buffer:
    """Return exactly `raw_bytes` of raw content; a RAW body comes back as it is, uncopied.

    With `out`, writable bytes of that size, the content is written there and `out` comes back.
    The digest is the caller's business.
    Raises: PacketError, whatever the body; Fault.LIMIT where raw_bytes is no chunk's size,
        Fault.BASE where the body is a DELTA and no base is given.
    """
    if not 0 < raw_bytes <= CHUNK_BYTES:
        raise PacketError(Fault.LIMIT, f"a chunk of {raw_bytes} bytes")
    if encoding == Encoding.RAW:
        if len(body) != raw_bytes:
            raise PacketError(Fault.ENCODING, f"raw chunk of {len(body)}, not {raw_bytes} bytes")
        if out is None:
            return body
        out[:] = body
        return out
    if encoding not in (Encoding.PLANES, Encoding.DELTA):
        raise PacketError(Fault.ENCODING, f"number {encoding}")
    if len(body) >= raw_bytes:
        raise PacketError(Fault.ENCODING, "planes are not shorter than raw")
    if encoding == Encoding.PLANES:
        base = None
    elif base is None:
        raise PacketError(Fault.BASE, "a chunk that is a delta")
    if out is None:
        out = np.empty(raw_bytes, np.uint8).data
    _decode_planes(memoryview(body).cast("B"), out, base)
    return out


def coded_share(encoding: int, body: Buffer) -> float:
    """Return the share of a chunk's raw bytes that an entropy coder handles, 0 to 1.

    For bodies that `encode_chunk` made: what they cost to make and to read depends on it.
    """
    if encoding == Encoding.RAW:
        return 0.0
    width = body[0]
    return sum(body[HEAD + PLANE_HEAD * k + 3] >> 7 for k in range(width)) / width


def _encode_planes(raw: Buffer, width: int, code: Code, base: Buffer | None) -> bytes:
    """| u8 item bytes | u8 code | 2 zero | u32 per plane: its head | planes | tail |."""
    view = memoryview(raw).cast("B")
    end = len(view) // width * width
    planes = split(view[:end], width, code=code, base=None if base is None else fitted(base, end))
    coder = zstandard.ZstdCompressor(compression_params=HUFFMAN)
    heads, bodies = bytearray(), []
    for plane in planes:
        coded, body = _encode_plane(plane, coder)
        heads += (len(body) | (ZSTD_BIT if coded else 0)).to_bytes(PLANE_HEAD, "little")
        bodies.append(body)
    return b"".join([bytes([width, code, 0, 0]), heads, *bodies, view[end:]])


def _encode_plane(plane: Array, coder: zstandard.ZstdCompressor) -> tuple[bool, Buffer]:
    middle = max(0, len(plane) - PROBE_BYTES) // 2
    probe = plane[middle : middle + PROBE_BYTES]
    if len(coder.compress(probe.data)) > PAYS * len(probe):
        return False, plane.data
    body = coder.compress(plane.data)
    return (True, body) if len(body) < PAYS * len(plane) else (False, plane.data)


def _decode_planes(body: memoryview, out: memoryview, base: Buffer | None) -> None:
    width = body[0] if len(body) >= HEAD else 0
    at = HEAD + PLANE_HEAD * width
    codes = (Code.ROTATED,) if base is None else (Code.INTEGERS, Code.FLOATS)
    if width not in UINTS or len(body) < at or body[1] not in codes or body[2:HEAD] != bytes(2):
        raise PacketError(Fault.ENCODING, "head of the planes")
    count = len(out) // width
    heads = [int.from_bytes(body[i : i + 4], "little") for i in range(HEAD, at, PLANE_HEAD)]
    end = count * width
    if at + sum(head & ~ZSTD_BIT for head in heads) + len(out) - end != len(body):
        raise PacketError(Fault.ENCODING, "planes do not fill their body")
    coder = zstandard.ZstdDecompressor()
    planes: list[Array] = []
    for head in heads:
        size = head & ~ZSTD_BIT
        planes.append(_decode_plane(body[at : at + size], head >= ZSTD_BIT, count, coder))
        at += size
    merge(planes, out[:end], code=Code(body[1]), base=None if base is None else fitted(base, end))
    out[end:] = body[at:]


def _decode_plane(
    body: memoryview, coded: bool, count: int, coder: zstandard.ZstdDecompressor
) -> Array:
    if not coded:
        if len(body) != count:
            raise PacketError(Fault.ENCODING, f"plane of {len(body)}, not {count} bytes")
        return np.frombuffer(body, np.uint8)
    try:
        # A frame must tell its size, so that no more memory than that is ever taken.
        if body[:4] != ZSTD_MAGIC or zstandard.frame_content_size(body) != count:
            raise PacketError(Fault.ENCODING, f"zstd frame of other than {count} bytes")
        plane = coder.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise PacketError(Fault.ENCODING, "zstd frame") from exc
    if len(plane) != count:
        raise PacketError(Fault.ENCODING, f"zstd frame of other than {count} bytes")
    return np.frombuffer(plane, np.uint8)


def item_bytes_of(layer: Buffer, raw_bytes: int | None = None) -> list[int]:
    """Return, for each chunk of a layer object, the width that holds most of its bytes.

    The first bytes up to the end of the table are enough where `raw_bytes` tells the object's size.
    An object that is no layer gives 1 throughout.
    """
    return [width for width, _ in items_of(layer, raw_bytes)]


def items_of(layer: Buffer, raw_bytes: int | None = None) -> list[tuple[int, bool]]:
    """Return for each chunk what `item_bytes_of` does, and whether those elements are floats."""
    size = len(layer) if raw_bytes is None else raw_bytes
    chunks = -(-size // CHUNK_BYTES)
    try:
        table_bytes, rows = read_table(layer)
    except PacketError:
        return [(1, False)] * chunks
    counts: list[dict[int, int]] = [{} for _ in range(chunks)]
    floats: list[dict[int, int]] = [{} for _ in range(chunks)]  # of each width, bytes of floats
    offset = HEAD_BYTES + table_bytes
    for _, dtype, shape in rows:
        offset += -offset % ALIGN_BYTES
        end = min(offset + DTYPES[dtype][0] * prod(shape), size)
        while offset < end:
            index = offset // CHUNK_BYTES
            upto = min(end, (index + 1) * CHUNK_BYTES)
            width = ITEM_BYTES[dtype]
            counts[index][width] = counts[index].get(width, 0) + upto - offset
            if dtype in FLOATS:
                floats[index][width] = floats[index].get(width, 0) + upto - offset
            offset = upto
    return [_most(*pair) for pair in zip(counts, floats, strict=True)]


def _most(count: dict[int, int], floats: dict[int, int]) -> tuple[int, bool]:
    if not count:
        return 1, False
    width = max(count, key=lambda w: (count[w], w))
    return width, 2 * floats.get(width, 0) >= count[width]


def item_bytes_at(layer: Buffer, chunk: int) -> int:
    """Return the element width for one chunk of a layer object, as `item_bytes_of` does for all."""
    return item_bytes_of(layer)[chunk]
