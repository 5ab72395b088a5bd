"""Which slice of a packet is damaged, told from what is wrong with the packet that they give.

Rules of this file: it names only slices in which the damage can lie.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from mfd.packet.carried import padding, table_bytes
from mfd.packet.damage import Found, survey
from mfd.packet.errors import Fault, PacketError
from mfd.packet.packet import PREAMBLE, head_bytes

__all__ = ["whose_damage"]

NAMED_MAX = 3

_Bad = tuple[int, int, str]  # first byte, one after the last, what is wrong there


def whose_damage(joined: memoryview, files: Sequence[Path], sizes: Sequence[int]) -> str:
    """Return in a sentence which of `files`, joined in this order, is damaged; empty: unknown."""
    if told := _odd_sizes(files, sizes):
        return told
    ends = list(accumulate(sizes))
    told_of: dict[tuple[Path, ...], str] = {}
    for first, last, fault in _faults(joined):
        low = bisect_right(ends, first)
        high = bisect_left(ends, max(last, first + 1))
        told_of.setdefault(tuple(files[low : high + 1]), fault)
    sure = {among[0] for among in told_of if len(among) == 1}
    parts = [
        f"{among[0]} is damaged: {fault}"
        if len(among) == 1
        else f"one of {among[0]} to {among[-1]} is damaged: {fault}"
        for among, fault in told_of.items()
        if among and (len(among) == 1 or not sure.intersection(among))
    ]
    more = [f"and {len(parts) - NAMED_MAX} more"] if len(parts) > NAMED_MAX else []
    return "; ".join([*parts[:NAMED_MAX], *more])


def _odd_sizes(files: Sequence[Path], sizes: Sequence[int]) -> str:
    """All slices but the last have one size."""
    if len(files) < 2:
        return ""
    usual = Counter(sizes[:-1]).most_common(1)[0][0]
    for path, size in zip(files[:-1], sizes[:-1], strict=True):
        if size != usual:
            return f"{path} is damaged: it has {size} bytes and not {usual}"
    if sizes[-1] > usual:
        return f"{files[-1]} is damaged: it has {sizes[-1]} bytes, more than {usual}"
    return ""


def _faults(joined: memoryview) -> Iterator[_Bad]:
    """Everything that is wrong, with the bytes in which it lies."""
    try:
        found = survey(joined)
    except PacketError as exc:
        try:
            end = head_bytes(joined)
        except PacketError:
            end = PREAMBLE.size
        yield 0, min(end, len(joined)), f"the headers: {exc.fault.value}"
        return
    for item in found.objects:
        yield from _of_object(item)
    if found.beyond:
        fault = Fault.TRUNCATED if found.beyond < 0 else Fault.TRAILING
        yield len(joined) - 1, len(joined), fault.value


def _of_object(item: Found) -> Iterator[_Bad]:
    name = f"layer {item.layers[0]!r}" if item.layers else "the plan"
    if item.fault is not None:
        end = item.offset + table_bytes(item.entry)
        yield item.offset, end, f"{name}: {item.fault.fault.value}"
    for bad in item.bad:
        size = item.rows[bad.index].body_bytes
        end = bad.offset + size + len(padding(size))
        yield bad.offset, end, f"{name}, chunk {bad.index}: {bad.fault.value}"
