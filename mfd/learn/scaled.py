"""A peer with little memory trains a smaller version of the model and lays its update back.

Rules of this file: coordinates that the smaller version does not hold keep every bit; where its
weights are coarser, what it has learned is added to the full ones. What is trained is the smallest
cut that is needed: the first scale of the plan that fits.
Source: spec/packet.md, section "Scale and merge"; arXiv 2010.01264 (ordered slices); arXiv
2102.13451 (slices that learn inside the full model).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from mfd.learn import zoo
from mfd.learn.axes import axes_of, scaled_recipe
from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, indices_of, pack
from mfd.learn.memory import fit, state_bytes
from mfd.learn.options import Options
from mfd.learn.replay import Classes
from mfd.learn.slices import added, own, sliced, told
from mfd.learn.stop import Smaller
from mfd.learn.training import train_blocks
from mfd.packet.extent import FULL, Scale
from mfd.packet.merging import merge
from mfd.packet.objects import Buffer, LayerObject, pack_layer, unpack_layer
from mfd.packet.scales import claims_of
from mfd.packet.scaling import Axes
from mfd.packet.task import LayerRef, LearnResult, LearnTask, Range
from mfd.packet.tensors import Tensor

__all__ = ["Part", "choose", "nested", "refusal", "train_part"]

Recipe = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A version inside the model: how it is cut, and the recipe of what is left."""

    by: Scale
    axes: Axes
    recipe: Recipe

    @classmethod
    def of(cls, recipe: Recipe, by: Scale) -> Part:
        """Raises: LearnError, one sentence, where this model cannot be cut so."""
        try:
            axes = Axes.of(recipe["axes"] if "axes" in recipe else axes_of(recipe))
            return cls(by, axes, {**scaled_recipe(recipe, by)})
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise LearnError(f"{told(by)} of this model cannot be trained: {exc}") from exc

    def ranges(self, names: Sequence[str], trained: Sequence[Range]) -> tuple[Range, ...]:
        """The layers to be trained as this version counts them; `names`: of the full model.

        Raises: LearnError where it has none of them.
        """
        kept = self.kept(names)
        wanted = {names[i] for i in indices_of(trained, len(names))}
        places = [i for i, name in enumerate(kept) if name in wanted]
        if not places:
            raise LearnError(f"{told(self.by)} has none of the layers {', '.join(sorted(wanted))}")
        return _joined(places)

    def of_full(self, names: Sequence[str], trained: Sequence[Range]) -> tuple[Range, ...]:
        """Layers of this version as the full model counts them."""
        kept = self.kept(names)
        return _joined([names.index(kept[i]) for i in indices_of(trained, len(kept))])

    def kept(self, names: Sequence[str]) -> list[str]:
        """Those of the full model's layers that this version has."""
        dropped = set(self.axes.blocks[self.by.depth :]) if self.by.depth else set()
        return [name for name in names if name not in dropped]


def _joined(places: Sequence[int]) -> tuple[Range, ...]:
    starts = [i for i in places if i - 1 not in places]
    ends = [i + 1 for i in places if i + 1 not in places]
    return tuple(zip(starts, ends, strict=True))


def refusal(
    holding: Holding,
    options: Options,
    memory: int,
    recipe: Recipe,
    work: LearnTask,
    *,
    inside: Sequence[Scale] = (),
) -> str:
    """Say why the layers of a task do not train in `memory` bytes here; empty where they do.

    Versions of the scales `inside` learn along where all layers train. A model whose weights alone
    are larger is not built. Raises: LearnError.
    """
    try:
        with torch.device("meta"):
            weights = state_bytes(zoo.build(recipe))
        if weights > memory:
            return f"the weights alone take {weights} bytes, and this peer allows {memory}"
        module = zoo.build(recipe)
    except ValueError as exc:
        raise LearnError(str(exc)) from exc
    layers = find_layers(module)
    trained = indices_of(work.trained, len(layers))
    try:
        fit(
            module,
            holding,
            options,
            trained=trained,
            body=work.body,
            block=work.block,
            sweep=work.sweep,
            budget=memory,
            smaller=nested(recipe, inside, module) if len(trained) == len(layers) else None,
        )
    except LearnError as exc:
        return str(exc)
    return ""


def choose(
    recipe: Recipe,
    scales: Sequence[Scale],
    names: Sequence[str],
    *,
    refusal: Callable[..., str],
    task: LearnTask,
) -> Part | None:
    """The first of the full model and `scales` that is not refused; None: the full one.

    `names`: of the model's layers. Raises: LearnError, one sentence, where all are.
    """
    full = refusal(recipe, task, inside=scales)
    if not full:
        return None
    last = ""
    for by in scales:
        if by == FULL:
            continue
        try:
            part = Part.of(recipe, by)
            last = refusal(
                part.recipe, replace(task, trained=part.ranges(names, task.trained), body=None)
            )
        except LearnError as exc:
            last = str(exc)
            continue
        if not last:
            return part
    raise LearnError(f"{full}; nor does a scale of the plan fit: {last}")


