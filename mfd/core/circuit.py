"""A circuit as one peer sees it: its legs, its queues, its credit, and who listens at an end.

Rules of this file: values and the calls of an end; what moves is decided in transfer.py.
Source: spec/transfer.md, sections "Circuits" and "Credit".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from mfd.core.frames import Class, ResetCode, Via
from mfd.packet.objects import Buffer

__all__ = ["Accept", "Circuit", "Leg", "Listener", "NextHop", "Refusal", "Trails"]


class Listener(Protocol):
    """The owner of one end of a circuit."""

    def opened(self, circuit: Circuit) -> None:
        """The other end has answered; bytes may flow."""

    def received(self, circuit: Circuit, payload: memoryview) -> None:
        """Bytes arrived in order. Call `circuit.consumed(n)` once they need no more room."""

    def writable(self, circuit: Circuit) -> None:
        """The queue has run dry; more may be sent."""

    def closed(self, circuit: Circuit, code: ResetCode | None) -> None:
        """The circuit is gone: None after a clean end, else why."""


class Refusal(Exception):
    """Raised by an acceptor that does not want a circuit."""

    def __init__(self, code: ResetCode) -> None:
        super().__init__(code.name)
        self.code = code


Accept = Callable[["Circuit", bytes], Listener]
NextHop = Callable[[Via, Class], "tuple[int, Via] | None"]
"""Given what an OPEN promises, the link to go on and a strictly nearer promise, or None."""


class Trails(Protocol):
    """Ways to peers that routing knows no route to."""

    def way(self, peer: bytes) -> tuple[tuple[bytes, ...], Via] | None:
        """Return the marks of the next hops, and what to follow from there; None: not now."""
        ...

    def broke(self, peer: bytes) -> None:
        """A circuit along this way did not come to stand."""


class Flow(Protocol):
    """What a circuit asks of the table that it belongs to."""

    def window(self, cls: Class) -> int:
        """Bytes of credit granted for each direction."""
        ...

    def pump(self, circuit: Circuit, leg: Leg) -> None:
        """Send what is queued, as far as credit goes."""

    def give_back(self, circuit: Circuit, leg: Leg, size: int) -> None:
        """Return credit."""

    def drop(self, circuit: Circuit, code: ResetCode, *, origin: int | None) -> None:
        """End the circuit at once."""


class Leg:
    """One side of a circuit at this peer: a label on a link, credit both ways, a queue out."""

    __slots__ = (
        "credit",
        "ended_in",
        "ended_out",
        "ending",
        "label",
        "link",
        "owed",
        "queue",
        "room",
    )

    def __init__(self, link: int, label: int) -> None:
        self.link = link
        self.label = label
        self.credit = 0  # bytes that may leave here
        self.room = 0  # bytes that may still come in here
        self.owed = 0  # credit to be given back, saved up to spare frames
        self.queue: deque[memoryview] = deque()
        self.ending = False  # END follows the queue
        self.ended_out = False
        self.ended_in = False


class Circuit:
    """A circuit as one peer sees it: one leg at an end, two at a relay."""

    def __init__(self, owner: Flow, cls: Class, nonce: bytes, first: Leg) -> None:
        self.cls = cls
        self.nonce = nonce
        self.open = False
        self.gone = False  # closed or reset: nothing of it means anything any more
        self.answer = b""  # what the accepting end says in OPENED
        self.hops = 0
        self.listener: Listener | None = None  # None at a relay
        self.first = first
        self.second: Leg | None = None  # relay only: the side toward the target
        self.sought = b""  # the target, where the way was found by SEEK
        self.moved_us = 0  # when bytes last moved
        self._owner = owner

    @property
    def window(self) -> int:
        """Bytes of credit granted to each side at the start."""
        return self._owner.window(self.cls)

    def send(self, *parts: Buffer) -> None:
        """Queue bytes; they leave as credit allows. The parts must not change afterwards.

        Only while `sendable`: an end that has said END, or was asked to, sends no more.
        """
        assert self.sendable
        self.first.queue.extend(memoryview(part).cast("B") for part in parts if len(part))
        self._owner.pump(self, self.first)

    @property
    def sendable(self) -> bool:
        """Whether this end may still queue bytes."""
        return self.open and not self.gone and not self.first.ending

    @property
    def queued(self) -> int:
        """Bytes accepted by `send` and not yet gone."""
        return sum(len(part) for part in self.first.queue)

    def consumed(self, size: int) -> None:
        """Give `size` bytes of credit back to the sender."""
        self._owner.give_back(self, self.first, size)

    def end(self) -> None:
        """No more bytes from here; the circuit closes once the other side has ended too."""
        if self.sendable:
            self.first.ending = True
            self._owner.pump(self, self.first)

    def reset(self, code: ResetCode) -> None:
        """Drop the circuit now; the listener here is not told."""
        self.listener = None
        self._owner.drop(self, code, origin=None)
