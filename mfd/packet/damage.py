"""What of a damaged packet is still good: every chunk looked at by itself.

Rules of this file: only the headers must be whole. Nothing is believed but what has its digest.
Source: spec/packet.md, sections "Objects in a packet" and "Pieces".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mfd.packet.carried import (
    Base,
    Row,
    check_entry,
    check_zero,
    chunk_rows,
    padding,
    raw_size,
    table_bytes,
)
from mfd.packet.chunks import decode_chunk
from mfd.packet.envelope import IndexEntry
from mfd.packet.errors import Fault, PacketError
from mfd.packet.given import as_view
from mfd.packet.limits import DECODED_BYTES_MAX
from mfd.packet.objects import Buffer, chunk_digest
from mfd.packet.packet import Head, Held, Packet, holder, read_head
from mfd.packet.pieces import LIST_DIGESTS, Assembly, Piece, PieceKind
from mfd.packet.signing import Verifier

if TYPE_CHECKING:
    from mmap import mmap

__all__ = ["BadChunk", "Found", "Survey", "survey"]


@dataclass(frozen=True, slots=True)
class BadChunk:
    """A chunk that cannot be used, and where it lies."""

    index: int
    fault: Fault
    where: str
    offset: int  # of its body, in bytes from the start of the packet


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of one object."""

    entry: IndexEntry
    layers: tuple[str, ...]  # names; none for the plan
    offset: int  # of its chunk table
    rows: tuple[Row, ...]  # none where the chunk table is not sound: then all of it is lost
    offsets: tuple[int, ...]  # of the bodies
    bad: tuple[BadChunk, ...]  # in order
    fault: PacketError | None = None  # why the object as a whole cannot be read

    @property
    def good(self) -> int:
        """How many chunks have their digests."""
        return 0 if self.fault else self.entry.chunk_count - len(self.bad)


@dataclass(frozen=True, slots=True)
class Survey:
    """A packet's headers and what there is of its objects."""

    head: Head
    objects: tuple[Found, ...]
    beyond: int  # bytes after the end that the headers tell; negative: missing
    view: memoryview

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.beyond and not any(found.bad or found.fault for found in self.objects)

    def assembly(
        self, *, held: Held | None = None, decoded_bytes_max: int = DECODED_BYTES_MAX
    ) -> Assembly:
        """Return an assembly that has all good chunks, and takes what is missing from elsewhere."""
        envelope = replace(self.head.envelope, index=())
        bare = Packet(
            self.head.manifest, self.head.manifest_bytes, self.head.signature, {}, envelope
        )
        made = Assembly(bare, held=held, decoded_bytes_max=decoded_bytes_max)
        for found in self.objects:
            entry, bad = found.entry, {chunk.index for chunk in found.bad}
            for first in range(0, len(found.rows), LIST_DIGESTS):
                rows = found.rows[first : first + LIST_DIGESTS]
                body = b"".join(row.digest for row in rows)
                made.add(Piece(PieceKind.LIST, entry.digest, entry.raw_bytes, first, body))
            for index, (row, at) in enumerate(zip(found.rows, found.offsets, strict=True)):
                if index not in bad and not found.fault:
                    there = self.view[at : at + row.body_bytes]
                    chunk = (entry.digest, entry.raw_bytes, index, there, row.encoding, entry.base)
                    made.add(Piece(PieceKind.CHUNK, *chunk))
        return made


def survey(
    buffer: Buffer | mmap,
    verify: Verifier | None = None,
    *,
    held: Held | None = None,
    decoded_bytes_max: int = DECODED_BYTES_MAX,
) -> Survey:
    """Look at every chunk of a packet that may be cut short or damaged.

    Raises: PacketError where the headers are not sound: then nothing tells what the rest is.
    """
    view = as_view(buffer, "a packet")
    head = read_head(view, verify, decoded_bytes_max)
    names: dict[bytes, tuple[str, ...]] = {}
    for ref in head.manifest.layers:
        names[ref.digest] = (*names.get(ref.digest, ()), ref.name)
    found = []
    end = head.size
    for entry in head.envelope.index:
        found.append(_look(view, end, entry, names.get(entry.digest, ()), holder(held)))
        end += entry.encoded_bytes
    return Survey(head, tuple(found), len(view) - end, view)


def _look(
    view: memoryview,
    offset: int,
    entry: IndexEntry,
    layers: tuple[str, ...],
    holds: Callable[[bytes], Buffer | None],
) -> Found:
    start = offset + table_bytes(entry)
    rows: tuple[Row, ...] = ()
    offsets: list[int] = []
    try:
        if len(view) < start:
            raise PacketError(Fault.TRUNCATED, "chunk table")
        rows = tuple(chunk_rows(entry, view[offset:start]))
        at = start
        for row in rows:
            offsets.append(at)
            at += row.body_bytes + len(padding(row.body_bytes))
        if at != offset + entry.encoded_bytes:
            raise PacketError(Fault.TRAILING, "the chunk table does not fill the object")
        base = check_entry(entry, holds)
    except PacketError as exc:
        return Found(entry, layers, offset, rows, tuple(offsets), (), exc)
    bad = []
    for index, (row, at) in enumerate(zip(rows, offsets, strict=True)):
        try:
            _check_chunk(view, at, (entry, index, row), base)
        except PacketError as exc:
            bad.append(BadChunk(index, exc.fault, exc.where, at))
    return Found(entry, layers, offset, rows, tuple(offsets), tuple(bad))


def _check_chunk(
    view: memoryview, at: int, chunk: tuple[IndexEntry, int, Row], base: Base | None
) -> None:
    entry, index, row = chunk
    end = at + row.body_bytes
    if len(view) < end + len(padding(end)):
        raise PacketError(Fault.TRUNCATED, f"byte {len(view)}")
    check_zero(view, end, f"byte {end}")
    raw = decode_chunk(
        row.encoding,
        view[at:end],
        raw_bytes=raw_size(entry.raw_bytes, index),
        base=None if base is None else base.chunk(index),
    )
    if chunk_digest(raw) != row.digest:
        raise PacketError(Fault.DIGEST, f"bytes {at} to {end}")
