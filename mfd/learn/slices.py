"""Single layers of a model cut down, and what a cut one has learned laid back.

Rules of this file: one layer at a time is in memory. What an optimiser keeps of a layer is no part
of a cut.
Source: spec/packet.md, section "Scale and merge".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mfd.packet.extent import Scale
from mfd.packet.objects import Buffer, unpack_layer
from mfd.packet.scaling import Axes, scale
from mfd.packet.tensors import Tensor

__all__ = ["added", "own", "sliced", "told"]


def told(by: Scale) -> str:
    """Name a scale in words."""
    words = [f"width {by.share}"] if by.width != 1 else []
    words += [f"depth {by.depth}"] if by.depth else []
    words += [f"{by.bits} bits"] if by.bits else []
    return ", ".join(words) or "the full model"


def own(content: Buffer) -> dict[str, Tensor]:
    """The layer's tensors without what an optimiser keeps of them (P-06)."""
    return {key: t for key, t in unpack_layer(content).items() if not key.startswith("~")}


def sliced(
    layer: dict[str, dict[str, Tensor]], by: Scale, axes: Axes
) -> dict[str, dict[str, Tensor]]:
    """One layer cut; one that no axis cuts keeps its width."""
    (tensors,) = layer.values()
    if not any(axes.cuts(name) for name in tensors):
        by = Scale(1, 0, by.bits)
    return scale(layer, by, axes)


def added(
    name: str,
    full: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    *,
    by: Scale,
    axes: Axes,
) -> dict[str, Tensor]:
    """The full weights plus what the coarse ones have learned; unmoved ones keep their bits."""
    whole = sliced({name: {**full}}, Scale(by.width), axes)[name]
    made = {}
    for key, tensor in learned.items():
        before, after, origin = (t.torch() for t in (start[key], tensor, whole[key]))
        if after.is_floating_point():
            after = torch.where(after == before, origin, origin + (after - before))
        made[key] = Tensor.of(after.contiguous())
    return made
