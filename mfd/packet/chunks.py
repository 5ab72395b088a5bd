"""Raw chunks <-> their encodings on the wire, each chunk by itself.

Rules of this file: lossless always; what does not pay stays raw; a body never decodes to more than
the caller declared, and that memory is the only memory taken. Safe to call from many threads at
once: no state is shared, and numpy, zstd and the kernel let go of the interpreter while they work.
Source: spec/packet.md, section "Chunk encodings".
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from mfd.packet.coder import PAYS, PLANE_HEAD, read_planes, write_planes
from mfd.packet.delta import fitted
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.planes import UINTS, Code, merge, split
from mfd.packet.tensors import Buffer

if TYPE_CHECKING:
    from mfd.packet.layout import Run

__all__ = ["COMPACT", "NEEDS_BASE", "Encoding", "coded_share", "decode_chunk", "encode_chunk"]

HEAD = 4  # u8 item bytes, u8 code, 2 zero
DELTA_WINS = 0.6  # no weights fill fewer planes than that; above it both encodings are tried


class Encoding(IntEnum):
    """How a chunk's bytes are written on the wire."""

    RAW = 0
    PLANES = 1
    DELTA = 2
    INT8 = 3
    INT4 = 4
    SIGN = 5
    SPARSE = 6


IN_BLOCKS = (Encoding.INT8, Encoding.INT4, Encoding.SIGN)
COMPACT = (*IN_BLOCKS, Encoding.SPARSE)  # modules of their own, imported where they are needed
NEEDS_BASE = (Encoding.DELTA, Encoding.SIGN, Encoding.SPARSE)


def encode_chunk(
    raw: Buffer,
    *,
    item_bytes: int,
    encoding: Encoding = Encoding.PLANES,
    base: Buffer | None = None,
    floats: bool = True,
    runs: Sequence[Run] = (),
) -> tuple[Encoding, Buffer]:
    """Return the encoding used and the body: what was asked for, or what is smaller without it.

    `base` is the raw chunk of the same index of an object that the reader holds. A compact form
    that the content is not in gives way to DELTA where there is a base; DELTA gives way to PLANES,
    and these to RAW, which is `raw` itself. `item_bytes` (1, 2, 4 or 8) is the width of most
    elements in the chunk, `floats` tells their kind, `runs` (see Layout) where blocks of 64 begin;
    all three affect size alone.
    Raises: ValueError for an empty chunk, one above 1 MiB, or another width.
    """
    if not 0 < len(raw) <= CHUNK_BYTES:
        raise ValueError(f"a chunk of {len(raw)} bytes; 1 to {CHUNK_BYTES} are allowed")
    if item_bytes not in UINTS:
        raise ValueError(f"elements of {item_bytes} bytes; 1, 2, 4 or 8 are allowed")
    if encoding is Encoding.RAW:
        return Encoding.RAW, raw
    used, body = encoding, b""
    if encoding in IN_BLOCKS:
        from mfd.packet.blocks import encode_blocks

        body = encode_blocks(raw, encoding, runs, base) or b""
    elif encoding is Encoding.SPARSE and base is not None:
        from mfd.packet.sparse import encode_sparse

        body = encode_sparse(raw, item_bytes, base, floats=floats) or b""
    if not body and encoding is not Encoding.PLANES and base is not None:
        code = Code.FLOATS if floats else Code.INTEGERS
        used, body = Encoding.DELTA, _encode_planes(raw, item_bytes, code, base)
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
        Fault.BASE where the body builds upon a base and none is given.
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
    if encoding not in DECODERS:
        raise PacketError(Fault.ENCODING, f"number {encoding}")
    if len(body) >= raw_bytes:
        raise PacketError(Fault.ENCODING, "a body that is not shorter than raw")
    if encoding in NEEDS_BASE and base is None:
        raise PacketError(Fault.BASE, "a chunk that builds upon another")
    if out is None:
        out = np.empty(raw_bytes, np.uint8).data
    view = memoryview(body).cast("B")
    if encoding in IN_BLOCKS:
        from mfd.packet.blocks import decode_blocks

        decode_blocks(view, encoding, out, base)
    elif encoding == Encoding.SPARSE:
        from mfd.packet.sparse import decode_sparse

        assert base is not None
        decode_sparse(view, out, base)
    else:
        _decode_planes(view, out, base if encoding == Encoding.DELTA else None)
    return out


DECODERS = frozenset(Encoding) - {Encoding.RAW}


def coded_share(encoding: int, body: Buffer) -> float:
    """Return the share of a chunk's raw bytes that an entropy coder handles, 0 to 1.

    For bodies of PLANES and DELTA that `encode_chunk` made: what they cost depends on it.
    """
    if encoding not in (Encoding.PLANES, Encoding.DELTA):
        return 0.0
    width = body[0]
    return sum(body[HEAD + PLANE_HEAD * k + 3] >> 7 for k in range(width)) / width


def _encode_planes(raw: Buffer, width: int, code: Code, base: Buffer | None) -> bytes:
    """| u8 item bytes | u8 code | 2 zero | u32 per plane: its head | planes | tail |."""
    view = memoryview(raw).cast("B")
    end = len(view) // width * width
    planes = split(view[:end], width, code=code, base=None if base is None else fitted(base, end))
    return b"".join([bytes([width, code, 0, 0]), *write_planes(planes), view[end:]])


def _decode_planes(body: memoryview, out: memoryview, base: Buffer | None) -> None:
    width = body[0] if len(body) >= HEAD else 0
    codes = (Code.ROTATED,) if base is None else (Code.INTEGERS, Code.FLOATS)
    if width not in UINTS or body[1] not in codes or body[2:HEAD] != bytes(2):
        raise PacketError(Fault.ENCODING, "head of the planes")
    count = len(out) // width
    end = count * width
    planes, tail = read_planes(body, HEAD, [count] * width, len(out) - end)
    merge(planes, out[:end], code=Code(body[1]), base=None if base is None else fitted(base, end))
    out[end:] = tail
