"""What a version has seen: with how many samples each sibling has trained what became each layer.

Rules of this file: values and pure functions; what a stranger wrote is bounded, or read as nothing.
Source: spec/walk.md, section "Siblings"; spec/packet.md, P-27, P-32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from mfd.packet.manifest import Manifest
from mfd.packet.plan import Plan
from mfd.packet.task import Range

__all__ = [
    "GATE_KEY",
    "MERGE_KEY",
    "RULES",
    "WALKERS_KEY",
    "Ages",
    "Rule",
    "aged",
    "ages_of",
    "fits",
    "gate_of",
    "has_news",
    "joined",
    "room_for",
    "rule_of",
    "total",
    "walkers_of",
    "weights",
    "with_ages",
]

WALKERS_KEY, MERGE_KEY, GATE_KEY = 41, 43, 45  # of a plan
AGES_KEY = 41  # of a manifest
WALKERS_MAX = 64  # as many parents as a manifest can name
COUNTS_MAX = 2_048  # walkers x layers: 8 KiB of a manifest's 32
COUNT_MAX = (1 << 32) - 1
MARK_BYTES = 8
RULES = ("mean", "age", "clip", "near", "median", "trim")
RADIUS = 0.3  # of clip and near, as a part of the own layer's norm (BALANCE's gamma)

Ages = Mapping[bytes, tuple[int, ...]]
"""Mark of a walker -> samples, one count a layer or one for all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How siblings merge."""

    name: str
    radius: float = RADIUS


def walkers_of(plan: Plan) -> int:
    """Return how many walkers of this plan there are; 1: it has no siblings."""
    count = plan.extra.get(WALKERS_KEY)
    return count if type(count) is int and 2 <= count <= WALKERS_MAX else 1


def rule_of(plan: Plan) -> Rule:
    """Return how siblings of this plan merge; what is not known here means the default."""
    default = Rule("age" if plan.mode == "gossip" else "mean")
    text = plan.extra.get(MERGE_KEY)
    if not isinstance(text, str):
        return default
    name, _, number = text.partition(":")
    try:
        radius = float(number) if number else RADIUS
    except ValueError:
        return default
    known = name in RULES and isfinite(radius) and radius > 0
    return Rule(name, radius) if known else default


def gate_of(plan: Plan) -> float | None:
    """Return by which part a sibling's loss may be above one's own; None: it is not measured."""
    gate = plan.extra.get(GATE_KEY)
    if not isinstance(gate, int | float) or isinstance(gate, bool):
        return None
    return float(gate) if isfinite(gate) and gate >= 0 else None


def ages_of(manifest: Manifest) -> dict[bytes, tuple[int, ...]]:
    """Read the ages of a version; nothing where there are none, or they break the format."""
    rows = manifest.extra.get(AGES_KEY)
    if not isinstance(rows, list | tuple) or len(rows) > WALKERS_MAX:
        return {}
    out: dict[bytes, tuple[int, ...]] = {}
    for row in rows:
        match row:
            case [bytes() as mark, bytes() as counts] if len(mark) == MARK_BYTES:
                if len(counts) not in (4, 4 * len(manifest.layers)):
                    return {}
                starts = range(0, len(counts), 4)
                out[mark] = tuple(int.from_bytes(counts[i : i + 4], "little") for i in starts)
            case _:
                return {}
    marks = [row[0] for row in rows]
    whole = len({len(counts) for counts in out.values()}) <= 1
    return out if whole and marks == sorted(set(marks)) else {}


def with_ages(manifest: Manifest, ages: Ages) -> Manifest:
    """Return the manifest with these ages."""
    rows = [
        [mark, b"".join(count.to_bytes(4, "little") for count in ages[mark])]
        for mark in sorted(ages)
    ]
    return replace(manifest, extra={**manifest.extra, AGES_KEY: rows})


def aged(manifest: Manifest, plan: Plan, ranges: Sequence[Range], samples: float) -> Manifest:
    """Return the manifest after its walker has trained these layers with so many samples."""
    if walkers_of(plan) == 1:
        return manifest
    ages, size = ages_of(manifest), _size(plan, len(manifest.layers))
    if not fits(plan, manifest):
        ages = {}
    before = ages.get(manifest.walker[:MARK_BYTES], (0,) * size)
    more = min(int(max(samples, 1.0)), COUNT_MAX) if samples < COUNT_MAX else COUNT_MAX
    trained = {i for low, high in ranges for i in range(low, high)} if size > 1 else {0}
    after = tuple(min(n + more, COUNT_MAX) if i in trained else n for i, n in enumerate(before))
    room = room_for(plan, len(manifest.layers))
    if manifest.walker[:MARK_BYTES] not in ages and len(ages) >= room:
        return manifest
    return with_ages(manifest, {**ages, manifest.walker[:MARK_BYTES]: after})


def fits(plan: Plan, manifest: Manifest) -> bool:
    """Say whether a version's ages have the form that its plan and model give them."""
    size = _size(plan, len(manifest.layers))
    return all(len(counts) == size for counts in ages_of(manifest).values())


