"""A circuit as one peer sees it: its legs, its queues, its credit, and who listens at an end.

Rules of this file: values and the calls of an end; what moves is decided in transfer.py.
Source: spec/transfer.md, sections "Circuits" and "Credit".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from mfd.core.frames import Class, ResetCode, Via
from mfd.packet.objects import Buffer

__all__ = ["Accept", "Channel", "Circuit", "Leg", "Listener", "NextHop", "Refusal", "Trails"]

TAIL_BYTES = 64 << 10  # what waits is kept in pieces of about so much


class Channel(Protocol):
    """An end of a circuit as its owner uses it: plain (`Circuit`) or sealed."""

    answer: bytes  # what the accepting end says to who dialled
    gone: bool  # closed or reset

    @property
    def cls(self) -> Class:
        """Thin or bulk."""
        ...

    @property
    def nonce(self) -> bytes:
        """Its name, the same on all hops."""
        ...

    @property
    def window(self) -> int:
        """Bytes that the other end may have under way to here."""
        ...

    @property
    def link(self) -> int:
        """Over which neighbour it goes."""
        ...

    @property
    def sendable(self) -> bool:
        """Whether this end may still queue bytes."""
        ...

    @property
    def queued(self) -> int:
        """Bytes accepted by `send` and not yet gone."""
        ...

    @property
    def rate(self) -> int:
        """Bytes a second that the narrowest link on the way is measured to carry; 0: unknown."""
        ...

    def send(self, *parts: Buffer) -> None:
        """Queue bytes; the parts must not change afterwards. Only while `sendable`."""

    def consumed(self, size: int) -> None:
        """Give `size` bytes of credit back to the sender."""

    def end(self) -> None:
        """No more bytes from here."""

    def reset(self, code: ResetCode) -> None:
        """Drop it now; the listener here is not told."""


class Listener(Protocol):
    """The owner of one end of a circuit."""

    def opened(self, circuit: Channel) -> None:
        """The other end has answered; bytes may flow."""

    def received(self, circuit: Channel, payload: memoryview) -> None:
        """Bytes arrived in order. Call `circuit.consumed(n)` once they need no more room."""

    def writable(self, circuit: Channel) -> None:
        """Something has left the queue; more may be sent."""

    def closed(self, circuit: Channel, code: ResetCode | None) -> None:
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

    def way(self, peer: bytes, but: frozenset[int]) -> tuple[tuple[bytes, ...], Via] | None:
        """Return the marks of the next hops, and what to follow from there; None: not now.

        `but` are links over which the peer was not reached lately.
        """
        ...

    def broke(self, peer: bytes) -> None:
        """A circuit along this way did not come to stand."""

    def links_toward(self, via: Via, cls: Class) -> list[int]:
        """Return the links over which a holder is said to be reached, nearer than `via` says."""
        ...


class Flow(Protocol):
    """What a circuit asks of the table that it belongs to."""

    def pump(self, circuit: Circuit, leg: Leg) -> None:
        """Send what is queued, as far as credit goes."""

    def give_back(self, circuit: Circuit, leg: Leg, size: int) -> None:
        """Return credit."""

    def rate(self, circuit: Circuit) -> int:
        """Bytes a second that the way out of here is measured to carry; 0: not measured."""
        ...

    def drop(self, circuit: Circuit, code: ResetCode, *, origin: int | None) -> None:
        """End the circuit at once."""


class Leg:
    """One side of a circuit at this peer: a label on a link, credit both ways, a queue out."""

    __slots__ = (
        "came",
        "credit",
        "ended_in",
        "ended_out",
        "ending",
        "granted",
        "label",
        "least",
        "link",
        "listed",
        "owed",
        "probe",
        "queue",
        "queued",
        "room",
        "tail",
        "window",
    )

    def __init__(self, link: int, label: int) -> None:
        self.link = link
        self.label = label
        self.window = 0  # bytes that the neighbour may have under way
        self.credit = 0  # bytes that may leave here
        self.least = 0  # with less credit than that, and more queued, nothing leaves
        self.room = 0  # bytes that may still come in here
        self.owed = 0  # credit to be given back, saved up to spare frames
        self.granted = 0  # bytes allowed in so far
        self.came = 0  # bytes that came in so far
        self.probe: tuple[int, int] | None = None  # (granted before, when) a CREDIT was sent
        self.queue: deque[memoryview] = deque()
        self.tail = bytearray()  # after the queue: what had to wait, close together
        self.queued = 0  # bytes in queue and tail
        self.listed = False  # waits for its turn in the link's outbox
        self.ending = False  # END follows the queue
        self.ended_out = False
        self.ended_in = False

    @property
    def sendable_bytes(self) -> int:
        """What may leave now: all there is, or enough to be worth a frame."""
        size = min(self.queued, self.credit)
        return size if size == self.queued or size >= self.least else 0

    def push(self, parts: Iterable[memoryview]) -> None:
        """Queue views whose bytes do not change any more."""
        self._close_tail()
        for part in parts:
            self.queue.append(part)
            self.queued += len(part)

    def pull(self, limit: int) -> memoryview:
        """Take at most `limit` queued bytes that lie together."""
        if not self.queue:
            self._close_tail()
        part = self.queue.popleft()
        piece = part[:limit]
        if len(piece) < len(part):
            self.queue.appendleft(part[limit:])
        self.queued -= len(piece)
        return piece

    def pass_on(self, part: memoryview) -> None:
        """Queue what a relay has received; `settle` once what can leave has left."""
        self.queued += len(part)
        if self.queued == len(part):
            self.queue.append(part)
            return
        self.tail += part
        if len(self.tail) >= TAIL_BYTES:
            self._close_tail()

    def settle(self) -> None:
        """Copy a view that has to wait: its buffer is larger, and wanted for the next frames."""
        if self.queue and not self.tail:
            self.tail += self.queue.pop()

    def _close_tail(self) -> None:
        if self.tail:
            self.queue.append(memoryview(self.tail))
            self.tail = bytearray()


class Circuit:
    """A circuit as one peer sees it: one leg at an end, two at a relay."""

    def __init__(self, owner: Flow, cls: Class, nonce: bytes, first: Leg) -> None:
        self.cls = cls
        self.nonce = nonce
        self.open = False
        self.gone = False  # closed or reset: nothing of it means anything any more
        self.answer = b""  # what the accepting end says in OPENED
        self.hops = 0
        self.rate_behind = 0  # of the links behind the neighbour, as OPENED said
        self.listener: Listener | None = None  # None at a relay
        self.first = first
        self.second: Leg | None = None  # relay only: the side toward the target
        self.target = b""  # who is dialled, where it begins here
        self.beyond = b""  # relay only: who is dialled
        self.sought = False  # the way was found by SEEK
        self.reserved = 0  # bytes set aside for it
        self.moved = 0  # bytes sent on or taken in, since `since_us`
        self.since_us = 0
        self._owner = owner

    @property
    def window(self) -> int:
        """Bytes that the neighbour of the first leg may have under way to here."""
        return self.first.window

    @property
    def link(self) -> int:
        """Over which neighbour it goes from here."""
        return self.first.link

    def send(self, *parts: Buffer) -> None:
        """Queue bytes; they leave as credit allows. The parts must not change afterwards.

        Only while `sendable`: an end that has said END, or was asked to, sends no more.
        """
        assert self.sendable
        self.first.push(memoryview(part).cast("B") for part in parts if len(part))
        self._owner.pump(self, self.first)

    @property
    def rate(self) -> int:
        """Bytes a second that the narrowest link on the way is measured to carry; 0: unknown."""
        return self._owner.rate(self)

    @property
    def sendable(self) -> bool:
        """Whether this end may still queue bytes."""
        return self.open and not self.gone and not self.first.ending

    @property
    def queued(self) -> int:
        """Bytes accepted by `send` and not yet gone."""
        return self.first.queued

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
