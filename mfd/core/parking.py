"""Walkers that can do nothing now: why, until when, and what sets them going again.

Rules of this file: a parked walker looks again after a while, and at once when a holder of what it
wants appears; its home is told the reason once.
Source: spec/walk.md, W-16.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from mfd.core.context import Context, Timer
from mfd.core.custody import Walker
from mfd.core.names import peer_name
from mfd.core.notices import Notices

__all__ = ["Parking"]

PARKED = "parked: "


class Parking:
    """The waiting of the walkers owned here."""

    def __init__(self, ctx: Context, notices: Notices, advance: Callable[[Walker], None]) -> None:
        self._ctx = ctx
        self._notices = notices
        self._advance = advance
        self._wakes: dict[bytes, Timer] = {}  # by walker: when to look again
        self._parked: dict[bytes, Walker] = {}
        self._told: dict[bytes, str] = {}  # by walker: the reason that home was told
        self._since: dict[bytes, int] = {}  # by walker: when its patience was first asked for

    def park(self, walker: Walker, reason: str) -> None:
        """Say why it waits, and look again later."""
        walker.activity, walker.waits = PARKED + reason, True
        if self._told.get(walker.id) != reason:
            self._told[walker.id] = reason
            self._notices.tell(walker, "parked", {"reason": reason})
        self.again(walker, self._ctx.config.park_retry_us)
        self._parked[walker.id] = walker

    def again(self, walker: Walker, delay_us: int) -> None:
        """Let the walker take its next step after a while."""
        walker.busy = False
        self._parked.pop(walker.id, None)
        if walker.id in self._wakes:
            self._wakes[walker.id].cancel()
        self._wakes[walker.id] = self._ctx.after(delay_us, partial(self._wake, walker))

    def _wake(self, walker: Walker) -> None:
        self._parked.pop(walker.id, None)
        self._wakes.pop(walker.id, None)
        self._advance(walker)

    def goes_on(self, walker: Walker) -> None:
        """It has found something to do: it takes a slot, and the next reason is news again."""
        self._told.pop(walker.id, None)
        walker.tries.clear()
        walker.waits = False

    def out_of_patience(self, walker: Walker, wait_us: int) -> bool:
        """Say whether it has been asked for longer than that, since it last found something."""
        since_us = self._since.setdefault(walker.id, self._ctx.now_us)
        return self._ctx.now_us >= since_us + wait_us

    def patient(self, walker: Walker) -> None:
        """Begin to count anew."""
        self._since.pop(walker.id, None)

    def appeared(self, names: Collection[str]) -> None:
        """Holders of these names have come into reach: whoever waits for one looks at once."""
        for walker in list(self._parked.values()) if names else ():
            plan = walker.plan
            wanted = (*plan.names, *plan.verify, peer_name(plan.home))
            if any(name in names for name in wanted) and not walker.busy:
                self.again(walker, 0)