def _size(plan: Plan, layers: int) -> int:
    return layers if walkers_of(plan) * layers <= COUNTS_MAX else 1


def room_for(plan: Plan, layers: int) -> int:
    """Return how many walkers the ages of a version of this plan can tell of: all that it has."""
    return min(WALKERS_MAX, COUNTS_MAX // _size(plan, layers))


def joined(versions: Sequence[Ages]) -> dict[bytes, tuple[int, ...]]:
    """Return what a merge of versions has seen: the largest of each count."""
    out: dict[bytes, tuple[int, ...]] = {}
    for ages in versions:
        for mark, counts in ages.items():
            before = out.get(mark, counts)
            out[mark] = tuple(max(pair) for pair in zip(before, counts, strict=False))
    return out


def has_news(mine: Ages, other: Ages) -> bool:
    """Say whether another version has seen what one's own has not."""
    return any(
        count > _at(mine.get(mark, ()), layer)
        for mark, counts in other.items()
        for layer, count in enumerate(counts)
    )


def total(ages: Ages) -> int:
    """Return all samples of all layers: larger the more a version has seen."""
    return sum(map(sum, ages.values()))


def weights(versions: Sequence[Ages], layers: int, *, by_age: bool) -> list[list[float]]:
    """Return the weight of each version in each layer: they add up to 1, or all are 0 (no news).

    `by_age`: by the sum of ages alone, as gossip learning does.
    """
    out = [[0.0] * layers for _ in versions]
    marks = sorted({mark for ages in versions for mark in ages})
    rows = [[ages.get(mark, ()) for mark in marks] for ages in versions]
    for layer in range(layers):
        columns = [tuple(_at(counts, layer) for counts in row) for row in rows]
        found = _layer(columns, by_age=by_age)
        whole = sum(found)
        for number, weight in enumerate(found):
            out[number][layer] = weight / whole if whole else 0.0
    return out


def _at(counts: tuple[int, ...], layer: int) -> int:
    if len(counts) == 1:
        return counts[0]
    return counts[layer] if layer < len(counts) else 0


def _layer(columns: Sequence[tuple[int, ...]], *, by_age: bool) -> list[float]:
    """Weights of one layer, not yet of sum 1; a column is what one version has seen, by walker."""
    standing = [
        not any(other != mine and all(map(int.__ge__, other, mine)) for other in columns)
        for mine in columns
    ]
    if len({c for c, stands in zip(columns, standing, strict=True) if stands}) == 1:
        # one has seen all that the others have: it is taken, and its likes count as one
        if len(set(columns)) == 1:
            return [0.0] * len(columns)
        return [float(stands) for stands in standing]
    oldest = max(map(sum, columns))
    if by_age:
        return [sum(c) * float(stands) for c, stands in zip(columns, standing, strict=True)]
    left = [c if stands else None for c, stands in zip(columns, standing, strict=True)]
    news = _news(left)
    return [n * (sum(c) / oldest) ** 0.5 for n, c in zip(news, columns, strict=True)]


def _news(columns: Sequence[tuple[int, ...] | None]) -> list[float]:
    """Samples that not all have seen, each counted once in equal parts for those that have."""
    news = [0.0] * len(columns)
    standing = [(number, column) for number, column in enumerate(columns) if column is not None]
    for walker in range(len(standing[0][1])):
        seen = sorted((column[walker], number) for number, column in standing)
        before = seen[0][0]  # what all of them have seen
        for place, (count, _) in enumerate(seen):
            having = seen[place:]
            for _, number in having:
                news[number] += (count - before) / len(having)
            before = count
    return news
