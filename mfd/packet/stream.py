"""Packets of models larger than memory: out chunk by chunk, in as the bytes arrive.

Rules of this file: no I/O. What goes out is made twice, once for its sizes, which stand before it;
what comes in is believed chunk by chunk. In memory at a time: one chunk, the headers, and the chunk
table of one object, which is 40 bytes per MiB.
Source: spec/packet.md, sections "Packet and envelope" and "Objects in a packet".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from mfd.packet.carried import (
    Base,
    check_entry,
    check_zero,
    chunk_rows,
    chunks_of,
    encode_bodies,
    index_entry,
    pack_rows,
    padding,
    parts_of,
    raw_rows,
    raw_size,
    table_bytes,
)
from mfd.packet.chunks import Encoding, decode_chunk
from mfd.packet.envelope import IndexEntry
from mfd.packet.errors import Fault, PacketError
from mfd.packet.given import as_view
from mfd.packet.limits import DECODED_BYTES_MAX
from mfd.packet.objects import Buffer, chunk_digest
from mfd.packet.packet import (
    MAGIC,
    PREAMBLE,
    Chosen,
    Head,
    Held,
    Packet,
    bases_of,
    carried,
    encoding_of,
    head_bytes,
    holder,
    pack_head,
    read_head,
)
from mfd.packet.signing import Verifier

__all__ = ["RawChunk", "StreamDecoder", "encode_stream", "read_stream"]

READ_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class RawChunk:
    """A raw chunk that arrived and has the digest that names it."""

    object: bytes  # digest; the manifest tells which layers it is
    index: int
    raw: Buffer


def encode_stream(
    packet: Packet, encoding: Chosen = Encoding.PLANES, *, base: Packet | None = None
) -> Iterator[Buffer]:
    """Yield the very bytes of `encode`, of which no more than a chunk is in memory at a time.

    Layers that are functions are loaded three times in all: to be named, to be measured (unless
    they go raw), to be sent. Raises: as encode; ValueError where a layer changes in between.
    """
    bases = bases_of(packet, base)
    plan: list[tuple[Encoding, IndexEntry, bytes]] = []
    for item in carried(packet):
        chosen, under = encoding_of(item.digest, encoding), bases.get(item.digest)
        if chosen is Encoding.RAW:
            rows = raw_rows(item)
        else:
            rows = [row for row, _ in encode_bodies(item, chosen, under)]
        plan.append((chosen, index_entry(item, rows, under), pack_rows(rows)))
    index = tuple(entry for _, entry, _ in plan)
    yield pack_head(packet, replace(packet.envelope, index=index))
    for item, (chosen, entry, table) in zip(carried(packet), plan, strict=True):
        yield table
        if chosen is Encoding.RAW:
            yield from filter(len, chunks_of(parts_of(item)))
            if pad := padding(entry.raw_bytes):
                yield pad
            continue
        for row, body in encode_bodies(item, chosen, bases.get(item.digest)):
            yield body
            if pad := padding(row.body_bytes):
                yield pad


class StreamDecoder:
    """Reads one packet from the bytes of a stream, however they are cut.

    `feed` gives first the Head, then every chunk in order, checked. `held` are objects that the
    reader has, for differences. After an error the decoder repeats it.
    """

    def __init__(
        self,
        verify: Verifier | None = None,
        *,
        held: Held | None = None,
        decoded_bytes_max: int = DECODED_BYTES_MAX,
    ) -> None:
        self._verify = verify
        self._holds = holder(held)
        self._decoded_bytes_max = decoded_bytes_max
        self._buffer = bytearray()
        self._started = False
        self._steps = self._run()
        self._wanted = self._next()
        self._error: PacketError | None = None

    def feed(self, data: Buffer) -> list[Head | RawChunk]:
        """Take the next bytes and return what they complete.

        Raises: PacketError, whatever the bytes.
        """
        if self._error is not None:
            raise self._error
        found: list[Head | RawChunk] = []
        view = as_view(data, "a stream")
        try:
            while len(view):
                piece = view[: max(self._wanted - len(self._buffer), 0)]
                if not len(piece):
                    raise PacketError(Fault.TRAILING, "after the last object")
                self._buffer += piece
                view = view[len(piece) :]
                while self._wanted and len(self._buffer) == self._wanted:
                    self._advance(found)
        except PacketError as exc:
            self._error = exc
            raise
        return found

    def close(self) -> None:
        """Say that no more bytes follow. Raises: PacketError where some are missing."""
        if self._error is None and self._wanted:
            where = f"{self._wanted - len(self._buffer)} more bytes were expected here"
            known = self._started or self._buffer[: len(MAGIC)] == MAGIC[: len(self._buffer)]
            self._error = PacketError(Fault.TRUNCATED if known else Fault.MAGIC, where)
        if self._error is not None:
            raise self._error

    def _advance(self, found: list[Head | RawChunk]) -> None:
        """Hand over what was asked for, and collect events up to the next question."""
        data = bytes(self._buffer)
        self._buffer.clear()
        self._started = True
        try:
            step = self._steps.send(data)
            while not isinstance(step, int):
                found.append(step)
                step = next(self._steps)
            self._wanted = step
        except StopIteration:
            self._wanted = 0

    def _next(self) -> int:
        first = next(self._steps)
        assert isinstance(first, int)
        return first

    def _run(self) -> Generator[int | Head | RawChunk, bytes, None]:
        """Yield how many bytes are needed next, or what was found."""
        preamble = yield PREAMBLE.size
        size = head_bytes(memoryview(preamble))
        rest = yield size - len(preamble)
        head = read_head(memoryview(preamble + rest), self._verify, self._decoded_bytes_max)
        bases = [check_entry(entry, self._holds) for entry in head.envelope.index]
        yield head
        for entry, base in zip(head.envelope.index, bases, strict=True):
            yield from self._object(entry, base)

    def _object(
        self, entry: IndexEntry, base: Base | None
    ) -> Generator[int | Head | RawChunk, bytes, None]:
        where = f"object {entry.digest.hex()[:16]}"
        size = table_bytes(entry)
        if size > entry.encoded_bytes:
            raise PacketError(Fault.TRUNCATED, f"{where}: chunk table")
        table = yield size
        rows = chunk_rows(entry, memoryview(table))
        bodies = sum(row.body_bytes + -row.body_bytes % 64 for row in rows)
        if size + bodies != entry.encoded_bytes:
            fault = Fault.TRAILING if size + bodies < entry.encoded_bytes else Fault.TRUNCATED
            raise PacketError(fault, where)
        for index, row in enumerate(rows):
            padded = len(padding(row.body_bytes)) + row.body_bytes
            body = memoryview((yield padded) if padded else b"")
            check_zero(body, row.body_bytes, where)
            raw = decode_chunk(
                row.encoding,
                body[: row.body_bytes],
                raw_bytes=raw_size(entry.raw_bytes, index),
                base=None if base is None else base.chunk(index),
            )
            if chunk_digest(raw) != row.digest:
                raise PacketError(Fault.DIGEST, f"chunk {index} of {where}")
            yield RawChunk(entry.digest, index, raw)


def read_stream(
    read: Callable[[int], bytes],
    verify: Verifier | None = None,
    *,
    held: Held | None = None,
    decoded_bytes_max: int = DECODED_BYTES_MAX,
) -> Iterator[Head | RawChunk]:
    """Yield what a StreamDecoder finds in a file or pipe, whose `read(size)` gives b"" at its end.

    Raises: PacketError, whatever the bytes; what `read` raises.
    """
    if not callable(read):
        raise TypeError("read_stream is given a function that reads, such as file.read")
    decoder = StreamDecoder(verify, held=held, decoded_bytes_max=decoded_bytes_max)
    while data := read(READ_BYTES):
        yield from decoder.feed(data)
    decoder.close()
