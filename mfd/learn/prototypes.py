"""Prototypes: the walker is the mean embedding of each label; embeddings gather around them.

Rules of this file: every label that any peer has counts the same for a resident's head, however few
samples of it are here; means fade, so that they stand for about one lap.
Source: arXiv 2105.00243; the balanced lesson of the head is ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding
from mfd.learn.mutual import AT_HOME
from mfd.learn.options import Options
from mfd.learn.pupils import Pupil, Visit, as_input, claims_of, lessons, measured, resident_claims
from mfd.learn.rows import Schedule, tensors_of
from mfd.learn.tables import Table

__all__ = ["align", "head_of"]

BATCH = 256


def head_of(module: nn.Module) -> nn.Linear:
    """The last linear layer: what it is given is a sample's embedding. Raises: LearnError."""
    heads = [m for m in module.modules() if isinstance(m, nn.Linear)]
    if not heads:
        raise LearnError("the resident model has no linear head, so it has no prototypes")
    return heads[-1]


class _Watch:
    """Sees what a model's head is given: the embedding of each sample."""

    def __init__(self, module: nn.Module) -> None:
        self.head = head_of(module)
        self.last = torch.empty(0)
        self._hook = self.head.register_forward_pre_hook(self._see)

    def _see(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.last = inputs[0]

    def remove(self) -> None:
        """Look away."""
        self._hook.remove()


def _means(
    resident: nn.Module, watch: _Watch, holding: Holding
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean embedding (classes, width) and number (classes,) of the local samples of each label."""
    x, _ = tensors_of(holding, torch.arange(len(holding.x)))
    y = torch.from_numpy(holding.y.astype("int64"))
    sums = torch.zeros(holding.classes, watch.head.in_features)
    with torch.no_grad():
        for start in range(0, len(x), BATCH):
            resident(as_input(x[start : start + BATCH]))
            sums.index_add_(0, y[start : start + BATCH], watch.last)
    amount = torch.bincount(y, minlength=holding.classes).float()
    return sums / amount.clamp(min=1)[:, None], amount


def align(
    table: Table, resident: nn.Module, at: Visit, options: Options, *, teach: float
) -> dict[str, float]:
    """Keep embeddings near the means of their labels, and the head right on all the means."""
    if at.holding.y.ndim != 1:
        raise LearnError("prototypes are of labels, and this peer's data is text")
    values, counts = table.values.detach().clone(), table.counts.detach().clone()
    watch = _Watch(resident)
    head = watch.head
    if tuple(values.shape) != (at.holding.classes, head.in_features):
        raise LearnError(
            f"the walker has prototypes of {list(values.shape)}, the resident model's head takes "
            f"{head.in_features} values and the data has {at.holding.classes} classes: residents "
            "that share prototypes have heads of one width"
        )
    schedule = Schedule.of(len(at.holding.x), options, at.seed)
    before = measured(resident, at)
    pupil = Pupil(resident, at, schedule, replace(options, **AT_HOME))
    known = counts > 0
    labels = torch.arange(len(known))[known]
    target = torch.from_numpy(at.holding.y.astype("int64"))[schedule.used]

    def follow(_: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        wanted = target[rows]
        seen = known[wanted]
        near = (watch.last[seen] - values[wanted[seen]]).square().mean() if seen.any() else 0.0
        right = nn.functional.cross_entropy(head(values[labels]), labels)
        return teach * (near + right)

    if known.any():
        pupil.lesson = follow
    try:
        lessons([pupil], at, schedule, options)
        after = measured(resident, at)
        own, amount = _means(resident, watch, at.holding)
    finally:
        watch.remove()
    with torch.no_grad():
        kept = counts * at.fading
        total = kept + amount
        mean = (kept[:, None] * values + amount[:, None] * own) / total.clamp(min=1)[:, None]
        table.values.copy_(torch.where(total[:, None] > 0, mean, values))
        table.counts.copy_(total)
    return {
        **claims_of(after, before, schedule),
        **resident_claims(after, before, at.holding.classes),
    }
