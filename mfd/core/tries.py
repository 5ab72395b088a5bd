"""What was offered in vain: a holder that routing tells of need not be one that takes a walker.

Rules of this file: it counts; who is given up for a lap, `walk` decides.
Source: spec/walk.md, W-09.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Tries"]

TRIES = 5
FULL_US = 3_600_000_000  # so long a holder without room is waited for


@dataclass(slots=True)
class Tries:
    """Of one walker at one owner, since it last had something to do."""

    times: dict[bytes, int] = field(default_factory=dict)  # by holder
    full: dict[bytes, int] = field(default_factory=dict)  # since when it has had no room

    def failed(self, holder: bytes, now_us: int, *, full: bool = False) -> None:
        """An offer has come to nothing; `full` if only for want of room, which may come."""
        if full and now_us < self.full.setdefault(holder, now_us) + FULL_US:
            return
        self.times[holder] = self.times.get(holder, 0) + 1

    def hopeless(self) -> frozenset[bytes]:
        """Return the holders that no lap waits for any longer."""
        return frozenset(holder for holder, times in self.times.items() if times >= TRIES)

    def clear(self) -> None:
        """The walker goes on: what was in vain may not be so the next time."""
        self.times.clear()
        self.full.clear()
