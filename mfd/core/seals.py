"""Circuits sealed end to end: only the two ends read them, and each knows who the other is.

    OPEN.handshake      | 0 | hello |, or nothing       plain: to a neighbour over an encrypted link
                        | 1 | ephemeral A 32 |          sealed
    OPENED.handshake    answer                          plain
                        | ephemeral B 32 | signature B 64 |        and maybe | age u32 | record |
    the bytes then      records | size u32 | box |; A's first: id A 32 | signature A 64 | hello;
                        B's first, bulk only: answer

Rules of this file: it knows no cryptography, which is handed in, and nothing of what travels.
Source: spec/transfer.md, section "Sealing".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgpack

from mfd.core.circuit import Channel, Circuit, Listener, Refusal
from mfd.core.context import Context
from mfd.core.frames import Class, ResetCode, Via
from mfd.core.transfer import Circuits
from mfd.core.whereabouts import Whereabouts
from mfd.packet.objects import Buffer
from mfd.packet.signing import KEY_BYTES, SIGNATURE_BYTES

__all__ = ["RECORD_BYTES_MAX", "Box", "Ephemeral", "Sealed", "Sealer", "Seals"]

DIALLER_DOMAIN = "mfd.circuit.dialler.v1"
LISTENER_DOMAIN = "mfd.circuit.listener.v1"
PLAIN, SEALED = b"\0", b"\1"
EPHEMERAL_BYTES = 32
SIZE_BYTES = 4
TAG_BYTES = 16
RECORD_BYTES_MAX = (64 << 10) - SIZE_BYTES - TAG_BYTES  # of plain bytes: a record fills one frame
THIN_RECORD_BYTES_MAX = (4 << 10) - SIZE_BYTES - TAG_BYTES  # half of a thin window
SMALL_BYTES = 4 << 10  # joining so much costs less than a record does
PROOF_BYTES = KEY_BYTES + SIGNATURE_BYTES
ANSWER_HEAD_BYTES = EPHEMERAL_BYTES + SIGNATURE_BYTES
ANSWER_BYTES_MAX = 512


class Box(Protocol):
    """Seals records one way and opens those of the other, each with the number of its turn."""

    def seal(self, plain: Buffer, head: bytes = b"") -> Buffer:
        """Return `head` and, right behind it, the next box: as long as `plain`, and TAG_BYTES."""
        ...

    def open(self, box: Buffer) -> bytes:
        """Return what the other side's next box holds. Raises: ValueError for any other bytes."""
        ...


class Ephemeral(Protocol):
    """A key pair for one circuit."""

    @property
    def public(self) -> bytes:
        """Its public half, 32 bytes."""
        ...

    def agree(self, other: bytes, transcript: bytes, *, dialler: bool) -> Box:
        """Derive the keys of both directions. Raises: ValueError for a key that is none."""
        ...


class Sealer(Protocol):
    """Cryptography, handed in as a signer is."""

    def fresh(self, seed: bytes) -> Ephemeral:
        """Make a key pair from 32 secret bytes that nobody has used."""
        ...


Accept = Callable[[Channel, bytes], Listener]


