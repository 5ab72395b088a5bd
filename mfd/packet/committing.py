"""Committing with loss: the trainer rounds what it will sign, and keeps what was lost.

Rules of this file: the same tensors give the same bits on every machine. Work goes in runs that
stay in the cache. Wire encodings lose nothing; all loss is here, before a version is signed.
Source: spec/packet.md, section "Committing with loss".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from mfd.packet.floats import Array, narrow, require_subnormals, to_bf16, widen
from mfd.packet.given import check_map
from mfd.packet.quantise import (
    BLOCK,
    GRIDS,
    Grid,
    codes_of,
    delta_scales,
    dequantise,
    largest,
    mean,
    sign_scales,
    sign_steps,
)
from mfd.packet.tensors import DTYPES, Tensor, named_tensor
from mfd.packet.topk import commit_largest

__all__ = ["Committed", "Way", "commit"]

RUN = 1 << 15  # elements; three scratch arrays of them stay in a cache of 512 KiB
ROWS = RUN // BLOCK


class Way(StrEnum):
    """How to commit. The last four change a base and need one."""

    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    DELTA_INT8 = "delta-int8"
    DELTA_INT4 = "delta-int4"
    DELTA_SIGN = "delta-sign"
    TOP_K = "top-k"

    @property
    def needs_base(self) -> bool:
        """Whether the way commits a difference."""
        return self.startswith("delta-") or self is Way.TOP_K

    def commits(self, dtype: str) -> bool:
        """Whether the way touches tensors of an element type; others stay as they are."""
        return dtype == "f32" or (self.value, dtype) in GRIDS


@dataclass(frozen=True, slots=True)
class Committed:
    """What every peer will hold, and what the trainer keeps."""

    way: Way
    tensors: dict[str, Tensor]  # all of them; those that the way does not touch are borrowed
    residual: dict[str, Array]  # f32, of the tensor's shape; for the tensors that the way touches
    error_bound: dict[str, float]  # largest |tensor + residual brought along - committed| possible


def commit(
    tensors: Mapping[str, Any],
    how: Way | str,
    *,
    base: Mapping[str, Any] | None = None,
    residual: Mapping[str, Array] | None = None,
    one_in: int = 64,
) -> Committed:
    """Round tensors (each a Tensor, numpy array or torch tensor) to what `how` can express.

    `base` is the version that the delta ways and top-k change; `residual` what an earlier commit
    left (error feedback); top-k keeps one element in `one_in`. Element types and shapes stay.
    Raises: ValueError, one sentence, for what cannot be committed, such as a value that is not
    finite; TypeError for an element type that cannot travel; RuntimeError on a thread that flushes
    subnormal numbers.
    """
    way = _way(how)
    if one_in < 1:
        raise ValueError(f"top-k keeps one element in {one_in}: give a whole number above 0")
    if (base is not None) != way.needs_base:
        raise ValueError(f"{way} {'needs a base' if way.needs_base else 'takes no base'}")
    require_subnormals()
    check_map(tensors, "a layer", "tensor names to arrays")
    found = {name: named_tensor(name, value) for name, value in tensors.items()}
    touched = {name for name, tensor in found.items() if way.commits(tensor.dtype)}
    residual = residual or {}
    if strays := residual.keys() - touched:
        raise ValueError(f"residual {min(strays)!r}: {way} commits no tensor of that name")
    result = Committed(way, {}, {}, {})
    scratch = np.empty((3, ROWS, BLOCK), "<f4")
    for name, tensor in found.items():
        if name not in touched:
            result.tensors[name] = tensor
            continue
        under = _base(base or {}, name, tensor) if way.needs_base else None
        job = _Job(way, tensor, under, _residual(residual.get(name), name, tensor), one_in)
        try:
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                done = job.run(scratch)
        except FloatingPointError:
            raise ValueError(
                f"tensor {name!r} cannot be committed as {way}: it, its base or the result has a "
                f"value that is not finite or too large for {_target(way, tensor.dtype)}"
            ) from None
        result.tensors[name], result.residual[name], result.error_bound[name] = done
    return result


def _way(how: Way | str) -> Way:
    try:
        return Way(how)
    except ValueError:
        known = ", ".join(way.value for way in Way)
        raise ValueError(f"there is no way {how!r} to commit; there are {known}") from None


def _target(way: Way, dtype: str) -> str:
    return {Way.BF16: "bf16", Way.FP16: "f16"}.get(way, dtype)


def _base(base: Mapping[str, Any], name: str, tensor: Tensor) -> Array:
    if name not in base:
        raise ValueError(f"the base has no tensor {name!r}")
    under = Tensor.of(base[name])
    if (under.dtype, under.shape) != (tensor.dtype, tensor.shape):
        raise ValueError(
            f"tensor {name!r} is {tensor.dtype}{list(tensor.shape)} but "
            f"{under.dtype}{list(under.shape)} in the base"
        )
    return under.array().reshape(-1)


def _residual(value: Array | None, name: str, tensor: Tensor) -> Array | None:
    if value is None:
        return None
    if value.shape != tensor.shape or value.dtype != np.float32:
        raise ValueError(
            f"residual {name!r} is {value.dtype}{list(value.shape)}; "
            f"float32{list(tensor.shape)} is needed"
        )
    return np.ascontiguousarray(value).reshape(-1)


@dataclass(frozen=True, slots=True)
class _Job:
    """One tensor to commit. Arrays are flat."""

    way: Way
    tensor: Tensor
    base: Array | None
    residual: Array | None
    one_in: int

    def run(self, scratch: Array) -> tuple[Tensor, Array, float]:
        """Return the committed tensor, the residual and the bound. Raises: FloatingPointError."""
        dtype, shape = self.tensor.dtype, self.tensor.shape
        source = self.tensor.array().reshape(-1)
        out = np.empty(source.size, DTYPES[dtype][1])
        left = np.empty(source.size, "<f4")
        bound = 0.0
        if self.way is Way.TOP_K:
            assert self.base is not None
            wanted = source if self.residual is None else source + self.residual
            bound = commit_largest(wanted, self.base, self.one_in, out)
            np.subtract(wanted, out, out=left)
        else:
            for start in range(0, source.size, RUN):
                part = slice(start, start + RUN)
                wanted = widen(source[part], dtype)
                if self.residual is not None:
                    wanted = wanted + self.residual[part]
                under = None if self.base is None else self.base[part]
                values, error = self._step(wanted, under, scratch)
                out[part] = narrow(values, dtype)
                if not np.isfinite(error) or not np.isfinite(values).all():
                    raise FloatingPointError
                np.subtract(wanted, values, out=left[part])
                bound = max(bound, error)
            if dtype == "f16" and not np.isfinite(out).all():
                raise FloatingPointError
        return Tensor(dtype, shape, out.view("u1").data.toreadonly()), left.reshape(shape), bound

    def _step(self, wanted: Array, base: Array | None, scratch: Array) -> tuple[Array, float]:
        """Commit one run; the values lie in scratch. The bound is not finite where they are not."""
        if self.way is Way.BF16 or self.way is Way.FP16:
            return _cast(wanted, self.way)
        count = wanted.size
        rows = -(-count // BLOCK)
        values, spare, third = (plane[:rows] for plane in scratch)
        blocks = _blocks(wanted, rows)
        if base is None:
            grid = GRIDS[self.way.value, self.tensor.dtype]
            bound = _commit_blocks(blocks, grid, values, spare)
        else:
            under = _blocks(base, rows)
            np.subtract(blocks, under, out=third)
            if self.way is Way.DELTA_SIGN:
                counts = np.full(rows, BLOCK, "<f4")
                counts[-1:] = count - (rows - 1) * BLOCK
                bound = _commit_signs(third, under, counts, (values, spare))
            else:
                grid = GRIDS[self.way.removeprefix("delta-"), "f32"]
                bound = _commit_deltas(third, under, grid, (values, spare))
        return values.reshape(-1)[:count], bound


def _blocks(flat: Array, rows: int) -> Array:
    """View as rows of 64; the last one is filled with zeros, which no scale or sum notices."""
    if flat.size == rows * BLOCK:
        return flat.reshape(rows, BLOCK)
    padded = np.zeros(rows * BLOCK, "<f4")
    padded[: flat.size] = flat
    return padded.reshape(rows, BLOCK)


def _cast(wanted: Array, way: Way) -> tuple[Array, float]:
    peak = float(np.abs(wanted).max())
    if way is Way.BF16:
        return to_bf16(wanted), max(peak * 2.0**-8, 2.0**-134)
    return wanted.astype("<f2").astype("<f4"), max(peak * 2.0**-11, 2.0**-25)


def _commit_blocks(blocks: Array, grid: Grid, values: Array, spare: Array) -> float:
    peaks = largest(blocks, spare)
    if not np.isfinite(peaks).all():
        return np.inf
    scales = grid.scales(peaks)
    codes_of(blocks, scales, spare)
    dequantise(spare, scales, values)
    return float(scales.max()) * (0.5 + 2.0**-17)


def _commit_deltas(deltas: Array, under: Array, grid: Grid, scratch: tuple[Array, Array]) -> float:
    values, spare = scratch
    peaks, heights = largest(deltas, spare), largest(under, spare)
    if not (np.isfinite(peaks).all() and np.isfinite(heights).all()):
        return np.inf
    scales = delta_scales(peaks, heights, grid)
    codes_of(deltas, scales, spare)
    dequantise(spare, scales, spare)
    np.add(under, spare, out=values)
    errors = scales * (0.5 + 2.0**-15) + heights.astype("<f8") * 2.0**-24
    return float(errors.max())


def _commit_signs(
    deltas: Array, under: Array, counts: Array, scratch: tuple[Array, Array]
) -> float:
    values, spare = scratch
    peaks, heights = largest(deltas, spare), largest(under, spare)
    means = mean(deltas, spare, counts)
    if not all(np.isfinite(found).all() for found in (peaks, heights, means)):
        return np.inf
    scales = sign_scales(means, heights)
    sign_steps(deltas, scales, spare)
    np.add(under, spare, out=values)
    wide = scales.astype("<f8")
    errors = np.maximum(peaks, wide) + (heights + wide) * 2.0**-23
    return float(errors.max()) * (1 + 2.0**-23)
