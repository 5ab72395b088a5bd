"""Find the layers of any module: block lists, children, what the owner named, adapters.

Rules of this file: names are those of `state_dict` and never change. Every tensor of the state
belongs to exactly one layer; a tied tensor belongs to the first layer that names it. What is found
depends on the module's structure and names alone, so every peer finds the same.
Source: spec/packet.md, section "Layer object"; spec/walk.md, W-18 (frozen layers go first).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.patterns import Groups, fits, groups_of
from mfd.learn.trees import Tree
from mfd.packet.limits import LAYERS_MAX

__all__ = [
    "Layer",
    "find_layers",
    "flat_children",
    "is_adapted",
    "name_layers",
    "owned_names",
    "tied_names",
]

NAMES_BYTES_MAX = 16 << 10  # of all layers together: a manifest of 32 KiB holds digests too
STAGE_SHARE = 0.9  # of a stage's parameters lie in its own list of blocks
NAMED = "mfd_layers"  # attribute of a module whose owner named the layers
LAST = "final"  # in the name of what is registered before the blocks but runs after them


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a module: which tensors it owns and which submodules it runs."""

    index: int
    name: str
    tensors: tuple[str, ...]  # keys of state_dict
    modules: tuple[str, ...]  # names of the submodules that are in training mode with it
    start: int | None  # first child, where the module is a Sequential
    frozen: bool = False  # the base of an adapter: it travels once and never learns
    block: str = ""  # the module of a block list with which it begins, or that list's end


def find_layers(module: nn.Module) -> list[Layer]:
    """Slice a module into layers.

    Children of a Sequential are layers, and so are those of a child that is a list of blocks.
    Otherwise the lists of blocks (a ModuleList; a Sequential of blocks of one class), stage by
    stage, with what lies before and after them as the first and the last layer. Otherwise children
    are layers, those of a Sequential child one by one. A child without state is joined to the layer
    before. In a model with adapters the layers of the base come first, frozen. More than 256 are
    grouped with their neighbours. An owner's own cut (`name_layers`) goes before all this.
    Raises: LearnError for a module without state or with tensors that overlap in memory.
    """
    owned = owned_names(module)
    if not owned:
        raise LearnError(f"{type(module).__name__} has no parameters, so there is nothing to learn")
    named: Groups | None = getattr(module, NAMED, None)
    units = _units(module, owned) if named is None else _named(module, owned, named)
    layers = _join(units)
    if is_adapted(module):
        layers = _adapted(module, layers)
    layers = _fewer(layers)
    return [replace(layer, index=i) for i, layer in enumerate(layers)]


def name_layers(module: nn.Module, layers: Sequence[str] | Groups) -> None:
    """Cut a module as its owner wants: glob patterns of tensor names, or {layer: [patterns]}.

    A tensor belongs to the first pattern that fits; a pattern `h.0` stands for `h.0.*` too.
    Raises: LearnError where a tensor fits none, or a layer gets none.
    """
    owned = owned_names(module)
    groups = groups_of(layers, len(owned))
    _named(module, owned, groups)
    setattr(module, NAMED, groups)


def is_adapted(module: nn.Module) -> bool:
    """Whether this is a model of PEFT: a base that is frozen, and adapters that learn."""
    return hasattr(module, "peft_config")


def owned_names(module: nn.Module) -> list[str]:
    """Keys of the state, each tensor once, under the name that comes first.

    Raises: LearnError for tensors that overlap in memory without being the same.
    """
    first: dict[object, str] = {}
    places: list[tuple[int, int, str]] = []
    for key, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            raise LearnError(f"{key!r} in the module's state is a {type(tensor).__name__}")
        place = _place(key, tensor)
        if place is None:
            first.setdefault(id(tensor), key)  # nothing there to be shared but the object itself
        elif place not in first and id(tensor) not in first:
            first[place] = first[id(tensor)] = key
            places.append((*_extent(tensor), key))
    places.sort()
    for (_, end, one), (start, _, two) in pairwise(places):
        if start < end:
            raise LearnError(
                f"tensors {one!r} and {two!r} overlap in memory but are not the same: clone one"
            )
    return list(dict.fromkeys(first.values()))


def tied_names(module: nn.Module) -> dict[str, str]:
    """Names in the state that stand for another's tensor -> the name that owns it."""
    state = module.state_dict(keep_vars=True)
    owners = owned_names(module)
    names = set(owners)
    known: dict[object, str] = {}
    for key in owners:
        known[id(state[key])] = key
        known.setdefault(_place(key, state[key]) or id(state[key]), key)
    return {
        key: known.get(id(tensor)) or known[_place(key, tensor)]
        for key, tensor in state.items()
        if key not in names
    }


