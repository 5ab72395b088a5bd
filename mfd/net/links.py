"""A neighbour, the two connections to it, and what is counted of them.

Rules of this file: it owns connections once the link is up; how it came up is transport.py's.
Source: spec/link.md sections 3 and 4.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from mfd.core.effects import Send
from mfd.core.events import Event, Written
from mfd.net.frames import FRAME_BYTES_MAX, FrameConnection, Gate

__all__ = ["Attempt", "Link", "bytes_of"]

CONTROL_QUEUE_BYTES_MAX = 1 << 20
BULK_QUEUE_BYTES_MAX = 16 << 20  # the core leaves far less there


@dataclass(eq=False, slots=True)
class Attempt:
    """What a dial has come to so far."""

    opened: list[FrameConnection] = field(default_factory=list)
    peer: bytes = b""  # who has proven to be there


@dataclass(eq=False, slots=True)
class Link:
    """A neighbour and the two connections to it."""

    number: int
    peer: bytes
    address: str
    outbound: bool
    control: FrameConnection
    bulk: FrameConnection
    unsaid: int = 0  # bytes that have left on bulk since the core was told

    def stand(self, post: Callable[[Event], None], gate: Gate | None) -> None:
        """Set both connections up for frames; `post` is told what leaves on bulk."""
        self.control.queue_bytes_max = CONTROL_QUEUE_BYTES_MAX
        self.bulk.queue_bytes_max = BULK_QUEUE_BYTES_MAX
        self.bulk.on_written = partial(self._written, post)
        for connection in (self.control, self.bulk):
            connection.frame_bytes_max = FRAME_BYTES_MAX
            connection.tune(bulk=connection is self.bulk)
            connection.gate = gate
        self.control.beside, self.bulk.beside = self.bulk, self.control

    def _written(self, post: Callable[[Event], None], size: int) -> None:
        """Tell the core once for all that leaves in one turn of the loop."""
        if not self.unsaid:
            asyncio.get_running_loop().call_soon(self._say_written, post)
        self.unsaid += size

    def _say_written(self, post: Callable[[Event], None]) -> None:
        size, self.unsaid = self.unsaid, 0
        if not self.bulk.lost.done():
            post(Written(self.number, size))

    def send(self, effect: Send) -> None:
        """Write a frame on its channel."""
        connection = self.control if effect.channel == "control" else self.bulk
        connection.send(effect.frame)

    def close(self, reason: str) -> None:
        """End both connections after what was sent on them."""
        for connection in (self.control, self.bulk):
            connection.discard()
            connection.close(reason)


def bytes_of(connection: FrameConnection) -> Counter[str]:
    """Bytes over a connection, by channel and direction."""
    channel = "bulk" if connection.is_bulk else "control"
    return Counter({f"{channel}_in": connection.bytes_in, f"{channel}_out": connection.bytes_out})
