"""One connection as a stream of frames: received straight into buffers that are used again.

    0        4                4 + n
    | n: u32 | body: n bytes  |          little-endian

Rules of this file: it knows lengths, not meanings. A frame is a view of the receive buffer; whoever
needs its bytes for longer simply keeps the view, and that buffer is not used again until it goes.
Source: spec/link.md sections 1 and 4 (L-03, L-04, L-20 to L-23).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from mfd.net.outlet import GATHER_BYTES, DirectOutlet, Outlet, TransportOutlet
from mfd.packet.objects import Buffer

__all__ = [
    "BUFFER_BYTES",
    "FRAME_BYTES_MAX",
    "LENGTH_BYTES",
    "BufferPool",
    "Frame",
    "FrameConnection",
    "Gate",
]

LENGTH_BYTES = 4
FRAME_BYTES_MAX = (64 << 10) + (1 << 10)  # the core's largest payload and room for its head
BUFFER_BYTES = 256 << 10  # three whole frames and a bit: little is moved when a buffer is full
COPY_BYTES_MAX = 32 << 10  # smaller parts that must wait are copied: a view keeps a whole buffer
HEAD_BYTES_MAX = 64  # a first part that is joined with the length
UNSENT_BYTES = 32 << 10  # TCP_NOTSENT_LOWAT on bulk
FLUSH_SECONDS = 1.0  # a neighbour that does not read is not waited for any longer


_LENGTH = struct.Struct("<I")
_LANES = {1: 0, 2: 0, 19: 0, 21: 0, 18: 2, 20: 2}  # by type of frame (spec/transfer.md)

Frame = tuple[Buffer, ...]  # its length, joined with a small first part; then its parts


class Gate(Protocol):
    """Something that frames pass on their way to the socket."""

    def take(self, connection: FrameConnection, frame: Frame, size: int) -> None:
        """Write the frame with `write_frame` when its time has come."""
        ...

    def waiting(self, connection: FrameConnection) -> int:
        """Bytes of a connection that have not come through."""
        ...


class BufferPool:
    """Receive buffers. Hands out only those whose bytes nobody looks at any more (L-22)."""

    def __init__(self, idle_max: int = 64) -> None:
        self._idle: deque[bytearray] = deque(maxlen=idle_max)  # beyond it, memory goes back

    def take(self) -> bytearray:
        """Return a buffer of BUFFER_BYTES, fresh only where none is free."""
        for _ in range(min(8, len(self._idle))):
            buffer = self._idle.popleft()
            if is_free(buffer):
                return buffer
            self._idle.append(buffer)
        return bytearray(BUFFER_BYTES)

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back; views of it may still exist."""
        self._idle.append(buffer)


def is_free(buffer: bytearray) -> bool:
    """Say whether no view of the buffer exists.

    Python refuses to resize a bytearray while anything refers to its memory: the one count of
    readers that cannot be wrong, whoever they are (a queued write, another thread, asyncio).
    """
    try:
        buffer.append(0)
    except BufferError:
        return False
    del buffer[-1:]
    return True


