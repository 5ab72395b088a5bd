"""Cut a flat map of tensors into layers, from the tensors' names alone.

A file of weights has names and no modules, and mostly no order but that of the alphabet. Blocks
are told by their names (`h.0.`, `h.1.`); what lies outside goes before or after by its words.
Rules of this file: the result depends on the set of names alone, so that everybody cuts alike;
every name is in one layer.
Source: mfd.learn.finding, which does the same for modules and knows more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

from mfd.packet.limits import LAYERS_MAX

__all__ = ["cut_by_name"]

ONE = "model"  # the name of the only layer, where there is nothing to cut
NAMES_BYTES_MAX = 16 << 10  # of all layers together: a manifest of 32 KiB holds digests too
STAGE_SHARE = 0.9  # of a stage's tensors lie in its own list of blocks
ALIKE_SHARE = 0.5
FIRST = re.compile(r"embed(?!_out)|token|stem|patch|pre_|wte|wpe", re.IGNORECASE)
LAST = re.compile(
    r"(^|[._])(lm_head|heads?|fc|classifier|cls|predictions?|score|pooler|logits?|final|post|out|"
    r"output|proj|norm|ln_f|ln)([._]|$)|final|logit|layernorm|layer_norm|projection",
    re.IGNORECASE,
)

Cut = dict[str, list[str]]  # layer -> its tensors
_Blocks = Mapping[str, list[str]]  # path of a block -> its tensors


def cut_by_name(names: Iterable[str]) -> Cut:
    """Return the tensors of each layer, layers in the order in which they probably run.

    Lists of blocks, stage by stage, with what lies before and after them as the layers "first" and
    "last"; without such a list the first part of the names, or one more where numbers follow.
    Neighbours are grouped where there would be more than 256 layers. One layer is named "model".
    """
    bare = {name: _tensor(name) for name in names}
    held: Cut = {}
    for name in sorted(bare, key=lambda n: (_natural(bare[n]), n)):
        held.setdefault(bare[name], []).append(name)
    plain = list(held)
    blocks = _lists(plain, "", deep=True)
    cut = _around(plain, blocks) if blocks else _children(plain)
    whole = {layer: [n for key in keys for n in held[key]] for layer, keys in cut.items()}
    return _fewer(whole) if len(whole) > 1 else {ONE: [n for keys in whole.values() for n in keys]}


def _tensor(name: str) -> str:
    """Whose layer it shares: what an optimiser keeps of a tensor lies with that tensor (P-06)."""
    return name.partition("/")[2] or name if name.startswith("~") else name


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers among the parts of a name are ordered as numbers."""
    return tuple(
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)
        for part in name.split(".")
    )


def _place(path: str) -> tuple[int, tuple[tuple[int, int, str], ...]]:
    """Sorts what a model begins with before what it ends with."""
    if FIRST.search(path):
        rank = 0
    elif LAST.search(path):
        rank = 3
    else:
        rank = 2 if "decoder" in path else 1
    return rank, _natural(path)


def _numbered(names: Iterable[str], start: str) -> dict[str, dict[str, list[str]]]:
    """Paths below `start` that numbers follow -> number -> names; the outermost numbers only."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        parts = name[len(start) :].split(".")
        at = next((i for i, part in enumerate(parts[:-1]) if part.isdigit()), None)
        if at is not None:
            path = start + "".join(part + "." for part in parts[:at])
            found.setdefault(path, {}).setdefault(parts[at], []).append(name)
    return {path: numbers for path, numbers in found.items() if len(numbers) > 1}


def _lists(names: Iterable[str], start: str, *, deep: bool) -> Cut:
    """Tensors of the blocks below `start`, in order; nothing where there is no list of them."""
    blocks: Cut = {}
    lists = _numbered(names, start)
    for path in sorted(lists, key=_place):
        if not _are_blocks(path, lists[path], alike=not deep):
            continue
        for number in sorted(lists[path], key=int):
            block, keys = path + number, lists[path][number]
            inner = _lists(keys, block + ".", deep=False) if deep else {}
            inside = sum(map(len, inner.values()))
            if inner and inside >= STAGE_SHARE * len(keys):
                last = next(reversed(inner))  # with it goes what the stage has beside its blocks
                rest = set(keys) - {key for found in inner.values() for key in found}
                inner[last] = [key for key in keys if key in rest or key in set(inner[last])]
                blocks |= inner
            else:
                blocks[block] = keys
    return blocks


def _are_blocks(path: str, numbers: Mapping[str, list[str]], *, alike: bool) -> bool:
    """Whether these are blocks with parts of their own, and neither experts nor plain layers.

    `alike`: they also share half of their parts: blocks of a stage, not the parts of one block.
    """
    if "expert" in path:
        return False
    ends = [
        {name[len(path) + len(number) + 1 :] for name in names} for number, names in numbers.items()
    ]
    shared = len(set.intersection(*ends))
    if not shared or (alike and shared < ALIKE_SHARE * min(map(len, ends))):
        return False
    return all(any("." in end for end in each) for each in ends)


def _around(names: list[str], blocks: _Blocks) -> Cut:
    """The blocks, and what lies before and after them."""
    inside = {name for keys in blocks.values() for name in keys}
    rest = [name for name in names if name not in inside]
    after = [name for name in rest if _place(name)[0] == 3]
    before = [name for name in rest if _place(name)[0] != 3]
    ends: Cut = {"first": before, **blocks, "last": after}
    return {layer: keys for layer, keys in ends.items() if keys}


def _children(names: list[str]) -> Cut:
    """Without blocks: the first part of each name is a layer, with the number that follows it."""
    lists = _numbered(names, "")
    cut: Cut = {}
    for name in names:
        parts = name.split(".")
        if len(parts) == 1:
            layer = "first"
        elif parts[0].isdigit() or f"{parts[0]}." not in lists:
            layer = parts[0]
        else:
            layer = ".".join(parts[:2])
        cut.setdefault(layer, []).append(name)
    return {layer: cut[layer] for layer in sorted(cut, key=lambda n: (n != "first", _place(n)))}


def _fewer(cut: Cut) -> Cut:
    """At most 256 layers with names that fit: neighbours are grouped, the last stays by itself."""
    count = min(LAYERS_MAX, len(cut))
    while count > 1:
        made = _grouped(cut, count)
        if sum(len(name.encode()) for name in made) <= NAMES_BYTES_MAX:
            return made
        count = count * 3 // 4
    return {ONE: [name for keys in cut.values() for name in keys]}


def _grouped(cut: Cut, count: int) -> Cut:
    if len(cut) <= count:
        return cut
    layers = list(cut)
    cuts = [i * (len(layers) - 1) // (count - 1) for i in range(count)]
    made: Cut = {}
    for low, high in [*pairwise(cuts), (len(layers) - 1, len(layers))]:
        name = layers[low] if high - low == 1 else f"{layers[low]}..{layers[high - 1]}"
        made[name] = [key for layer in layers[low:high] for key in cut[layer]]
    return made
