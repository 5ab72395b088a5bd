"""Layers of a module as objects that travel; which layers there are is found in finding.py.

Rules of this file: names are those of `state_dict` and never change.
Source: spec/packet.md, section "Layer object".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.finding import Layer, find_layers, name_layers
from mfd.learn.splitting import split_at
from mfd.packet.objects import LayerObject, object_bytes, pack_layer, unpack_layer
from mfd.packet.task import LayerRef, Range
from mfd.packet.tensors import TORCH_NAMES, Buffer

__all__ = [
    "Layer",
    "export_safetensors",
    "find_layers",
    "free_ranges",
    "frozen_count",
    "indices_of",
    "load",
    "load_model",
    "name_layers",
    "pack",
    "pack_model",
    "raw_bytes",
    "sketch",
    "split_at",
]

TORCH_DTYPES: dict[str, torch.dtype] = {  # as far as this torch has them
    ours: getattr(torch, theirs) for ours, theirs in TORCH_NAMES.items() if hasattr(torch, theirs)
}
NESTED_MAX = 64  # modules in modules
EMBEDDING = ("embed", "wte", "wpe", "shared.weight")
_DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def indices_of(ranges: Sequence[Range], count: int) -> list[int]:
    """Layers lo..hi-1 of each range, ascending. Raises: LearnError beyond `count` layers."""
    if not ranges or not all(0 <= lo < hi <= count for lo, hi in ranges):
        raise LearnError(f"ranges {list(ranges)} do not lie in a model of {count} layers")
    return sorted({i for lo, hi in ranges for i in range(lo, hi)})


def free_ranges(ranges: Sequence[Range], layers: Sequence[Layer]) -> tuple[Range, ...]:
    """The ranges without frozen layers: the base of an adapter never learns, whatever a task says.

    Raises: LearnError where nothing is left.
    """
    chosen = [i for i in indices_of(ranges, len(layers)) if not layers[i].frozen]
    if not chosen:
        raise LearnError(f"ranges {list(ranges)} hold frozen layers only, and those never learn")
    starts = [i for i in chosen if i - 1 not in chosen]
    ends = [i + 1 for i in chosen if i + 1 not in chosen]
    return tuple(zip(starts, ends, strict=True))


def frozen_count(layers: Sequence[Layer]) -> int:
    """How many layers at the beginning never learn (spec/walk.md, W-18)."""
    return sum(layer.frozen for layer in layers)


def raw_bytes(module: nn.Module, layer: Layer) -> int:
    """Size of the layer's object; the module may lie on the meta device.

    Raises: LearnError for an element type that cannot travel.
    """
    state = module.state_dict(keep_vars=True)
    strange = [key for key in layer.tensors if state[key].dtype not in _DTYPE_NAMES]
    if strange:
        raise LearnError(f"tensor {strange[0]!r} is {state[strange[0]].dtype}: it cannot travel")
    return object_bytes(
        {key: (_DTYPE_NAMES[state[key].dtype], tuple(state[key].shape)) for key in layer.tensors}
    )


def sketch(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> nn.Module:
    """A module with these names, {name: (element type, shape)}, and without values or code.

    Members that are numbered are taken for a list. Raises: LearnError for a type without a name
    in this torch, and for a name that no module can have.
    """
    root = nn.Module()
    # a file has lost the order of its author: embeddings come first by their names
    for key in sorted(tensors, key=lambda key: not any(word in key for word in EMBEDDING)):
        dtype, shape = tensors[key]
        if dtype not in TORCH_DTYPES:
            raise LearnError(f"tensor {key!r} is {dtype}, which this torch does not have")
        *path, last = key.split(".")
        if len(path) > NESTED_MAX:
            raise LearnError(f"tensor {key[:80]!r} lies in {len(path)} modules > {NESTED_MAX}")
        place = root
        try:
            for name in path:
                if name not in place._modules:
                    place.add_module(name, nn.Module())
                place = place.get_submodule(name)
            empty = torch.empty(shape, dtype=TORCH_DTYPES[dtype], device="meta")
            place.register_buffer(last, empty)
        except (KeyError, AttributeError) as exc:  # empty, or what every module has already
            raise LearnError(f"{key!r} cannot be the name of a tensor in a module: {exc}") from exc
    _number(root)
    return root


def _number(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        _number(child)
        inner = dict(child.named_children())
        numbers = [str(i) for i in range(len(inner))]
        if len(inner) > 1 and set(inner) == set(numbers) and not child._buffers:
            setattr(module, name, nn.ModuleList(inner[number] for number in numbers))


def pack(module: nn.Module, layer: Layer) -> LayerObject:
    """Lay a layer's tensors out as an object.

    WARNING: the object borrows the module's memory; use it before the module changes.
    """
    state = module.state_dict(keep_vars=True)
    for key in layer.tensors:
        if state[key].is_meta:
            raise LearnError(
                f"tensor {key!r} is on the meta device: it has a shape but no values; load them"
            )
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
