"""Which encoding an object should travel in: the one that is there first.

    seconds = raw / split + coded / code  +  8 * encoded / link  +  raw / merge + coded / decode

with `fit` and `unfit` in place of both terms for the compact forms, which are tried on the probe.

Rules of this file: no clock. Sizes come from a probe of at most half a MiB, speeds from the caller;
those below were measured by benchmarks/codec.py, whose last table prints a machine's own.
Source: spec/rationale.md, "Choosing an encoding".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from mfd.packet.carried import CarriedObject
from mfd.packet.chunks import COMPACT, NEEDS_BASE, Encoding, coded_share, encode_chunk
from mfd.packet.given import as_view, check_link
from mfd.packet.layout import Items, Layout
from mfd.packet.packet import Packet, bases_of, carried
from mfd.packet.planes import native
from mfd.packet.tensors import Buffer

__all__ = ["NATIVE", "NUMPY", "Choice", "Speeds", "choose", "choose_all"]

PROBES = 8
PROBE_BYTES = 64 << 10
ALIGN = 8  # the widest element, so that a probe begins where an element does


@dataclass(frozen=True, slots=True)
class Speeds:
    """What a machine does in bytes per second, one thread, both ends alike."""

    split: float  # raw bytes into planes, each probed, and together again as one body
    split_delta: float
    code: float  # bytes of planes into the entropy coder
    merge: float  # planes into raw bytes
    merge_delta: float
    decode: float  # bytes of planes out of the entropy coder
    fit: float  # raw bytes into codes and scales, or into changes
    unfit: float


NATIVE = Speeds(10e9, 8e9, code=1e9, merge=15e9, merge_delta=10e9, decode=3e9, fit=1e9, unfit=2e9)
NUMPY = Speeds(4e9, 2e9, code=1e9, merge=4e9, merge_delta=2e9, decode=3e9, fit=1e9, unfit=2e9)


@dataclass(frozen=True, slots=True)
class Choice:
    """An encoding, what each one was expected to cost, and a sentence for people."""

    encoding: Encoding
    seconds: Mapping[Encoding, float]  # encode + transfer + decode of the whole object
    encoded_bytes: Mapping[Encoding, int]
    why: str


@dataclass(frozen=True, slots=True)
class _Piece:
    raw: memoryview
    base: memoryview
    items: Items


def choose_all(
    packet: Packet, *, link_bps: float, base: Packet | None = None, speeds: Speeds | None = None
) -> dict[bytes, Choice]:
    """Choose for each object of a packet, by digest; `encode` takes what this gives.

    `base` is a packet that the receiver holds.
    Raises: ValueError for a link that carries nothing; PacketError for a base that is not sound.
    """
    check_link(link_bps)
    bases = bases_of(packet, base)
    chosen = {}
    for item in carried(packet):
        parts = (item.buffer(),) if isinstance(item, CarriedObject) else item.parts
        under = bases.get(item.digest)
        raw = None if under is None else under.raw
        chosen[item.digest] = choose(*parts, link_bps=link_bps, base=raw, speeds=speeds)
    return chosen


def choose(
    *parts: Buffer, link_bps: float, base: Buffer | None = None, speeds: Speeds | None = None
) -> Choice:
    """Choose for an object, given as consecutive parts, and a link of so many bits per second.

    `base` is a whole object that the receiver holds. `speeds` are those of the kernel in use
    unless told.
    Raises: ValueError for an object of no bytes or a link that carries nothing.
    """
    check_link(link_bps)
    total = sum(as_view(part, "an object").nbytes for part in parts)
    if not total:
        raise ValueError("an object of no bytes: nothing to choose")
    speeds = speeds or (NATIVE if native else NUMPY)
    pieces = _pieces(parts, total, memoryview(base or b"").cast("B"))
    probed = sum(len(piece.raw) for piece in pieces)
    seconds = {Encoding.RAW: 8 * total / link_bps}
    sizes = {Encoding.RAW: total}
    for encoding in (Encoding.PLANES, Encoding.DELTA, *COMPACT):
        if encoding in NEEDS_BASE and base is None:
            continue
        encoded, coded, fits = _probe(pieces, encoding, based=base is not None)
        if encoding in COMPACT and not fits:
            continue
        sizes[encoding] = round(encoded / probed * total)
        fixed = _seconds_per_byte(encoding, coded / probed, speeds)
        seconds[encoding] = fixed * total + 8 * sizes[encoding] / link_bps
    best = min(seconds, key=lambda e: (seconds[e], e))
    return Choice(best, seconds, sizes, _why(best, seconds, sizes, link_bps))


def _pieces(parts: Sequence[Buffer], total: int, base: memoryview) -> list[_Piece]:
    """Cut probes from the parts that lie at even distances in the object."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    starts = list(accumulate((len(view) for view in views), initial=0))
    layout = Layout(views[0], total)
    pieces = {}
    for probe in range(PROBES):
        place = (2 * probe + 1) * total // (2 * PROBES)
        index = bisect_right(starts, place) - 1
        view, start = views[index], starts[index]
        first = min(place - start, max(0, len(view) - PROBE_BYTES)) // ALIGN * ALIGN
        at = start + first
        raw = view[first : first + PROBE_BYTES]
        pieces[at] = _Piece(raw, base[at : at + len(raw)], layout.items(at, at + len(raw)))
    return list(pieces.values())


def _probe(pieces: Sequence[_Piece], encoding: Encoding, *, based: bool) -> tuple[int, float, bool]:
    """Return the encoded bytes of all pieces, how many an entropy coder handled, whether one fits.

    A piece fits whose content is in the form that was asked for.
    """
    encoded, coded, fits = 0, 0.0, False
    for piece in pieces:
        used, body = encode_chunk(
            piece.raw,
            item_bytes=piece.items.width,
            encoding=encoding,
            base=piece.base if based else None,
            floats=piece.items.floats,
            runs=piece.items.runs,
        )
        encoded += len(body)
        coded += coded_share(used, body) * len(piece.raw)
        fits = fits or used is encoding
    return encoded, coded, fits


def _seconds_per_byte(encoding: Encoding, coded_share: float, speeds: Speeds) -> float:
    if encoding in COMPACT:
        return 1 / speeds.fit + 1 / speeds.unfit
    delta = encoding is Encoding.DELTA
    split = speeds.split_delta if delta else speeds.split
    merge = speeds.merge_delta if delta else speeds.merge
    return 1 / split + 1 / merge + coded_share * (1 / speeds.code + 1 / speeds.decode)


def _why(
    best: Encoding,
    seconds: Mapping[Encoding, float],
    sizes: Mapping[Encoding, int],
    link_bps: float,
) -> str:
    share = sizes[best] / sizes[Encoding.RAW]
    others = [f"{_time(s)} {_name(e)}" for e, s in seconds.items() if e is not best]
    if Encoding.DELTA not in seconds:
        others.append("no base for a delta")
    return (
        f"{_name(best)}, {share:.0%} of the bytes: {_time(seconds[best])} to encode, send at "
        f"{link_bps / 1e6:,.6g} Mbit/s and decode, against {', '.join(others)}"
    )


def _name(encoding: Encoding) -> str:
    return encoding.name.lower()


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
