"""Merge sibling versions of a model, layer by layer, in an order that all machines share.

Rules of this file: parameters are averaged by weight; buffers (counters, normalisation statistics)
come from the heaviest sibling; what is equal in all siblings stays as it is.
Source: spec/packet.md, section "Scale and merge" (P-405, P-406).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from mfd.learn.errors import LearnError
from mfd.packet.merging import merge
from mfd.packet.objects import Buffer, LayerObject, pack_layer, unpack_layer
from mfd.packet.task import LayerRef, Sibling
from mfd.packet.tensors import Tensor

__all__ = ["merge_layer"]


def merge_layer(
    ref: LayerRef,
    siblings: Sequence[Sibling],
    read: Callable[[bytes], Buffer],
    *,
    parameters: Collection[str],
) -> LayerObject | None:
    """Average one layer over the siblings that have it; None where it stays the layer of `ref`.

    Raises: LearnError for weights that are not positive or layers that do not fit each other.
    """
    found = [(s.weight, other) for s in siblings for other in s.layers if other.index == ref.index]
    digests = {other.digest for _, other in found}
    if digests <= {ref.digest}:
        return None
    if not all(0 < weight < float("inf") for weight, _ in found):
        raise LearnError("siblings to be merged need weights above 0")
    if len(digests) == 1:
        return pack_layer(_own(read(found[0][1].digest)))
    versions = [(_own(read(other.digest)), weight) for weight, other in found]
    forms = [{key: (t.dtype, t.shape) for key, t in version.items()} for version, _ in versions]
    if any(form != forms[0] for form in forms):
        raise LearnError(f"siblings have different tensors in layer {ref.name!r}")
    heaviest, _ = max(versions, key=lambda pair: pair[1])
    parts = [({ref.name: version}, weight) for version, weight in versions]
    try:
        merged = merge({ref.name: heaviest}, parts, buffers=set(forms[0]) - set(parameters))
    except ValueError as exc:
        raise LearnError(f"layer {ref.name!r} cannot be merged: {exc}") from exc
    return pack_layer(merged[ref.name])


def _own(content: Buffer) -> dict[str, Tensor]:
    """The layer's tensors without what an optimiser keeps of them (P-06)."""
    return {key: t for key, t in unpack_layer(content).items() if not key.startswith("~")}
