"""What happened, for the owner of a peer: the newest reports, numbered.

Source: mfd.web.face, which shows them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mfd.core.effects import Report

__all__ = ["REPORTS_MAX", "Reports"]

REPORTS_MAX = 10_000

Json = dict[str, Any]


class Reports:
    """A ring of reports ready for JSON: {n, at (Unix seconds), kind, ...fields; bytes as hex}."""

    def __init__(self, on_report: Callable[[Json], None] | None = None) -> None:
        self.last = 0  # number of the newest
        self._ring: deque[Json] = deque(maxlen=REPORTS_MAX)
        self._on_report = on_report
        self._waiters: set[asyncio.Future[None]] = set()

    def add(self, report: Report) -> None:
        """Number a report, keep it, wake who waits."""
        self.last += 1
        fields = {k: v.hex() if isinstance(v, bytes) else v for k, v in report.fields.items()}
        entry: Json = {**fields, "n": self.last, "at": round(time.time(), 3), "kind": report.kind}
        self._ring.append(entry)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._on_report is not None:
            self._on_report(entry)

    def after(self, number: int, walker: str = "") -> list[Json]:
        """Reports numbered above `number`, oldest first; of one walker (a prefix) or of all."""
        newer = max(0, min(self.last - number, len(self._ring)))
        found = [self._ring[-index] for index in range(newer, 0, -1)]
        return [entry for entry in found if str(entry.get("walker", "")).startswith(walker)]

    async def wait(self, after: int, seconds: float) -> None:
        """Return as soon as a report above `after` exists, or when the time is over."""
        if self.last > after:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=max(0.0, seconds))
        finally:
            self._waiters.discard(waiter)
