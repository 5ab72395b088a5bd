"""What happened, for the owner of a peer: the newest reports, numbered.

Rules of this file: reports of walkers are kept apart from all others, so that a busy network does
not push a journey out, and they outlive a restart.
Source: mfd.web.face, which shows them; mfd.net.history.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from heapq import merge
from itertools import takewhile
from pathlib import Path
from typing import Any

from mfd.core.effects import Report
from mfd.net.disk import Disk
from mfd.net.history import History

__all__ = ["REPORTS_MAX", "Reports"]

REPORTS_MAX = 10_000  # of walkers, and as many others
START_STEP = 1_000_000  # each start numbers from the next multiple: what was not kept has numbers

Json = dict[str, Any]


class Reports:
    """Reports ready for JSON: {n, at (Unix seconds), kind, ...fields; bytes as hex}."""

    def __init__(self, on_report: Callable[[Json], None] | None = None) -> None:
        self.last = 0  # number of the newest
        self._walks: deque[Json] = deque(maxlen=REPORTS_MAX)
        self._others: deque[Json] = deque(maxlen=REPORTS_MAX)
        self._on_report = on_report
        self._keep: Callable[[Json], None] = lambda _: None
        self._waiters: set[asyncio.Future[None]] = set()

    async def open(self, state: Path, disk: Disk) -> None:
        """Go on with what the state folder has of earlier days, and keep what comes there."""
        history = History(state)
        self._recall(await disk.call(history.read))
        self._keep = lambda report: disk.run(partial(history.append, report))

    def _recall(self, reports: Iterable[Json]) -> None:
        self._walks.extend(reports)
        if self._walks:
            self.last = (self._walks[-1]["n"] // START_STEP + 1) * START_STEP

    def add(self, report: Report) -> None:
        """Number a report, keep it, wake who waits."""
        self.last += 1
        fields = {k: v.hex() if isinstance(v, bytes) else v for k, v in report.fields.items()}
        entry: Json = {**fields, "n": self.last, "at": round(time.time(), 3), "kind": report.kind}
        if isinstance(entry.get("walker"), str):
            self._walks.append(entry)
            self._keep(entry)
        else:
            self._others.append(entry)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._on_report is not None:
            self._on_report(entry)

    def after(self, number: int, walker: str = "") -> list[Json]:
        """Reports numbered above `number`, oldest first; of one walker (a prefix) or of all."""
        walks = _newer(self._walks, number)
        if walker:
            return [entry for entry in walks if entry["walker"].startswith(walker)]
        return list(merge(walks, _newer(self._others, number), key=lambda entry: entry["n"]))

    async def wait(self, after: int, seconds: float) -> None:
        """Return as soon as a report above `after` exists, or when the time is over."""
        if self._newest() > after:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=max(0.0, seconds))
        finally:
            self._waiters.discard(waiter)

    def _newest(self) -> int:
        """The number of the newest report that is still here; `last` is above it after a start."""
        return max((ring[-1]["n"] for ring in (self._walks, self._others) if ring), default=0)


def _newer(ring: deque[Json], number: int) -> list[Json]:
    found = list(takewhile(lambda entry: entry["n"] > number, reversed(ring)))
    return found[::-1]
