"""Which smaller versions of its model a plan lets weak peers train.

Rules of this file: an optional field of the plan; what has another form counts as no field.
Source: spec/packet.md, plan field 51.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from mfd.packet.extent import Scale, plain_scale, read_scale
from mfd.packet.plan import Plan

__all__ = [
    "SCALES_KEY",
    "SCALES_MAX",
    "claims_of",
    "parse_scale",
    "plain_scales",
    "scale_told",
    "scales_of",
]

SCALES_KEY = 51
SCALES_MAX = 16


def scales_of(plan: Plan) -> tuple[Scale, ...]:
    """Return the scales that a plan allows beside the full model, large ones first."""
    rows = plan.extra.get(SCALES_KEY, [])
    if not isinstance(rows, list) or len(rows) > SCALES_MAX:
        return ()
    found = [read_scale(row) for row in rows]
    return tuple(one for one in found if one is not None) if None not in found else ()


def scale_told(plan: Plan, claims: Mapping[str, float]) -> Scale | None:
    """The scale of the plan that a trainer claims to have trained; None: the full model.

    Claims are numbers: `width`, `depth` and `bits` (spec/walk.md, W-21).
    """
    wanted = tuple(claims.get(key, 0.0) for key in ("width", "depth", "bits"))
    return next((one for one in scales_of(plan) if tuple(claims_of(one).values()) == wanted), None)


def claims_of(scale: Scale) -> dict[str, float]:
    """What a stop claims of the version that it trained."""
    return {
        "width": float(scale.share),
        "depth": float(scale.depth),
        "bits": float(scale.bits),
    }


def plain_scales(scales: Sequence[Scale]) -> list[Any]:
    """Return the form that a plan carries. Raises: ValueError for more than SCALES_MAX."""
    if len(scales) > SCALES_MAX:
        raise ValueError(f"a plan allows at most {SCALES_MAX} scales, not {len(scales)}")
    return [plain_scale(one) for one in scales]


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
