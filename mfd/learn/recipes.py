"""A module from a recipe, whoever makes it: the zoo or Hugging Face. Code never travels.

Rules of this file: a recipe may come from a stranger; ValueError is the only way in which it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "init", "is_known", "seeded", "task_of"]

MAKERS = ("zoo", "hf")
T = TypeVar("T")


def is_known(recipe: Mapping[str, Any]) -> bool:
    """Whether every peer can build this; others are the owner's own."""
    return any(maker in recipe for maker in MAKERS)


def build(recipe: Mapping[str, Any]) -> nn.Module:
    """Make the module that a recipe names; its values are arbitrary.

    Raises: ValueError, one sentence.
    """
    if "hf" in recipe:
        from mfd.learn import hf

        return hf.build(recipe)
    from mfd.learn import zoo

    return zoo.build(recipe)


def init(recipe: Mapping[str, Any], seed: int) -> nn.Module:
    """Build with initial values that depend on the recipe and the seed alone."""
    return seeded(seed, lambda: build(recipe))


def seeded(seed: int, make: Callable[[], T]) -> T:
    """Make something with the chance of a seed; what others draw is not disturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def task_of(recipe: Mapping[str, Any]) -> str:
    """The plan's task that a recipe is made for; classification where it does not say."""
    if "hf" in recipe:
        from mfd.learn.hf import HEADS

        hf = recipe["hf"] if isinstance(recipe["hf"], Mapping) else {}
        return HEADS.get(str(hf.get("class", "AutoModelForCausalLM")), "classification")
    return "language" if recipe.get("zoo") == "transformer" else "classification"
