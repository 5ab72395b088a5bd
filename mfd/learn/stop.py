"""One block at one stop: the frozen front as rows, the trained rest, the losses, a step.

Rules of this file: nothing outside the chosen layers changes, not a bit. Micro-batches add up to
the batch's own gradient, within rounding; with dropout they draw other lots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.exits import divergence, early_answers, joint_loss
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, split_at
from mfd.learn.measuring import inputs_for
from mfd.learn.options import Options
from mfd.learn.replay import Draws
from mfd.learn.rows import Rows, Schedule, tensors_of
from mfd.learn.stepping import Stepper

__all__ = ["DRAWN", "Smaller", "Stop", "prior", "thaw"]


class Smaller(Protocol):
    """Versions inside a model, which answer along with it."""

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What the one whose turn it is answers to a batch."""
        ...

    def first(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What the first and largest one answers; it is nobody's turn."""
        ...


PRIOR_COUNT = 1.0  # imagined samples of every label
DRAWN = 0.5  # draws beside each sample
LESSONS_MAX = 10_000  # steps with draws of their own; later ones draw from the same
ROWS_KEPT = 64 << 20  # bytes of what a frozen front makes of draws


class Stop:
    """Trains chosen layers of a module, step by step."""

    def __init__(
        self,
        module: nn.Module,
        holding: Holding,
        schedule: Schedule,
        chosen: list[int],
        options: Options,
        *,
        micro: int = 0,
        keep: int | None = None,
        draws: Draws | None = None,
    ) -> None:
        """`micro` samples are in memory at once; `keep` bytes of rows may be kept."""
        self.options = options
        self.smaller: Smaller | None = None
        self.micro = min(micro or schedule.batch, schedule.batch)
        self.x, self.y = tensors_of(holding, schedule.used)
        self.convert = inputs_for(module)
        layers = find_layers(module)
        module.eval().requires_grad_(False)
        front, self.rest = split_at(module, layers, chosen[0])
        shape = (len(schedule.used), self.micro)
        self.inputs: Callable[[torch.Tensor], torch.Tensor] = self._raw
        self.teacher: Rows | None = None
        self._device = next((p.device.type for p in module.parameters()), "cpu")
        with self.cast():
            if front is not None:
                rows = Rows(front, self._raw, shape=shape, frozen=True, limit=keep)
                self.inputs = rows
                if keep is not None and rows.table is not None:
                    keep -= rows.table.nbytes
            if options.distill:
                source = self.inputs
                self.teacher = Rows(self.rest, source, shape=shape, frozen=False, limit=keep)
        self.replay = None if draws is None else Replay(self, draws, schedule, front, keep)
        self.counts = None
        if options.logit_adjustment and holding.y.ndim == 1:
            self.counts = torch.bincount(torch.from_numpy(holding.y.astype("int64")))
        named = thaw(module, [layers[i] for i in chosen], every=len(chosen) == len(layers))
        self.stepper = Stepper(named, options)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What learns."""
        return self.stepper.parameters

    def _raw(self, rows: torch.Tensor) -> torch.Tensor:
        return self.convert(self.x[rows])

    def cast(self) -> torch.autocast:
        """The precision that the plan wants."""
        half = self.options.precision == "bf16"
        return torch.autocast(self._device, dtype=torch.bfloat16, enabled=half)

    def step(self, rows: torch.Tensor, rate: float) -> torch.Tensor:
        """Learn from the samples with these positions; return their loss, a scalar."""
        self.stepper.forget()
        total = torch.zeros(())
        for part in torch.split(rows, self.micro):
            loss = self.loss(part)
            share = len(part) / len(rows)
            weight = share * self.stepper.loss_scale
            (loss if weight == 1 else loss * weight).backward()  # type: ignore[no-untyped-call]
            if self.replay is not None:  # apart, so that no more is in memory at once
                (self.replay.loss(len(part)) * weight).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach().cpu() * share
        self.stepper.step(rate)
        return total

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Mean loss of some samples, with what stands between it and forgetting."""
        with self.cast():
            answer, others = early_answers(self.rest, self.inputs(rows))
            if self.smaller is not None:
                others = [*others, *self.smaller(self._raw(rows))]
        tau = self.options.temperature
        return joint_loss(lambda said: self._loss(said, rows), answer, others, tau)

    def _loss(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        classes, options = logits.shape[-1], self.options
        target = self.y[rows].to(logits.device, torch.int64).reshape(-1)
        flat = logits.reshape(-1, classes)
        adjusted = flat
        if self.counts is not None:
            local = prior(self.counts, classes).to(logits.device)
            adjusted = flat + options.logit_adjustment * local
        loss = F.cross_entropy(adjusted, target)
        if self.teacher is not None:
            with self.cast():
                opinion = self.teacher(rows)
            loss = loss + options.distill * divergence(flat, opinion, options.temperature)
        return loss


class Replay:
    """Draws of all classes, which a stop learns from beside its own samples."""

    def __init__(
        self,
        stop: Stop,
        draws: Draws,
        schedule: Schedule,
        front: nn.Module | None,
        keep: int | None,
    ) -> None:
        self.stop = stop
        steps = min(schedule.steps, LESSONS_MAX)
        x, self.y = draws(steps * max(1, round(schedule.batch * DRAWN)))
        self.generator = torch.Generator().manual_seed(schedule.seed)
        shape = (len(x), min(stop.micro, len(x)))
        convert = stop.convert
        self.inputs: Callable[[torch.Tensor], torch.Tensor] = lambda rows: convert(x[rows])
        if front is not None:
            limit = ROWS_KEPT if keep is None else 0  # a budget has no room for them
            self.inputs = Rows(front, self.inputs, shape=shape, frozen=True, limit=limit)

    def loss(self, samples: int) -> torch.Tensor:
        """Mean loss of the draws that stand beside so many samples, weighted as the plan says."""
        count = max(1, round(samples * DRAWN))
        rows = torch.randint(len(self.y), (count,), generator=self.generator)
        with self.stop.cast():
            answer, others = early_answers(self.stop.rest, self.inputs(rows))
        target = self.y[rows].to(answer.device)
        tau = self.stop.options.temperature
        loss = joint_loss(lambda said: F.cross_entropy(said.float(), target), answer, others, tau)
        return self.stop.options.replay * loss


def thaw(module: nn.Module, chosen: Sequence[Any], *, every: bool) -> dict[str, nn.Parameter]:
    """Let the chosen layers learn: gradients for parameters, training mode for modules.

    Raises: LearnError where there is nothing that could learn.
    """
    keys = {key for layer in chosen for key in layer.tensors}
    parameters = {
        key: p for key, p in module.named_parameters() if key in keys and p.is_floating_point()
    }
    if not parameters:
        names = ", ".join(layer.name for layer in chosen)
        raise LearnError(f"layers {names} have no parameters that could be trained")
    for p in parameters.values():
        p.requires_grad_(True)
    if every:
        module.train()
    for layer in chosen:
        for name in layer.modules:
            module.get_submodule(name).train()
    return parameters


def prior(counts: torch.Tensor, classes: int) -> torch.Tensor:
    """Log prior of the local labels, smoothed, so that a label never seen here has a finite one."""
    smooth = F.pad(counts.float(), (0, classes - len(counts))) + PRIOR_COUNT
    return torch.log(smooth / smooth.sum())
