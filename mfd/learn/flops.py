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
from mfd.learn.devices import Costs, Flop
from mfd.learn.exits import Stage
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, raw_bytes
from mfd.learn.options import Options
from mfd.learn.scaled import Part
from mfd.learn.stop import DRAWN
from mfd.packet.extent import FULL, Scale

__all__ = ["costs_of", "exit_flops", "forward_flops", "part_bytes", "part_costs"]


def forward_flops(module: nn.Module, holding: Holding) -> tuple[float, ...]:
    """FLOP of one sample in each layer, early exits that do not answer left out.

    What the counter sees outside a layer's own modules is shared out in proportion.
    """
    layers = find_layers(module)
    module.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(_sample(holding))
    root = type(module).__name__
    counts = {
        name.removeprefix(f"{root}."): float(sum(ops.values()))
        for name, ops in counter.get_flop_counts().items()
    }
    own = [sum(counts.get(name, 0.0) for name in layer.modules) for layer in layers]
    whole = float(counter.get_total_flops())
    scale = whole / sum(own) if sum(own) else 0.0
    return tuple(count * scale for count in own)


def exit_flops(module: nn.Module, holding: Holding) -> tuple[float, ...]:
    """FLOP of one sample in the early exit of each layer, which is run in training alone."""
    layers = find_layers(module)
    if not isinstance(module, nn.Sequential):
        return (0.0,) * len(layers)
    module.eval()
    found: dict[str, float] = {}
    x = _sample(holding)
    with torch.no_grad():
        for name, child in module.named_children():
            if isinstance(child, Stage) and not child.last:
                x = child.body(x)
                with FlopCounterMode(display=False) as counter:
                    child.exit(x)
                found[name] = float(counter.get_total_flops())
            else:
                x = child(x)
    return tuple(sum(found.get(name, 0.0) for name in layer.modules) for layer in layers)


def _sample(holding: Holding) -> torch.Tensor:
    x = torch.from_numpy(holding.x[:1].copy())
    return x if x.is_floating_point() else x.long()


def costs_of(module: nn.Module, holding: Holding, options: Options | None = None) -> Costs:
    """What a sample takes in a model that learns with `options`; None: from its labels alone."""
    return Costs(
        forward_flops(module, holding),
        exits=exit_flops(module, holding),
        opinion=options is not None and options.distill > 0,
        draws=DRAWN if options is not None and options.replay else 0.0,
    )


def part_costs(
    recipe: Mapping[str, Any], scales: Sequence[Scale], holding: Holding
) -> dict[Scale, dict[str, Flop]]:
    """What a sample takes in each layer of the versions inside a model, by its name.

    Raises: LearnError where the model cannot be cut so.
    """
    found = {}
    for by in scales:
        if by != FULL:
            module = zoo.build(Part.of(recipe, by).recipe)
            names = [layer.name for layer in find_layers(module)]
            flops = zip(forward_flops(module, holding), exit_flops(module, holding), strict=True)
            found[by] = {n: Flop(*f) for n, f in zip(names, flops, strict=True)}
    return found


def part_bytes(recipe: Mapping[str, Any], by: Scale) -> dict[str, int]:
    """Bytes of each layer of a version inside a model as it is trained, by its name.

    Raises: LearnError where the model cannot be cut so.
    """
    with torch.device("meta"):
        module = zoo.build(Part.of(recipe, by).recipe)
    return {layer.name: raw_bytes(module, layer) for layer in find_layers(module)}
