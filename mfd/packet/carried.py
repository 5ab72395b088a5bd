"""One object inside a packet: a table of its chunks, then their bodies, each aligned to 64.

    | 32 B digest of the raw chunk | u8 encoding | 3 zero | u32 body bytes |  per raw chunk
    | zeros to 64 | body | zeros to 64 | body | zeros to 64 | ...

Rules of this file: 1 MiB is a multiple of 64, so an object whose chunks are all raw lies
contiguous behind its table and is never copied. The table is proven against the object's digest
when the packet is decoded; the content of a chunk when it is decoded, or at `check`.
Source: spec/packet.md, section "Objects in a packet".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mfd.packet.chunks import Encoding, decode_chunk, encode_chunk, item_bytes_of
from mfd.packet.envelope import IndexEntry
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import ALIGN_BYTES, CHUNK_BYTES, DIGEST_BYTES
from mfd.packet.objects import Buffer, LayerObject, chunk_digest, chunk_root

__all__ = ["CarriedObject", "chunks_of", "decode_object", "encode_object"]

ROW_BYTES = DIGEST_BYTES + 8


@dataclass(frozen=True, slots=True)
class CarriedObject:
    """An object as it lies in a packet that was received; it borrows the packet's memory."""

    digest: bytes
    raw_bytes: int
    chunks: tuple[bytes, ...]  # digests of the raw chunks
    bodies: tuple[tuple[int, memoryview], ...]  # encoding and body of each chunk
    contiguous: memoryview | None  # the whole raw object, where every chunk is raw

    def raw_chunk(self, index: int) -> Buffer:
        """Return one raw chunk, checked against its digest.

        Raises: PacketError with Fault.ENCODING or Fault.DIGEST.
        """
        encoding, body = self.bodies[index]
        raw_bytes = min(CHUNK_BYTES, self.raw_bytes - index * CHUNK_BYTES)
        raw = decode_chunk(encoding, body, raw_bytes=raw_bytes)
        if chunk_digest(raw) != self.chunks[index]:
            raise PacketError(Fault.DIGEST, f"chunk {index} of object {self.digest.hex()[:16]}")
        return raw

    def buffer(self) -> memoryview:
        """Return the whole raw object: a view where it lies raw, else decoded and checked.

        Raises: PacketError with Fault.ENCODING or Fault.DIGEST, for encoded objects only.
        """
        if self.contiguous is not None:
            return self.contiguous
        out = np.empty(self.raw_bytes, np.uint8).data  # numpy asks for huge pages: 2.2 x as fast
        for index in range(len(self.chunks)):
            start = index * CHUNK_BYTES
            out[start : start + CHUNK_BYTES] = self.raw_chunk(index)
        return out.toreadonly()

    def check(self) -> None:
        """Compare all content with its digests.

        Raises: PacketError with Fault.ENCODING or Fault.DIGEST.
        """
        for index in range(len(self.chunks)):
            self.raw_chunk(index)


def encode_object(
    source: LayerObject | CarriedObject, encoding: Encoding
) -> tuple[IndexEntry, list[Buffer]]:
    """Return the index entry and the parts that follow one another; raw content is not copied."""
    raw = source.parts if isinstance(source, LayerObject) else (source.buffer(),)
    rows = bytearray()
    parts: list[Buffer] = []
    best = Encoding.RAW
    if encoding is Encoding.RAW:
        sizes = [CHUNK_BYTES] * (len(source.chunks) - 1)
        sizes.append(source.raw_bytes - CHUNK_BYTES * len(sizes))
        for digest, size in zip(source.chunks, sizes, strict=True):
            rows += _pack_row(digest, Encoding.RAW, size)
        parts += [*raw, bytes(-source.raw_bytes % ALIGN_BYTES)]
    else:
        widths = item_bytes_of(raw[0], source.raw_bytes)
        for digest, chunk, width in zip(source.chunks, chunks_of(raw), widths, strict=True):
            used, body = encode_chunk(chunk, item_bytes=width, encoding=encoding)
            best = max(best, used)
            rows += _pack_row(digest, used, len(body))
            parts += [body, bytes(-len(body) % ALIGN_BYTES)]
    table = bytes(rows) + bytes(-len(rows) % ALIGN_BYTES)
    encoded_bytes = len(table) + sum(memoryview(part).nbytes for part in parts)
    entry = IndexEntry(
        source.digest, best, None, encoded_bytes, len(source.chunks), source.raw_bytes
    )
    return entry, [table, *(part for part in parts if len(part))]


def _pack_row(digest: bytes, encoding: int, body_bytes: int) -> bytes:
    return digest + bytes([encoding, 0, 0, 0]) + body_bytes.to_bytes(4, "little")


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


def decode_object(entry: IndexEntry, region: memoryview) -> CarriedObject:
    """View one object in its region of the packet, `entry.encoded_bytes` long.

    Raises: PacketError, whatever the bytes.
    """
    where = f"object {entry.digest.hex()[:16]}"
    if entry.base is not None:
        raise PacketError(Fault.BASE, where)
    if entry.encoding not in (Encoding.RAW, Encoding.PLANES):
        raise PacketError(Fault.ENCODING, f"{where}: number {entry.encoding}")
    start = _padded(ROW_BYTES * entry.chunk_count)
    if len(region) < start:
        raise PacketError(Fault.TRUNCATED, f"{where}: chunk table")
    _check_zero(region, ROW_BYTES * entry.chunk_count, where)
    chunks: list[bytes] = []
    bodies: list[tuple[int, memoryview]] = []
    at = start
    for row in range(0, ROW_BYTES * entry.chunk_count, ROW_BYTES):
        digest, encoding, size = _read_row(region[row : row + ROW_BYTES], where)
        if encoding not in (Encoding.RAW, entry.encoding):
            raise PacketError(Fault.ENCODING, f"{where}: number {encoding} in the chunk table")
        raw_bytes = min(CHUNK_BYTES, entry.raw_bytes - len(chunks) * CHUNK_BYTES)
        if size > raw_bytes or (encoding == Encoding.RAW and size != raw_bytes):
            raise PacketError(Fault.ENCODING, f"{where}: body of {size} bytes in the chunk table")
        if len(region) < at + _padded(size):
            raise PacketError(Fault.TRUNCATED, f"{where}: chunk {len(chunks)}")
        _check_zero(region, at + size, where)
        chunks.append(digest)
        bodies.append((encoding, region[at : at + size]))
        at += _padded(size)
    if at != len(region):
        raise PacketError(Fault.TRAILING, where)
    if chunk_root(entry.raw_bytes, chunks) != entry.digest:
        raise PacketError(Fault.DIGEST, f"{where}: chunk table")
    raw = region[start : start + entry.raw_bytes] if entry.encoding == Encoding.RAW else None
    return CarriedObject(entry.digest, entry.raw_bytes, tuple(chunks), tuple(bodies), raw)


def _read_row(row: memoryview, where: str) -> tuple[bytes, int, int]:
    if row[DIGEST_BYTES + 1 : DIGEST_BYTES + 4] != bytes(3):
        raise PacketError(Fault.PADDING, f"{where}: chunk table")
    return bytes(row[:DIGEST_BYTES]), row[DIGEST_BYTES], int.from_bytes(row[-4:], "little")


def _padded(size: int) -> int:
    return size + -size % ALIGN_BYTES


def _check_zero(region: memoryview, start: int, where: str) -> None:
    pad = -start % ALIGN_BYTES
    if region[start : start + pad] != bytes(pad):
        raise PacketError(Fault.PADDING, where)
