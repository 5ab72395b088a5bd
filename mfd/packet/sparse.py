"""Chunks of which few elements differ from a base: where those are, and by how much.

    | u8 w | u8 code | u16 zero | u32 changed | u32 gap bytes | head of the gaps | heads of planes |
    | gaps | planes | tail |

Rules of this file: lossless; sizes are checked before memory is taken; no loop over elements.
Source: spec/packet.md, section "Chunk encodings" (P-84).
"""

from __future__ import annotations

from struct import Struct

import numpy as np

from mfd.packet.coder import read_planes, write_planes
from mfd.packet.delta import Array, apply, difference, fitted
from mfd.packet.errors import Fault, PacketError
from mfd.packet.planes import UINTS, Code
from mfd.packet.tensors import Buffer

__all__ = ["decode_sparse", "encode_sparse"]

HEAD = Struct("<BBHII")
LONG = 255  # a byte that stands for so many elements, with more to come
DENSE = 8  # where more than one element in eight has changed, planes of all are smaller


def encode_sparse(raw: Buffer, width: int, base: Buffer, *, floats: bool) -> bytes | None:
    """Return the body of a raw chunk, or None where too much of it has changed."""
    view = memoryview(raw).cast("B")
    end = len(view) // width * width
    items = np.frombuffer(view[:end], UINTS[width])
    under = np.frombuffer(fitted(base, end), UINTS[width])
    places = np.flatnonzero(items != under)
    if places.size * DENSE > items.size:
        return None
    gaps = _gap_bytes(np.diff(places, prepend=-1) - 1)
    steps = difference(items[places], under[places], floats=floats)
    planes = [np.ascontiguousarray(plane) for plane in steps.view(np.uint8).reshape(-1, width).T]
    code = Code.FLOATS if floats else Code.INTEGERS
    head = HEAD.pack(width, code, 0, places.size, gaps.size)
    return b"".join([head, *write_planes([gaps, *planes]), view[end:]])


def _gap_bytes(gaps: Array) -> Array:
    """Write each gap as full bytes of 255 and one byte below that."""
    ends = np.cumsum(gaps // LONG + 1)
    found = np.full(int(ends[-1]) if ends.size else 0, LONG, np.uint8)
    found[ends - 1] = gaps % LONG
    return found


def decode_sparse(body: memoryview, out: memoryview, base: Buffer) -> None:
    """Write the raw chunk of a body to `out`, which is as long as the chunk.

    Raises: PacketError with Fault.ENCODING, whatever the body.
    """
    if len(body) < HEAD.size:
        raise PacketError(Fault.ENCODING, "head of the changes")
    width, code, zero, changed, gap_bytes = HEAD.unpack_from(body)
    if width not in UINTS or code not in (Code.INTEGERS, Code.FLOATS) or zero:
        raise PacketError(Fault.ENCODING, "head of the changes")
    count = len(out) // width
    end = count * width
    if changed > count or not changed <= gap_bytes <= changed + count // LONG:
        raise PacketError(Fault.ENCODING, "numbers of the changes")
    sizes = [gap_bytes] + [changed] * width
    (gaps, *planes), tail = read_planes(body, HEAD.size, sizes, len(out) - end)
    places = _places(gaps, changed, count)
    under = np.frombuffer(fitted(base, end), UINTS[width])
    items = np.frombuffer(out[:end], UINTS[width])
    np.copyto(items, under)
    steps = np.stack(planes, axis=1).view(UINTS[width]).reshape(-1)
    items[places] = apply(steps, under[places], floats=code == Code.FLOATS)
    out[end:] = tail


def _places(gaps: Array, changed: int, count: int) -> Array:
    """Return where the changed elements are."""
    ends = np.flatnonzero(gaps != LONG)
    if ends.size != changed or (gaps.size and gaps[-1] == LONG):
        raise PacketError(Fault.ENCODING, "gaps that are not as many as the changes")
    places: Array = np.cumsum(gaps, dtype=np.int64)[ends] + np.arange(changed)
    if changed and places[-1] >= count:
        raise PacketError(Fault.ENCODING, "gaps that lead beyond the chunk")
    return places
