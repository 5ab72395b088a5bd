"""A module as an ordered list of layers, and layers as objects that travel.

Rules of this file: names are those of `state_dict` and never change. Every tensor of the state
belongs to exactly one layer; a tied tensor belongs to the first layer that names it.
Source: spec/packet.md, section "Layer object".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mfd.learn.errors import LearnError
from mfd.packet.objects import LayerObject, pack_layer, unpack_layer
from mfd.packet.task import LayerRef, Range
from mfd.packet.tensors import TORCH_NAMES, Buffer

__all__ = [
    "Layer",
    "export_safetensors",
    "find_layers",
    "indices_of",
    "load",
    "load_model",
    "pack",
    "pack_model",
    "split_at",
]

TORCH_DTYPES: dict[str, torch.dtype] = {  # as far as this torch has them
    ours: getattr(torch, theirs) for ours, theirs in TORCH_NAMES.items() if hasattr(torch, theirs)
}
_DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a module: which tensors it owns and which submodules it runs."""

    index: int
    name: str
    tensors: tuple[str, ...]  # keys of state_dict
    modules: tuple[str, ...]  # names of the submodules that are in training mode with it
    start: int | None  # first child, where the module is a Sequential


def find_layers(module: nn.Module) -> list[Layer]:
    """Slice a module into layers.

    Children of a Sequential are layers. Otherwise the largest ModuleList gives the blocks, and what
    lies before and after it the first and the last layer. Otherwise children are layers, those of a
    Sequential child one by one. A child without state is joined to the layer before.
    Raises: LearnError for a module without state.
    """
    state = module.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for key, tensor in state.items():
        first.setdefault(id(tensor), key)  # a tied tensor is one object under two names
    owned = list(first.values())
    if not owned:
        raise LearnError(f"{type(module).__name__} has no parameters, so there is nothing to learn")
    units = _units(module, owned)
    groups: list[tuple[str, list[str], list[str], int]] = []
    for position, (name, keys, modules) in enumerate(units):
        if groups and not keys:
            groups[-1][2].extend(modules)
        elif groups and not groups[-1][1]:  # leading units without state go with the first layer
            groups[-1] = (name, keys, groups[-1][2] + modules, groups[-1][3])
        else:
            groups.append((name, keys, modules, position))
    sequential = isinstance(module, nn.Sequential)
    return [
        Layer(i, name, tuple(keys), tuple(modules), start if sequential else None)
        for i, (name, keys, modules, start) in enumerate(groups)
    ]


Unit = tuple[str, list[str], list[str]]  # name, tensors, modules


def _units(module: nn.Module, owned: Sequence[str]) -> list[Unit]:
    if isinstance(module, nn.Sequential):
        return [_unit(name, owned) for name, _ in module.named_children()]
    lists = [
        (sum(p.numel() for p in m.parameters()), name, m)
        for name, m in module.named_modules()
        if isinstance(m, nn.ModuleList) and len(m) > 1
    ]
    if lists:
        _, name, blocks = max(lists, key=lambda found: found[0])
        return _around([f"{name}.{i}" for i in range(len(blocks))], owned)
    units: list[Unit] = []
    direct = [key for key in owned if "." not in key]
    if direct:
        units.append(("first", direct, []))
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            units += [_unit(f"{name}.{sub}", owned) for sub, _ in child.named_children()]
        else:
            units.append(_unit(name, owned))
    return units


def _unit(name: str, owned: Sequence[str]) -> Unit:
    return name, [key for key in owned if key.startswith(name + ".")], [name]


def _around(blocks: list[str], owned: Sequence[str]) -> list[Unit]:
    inner = [_unit(name, owned) for name in blocks]
    inside = {key for _, keys, _ in inner for key in keys}
    edge = next((i for i, key in enumerate(owned) if key in inside), len(owned))
    before = [key for key in owned[:edge] if key not in inside]
    after = [key for key in owned[edge:] if key not in inside]
    return [("first", before, _parents(before)), *inner, ("last", after, _parents(after))]


