"""A token bucket: so much at once, so much a second in the mean.

Rules of this file: time comes from the caller and never runs backwards.
"""

from __future__ import annotations

from math import ceil

__all__ = ["Bucket"]

SECOND_US = 1_000_000


class Bucket:
    """Tokens of any kind, full at first. It knows one moment: when it will be full again."""

    __slots__ = ("_burst_us", "_full_us", "_token_us")

    def __init__(self, per_s: float, burst: float) -> None:
        self._token_us = SECOND_US / per_s
        self._burst_us = burst * self._token_us
        self._full_us = 0.0

    def take(self, now_us: int, amount: float = 1) -> bool:
        """Take tokens; False, and nothing is taken, where there are not so many."""
        full_us = max(self._full_us, now_us) + amount * self._token_us
        if full_us - now_us > self._burst_us:
            return False
        self._full_us = full_us
        return True

    def wait_us(self, now_us: int, amount: float = 1) -> int:
        """How long until `amount` can be taken; 0: now. No wait is long enough for a burst more."""
        full_us = max(self._full_us, now_us) + amount * self._token_us
        lacking_us = full_us - now_us - self._burst_us
        return ceil(lacking_us) + 1 if lacking_us > 0 else 0
