"""Elements as small differences from those of a base, and back, exact for every pattern of bits.

    float: ordered integer   0xff..f (a NaN) ... -0.0 | 0.0 ... a NaN     one step: the next float
    then:  difference mod 2^bits, as a signed number, zig-zag: 0, -1, 1, -2, 2 -> 0, 1, 2, 3, 4

Rules of this file: numpy on whole arrays, unsigned, so that nothing overflows but by design.
Source: spec/packet.md, section "Chunk encodings" (P-45, P-46); sizes in spec/rationale.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Array", "apply", "difference", "fitted"]

Array = np.ndarray[Any, Any]


def difference(items: Array, base: Array, *, floats: bool) -> Array:
    """Return the zig-zag differences of unsigned `items` from `base`, of the same type."""
    if floats:
        items, base = _ordered(items), _ordered(base)
    steps = items - base
    return (steps << 1) ^ _sign(steps)


def apply(steps: Array, base: Array, *, floats: bool) -> Array:
    """Undo `difference`."""
    steps = (steps >> 1) ^ (0 - (steps & 1))
    items: Array = _ordered(steps + _ordered(base)) if floats else steps + base
    return items


def fitted(base: bytes | bytearray | memoryview, size: int) -> memoryview:
    """Return the first `size` bytes of `base`, zeros where it has no more (P-46)."""
    view = memoryview(base).cast("B")[:size]
    return view if len(view) == size else memoryview(view.tobytes() + bytes(size - len(view)))


def _ordered(items: Array) -> Array:
    """Return signed integers in the order of the floats of these bits; its own inverse."""
    ordered: Array = items ^ (_sign(items) >> 1)
    return ordered


def _sign(items: Array) -> Array:
    """Return all ones where the sign bit is set, else zero."""
    sign: Array = 0 - (items >> (8 * items.itemsize - 1))
    return sign
