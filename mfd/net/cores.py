"""The value machine that a driver drives, seen through one small protocol."""

from __future__ import annotations

from typing import Protocol

from mfd.core.effects import Effect
from mfd.core.events import Event
from mfd.core.status import Status

__all__ = ["Core"]


class Core(Protocol):
    """The value machine that decides: `mfd.core.peer.Peer`."""

    @property
    def id(self) -> bytes:
        """The peer id, 32 bytes."""
        ...

    def handle(self, event: Event, now_us: int) -> list[Effect]:
        """Take one event; return what is to be done. Raises: CommandFailed for local commands."""
        ...

    def deadline_us(self) -> int | None:
        """When `Ticked` is due; None while nothing waits."""
        ...

    def status(self) -> Status:
        """A snapshot for the owner."""
        ...
