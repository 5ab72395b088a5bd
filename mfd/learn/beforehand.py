"""What a sender can know before anything travels: whether plan, model and data fit each other.

Rules of this file: a model of the zoo is tried with one sample and whatever values it has, since
only shapes count; what a peer alone can know, such as its memory, is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mfd.learn import zoo
from mfd.learn.errors import LearnError
from mfd.learn.measuring import inputs_for
from mfd.learn.options import Sharing
from mfd.learn.recipes import task_of
from mfd.learn.samples import Sample
from mfd.learn.scaled import Part
from mfd.learn.slices import told
from mfd.packet.extent import FULL
from mfd.packet.plan import Plan
from mfd.packet.scales import scales_of

__all__ = ["check_model", "check_plan"]

SIDES = (4, 8, 16, 32, 64, 128, 256)  # of pictures that a model is tried with
Recipe = Mapping[str, Any]


def check_plan(plan: Plan, module: nn.Module | None, samples: Mapping[str, Sample]) -> None:
    """Check what a plan asks for against its model and the data that is known, by name or place.

    `module`: the model with its values, where it is no recipe of the zoo. Raises: LearnError, one
    sentence.
    """
    table = plan.recipe.get("zoo") in zoo.TABLES
    if plan.mode == "distill":
        share = Sharing.of(plan.learn)[0].share
        if (share == "proxy") == table or (table and plan.recipe["zoo"] != share):
            raise LearnError(
                f"a plan that shares {share} has "
                + (f"the recipe {share}" if share != "proxy" else "a model as its proxy")
                + f", not {_name(plan.recipe)}: set learn.share, or give another recipe"
            )
    _check_scales(plan)
    if table and plan.mode == "distill":
        return
    for where, sample in samples.items():
        if sample.text != (plan.task == "language"):
            holds = "text" if sample.text else "labelled samples"
            other = "language" if sample.text else "classification"
            hint = f"set task = {other}" if task_of(plan.recipe) == other else _others(sample)
            raise LearnError(f"the plan's task is {plan.task}, but {where} holds {holds}: {hint}")
        check_model(plan.recipe, sample, where, module=module)
    if (own := _own_sample(plan.recipe)) is not None:
        check_model(plan.recipe, own, "its recipe's own inputs")


def check_model(
    recipe: Recipe, sample: Sample, where: str, *, module: nn.Module | None = None
) -> None:
    """Raise LearnError where a model does not take such samples; the sentence says what does."""
    name = _name(recipe)
    if recipe.get("zoo") in zoo.TABLES:
        raise LearnError(
            f"{name} is no model but what peers share in plans of mode distill: models of the "
            f"zoo are {', '.join(zoo.MODELS)}"
        )
    if "zoo" in recipe:
        module = _sketch(recipe)
    if module is None:
        return
    answered = _answer(module, sample)
    if answered is None or _is_short(recipe, sample):
        raise LearnError(
            f"{name} does not take samples of shape {_sides(sample.shape)} ({where})"
            f"{_why(recipe, sample)}; {_others(sample)}"
        )
    if answered < sample.classes:
        what = "tokens" if sample.text else "classes"
        key = "vocabulary" if sample.text else "classes"
        raise LearnError(
            f"{name} answers {answered} {what}, and {where} has {sample.classes}: give it "
            f"{key}={sample.classes}"
        )


def _check_scales(plan: Plan) -> None:
    scales = scales_of(plan)
    if scales and "zoo" not in plan.recipe:
        raise LearnError("scales are for models of the zoo alone: leave them out of this plan")
    for by in scales:
        if by == FULL:
            continue
        part = Part.of(plan.recipe, by)
        if by.depth > len(part.axes.blocks):
            blocks = f"has {len(part.axes.blocks)} blocks" if part.axes.blocks else "has no blocks"
            exits = " without exits=true" if "exits" in zoo.arguments(plan.recipe["zoo"]) else ""
            raise LearnError(
                f"{told(by)} of {_name(plan.recipe)} cannot be trained: it {blocks} that could be "
                f"left out{exits}"
            )
        try:
            with torch.device("meta"):
                zoo.build(part.recipe)
        except ValueError as exc:
            raise LearnError(f"{told(by)} of {_name(plan.recipe)} cannot be built: {exc}") from exc


def _own_sample(recipe: Recipe) -> Sample | None:
    """Samples as a recipe of the zoo says that they are; None where it does not say."""
    inputs, classes = recipe.get("inputs"), recipe.get("classes")
    if "zoo" in recipe and isinstance(inputs, list | tuple) and type(classes) is int:
        return Sample(tuple(inputs), classes)
    return None


def _sketch(recipe: Recipe) -> nn.Module:
    try:
        with torch.device("meta"):
            module = zoo.build(recipe)
        return module.to_empty(device="cpu")
    except ValueError as exc:
        raise LearnError(str(exc)) from exc


def _answer(module: nn.Module, sample: Sample) -> int | None:
    """How many classes a model tells of such a sample; None where it does not take it."""
    dtype = torch.int64 if sample.whole else torch.float32
    x = torch.zeros((1, *sample.shape), dtype=dtype)
    module.eval()
    try:
        with torch.no_grad():
            logits = module(inputs_for(module)(x))
    except (RuntimeError, IndexError, TypeError):
        return None
    if not isinstance(logits, torch.Tensor):
        return None
    wanted = (1, *sample.shape) if sample.text else (1,)
    return logits.shape[-1] if tuple(logits.shape[:-1]) == wanted else None


def _why(recipe: Recipe, sample: Sample) -> str:
    """Why a model of the zoo does not take samples, as far as its recipe tells."""
    inputs = recipe.get("inputs")
    if _is_short(recipe, sample):
        return f": its length is {_length(recipe)}"
    odd = isinstance(inputs, list | tuple) and tuple(inputs) != sample.shape
    if odd and _takes({**recipe, "inputs": list(sample.shape)}, sample):
        return f": its recipe says inputs={_written(inputs)}"
    if "zoo" in recipe and len(sample.shape) == 3:
        for side in SIDES:
            larger = (sample.shape[0], side, side)
            if _takes({**recipe, "inputs": list(larger)}, Sample(larger, sample.classes)):
                return f": it takes pictures from {_sides(larger)} on"
    return ""


def _is_short(recipe: Recipe, sample: Sample) -> bool:
    """Whether a model of the zoo has too few positions; its shapes alone do not tell."""
    return sample.text and 0 < _length(recipe) < sample.shape[-1]


def _length(recipe: Recipe) -> int:
    length = recipe.get("length", zoo.arguments(str(recipe.get("zoo"))).get("length", 0))
    return length if isinstance(length, int) else 0


def _others(sample: Sample) -> str:
    """Which models of the zoo take such samples, as a user writes them."""
    if sample.text:
        fit: dict[str, Any] = {"vocabulary": sample.classes, "length": sample.shape[-1]}
    else:
        fit = {"inputs": list(sample.shape), "classes": sample.classes}
    found = [
        f"{name}:" + ",".join(f"{key}={_written(value)}" for key, value in fit.items())
        for name in zoo.MODELS
        if set(fit) <= set(zoo.arguments(name)) and _takes({"zoo": name, **fit}, sample)
    ]
    return f"what does is {' or '.join(found)}" if found else "no model of the zoo does"


def _takes(recipe: Recipe, sample: Sample) -> bool:
    try:
        return _answer(_sketch(recipe), sample) is not None
    except LearnError:
        return False


def _written(value: object) -> str:
    return _sides(value) if isinstance(value, list | tuple) else str(value)


def _sides(shape: Sequence[int]) -> str:
    """A shape as recipes have it: 1x8x8, 64."""
    return "x".join(map(str, shape))


def _name(recipe: Recipe) -> str:
    if "zoo" in recipe:
        return str(recipe["zoo"])
    return "the model of Hugging Face" if "hf" in recipe else "the model"
