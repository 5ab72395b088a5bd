"""What routing remembers, as values: routes, sources, neighbours; and which distance is nearer.

Rules of this file: no behaviour but noting, comparing and going on. Lists of a source go by class.
Source: spec/routing.md, sections "Selection" and "Advertising".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mfd.core.frames import Class
from mfd.core.sources import Record

__all__ = [
    "ALL_CLASSES",
    "CLASSES",
    "DETOUR",
    "HOPS_MAX",
    "LOST",
    "METRIC_MAX",
    "NOTHING",
    "STARVING",
    "Distance",
    "Key",
    "Neighbour",
    "Route",
    "State",
    "Want",
    "Way",
    "are_numbers",
    "by_class",
    "is_nearer",
    "onward",
]

METRIC_MAX = 1 << 31  # anything above is out of reach
HOPS_MAX = 255
DETOUR, LOST, STARVING = range(3)  # a longer way than need be; one holder; the whole name

Key = tuple[str, bytes]  # (name, holder)
Distance = tuple[int, int]  # (seqno, metric)
Word = tuple[int, int, int] | None  # (seqno, metric, hops)
Told = tuple[Word, Word]  # by class
Asked = tuple[int, int, int]  # a request for a newer seqno: seqno, when, link
Way = tuple[int, int, "Route"]  # metric from here, link, advertisement
CLASSES = tuple(Class)  # walking through the enum itself takes ten times as long
NOTHING: Told = (None, None)
ALL_CLASSES = (1 << len(CLASSES)) - 1


class Route(NamedTuple):
    """A neighbour's advertisement (metric and hops are the neighbour's), or a selected route."""

    link: int | None  # None: this peer is the holder
    record: Record
    metric: int
    hops: int


class Want(NamedTuple):
    """An infeasible advertisement that would be used if its holder raised its seqno."""

    metric: int
    holder: bytes
    cls: Class
    link: int


def by_class() -> list[Any]:
    """Return a list for one value a class, empty."""
    return [None] * len(CLASSES)


def _no_ways() -> tuple[dict[int, Way], ...]:
    return tuple({} for _ in CLASSES)


@dataclass(slots=True)
class State:
    """All that is known of one source; lists are indexed by class."""

    newest: Record
    until_us: int  # routes end here
    forget_us: int  # feasibility distances end here
    adverts: dict[int, list[Route | None]] = field(default_factory=dict)  # by link
    ways: tuple[dict[int, Way], ...] = field(default_factory=_no_ways)  # the same, within reach
    best: list[Route | None] = field(default_factory=by_class)  # selected
    offer: list[Route | None] = field(default_factory=by_class)  # selected and not pruned
    feasibility: list[Distance | None] = field(default_factory=by_class)
    asked: list[Asked | None] = field(default_factory=by_class)
    nearer: tuple[list[Way], ...] | None = None  # infeasible, nearer than `best`; None: look again

    def heard(self, link: int, said: Iterable[Route | None], cost: tuple[int, ...]) -> None:
        """Note what a neighbour advertises; None: nothing new in that class."""
        self.nearer = None
        adverts = self.adverts[link]
        for cls, advert in enumerate(said):
            if advert is None:
                continue
            adverts[cls] = advert
            metric = advert.metric + cost[cls]
            if metric <= METRIC_MAX:
                self.ways[cls][link] = (metric, link, advert)
            else:
                self.ways[cls].pop(link, None)

    def unheard(self, link: int, mask: int = ALL_CLASSES) -> bool:
        """Forget what a neighbour advertises in the classes of `mask`; say whether none is left."""
        self.nearer = None
        adverts = self.adverts[link]
        for cls in CLASSES:
            if mask >> cls & 1:
                adverts[cls] = None
                self.ways[cls].pop(link, None)
        if any(adverts):
            return False
        del self.adverts[link]
        return True


@dataclass(slots=True)
class Neighbour:
    """One link."""

    peer: bytes
    cost: tuple[int, ...]  # by class
    names: dict[str, int] = field(default_factory=dict)  # live adverts from there, per name
    adverts: int = 0
    told: dict[Key, Told] = field(default_factory=dict)
    dirty: dict[Key, int] = field(default_factory=dict)  # what may have to be told -> when


def is_nearer(distance: Distance, than: Distance) -> bool:
    """Say whether (seqno, metric) is strictly better: newer, or as new and smaller."""
    seqno, least = distance[0], than[0]
    return seqno > least or (seqno == least and distance[1] < than[1])


def onward(metric: int, link: int, advert: Route) -> Route:
    """The route over a link to what is advertised there."""
    return Route(link, advert.record, metric, min(advert.hops + 1, HOPS_MAX))


def are_numbers(*numbers: object) -> bool:
    """Say whether these are metrics, or none, and at last hops."""
    *metrics, hops = numbers
    for metric in metrics:
        if metric is not None and (type(metric) is not int or not 0 <= metric <= METRIC_MAX):
            return False
    return type(hops) is int and 0 <= hops <= HOPS_MAX
