"""A link that is slower than the one it runs over: bandwidth, delay, and what loss does to TCP.

Rules of this file: it holds frames back and changes none. Each end shapes what it sends, both
channels of a link together, control first. What is emulated begins once the link is up.
Source: spec/link.md section 7; M. Mathis et al., "The macroscopic behavior of the TCP congestion
avoidance algorithm", 1997.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt

from mfd.net.frames import Frame, FrameConnection

__all__ = ["Emulation", "Wire"]

SEGMENT_BYTES = 1448
MATHIS = 1.22
RTO_SECONDS = 0.2  # Linux: least wait for a segment whose repetition was lost too
HOLD_BYTES = 256 << 10  # where the socket itself is behind, nothing more leaves the queue
POLL_SECONDS = 0.005
LATENCY_US_MAX = 60_000_000
BANDWIDTH_BPS_MAX = 10**13
MILLION = 1_000_000
_CAPS = ("emulate.latency_us", "emulate.bandwidth_bps", "emulate.loss_ppm")


@dataclass(frozen=True, slots=True)
class Wire:
    """What is emulated, in each direction. Raises: ValueError for what no link is."""

    latency_us: int = 0  # one way
    bandwidth_bps: int = 0  # bits a second; 0: not limited
    loss: float = 0.0  # part of the packets that is lost, below 1

    def __post_init__(self) -> None:
        in_range = 0 <= self.latency_us <= LATENCY_US_MAX
        if not in_range or not 0 <= self.bandwidth_bps <= BANDWIDTH_BPS_MAX:
            raise ValueError("an emulated link has 0 to 60 s latency and 0 to 10^13 bit/s")
        if not 0.0 <= self.loss < 1.0:
            raise ValueError("the loss of an emulated link is at least 0 and below 1")

    def caps(self) -> dict[str, int]:
        """What the dialler tells the listener in its hello (L-29)."""
        numbers = (self.latency_us, self.bandwidth_bps, round(self.loss * MILLION))
        return {name: number for name, number in zip(_CAPS, numbers, strict=True) if number}

    @classmethod
    def of_caps(cls, caps: Mapping[str, int]) -> Wire | None:
        """Read what the other side told; None where that is nothing, or nonsense."""
        if not any(name in caps for name in _CAPS):
            return None
        latency_us, bandwidth_bps, loss_ppm = (caps.get(name, 0) for name in _CAPS)
        try:
            return cls(latency_us, bandwidth_bps, loss_ppm / MILLION)
        except ValueError:
            return None

    @property
    def bytes_per_s(self) -> float:
        """What TCP gets out of it: the bandwidth, or with loss less; 0: not limited."""
        limits = [self.bandwidth_bps / 8] if self.bandwidth_bps else []
        if self.loss and self.latency_us:
            rtt_s = 2 * self.latency_us / MILLION
            limits.append(MATHIS * SEGMENT_BYTES / (rtt_s * sqrt(self.loss)))
        return min(limits, default=0.0)


class Emulation:
    """One direction of one link; a `Gate` of both its connections.

    A frame waits for its turn, takes size / rate to leave, and arrives a latency later. One with a
    lost segment arrives a round trip later, what was sent behind it on that connection too; each
    repetition that is lost again costs max(200 ms, two round trips) more. Lost bytes go twice.
    """

    def __init__(self, wire: Wire, dice: random.Random) -> None:
        self._rate = wire.bytes_per_s
        self._latency_s = wire.latency_us / MILLION
        self._loss = wire.loss
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._queues: tuple[deque[Entry], deque[Entry]] = (deque(), deque())  # control, bulk
        self._air: deque[tuple[float, Entry]] = deque()  # on its way, by time of arrival
        self._last: dict[FrameConnection, float] = {}  # connection -> latest arrival
        self._waiting: dict[FrameConnection, int] = {}
        self._free_at = 0.0  # when the line has sent what it began
        self._timer: asyncio.TimerHandle | None = None

    def take(self, connection: FrameConnection, frame: Frame, size: int) -> None:
        """Queue a frame of `size` bytes, its length included; copied, since it may wait long."""
        kept = tuple(bytes(part) for part in frame)
        self._waiting[connection] = self._waiting.get(connection, 0) + size
        queue = self._queues[connection.is_bulk]
        if not any(self._queues) and self._free_at < self._loop.time():
            self._free_at = self._loop.time()  # it was idle
        queue.append((connection, kept, size))
        self._run()

    def waiting(self, connection: FrameConnection) -> int:
        """Bytes of a connection that have not arrived."""
        return self._waiting.get(connection, 0)

    def _run(self) -> None:
        """Send what the time allows, deliver what has arrived, come back when more is due."""
        now = self._loop.time()
        held = False
        while (entry := self._next()) is not None and self._free_at <= now:
            connection, _, size = entry
            if connection.queue_bytes > HOLD_BYTES:
                held = True
                break
            self._queues[connection.is_bulk].popleft()
            self._depart(entry, size)
        while self._air and self._air[0][0] <= now:
            connection, frame, size = self._air.popleft()[1]
            self._forget(connection, size)
            if not connection.lost.done():
                connection.write_frame(frame, size)
        self._arm(now, held=held)

    def _next(self) -> Entry | None:
        """The frame in front, control before bulk; those of dead connections are dropped."""
        for queue in self._queues:
            while queue:
                if not queue[0][0].lost.done():
                    return queue[0]
                connection, _, size = queue.popleft()
                self._forget(connection, size)
        return None

    def _depart(self, entry: Entry, size: int) -> None:
        connection = entry[0]
        late_s, again = self._luck(size)
        if self._rate:
            self._free_at += (size + again) / self._rate
        arrival = max(self._free_at + self._latency_s + late_s, self._last.get(connection, 0.0))
        self._last[connection] = arrival
        place = len(self._air)
        while place and self._air[place - 1][0] > arrival:
            place -= 1
        self._air.insert(place, (arrival, entry))
        connection.on_written(size)

    def _luck(self, size: int) -> tuple[float, int]:
        """Seconds that losses delay a frame, and bytes sent again."""
        if not self._loss:
            return 0.0, 0
        segments = ceil(size / SEGMENT_BYTES)
        lost = sum(self._dice.random() < self._loss for _ in range(segments))
        if not lost:
            return 0.0, 0
        rtt_s = 2 * self._latency_s
        late_s, again = rtt_s, lost * SEGMENT_BYTES
        while self._dice.random() < 1 - (1 - self._loss) ** lost:
            late_s += max(RTO_SECONDS, 2 * rtt_s)
            again += SEGMENT_BYTES
        return late_s, again

    def _forget(self, connection: FrameConnection, size: int) -> None:
        self._waiting[connection] -= size
        if not self._waiting[connection]:
            del self._waiting[connection]
            if connection.lost.done():
                self._last.pop(connection, None)

    def _arm(self, now: float, *, held: bool) -> None:
        due = [self._air[0][0]] if self._air else []
        if self._next() is not None:
            due.append(now + POLL_SECONDS if held else self._free_at)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due:
            self._timer = self._loop.call_at(min(due), self._run)


Entry = tuple[FrameConnection, Frame, int]
