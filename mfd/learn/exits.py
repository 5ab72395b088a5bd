"""Models with an answer after every block: a prefix of the blocks is a model of its own.

Rules of this file: a stage that is not the last hands on what its body makes; its exit is run in
training alone, or where the stage is the last one of a model cut short.
Source: spec/packet.md, P-402; self-distillation from the deepest exit: arXiv 1905.08094; depth
before width: arXiv 2201.00011 and learning notes on DepthFL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

__all__ = ["Stage", "divergence", "early_answers", "joint_loss"]


class Stage(nn.Module):
    """A block and its exit: x -> body(x), or exit(body(x)) where it is the last stage."""

    def __init__(self, body: nn.Module, exit_: nn.Module, *, last: bool) -> None:
        super().__init__()
        self.body = body
        self.exit = exit_
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Hand on, or answer."""
        y: torch.Tensor = self.body(x)
        if self.last:
            y = self.exit(y)
        return y


def early_answers(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run a model once: its answer, and those of the exits before the last, shallow ones first.

    Shape: x (B, ...) -> logits (B, classes) each, or (B, T, classes) for language
    """
    if not isinstance(module, nn.Sequential):
        return module(x), []
    early = []
    for child in module:
        if isinstance(child, Stage) and not child.last:
            x = child.body(x)
            early.append(child.exit(x))
        else:
            x = child(x)
    return x, early


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher || student) x temperature^2, the mean over rows; logits (..., classes)."""
    classes = student.shape[-1]
    wanted = F.log_softmax(teacher.float().reshape(-1, classes) / temperature, dim=-1)
    given = F.log_softmax(student.float().reshape(-1, classes) / temperature, dim=-1)
    kl = F.kl_div(given, wanted, reduction="batchmean", log_target=True)
    return temperature * temperature * kl


def joint_loss(
    loss: Callable[[torch.Tensor], torch.Tensor],
    answer: torch.Tensor,
    others: Sequence[torch.Tensor],
    temperature: float,
) -> torch.Tensor:
    """Mean over the full answer and the smaller ones, each of which also follows the full one."""
    total = loss(answer)
    if not others:
        return total
    for other in others:
        total = total + loss(other) + divergence(other, answer.detach(), temperature)
    return total / (1 + len(others))