def _place(key: str, tensor: torch.Tensor) -> object:
    """Where and how a tensor lies; None where it takes no memory of its own."""
    if tensor.is_meta or not tensor.numel() or tensor.layout is not torch.strided:
        return None
    spread = zip(tensor.shape, tensor.stride(), strict=True)
    if any(size > 1 and not stride for size, stride in spread):
        raise LearnError(f"tensor {key!r} is expanded: its elements share memory; clone it")
    form = (tensor.dtype, tuple(tensor.shape), tensor.stride())
    return (str(tensor.device), tensor.data_ptr(), *form)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First byte and one after the last; strided views inside each other count as overlapping."""
    spread = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in spread)
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


Unit = tuple[str, list[str], list[str], int | None, str]  # name, tensors, modules, start, block


def _units(module: nn.Module, owned: Sequence[str]) -> list[Unit]:
    if isinstance(module, nn.Sequential):
        return list(_sequential(module, owned))
    blocks = list(_blocks(module))
    if len(blocks) > 1:
        return _around(module, blocks, owned)
    units: list[Unit] = []
    direct = [key for key in owned if "." not in key]
    if direct:
        units.append(("first", direct, [], None, ""))
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            units += [_unit(f"{name}.{sub}", owned) for sub, _ in child.named_children()]
        else:
            units.append(_unit(name, owned))
    return units


def _sequential(module: nn.Sequential, owned: Sequence[str]) -> Iterator[Unit]:
    """Children one by one; `start` counts them as `flat_children` lays them out."""
    for start, name in enumerate(flat_children(module)):
        unit = _unit(name, owned)
        yield (*unit[:3], start, "")


def flat_children(module: nn.Sequential) -> list[str]:
    """Names of the children of a Sequential, those of lists of blocks in their place."""
    names = []
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and _is_list(name, child):
            names += [f"{name}.{sub}" for sub in flat_children(child)]
        else:
            names.append(name)
    return names


def _unit(name: str, owned: Sequence[str], block: str = "") -> Unit:
    return name, [key for key in owned if key.startswith(name + ".")], [name], None, block


def _has_state(module: nn.Module) -> bool:
    return bool(module.state_dict(keep_vars=True))


def _is_list(path: str, module: nn.Module, *, alike: bool = False) -> bool:
    """Whether these are blocks that run one after the other, and not experts or plain layers."""
    if not isinstance(module, nn.ModuleList | nn.Sequential) or "expert" in path:
        return False
    blocks = [child for child in module.children() if _has_state(child)]
    if len(blocks) < 2:
        return False
    if isinstance(module, nn.ModuleList) and not alike:
        return True
    return len({type(b) for b in blocks}) == 1 and any(True for _ in blocks[0].children())


def _lists(module: nn.Module, path: str = "", *, alike: bool = False) -> Iterator[str]:
    """Paths of the outermost lists of blocks."""
    for name, child in module.named_children():
        place = f"{path}{name}"
        if _is_list(place, child, alike=alike):
            yield place
        else:
            yield from _lists(child, place + ".", alike=alike)


def _blocks(module: nn.Module) -> Iterator[str]:
    """Paths of all blocks in order; a stage that is a list of blocks itself gives its own."""
    for path in _lists(module):
        for name, child in module.get_submodule(path).named_children():
            inner = [f"{path}.{name}.{sub}" for sub in _lists(child, alike=True)]
            held = sum(_size(module.get_submodule(sub)) for sub in inner)
            if inner and held >= STAGE_SHARE * _size(child):
                for sub in inner:
                    yield from (f"{sub}.{n}" for n, _ in module.get_submodule(sub).named_children())
            else:
                yield f"{path}.{name}"


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _around(module: nn.Module, blocks: Sequence[str], owned: Sequence[str]) -> list[Unit]:
    """Blocks, what lies before and after them, and between two lists what follows a block."""
    starts = {name + ".": i for i, name in enumerate(blocks)}
    before: list[str] = []
    after: list[str] = []
    held: list[list[str]] = [[] for _ in blocks]
    left: list[tuple[int, str]] = []  # outside the blocks: the last block seen, the key
    current = -1
    for key in owned:
        found = next((i for start, i in starts.items() if key.startswith(start)), None)
        if found is None:
            left.append((current, key))
        else:
            held[found].append(key)
            current = max(current, found)
    for seen, key in left:
        if seen < 0 and LAST not in key:
            before.append(key)
        elif seen < 0 or seen == current:
            after.append(key)
        else:
            held[seen].append(key)
    tree = Tree(module)
    middle: list[Unit] = [
        (name, keys, [name, *tree.largest(k for k in keys if not k.startswith(name + "."))],
         None, name)
        for name, keys in zip(blocks, held, strict=True)
    ]  # fmt: skip
    first: Unit = ("first", before, tree.largest(before), None, "")
    own, _, number = blocks[-1].rpartition(".")
    end = f"{own}.{int(number) + 1}" if number.isdecimal() else ""
    last: Unit = ("last", after, tree.largest(after), None, end)
    return [first, *(unit for unit in middle if unit[1]), last]


def _named(module: nn.Module, owned: Sequence[str], groups: Groups) -> list[Unit]:
    held: dict[str, list[str]] = {name: [] for name in groups}
    strange = []
    for key in owned:
        found = (n for n, patterns in groups.items() if any(fits(key, p) for p in patterns))
        name = next(found, None)
        if name is None:
            strange.append(key)
        else:
            held[name].append(key)
    if strange:
        raise LearnError(
            f"no layer named by the owner has {', '.join(strange[:3])}"
            f"{' ...' if len(strange) > 3 else ''}: add a pattern, such as '*' at the end"
        )
    for name, keys in held.items():
        if not keys:
            raise LearnError(f"layer {name!r}: no tensor is left that fits {list(groups[name])}")
    tree = Tree(module)
    return [(name, keys, tree.largest(keys), None, "") for name, keys in held.items()]


def _join(units: Sequence[Unit]) -> list[Layer]:
    """Units without state go with the layer before, the first ones with the first layer."""
    layers: list[Layer] = []
    for name, keys, modules, start, block in units:
        new = Layer(0, name, tuple(keys), tuple(modules), start, block=block)
        if layers and not keys:
            layers[-1] = replace(layers[-1], modules=layers[-1].modules + new.modules)
        elif layers and not layers[-1].tensors:
            layers[-1] = replace(
                new, modules=layers[-1].modules + new.modules, start=layers[-1].start
            )
        else:
            layers.append(new)
    return layers if layers[0].tensors else layers[1:]


def _adapted(module: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """Frozen layers first, then what learns of each: adapters, and heads that PEFT keeps whole."""
    base: list[Layer] = []
    free: list[Layer] = []
    tree = Tree(module)
    own: Any = getattr(module, "base_model", None)
    prefix = getattr(own, "prefix", None) or "prompt_encoder"
    for layer in layers:
        keys = [key for key in layer.tensors if _learns(key, prefix)]
        learned = set(keys)
        rest = tuple(key for key in layer.tensors if key not in learned)
        if rest:
            base.append(replace(layer, tensors=rest, frozen=True))
        if keys:
            name, modules = f"{layer.name}.adapter", tuple(tree.largest(keys))
            free.append(replace(layer, name=name, tensors=tuple(keys), modules=modules))
    return base + free


def _learns(key: str, prefix: str) -> bool:
    parts = key.split(".")
    return "modules_to_save" in parts or any(part.startswith(prefix) for part in parts)


def _fewer(layers: Sequence[Layer]) -> list[Layer]:
    """At most 256 layers: neighbours are grouped, frozen ones first; the last stays by itself."""
    count = min(LAYERS_MAX, len(layers))
    while count > 4:
        base = [layer for layer in layers if layer.frozen]
        free = [layer for layer in layers if not layer.frozen]
        for_free = min(len(free), count - 1 if base else count)
        made = _grouped(base, count - for_free) + _grouped(free[:-1], for_free - 1) + free[-1:]
        if sum(len(layer.name.encode()) for layer in made) <= NAMES_BYTES_MAX:
            return made
        count = count * 3 // 4
    return list(layers)


def _grouped(layers: Sequence[Layer], count: int) -> list[Layer]:
    if len(layers) <= count:
        return list(layers)
    cuts = [i * len(layers) // count for i in range(count + 1)]
    return [_as_one(layers[low:high]) for low, high in pairwise(cuts)]


def _as_one(layers: Sequence[Layer]) -> Layer:
    if len(layers) == 1:
        return layers[0]
    return replace(
        layers[0],
        name=f"{layers[0].name}..{layers[-1].name}",
        tensors=tuple(key for layer in layers for key in layer.tensors),
        modules=tuple(name for layer in layers for name in layer.modules),
    )
