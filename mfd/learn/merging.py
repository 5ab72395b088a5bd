"""Merge sibling versions of a model, layer by layer, in an order that all machines share.

Rules of this file: parameters are averaged by weight; buffers (counters, normalisation statistics)
come from the heaviest sibling; what is equal in all siblings stays as it is.
Each product is rounded, then each sum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch

from mfd.learn.errors import LearnError
from mfd.learn.layers import TORCH_DTYPES
from mfd.packet.objects import Buffer, LayerObject, Tensor, pack_layer, unpack_layer
from mfd.packet.task import LayerRef, Sibling

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
    heaviest = max(range(len(found)), key=lambda i: found[i][0])
    if len(digests) == 1:
        return pack_layer(unpack_layer(read(found[0][1].digest)))
    total = sum(weight for weight, _ in found)
    shares = [weight / total for weight, _ in found]
    versions = [unpack_layer(read(other.digest)) for _, other in found]
    forms = [{key: (t.dtype, t.shape) for key, t in version.items()} for version in versions]
    if any(form != forms[0] for form in forms):
        raise LearnError(f"siblings have different tensors in layer {ref.name!r}")
    merged: dict[str, Tensor | np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    for key, tensor in versions[heaviest].items():
        if key not in parameters or not TORCH_DTYPES[tensor.dtype].is_floating_point:
            merged[key] = tensor
        else:
            merged[key] = _average([version[key] for version in versions], shares)
    return pack_layer(merged)


def _average(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    if all(t.data == tensors[0].data for t in tensors):
        return tensors[0]
    dtype = TORCH_DTYPES[tensors[0].dtype]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    total: torch.Tensor | None = None
    for tensor, share in zip(tensors, shares, strict=True):
        raw = torch.from_numpy(np.frombuffer(tensor.data, np.uint8).copy())
        part = raw.view(dtype).to(wide) * torch.tensor(share, dtype=wide)
        total = part if total is None else total + part
    assert total is not None
    data = total.to(dtype).view(torch.uint8).numpy().data.toreadonly()
    return Tensor(tensors[0].dtype, tensors[0].shape, data)
