"""What travels with a layer beside its tensors: the state of the optimiser that trained it.

Rules of this file: such tensors have names that begin with `~`, lie in the layer's own object and
are no part of the module; so they travel when their layer does, and their bytes count as its bytes.
Source: spec/packet.md, P-06.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from mfd.learn.layers import Layer, pack
from mfd.learn.stepping import CARRIED
from mfd.packet.objects import Buffer, LayerObject, pack_layer, unpack_layer
from mfd.packet.task import LayerRef

__all__ = ["pack_with", "state_of"]


def pack_with(module: nn.Module, layer: Layer, state: Mapping[str, torch.Tensor]) -> LayerObject:
    """Lay out a layer with what belongs to it of a state. WARNING: borrowed, as by `pack`."""
    keys = set(layer.tensors)
    own = {name: value for name, value in state.items() if name.partition("/")[2] in keys}
    if not own:
        return pack(module, layer)
    tensors = module.state_dict(keep_vars=True)
    return pack_layer({**{key: tensors[key] for key in layer.tensors}, **own})


def state_of(refs: Iterable[LayerRef], read: Callable[[bytes], Buffer]) -> dict[str, torch.Tensor]:
    """Read what these layers carry. Raises: PacketError for a broken object."""
    found: dict[str, torch.Tensor] = {}
    for ref in refs:
        for name, tensor in unpack_layer(read(ref.digest)).items():
            if name.startswith(CARRIED):
                found[name] = tensor.torch()
    return found