class Sealed:
    """One end of a sealed circuit: a `Channel` for who uses it, a `Listener` of the circuit."""

    def __init__(self, seals: Seals, ephemeral: Ephemeral, *, dialler: bool) -> None:
        self.answer = b""  # what the accepting end says to the hello
        self.peer = b""  # the other end, once proven
        self.gone = False
        self._seals = seals
        self._ephemeral = ephemeral
        self.dialler = dialler
        self._other = b""  # the other end's ephemeral key, at the end that accepts
        self._circuit: Circuit | None = None
        self._listener: Listener | None = None
        self._hello = b""
        self._box: Box | None = None
        self._ready = False  # the other end is proven, and may be talked to
        self._begun = bytearray()  # of a record that has not come whole
        self._ahead = 0  # credit returned for bytes that the listener has not consumed

    # Channel

    @property
    def circuit(self) -> Circuit:
        """What it runs over."""
        assert self._circuit is not None
        return self._circuit

    @property
    def cls(self) -> Class:
        """Thin or bulk."""
        return self.circuit.cls

    @property
    def nonce(self) -> bytes:
        """The circuit's name on all its hops."""
        return self.circuit.nonce

    @property
    def window(self) -> int:
        """As `Circuit.window`."""
        return self.circuit.window

    @property
    def queued(self) -> int:
        """Bytes accepted by `send` and not yet gone, as sealed."""
        return self.circuit.queued

    @property
    def rate(self) -> int:
        """As `Circuit.rate`."""
        return self.circuit.rate

    @property
    def sendable(self) -> bool:
        """Whether this end may still send."""
        return self._ready and not self.gone and self.circuit.sendable

    def send(self, *parts: Buffer) -> None:
        """Seal bytes and queue them, all before any of them leaves: what leaves calls us back."""
        boxes: list[Buffer] = []
        small = b""  # parts that share a record
        for part in parts:
            view = memoryview(part).cast("B")
            if len(small) + len(view) <= SMALL_BYTES:
                small += view
                continue
            boxes += self._boxes(memoryview(small))
            small = b""
            boxes += self._boxes(view)
        boxes += self._boxes(memoryview(small))
        if self.circuit.sendable:
            self.circuit.send(*boxes)

    @property
    def link(self) -> int:
        """As `Circuit.link`."""
        return self.circuit.link

    @property
    def _record_bytes_max(self) -> int:
        return THIN_RECORD_BYTES_MAX if self.cls is Class.THIN else RECORD_BYTES_MAX

    def _boxes(self, view: memoryview) -> Iterator[Buffer]:
        assert self._box is not None
        most = self._record_bytes_max
        for at in range(0, len(view), most):
            plain = view[at : at + most]
            size = len(plain) + TAG_BYTES
            yield self._box.seal(plain, size.to_bytes(SIZE_BYTES, "little"))

    def consumed(self, size: int) -> None:
        """Give credit back, less what was given when records were in parts."""
        early = min(self._ahead, size)
        self._ahead -= early
        self.circuit.consumed(size - early)

    def end(self) -> None:
        """As `Circuit.end`."""
        self.circuit.end()

    def reset(self, code: ResetCode) -> None:
        """Drop the circuit; the listener here is not told."""
        self.gone, self._listener = True, None
        self.circuit.reset(code)

    # Listener

    def opened(self, circuit: Channel) -> None:
        """The far end has answered: check who it is, then prove who we are."""
        if self.dialler and self._listener is not None:
            self._box = self._seals.check_answer(self, self._ephemeral)
            if self._box is None:
                self._broken(ResetCode.REFUSED)
                return
            self.send(self._seals.proof(self, self._ephemeral) + self._hello)
            if self.cls is Class.THIN:
                self._ready = True
                self._listener.opened(self)

    def received(self, circuit: Channel, payload: memoryview) -> None:
        """Open records as they become whole."""
        view = payload
        while len(view) and not self.gone:
            view = self._take(view)

    def _take(self, view: memoryview) -> memoryview:
        """Take bytes of one record; return the rest."""
        begun = self._begun
        head = view[:SIZE_BYTES]
        if begun:
            head = memoryview(begun[:SIZE_BYTES] + head[: max(0, SIZE_BYTES - len(begun))])
        if len(head) == SIZE_BYTES:
            size = int.from_bytes(head, "little")
            if not TAG_BYTES <= size <= self._record_bytes_max + TAG_BYTES:
                self._broken(ResetCode.UNKNOWN)
                return view
            need = SIZE_BYTES + size - len(begun)
            if need <= len(view):
                record = begun + view[:need] if begun else view[:need]
                self._begun = bytearray()
                self._open(memoryview(record)[SIZE_BYTES:])
                return view[need:]
        begun += view
        # in parts it would never come whole where it is larger than the window
        self._ahead += len(view)
        self.circuit.consumed(len(view))
        return view[:0]

    def _open(self, box: memoryview) -> None:
        try:
            assert self._box is not None
            plain = self._box.open(box)
        except ValueError:
            self._broken(ResetCode.UNKNOWN)  # something between us changes bytes: another way
            return
        self.consumed(SIZE_BYTES + len(box) - len(plain))
        if self._ready and self._listener is not None:
            self._listener.received(self, memoryview(plain))
            return
        self.consumed(len(plain))
        if not self.dialler:
            self._meet(plain)
        elif self._listener is not None:
            self.answer, self._ready = plain, True
            self._listener.opened(self)

    def _meet(self, plain: bytes) -> None:
        """The dialler says who it is and what it wants."""
        transcript = self._seals.transcript(self, self._other, self._ephemeral.public)
        peer = self._seals.check_proof(plain[:PROOF_BYTES], transcript)
        if peer is None:
            self._broken(ResetCode.REFUSED)
            return
        self.peer = peer
        try:
            self._listener = self._seals.welcome(self, plain[PROOF_BYTES:])
        except Refusal as refusal:
            self.reset(refusal.code)
            return
        self._ready = True
        if self.cls is Class.BULK:
            self.send(self.answer)
        self._listener.opened(self)

    def writable(self, circuit: Channel) -> None:
        """More may be sent."""
        if self._ready and self._listener is not None and self.sendable:
            self._listener.writable(self)

    def closed(self, circuit: Channel, code: ResetCode | None) -> None:
        """The circuit is gone."""
        self.gone = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.closed(self, code)

    def _broken(self, code: ResetCode) -> None:
        self._seals.count("seals_broken")
        listener = self._listener
        self.reset(code)
        if listener is not None:
            listener.closed(self, code)

    # how it comes to be

    def run_over(self, circuit: Circuit, listener: Listener | None, hello: bytes) -> None:
        """Name the circuit; a dialler also its listener and its hello."""
        self._circuit, self._listener, self._hello = circuit, listener, hello

    def accept(self, other: bytes) -> bytes:
        """Take the dialler's ephemeral key; return OPENED's handshake. Raises: Refusal."""
        self._other = other
        try:
            transcript = self._seals.transcript(self, other, self._ephemeral.public)
            self._box = self._ephemeral.agree(other, transcript, dialler=False)
        except ValueError as exc:
            raise Refusal(ResetCode.REFUSED) from exc
        return self._ephemeral.public + self._seals.sign(LISTENER_DOMAIN, transcript)

    def expire(self) -> None:
        """Who has not said in time who it is has no circuit."""
        if not self._ready and not self.gone:
            self._broken(ResetCode.STALLED)


