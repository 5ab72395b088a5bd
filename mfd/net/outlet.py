"""The way out of one connection: parts go to the socket gathered, and without a copy where it can.

Rules of this file: it knows bytes, not frames. It takes parts while `ready`; what the system did
not take of them it writes as soon as it can, and says so.
Source: spec/link.md section 4 (L-20); spec/rationale.md, "Link".
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from mfd.packet.objects import Buffer

__all__ = ["GATHER_BYTES", "DirectOutlet", "Outlet", "TransportOutlet"]

GATHER_BYTES = 256 << 10  # given to the system at once
WRITE_HIGH_BYTES = 64 << 10  # in asyncio's own buffer, before frames wait for it
JOIN_BYTES_MAX = 2048  # parts up to here are joined: copying costs less than a part does


class Outlet(Protocol):
    """Where a connection writes; `wrote` and `drained` are called back."""

    ready: bool  # takes more

    def write(self, parts: Sequence[Buffer]) -> None:
        """Take parts, only while `ready`."""
        ...

    def close(self) -> None:
        """Let go; what was not written is lost."""
        ...


class TransportOutlet:
    """Through asyncio's transport: for TLS, and for what comes before the link is up."""

    def __init__(self, transport: asyncio.Transport, wrote: Callable[[int], None]) -> None:
        self.ready = True
        self._transport = transport
        self._wrote = wrote
        self._unsaid = 0
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def write(self, parts: Sequence[Buffer]) -> None:
        """Hand over; asyncio copies what the socket does not take."""
        self._unsaid += sum(map(len, parts))
        for part in _joined(parts):
            self._transport.write(part)
        if self.ready:
            self.resume()

    def pause(self) -> None:
        """The transport has enough."""
        self.ready = False

    def resume(self) -> None:
        """The transport has room."""
        self.ready = True
        unsaid, self._unsaid = self._unsaid, 0
        if unsaid:
            self._wrote(unsaid)

    @property
    def idle(self) -> bool:
        """Nothing waits in the transport."""
        return self.ready and not self._transport.get_write_buffer_size()

    def close(self) -> None:
        """The transport is its owner's to close."""
        self.ready = False


class DirectOutlet:
    """Straight to a TCP socket, by a descriptor of its own.

    asyncio 3.11 writes parts one by one and copies the unsent rest into a growing buffer that it
    then moves at every write; gathering costs neither. Only where the transport has nothing to
    write itself.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        wrote: Callable[[int], None],
        drained: Callable[[], None],
        broke: Callable[[str], None],
    ) -> None:
        self.ready = True
        self._sock = sock
        self._wrote = wrote
        self._drained = drained
        self._broke = broke
        self._loop = asyncio.get_running_loop()
        self._rest: deque[memoryview] = deque()
        self._closed = False

    def write(self, parts: Sequence[Buffer]) -> None:
        """Give the system what it takes now, the rest later."""
        self._rest.extend(memoryview(part).cast("B") for part in parts)
        self._send()
        if self._rest and not self._closed:
            self.ready = False
            self._loop.add_writer(self._sock, self._writable)

    def _send(self) -> None:
        try:
            while self._rest:
                count = self._sock.sendmsg(self._rest)
                self._taken(count)
                self._wrote(count)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self.close()
            self._broke(exc.strerror or str(exc))

    def _taken(self, count: int) -> None:
        while count:
            first = self._rest[0]
            if len(first) > count:
                self._rest[0] = first[count:]
                return
            count -= len(first)
            self._rest.popleft()

    def _writable(self) -> None:
        self._send()
        if not self._rest and not self._closed:
            self._loop.remove_writer(self._sock)
            self.ready = True
            self._drained()

    def close(self) -> None:
        """Close this descriptor; the connection itself is the transport's to close."""
        if not self._closed:
            self._closed = True
            self.ready = False
            self._loop.remove_writer(self._sock)
            self._rest.clear()
            self._sock.close()


def _joined(parts: Sequence[Buffer]) -> list[Buffer]:
    """Join small parts with what stands before them."""
    out: list[Buffer] = []
    gathered = b""
    for part in parts:
        if len(gathered) + len(part) <= JOIN_BYTES_MAX:
            gathered += part
            continue
        if gathered:
            out.append(gathered)
        gathered = b""
        out.append(part)
    return [*out, gathered] if gathered else out
