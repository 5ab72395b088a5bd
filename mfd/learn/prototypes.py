"""What a class looks like to the head: statistics that travel, so that absent labels are not lost.

Rules of this file: of a label travel a count, a mean and a variance for each input of the head; of
fewer than SAMPLES_MIN samples nothing does, and never a sample. What was received is checked before
it is used; what does not fit the head begins afresh.
Shapes: C classes, D inputs of the head, N samples.
Source: PASS (Zhu et al. 2021), which draws features around class means where classes come one after
the other; here holders do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.layers import find_layers
from mfd.learn.stepping import CARRIED

__all__ = ["Prototypes", "head_of", "inputs_of"]

SAMPLES_MIN = 16  # of a label at one holder: a mean of fewer would tell of single samples
KEPT = 0.5  # weight of what was known of a label against new samples: the features have moved on
SLOTS = ("count", "mean", "variance")


def head_of(module: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last linear map. Raises: LearnError where the last layer has none."""
    last = find_layers(module)[-1]
    owned = set(last.tensors)
    found = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and f"{name}.weight" in owned
    ]
    if not found:
        raise LearnError(f"prototypes need a linear head; layer {last.name!r} has none")
    return found[-1]


def inputs_of(rest: nn.Module, head: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """What `head` is given, (N, D), where `rest`, which ends in it, is given x."""
    seen: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            rest(x)
    finally:
        handle.remove()
    return seen[-1].float()


@dataclass(slots=True)
class Prototypes:
    """Statistics of each class at the input of the head."""

    key: str  # the head's weight, by which the statistics travel
    count: torch.Tensor  # (C,), older samples count less; 0: nothing is known
    mean: torch.Tensor  # (C, D)
    variance: torch.Tensor  # (C, D)

    @classmethod
    def of(cls, name: str, head: nn.Linear, carried: Mapping[str, torch.Tensor]) -> Prototypes:
        """Those that came with the head, or none yet."""
        classes, width = head.weight.shape
        key = f"{name}.weight"
        found = [carried.get(f"{CARRIED}prototypes.{slot}/{key}") for slot in SLOTS]
        shapes = [(classes,), (classes, width), (classes, width)]
        fresh = cls(key, *(torch.zeros(shape) for shape in shapes))
        whole: list[torch.Tensor] = []
        for tensor, shape in zip(found, shapes, strict=True):
            if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                return fresh
            if not bool(torch.isfinite(tensor).all()):
                return fresh
            whole.append(tensor.clone())
        if bool((whole[0] < 0).any()) or bool((whole[2] < 0).any()):
            return fresh
        return cls(key, *whole)

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that travel with the head's layer: 4 x C x (1 + 2 D) bytes."""
        values = (self.count, self.mean, self.variance)
        return {
            f"{CARRIED}prototypes.{slot}/{self.key}": value
            for slot, value in zip(SLOTS, values, strict=True)
        }

    @property
    def known(self) -> torch.Tensor:
        """Labels of which something is known."""
        return torch.nonzero(self.count > 0).flatten()

    def draw(self, each: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`each` inputs of the head for every known label, and the labels: (N, D), (N,).

        Where no mean is negative the inputs are taken to come from a ReLU, and none is drawn below
        0.
        """
        labels = self.known.repeat(each)
        noise = torch.randn(len(labels), self.mean.shape[1])
        drawn = self.mean[labels] + noise * self.variance[labels].sqrt()
        return (drawn.clamp(min=0) if bool((self.mean >= 0).all()) else drawn), labels

    def learn(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in what this holder's samples look like: inputs (N, D), labels (N,)."""
        inputs, labels = inputs.cpu(), labels.cpu()
        for label in torch.unique(labels).tolist():
            own = inputs[labels == label]
            if len(own) < SAMPLES_MIN:
                continue
            old = KEPT * float(self.count[label])
            share = old / (old + len(own))
            self.mean[label].lerp_(own.mean(0), 1 - share)
            self.variance[label].lerp_(own.var(0), 1 - share)
            self.count[label] = old + len(own)
