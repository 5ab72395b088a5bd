"""First hops over which a peer was not reached lately, so that the next try takes another one.

Rules of this file: it remembers and chooses; a way that failed is better than none.
Source: spec/transfer.md, T-30, T-34.
"""

from __future__ import annotations

from collections.abc import Iterable

from mfd.core.context import Context
from mfd.core.frames import Via

__all__ = ["Detours", "Onward", "Way"]

Onward = tuple[int, Via | None, tuple[bytes, ...]]  # link, promise, rest of the route
Way = tuple[Onward, bool]  # and whether SEEK has found it

TARGETS_MAX = 256


class Detours:
    """What failed, by peer and link."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._failed: dict[bytes, dict[int, int]] = {}  # peer -> link -> until when

    def failed(self, target: bytes, link: int) -> None:
        """A circuit to a peer that went on over this link broke or did not come to stand."""
        now_us = self._ctx.now_us
        before = self._failed.pop(target, {})
        links = {known: until_us for known, until_us in before.items() if until_us > now_us}
        links[link] = now_us + self._ctx.config.detour_us
        self._failed[target] = links  # the newest last
        if len(self._failed) > TARGETS_MAX:
            del self._failed[next(iter(self._failed))]

    def avoided(self, target: bytes) -> frozenset[int]:
        """Return the links over which a peer was not reached lately."""
        failed, now_us = self._failed.get(target, {}), self._ctx.now_us
        return frozenset(link for link, until_us in failed.items() if until_us > now_us)

    def choose(self, target: bytes, ways: Iterable[Way]) -> Way | None:
        """Return the first way over a link that has not failed; else that which failed first."""
        failed, now_us = self._failed.get(target, {}), self._ctx.now_us
        least: tuple[int, Way] | None = None
        for way in ways:
            until_us = failed.get(way[0][0], now_us)
            if until_us <= now_us:
                return way
            if least is None or until_us < least[0]:
                least = until_us, way
        return least and least[1]
