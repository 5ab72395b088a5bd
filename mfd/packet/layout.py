"""Where the elements of a layer object lie, seen from a piece of its bytes: for encoders alone.

Rules of this file: the table at the start of an object is enough. Nothing here is needed to decode,
and an object that is no layer has a layout too: bytes.
Source: spec/packet.md, sections "Layer object" and "Chunk encodings" (P-80, P-81).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import prod

from mfd.packet.errors import PacketError
from mfd.packet.limits import ALIGN_BYTES, CHUNK_BYTES
from mfd.packet.objects import DTYPES, HEAD_BYTES, Buffer, read_table

__all__ = ["BLOCK", "BYTES", "Items", "Layout", "Run", "item_bytes_at", "item_bytes_of"]

BLOCK = 64  # elements under one scale
RUNS_MAX = 1_024  # in one chunk (P-80)
RUN_ITEMS_MIN = BLOCK  # a shorter run would save less than its row costs to read
RUN_TYPES = {"f32": 4, "f16": 2, "bf16": 2}  # what can be committed in blocks
# Sign, exponent, mantissa: not two numbers in a byte, nor an exponent alone.
FLOATS = {n for n in DTYPES if n[0] in "fc" or n == "bf16"} - {"f4_e2m1fn_x2", "f8_e8m0fnu"}
# Complex numbers are pairs of floats.
ITEM_BYTES = {
    name: size // 2 if name.startswith("c") else size for name, (size, _) in DTYPES.items()
}


@dataclass(frozen=True, slots=True)
class Run:
    """Elements of one type side by side in a chunk; blocks of 64 are counted from its start."""

    start: int  # byte in the chunk
    dtype: str  # a key of RUN_TYPES
    items: int


@dataclass(frozen=True, slots=True)
class Items:
    """What an encoder is told of the elements in a chunk; wrong hints cost size alone."""

    width: int = 1  # bytes of most elements: 1, 2, 4 or 8
    floats: bool = True  # whether those are floats
    runs: tuple[Run, ...] = ()  # whole blocks of tensors that may have been committed in blocks


BYTES = Items(1, False)


class Layout:
    """The tensors of a layer object by their place in it.

    The first bytes up to the end of the table are enough where `raw_bytes` tells the object's size.
    """

    def __init__(self, layer: Buffer, raw_bytes: int | None = None) -> None:
        self.raw_bytes = memoryview(layer).nbytes if raw_bytes is None else raw_bytes
        self._starts: list[int] = []
        self._tensors: list[tuple[int, int, str]] = []  # first byte, last + 1, dtype
        try:
            table_bytes, rows = read_table(layer)
        except PacketError:
            return
        offset = HEAD_BYTES + table_bytes
        for _, dtype, shape in rows:
            offset += -offset % ALIGN_BYTES
            end = min(offset + DTYPES[dtype][0] * prod(shape), self.raw_bytes)
            if offset < end:
                self._starts.append(offset)
                self._tensors.append((offset, end, dtype))
            offset = max(offset, end)

    @property
    def chunks(self) -> int:
        """How many raw chunks the object has."""
        return -(-self.raw_bytes // CHUNK_BYTES)

    def chunk(self, index: int) -> Items:
        """Describe one raw chunk."""
        start = index * CHUNK_BYTES
        return self.items(start, min(start + CHUNK_BYTES, self.raw_bytes))

    def items(self, first: int, last: int) -> Items:
        """Describe the bytes from `first` to `last` - 1 of the object, as if they were a chunk."""
        count: dict[int, int] = {}  # bytes by the width of their elements
        floats: dict[int, int] = {}
        runs: list[Run] = []
        index = max(bisect_right(self._starts, first) - 1, 0)
        while index < len(self._tensors) and self._tensors[index][0] < last:
            start, end, dtype = self._tensors[index]
            index += 1
            here = min(end, last) - max(start, first)
            if here <= 0:
                continue
            width = ITEM_BYTES[dtype]
            count[width] = count.get(width, 0) + here
            if dtype in FLOATS:
                floats[width] = floats.get(width, 0) + here
            if dtype in RUN_TYPES and (run := _run(start, end, dtype, (first, last))):
                runs.append(run)
        if not count:
            return BYTES
        width = max(count, key=lambda w: (count[w], w))
        if len(runs) > RUNS_MAX:
            longest = sorted(runs, key=lambda run: -run.items)[:RUNS_MAX]
            runs = sorted(longest, key=lambda run: run.start)
        return Items(width, 2 * floats.get(width, 0) >= count[width], tuple(runs))


def _run(start: int, end: int, dtype: str, piece: tuple[int, int]) -> Run | None:
    """Return the whole blocks of a tensor that lie in a piece of the object."""
    first, last = piece
    size = RUN_TYPES[dtype]
    block = BLOCK * size
    begin = start + -(-max(first - start, 0) // block) * block
    stop = end if end <= last else start + (last - start) // block * block
    items = (stop - begin) // size
    return Run(begin - first, dtype, items) if items >= RUN_ITEMS_MIN else None


def item_bytes_of(layer: Buffer, raw_bytes: int | None = None) -> list[int]:
    """Return, for each chunk of a layer object, the width that holds most of its bytes.

    An object that is no layer gives 1 throughout.
    """
    layout = Layout(layer, raw_bytes)
    return [layout.chunk(index).width for index in range(layout.chunks)]


def item_bytes_at(layer: Buffer, chunk: int) -> int:
    """Return the element width for one chunk of a layer object, as `item_bytes_of` does for all."""
    return Layout(layer).chunk(chunk).width
