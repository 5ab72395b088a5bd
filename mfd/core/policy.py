"""In which order holders are asked: each policy is a ranking that `mfd trace` can explain.

Rules of this file: pure functions of the plan and of what holders announce; a policy that lacks
what it needs falls back to the nearest.
Source: spec/walk.md, W-17; spec/packet.md, plan field 29.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from mfd.core.routing import Source
from mfd.core.sources import SHARE
from mfd.core.walk import policy_of
from mfd.packet.plan import Plan

__all__ = ["Place", "rank", "reason"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the choice is made, and by whom: what chance is drawn from beside the plan's seed."""

    me: bytes
    seq: int = 0
    walker: bytes = b""  # empty: it has no siblings
    stops: int = 0


def rank(
    plan: Plan, holders: Sequence[Source], seen: Sequence[Source], place: Place
) -> list[Source]:
    """Order holders, given nearest first, by the plan's policy; `seen` were visited in this lap."""
    me = place.me
    match policy_of(plan):
        case "labels":
            before, labels = _counts(seen), len(_counts([*holders, *seen]))
            return sorted(holders, key=lambda s: _skew(before, s, labels))
        case "samples":
            return sorted(holders, key=lambda s: -s.samples)
        case "capacity":
            return sorted(holders, key=lambda s: -s.capacity)
        case "robin":
            return sorted(holders, key=lambda s: (s.holder <= me, s.holder))
        case "random":
            return sorted(holders, key=lambda s: _lot(plan, place, s, s.samples), reverse=True)
        case "uniform":
            return sorted(holders, key=lambda s: (s.holder == me, -_lot(plan, place, s, 1)))
        case "metropolis":
            drawn, taken = _proposal(plan, place, holders)
            first = drawn if taken else me
            return sorted(holders, key=lambda s: s.holder != first)
        case _:
            return list(holders)


def reason(
    plan: Plan,
    target: Source,
    holders: Sequence[Source],
    seen: Sequence[Source],
    place: Place,
) -> str:
    """Say why `target` is the next of `holders`, in a sentence with the numbers that decided."""
    others = [s for s in holders if s.holder != place.me] or [target]
    among = f"of {len(others)} that can be chosen"
    match policy_of(plan):
        case "labels":
            before, labels = _counts(seen), len(_counts([*holders, *seen]))
            if not target.labels:
                return f"it tells no labels, and those {among} that do are out of reach"
            skew, before_it = _skew(before, target, labels), _skew_of(before, labels)
            return (
                f"its labels complement those seen in this lap: {skew:.2f} from even with it, "
                f"{before_it:.2f} before (0 even, 2 one label), the least {among}"
            )
        case "samples":
            return f"it has the most samples, {target.samples:,}, {among}"
        case "capacity":
            told = f"the most capacity, {target.capacity:,}," if target.capacity else "none told"
            return f"capacity decides: {told} {among}"
        case "robin":
            return f"next in the round of ids after this peer, {among}"
        case "random":
            whole = max(1, sum(max(1, s.samples) for s in others))
            return (
                f"drawn by lot, by its samples: {target.samples:,}, a chance of "
                f"{max(1, target.samples) / whole:.0%} {among}"
            )
        case "uniform":
            return f"drawn by lot evenly, a chance of {1 / len(others):.0%} {among}"
        case "metropolis":
            return _why_metropolis(plan, target, holders, place)
        case _:
            hops = "1 hop" if target.hops == 1 else f"{target.hops} hops"
            return f"nearest {among}: {target.metric / 100:.2f} ms, {hops} away"


def _why_metropolis(plan: Plan, target: Source, holders: Sequence[Source], place: Place) -> str:
    samples = {s.holder: s.samples for s in holders}
    mine, drawn = max(1, samples.get(place.me, 1)), _proposal(plan, place, holders)[0]
    chance = min(1.0, max(1, samples.get(drawn, 1)) / mine)
    told = (
        f"Metropolis walk: {drawn.hex()[:12]} was drawn of {len(holders)}, with "
        f"{samples.get(drawn, 0):,} samples to {mine:,} here, to be taken with chance {chance:.2f}"
    )
    return told if target.holder == drawn else f"{told}; it was not, or could not be"


def _proposal(plan: Plan, place: Place, holders: Sequence[Source]) -> tuple[bytes, bool]:
    """Draw the next holder of a Metropolis walk, and whether it is taken (W-41).

    All holders that are known may be drawn, so both degrees are their number and cancel.
    """
    others = sorted((s for s in holders if s.holder != place.me), key=lambda s: s.holder)
    here = next((s for s in holders if s.holder == place.me), None)
    if not others:
        return place.me, False
    drawn = others[int(_draw(plan, place, b"whom") * len(others))]
    if here is None:
        return drawn.holder, True  # nothing is held here: there is nothing to stay for
    chance = max(1, drawn.samples) / max(1, here.samples)
    return drawn.holder, _draw(plan, place, b"whether") < chance


def _counts(sources: Sequence[Source]) -> dict[int, float]:
    """About how many samples of each label these holders have together."""
    counts: dict[int, float] = {}
    for source in sources:
        for label, share in enumerate(source.labels):
            if share:
                counts[label] = counts.get(label, 0.0) + source.samples * share / SHARE
    return counts


def _skew(before: dict[int, float], source: Source, labels: int) -> float:
    """How far from even `labels` labels would be once this holder was visited: 0 even, below 2.

    Holders that tell no labels come last.
    """
    if not source.labels:
        return 3.0
    counts = dict(before)
    for label, count in _counts([source]).items():
        counts[label] = counts.get(label, 0.0) + count
    total = sum(counts.values())
    if not total:
        return 3.0
    missing = (labels - len(counts)) / labels
    return missing + sum(abs(count / total - 1 / labels) for count in counts.values())


def _skew_of(before: dict[int, float], labels: int) -> float:
    """How far from even the labels seen so far are."""
    whole = sum(before.values())
    if not whole:
        return 2.0
    return (labels - len(before)) / labels + sum(
        abs(n / whole - 1 / labels) for n in before.values()
    )


def _lot(plan: Plan, place: Place, source: Source, weight: int) -> float:
    """A number for drawing without putting back, by weight (Efraimidis, Spirakis)."""
    salt = f"{plan.seed}/{place.seq}/".encode() + place.walker + source.holder
    share = (int.from_bytes(blake3(salt).digest(6), "little") + 1) / (1 << 48)
    return float(share ** (1 / max(1, weight)))


def _draw(plan: Plan, place: Place, purpose: bytes) -> float:
    """A number from 0 to below 1, of this plan, walker and stop."""
    salt = f"{plan.seed}/{place.stops}/".encode() + place.walker + b"/" + purpose
    return int.from_bytes(blake3(salt).digest(6), "little") / (1 << 48)
