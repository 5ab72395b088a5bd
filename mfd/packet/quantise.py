"""Blocks of 64 floats as small integers times one scale.

Rules of this file: f32 in, f32 out, in runs that stay in the cache, into memory that the caller
lends. Every step is one IEEE operation an element, so every machine gets the same bits.
Source: spec/packet.md, section "Committing with loss" (P-302 to P-305).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfd.packet.floats import Array, cut

__all__ = [
    "BLOCK",
    "GRIDS",
    "Grid",
    "codes_of",
    "delta_scales",
    "dequantise",
    "largest",
    "mean",
    "sign_scales",
    "sign_steps",
]

BLOCK = 64  # elements under one scale
NORMAL_MIN = 2.0**-126
BASE_FLOOR = 2.0**-19  # of a block's largest base: sums lose less than a sixteenth of a scale
SIGN_MIN = 2.0**-125


@dataclass(frozen=True, slots=True)
class Grid:
    """How one way quantises one element type: codes from -levels to levels, and their scale.

    The product of code and scale must be exact in the element type. `scale_bits` significant bits
    see to that; with 1 the scale is the next power of two, since rounding down would clip.
    """

    levels: int
    scale_bits: int
    scale_min: float = NORMAL_MIN

    def scales(self, peaks: Array, floor: Array | None = None) -> Array:
        """Return the scale of each block from its largest magnitude, and at least `floor`."""
        scales: Array = peaks / np.float32(self.levels)
        np.maximum(scales, np.float32(self.scale_min), out=scales)
        if floor is not None:
            np.maximum(scales, floor, out=scales)
        if self.scale_bits > 1:
            return cut(scales, self.scale_bits)
        return ((scales.view("<u4") + 0x7FFFFF) & 0xFF800000).view("<f4")


GRIDS = {
    ("int8", "f32"): Grid(127, 8),
    ("int8", "f16"): Grid(127, 1, 2.0**-24),  # f16 has 11 bits, bf16 8: 7 are the code's
    ("int8", "bf16"): Grid(127, 1),
    ("int4", "f32"): Grid(7, 5),
    ("int4", "f16"): Grid(7, 5, 2.0**-20),
    ("int4", "bf16"): Grid(7, 5),
}


def largest(rows: Array, scratch: Array) -> Array:
    """Return the largest magnitude of each row; inf or NaN where a row has one. Fills scratch."""
    bits = scratch.view("<u4")
    np.bitwise_and(rows.view("<u4"), np.uint32(0x7FFFFFFF), out=bits)
    peaks: Array = bits.max(axis=1)
    return peaks.view("<f4")


def mean(rows: Array, scratch: Array, count: Array) -> Array:
    """Return the mean magnitude of each row of 64, `count` of them given: a tree of sums."""
    sums = scratch.reshape(BLOCK, -1)  # an element of all rows in one row: long rows add fast
    np.abs(rows.T, out=sums)
    half = BLOCK // 2
    while half:
        sums[:half] += sums[half : 2 * half]
        half //= 2
    means: Array = sums[0] / count
    return means


def codes_of(rows: Array, scales: Array, out: Array) -> None:
    """Write the whole numbers nearest to rows / scales, half to even, as f32 without -0."""
    np.divide(rows, scales[:, None], out=out)
    np.rint(out, out=out)
    np.add(out, np.float32(0), out=out)


def dequantise(codes: Array, scales: Array, out: Array) -> None:
    """Write codes x scales."""
    np.multiply(codes, scales[:, None], out=out)


def delta_scales(peaks: Array, heights: Array, grid: Grid) -> Array:
    """Return the scale of each block of differences: their peaks, and those of the base."""
    return grid.scales(peaks, heights * np.float32(BASE_FLOOR))


def sign_scales(means: Array, heights: Array) -> Array:
    """Return the step of each block: a power of two near the mean difference, or 0."""
    scales = _power_below(means * np.float32(1.5))
    scales[scales < np.maximum(heights * np.float32(BASE_FLOOR), np.float32(SIGN_MIN))] = 0
    return scales


def sign_steps(deltas: Array, scales: Array, out: Array) -> None:
    """Write each block's scale with the signs of its differences, zeros positive."""
    np.add(deltas, np.float32(0), out=out)  # no -0, as in codes
    bits = out.view("<u4")
    np.bitwise_and(bits, np.uint32(1 << 31), out=bits)
    np.bitwise_or(bits, scales.view("<u4")[:, None], out=bits)
    np.add(out, np.float32(0), out=out)


def _power_below(values: Array) -> Array:
    """Return the largest power of two not above each f32; 0 below the normal ones."""
    return (values.view("<u4") & 0x7F800000).view("<f4")
