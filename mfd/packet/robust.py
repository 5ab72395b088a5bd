"""Merging where some versions may be wrong: differences cut short, medians, means without extremes.

Rules of this file: one layer at a time; floats alone are combined, and never those called buffers.
Sums over a layer depend on the machine in their last bits: whoever merges signs what came out.
Source: spec/walk.md, W-47; ClippedGossip (arXiv 2202.01545), BALANCE (arXiv 2406.10416).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf, sqrt

import numpy as np

from mfd.packet.floats import FLOATS, Array, narrow, require_subnormals, widen
from mfd.packet.tensors import Tensor

__all__ = ["clipped", "distance", "middle"]

RUN = 1 << 16  # elements that are combined at a time
Layer = Mapping[str, Tensor]


def distance(own: Layer, other: Layer, *, buffers: Collection[str] = ()) -> tuple[float, float]:
    """Return how far `other` is from `own`, and the norm of `own`, over their float parameters.

    Infinite, and 0, where `other` has a number that is not finite.
    """
    apart = norm = 0.0
    for name in _averaged(own, buffers):
        mine, theirs = _wide(own[name]), _wide(other[name])
        for start in range(0, len(mine), RUN):
            a, b = (v[start : start + RUN].astype("<f8") for v in (mine, theirs))
            if not np.isfinite(b).all():
                return inf, 0.0
            with np.errstate(over="ignore", invalid="ignore"):
                apart += float(np.square(b - a).sum())
                norm += float(np.square(a).sum())
    return sqrt(apart), sqrt(norm)


def clipped(
    own: Layer, other: Layer, radius: float, *, buffers: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return `other`, drawn toward `own` until it is within `radius` x the norm of `own`."""
    apart, norm = distance(own, other, buffers=buffers)
    if not apart > radius * norm:
        return dict(other)
    scale = radius * norm / apart if apart < inf else 0.0
    out = dict(other)
    for name in _averaged(own, buffers):
        mine, theirs = _wide(own[name]).astype("<f8"), _wide(other[name]).astype("<f8")
        moved = mine + scale * (theirs - mine) if scale else mine
        out[name] = _tensor(own[name], narrow(moved, own[name].dtype))
    return out


def middle(
    versions: Sequence[Layer], rule: str, *, buffers: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return the median of each coordinate, or with `trim` the mean without its extremes.

    Tensors that are not averaged come from the first version.
    Raises: ValueError for fewer than three versions, or a value that is not finite.
    """
    require_subnormals()
    if len(versions) < 3:
        raise ValueError(f"{rule} needs at least three versions, not {len(versions)}")
    out = dict(versions[0])
    for name in _averaged(versions[0], buffers):
        first = versions[0][name]
        parts = [_wide(version[name]) for version in versions]
        made = np.empty(len(parts[0]), "<f8")
        for start in range(0, len(made), RUN):
            rows = np.sort(np.stack([p[start : start + RUN].astype("<f8") for p in parts]), axis=0)
            if not np.isfinite(rows).all():
                raise ValueError(f"tensor {name!r} cannot be merged: a value is not finite")
            kept = rows[1:-1]
            if rule == "median":
                low, high = (len(rows) - 1) // 2, len(rows) // 2
                kept = rows[low : high + 1]
            made[start : start + RUN] = _mean(kept)
        out[name] = _tensor(first, narrow(made, first.dtype))
    return out


def _mean(rows: Array) -> Array:
    """Their mean, which is each of them where all are equal; in ascending order of the values."""
    low = rows[0]
    out: Array = low + sum((row - low) / len(rows) for row in rows[1:])
    return out


def _averaged(layer: Layer, buffers: Collection[str]) -> list[str]:
    return [n for n, t in layer.items() if t.dtype in FLOATS and n not in buffers and len(t.data)]


def _wide(tensor: Tensor) -> Array:
    values: Array = widen(tensor.array().reshape(-1), tensor.dtype)
    return values


def _tensor(like: Tensor, values: Array) -> Tensor:
    return Tensor(like.dtype, like.shape, values.reshape(-1).view(np.uint8).data.toreadonly())
