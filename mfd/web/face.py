"""What the HTTP side is handed: a running peer, seen through one small protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

__all__ = ["Face"]

Json = dict[str, Any]


class Face(Protocol):
    """A peer as its owner sees it. Values are ready for JSON; ids are hexadecimal text.

    What cannot be carried out raises `mfd.core.events.CommandFailed` with one sentence.
    """

    def status(self) -> Json:
        """The whole `mfd.core.status.Status`, plus address, version, uptime and byte counters."""
        ...

    def reports(self, *, after: int, walker: str) -> list[Json]:
        """Reports above number `after`, oldest first; of one walker (a prefix of its id) or all."""
        ...

    async def wait_reports(self, *, after: int, seconds: float) -> None:
        """Return as soon as a report above `after` exists, or when the time is over."""
        ...

    async def inject(self, body: AsyncIterator[bytes]) -> str:
        """Take a walker (an injection file, see net/injection.py); return its id.

        Raises: CommandFailed.
        """
        ...

    async def model(self, walker: str) -> Sequence[bytes | memoryview]:
        """The newest version of a walker held here, as the parts of a `.mfd` packet.

        Raises: CommandFailed.
        """
        ...

    def join(self, address: str) -> None:
        """Keep a link to this address from now on. Raises: CommandFailed."""
        ...
