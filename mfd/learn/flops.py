"""How much work a model is: FLOP of a forward pass over one sample, layer by layer.

A version inside the model (half as wide, fewer blocks) is counted by itself, layer by name.
Rules of this file: counted by running the model once with torch's counter (matrix products and
convolutions, a multiplication and an addition each one FLOP), not guessed from sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mfd.learn import zoo
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, raw_bytes
from mfd.learn.scaled import Part
from mfd.packet.extent import FULL, Scale

__all__ = ["forward_flops", "part_bytes", "part_flops"]


def forward_flops(module: nn.Module, holding: Holding) -> tuple[float, ...]:
    """FLOP of one sample in each layer.

    What the counter sees outside a layer's own modules is shared out in proportion.
    """
    layers = find_layers(module)
    x = torch.from_numpy(holding.x[:1].copy())
    module.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(x if x.is_floating_point() else x.long())
    root = type(module).__name__
    counts = {
        name.removeprefix(f"{root}."): float(sum(ops.values()))
        for name, ops in counter.get_flop_counts().items()
    }
    own = [sum(counts.get(name, 0.0) for name in layer.modules) for layer in layers]
    whole = float(counter.get_total_flops())
    scale = whole / sum(own) if sum(own) else 0.0
    return tuple(count * scale for count in own)


def part_flops(
    recipe: Mapping[str, Any], scales: Sequence[Scale], holding: Holding
) -> dict[Scale, dict[str, float]]:
    """FLOP of one sample in each layer of the versions inside a model, by its name.

    Raises: LearnError where the model cannot be cut so.
    """
    found = {}
    for by in scales:
        if by != FULL:
            module = zoo.build(Part.of(recipe, by).recipe)
            names = [layer.name for layer in find_layers(module)]
            found[by] = dict(zip(names, forward_flops(module, holding), strict=True))
    return found


def part_bytes(recipe: Mapping[str, Any], by: Scale) -> dict[str, int]:
    """Bytes of each layer of a version inside a model as it is trained, by its name.

    Raises: LearnError where the model cannot be cut so.
    """
    with torch.device("meta"):
        module = zoo.build(Part.of(recipe, by).recipe)
    return {layer.name: raw_bytes(module, layer) for layer in find_layers(module)}
