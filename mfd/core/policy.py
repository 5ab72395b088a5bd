"""In which order holders are asked: each policy is a ranking that `mfd trace` can explain.

Rules of this file: pure functions of the plan and of what holders announce; a policy that lacks
what it needs falls back to the nearest.
Source: spec/walk.md, W-17; spec/packet.md, plan field 29.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from mfd.core.routing import Source
from mfd.core.sources import SHARE
from mfd.packet.plan import Plan

__all__ = ["CHOOSE_KEY", "POLICIES", "policy_of", "rank", "reason"]

CHOOSE_KEY = 29
POLICIES = {
    "nearest": "nearest",
    "labels": "its labels complement those seen in this lap",
    "samples": "it has the most samples",
    "robin": "next in the round",
    "random": "drawn by lot, by its samples",
}


def policy_of(plan: Plan) -> str:
    """Return the policy of a plan; one that is not known here means the nearest."""
    chosen = plan.extra.get(CHOOSE_KEY)
    return chosen if isinstance(chosen, str) and chosen in POLICIES else "nearest"


def reason(plan: Plan, otherwise: str) -> str:
    """Say why a holder is first; `otherwise` explains the nearest."""
    policy = policy_of(plan)
    return otherwise if policy == "nearest" else POLICIES[policy]


def rank(
    plan: Plan, holders: Sequence[Source], seen: Sequence[Source], *, me: bytes, seq: int
) -> list[Source]:
    """Order holders, given nearest first, by the plan's policy; `seen` were visited in this lap."""
    match policy_of(plan):
        case "labels":
            before, labels = _counts(seen), len(_counts([*holders, *seen]))
            return sorted(holders, key=lambda s: _skew(before, s, labels))
        case "samples":
            return sorted(holders, key=lambda s: -s.samples)
        case "robin":
            return sorted(holders, key=lambda s: (s.holder <= me, s.holder))
        case "random":
            return sorted(holders, key=lambda s: _lot(plan.seed, seq, s), reverse=True)
        case _:
            return list(holders)


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


def _lot(seed: int, seq: int, source: Source) -> float:
    """A number for drawing without putting back, weighted by samples (Efraimidis, Spirakis)."""
    salt = f"{seed}/{seq}/".encode() + source.holder
    share = (int.from_bytes(blake3(salt).digest(6), "little") + 1) / (1 << 48)
    return float(share ** (1 / max(1, source.samples)))
