"""How much of a model a version holds: all, or first units, first blocks, coarser weights.

Rules of this file: a value that can travel, and nothing about tensors.
Source: spec/packet.md, P-23 and section "Scale and merge".
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isfinite

from mfd.packet.fields import as_uint

__all__ = ["FULL", "Scale", "plain_scale", "read_scale"]

U16_MAX = (1 << 16) - 1
BITS_MAX = 64  # of a weight


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of the full model this is; the default is all of it.

    Raises: ValueError for what cannot travel.
    """

    width: Fraction | float = Fraction(1)  # of the channels, above 0, at most 1; kept as a fraction
    depth: int = 0  # number of blocks kept, from the first; 0: all
    bits: int = 0  # of a weight; 0: as the full model has them

    def __post_init__(self) -> None:
        given = self.width
        share = Fraction(given).limit_denominator(U16_MAX) if isfinite(given) else Fraction(0)
        depth, bits = as_uint(self.depth, U16_MAX), as_uint(self.bits, BITS_MAX)
        if not 0 < share <= 1 or depth is None or bits is None:
            raise ValueError(
                f"width {given}, depth {self.depth}, bits {self.bits} is no scale: width is above "
                f"0 and at most 1, depth a whole number up to {U16_MAX}, bits one up to {BITS_MAX}"
            )
        object.__setattr__(self, "width", share)

    @property
    def share(self) -> Fraction:
        """The width as a fraction."""
        return Fraction(self.width)

    def kept(self, units: int) -> int:
        """Return how many of so many units are kept (P-401)."""
        return -(-units * self.share.numerator // self.share.denominator)


FULL = Scale()


def plain_scale(scale: Scale) -> list[int]:
    """The four numbers that travel."""
    return [*scale.share.as_integer_ratio(), scale.depth, scale.bits]


def read_scale(item: object) -> Scale | None:
    """The inverse; None for anything that breaks P-23."""
    match item:
        case [1, 1, 0, 0] if all(type(part) is int for part in item):
            return FULL
        case [int(), int(), int(), int()] if all(type(part) is int for part in item):
            num, den, depth, bits = item
        case _:
            return None
    if not (1 <= num <= den <= U16_MAX and gcd(num, den) == 1):
        return None
    if not (0 <= depth <= U16_MAX and 0 <= bits <= BITS_MAX):
        return None
    return Scale(Fraction(num, den), depth, bits)