class FrameConnection(asyncio.BufferedProtocol):
    """Reads and writes frames on a transport taken over from aiohttp.

    Frames go to `on_frame` once `deliver` was called; before that `receive` takes them one by one.
    Reading stops while nobody takes frames, so that nothing piles up. `lost` is done at the end and
    holds the reason.
    """

    def __init__(
        self, transport: asyncio.Transport, below: asyncio.BaseProtocol | None, pool: BufferPool
    ) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.is_bulk = False
        self.remote = _format_address(transport.get_extra_info("peername"))
        self.frame_bytes_max = FRAME_BYTES_MAX
        self.queue_bytes_max = 1 << 20
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._below = below
        self._pool = pool
        self._buffer = pool.take()
        self._start = self._end = 0  # what was received and not yet taken
        self._on_frame: Callable[[memoryview], None] | None = None
        self.on_written: Callable[[int], None] = _ignore  # bytes that the system has taken
        self.beside: FrameConnection | None = None  # the other connection of the link
        self.gate: Gate | None = None  # delays what is sent, where a link is emulated
        self._lanes: tuple[deque[Frame], ...] = (deque(), deque(), deque())
        self._queue_bytes = 0
        self._closing = False
        self._reason = ""
        self._transport = transport
        self._plain = TransportOutlet(transport, self._wrote)
        self._outlet: Outlet = self._plain
        transport.set_protocol(self)
        transport.resume_reading()  # aiohttp's client pauses it when the response has no body

    # reading

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give asyncio room to receive into, past what is there."""
        if self._start == self._end and is_free(self._buffer):
            self._start = self._end = 0
        elif self._end == BUFFER_BYTES or self._start + self._wanted() > BUFFER_BYTES:
            self._next_buffer()
        return memoryview(self._buffer)[self._end :]

    def _wanted(self) -> int:
        """Size of the frame that has begun to arrive, its length field included."""
        if self._end - self._start < LENGTH_BYTES:
            return LENGTH_BYTES
        size: int = _LENGTH.unpack_from(self._buffer, self._start)[0]
        return LENGTH_BYTES + size

    def _next_buffer(self) -> None:
        """Go on in another buffer with the begun frame at its start."""
        buffer, size = self._pool.take(), self._end - self._start
        buffer[:size] = memoryview(self._buffer)[self._start : self._end]
        self._pool.give(self._buffer)
        self._buffer, self._start, self._end = buffer, 0, size

    def buffer_updated(self, nbytes: int) -> None:
        """Take the frames that are whole now."""
        self.bytes_in += nbytes
        self._end += nbytes
        self._take_frames()

    def _take_frames(self) -> None:
        while self._on_frame is not None and self._end - self._start >= LENGTH_BYTES:
            (size,) = _LENGTH.unpack_from(self._buffer, self._start)
            if not 0 < size <= self.frame_bytes_max:
                self.abort(f"a frame of {size} bytes came; 1 to {self.frame_bytes_max} are allowed")
                return
            begin = self._start + LENGTH_BYTES
            if self._end - begin < size:
                return
            self._start = begin + size
            self._on_frame(memoryview(self._buffer)[begin : self._start])
        if self._on_frame is None and not self._transport.is_closing():
            self._transport.pause_reading()

    def deliver(self, on_frame: Callable[[memoryview], None]) -> None:
        """Hand every frame to `on_frame` from now on, those that wait here first."""
        self._on_frame = on_frame
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._take_frames()

    async def receive(self) -> bytes:
        """Wait for one frame and copy it. Raises: ConnectionError if the connection ends first."""
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def take(frame: memoryview) -> None:
            self._on_frame = None
            if not waiter.done():
                waiter.set_result(bytes(frame))

        self.deliver(take)
        await asyncio.wait((waiter, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not waiter.done():
            raise ConnectionError(self.lost.result())
        return waiter.result()

    def discard(self) -> None:
        """Throw away every frame from now on: the end is near, and nobody wants more."""
        self._on_frame = _ignore

    def eof_received(self) -> bool:
        """Close when the other side does: half a connection is none."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on to aiohttp too, or its session would wait for it for ever."""
        if self._below is not None:  # not its truth: an aiohttp client protocol has a length, 0
            self._below.connection_lost(exc)
            self._below = None
        self._on_frame = None
        for lane in self._lanes:
            lane.clear()
        self._queue_bytes = 0
        self._outlet.close()
        self._pool.give(self._buffer)
        broken = f"the connection broke: {exc}" if exc else "the connection closed"
        if not self.lost.done():
            self.lost.set_result(self._reason or broken)

    # writing

    def send(self, parts: Sequence[Buffer]) -> None:
        """Write one frame, or let it wait for its turn; never blocks.

        A queue above `queue_bytes_max` ends the connection: the neighbour does not read.
        """
        if self._closing or self._transport.is_closing():
            return
        size = sum(map(len, parts))
        assert 0 < size <= self.frame_bytes_max, f"frame of {size} bytes"
        head = _LENGTH.pack(size)
        if len(parts[0]) <= HEAD_BYTES_MAX:  # one part less to gather
            frame: Frame = (head + parts[0], *parts[1:])
        else:
            frame = (head, *parts)
        self.bytes_out += LENGTH_BYTES + size
        if self.gate is not None:
            self.gate.take(self, frame, LENGTH_BYTES + size)
        else:
            self.write_frame(frame, LENGTH_BYTES + size)

    def write_frame(self, frame: Frame, size: int) -> None:
        """Write a frame of `size` bytes, its length included, or queue it in its lane.

        On bulk, frames of one turn of the loop are written together: a system call costs as much as
        copying 64 KiB.
        """
        if self._outlet.ready and not self._queue_bytes:
            if not self.is_bulk:
                self._outlet.write(frame)
                self._close_if_done()
                return
            asyncio.get_running_loop().call_soon(self._flush)
        if self._outlet.ready:  # for this turn
            kept = frame
        else:
            kept = tuple(bytes(part) if len(part) < COPY_BYTES_MAX else part for part in frame)
        self._lanes[1 if self.is_bulk else _lane(frame)].append(kept)
        self._queue_bytes += size
        if self._queue_bytes > self.queue_bytes_max:
            self.abort(f"the neighbour does not read: {self._queue_bytes} bytes wait for it")

    def _flush(self) -> None:
        """Write what waits, in the order of service, a gathering at a time."""
        while self._queue_bytes and self._outlet.ready:
            parts: list[Buffer] = []
            size = 0
            for lane in self._lanes:
                while lane and size < GATHER_BYTES:
                    frame = lane.popleft()
                    parts += frame
                    size += sum(map(len, frame))
            self._queue_bytes -= size
            self._outlet.write(parts)
        self._close_if_done()

    def _close_if_done(self) -> None:
        """Close once nothing waits, here and beside: the end of one is the end of both."""
        pair = (self,) if self.beside is None else (self, self.beside)
        if all(connection.lost.done() or connection._is_done() for connection in pair):
            for connection in pair:
                connection._transport.close()

    def _is_done(self) -> bool:
        return self._closing and not self.waiting_bytes and self._outlet.ready

    def _wrote(self, size: int) -> None:
        if self.gate is None:  # else it tells itself when frames leave it
            self.on_written(size)

    def pause_writing(self) -> None:
        """Let frames wait here while the transport is full."""
        self._plain.pause()

    def resume_writing(self) -> None:
        """Go on where the queue stands."""
        self._plain.resume()
        self._flush()

    @property
    def queue_bytes(self) -> int:
        """What waits here, the system's buffers not counted."""
        return self._queue_bytes

    @property
    def waiting_bytes(self) -> int:
        """What waits here and in the gate."""
        return self._queue_bytes + (self.gate.waiting(self) if self.gate is not None else 0)

    # options and the end

    def tune(self, *, bulk: bool) -> None:
        """Set the socket for its channel (L-20)."""
        self.is_bulk = bulk
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if bulk and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if self._transport.get_extra_info("ssl_object") is None and self._plain.idle:
            self._outlet = DirectOutlet(
                sock.dup(), wrote=self._wrote, drained=self._flush, broke=self.abort
            )

    def close(self, reason: str) -> None:
        """End the connection after what was sent on it, or a second later without it."""
        if self._closing or self.lost.done():
            return
        self._reason = self._reason or reason
        self._closing = True
        self._close_if_done()
        if not self.lost.done():
            timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._transport.abort)
            self.lost.add_done_callback(lambda _: timer.cancel())

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self._reason = self._reason or reason
        self._closing = True
        self._on_frame = None
        self._outlet.close()
        self._transport.abort()


def _format_address(name: object) -> str:
    match name:
        case (str() as host, int() as port, *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unknown"


def _ignore(_: object) -> None:
    """Take a frame, or a number, and do nothing with it."""


def _lane(frame: Frame) -> int:
    """Order of service (L-20): heartbeat, CREDIT, RESET; other control; bytes of circuits."""
    head = frame[0]
    return _LANES.get(head[LENGTH_BYTES] if len(head) > LENGTH_BYTES else frame[1][0], 1)
