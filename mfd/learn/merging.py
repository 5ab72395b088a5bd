"""Merge sibling versions of a model, layer by layer, in an order that all machines share.

Rules of this file: parameters are merged by weight and rule; buffers (counters, normalisation
statistics) come from the heaviest sibling; what is equal in all siblings stays as it is.
Source: spec/packet.md, section "Scale and merge" (P-405, P-406); spec/walk.md, W-46 to W-48.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf

import numpy as np

from mfd.learn.errors import LearnError
from mfd.learn.slices import added, own, sliced
from mfd.packet.extent import FULL, Scale
from mfd.packet.floats import FLOATS, widen
from mfd.packet.merging import merge
from mfd.packet.objects import Buffer, LayerObject, pack_layer, unpack_layer
from mfd.packet.robust import clipped, distance, middle
from mfd.packet.scaling import Axes
from mfd.packet.task import LayerRef, Sibling
from mfd.packet.tensors import Tensor

__all__ = ["merge_layer", "too_far", "unfinite"]

Read = Callable[[bytes], Buffer]
LEAST = 3  # versions, for a median to mean anything


def merge_layer(
    ref: LayerRef,
    siblings: Sequence[Sibling],
    read: Read,
    *,
    parameters: Collection[str],
    rule: str = "mean",
    radius: float = 0.0,
    axes: Axes | None = None,
) -> LayerObject | None:
    """Merge one layer over the siblings that have it; None where it stays the layer of `ref`.

    `axes`: of the model; wanted where a sibling has trained a part of it alone.
    Raises: LearnError for weights that are not positive or layers that do not fit each other.
    """
    found = [
        (s.share(ref.index), other)
        for s in siblings
        for other in s.layers
        if other.index == ref.index and not (s.shares and s.share(ref.index) == 0)
    ]
    if axes is not None and any(s.scale != FULL for s in siblings):
        return _merged_parts(ref, siblings, read, parameters=parameters, axes=axes)
    digests = {other.digest for _, other in found}
    if digests <= {ref.digest}:
        return None
    if not all(0 < weight < inf for weight, _ in found):
        raise LearnError("siblings to be merged need weights above 0")
    if len(digests) == 1 and rule != "clip":
        return pack_layer(own(read(found[0][1].digest)))
    versions = [(own(read(other.digest)), weight) for weight, other in found]
    forms = [_forms(version) for version, _ in versions]
    if any(form != forms[0] for form in forms):
        raise LearnError(f"siblings have different tensors in layer {ref.name!r}")
    buffers = set(forms[0]) - set(parameters)
    try:
        merged = _merged(ref, versions, read, buffers=buffers, rule=rule, radius=radius)
    except ValueError as exc:
        raise LearnError(f"layer {ref.name!r} cannot be merged: {exc}") from exc
    return pack_layer(merged)


def _merged_parts(
    ref: LayerRef,
    siblings: Sequence[Sibling],
    read: Read,
    *,
    parameters: Collection[str],
    axes: Axes,
) -> LayerObject | None:
    """Average each coordinate over those siblings alone whose scale keeps it (P-408)."""
    full = own(read(ref.digest))
    parts: list[tuple[dict[str, dict[str, Tensor]], float]] = []
    moved = False
    for sibling in siblings:
        others = [other for other in sibling.layers if other.index == ref.index]
        dropped = axes.blocks[sibling.scale.depth :] if sibling.scale.depth else ()
        weight = sibling.share(ref.index)
        if not others or ref.name in dropped or (sibling.shares and weight == 0):
            continue
        if not 0 < weight < inf:
            raise LearnError("siblings to be merged need weights above 0")
        moved = moved or others[0].digest != ref.digest
        try:
            parts.append(({ref.name: _part_of(sibling, others[0], (full, axes), read)}, weight))
        except (ValueError, KeyError, RuntimeError) as exc:
            raise LearnError(f"layer {ref.name!r} of a part does not fit: {exc}") from exc
    if not moved:
        return None
    try:
        merged = merge({ref.name: full}, parts, axes, buffers=set(full) - set(parameters))
    except ValueError as exc:
        raise LearnError(f"layer {ref.name!r} cannot be merged: {exc}") from exc
    return pack_layer(merged[ref.name])


def _forms(layer: dict[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {key: (t.dtype, t.shape) for key, t in layer.items()}


def _part_of(
    sibling: Sibling, ref: LayerRef, of: tuple[dict[str, Tensor], Axes], read: Read
) -> dict[str, Tensor]:
    """What a sibling has trained of a layer: all of it, or the coordinates that its scale keeps."""
    full, axes = of
    found, by = own(read(ref.digest)), sibling.scale
    if by == FULL:
        return found
    if not sibling.cut:
        return sliced({ref.name: found}, Scale(by.width), axes)[ref.name]
    cut = sliced({ref.name: full}, Scale(by.width), axes)[ref.name]
    if _forms(found) != _forms(cut):
        raise ValueError("its tensors are others than those that its scale makes")
    if not by.bits:
        return found
    start = sliced({ref.name: full}, Scale(by.width, 0, by.bits), axes)[ref.name]
    return added(ref.name, full, start, found, by=by, axes=axes)


def _merged(
    ref: LayerRef,
    versions: list[tuple[dict[str, Tensor], float]],
    read: Read,
    *,
    buffers: Collection[str],
    rule: str,
    radius: float,
) -> dict[str, Tensor]:
    heaviest, _ = max(versions, key=lambda pair: pair[1])
    if rule in ("median", "trim") and len(versions) >= LEAST:
        first = [heaviest, *(v for v, _ in versions if v is not heaviest)]
        return middle(first, rule, buffers=buffers)
    if rule in ("clip", "near"):
        mine = own(read(ref.digest))
        if rule == "clip":
            versions = [(clipped(mine, v, radius, buffers=buffers), w) for v, w in versions]
        else:
            near = [p for p in versions if _is_near(mine, p[0], radius, buffers)]
            if not near:
                return mine
            versions = near
    heaviest, _ = max(versions, key=lambda pair: pair[1])
    parts = [({ref.name: version}, weight) for version, weight in versions]
    return merge({ref.name: heaviest}, parts, buffers=buffers)[ref.name]


def _is_near(
    mine: dict[str, Tensor], other: dict[str, Tensor], radius: float, buffers: Collection[str]
) -> bool:
    apart, norm = distance(mine, other, buffers=buffers)
    return apart <= radius * norm


def unfinite(sibling: Sibling, known: Collection[bytes], read: Read) -> str:
    """Name the first layer with a number that is not finite, or nothing; `known` are not read."""
    for ref in sibling.layers:
        if ref.digest in known or sibling.share(ref.index) == 0:
            continue
        for tensor in unpack_layer(read(ref.digest)).values():
            if (
                tensor.dtype in FLOATS
                and not np.isfinite(widen(tensor.array(), tensor.dtype)).all()
            ):
                return ref.name
    return ""


def too_far(
    ours: Sequence[LayerRef],
    sibling: Sibling,
    read: Read,
    *,
    radius: float,
    parameters: Collection[str],
) -> bool:
    """Say whether a sibling is too far in every layer that it would change."""
    apart = [
        (mine, other)
        for mine, other in zip(ours, sibling.layers, strict=True)
        if mine.digest != other.digest and sibling.share(other.index) > 0
    ]
    for mine, other in apart:
        own_layer, theirs = own(read(mine.digest)), own(read(other.digest))
        if _is_near(own_layer, theirs, radius, set(own_layer) - set(parameters)):
            return False
    return bool(apart)
