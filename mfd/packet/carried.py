"""One object inside a packet: a table of its chunks, then their bodies, each aligned to 64.

    | 32 B digest of the raw chunk | u8 encoding | 3 zero | u32 body bytes |  per raw chunk
    | zeros to 64 | body | zeros to 64 | body | zeros to 64 | ...

Rules of this file: 1 MiB is a multiple of 64, so an object whose chunks are all raw lies
contiguous behind its table and is never copied. The table is proven against the object's digest
when the packet is decoded; the content of a chunk when it is decoded, or at `check`.
Source: spec/packet.md, section "Objects in a packet".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from mfd.packet.chunks import NEEDS_BASE, Encoding, decode_chunk, encode_chunk
from mfd.packet.envelope import IndexEntry
from mfd.packet.errors import Fault, PacketError
from mfd.packet.layout import Layout
from mfd.packet.limits import ALIGN_BYTES, CHUNK_BYTES
from mfd.packet.objects import Buffer, LayerObject, LazyLayer, chunk_digest, chunk_root

__all__ = [
    "Base",
    "CarriedObject",
    "Mapped",
    "Row",
    "check_entry",
    "check_zero",
    "chunk_rows",
    "chunks_of",
    "decode_object",
    "encode_bodies",
    "encode_object",
    "index_entry",
    "pack_rows",
    "padding",
    "parts_of",
    "raw_rows",
    "raw_size",
    "table_bytes",
]

ROW = Struct("<32sB3sI")  # digest, encoding, zero, body bytes
ROW_BYTES = ROW.size
KNOWN = frozenset(Encoding)
Mapped = Callable[..., Iterable[Any]]  # `map`, or that of an executor: order is kept


@dataclass(frozen=True, slots=True)
class Base:
    """An object that the reader holds, and another may build upon."""

    digest: bytes
    raw: Buffer

    def chunk(self, index: int) -> memoryview:
        """Return what lies at the place of a chunk; nothing where this object ends before."""
        return memoryview(self.raw).cast("B")[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


class Row(NamedTuple):
    """One row of a chunk table."""

    digest: bytes  # of the raw chunk
    encoding: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class CarriedObject:
    """An object as it lies in a packet that was received; it borrows the packet's memory."""

    digest: bytes
    raw_bytes: int
    chunks: tuple[bytes, ...]  # digests of the raw chunks
    bodies: tuple[tuple[int, memoryview], ...]  # encoding and body of each chunk
    contiguous: memoryview | None  # the whole raw object, where every chunk is raw
    base: Base | None = None

    def raw_chunk(self, index: int, out: memoryview | None = None) -> Buffer:
        """Return one raw chunk, checked against its digest; written to `out` where that is given.

        Raises: PacketError with Fault.ENCODING or Fault.DIGEST.
        """
        encoding, body = self.bodies[index]
        base = None if self.base is None else self.base.chunk(index)
        size = raw_size(self.raw_bytes, index)
        try:
            raw = decode_chunk(encoding, body, raw_bytes=size, base=base, out=out)
        except PacketError as exc:
            raise PacketError(exc.fault, f"{self._chunk(index)}: {exc.where}") from exc
        if chunk_digest(raw) != self.chunks[index]:
            raise PacketError(Fault.DIGEST, self._chunk(index))
        return raw

    def _chunk(self, index: int) -> str:
        return f"chunk {index} of object {self.digest.hex()[:16]}"

    def buffer(self, mapped: Mapped = map) -> memoryview:
        """Return the whole raw object: a view where it lies raw, else decoded and checked.

        `mapped` may be an executor's `map`, to decode with many threads.
        Raises: PacketError with Fault.ENCODING or Fault.DIGEST, for encoded objects only.
        """
        if self.contiguous is not None:
            return self.contiguous
        out = np.empty(self.raw_bytes, np.uint8).data  # numpy asks for huge pages: 2.2 x as fast

        def one(index: int) -> None:
            start = index * CHUNK_BYTES
            self.raw_chunk(index, out[start : start + CHUNK_BYTES])

        for _ in mapped(one, range(len(self.chunks))):
            pass
        return out.toreadonly()

    def check(self, mapped: Mapped = map) -> None:
        """Compare all content with its digests.

        Raises: PacketError with Fault.ENCODING or Fault.DIGEST.
        """
        for _ in mapped(lambda index: self.raw_chunk(index) and None, range(len(self.chunks))):
            pass


