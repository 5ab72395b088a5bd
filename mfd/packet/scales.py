"""Which smaller versions of its model a plan lets weak peers train.

Rules of this file: an optional field of the plan; what has another form counts as no field.
Source: spec/packet.md, plan field 51.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd
from typing import Any

from mfd.packet.manifest import Scale
from mfd.packet.plan import Plan

__all__ = ["SCALES_KEY", "SCALES_MAX", "parse_scale", "plain_scales", "scales_of"]

SCALES_KEY = 51
SCALES_MAX = 16
U16_MAX = (1 << 16) - 1


def scales_of(plan: Plan) -> tuple[Scale, ...]:
    """Return the scales that a plan allows beside the full model, large ones first."""
    rows = plan.extra.get(SCALES_KEY, [])
    if not isinstance(rows, list) or len(rows) > SCALES_MAX:
        return ()
    found = [_read(row) for row in rows]
    return tuple(one for one in found if one is not None) if None not in found else ()


def _read(row: object) -> Scale | None:
    match row:
        case [int() as num, int() as den, int() as depth, int() as bits]:
            pass
        case _:
            return None
    whole = all(type(part) is int for part in row)
    if not whole or not 1 <= num <= den <= U16_MAX or gcd(num, den) != 1:
        return None
    try:
        return Scale(Fraction(num, den), depth, bits)
    except ValueError:
        return None


def plain_scales(scales: Sequence[Scale]) -> list[Any]:
    """Return the form that a plan carries. Raises: ValueError for more than SCALES_MAX."""
    if len(scales) > SCALES_MAX:
        raise ValueError(f"a plan allows at most {SCALES_MAX} scales, not {len(scales)}")
    return [[*one.share.as_integer_ratio(), one.depth, one.bits] for one in scales]


def parse_scale(text: str) -> Scale:
    """Read WIDTH[:DEPTH[:BITS]], such as 0.5, 1/2:3 or 1:0:8; depth 0: all blocks, bits 0: as is.

    Raises: ValueError, one sentence.
    """
    width, _, rest = text.partition(":")
    depth, _, bits = rest.partition(":")
    try:
        return Scale(Fraction(width), int(depth or 0), int(bits or 0))
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"scale {text!r} is not WIDTH:DEPTH:BITS, such as 0.5, 1/2:3 or 1:0:8"
        ) from None
