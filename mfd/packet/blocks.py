"""Chunks that were committed in blocks <-> their codes and scales: INT8, INT4 and SIGN.

    | u8 based | u8 zero | u16 runs | runs | heads | planes of scales | plane of codes | rest |
    run = | u32 first byte | u8 type | u24 elements |

Rules of this file: lossless. An encoder finds codes and scales by committing again and compares
every bit of the result; what does not come back stays as it is. Work is bounded by the size of the
chunk and RUNS_MAX.
Source: spec/packet.md, sections "Chunk encodings" (P-80 to P-83) and "Committing with loss".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

import numpy as np

from mfd.packet.coder import read_planes, write_planes
from mfd.packet.delta import Array, fitted
from mfd.packet.errors import Fault, PacketError
from mfd.packet.floats import narrow, widen
from mfd.packet.layout import BLOCK, RUN_TYPES, RUNS_MAX, Run
from mfd.packet.quantise import (
    GRIDS,
    codes_of,
    delta_scales,
    largest,
    mean,
    sign_scales,
    sign_steps,
)
from mfd.packet.tensors import DTYPES, Buffer

__all__ = ["FORMS", "decode_blocks", "encode_blocks"]

HEAD = Struct("<BBH")
ROW = Struct("<II")  # first byte; type, and elements x 256
TYPES = ("f32", "f16", "bf16")
ROWS = (1 << 15) // BLOCK  # blocks at a time: three scratch arrays stay in a cache of 512 KiB


@dataclass(frozen=True, slots=True)
class Form:
    """How codes and scales of one encoding lie in planes."""

    way: str  # of the grids in quantise.py
    code_bits: int
    scale_planes: int
    always_based: bool = False

    def code_bytes(self, items: int) -> int:
        """Return the size of the plane of so many codes."""
        return -(-items * self.code_bits // 8)


FORMS = {3: Form("int8", 8, 2), 4: Form("int4", 4, 2), 5: Form("delta-sign", 1, 1, True)}


def encode_blocks(
    raw: Buffer, number: int, runs: Sequence[Run], base: Buffer | None = None
) -> bytes | None:
    """Return the body of a raw chunk in form `number`, or None where no run is representable in it.

    With a base, values are tried both upon it and by themselves; a body is one or the other.
    """
    form, view = FORMS[number], memoryview(raw).cast("B")
    tries: list[memoryview | None] = [] if form.always_based else [None]
    if base is not None:
        tries.append(fitted(base, len(view)))
    return next((body for under in tries if (body := _encode(view, form, runs, under))), None)


def _encode(
    view: memoryview, form: Form, runs: Sequence[Run], base: memoryview | None
) -> bytes | None:
    kept: list[Run] = []
    scales: list[Array] = []
    codes: list[Array] = []
    rest: list[memoryview] = []
    at = 0
    for run in runs:
        found = _fit(view, form, run, base)
        if found is not None:
            kept.append(run)
            scales.append(found[0])
            codes.append(found[1])
            rest.append(view[at : run.start])
            at = run.start + run.items * RUN_TYPES[run.dtype]
    if not kept:
        return None
    rest.append(view[at:])
    rows = [ROW.pack(run.start, TYPES.index(run.dtype) | run.items << 8) for run in kept]
    planes = [*_pack_scales(np.concatenate(scales), form), _pack_codes(np.concatenate(codes), form)]
    head = HEAD.pack(base is not None, 0, len(kept))
    return b"".join([head, *rows, *write_planes(planes), *rest])


def _fit(
    view: memoryview, form: Form, run: Run, base: memoryview | None
) -> tuple[Array, Array] | None:
    """Return scales (f32) and codes (i8) that give a run back to the bit, or None."""
    if base is not None and run.dtype != "f32":
        return None
    values = _elements(view, run)
    under = None if base is None else _elements(base, run)
    blocks = -(-run.items // BLOCK)
    scales, codes = np.empty(blocks, "<f4"), np.empty(blocks * BLOCK, np.int8)
    for row in range(0, blocks, ROWS):
        part = slice(row * BLOCK, (row + ROWS) * BLOCK)
        here = codes[part]
        found = _fit_rows(values[part], None if under is None else under[part], form, run.dtype)
        if found is None:
            return None
        scales[row : row + ROWS], here[:] = found[0], found[1].reshape(-1)
    return scales, codes[: run.items]


def _fit_rows(raw: Array, base: Array | None, form: Form, dtype: str) -> tuple[Array, Array] | None:
    values = _rows(widen(raw, dtype))
    scratch = np.empty_like(values)
    with np.errstate(all="ignore"):
        if base is None:
            peaks = largest(values, scratch)
            if not np.isfinite(peaks).all():
                return None
            scales = GRIDS[form.way, dtype].scales(peaks)
            codes_of(values, scales, scratch)
            back = scratch * scales[:, None]
        else:
            under = _rows(base)
            deltas = values - under
            peaks, heights = largest(deltas, scratch), largest(under, scratch)
            if not (np.isfinite(peaks).all() and np.isfinite(heights).all()):
                return None
            if form.always_based:
                means = mean(deltas, scratch, _counts(raw.size, len(values)))
                scales = sign_scales(means, heights)
                sign_steps(deltas, scales, scratch)
                back = under + scratch
                np.copysign(np.float32(1), scratch, out=scratch)
            else:
                scales = delta_scales(peaks, heights, GRIDS[form.way, "f32"])
                codes_of(deltas, scales, scratch)
                back = under + scratch * scales[:, None]
        codes = scratch.astype(np.int8)
        found = narrow(back.reshape(-1)[: raw.size], dtype)
    width = f"<u{raw.itemsize}"
    return (scales, codes) if np.array_equal(found.view(width), raw.view(width)) else None


def _counts(items: int, blocks: int) -> Array:
    counts = np.full(blocks, BLOCK, "<f4")
    counts[-1] = items - (blocks - 1) * BLOCK
    return counts


def _rows(flat: Array) -> Array:
    """View as rows of 64; the last one is filled with zeros, which no scale or sum notices."""
    blocks = -(-flat.size // BLOCK)
    if flat.size == blocks * BLOCK:
        return flat.reshape(blocks, BLOCK)
    padded = np.zeros(blocks * BLOCK, flat.dtype)
    padded[: flat.size] = flat
    return padded.reshape(blocks, BLOCK)


def _elements(view: memoryview, run: Run) -> Array:
    size, code = DTYPES[run.dtype]
    return np.frombuffer(view[run.start : run.start + run.items * size], code)


def _pack_scales(scales: Array, form: Form) -> list[Array]:
    bits = scales.view("<u4")
    if form.scale_planes == 1:
        return [(bits >> 23).astype(np.uint8)]
    return [(bits >> shift).astype(np.uint8) for shift in (16, 24)]


def _pack_codes(codes: Array, form: Form) -> Array:
    if form.code_bits == 8:
        return codes.view(np.uint8)
    if form.code_bits == 1:
        return np.packbits(codes < 0, bitorder="little")
    nibbles = codes.view(np.uint8) & 15
    if nibbles.size % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    packed: Array = nibbles[::2] | nibbles[1::2] << 4
    return packed


def decode_blocks(body: memoryview, number: int, out: memoryview, base: Buffer | None) -> None:
    """Write the raw chunk whose body is in form `number` to `out`, which is as long as the chunk.

    Raises: PacketError with Fault.ENCODING or Fault.BASE, whatever the body.
    """
    form = FORMS[number]
    if len(body) < HEAD.size:
        raise PacketError(Fault.ENCODING, "head of the blocks")
    based, zero, count = HEAD.unpack_from(body)
    if based > 1 or zero or not 0 < count <= RUNS_MAX or based < form.always_based:
        raise PacketError(Fault.ENCODING, "head of the blocks")
    if based and base is None:
        raise PacketError(Fault.BASE, "a chunk that builds upon another")
    at = HEAD.size + ROW.size * count
    if len(body) < at:
        raise PacketError(Fault.ENCODING, "runs of the blocks")
    runs, covered = _read_runs(body[HEAD.size : at], len(out), based)
    blocks = sum(-(-run.items // BLOCK) for run in runs)
    items = sum(run.items for run in runs)
    sizes = [blocks] * form.scale_planes + [form.code_bytes(items)]
    planes, rest = read_planes(body, at, sizes, len(out) - covered)
    scales = _read_scales(planes[:-1])
    codes = _read_codes(planes[-1], form, items)
    under = fitted(base, len(out)) if based and base is not None else None
    _put(runs, scales, codes, (out, rest, under))


def _read_runs(rows: memoryview, raw_bytes: int, based: int) -> tuple[list[Run], int]:
    """Return the runs and how many bytes they cover."""
    runs: list[Run] = []
    end = covered = 0
    # iter_unpack, left by an exception, has crashed CPython 3.11: row by row instead.
    for at in range(0, len(rows), ROW.size):
        start, packed = ROW.unpack_from(rows, at)
        kind, items = packed & 255, packed >> 8
        if kind >= (1 if based else len(TYPES)) or not items:
            raise PacketError(Fault.ENCODING, "type or size of a run")
        size = RUN_TYPES[TYPES[kind]]
        if start < end or start % size or start + items * size > raw_bytes:
            raise PacketError(Fault.ENCODING, "place of a run")
        end = start + items * size
        covered += items * size
        runs.append(Run(start, TYPES[kind], items))
    return runs, covered


def _read_scales(planes: Sequence[Array]) -> Array:
    """Return scales as f32: finite, not negative."""
    if len(planes) == 1:
        bits = planes[0].astype("<u4") << 23
    else:
        bits = planes[0].astype("<u4") << 16 | planes[1].astype("<u4") << 24
    if (bits >= 0x7F800000).any():
        raise PacketError(Fault.ENCODING, "a scale that is negative or not finite")
    scales: Array = bits.view("<f4")
    return scales


def _read_codes(plane: Array, form: Form, items: int) -> Array:
    """Return the codes as i8."""
    if form.code_bits == 1:
        bits = np.unpackbits(plane, bitorder="little")
        codes: Array = 1 - 2 * bits.view(np.int8)
        spare = bits[items:].any()
    elif form.code_bits == 4:
        codes = np.empty(2 * plane.size, np.int8)
        signed = plane.view(np.int8)
        codes[::2], codes[1::2] = (signed << 4) >> 4, signed >> 4
        spare = codes[items:].any()
    else:
        codes, spare = plane.view(np.int8), np.False_
    codes = codes[:items]
    if spare or (form.code_bits > 1 and codes.min() == -(1 << (form.code_bits - 1))):
        raise PacketError(Fault.ENCODING, "a code out of its range")
    return codes


def _put(
    runs: Sequence[Run],
    scales: Array,
    codes: Array,
    where: tuple[memoryview, memoryview, memoryview | None],
) -> None:
    """Write the elements of all runs, and the rest between them."""
    out, rest, base = where
    at = block = item = taken = 0
    for run in runs:
        gap = run.start - at
        out[at : run.start] = rest[taken : taken + gap]
        taken += gap
        blocks = -(-run.items // BLOCK)
        target = np.frombuffer(out, DTYPES[run.dtype][1], run.items, run.start)
        here = scales[block : block + blocks], codes[item : item + run.items]
        _fill(target, *here, run.dtype, None if base is None else _elements(base, run))
        at = run.start + run.items * RUN_TYPES[run.dtype]
        block += blocks
        item += run.items
    out[at:] = rest[taken:]


def _fill(target: Array, scales: Array, codes: Array, dtype: str, base: Array | None) -> None:
    step = ROWS * BLOCK
    for start in range(0, target.size, step):
        part = slice(start, start + step)
        values = _rows(codes[part].astype("<f4"))
        rows = slice(start // BLOCK, start // BLOCK + len(values))
        with np.errstate(all="ignore"):
            values *= scales[rows, None]
            flat = values.reshape(-1)[: target[part].size]
            flat += np.float32(0)  # no -0
            if base is not None:
                if not (np.isfinite(base[part]).all() and np.isfinite(flat).all()):
                    raise PacketError(Fault.ENCODING, "a base or a step that is not finite")
                flat += base[part]
            made = narrow(flat, dtype)
            exact = np.isfinite(flat).all() and (
                dtype == "f32" or np.array_equal(widen(made, dtype), flat)
            )
        if not exact:
            raise PacketError(Fault.ENCODING, "a product that its type does not hold")
        target[part] = made
