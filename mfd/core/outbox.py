"""Bulk on its way out over one link: in turns between neighbours, then between their circuits.

Rules of this file: it decides whose frame is next, and how large. Where the driver tells what has
left (`paced`), no more than a small share is in its hands, so that turns are taken late.
Source: spec/transfer.md, section "Order of service"; M. Shreedhar, G. Varghese, "Efficient fair
queueing using deficit round robin", 1995.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mfd.core.circuit import Circuit, Leg
from mfd.core.credit import Meter

__all__ = ["Outbox"]

FRAME_BYTES_MIN = 4 << 10
FRAME_BYTES_FIRST = 16 << 10  # until the link is measured: 13 ms at 10 Mbit/s
FRAME_US = 5_000  # the time that one frame may hold up the next one
DRIVER_BYTES = 256 << 10  # in the driver's hands at most, or ...
DRIVER_US = 10_000  # ... as much as leaves in so long, whichever is more
DRIVER_BYTES_MAX = 1 << 20
FRAME_HEAD_BYTES = 9  # length, type and label: spec/link.md L-03, spec/transfer.md

Own = None  # the neighbour of what begins here
Entry = tuple[Circuit, Leg]  # the leg that bytes leave by


class Outbox:
    """The bulk channel of one link.

    `emit` sends one frame of a leg and returns its payload's size; `left` is told once it has gone.
    """

    def __init__(
        self,
        *,
        paced: bool,
        frame_bytes_max: int,
        emit: Callable[[Circuit, Leg, int], int],
        left: Callable[[Circuit, Leg, int], None],
        now: Callable[[], int],
    ) -> None:
        self.meter = Meter()  # of what leaves; its round trip is not used
        self._paced = paced
        self._frame_bytes_max = frame_bytes_max
        self._emit = emit
        self._left = left
        self._now = now  # us
        self._busy_us = 0  # since when the driver has had something, or said that some has left
        self._turns: deque[int | None] = deque()  # neighbours with something to send
        self._ready: dict[int | None, deque[Entry]] = {}
        self._deficit: dict[int | None, int] = {}
        self._flying: deque[tuple[int, Circuit, Leg]] = deque()  # sent, not yet said to have left
        self._flying_bytes = 0
        self._credit_bytes = 0  # said to have left, not yet a whole frame
        self._running = False
        self._begun = False  # the turn of the neighbour in front

    @property
    def frame_bytes(self) -> int:
        """Largest payload of a frame now: about 5 ms of this link."""
        if not self.meter.rate:
            first = FRAME_BYTES_FIRST if self._paced else self._frame_bytes_max
            return min(first, self._frame_bytes_max)
        fair = self.meter.rate * FRAME_US // 1_000_000
        return min(max(FRAME_BYTES_MIN, fair), self._frame_bytes_max)

    def offer(self, circuit: Circuit, leg: Leg) -> None:
        """Give a leg with bytes and credit its turns."""
        if not leg.listed:
            leg.listed = True
            source = _source(circuit, leg)
            if source not in self._ready:
                self._ready[source] = deque()
                self._deficit[source] = 0
                self._turns.append(source)
            self._ready[source].append((circuit, leg))
        self.run()

    def written(self, size: int) -> None:
        """The driver has seen so many bytes leave, in the order in which they were sent."""
        if self._flying:
            self.meter.took(size, self._now() - self._busy_us)
            self._busy_us = self._now()
        self._credit_bytes += size
        while self._flying and self._credit_bytes >= self._flying[0][0] + FRAME_HEAD_BYTES:
            payload, circuit, leg = self._flying.popleft()
            self._credit_bytes -= payload + FRAME_HEAD_BYTES
            self._flying_bytes -= payload
            self._left(circuit, leg, payload)
        if not self._flying:
            self._credit_bytes = 0  # what remains were other frames
        self.run()

    def run(self) -> None:
        """Send as long as there is something to send and room for it."""
        if self._running:
            return  # a leg that has run dry may offer more while we are at it
        self._running = True
        while self._turns and self._room():
            source = self._turns[0]
            ready = self._ready[source]
            if not self._begun:
                self._begun = True
                self._deficit[source] += self._frame_bytes_max
            frame_bytes = self.frame_bytes
            while ready and self._deficit[source] >= frame_bytes and self._room():
                self._one(source, ready, frame_bytes)
            if not ready:
                del self._ready[source], self._deficit[source]
                self._turns.popleft()
                self._begun = False
            elif self._room():
                self._turns.rotate(-1)
                self._begun = False
        self._running = False

    def _one(self, source: int | None, ready: deque[Entry], frame_bytes: int) -> None:
        circuit, leg = ready.popleft()
        leg.listed = False
        if circuit.gone or not leg.sendable_bytes:
            return
        payload = self._emit(circuit, leg, frame_bytes)
        self._deficit[source] -= payload
        if self._paced:
            if not self._flying:
                self._busy_us = self._now()
            self._flying.append((payload, circuit, leg))
            self._flying_bytes += payload
        else:
            self._left(circuit, leg, payload)
        if leg.sendable_bytes and not circuit.gone and not leg.listed:
            leg.listed = True
            ready.append((circuit, leg))

    def _room(self) -> bool:
        if self._flying_bytes < DRIVER_BYTES or not self._paced:
            return True
        share = self.meter.rate * DRIVER_US // 1_000_000
        return self._flying_bytes < min(share, DRIVER_BYTES_MAX)


def _source(circuit: Circuit, leg: Leg) -> int | None:
    if circuit.second is None:
        return Own
    return circuit.second.link if leg is circuit.first else circuit.first.link