class Seals:
    """Opens and accepts circuits, sealed wherever somebody else could read them.

    `accept` is asked, with the hello, once the dialler is proven. Without a sealer all is plain.
    """

    def __init__(
        self,
        ctx: Context,
        circuits: Callable[[], Circuits],
        sealer: Sealer | None,
        accept: Accept,
    ) -> None:
        self._ctx = ctx
        self._circuits = circuits
        self._sealer = sealer
        self.welcome = accept
        self.whereabouts: Whereabouts | None = None  # where records of peers are kept

    def connect(
        self, target: bytes, cls: Class, via: Via | None, hello: bytes, listener: Listener
    ) -> Channel | None:
        """Open a circuit to a peer; None where there is no way now."""
        circuits = self._circuits()
        if self._sealer is None or circuits.is_private(target):
            return circuits.connect(target, cls, via, PLAIN + hello, listener)
        ephemeral = self._sealer.fresh(self._ctx.dice.bytes(32))
        made = Sealed(self, ephemeral, dialler=True)
        made.peer = target
        circuit = circuits.connect(target, cls, via, SEALED + ephemeral.public, made)
        if circuit is None:
            return None
        made.run_over(circuit, listener, hello)
        return made

    def accept(self, circuit: Circuit, handshake: bytes) -> Listener:
        """A circuit from somewhere. Raises: Refusal."""
        kind, rest = handshake[:1], handshake[1:]
        open_to_all = self._sealer is None or self._circuits().came_private(circuit)
        if kind in (b"", PLAIN) and open_to_all:
            return self.welcome(circuit, rest)
        if kind != SEALED or len(rest) != EPHEMERAL_BYTES or self._sealer is None:
            raise Refusal(ResetCode.REFUSED)
        made = Sealed(self, self._sealer.fresh(self._ctx.dice.bytes(32)), dialler=False)
        made.run_over(circuit, None, b"")
        circuit.answer = made.accept(rest)
        if self.whereabouts is not None:
            circuit.answer += self.whereabouts.tail(ANSWER_BYTES_MAX - len(circuit.answer))
        self._ctx.after(self._ctx.config.opening_us, made.expire)
        return made

    # proofs

    def transcript(self, end: Sealed, dialler: bytes, listener: bytes) -> bytes:
        """What the listener signs: all that it knows then, not yet who dials."""
        target = end.peer if end.dialler else self._ctx.me
        fields = [self._ctx.config.network, end.nonce, int(end.cls), target, dialler, listener]
        return bytes(msgpack.packb(fields))

    def sign(self, domain: str, body: bytes) -> bytes:
        """Sign as this peer."""
        return self._ctx.signer.sign(domain, body)

    def check_answer(self, end: Sealed, ephemeral: Ephemeral) -> Box | None:
        """Check OPENED's handshake: the keys of the circuit, or None."""
        answer = end.circuit.answer
        other, signature = answer[:EPHEMERAL_BYTES], answer[EPHEMERAL_BYTES:ANSWER_HEAD_BYTES]
        transcript = self.transcript(end, ephemeral.public, other)
        if not self._ctx.verify(end.peer, LISTENER_DOMAIN, transcript, signature):
            return None
        if self.whereabouts is not None and len(answer) > ANSWER_HEAD_BYTES:
            self.whereabouts.learn_tail(end.peer, answer[ANSWER_HEAD_BYTES:])
        try:
            return ephemeral.agree(other, transcript, dialler=True)
        except ValueError:
            return None

    def proof(self, end: Sealed, ephemeral: Ephemeral) -> bytes:
        """Who we are, for the first record of a dialler."""
        transcript = self.transcript(end, ephemeral.public, end.circuit.answer[:EPHEMERAL_BYTES])
        me = self._ctx.me
        return me + self.sign(DIALLER_DOMAIN, me + transcript)

    def check_proof(self, proof: bytes, transcript: bytes) -> bytes | None:
        """Who the dialler is, or None where it does not prove it."""
        peer, signature = proof[:KEY_BYTES], proof[KEY_BYTES:]
        verified = self._ctx.verify(peer, DIALLER_DOMAIN, peer + transcript, signature)
        return peer if verified else None

    def count(self, name: str) -> None:
        """Raise a counter."""
        self._ctx.count(name)
