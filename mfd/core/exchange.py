"""Objects on their way between two custodians: what the receiver lacks, in order, chunk by chunk.

    handshake:  [ref, nonce]                     of the ACCEPT that asked for the objects
    answer:     [objects complete, chunks of the next one]   where to go on after a broken circuit
    OBJECT:     | 1 | digest 32 | raw bytes u64 | chunks u32 | chunk digests, 32 each |
    CHUNK:      | 2 | digest 32 | index u32 | encoding u8 | body bytes u32 | body |

Rules of this file: nothing of a chunk is used before its digest is checked against the object's
root; no size is believed that the manifest does not confirm.
Source: spec/transfer.md, section "Objects".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

import msgpack

from mfd.core.circuit import Circuit, Refusal
from mfd.core.context import Context, Timer
from mfd.core.effects import Discard, Keep
from mfd.core.frames import Class, ResetCode, Via
from mfd.core.transfer import Circuits
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import Buffer, chunk_root

__all__ = ["Exchange", "Wanted"]

OBJECT_HEAD = struct.Struct("<B32sQI")
CHUNK_HEAD = struct.Struct("<B32sIBI")
BODY_SLACK_BYTES = 4 << 10  # an encoded body is never much larger than the raw chunk
KEEPS_MAX = 2  # chunks handed to the disk and not yet written, per circuit

Wanted = tuple[tuple[bytes, int], ...]  # (digest, raw bytes), in the order they will come


class _Shipment:
    """Sender: objects going out to one receiver."""

    def __init__(self, exchange: Exchange, peer: bytes, ref: bytes, nonce: bytes) -> None:
        self.exchange = exchange
        self.peer = peer
        self.ref = ref
        self.nonce = nonce
        self.objects: Wanted = ()
        self.circuit: Circuit | None = None  # the one in use; answers for older ones are ignored
        self.place = (0, -1)  # next to read: object, chunk (-1: its table)
        self.begin = 0  # chunk that follows the next table
        self.reading = False
        self.tries = 0
        self.sent_bytes = 0
        self.done: Callable[[int], None] = lambda _: None
        self.failed: Callable[[str], None] = lambda _: None

    def opened(self, circuit: Circuit) -> None:
        """Go on where the receiver says it stands."""
        index, self.begin = _resume_point(circuit.answer, self.objects)
        self.place = (index, -1)
        self._read(circuit)

    def received(self, circuit: Circuit, payload: memoryview) -> None:
        """The receiver has nothing to say; what it says all the same uses up its credit."""

    def writable(self, circuit: Circuit) -> None:
        """Read the next piece."""
        self._read(circuit)

    def closed(self, circuit: Circuit, code: ResetCode | None) -> None:
        """Over: complete after a clean end, else try again."""
        self.circuit = None
        early = code is None and self.place[0] < len(self.objects)
        self.exchange.shipment_closed(self, ResetCode.REFUSED if early else code)

    def _read(self, circuit: Circuit) -> None:
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
            ctx.fetch(digest, chunk, partial(self._chunk, circuit), partial(self._lost, circuit))

    def _table(self, circuit: Circuit, _: int, body: Buffer) -> None:
        if circuit is not self.circuit:
            return  # that one broke while the disk was reading
        index = self.place[0]
        head = OBJECT_HEAD.pack(1, *self.objects[index], len(body) // 32)
        self.place = (index, self.begin)
        self.begin = 0
        self._write(circuit, head, body)

    def _chunk(self, circuit: Circuit, encoding: int, body: Buffer) -> None:
        if circuit is not self.circuit:
            return
        index, chunk = self.place
        digest, raw_bytes = self.objects[index]
        last = (chunk + 1) * CHUNK_BYTES >= raw_bytes
        self.place = (index + 1, -1) if last else (index, chunk + 1)
        self._write(circuit, CHUNK_HEAD.pack(2, digest, chunk, encoding, len(body)), body)

    def _write(self, circuit: Circuit, head: bytes, body: Buffer) -> None:
        self.reading = False
        if not circuit.sendable:
            return  # the receiver has ended it
        self.sent_bytes += len(head) + len(body)
        circuit.send(head, body)
        self._read(circuit)

    def _lost(self, circuit: Circuit, reason: str) -> None:
        if circuit is self.circuit:
            self.circuit = None
            circuit.reset(ResetCode.REFUSED)
            self.failed(reason)  # our own disk cannot give the object


class _Intake:
    """Receiver: objects coming in from one sender."""

    def __init__(self, exchange: Exchange, wanted: Wanted) -> None:
        self.exchange = exchange
        self.wanted = wanted
        self.tables: dict[bytes, tuple[bytes, ...]] = {}
        self.taken: dict[bytes, int] = {}  # chunks handed to the disk, in order
        self.kept: dict[bytes, int] = {}  # chunks written
        self.expected = (0, -1)  # what the stream must bring next
        self.buffer = bytearray()
        self.keeping = 0
        self.unreturned = 0  # credit held back while the disk is behind
        self.received_bytes = 0
        self.circuit: Circuit | None = None
        self.timer: Timer | None = None
        self.done: Callable[[int], None] = lambda _: None
        self.failed: Callable[[str], None] = lambda _: None

    def place(self, chunks: dict[bytes, int]) -> tuple[int, int]:
        """Objects complete by this count, and chunks of the next one."""
        for index, (digest, raw_bytes) in enumerate(self.wanted):
            if chunks.get(digest, 0) < _chunk_count(raw_bytes):
                return index, chunks.get(digest, 0)
        return len(self.wanted), 0

    def opened(self, circuit: Circuit) -> None:
        """The sender begins where our answer said."""

    def received(self, circuit: Circuit, payload: memoryview) -> None:
        """Parse as far as the bytes reach; hold credit back while the disk is behind."""
        self.received_bytes += len(payload)
        self.buffer += payload
        self.unreturned += len(payload)
        try:
            while self._parse():
                pass
        except PacketError as error:
            self.exchange.intake_failed(self, str(error))
            return
        self._return_credit()
        self.exchange.intake_moved(self)

    def writable(self, circuit: Circuit) -> None:
        """We send nothing."""

    def closed(self, circuit: Circuit, code: ResetCode | None) -> None:
        """Broken: the sender comes back, or the intake's own timer ends it."""
        if self.circuit is circuit:
            self.circuit = None
            self.buffer.clear()

    def _return_credit(self) -> None:
        if self.circuit is not None and self.keeping < KEEPS_MAX and self.unreturned:
            self.circuit.consumed(self.unreturned)
            self.unreturned = 0

    def _parse(self) -> bool:
        index, chunk = self.expected
        if index >= len(self.wanted):
            if self.buffer:
                raise PacketError(Fault.TRAILING, "object stream")
            return False
        digest, raw_bytes = self.wanted[index]
        if chunk < 0:
            return self._parse_table(digest, raw_bytes)
        return self._parse_chunk(digest, raw_bytes, chunk)

    def _parse_table(self, digest: bytes, raw_bytes: int) -> bool:
        if len(self.buffer) < OBJECT_HEAD.size:
            return False
        kind, name, size, count = OBJECT_HEAD.unpack_from(self.buffer)
        if (kind, name, size, count) != (1, digest, raw_bytes, _chunk_count(raw_bytes)):
            raise PacketError(Fault.FIELD, "object head is not the one asked for")
        end = OBJECT_HEAD.size + 32 * count
        if len(self.buffer) < end:
            return False
        flat = bytes(self.buffer[OBJECT_HEAD.size : end])
        chunks = tuple(flat[i : i + 32] for i in range(0, len(flat), 32))
        if chunk_root(raw_bytes, chunks) != digest:
            raise PacketError(Fault.DIGEST, "chunk table")
        del self.buffer[:end]
        self.tables[digest] = chunks
        self.expected = (self.expected[0], self.taken.get(digest, 0))
        return True

    def _parse_chunk(self, digest: bytes, raw_bytes: int, chunk: int) -> bool:
        if len(self.buffer) < CHUNK_HEAD.size:
            return False
        kind, name, number, encoding, size = CHUNK_HEAD.unpack_from(self.buffer)
        if (kind, name, number) != (2, digest, chunk):
            raise PacketError(Fault.ORDER, "chunk is not the one that comes next")
        if size > CHUNK_BYTES + BODY_SLACK_BYTES:
            raise PacketError(Fault.LIMIT, f"chunk body of {size} bytes")
        end = CHUNK_HEAD.size + size
        if len(self.buffer) < end:
            return False
        body = bytes(memoryview(self.buffer)[CHUNK_HEAD.size : end])
        del self.buffer[:end]
        last = chunk + 1 == _chunk_count(raw_bytes)
        self.expected = (self.expected[0] + 1, -1) if last else (self.expected[0], chunk + 1)
        self.taken[digest] = chunk + 1
        self.keeping += 1
        self.exchange.ctx.keep(
            lambda op: Keep(op, digest, raw_bytes, chunk, self.tables[digest], encoding, body),
            partial(self._chunk_kept, digest),
            self._chunk_refused,
        )
        return True

    def _chunk_kept(self, digest: bytes) -> None:
        self.keeping -= 1
        self.kept[digest] = self.kept.get(digest, 0) + 1
        self._return_credit()
        if self.place(self.kept)[0] == len(self.wanted):
            self.exchange.intake_complete(self)

    def _chunk_refused(self, reason: str) -> None:
        self.keeping -= 1
        self.exchange.intake_failed(self, reason)


