"""`mfd packet split` and `join`: one file as several, and the very same bytes back.

    by layer    NAME.2-of-3.mfd    packets with one object each, which can be verified alone
    by bytes    NAME.mfd.2-of-3    slices of the file; `cat` in order joins them too

Rules of this file: objects are moved as they lie, never encoded anew; a joined file appears only
when it is whole and right.
Source: spec/packet.md, section "Packet and envelope" (P-55).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mfd.cli.errors import CommandError, Misuse
from mfd.cli.packets import check, map_file, open_packet
from mfd.cli.saving import write_whole
from mfd.cli.slices import whose_damage
from mfd.cli.view import data_size, print_json, print_table
from mfd.packet.envelope import IndexEntry
from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer, object_digest
from mfd.packet.packet import Packet, decode, head_bytes, pack_head

__all__ = ["join", "split"]

PART_KEY = 11  # of the envelope: [number from 0, count, digest of the whole file]
PARTS_MAX = 9_999
SLICE_BYTES_MIN = 1 << 10
SLICE = re.compile(r"(.+)\.(\d+)-of-(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """One of the packets into which a file was split by layer."""

    path: Path
    packet: Packet
    view: memoryview
    number: int
    count: int
    whole: bytes  # digest of the file that was split


def split(
    path: Path, *, by: str | None, slice_bytes: int | None, out: Path | None, as_json: bool
) -> None:
    """Write a packet as several files into the folder `out`. Raises: CommandError."""
    if (by is None) == (slice_bytes is None):
        raise Misuse("say how to split: --by layer, or --chunk-bytes N")
    if by not in (None, "layer"):
        raise Misuse(f"packets are split by layer, not by {by!r}")
    folder = path.parent if out is None else out
    packet, view = _map(path)
    check(path, packet)
    if PART_KEY in packet.envelope.extra:
        raise CommandError(f"{path} is a part itself: join the parts first")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as exc:
        raise Misuse(f"--out {folder} cannot be made: {exc.strerror}") from exc
    made = _slices(path, view, slice_bytes) if slice_bytes else _packets(path, packet, view)
    written: list[dict[str, Any]] = []
    for name, buffers in made:
        write_whole(folder / name, buffers)
        written.append({"file": str(folder / name), "bytes": (folder / name).stat().st_size})
    if as_json:
        print_json({"source": str(path), "bytes": len(view), "parts": written})
        return
    print_table(("part", "size"), [(p["file"], data_size(p["bytes"])) for p in written], "")


def _map(path: Path) -> tuple[Packet, memoryview]:
    return open_packet(path), map_file(path)


def _slices(path: Path, view: memoryview, size: int) -> Iterator[tuple[str, list[Buffer]]]:
    count = -(-len(view) // size)
    if size < SLICE_BYTES_MIN or count > PARTS_MAX:
        raise Misuse(
            f"slices of {size} bytes: at least {SLICE_BYTES_MIN} are needed, and at most "
            f"{PARTS_MAX} slices; this file would give {count}"
        )
    for number in range(count):
        piece = view[number * size : (number + 1) * size]
        yield f"{path.name}.{_place(number, count)}", [piece]


def _place(number: int, count: int) -> str:
    return f"{number + 1:0{len(str(count))}}-of-{count}"


def _packets(path: Path, packet: Packet, view: memoryview) -> Iterator[tuple[str, list[Buffer]]]:
    whole = object_digest(view)
    regions = _regions(packet, view)
    count = max(1, len(regions))
    for number in range(count):
        carried = regions[number : number + 1]
        extra = {**packet.envelope.extra, PART_KEY: [number, count, whole]}
        index = tuple(entry for entry, _ in carried)
        try:
            head = pack_head(packet, replace(packet.envelope, index=index, extra=extra))
        except ValueError as exc:
            raise CommandError(f"{path} cannot be split: {exc}") from exc
        name = f"{path.stem}.{_place(number, count)}.mfd"
        yield name, [head, *(region for _, region in carried)]


def _regions(packet: Packet, view: memoryview) -> list[tuple[IndexEntry, memoryview]]:
    """Every object as it lies in the file."""
    at = head_bytes(view)
    regions = []
    for entry in packet.envelope.index:
        regions.append((entry, view[at : at + entry.encoded_bytes]))
        at += entry.encoded_bytes
    return regions


def join(paths: list[Path], out: Path, *, as_json: bool) -> None:
    """Write the file whose parts these are, given in any order. Raises: CommandError."""
    if all(SLICE.fullmatch(path.name) for path in paths):
        _join_slices(paths, out)
    else:
        _join_packets([_part(path) for path in paths], out)
    size = out.stat().st_size
    if as_json:
        print_json({"out": str(out), "bytes": size, "parts": len(paths)})
    else:
        print(f"{out}: {data_size(size)} from {len(paths)} parts, sound")


def _join_slices(paths: list[Path], out: Path) -> None:
    names = [match for path in paths if (match := SLICE.fullmatch(path.name))]
    count = int(names[0][3])
    for path, match in zip(paths, names, strict=True):
        if (match[1], int(match[3])) != (names[0][1], count):
            raise CommandError(f"{paths[0]} and {path} are parts of different packets")
        if not 1 <= int(match[2]) <= count <= PARTS_MAX:
            raise CommandError(
                f"{path} is named as part {match[2]} of {count}: a packet has at most {PARTS_MAX} "
                "parts, numbered from 1"
            )
    numbered = sorted((int(match[2]) - 1, path) for path, match in zip(paths, names, strict=True))
    _require_all(numbered, count)
    slices = [map_file(path) for _, path in numbered]

    def sound(draft: Path) -> None:
        joined = map_file(draft)
        try:
            decode(joined).check()
        except PacketError as exc:
            files = [path for _, path in numbered]
            where = whose_damage(joined, files, [len(part) for part in slices])
            raise CommandError(
                f"the parts do not join to a sound packet: {where or exc}; get that part again"
            ) from exc

    write_whole(out, slices, sound)


def _require_all(numbered: list[tuple[int, Path]], count: int) -> None:
    """Refuse what is not every number below `count` once, in order. Raises: CommandError."""
    for (number, before), (again, path) in pairwise(numbered):
        if number == again:
            raise CommandError(f"{before} and {path} are the same part")
    found = {number for number, _ in numbered}
    if absent := sorted(set(range(count)) - found):
        first = ", ".join(str(number + 1) for number in absent[:9])
        raise CommandError(f"{len(absent)} of {count} parts are missing: {first}")


def _part(path: Path) -> Part:
    packet, view = _map(path)
    match packet.envelope.extra.get(PART_KEY):
        case [int() as number, int() as count, bytes() as whole] if (
            0 <= number < count <= PARTS_MAX
        ):
            return Part(path, packet, view, number, count, whole)
        case _:
            raise CommandError(f"{path} is no part of a split packet")


def _join_packets(parts: list[Part], out: Path) -> None:
    parts = sorted(parts, key=lambda part: part.number)
    first = parts[0]
    for part in parts[1:]:
        same = (part.count, part.whole, part.packet.manifest_bytes, part.packet.signature)
        if same != (first.count, first.whole, first.packet.manifest_bytes, first.packet.signature):
            raise CommandError(f"{first.path} and {part.path} are parts of different packets")
    _require_all([(part.number, part.path) for part in parts], first.count)
    regions = [region for part in parts for region in _regions(part.packet, part.view)]
    envelope = first.packet.envelope
    extra = {key: value for key, value in envelope.extra.items() if key != PART_KEY}
    index = tuple(entry for entry, _ in regions)
    try:
        head = pack_head(first.packet, replace(envelope, index=index, extra=extra))
    except ValueError as exc:
        raise CommandError(f"the parts do not join: {exc}") from exc
    buffers: list[Buffer] = [head, *(region for _, region in regions)]
    if object_digest(*buffers) != first.whole:
        for part in parts:
            check(part.path, part.packet)
        raise CommandError("the parts do not give the file that was split: an envelope was changed")
    write_whole(out, buffers)
