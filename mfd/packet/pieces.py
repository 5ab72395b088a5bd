"""A packet in pieces that may come in any order, twice, or from several places, and be resumed.

    head    a packet without objects
    list    digests of an object's chunks     | magic | format | kind | encoding | zero | index
    chunk   one raw chunk, encoded by itself  | body bytes | raw bytes | zero | object | base | body

Rules of this file: nothing is used before it is proven: a list against the digest that the signed
manifest names, a chunk against the list. What is refused changes nothing.
Source: spec/packet.md, section "Pieces".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from struct import Struct

import numpy as np

from mfd.packet.carried import Base, CarriedObject, encode_bodies, raw_size
from mfd.packet.chunks import Encoding, decode_chunk
from mfd.packet.errors import Fault, PacketError
from mfd.packet.given import as_view
from mfd.packet.limits import (
    CHUNK_BYTES,
    DECODED_BYTES_MAX,
    DIGEST_BYTES,
    OBJECT_BYTES_MAX,
    PLAN_BYTES_MAX,
)
from mfd.packet.objects import Buffer, chunk_digest, chunk_root
from mfd.packet.packet import (
    Chosen,
    Held,
    Packet,
    bases_of,
    carried,
    encoding_of,
    holder,
    named,
    pack_head,
    require_packet,
)
from mfd.packet.signing import KEY_BYTES, SIGNATURE_BYTES

__all__ = [
    "Assembly",
    "Piece",
    "PieceKind",
    "Want",
    "decode_piece",
    "encode_piece",
    "head_of",
    "pieces_of",
]

MAGIC = b"\x93MFP"
FORMAT = 1
HEAD = Struct("<4sBBBBIIQQ32s32s")
NO_BASE = bytes(DIGEST_BYTES)
PLAN_RECORD_BYTES_MAX = KEY_BYTES + SIGNATURE_BYTES + PLAN_BYTES_MAX
LIST_DIGESTS = CHUNK_BYTES // DIGEST_BYTES  # in one piece


class PieceKind(IntEnum):
    """What the body of a piece is."""

    LIST = 0
    CHUNK = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """Some chunk digests of an object, or one of its chunks."""

    kind: PieceKind
    object: bytes  # digest
    raw_bytes: int  # of the whole object
    index: int  # of the chunk, or of the first digest
    body: Buffer
    encoding: int = Encoding.RAW
    base: bytes | None = None  # digest of the object upon which the chunk builds


def encode_piece(piece: Piece) -> list[Buffer]:
    """Return a piece as parts to be written one after the other; the body is not copied."""
    if not isinstance(piece, Piece):
        raise TypeError(f"encode_piece takes a Piece, not a {type(piece).__name__}")
    head = HEAD.pack(
        MAGIC,
        FORMAT,
        piece.kind,
        piece.encoding,
        0,
        piece.index,
        len(piece.body),
        piece.raw_bytes,
        0,
        piece.object,
        piece.base or NO_BASE,
    )
    return [head, piece.body]


def decode_piece(buffer: Buffer) -> Piece:
    """Read one piece, which borrows the buffer; nothing is proven yet.

    Raises: PacketError, whatever the bytes.
    """
    view = as_view(buffer, "a piece")
    if bytes(view[:4]) != MAGIC[: len(view)]:
        raise PacketError(Fault.MAGIC, "piece")
    if len(view) < HEAD.size:
        raise PacketError(Fault.TRUNCATED, "head of a piece")
    found = HEAD.unpack_from(view)
    _, version, kind, encoding, zero, index, body_bytes, raw_bytes, zeros, name, base = found
    if version != FORMAT or kind not in set(PieceKind):
        raise PacketError(Fault.FORMAT, f"piece of format {version}, kind {kind}")
    if zero or zeros:
        raise PacketError(Fault.PADDING, "head of a piece")
    if not 0 < body_bytes <= CHUNK_BYTES:
        raise PacketError(Fault.LIMIT, f"a piece of {body_bytes} bytes")
    if len(view) != HEAD.size + body_bytes:
        short = len(view) < HEAD.size + body_bytes
        raise PacketError(Fault.TRUNCATED if short else Fault.TRAILING, "piece")
    piece = Piece(
        PieceKind(kind),
        name,
        raw_bytes,
        index,
        view[HEAD.size :],
        encoding,
        None if base == NO_BASE else base,
    )
    _check_piece(piece)
    return piece


def _check_piece(piece: Piece) -> None:
    where = f"piece of object {piece.object.hex()[:16]}"
    if not 0 < piece.raw_bytes <= OBJECT_BYTES_MAX:
        raise PacketError(Fault.FIELD, f"{where}: {piece.raw_bytes} raw bytes")
    chunks = -(-piece.raw_bytes // CHUNK_BYTES)
    if piece.index >= chunks:
        raise PacketError(Fault.FIELD, f"{where}: number {piece.index} of {chunks}")
    if piece.kind is PieceKind.LIST:
        digests, rest = divmod(len(piece.body), DIGEST_BYTES)
        if rest or digests > chunks - piece.index or piece.encoding or piece.base:
            raise PacketError(Fault.FIELD, f"{where}: list of {len(piece.body)} bytes")


def head_of(packet: Packet) -> bytes:
    """Return the packet without its objects: what an `Assembly` begins with."""
    require_packet(packet)
    return pack_head(packet, replace(packet.envelope, index=()))


def pieces_of(
    packet: Packet, encoding: Chosen = Encoding.PLANES, *, base: Packet | None = None
) -> Iterator[Piece]:
    """Yield the pieces of all objects that a packet carries, lists first, one at a time.

    Raises: as `encode`.
    """
    bases = bases_of(packet, base)
    for item in carried(packet):
        for first in range(0, len(item.chunks), LIST_DIGESTS):
            digests = b"".join(item.chunks[first : first + LIST_DIGESTS])
            yield Piece(PieceKind.LIST, item.digest, item.raw_bytes, first, digests)
    for item in carried(packet):
        under = bases.get(item.digest)
        bodies = encode_bodies(item, encoding_of(item.digest, encoding), under)
        for index, (row, body) in enumerate(bodies):
            based = None if under is None or row.encoding <= Encoding.PLANES else under.digest
            chunk = (item.digest, item.raw_bytes, index, body, row.encoding, based)
            yield Piece(PieceKind.CHUNK, *chunk)


@dataclass(frozen=True, slots=True)
class Want:
    """What is still missing: a chunk of an object, or its list where index is None."""

    object: bytes
    index: int | None = None


@dataclass(slots=True)
class _Object:
    """One object on its way."""

    raw_bytes: int | None  # None: the manifest does not tell (the plan), the first list will
    digests: dict[int, bytes] = field(default_factory=dict)
    listed: bool = False
    room: memoryview | None = None
    have: set[int] = field(default_factory=set)

    @property
    def count(self) -> int:
        return -(-(self.raw_bytes or 0) // CHUNK_BYTES)


Room = Callable[[bytes, int], memoryview]  # digest, raw bytes -> writable memory of that size


class Assembly:
    """Puts a packet together from pieces.

    `head` is a packet, of which the objects that it carries are there already. `room` lends memory
    for an object, such as a mapped file: chunks that lie there from an earlier attempt are found
    again with `resume`. Without it memory is taken, `decoded_bytes_max` at most in all.
    """

    def __init__(
        self,
        head: Packet,
        *,
        held: Held | None = None,
        room: Room | None = None,
        decoded_bytes_max: int = DECODED_BYTES_MAX,
    ) -> None:
        require_packet(head, "the head of an Assembly")
        self._head = head
        self._holds = holder(held)
        self._room = room or (lambda _, size: np.empty(size, np.uint8).data)
        self._bytes_left = decoded_bytes_max
        sizes = {ref.digest: ref.raw_bytes for ref in head.manifest.layers}
        self._objects = {
            digest: _Object(sizes.get(digest))
            for digest in named(head.manifest)
            if digest not in head.objects
        }

    def add(self, piece: Piece | Buffer) -> bool:
        """Take a piece; return whether it brought something new.

        Raises: PacketError where the piece is not sound or not of this packet; nothing changes.
        """
        if not isinstance(piece, Piece):
            piece = decode_piece(piece)
        found = self._objects.get(piece.object)
        if found is None:
            if piece.object in self._head.objects:
                return False
            raise PacketError(Fault.FIELD, f"not of this packet: {piece.object.hex()[:16]}")
        if found.raw_bytes is None and piece.raw_bytes > PLAN_RECORD_BYTES_MAX:
            raise PacketError(Fault.FIELD, f"a plan of {piece.raw_bytes} bytes")
        if found.raw_bytes not in (None, piece.raw_bytes):
            raise PacketError(Fault.FIELD, f"another size of object {piece.object.hex()[:16]}")
        if piece.kind is PieceKind.LIST:
            return self._list(found, piece)
        return self._chunk(found, piece)

    def missing(self) -> Iterator[Want]:
        """Yield what is still to come: lists of objects whose chunks are not known, then chunks.

        The plan is wanted once a piece of it has come: a packet need not carry it.
        """
        for digest, found in self._objects.items():
            if not found.listed and found.raw_bytes is not None:
                yield Want(digest)
        for digest, found in self._objects.items():
            if found.listed:
                yield from (Want(digest, i) for i in range(found.count) if i not in found.have)

    def resume(self) -> int:
        """Look for chunks that lie in the lent memory already; return how many were found.

        Only objects whose list is known can be looked at.
        """
        before = sum(len(found.have) for found in self._objects.values())
        for digest, found in self._objects.items():
            if not found.listed:
                continue
            place = self._place(digest, found)
            for index in range(found.count):
                raw = place[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                if index not in found.have and chunk_digest(raw) == found.digests[index]:
                    found.have.add(index)
        return sum(len(found.have) for found in self._objects.values()) - before

    def packet(self) -> Packet:
        """Return the packet with all objects that are whole by now."""
        objects = dict(self._head.objects)
        for digest, found in self._objects.items():
            if found.listed and found.room is not None and len(found.have) == found.count:
                objects[digest] = _whole(digest, found, found.room.toreadonly())
        return replace(self._head, objects=objects)

    def _list(self, found: _Object, piece: Piece) -> bool:
        if found.listed:
            return False
        digests = [
            bytes(piece.body[at : at + DIGEST_BYTES])
            for at in range(0, len(piece.body), DIGEST_BYTES)
        ]
        known = {**found.digests, **dict(enumerate(digests, piece.index))}
        chunks = -(-piece.raw_bytes // CHUNK_BYTES)
        if len(known) == chunks:
            if chunk_root(piece.raw_bytes, (known[i] for i in range(chunks))) != piece.object:
                # Of several pieces one is wrong, and nobody can say which: begin anew.
                found.digests.clear()
                raise PacketError(Fault.DIGEST, f"list of object {piece.object.hex()[:16]}")
            found.listed, found.raw_bytes = True, piece.raw_bytes
        new = len(known) > len(found.digests)
        found.digests = known
        return new

    def _chunk(self, found: _Object, piece: Piece) -> bool:
        if piece.index in found.have:
            return False
        where = f"chunk {piece.index} of object {piece.object.hex()[:16]}"
        if not found.listed:
            raise PacketError(Fault.FIELD, f"{where}: its list is not here yet")
        base = None
        if piece.base is not None and (raw := self._holds(piece.base)) is not None:
            base = Base(piece.base, raw).chunk(piece.index)
        size = raw_size(piece.raw_bytes, piece.index)
        made = decode_chunk(piece.encoding, piece.body, raw_bytes=size, base=base)
        if chunk_digest(made) != found.digests[piece.index]:
            raise PacketError(Fault.DIGEST, where)
        start = piece.index * CHUNK_BYTES
        self._place(piece.object, found)[start : start + size] = made
        found.have.add(piece.index)
        return True

    def _place(self, digest: bytes, found: _Object) -> memoryview:
        if found.room is None:
            size = found.raw_bytes or 0
            if size > self._bytes_left:
                raise PacketError(Fault.LIMIT, f"object {digest.hex()[:16]} of {size} bytes")
            place = memoryview(self._room(digest, size)).cast("B")
            if len(place) != size or place.readonly:
                raise ValueError(f"{size} writable bytes were asked for, {len(place)} were lent")
            self._bytes_left -= size
            found.room = place
        return found.room


def _whole(digest: bytes, found: _Object, raw: memoryview) -> CarriedObject:
    chunks = tuple(found.digests[index] for index in range(found.count))
    bodies = tuple(
        (int(Encoding.RAW), raw[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
        for index in range(found.count)
    )
    return CarriedObject(digest, len(raw), chunks, bodies, raw)
