"""Merging: every coordinate is the weighted mean over the parts that hold it.

Rules of this file: parts may be narrower or shallower than the full model; what nobody holds keeps
its bits. The order of operations is told, in floats of 64 bits, so all machines get the same bits.
Source: spec/packet.md, section "Scale and merge"; arXiv 2010.01264.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, prod
from typing import Any

import numpy as np

from mfd.packet.floats import FLOATS, Array, narrow, require_subnormals, widen
from mfd.packet.packet import Packet
from mfd.packet.scaling import Axes, Layers, layers_of
from mfd.packet.tensors import Tensor

__all__ = ["merge"]

RUN = 1 << 15  # elements that are averaged at a time, at least one row
Region = tuple[slice, ...]
UNCUT = Axes()


@dataclass(frozen=True, slots=True)
class _Held:
    """What one part holds of one tensor: regions of the full tensor, and where they lie in it."""

    weight: float
    tensor: Tensor
    segments: tuple[tuple[tuple[int, int, int], ...], ...]  # per axis: (in full, in part, entries)

    def regions(self, first: int, last: int) -> Iterator[tuple[Region, Region]]:
        """Yield (in rows first to last - 1 of the full tensor, in the part)."""
        rows = []
        for start, place, length in self.segments[0]:
            low, high = max(start, first), min(start + length, last)
            if low < high:
                rows.append((low - first, place + low - start, high - low))
        for chosen in product(rows, *self.segments[1:]):
            yield (
                tuple(slice(start, start + length) for start, _, length in chosen),
                tuple(slice(place, place + length) for _, place, length in chosen),
            )


def merge(
    full: Packet | Layers,
    parts: Sequence[tuple[Packet | Layers, float]],
    axes: Axes = UNCUT,
    *,
    buffers: Collection[str] = (),
) -> dict[str, dict[str, Tensor]]:
    """Return `full` with every coordinate that parts hold averaged over them by weight.

    A part is the model, some of its layers, or what `scale` made of it with the same axes. Tensors
    of other types than floats, and those named in `buffers`, come from the heaviest part.
    Raises: ValueError, one sentence, for a part that does not fit; PacketError.
    """
    require_subnormals()
    if not all(isinstance(part, tuple | list) and len(part) == 2 for part in parts):
        raise TypeError("the parts of a merge are pairs: (packet or layers, weight)")
    for number, (_, weight) in enumerate(parts):
        if not 0 < weight < inf:
            raise ValueError(f"part {number} weighs {weight}: a weight is a number above 0")
    if not sum(weight for _, weight in parts) < inf:
        raise ValueError("the weights of the parts are too large to add")
    whole = layers_of(full)
    found = [(layers_of(part), float(weight)) for part, weight in parts]
    for number, (layers, _) in enumerate(found):
        _check_names(number, layers, whole)
    merged: dict[str, dict[str, Tensor]] = {}
    for layer, tensors in whole.items():
        merged[layer] = {}
        for name, tensor in tensors.items():
            held = [
                _held(number, name, (layers[layer][name], weight), (tensor, axes))
                for number, (layers, weight) in enumerate(found)
                if name in layers.get(layer, {})
            ]
            if not held or not len(tensor.data):
                merged[layer][name] = tensor
            elif name in buffers or tensor.dtype not in FLOATS:
                merged[layer][name] = _copy(tensor, max(held, key=lambda one: one.weight))
            else:
                merged[layer][name] = _average(name, tensor, held)
    return merged


def _check_names(
    number: int, layers: dict[str, dict[str, Tensor]], whole: dict[str, dict[str, Tensor]]
) -> None:
    for layer, tensors in layers.items():
        if layer not in whole:
            raise ValueError(f"part {number} has a layer {layer!r} that the full model lacks")
        for name in tensors:
            if name not in whole[layer]:
                raise ValueError(f"part {number} has a tensor {name!r} that the full model lacks")


def _held(number: int, name: str, part: tuple[Tensor, float], whole: tuple[Tensor, Axes]) -> _Held:
    (tensor, weight), (full, axes) = part, whole
    misfit = ValueError(
        f"tensor {name!r} is {tensor.dtype}{list(tensor.shape)} in part {number}, which the axes "
        f"do not make of the full {full.dtype}{list(full.shape)}"
    )
    if tensor.dtype != full.dtype or len(tensor.shape) != len(full.shape):
        raise misfit
    cuts = {cut.axis: cut for cut in axes.cuts(name)}
    segments: list[tuple[tuple[int, int, int], ...]] = []
    for axis, (extent, of) in enumerate(zip(tensor.shape, full.shape, strict=True)):
        cut = cuts.get(axis)
        if extent == of:
            segments.append(((0, 0, of),))
            continue
        if cut is None or extent > of or of % (cut.units * cut.parts):
            raise misfit
        run = of // cut.parts
        kept, rest = divmod(extent, cut.parts)
        if rest or not kept or kept % (run // cut.units):
            raise misfit
        segments.append(tuple((i * run, i * kept, kept) for i in range(cut.parts)))
    return _Held(weight, tensor, tuple(segments) or (((0, 0, 1),),))


def _rows(tensor: Tensor) -> Array:
    values = tensor.array()
    return values.reshape(1) if values.ndim == 0 else values


def _tensor(like: Tensor, values: Array) -> Tensor:
    return Tensor(like.dtype, like.shape, values.reshape(-1).view(np.uint8).data.toreadonly())


def _copy(full: Tensor, one: _Held) -> Tensor:
    if one.tensor.shape == full.shape:
        return one.tensor
    out, source = _rows(full).copy(), _rows(one.tensor)
    for target, place in one.regions(0, len(out)):
        out[target] = source[place]
    return _tensor(full, out)


def _average(name: str, full: Tensor, held: Sequence[_Held]) -> Tensor:
    """Average in runs of rows: a share per part, then products and their sum, as f64."""
    old = _rows(full)
    out = old.copy()
    step = max(1, RUN // max(1, prod(old.shape[1:])))
    for first in range(0, len(old), step):
        last = min(first + step, len(old))
        shape = (last - first, *old.shape[1:])
        weights, sums = np.zeros(shape), np.full(shape, -0.0)  # -0 + x is x for every x
        for one in held:
            for target, _ in one.regions(first, last):
                weights[target] += one.weight
        for one in held:
            source = _rows(one.tensor)
            for target, place in one.regions(first, last):
                values: Any = widen(source[place], full.dtype)
                with np.errstate(over="ignore", invalid="ignore"):
                    sums[target] += (one.weight / weights[target]) * values.astype("<f8")
        some = weights > 0
        with np.errstate(over="ignore", invalid="ignore"):
            mean = narrow(sums, full.dtype)
            fine = np.isfinite(widen(mean, full.dtype))[some].all()
        if not fine:
            raise ValueError(f"tensor {name!r} cannot be merged: a value is not finite")
        np.copyto(out[first:last], mean, where=some)
    return _tensor(full, out)
