"""A token bucket: so much a second in the mean, so much at once.

Rules of this file: time comes from the caller.
"""

from __future__ import annotations

from math import ceil

__all__ = ["Bucket"]


class Bucket:
    """Tokens that refill with time, up to a burst."""

    __slots__ = ("_burst", "_level", "_per_us", "_seen_us")

    def __init__(self, per_s: float, burst: float, now_us: int) -> None:
        self._per_us = per_s / 1e6
        self._burst = burst
        self._level = burst
        self._seen_us = now_us

    def _fill(self, now_us: int) -> None:
        gained = (now_us - self._seen_us) * self._per_us
        self._level = min(self._burst, self._level + gained)
        self._seen_us = now_us

    def take(self, amount: float, now_us: int) -> bool:
        """Take tokens if they are there."""
        self._fill(now_us)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def wait_us(self, amount: float, now_us: int) -> int:
        """How long until `amount` can be taken; 0: now."""
        self._fill(now_us)
        lacking = amount - self._level
        return ceil(lacking / self._per_us) + 1 if lacking > 0 else 0
