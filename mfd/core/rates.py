"""A token bucket: so much at once, so much a second in the long run."""

from __future__ import annotations

__all__ = ["Bucket"]

SECOND_US = 1_000_000


class Bucket:
    """Full at first; time is handed in and never runs backwards."""

    __slots__ = ("_burst", "_full_us", "_per_token_us")

    def __init__(self, per_second: int, burst: int) -> None:
        self._per_token_us = SECOND_US // per_second
        self._burst = burst
        self._full_us = 0  # when it will be full again

    def take(self, now_us: int) -> bool:
        """Take a token; False where none is left."""
        full_us = max(self._full_us, now_us) + self._per_token_us
        if full_us - now_us > self._burst * self._per_token_us:
            return False
        self._full_us = full_us
        return True
