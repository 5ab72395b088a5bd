"""Bytes of elements <-> byte planes: plane i holds byte i, the lowest is 0, of every element.

Rules of this file: the C kernel and numpy give the same bytes; `_planes` is there where a compiler
was when the package was installed, and MFD_NATIVE=0 was not in the environment when it was loaded.
Source: spec/packet.md, section "Chunk encodings" (P-42, P-45).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from types import ModuleType

import numpy as np

from mfd.packet.delta import Array, apply, difference
from mfd.packet.tensors import Buffer

try:
    from mfd.packet import _planes
except ImportError:
    native: ModuleType | None = None
else:
    native = _planes

__all__ = ["UINTS", "Code", "merge", "native", "split"]

RUN = 1 << 15  # elements numpy works on at a time: what it makes meanwhile stays in the cache
UINTS: dict[int, str] = {1: "|u1", 2: "<u2", 4: "<u4", 8: "<u8"}


class Code(IntEnum):
    """What is split into planes: elements rotated left by one bit, or their differences."""

    ROTATED = 0
    INTEGERS = 1
    FLOATS = 2


def split(
    raw: Buffer, width: int, *, code: Code = Code.ROTATED, base: Buffer | None = None
) -> list[Array]:
    """Return the `width` planes of elements that fill `raw` exactly.

    `base` has the size of `raw`, and is given unless the code is ROTATED.
    """
    count = len(raw) // width
    out = np.empty(len(raw), np.uint8)
    planes = [out[k * count : (k + 1) * count] for k in range(width)]
    if native is not None:
        native.split(raw, base, width, code, out)
        return planes
    items: Array = np.frombuffer(raw, UINTS[width])
    there = None if base is None else np.frombuffer(base, UINTS[width])
    for run in _runs(count):
        some = items[run]
        if there is not None:
            some = difference(some, there[run], floats=code is Code.FLOATS)
        elif width > 1:
            some = (some << 1) | (some >> (8 * width - 1))
        for index, plane in enumerate(planes):
            np.copyto(plane[run], some >> (8 * index), casting="unsafe")
    return planes


def merge(
    planes: Sequence[Array],
    out: memoryview,
    *,
    code: Code = Code.ROTATED,
    base: Buffer | None = None,
) -> None:
    """Undo `split`: write the elements to `out`, of as many bytes as all planes together."""
    width = len(planes)
    if native is not None:
        native.merge(tuple(planes), base, width, code, out)
        return
    items: Array = np.frombuffer(out, UINTS[width])
    there = None if base is None else np.frombuffer(base, UINTS[width])
    for run in _runs(len(items)):
        some = _join([plane[run] for plane in planes])
        if there is not None:
            some = apply(some, there[run], floats=code is Code.FLOATS)
        elif width > 1:
            some = (some >> 1) | (some << (8 * width - 1))
        items[run] = some


def _runs(count: int) -> list[slice]:
    return [slice(at, at + RUN) for at in range(0, count, RUN)]


def _join(planes: Sequence[Array]) -> Array:
    """Put bytes together, the lowest first."""
    size = 1
    while len(planes) > 1:  # pairs of bytes to u16, of u16 to u32: twice as fast as strided writes
        size *= 2
        wider = []
        for low, high in zip(planes[::2], planes[1::2], strict=True):
            items = high.astype(UINTS[size])
            items <<= 4 * size
            items |= low
            wider.append(items)
        planes = wider
    return planes[0]