Source = LayerObject | LazyLayer | CarriedObject


def raw_size(raw_bytes: int, index: int) -> int:
    """Return the size of one raw chunk of an object."""
    return min(CHUNK_BYTES, raw_bytes - index * CHUNK_BYTES)


def encode_object(
    source: Source, encoding: Encoding, base: Base | None = None, mapped: Mapped = map
) -> tuple[IndexEntry, list[Buffer]]:
    """Return the index entry and the parts that follow one another; raw content is not copied."""
    raw = parts_of(source)
    if encoding is Encoding.RAW:
        rows = raw_rows(source)
        parts = [*raw, padding(source.raw_bytes)]
    else:
        rows, parts = [], []
        for row, body in encode_bodies(source, encoding, base, mapped):
            rows.append(row)
            parts += [body, padding(len(body))]
    return index_entry(source, rows, base), [pack_rows(rows), *(p for p in parts if len(p))]


def parts_of(source: Source) -> Iterable[Buffer]:
    """Return the raw object as consecutive parts; what is encoded is decoded part by part."""
    if not isinstance(source, CarriedObject):
        return source.parts
    if source.contiguous is not None:
        return (source.contiguous,)
    return map(source.raw_chunk, range(len(source.chunks)))


def raw_rows(source: Source) -> list[Row]:
    """Return the chunk table of an object whose chunks are all raw."""
    sizes = (raw_size(source.raw_bytes, index) for index in range(len(source.chunks)))
    return [
        Row(digest, Encoding.RAW, size) for digest, size in zip(source.chunks, sizes, strict=True)
    ]


def encode_bodies(
    source: Source, encoding: Encoding, base: Base | None = None, mapped: Mapped = map
) -> Iterator[tuple[Row, Buffer]]:
    """Encode chunk by chunk: with `map` no more than one is in memory at a time.

    Raises: ValueError where a layer that is loaded anew is not what it was before.
    """
    parts = iter(parts_of(source))
    first = next(parts)
    layout = Layout(first, source.raw_bytes)
    lazy = isinstance(source, LazyLayer)

    def one(numbered: tuple[int, tuple[Buffer, bytes]]) -> tuple[Row, Buffer]:
        index, (chunk, digest) = numbered
        if lazy and chunk_digest(chunk) != digest:
            raise ValueError("a layer changed between two calls of the function that loads it")
        items = layout.chunk(index)
        used, body = encode_chunk(
            chunk,
            item_bytes=items.width,
            encoding=encoding,
            base=None if base is None else base.chunk(index),
            floats=items.floats,
            runs=items.runs,
        )
        return Row(digest, used, len(body)), body

    chunks = zip(chunks_of(_chain(first, parts)), source.chunks, strict=True)
    yield from mapped(one, enumerate(chunks))


def _chain(first: Buffer, others: Iterator[Buffer]) -> Iterator[Buffer]:
    yield first
    yield from others


def index_entry(source: Source, rows: list[Row], base: Base | None) -> IndexEntry:
    """Describe an object whose chunk table is `rows`."""
    best = max(row.encoding for row in rows)
    based = best in NEEDS_BASE or best in (Encoding.INT8, Encoding.INT4)
    table_bytes = len(pack_rows(rows))
    return IndexEntry(
        source.digest,
        best,
        base.digest if base is not None and based else None,
        table_bytes + sum(_padded(row.body_bytes) for row in rows),
        len(rows),
        source.raw_bytes,
    )


def pack_rows(rows: list[Row]) -> bytes:
    """Return a chunk table with its padding."""
    table = b"".join(
        row.digest + bytes([row.encoding, 0, 0, 0]) + row.body_bytes.to_bytes(4, "little")
        for row in rows
    )
    return table + padding(len(table))


def padding(size: int) -> bytes:
    """Return the zeros that follow so many bytes."""
    return bytes(-size % ALIGN_BYTES)


