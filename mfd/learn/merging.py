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
from mfd.packet.floats import FLOATS, widen
from mfd.packet.merging import merge
from mfd.packet.objects import Buffer, LayerObject, pack_layer, unpack_layer
from mfd.packet.robust import clipped, distance, middle
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
) -> LayerObject | None:
    """Merge one layer over the siblings that have it; None where it stays the layer of `ref`.

    Raises: LearnError for weights that are not positive or layers that do not fit each other.
    """
    found = [
        (s.share(ref.index), other)
        for s in siblings
        for other in s.layers
        if other.index == ref.index and not (s.shares and s.share(ref.index) == 0)
    ]
    digests = {other.digest for _, other in found}
    if digests <= {ref.digest}:
        return None
    if not all(0 < weight < inf for weight, _ in found):
        raise LearnError("siblings to be merged need weights above 0")
    if len(digests) == 1 and rule != "clip":
        return pack_layer(_own(read(found[0][1].digest)))
    versions = [(_own(read(other.digest)), weight) for weight, other in found]
    forms = [{key: (t.dtype, t.shape) for key, t in version.items()} for version, _ in versions]
    if any(form != forms[0] for form in forms):
        raise LearnError(f"siblings have different tensors in layer {ref.name!r}")
    buffers = set(forms[0]) - set(parameters)
    try:
        merged = _merged(ref, versions, read, buffers=buffers, rule=rule, radius=radius)
    except ValueError as exc:
        raise LearnError(f"layer {ref.name!r} cannot be merged: {exc}") from exc
    return pack_layer(merged)


def _own(content: Buffer) -> dict[str, Tensor]:
    """The layer's tensors without what an optimiser keeps of them (P-06)."""
    return {key: t for key, t in unpack_layer(content).items() if not key.startswith("~")}


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
        own = _own(read(ref.digest))
        if rule == "clip":
            versions = [(clipped(own, v, radius, buffers=buffers), w) for v, w in versions]
        else:
            near = [p for p in versions if _is_near(own, p[0], radius, buffers)]
            if not near:
                return own
            versions = near
    heaviest, _ = max(versions, key=lambda pair: pair[1])
    parts = [({ref.name: version}, weight) for version, weight in versions]
    return merge({ref.name: heaviest}, parts, buffers=buffers)[ref.name]


def _is_near(
    own: dict[str, Tensor], other: dict[str, Tensor], radius: float, buffers: Collection[str]
) -> bool:
    apart, norm = distance(own, other, buffers=buffers)
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
    own: Sequence[LayerRef],
    sibling: Sibling,
    read: Read,
    *,
    radius: float,
    parameters: Collection[str],
) -> bool:
    """Say whether a sibling is too far in every layer that it would change."""
    apart = [
        (mine, other)
        for mine, other in zip(own, sibling.layers, strict=True)
        if mine.digest != other.digest and sibling.share(other.index) > 0
    ]
    for mine, other in apart:
        ours, theirs = _own(read(mine.digest)), _own(read(other.digest))
        if _is_near(ours, theirs, radius, set(ours) - set(parameters)):
            return False
    return bool(apart)