class Exchange:
    """All shipments and intakes of one peer."""

    def __init__(
        self,
        ctx: Context,
        circuits: Callable[[], Circuits],
        via: Callable[[bytes, Class], Via | None],
    ) -> None:
        self.ctx = ctx
        self._circuits = circuits
        self._via = via
        self._intakes: dict[tuple[bytes, bytes], _Intake] = {}

    # sending

    def ship(
        self,
        peer: bytes,
        claim: tuple[bytes, bytes],
        objects: Wanted,
        done: Callable[[int], None],
        failed: Callable[[str], None],
    ) -> None:
        """Send objects to a peer that asked for them with ACCEPT (ref, nonce).

        `done` gets the bytes written into circuits; it says that all were sent, not that they
        are safe.
        """
        shipment = _Shipment(self, peer, *claim)
        shipment.objects, shipment.done, shipment.failed = objects, done, failed
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
    ) -> None:
        """Take in the objects that an ACCEPT asks for; `done` gets the bytes that came."""
        intake = _Intake(self, wanted)
        intake.done, intake.failed = done, failed
        self._intakes[claim] = intake
        if not wanted:
            self.intake_complete(intake)
            return
        self.intake_moved(intake)

    def cancel(self, claim: tuple[bytes, bytes]) -> None:
        """Nobody waits for these objects any more."""
        intake = self._intakes.get(claim)
        if intake is not None and self._end(intake, ResetCode.REFUSED):
            self._discard(intake)

    def accept(self, circuit: Circuit, handshake: bytes) -> _Intake:
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
        intake.circuit = circuit
        intake.buffer.clear()
        intake.unreturned = 0
        place = intake.place(intake.taken)
        intake.expected = (place[0], -1)
        circuit.answer = msgpack.packb(list(place))
        return intake

    def intake_moved(self, intake: _Intake) -> None:
        """Bytes came: the sender is alive."""
        if intake.timer is not None:
            intake.timer.cancel()
        limit = 2 * self.ctx.config.stalled_us
        intake.timer = self.ctx.after(limit, lambda: self.intake_failed(intake, "nothing came"))

    def intake_complete(self, intake: _Intake) -> None:
        """Every wanted object is written and checked."""
        self._end(intake, None)
        intake.done(intake.received_bytes)

    def intake_failed(self, intake: _Intake, reason: str) -> None:
        """Give up; what was written of unfinished objects goes."""
        if self._end(intake, ResetCode.REFUSED):
            self._discard(intake)
            intake.failed(reason)

    def _discard(self, intake: _Intake) -> None:
        """What was written goes, but for what another intake is writing too."""
        others = {digest for other in self._intakes.values() for digest, _ in other.wanted}
        for digest, _ in intake.wanted:
            if digest not in others:
                self.ctx.emit(Discard(digest))

    def _end(self, intake: _Intake, code: ResetCode | None) -> bool:
        claims = [claim for claim, known in self._intakes.items() if known is intake]
        for claim in claims:
            del self._intakes[claim]
        if intake.timer is not None:
            intake.timer.cancel()
        if intake.circuit is not None and code is not None:
            intake.circuit.reset(code)
            intake.circuit = None
        return bool(claims)


def _chunk_count(raw_bytes: int) -> int:
    return -(-raw_bytes // CHUNK_BYTES)


def _resume_point(answer: bytes, objects: Wanted) -> tuple[int, int]:
    """Where the receiver wants us to begin; anything odd means the beginning."""
    try:
        index, chunk = msgpack.unpackb(answer)
    except (ValueError, TypeError, msgpack.UnpackException):
        return 0, 0
    if type(index) is not int or not 0 <= index <= len(objects) or type(chunk) is not int:
        return 0, 0
    if index == len(objects) or not 0 <= chunk < _chunk_count(objects[index][1]):
        return index, 0
    return index, chunk