def train_part(
    part: Part,
    task: LearnTask,
    holding: Holding,
    read: Callable[[bytes], Buffer],
    write: Callable[[LayerObject], None],
    *,
    options: Options,
    known: Classes | None = None,
    budget: int = 0,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> LearnResult:
    """Cut the model of the task, train what is left, write the full layers that this changes.

    `known`: of the classes, for draws of them; it goes on with the first layer. Of the full model
    no more than one layer at a time is in memory. Raises: LearnError; Cancelled.
    """
    names = [ref.name for ref in task.layers]
    ranges = part.ranges(names, task.trained)
    module, start = _cut(part, task.layers, read)
    done = train_blocks(
        module,
        holding,
        trained=ranges,
        budget=budget,
        options=options,
        journey=task.journey,
        seed=task.seed,
        draws=known.draws(task.seed) if known else None,
        progress=progress,
        cancelled=cancelled,
    )
    by_name = {ref.name: ref for ref in task.layers}
    layers = find_layers(module)
    changed = []
    for index in indices_of(ranges, len(layers)):
        ref = by_name[layers[index].name]
        full = unpack_layer(read(ref.digest))
        learned = dict(unpack_layer(pack(module, layers[index]).tobytes()))
        if part.by.bits:
            learned = added(ref.name, full, start[ref.name], learned, by=part.by, axes=part.axes)
        merged = merge({ref.name: full}, [({ref.name: learned}, 1.0)], part.axes)
        told_of = known.tensors(layers[0].tensors[0]) if known and ref.index == 0 else {}
        made = pack_layer({**merged[ref.name], **told_of})
        if made.digest != ref.digest:
            write(made)
            changed.append(LayerRef(ref.index, ref.name, made.digest, made.raw_bytes))
    claims = {**done.claims, **claims_of(part.by), "labels": float(len(holding.labels()))}
    if known:
        claims["replayed"] = float(len(known.known))
    return LearnResult(tuple(changed), claims, part.of_full(names, ranges))


def _cut(
    part: Part, refs: Sequence[LayerRef], read: Callable[[bytes], Buffer]
) -> tuple[nn.Sequential, dict[str, dict[str, Tensor]]]:
    """The smaller module with its values, and these values as they were cut."""
    start: dict[str, dict[str, Tensor]] = {}
    by = part.by
    try:
        dropped = set(part.axes.blocks[by.depth :]) if by.depth else set()
        if by.depth > len(part.axes.blocks):
            raise ValueError(f"there are {len(part.axes.blocks)} blocks")
        slices = Scale(by.width, 0, by.bits)
        for ref in refs:
            if ref.name not in dropped:
                layer = {ref.name: own(read(ref.digest))}
                start |= sliced(layer, slices, part.axes)
        with torch.device("meta"):
            sketch = zoo.build(part.recipe)
        needed = sum(t.nbytes for t in sketch.state_dict().values())
        brought = sum(len(t.data) for layer in start.values() for t in layer.values())
        if needed > brought:
            raise ValueError(f"its recipe needs {needed} bytes, the layers have {brought}")
        module = zoo.build(part.recipe)
        state = {k: t.torch().clone() for layer in start.values() for k, t in layer.items()}
        module.load_state_dict(state)
    except (ValueError, RuntimeError) as exc:
        reason = " ".join(str(exc).split())[:300]
        raise LearnError(f"{told(by)} of this model cannot be trained: {reason}") from exc
    return module, start


def nested(recipe: Recipe, scales: Sequence[Scale], module: nn.Module) -> Smaller | None:
    """The narrower versions inside a module, one of them a batch, in turn.

    They share the module's parameters, so what they learn the full model learns.
    None where the plan allows no narrower version of this model.
    """
    found: list[tuple[nn.Sequential, Part]] = []
    for by in scales:
        if by.width < 1:
            part = Part.of(recipe, Scale(by.width, by.depth))
            try:
                with torch.device("meta"):
                    found.append((zoo.build(part.recipe), part))
            except ValueError as exc:
                raise LearnError(f"{told(by)} of this model cannot be built: {exc}") from exc
    return _Nested(module, found) if found else None


class _Nested:
    """Versions inside a module."""

    def __init__(self, module: nn.Module, found: Sequence[tuple[nn.Sequential, Part]]) -> None:
        self._module, self._found = module, found
        self._turn = 0

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        self._turn += 1
        return self._answer(self._turn - 1, x)

    def first(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self._answer(0, x)

    def _answer(self, turn: int, x: torch.Tensor) -> list[torch.Tensor]:
        small, part = self._found[turn % len(self._found)]
        values = dict(self._module.named_parameters()) | dict(self._module.named_buffers())
        held = small.state_dict()
        cut = {key: _narrow(values[key], part.axes.cuts(key), part.by) for key in held}
        small.train(self._module.training)
        return [functional_call(small, cut, (x,))]


def _narrow(values: torch.Tensor, cuts: Sequence[Any], by: Scale) -> torch.Tensor:
    """The first units of every axis that may be cut, as a view that gradients flow through."""
    for cut in cuts:
        shape = tuple(values.shape)
        entries = cut.entries(shape[cut.axis])
        before, after = shape[: cut.axis], shape[cut.axis + 1 :]
        runs = values.reshape(*before, cut.parts, cut.units * entries, *after)
        kept = by.kept(cut.units) * entries
        values = runs.narrow(cut.axis + 1, 0, kept).reshape(*before, cut.parts * kept, *after)
    return values
