"""Layer objects: tensors as canonical bytes under one digest.

Rules of this file: bytes and numpy only. The same tensors give the same bytes on every machine, so
a digest names content, never an encoding of it. Tensors are not copied on the way in or out.
Source: spec/packet.md, sections "Layer object" and "Digest".
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import msgpack
from blake3 import blake3

from mfd.packet.errors import Fault, PacketError
from mfd.packet.given import as_view, check_map, name_bytes
from mfd.packet.limits import (
    ALIGN_BYTES,
    CHUNK_BYTES,
    ITEMS_MAX,
    NAME_BYTES_MAX,
    OBJECT_BYTES_MAX,
    RANK_MAX,
    TABLE_BYTES_MAX,
    TENSORS_MAX,
)
from mfd.packet.tensors import DTYPES, Buffer, Tensor, named_tensor

__all__ = [
    "DTYPES",
    "Buffer",
    "LayerObject",
    "LazyLayer",
    "Tensor",
    "chunk_digest",
    "chunk_root",
    "object_digest",
    "pack_layer",
    "pack_lazily",
    "read_table",
    "unpack_layer",
    "wrap_object",
]

DOMAIN = b"mfd.object.v1"
HEAD_BYTES = 8  # u32 table bytes, u32 zero


@dataclass(frozen=True, slots=True)
class LayerObject:
    """A layer ready to store or send: its parts in order, its chunk digests, its root."""

    parts: tuple[Buffer, ...]
    raw_bytes: int
    chunks: tuple[bytes, ...]  # BLAKE3 of each raw chunk
    digest: bytes  # root over raw_bytes and chunks

    def tobytes(self) -> bytes:
        """Join the parts: one copy of the content."""
        return b"".join(self.parts)


@dataclass(frozen=True, slots=True)
class LazyLayer:
    """A layer object that is not kept in memory: a function loads it whenever it is wanted."""

    load: Callable[[], Mapping[str, Any]]
    raw_bytes: int
    chunks: tuple[bytes, ...]
    digest: bytes

    @property
    def parts(self) -> tuple[Buffer, ...]:
        """Load the layer and lay it out."""
        return tuple(_lay_out(self.load()))

    def tobytes(self) -> bytes:
        """Load the layer and join its parts."""
        return b"".join(self.parts)


def pack_layer(tensors: Mapping[str, Any]) -> LayerObject:
    """Lay tensors (each a Tensor, numpy array or torch tensor) out and name them by digest.

    Raises: TypeError or ValueError for what the format cannot carry: an element type, a name, ...
    """
    return wrap_object(*_lay_out(tensors))


def pack_lazily(load: Callable[[], Mapping[str, Any]]) -> LazyLayer:
    """Name a layer that does not stay in memory; `load` must give the same tensors at every call.

    Raises: as pack_layer.
    """
    made = pack_layer(load())
    return LazyLayer(load, made.raw_bytes, made.chunks, made.digest)


def _lay_out(tensors: Mapping[str, Any]) -> list[Buffer]:
    if sys.byteorder != "little":  # pragma: no cover - no such machine in reach
        raise RuntimeError("mfd.packet needs a little-endian machine")
    check_map(tensors, "a layer", "tensor names to arrays")
    rows = ((name_bytes(name, "tensor"), name, value) for name, value in tensors.items())
    items = sorted(((key, named_tensor(name, value)) for key, name, value in rows), key=_key)
    if len(items) > TENSORS_MAX:
        raise ValueError(f"{len(items)} tensors in one layer; the limit is {TENSORS_MAX}")
    for key, tensor in items:
        if len(tensor.shape) > RANK_MAX:
            raise ValueError(f"tensor {key.decode()!r} has rank {len(tensor.shape)} > {RANK_MAX}")
    table = _pack_table([(k, t.dtype, t.shape, len(t.data)) for k, t in items])
    parts: list[Buffer] = [table]
    size = len(table)
    for _, tensor in items:
        parts.append(tensor.data)
        size += len(tensor.data)
        if pad := -size % ALIGN_BYTES:
            parts.append(bytes(pad))
            size += pad
    return parts


def _key(item: tuple[bytes, Tensor]) -> bytes:
    return item[0]


def object_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Size of a layer object with such tensors, {name: (dtype, shape)}, before there are values."""
    rows = sorted((name.encode(), dtype, shape) for name, (dtype, shape) in tensors.items())
    sizes = [DTYPES[dtype][0] * prod(shape) for _, dtype, shape in rows]
    table = _pack_table([(key, dtype, shape, 0) for key, dtype, shape in rows])
    return len(table) + sum(size + -size % ALIGN_BYTES for size in sizes)


