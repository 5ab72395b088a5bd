"""How much work a model is: FLOP of a forward pass over one sample, layer by layer.

Rules of this file: counted by running the model once with torch's counter (matrix products and
convolutions, a multiplication and an addition each one FLOP), not guessed from sizes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers

__all__ = ["forward_flops"]


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
