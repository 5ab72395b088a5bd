"""Planes of bytes <-> their bodies: as they are, or under zstd where that pays.

    | u32 head of plane 0 | u32 head of plane 1 | ... | plane 0 | plane 1 | ... |
    head = bytes of the body, top bit set where it is a zstd frame

Rules of this file: a frame tells its size before memory is taken, and nothing else is taken. The C
kernel writes and reads frames of Huffman codes alone; what has another form is zstd's affair, and
each reads what the other wrote.
Source: spec/packet.md, section "Chunk encodings" (P-43, P-44).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import zstandard

from mfd.packet.delta import Array
from mfd.packet.errors import Fault, PacketError
from mfd.packet.tensors import Buffer

try:
    from mfd.packet import _huffman
except ImportError:
    native: ModuleType | None = None
else:
    native = _huffman

__all__ = ["HUFFMAN", "PAYS", "PLANE_HEAD", "ZSTD_BIT", "native", "read_planes", "write_planes"]

PLANE_HEAD = 4
ZSTD_BIT = 1 << 31
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
WINDOW_BYTES_MAX = 8 << 20  # what RFC 8878 asks of every reader (section 3.1.1.1.2)
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


def write_planes(planes: Sequence[Array]) -> list[Buffer]:
    """Return the heads of all planes as one part, then their bodies."""
    coder = zstandard.ZstdCompressor(compression_params=HUFFMAN)
    heads, bodies = bytearray(), []
    for plane in planes:
        coded, body = _write(plane, coder)
        heads += (len(body) | (ZSTD_BIT if coded else 0)).to_bytes(PLANE_HEAD, "little")
        bodies.append(body)
    return [heads, *bodies]


def _write(plane: Array, coder: zstandard.ZstdCompressor) -> tuple[bool, Buffer]:
    if native is not None and (frame := native.compress(plane)) is not None:
        return (True, frame) if len(frame) < PAYS * len(plane) else (False, plane.data)
    if len(plane) > PROBE_BYTES:
        middle = (len(plane) - PROBE_BYTES) // 2
        if len(coder.compress(plane[middle : middle + PROBE_BYTES].data)) > PAYS * PROBE_BYTES:
            return False, plane.data
    if len(plane) == 0:
        return False, b""
    body = coder.compress(plane.data)
    return (True, body) if len(body) < PAYS * len(plane) else (False, plane.data)


def read_planes(
    body: memoryview, at: int, sizes: Sequence[int], rest: int
) -> tuple[list[Array], memoryview]:
    """Return planes of `sizes` bytes whose heads begin at byte `at`, and the last `rest` bytes.

    Raises: PacketError with Fault.ENCODING, whatever the body.
    """
    end = at + PLANE_HEAD * len(sizes)
    if len(body) < end:
        raise PacketError(Fault.ENCODING, "heads of the planes")
    heads = [int.from_bytes(body[i : i + PLANE_HEAD], "little") for i in range(at, end, PLANE_HEAD)]
    if end + sum(head & ~ZSTD_BIT for head in heads) + rest != len(body):
        raise PacketError(Fault.ENCODING, "planes do not fill their body")
    coder = zstandard.ZstdDecompressor()
    planes: list[Array] = []
    for head, count in zip(heads, sizes, strict=True):
        size = head & ~ZSTD_BIT
        planes.append(_read(body[end : end + size], head >= ZSTD_BIT, count, coder))
        end += size
    return planes, body[end:]


def _read(body: memoryview, coded: bool, count: int, coder: zstandard.ZstdDecompressor) -> Array:
    if not coded:
        if len(body) != count:
            raise PacketError(Fault.ENCODING, f"plane of {len(body)}, not {count} bytes")
        return np.frombuffer(body, np.uint8)
    if not count:
        raise PacketError(Fault.ENCODING, "zstd frame for a plane of no bytes")
    if native is not None and native.decompress(body, out := np.empty(count, np.uint8)):
        return out
    try:
        # A frame must tell its size, so that no more memory than that is ever taken.
        frame = zstandard.get_frame_parameters(body)
        if body[:4] != ZSTD_MAGIC or frame.content_size != count:
            raise PacketError(Fault.ENCODING, f"zstd frame of other than {count} bytes")
        if frame.window_size > WINDOW_BYTES_MAX:
            raise PacketError(Fault.ENCODING, f"zstd frame with a window of {frame.window_size}")
        plane = coder.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise PacketError(Fault.ENCODING, "zstd frame") from exc
    if len(plane) != count:
        raise PacketError(Fault.ENCODING, f"zstd frame of other than {count} bytes")
    return np.frombuffer(plane, np.uint8)
