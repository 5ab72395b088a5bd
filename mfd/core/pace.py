"""The pace of this peer's own rings: one budget for all searches, and whose turn it is.

Searches for holders come before searches for a peer by its id, which may be in vain: what they
reach is a message, what a holder's search reaches is a walker's next stop.

Rules of this file: a ring that waits is sent when its turn comes or when it is cancelled, never.
Source: spec/routing.md, R-26.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from mfd.core.bucket import Bucket
from mfd.core.context import Context, Timer

__all__ = ["PEER_US", "Pace"]

PEER_US = 60_000_000  # a search for a peer lets those for holders go first that begin until then


class Pace:
    """Rings that wait for their turn."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        rings = len(ctx.config.seek_rings)
        self._bucket = Bucket(1_000_000 / ctx.config.seek_every_us, rings)
        self._waiting: list[tuple[int, int, Timer]] = []
        self._count = 0
        self._armed = False

    def in_turn(self, rank_us: int, action: Callable[[], None]) -> Timer | None:
        """Do it now where the pace allows, else when it has its turn: the lowest rank first.

        Return what cancels it while it waits.
        """
        self._skip()
        if not self._waiting and self._bucket.take(self._ctx.now_us):
            action()
            return None
        timer = Timer(action)
        self._count += 1
        heappush(self._waiting, (rank_us, self._count, timer))
        self._arm()
        return timer

    def _skip(self) -> None:
        """Forget what was cancelled: it costs no turn."""
        while self._waiting and self._waiting[0][2].action is None:
            heappop(self._waiting)

    def _arm(self) -> None:
        if not self._armed and self._waiting:
            self._armed = True
            self._ctx.after(self._bucket.wait_us(self._ctx.now_us), self._turn)

    def _turn(self) -> None:
        self._armed = False
        self._skip()
        while self._waiting and self._bucket.take(self._ctx.now_us):
            action = heappop(self._waiting)[2].action
            if action is not None:
                action()
            self._skip()
        self._arm()
