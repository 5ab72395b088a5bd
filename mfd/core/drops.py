"""Why neighbours are none any more, for the owner.

Rules of this file: the last few only, oldest first.
Source: spec/membership.md, M-22.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mfd.core.events import LinkUp
from mfd.core.status import DropStatus

__all__ = ["Drops"]

DROPS_MAX = 32


@dataclass(frozen=True, slots=True)
class _Drop:
    peer: bytes
    address: str
    reason: str
    at_us: int


class Drops:
    """Links that have ended, with the reason."""

    def __init__(self) -> None:
        self._drops: deque[_Drop] = deque(maxlen=DROPS_MAX)

    def __len__(self) -> int:
        return len(self._drops)

    def note(self, up: LinkUp, reason: str, now_us: int) -> None:
        """A link has ended."""
        self._drops.append(_Drop(up.peer, up.address, reason, now_us))

    def status(self, now_us: int) -> tuple[DropStatus, ...]:
        """What the owner is shown."""
        return tuple(
            DropStatus(d.peer.hex(), d.address, d.reason, now_us - d.at_us) for d in self._drops
        )
