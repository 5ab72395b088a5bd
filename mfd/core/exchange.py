"""Objects on their way between two custodians: what the receiver lacks, in order, chunk by chunk.

    handshake:  [ref, nonce]                     of the ACCEPT that asked for the objects
    answer:     [objects complete, chunks of the next one]   where to go on after a broken circuit;
                and true, where a base has gone: differences no more
    OBJECT:     | 1 | digest 32 | raw bytes u64 | chunks u32 | chunk digests, 32 each |
    or          | 3 | digest 32 | raw bytes u64 | chunks u32 | base 32 | chunk digests, 32 each |
    CHUNK:      | 2 | digest 32 | index u32 | encoding u8 | body bytes u32 | body |

Rules of this file: nothing of a chunk is used before its digest is checked against the object's
root; no size is believed that the manifest does not confirm.
Source: spec/transfer.md, section "Objects".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgpack

from mfd.core.circuit import Channel, Refusal
from mfd.core.context import Context
from mfd.core.effects import Discard
from mfd.core.frames import Class, ResetCode, Via
from mfd.core.intake import (
    BASED_OBJECT,
    CHUNK_HEAD,
    OBJECT_HEAD,
    PLAIN_OBJECT,
    Bases,
    Intake,
    Wanted,
    chunk_count,
)
from mfd.core.seals import Seals
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import Buffer

__all__ = ["Exchange", "Wanted"]


class _Shipment:
    """Sender: objects going out to one receiver."""

    def __init__(self, exchange: Exchange, peer: bytes, ref: bytes, nonce: bytes) -> None:
        self.exchange = exchange
        self.peer = peer
        self.ref = ref
        self.nonce = nonce
        self.objects: Wanted = ()
        self.bases: Mapping[bytes, bytes] = {}  # object -> what it is sent as a difference from
        self.circuit: Channel | None = None  # the one in use; answers for older ones are ignored
        self.place = (0, -1)  # next to read: object, chunk (-1: its table)
        self.begin = 0  # chunk that follows the next table
        self.reading = False
        self.tries = 0
        self.sent_bytes = 0
        self.done: Callable[[int], None] = lambda _: None
        self.failed: Callable[[str], None] = lambda _: None

    def opened(self, circuit: Channel) -> None:
        """Go on where the receiver says it stands."""
        index, self.begin, bare = _resume_point(circuit.answer, self.objects)
        if bare:
            self.bases = {}
        self.place = (index, -1)
        self._read(circuit)

    def received(self, circuit: Channel, payload: memoryview) -> None:
        """The receiver has nothing to say; what it says all the same uses up its credit."""

    def writable(self, circuit: Channel) -> None:
        """Read the next piece."""
        self._read(circuit)

    def closed(self, circuit: Channel, code: ResetCode | None) -> None:
        """Over: complete after a clean end, else try again."""
        self.circuit = None
        early = code is None and self.place[0] < len(self.objects)
        self.exchange.shipment_closed(self, ResetCode.REFUSED if early else code)

    def _read(self, circuit: Channel) -> None:
        if self.reading or not circuit.sendable or circuit.queued > CHUNK_BYTES:
            return
        index, chunk = self.place
        if index >= len(self.objects):
            circuit.end()
            return
        self.reading = True
        ctx, digest = self.exchange.ctx, self.objects[index][0]
        if chunk < 0:
            ctx.fetch_table(digest, partial(self._table, circuit), partial(self._lost, circuit))
        else:
            ctx.fetch(
                digest,
                chunk,
                partial(self._chunk, circuit),
                partial(self._lost, circuit),
                link_bytes_per_s=circuit.rate,
                base=self.bases.get(digest, b""),
            )

    def _table(self, circuit: Channel, _: int, body: Buffer) -> None:
        if circuit is not self.circuit:
            return  # that one broke while the disk was reading
        index = self.place[0]
        base = self.bases.get(self.objects[index][0], b"")
        kind = BASED_OBJECT if base else PLAIN_OBJECT
        head = OBJECT_HEAD.pack(kind, *self.objects[index], len(body) // 32) + base
        self.place = (index, self.begin)
        self.begin = 0
        self._write(circuit, head, body)

    def _chunk(self, circuit: Channel, encoding: int, body: Buffer) -> None:
        if circuit is not self.circuit:
            return
        index, chunk = self.place
        digest, raw_bytes = self.objects[index]
        last = (chunk + 1) * CHUNK_BYTES >= raw_bytes
        self.place = (index + 1, -1) if last else (index, chunk + 1)
        self._write(circuit, CHUNK_HEAD.pack(2, digest, chunk, encoding, len(body)), body)

    def _write(self, circuit: Channel, head: bytes, body: Buffer) -> None:
        self.reading = False
        if not circuit.sendable:
            return  # the receiver has ended it
        self.sent_bytes += len(head) + len(body)
        circuit.send(head, body)
        self._read(circuit)

    def _lost(self, circuit: Channel, reason: str) -> None:
        if circuit is self.circuit:
            self.circuit = None
            circuit.reset(ResetCode.REFUSED)
            self.failed(reason)  # our own disk cannot give the object


class Exchange:
    """All shipments and intakes of one peer."""

    def __init__(
        self,
        ctx: Context,
        circuits: Callable[[], Seals],
        via: Callable[[bytes, Class], Via | None],
    ) -> None:
        self.ctx = ctx
        self._circuits = circuits
        self._via = via
        self._intakes: dict[tuple[bytes, bytes], Intake] = {}

    # sending

    def ship(
        self,
        peer: bytes,
        claim: tuple[bytes, bytes],
        objects: Wanted,
        done: Callable[[int], None],
        failed: Callable[[str], None],
        *,
        bases: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Send objects to a peer that asked for them with ACCEPT (ref, nonce).

        `bases` are objects that are here and that it has named: differences from them may go
        instead. `done` gets the bytes written into circuits; it says that all were sent, not that
        they are safe.
        """
        shipment = _Shipment(self, peer, *claim)
        shipment.objects, shipment.done, shipment.failed = objects, done, failed
        shipment.bases = bases or {}
        if not objects:
            done(0)
            return
        self._launch(shipment)

    def _launch(self, shipment: _Shipment) -> None:
        handshake = msgpack.packb([shipment.ref, shipment.nonce])
        via = self._via(shipment.peer, Class.BULK)
        circuit = self._circuits().connect(shipment.peer, Class.BULK, via, handshake, shipment)
        shipment.circuit = circuit
        if circuit is None:
            self.shipment_closed(shipment, ResetCode.NO_ROUTE)

    def shipment_closed(self, shipment: _Shipment, code: ResetCode | None) -> None:
        """A clean end is success; anything else is tried again a few times."""
        shipment.reading = False
        if code is None:
            shipment.done(shipment.sent_bytes)
            return
        shipment.tries += 1
        if shipment.tries > self.ctx.config.circuit_retries or code is ResetCode.REFUSED:
            shipment.failed(f"the circuit was reset: {code.name}")
            return
        delay = (1_000_000 << (shipment.tries - 1)) + self.ctx.dice.below(200_000)
        self.ctx.after(delay, partial(self._launch, shipment))

    # receiving

    def expect(
        self,
        claim: tuple[bytes, bytes],
        wanted: Wanted,
        done: Callable[[int], None],
        failed: Callable[[str], None],
        bases: Bases | None = None,
    ) -> None:
        """Take in the objects that an ACCEPT asks for; `done` gets the bytes that came."""
        intake = Intake(self.ctx, wanted, over=self._over, bases=bases)
        intake.done, intake.failed = done, failed
        self._intakes[claim] = intake
        if wanted:
            intake.watch()
        else:
            self._over(intake, None)

    def cancel(self, claim: tuple[bytes, bytes]) -> None:
        """Nobody waits for these objects any more."""
        intake = self._intakes.get(claim)
        if intake is not None and self._end(intake, ResetCode.REFUSED):
            self._discard(intake)

    def accept(self, circuit: Channel, handshake: bytes) -> Intake:
        """A bulk circuit for one of our intakes.

        Raises: Refusal for any other.
        """
        try:
            ref, nonce = msgpack.unpackb(handshake)
            intake = self._intakes.get((ref, nonce))
        except (ValueError, TypeError, msgpack.UnpackException):
            intake = None
        if intake is None:
            raise Refusal(ResetCode.REFUSED)
        if intake.circuit is not None:
            intake.circuit.reset(ResetCode.UNKNOWN)
        place = intake.begin(circuit)
        circuit.answer = msgpack.packb([*place, True] if intake.bare else list(place))
        return intake

    def _over(self, intake: Intake, reason: str | None) -> None:
        """Every wanted object is written and checked, or why not; then what was written goes."""
        if not self._end(intake, None if reason is None else ResetCode.REFUSED):
            return
        if reason is None:
            intake.done(intake.received_bytes)
        else:
            self._discard(intake)
            intake.failed(reason)

    def _discard(self, intake: Intake) -> None:
        """What was written goes, but for what another intake is writing too."""
        others = {digest for other in self._intakes.values() for digest, _ in other.wanted}
        for digest, _ in intake.wanted:
            if digest not in others:
                self.ctx.emit(Discard(digest))

    def _end(self, intake: Intake, code: ResetCode | None) -> bool:
        claims = [claim for claim, known in self._intakes.items() if known is intake]
        for claim in claims:
            del self._intakes[claim]
        intake.stop(code)
        return bool(claims)


def _resume_point(answer: bytes, objects: Wanted) -> tuple[int, int, bool]:
    """Where the receiver wants us to begin, and whether without bases.

    Anything odd means the beginning, and nothing that builds upon something else.
    """
    try:
        index, chunk, *bare = msgpack.unpackb(answer)
    except (ValueError, TypeError, msgpack.UnpackException):
        return 0, 0, True
    if type(index) is not int or not 0 <= index <= len(objects) or type(chunk) is not int:
        return 0, 0, True
    if index == len(objects) or not 0 <= chunk < chunk_count(objects[index][1]):
        return index, 0, bool(bare)
    return index, chunk, bool(bare)