def _parents(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".")[0] for key in keys if "." in key))


def indices_of(ranges: Sequence[Range], count: int) -> list[int]:
    """Layers lo..hi-1 of each range, ascending. Raises: LearnError beyond `count` layers."""
    if not ranges or not all(0 <= lo < hi <= count for lo, hi in ranges):
        raise LearnError(f"ranges {list(ranges)} do not lie in a model of {count} layers")
    return sorted({i for lo, hi in ranges for i in range(lo, hi)})


def split_at(
    module: nn.Module, layers: Sequence[Layer], index: int
) -> tuple[nn.Module | None, nn.Module]:
    """Cut a Sequential in front of a layer; other modules stay whole: (None, module)."""
    start = layers[index].start
    if not isinstance(module, nn.Sequential) or not start:
        return None, module
    children = list(module.children())
    return nn.Sequential(*children[:start]), nn.Sequential(*children[start:])


def pack(module: nn.Module, layer: Layer) -> LayerObject:
    """Lay a layer's tensors out as an object.

    WARNING: the object borrows the module's memory; use it before the module changes.
    """
    state = module.state_dict(keep_vars=True)
    try:
        return pack_layer({key: state[key] for key in layer.tensors})
    except TypeError as exc:
        raise LearnError(f"layer {layer.name!r}: {exc}") from exc


def pack_model(module: nn.Module) -> list[tuple[LayerRef, LayerObject]]:
    """All layers in order, as a manifest names them. WARNING: borrowed, as by `pack`."""
    packed = [(layer, pack(module, layer)) for layer in find_layers(module)]
    return [
        (LayerRef(layer.index, layer.name, made.digest, made.raw_bytes), made)
        for layer, made in packed
    ]


def load_model(
    module: nn.Module, refs: Sequence[LayerRef], read: Callable[[bytes], Buffer]
) -> None:
    """Copy a whole version into a module. Raises: LearnError, PacketError."""
    layers = find_layers(module)
    check_names(refs, layers)
    for ref, layer in zip(refs, layers, strict=True):
        load(module, layer, read(ref.digest))


def check_names(refs: Sequence[LayerRef], layers: Sequence[Layer]) -> None:
    """Compare a packet's layers with a module's. Raises: LearnError where they differ."""
    brought = [(ref.index, ref.name) for ref in refs]
    if brought != [(layer.index, layer.name) for layer in layers]:
        raise LearnError(
            f"the packet has {len(refs)} layers ({_listed(ref.name for ref in refs)}), this model "
            f"{len(layers)} ({_listed(layer.name for layer in layers)})"
        )


def _listed(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:4]) + (" ..." if len(first) > 4 else "")


def load(module: nn.Module, layer: Layer, content: Buffer) -> None:
    """Copy a layer object's tensors into the module, once, straight from the buffer.

    Raises: LearnError where names, shapes or element types differ; PacketError for a broken object.
    """
    tensors = {k: t for k, t in unpack_layer(content).items() if not k.startswith("~")}
    if set(tensors) != set(layer.tensors):
        odd = ", ".join(sorted(set(tensors) ^ set(layer.tensors))[:4])
        raise LearnError(f"layer {layer.name!r} does not have the tensors of this model: {odd}")
    state = module.state_dict(keep_vars=True)
    for key in layer.tensors:
        target, source = state[key].detach(), tensors[key]
        if (_DTYPE_NAMES.get(target.dtype), tuple(target.shape)) != (source.dtype, source.shape):
            raise LearnError(
                f"tensor {key!r} is {source.dtype}{list(source.shape)} in the packet but "
                f"{_DTYPE_NAMES.get(target.dtype)}{list(target.shape)} in this model"
            )
        target.copy_(source.torch())


def export_safetensors(path: str | Path, module: nn.Module) -> None:
    """Write the module's state in the safetensors format; a tied tensor appears once."""
    from safetensors.torch import save_file

    state = module.state_dict()
    save_file(
        {key: state[key].contiguous() for layer in find_layers(module) for key in layer.tensors},
        str(path),
    )
