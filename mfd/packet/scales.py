"""Which smaller versions of its model a plan lets weak peers train.

Rules of this file: an optional field of the plan; what has another form counts as no field.
Source: spec/packet.md, plan field 51.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mfd.packet.extent import U16_MAX, Scale, plain_scale, read_scale
from mfd.packet.plan import Plan

__all__ = [
    "SCALES_KEY",
    "SCALES_MAX",
    "claims_of",
    "ordered_scales",
    "parse_scale",
    "plain_scales",
    "scale_told",
    "scales_of",
]

SCALES_KEY = 51
SCALES_MAX = 16
BITS = (0, 32, 16, 8, 4)  # of a weight, as P-403 knows them; 0: as they are
SCALE_FORM = "WIDTH:DEPTH:BITS, such as 0.5, 1/2:3 or 0.5:0:8"


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
        parts = Fraction(width), int(depth or 0), int(bits or 0)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"scale {text!r} is not {SCALE_FORM}") from None
    try:
        made = Scale(*parts)
    except ValueError as exc:
        raise ValueError(f"scale {text!r} is not {SCALE_FORM}: {exc}") from None
    if made.bits not in BITS:
        raise ValueError(f"scale {text!r}: weights of {made.bits} bits are not known; 16, 8, 4 are")
    return made


def ordered_scales(scales: Iterable[Scale]) -> list[Scale]:
    """Return scales as they are given, large ones first: a peer takes the first that it can hold.

    Whether it can does not depend on bits: weights are trained at their full width, and layers
    count with their raw bytes. Raises: ValueError, one sentence, for one that would never be taken.
    """
    found: list[Scale] = []
    for one in scales:
        if (one.width, one.depth) == (1, 0):
            why = (
                "fewer bits alone save no memory: cut width or depth, too"
                if one.bits
                else ("every peer tries that first")
            )
            raise ValueError(f"scale {_text(one)} is the full model, and {why}")
        if held := next((other for other in found if _holds(one, other)), None):
            raise ValueError(
                f"scale {_text(one)} would never be taken, since {_text(held)} stands before it "
                "and is no larger: write large ones first, each width and depth once"
            )
        found.append(one)
    return found


def _holds(large: Scale, small: Scale) -> bool:
    """Whether one is at least as large as the other in width and depth."""
    deep, least = large.depth or U16_MAX, small.depth or U16_MAX
    return large.share >= small.share and deep >= least


def _text(scale: Scale) -> str:
    """The form that `parse_scale` reads, without what is left as it is."""
    parts = [str(scale.share), str(scale.depth), str(scale.bits)]
    while len(parts) > 1 and parts[-1] == "0":
        parts.pop()
    return ":".join(parts)