def chunks_of(parts: Iterable[Buffer]) -> Iterator[Buffer]:
    """Cut consecutive parts into raw chunks; only chunks that span parts are copied."""
    pieces: list[memoryview] = []
    room = CHUNK_BYTES
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            piece = view[:room]
            pieces.append(piece)
            room -= len(piece)
            view = view[len(piece) :]
            if room == 0:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces, room = [], CHUNK_BYTES
    if pieces:
        yield pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_entry(entry: IndexEntry, held: Callable[[bytes], Buffer | None]) -> Base | None:
    """Return the base of an entry. Raises: PacketError where it cannot be read here."""
    where = f"object {entry.digest.hex()[:16]}"
    if entry.encoding not in KNOWN or entry.base == entry.digest:
        raise PacketError(Fault.ENCODING, f"{where}: number {entry.encoding}")
    if entry.base is None:
        if entry.encoding in NEEDS_BASE:
            raise PacketError(Fault.ENCODING, f"{where}: a difference without a base")
        return None
    raw = held(entry.base)
    if raw is None:
        raise PacketError(Fault.BASE, f"{where}: {entry.base.hex()[:16]}")
    return Base(entry.base, raw)


def table_bytes(entry: IndexEntry) -> int:
    """Return the size of an object's chunk table with its padding."""
    return _padded(ROW_BYTES * entry.chunk_count)


def chunk_rows(entry: IndexEntry, table: memoryview) -> list[Row]:
    """Read a chunk table, all `table_bytes` of it, and prove it against the object's digest.

    Raises: PacketError, whatever the bytes.
    """
    where = f"object {entry.digest.hex()[:16]}"
    check_zero(table, ROW_BYTES * entry.chunk_count, where)
    known = {0} if entry.encoding == Encoding.RAW else KNOWN
    rows: list[Row] = []
    for index in range(entry.chunk_count):
        digest, encoding, zero, size = ROW.unpack_from(table, ROW_BYTES * index)
        if zero != b"\0\0\0":
            raise PacketError(Fault.PADDING, f"{where}: chunk table")
        if encoding not in known:
            raise PacketError(Fault.ENCODING, f"{where}: number {encoding} in the chunk table")
        most = raw_size(entry.raw_bytes, index)
        if size > most or (encoding == Encoding.RAW and size != most):
            raise PacketError(Fault.ENCODING, f"{where}: body of {size} bytes in the chunk table")
        rows.append(Row(digest, encoding, size))
    if chunk_root(entry.raw_bytes, (row.digest for row in rows)) != entry.digest:
        raise PacketError(Fault.DIGEST, f"{where}: chunk table")
    return rows


def decode_object(entry: IndexEntry, region: memoryview, base: Base | None) -> CarriedObject:
    """View one object in its region of the packet, `entry.encoded_bytes` long.

    Raises: PacketError, whatever the bytes.
    """
    where = f"object {entry.digest.hex()[:16]}"
    start = at = table_bytes(entry)
    if len(region) < start:
        raise PacketError(Fault.TRUNCATED, f"{where}: chunk table")
    rows = chunk_rows(entry, region[:start])
    bodies: list[tuple[int, memoryview]] = []
    for row in rows:
        end = at + row.body_bytes
        if len(region) < _padded(end):
            raise PacketError(Fault.TRUNCATED, f"{where}: chunk {len(bodies)}")
        check_zero(region, end, where)
        bodies.append((row.encoding, region[at:end]))
        at = _padded(end)
    if at != len(region):
        raise PacketError(Fault.TRAILING, where)
    raw = region[start : start + entry.raw_bytes] if entry.encoding == Encoding.RAW else None
    chunks = tuple(row.digest for row in rows)
    return CarriedObject(entry.digest, entry.raw_bytes, chunks, tuple(bodies), raw, base)


def _padded(size: int) -> int:
    return size + -size % ALIGN_BYTES


def check_zero(region: memoryview, start: int, where: str) -> None:
    """Refuse padding from `start` on that is not zero."""
    pad = -start % ALIGN_BYTES
    if pad and region[start : start + pad] != bytes(pad):
        raise PacketError(Fault.PADDING, where)
