"""Objects on their way in from one sender: cut out of the stream, checked, handed to the disk.

    OBJECT:     | 1 | digest 32 | raw bytes u64 | chunks u32 | chunk digests, 32 each |
    or          | 3 | digest 32 | raw bytes u64 | chunks u32 | base 32 | chunk digests, 32 each |
    CHUNK:      | 2 | digest 32 | index u32 | encoding u8 | body bytes u32 | body |

Rules of this file: nothing of a chunk is used before its digest is checked against the object's
root; no size is believed that the manifest does not confirm. Bytes are copied once, to where the
disk reads them.
Source: spec/transfer.md, section "Objects".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import partial

from mfd.core.circuit import Channel
from mfd.core.context import Context, Timer
from mfd.core.effects import Keep
from mfd.core.frames import ResetCode
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import chunk_root

__all__ = [
    "BASED_OBJECT",
    "CHUNK_HEAD",
    "OBJECT_HEAD",
    "PLAIN_OBJECT",
    "Bases",
    "Intake",
    "Wanted",
    "chunk_count",
]

OBJECT_HEAD = struct.Struct("<B32sQI")
PLAIN_OBJECT, BASED_OBJECT = 1, 3
CHUNK_HEAD = struct.Struct("<B32sIBI")
BODY_BYTES_MAX = CHUNK_BYTES + (4 << 10)  # an encoded body is never much larger than raw
KEEPS_MAX = 2  # chunks handed to the disk and not yet written, per circuit

Wanted = tuple[tuple[bytes, int], ...]  # (digest, raw bytes), in the order they will come
Bases = Mapping[bytes, tuple[bytes, ...]]  # object -> what differences to it may build upon


class Intake:
    """Objects coming in from one sender. `over` is told the end: None, or what went wrong."""

    def __init__(
        self,
        ctx: Context,
        wanted: Wanted,
        *,
        over: Callable[[Intake, str | None], None],
        bases: Bases | None = None,
    ) -> None:
        self.wanted = wanted
        self.bare = False  # a base was gone: no more differences
        self._bases = bases or {}
        self._base: dict[bytes, bytes] = {}  # object -> what its sender builds upon
        self.tables: dict[bytes, tuple[bytes, ...]] = {}
        self.taken: dict[bytes, int] = {}  # chunks handed to the disk, in order
        self.kept: dict[bytes, set[int]] = {}  # chunks written
        self.expected = (0, -1)  # what the stream must bring next: object, chunk (-1: its table)
        self.head = bytearray()  # what has come of a head or table
        self.body: bytearray | None = None  # of a chunk, once its head is known; or longer
        self.size = 0  # of that chunk's body
        self._idle: list[bytearray] = []  # for bodies: fresh memory costs as much as a copy
        self.filled = 0
        self.encoding = 0
        self.keeping = 0
        self.unreturned = 0  # credit held back while the disk is behind
        self.received_bytes = 0
        self.circuit: Channel | None = None
        self.done: Callable[[int], None] = lambda _: None
        self.failed: Callable[[str], None] = lambda _: None
        self._ctx = ctx
        self._over = over
        self._timer: Timer | None = None
        self._heard_us = 0

    def begin(self, circuit: Channel) -> tuple[int, int]:
        """Go on over a new circuit; return where its sender is to begin."""
        if self.circuit is not None:
            self.circuit.reset(ResetCode.UNKNOWN)
        self.circuit = circuit
        self._clear()
        self.unreturned = 0
        if self.bare:  # what built upon the base that was gone comes again
            self.taken = {digest: _first_gap(kept) for digest, kept in self.kept.items()}
        place = self.place()
        self.expected = (place[0], -1)
        return place

    def place(self) -> tuple[int, int]:
        """Objects that have come whole, and chunks of the next one."""
        for index, (digest, raw_bytes) in enumerate(self.wanted):
            if self.taken.get(digest, 0) < chunk_count(raw_bytes):
                return index, self.taken.get(digest, 0)
        return len(self.wanted), 0

    @property
    def complete(self) -> bool:
        """Whether every wanted object is written."""
        counts = ((len(self.kept.get(digest, ())), size) for digest, size in self.wanted)
        return all(count == chunk_count(size) for count, size in counts)

    # time

    def watch(self) -> None:
        """Give up where nothing comes for too long."""
        self._heard_us = self._ctx.now_us
        self._timer = self._ctx.after(2 * self._ctx.config.stalled_us, self._look)

    def _look(self) -> None:
        due_us = self._heard_us + 2 * self._ctx.config.stalled_us
        if self._ctx.now_us >= due_us:
            self._over(self, "nothing came")
        else:
            self._timer = self._ctx.at(due_us, self._look)

    def stop(self, code: ResetCode | None) -> None:
        """Nobody waits any more; with a code, the circuit is reset."""
        if self._timer is not None:
            self._timer.cancel()
        if self.circuit is not None and code is not None:
            self.circuit.reset(code)
            self.circuit = None

    # circuits.Listener

    def opened(self, circuit: Channel) -> None:
        """The sender begins where our answer said."""

    def received(self, circuit: Channel, payload: memoryview) -> None:
        """Parse as far as the bytes reach; hold credit back while the disk is behind."""
        self._heard_us = self._ctx.now_us
        self.received_bytes += len(payload)
        self.unreturned += len(payload)
        try:
            at = 0
            while at < len(payload):
                at += self._feed(payload[at:])
        except PacketError as error:
            self._over(self, str(error))
            return
        self._return_credit()

    def writable(self, circuit: Channel) -> None:
        """We send nothing."""

    def closed(self, circuit: Channel, code: ResetCode | None) -> None:
        """Broken: the sender comes back, or the intake's own timer ends it."""
        if self.circuit is circuit:
            self.circuit = None
            self._clear()

    def _clear(self) -> None:
        self.head.clear()
        self.body = None

    def _return_credit(self) -> None:
        if self.circuit is not None and self.keeping < KEEPS_MAX and self.unreturned:
            unreturned, self.unreturned = self.unreturned, 0
            self.circuit.consumed(unreturned)

    # the stream

    def _feed(self, view: memoryview) -> int:
        """Take what belongs to the part that has begun; return how much that was."""
        if self.body is not None:
            size = min(len(view), self.size - self.filled)
            self.body[self.filled : self.filled + size] = view[:size]
            self.filled += size
            if self.filled == self.size:
                self._body_whole(self.body)
            return size
        index, chunk = self.expected
        if index >= len(self.wanted):
            raise PacketError(Fault.TRAILING, "object stream")
        digest, raw_bytes = self.wanted[index]
        count = chunk_count(raw_bytes)
        if chunk >= 0:
            need = CHUNK_HEAD.size
        else:
            need = OBJECT_HEAD.size
            if len(self.head) >= need:
                need += 32 * (count + (self.head[0] == BASED_OBJECT))
        piece = view[: need - len(self.head)]
        self.head += piece
        if len(self.head) == need:
            if chunk >= 0:
                self._chunk_head(digest, chunk)
            else:
                self._table(digest, raw_bytes, count)
        return len(piece)

    def _table(self, digest: bytes, raw_bytes: int, count: int) -> None:
        kind, *told = OBJECT_HEAD.unpack_from(self.head)
        based = kind == BASED_OBJECT and not self.bare
        if told != [digest, raw_bytes, count] or not (based or kind == PLAIN_OBJECT):
            raise PacketError(Fault.FIELD, "object head is not the one asked for")
        begin = OBJECT_HEAD.size + 32 * based
        if len(self.head) < begin + 32 * count:
            return  # the digests are to come
        base = bytes(self.head[OBJECT_HEAD.size : begin])
        if based and base not in self._bases.get(digest, ()):
            raise PacketError(Fault.BASE, "object upon a base that was not named")
        self._base[digest] = base
        flat = bytes(self.head[begin:])
        chunks = tuple(flat[i : i + 32] for i in range(0, len(flat), 32))
        if chunk_root(raw_bytes, chunks) != digest:
            raise PacketError(Fault.DIGEST, "chunk table")
        self.head.clear()
        self.tables[digest] = chunks
        self.expected = (self.expected[0], self.taken.get(digest, 0))

    def _chunk_head(self, digest: bytes, chunk: int) -> None:
        kind, name, number, self.encoding, size = CHUNK_HEAD.unpack(self.head)
        if (kind, name, number) != (2, digest, chunk):
            raise PacketError(Fault.ORDER, "chunk is not the one that comes next")
        if not 0 < size <= BODY_BYTES_MAX:
            raise PacketError(Fault.LIMIT, f"chunk body of {size} bytes")
        self.head.clear()
        idle = self._idle.pop() if self._idle else b""
        self.body = idle if isinstance(idle, bytearray) and len(idle) >= size else bytearray(size)
        self.size, self.filled = size, 0

    def _body_whole(self, body: bytearray) -> None:
        self.body = None
        index, chunk = self.expected
        digest, raw_bytes = self.wanted[index]
        last = chunk + 1 == chunk_count(raw_bytes)
        self.expected = (index + 1, -1) if last else (index, chunk + 1)
        self.taken[digest] = chunk + 1
        self.keeping += 1
        table, encoding, base = self.tables[digest], self.encoding, self._base[digest]
        content = memoryview(body)[: self.size]
        self._ctx.keep(
            lambda op: Keep(op, digest, raw_bytes, chunk, table, encoding, content, base),
            partial(self._chunk_kept, digest, chunk, body),
            partial(self._chunk_refused, base),
        )

    def _chunk_kept(self, digest: bytes, chunk: int, body: bytearray) -> None:
        self.keeping -= 1
        if len(self._idle) < KEEPS_MAX:
            self._idle.append(body)
        self.kept.setdefault(digest, set()).add(chunk)
        self._return_credit()
        if self.complete:
            self._over(self, None)

    def _chunk_refused(self, base: bytes, reason: str) -> None:
        self.keeping -= 1
        if not base or reason != Fault.BASE.value:
            self._over(self, reason)
        elif not self.bare:  # what we named is gone: from here on without
            self.bare = True
            if self.circuit is not None:
                self.circuit.reset(ResetCode.UNKNOWN)
                self.circuit = None
            self._clear()


def _first_gap(numbers: set[int]) -> int:
    """The lowest number from 0 on that is missing."""
    return next(n for n in range(len(numbers) + 1) if n not in numbers)


def chunk_count(raw_bytes: int) -> int:
    """Raw chunks of an object."""
    return -(-raw_bytes // CHUNK_BYTES)