def wrap_object(*parts: Buffer) -> LayerObject:
    """Name consecutive parts, of a layer or of any other content, by their digest."""
    size = sum(memoryview(part).nbytes for part in parts)
    chunks = tuple(_chunk_digests(parts))
    return LayerObject(parts, size, chunks, chunk_root(size, chunks))


def _pack_table(rows: list[tuple[bytes, str, tuple[int, ...], int]]) -> bytes:
    """| u32 table bytes | u32 zero | [[name, dtype, shape], ...] | zeros to 64 |."""
    body: bytes = msgpack.packb([[k.decode(), d, list(s)] for k, d, s, _ in rows])
    head = len(body).to_bytes(4, "little") + bytes(4)
    return head + body + bytes(-(HEAD_BYTES + len(body)) % ALIGN_BYTES)


def _chunk_digests(parts: Iterable[Buffer]) -> Iterator[bytes]:
    hasher, room = blake3(), CHUNK_BYTES
    fed = False
    for part in parts:
        view = memoryview(part).cast("B") if not isinstance(part, bytes) else memoryview(part)
        while len(view):
            piece = view[:room]
            hasher.update(piece)
            fed = True
            room -= len(piece)
            view = view[len(piece) :]
            if room == 0:
                yield hasher.digest()
                hasher, room, fed = blake3(), CHUNK_BYTES, False
    if fed:
        yield hasher.digest()


def chunk_digest(raw: Buffer) -> bytes:
    """Digest of one raw chunk."""
    return blake3(raw).digest()


def chunk_root(raw_bytes: int, chunks: Iterable[bytes]) -> bytes:
    """Digest of an object from the digests of its 1 MiB raw chunks."""
    return blake3(DOMAIN + raw_bytes.to_bytes(8, "little") + b"".join(chunks)).digest()


def object_digest(*parts: Buffer) -> bytes:
    """Digest of an object given as consecutive parts; names manifests and plans too."""
    return chunk_root(sum(len(p) for p in parts), _chunk_digests(parts))


def unpack_layer(buffer: Buffer) -> dict[str, Tensor]:
    """View the tensors of a canonical layer object without copying them.

    The digest is the caller's business: content is checked when it arrives, once.
    Raises: PacketError, whatever the bytes.
    """
    view = as_view(buffer, "a layer")
    table_bytes, rows = read_table(view)
    offset = HEAD_BYTES + table_bytes
    offset = _skip_padding(view, offset)
    tensors: dict[str, Tensor] = {}
    for name, dtype, shape in rows:
        size = DTYPES[dtype][0] * prod(shape)
        if size > len(view) - offset:
            raise PacketError(Fault.TRUNCATED, f"tensor {name!r}")
        tensors[name] = Tensor(dtype, shape, view[offset : offset + size].toreadonly())
        offset = _skip_padding(view, offset + size)
    if offset != len(view):
        raise PacketError(Fault.TRAILING, "layer object")
    return tensors


