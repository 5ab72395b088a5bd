"""The clock that the driver shows to the core."""

from __future__ import annotations

import time

__all__ = ["now_us"]

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # leases run on during suspend


def now_us() -> int:
    """Microseconds since some point in the past; never backwards."""
    return time.clock_gettime_ns(_CLOCK) // 1000
