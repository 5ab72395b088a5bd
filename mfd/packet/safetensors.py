"""The safetensors file form, in and out: no torch, no copy.

    | u64 header bytes | header: JSON, blanks at its end | tensor | tensor | ...
    header = {name: {"dtype": , "shape": , "data_offsets": [first, last + 1]}, "__metadata__": ...}

Rules of this file: whatever the bytes, a reader gives tensors or one PacketError; every length is
checked before it is used. Tensors borrow the buffer.
Source: the format's own description, github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from mfd.packet.errors import Fault, PacketError
from mfd.packet.given import as_view, check_map
from mfd.packet.limits import NAME_BYTES_MAX, OBJECT_BYTES_MAX, RANK_MAX, TENSORS_MAX
from mfd.packet.tensors import DTYPES, Buffer, Tensor, named_tensor

__all__ = ["SafeTensors", "map_safetensors", "read_safetensors", "write_safetensors"]

LENGTH_BYTES = 8  # u64 at the start
HEADER_BYTES_MAX = 1 << 20  # ten thousand tensors; JSON takes about 30 times its size in memory
HEADER_ALIGN = 8
METADATA = "__metadata__"
FOREIGN = ("c32", "c128", "f4_e2m1fn_x2")  # safetensors has nothing for these
# As a rule it has our names in capitals.
RENAMED = {"f8_e4m3fn": "F8_E4M3", "f8_e8m0fnu": "F8_E8M0"}
THEIRS = {name: RENAMED.get(name, name.upper()) for name in DTYPES if name not in FOREIGN}
OURS = {theirs: ours for ours, theirs in THEIRS.items()}


@dataclass(frozen=True, slots=True)
class SafeTensors:
    """The content of a file: tensors in the order in which they lie, and the author's notes."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def aliases(self) -> dict[str, str]:
        """Names that stand for the tensor of another: by custom they are kept as metadata."""
        return {
            name: kept
            for name, kept in self.metadata.items()
            if kept in self.tensors and name not in self.tensors
        }


def map_safetensors(path: str | Path) -> SafeTensors:
    """Read a file where it lies: its tensors are pages of it, read when they are touched.

    The file must not be cut short while they are in use.
    Raises: OSError; PacketError for a file that is not sound.
    """
    with Path(path).open("rb") as file:
        try:
            mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            raise PacketError(Fault.TRUNCATED, "safetensors length") from None
    return read_safetensors(mapped)


def read_safetensors(buffer: Buffer | mmap) -> SafeTensors:
    """View the tensors of a safetensors file without copying them.

    Raises: PacketError, whatever the bytes.
    """
    view = as_view(buffer, "a safetensors file")
    if len(view) < LENGTH_BYTES:
        raise PacketError(Fault.TRUNCATED, "safetensors length")
    header_bytes = int.from_bytes(view[:LENGTH_BYTES], "little")
    if header_bytes > HEADER_BYTES_MAX:
        raise PacketError(Fault.LIMIT, f"safetensors header of {header_bytes} bytes")
    body = view[LENGTH_BYTES + header_bytes :]
    if len(view) < LENGTH_BYTES + header_bytes:
        raise PacketError(Fault.TRUNCATED, "safetensors header")
    header = _read_header(bytes(view[LENGTH_BYTES : LENGTH_BYTES + header_bytes]))
    metadata = _read_metadata(header.pop(METADATA, {}))
    if len(header) > TENSORS_MAX:
        raise PacketError(Fault.LIMIT, f"{len(header)} tensors in a safetensors file")
    rows = sorted((_read_row(name, row) for name, row in header.items()), key=lambda row: row[:2])
    tensors: dict[str, Tensor] = {}
    end = 0
    for first, last, name, dtype, shape in rows:
        if first != end:
            raise PacketError(Fault.ORDER, f"tensor {name!r} begins at {first}, not {end}")
        if last > len(body):
            raise PacketError(Fault.TRUNCATED, f"tensor {name!r}")
        tensors[name] = Tensor(dtype, shape, body[first:last])
        end = last
    if end != len(body):
        raise PacketError(Fault.TRAILING, f"{len(body) - end} bytes after the last tensor")
    return SafeTensors(tensors, metadata)


def _read_header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as exc:  # nested too deep for the parser
        if isinstance(exc, PacketError):
            raise
        raise PacketError(Fault.FIELD, "safetensors header is not JSON") from exc
    if not isinstance(header, dict):
        raise PacketError(Fault.FIELD, "safetensors header is no map")
    return header


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise PacketError(Fault.ORDER, "a name twice in a safetensors header")
    return found


def _read_metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise PacketError(Fault.FIELD, "safetensors metadata")
    return value


def _read_row(name: str, row: object) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Return first, last + 1, name, dtype, shape of one tensor."""
    where = f"safetensors header, tensor {name[:80]!r}"
    try:
        name_bytes = len(name.encode())
    except UnicodeEncodeError as exc:  # JSON can spell halves of characters
        raise PacketError(Fault.FIELD, where) from exc
    if not 0 < name_bytes <= NAME_BYTES_MAX:
        raise PacketError(Fault.LIMIT, where)
    if not isinstance(row, dict) or row.keys() != {"dtype", "shape", "data_offsets"}:
        raise PacketError(Fault.FIELD, where)
    theirs, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(theirs, str) or theirs not in OURS:
        raise PacketError(Fault.DTYPE, where)
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise PacketError(Fault.SHAPE, where)
    if len(shape) > RANK_MAX:
        raise PacketError(Fault.LIMIT, where)
    dtype = OURS[theirs]
    first, last = offsets
    if last - first != DTYPES[dtype][0] * prod(shape):
        raise PacketError(Fault.SHAPE, where)
    return first, last, name, dtype, tuple(shape)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size <= OBJECT_BYTES_MAX for size in value
    )


def write_safetensors(
    tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> list[Buffer]:
    """Return a safetensors file as parts to be written one after the other; nothing is copied.

    Raises: ValueError for what the form cannot carry; TypeError as Tensor.of.
    """
    check_map(tensors, "a safetensors file", "tensor names to arrays")
    found = {name: named_tensor(name, value) for name, value in tensors.items()}
    for name, tensor in found.items():
        if tensor.dtype not in THEIRS:
            raise ValueError(f"safetensors has no {tensor.dtype} ({name}): save as .mfd instead")
        if name == METADATA or not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            raise ValueError(f"safetensors cannot name a tensor {name[:80]!r}")
    # The widest first, so that every tensor stays aligned.
    widths = {name: DTYPES[tensor.dtype][0] for name, tensor in found.items()}
    found = {name: found[name] for name in sorted(found, key=lambda n: (-widths[n], n))}
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in found.items():
        end = offset + tensor.data.nbytes
        row = {"dtype": THEIRS[tensor.dtype], "shape": tensor.shape, "data_offsets": [offset, end]}
        header[name] = row
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGN)
    if len(text) > HEADER_BYTES_MAX:
        raise ValueError(
            f"{len(found)} tensors need a header of {len(text)} bytes; safetensors files are read "
            f"with one of at most {HEADER_BYTES_MAX}: save as .mfd instead"
        )
    length = len(text).to_bytes(LENGTH_BYTES, "little")
    return [length, text, *(tensor.data for tensor in found.values())]
