"""What travels with a layer beside its tensors: the optimiser's state, what is told of classes.

Rules of this file: such tensors have names that begin with `~`, lie in the layer's own object and
are no part of the module; so they travel when their layer does, and their bytes count as its bytes.
Source: spec/packet.md, P-06 and P-07.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

from mfd.learn.layers import Layer, indices_of, pack
from mfd.learn.stepping import CARRIED
from mfd.packet.objects import Buffer, LayerObject, pack_layer, unpack_layer
from mfd.packet.task import LayerRef, Range

__all__ = ["pack_trained", "pack_with", "state_of"]


def pack_with(module: nn.Module, layer: Layer, state: Mapping[str, torch.Tensor]) -> LayerObject:
    """Lay out a layer with what belongs to it of a state. WARNING: borrowed, as by `pack`."""
    keys = set(layer.tensors)
    own = {name: value for name, value in state.items() if name.partition("/")[2] in keys}
    if not own:
        return pack(module, layer)
    tensors = module.state_dict(keep_vars=True)
    return pack_layer({**{key: tensors[key] for key in layer.tensors}, **own})


def pack_trained(
    module: nn.Module,
    layers: Sequence[Layer],
    trained: Sequence[Range],
    state: Mapping[str, torch.Tensor],
) -> list[tuple[int, LayerObject]]:
    """Lay out the layers that were trained, each with its part of the state; borrowed."""
    places = indices_of(trained, len(layers))
    return [(i, pack_with(module, layers[i], state)) for i in places]


def state_of(refs: Iterable[LayerRef], read: Callable[[bytes], Buffer]) -> dict[str, torch.Tensor]:
    """Read what these layers carry. Raises: PacketError for a broken object."""
    found: dict[str, torch.Tensor] = {}
    for ref in refs:
        for name, tensor in unpack_layer(read(ref.digest)).items():
            if name.startswith(CARRIED):
                found[name] = tensor.torch()
    return found