def read_table(buffer: Buffer) -> tuple[int, list[tuple[str, str, tuple[int, ...]]]]:
    """Return the length of a layer object's table and its rows: name, dtype, shape.

    Raises: PacketError, whatever the bytes.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < HEAD_BYTES:
        raise PacketError(Fault.TRUNCATED, "layer object head")
    table_bytes = int.from_bytes(view[:4], "little")
    if view[4:8] != bytes(4):
        raise PacketError(Fault.PADDING, "layer object head")
    if table_bytes > TABLE_BYTES_MAX:
        raise PacketError(Fault.LIMIT, f"layer table of {table_bytes} bytes")
    if len(view) < HEAD_BYTES + table_bytes:
        raise PacketError(Fault.TRUNCATED, "layer table")
    return table_bytes, _read_rows(bytes(view[HEAD_BYTES : HEAD_BYTES + table_bytes]))


def _skip_padding(view: memoryview, offset: int) -> int:
    pad = -offset % ALIGN_BYTES
    if len(view) < offset + pad:
        raise PacketError(Fault.TRUNCATED, "padding")
    if pad and view[offset : offset + pad] != bytes(pad):
        raise PacketError(Fault.PADDING, f"at byte {offset}")
    return offset + pad


def _read_rows(body: bytes) -> list[tuple[str, str, tuple[int, ...]]]:
    """Read row by row, and stop at the first that is wrong: 16 MiB can tell 16 million lists."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=TABLE_BYTES_MAX,
        max_array_len=0,  # lists are entered by their heads alone, see _enter_list
        max_str_len=NAME_BYTES_MAX,
        max_bin_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    unpacker.feed(body)
    rows: list[tuple[str, str, tuple[int, ...]]] = []
    last = b""
    total = 0
    try:
        count = unpacker.read_array_header()
        if count > TENSORS_MAX:
            raise PacketError(Fault.LIMIT, f"layer table of {count} tensors")
        for _ in range(count):
            name, dtype, shape = _read_row(unpacker, body)
            key = name.encode()
            if key <= last:
                raise PacketError(Fault.ORDER, f"tensor {name!r}")
            last = key
            total += DTYPES[dtype][0] * prod(max(extent, 1) for extent in shape)
            if total > OBJECT_BYTES_MAX:
                raise PacketError(Fault.LIMIT, f"tensor {name!r}")
            rows.append((name, dtype, shape))
    except PacketError:
        raise
    except (ValueError, msgpack.UnpackException) as exc:
        raise PacketError(Fault.MSGPACK, "layer table") from exc
    if msgpack.packb(rows) != body:
        raise PacketError(Fault.MSGPACK, "layer table is not in shortest form")
    return rows


def _read_row(unpacker: Any, body: bytes) -> tuple[str, str, tuple[int, ...]]:
    cells = _enter_list(unpacker, body)
    if cells != 3:
        for _ in range(cells or 0):
            unpacker.skip()  # makes nothing, and refuses lists that nest without end
        raise PacketError(Fault.FIELD, "layer table row")
    name, dtype = _read_text(unpacker, body), _read_text(unpacker, body)
    rank = _enter_list(unpacker, body)
    if rank is None:
        raise PacketError(Fault.FIELD, "layer table row")
    if not name:
        raise PacketError(Fault.FIELD, "tensor without a name")
    if dtype not in DTYPES:
        raise PacketError(Fault.DTYPE, f"{dtype[:32]!r} of tensor {name[:64]!r}")
    if rank > RANK_MAX:
        raise PacketError(Fault.LIMIT, f"rank {rank} of tensor {name!r}")
    shape = tuple(unpacker.unpack() for _ in range(rank))
    for extent in shape:
        if type(extent) is not int or not 0 <= extent <= OBJECT_BYTES_MAX:
            raise PacketError(Fault.SHAPE, f"tensor {name!r}")
    return name, dtype, shape


def _enter_list(unpacker: Any, body: bytes) -> int | None:
    """Return how many entries the list that comes next declares; None for another value."""
    if unpacker.tell() < len(body) and not _list_is_next(unpacker, body):
        return None
    count: int = unpacker.read_array_header()
    if count > ITEMS_MAX:
        raise PacketError(Fault.MSGPACK, f"layer table: a list of {count}")
    return count


def _list_is_next(unpacker: Any, body: bytes) -> bool:
    at = unpacker.tell()
    return at < len(body) and (body[at] >> 4 == 0x9 or body[at] in (0xDC, 0xDD))


def _read_text(unpacker: Any, body: bytes) -> str:
    text = None if _list_is_next(unpacker, body) else unpacker.unpack()
    if not isinstance(text, str):
        raise PacketError(Fault.FIELD, "layer table row")
    return text
