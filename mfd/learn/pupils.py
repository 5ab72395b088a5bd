"""Learners side by side on the same batches: what lessons between unlike models are made of.

Rules of this file: a pupil's loss is that of an ordinary stop, and what a lesson adds to it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

from mfd.learn.errors import Cancelled, LearnError
from mfd.learn.exits import divergence, early_answers, joint_loss
from mfd.learn.holdings import Holding
from mfd.learn.measuring import measure
from mfd.learn.options import Options, rate
from mfd.learn.rows import ENDLESS, Schedule, tensors_of
from mfd.learn.stepping import Stepper
from mfd.learn.stop import prior
from mfd.learn.training import MEASURED_MAX

__all__ = ["Batches", "Pupil", "Visit", "claims_of", "lessons", "measured", "resident_claims"]

SPOILT = 2.0  # times the loss of a guess

Lesson = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits, rows -> loss


@dataclass(frozen=True, slots=True)
class Visit:
    """What is at hand when a walker comes."""

    holding: Holding
    public: Holding | None
    laps: int
    journey: tuple[float, float]
    seed: int
    progress: Callable[[float], None] | None = None
    cancelled: Callable[[], bool] | None = None

    @property
    def fading(self) -> float:
        """How much of a table's weight is left at each stop: it stands for about one lap."""
        start, stop = self.journey
        return 1 - min(1.0, max(stop - start, 0.0) * self.laps)


class Pupil:
    """A whole module that learns: its optimiser, its loss, and what a lesson adds."""

    def __init__(self, module: nn.Module, at: Visit, schedule: Schedule, options: Options) -> None:
        self.module = module.train().requires_grad_(True)
        self.lesson: Lesson | None = None
        self.options = options
        self.x, self.y = tensors_of(at.holding, schedule.used)
        self.teacher: nn.Module | None = None
        if options.distill:
            self.teacher = copy.deepcopy(module).eval().requires_grad_(False)
        self.counts = None
        if options.logit_adjustment and at.holding.y.ndim == 1:
            self.counts = torch.bincount(torch.from_numpy(at.holding.y.astype("int64")))
        named = {k: p for k, p in module.named_parameters() if p.is_floating_point()}
        self.stepper = Stepper(named, options)

    def inputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Samples of this peer as the module takes them."""
        return as_input(self.x[rows])

    def step(self, rows: torch.Tensor, rate: float) -> None:
        """Learn from the samples with these places in the schedule."""
        options = self.options
        self.stepper.forget()
        x = self.inputs(rows)
        logits, early = early_answers(self.module, x)
        loss = joint_loss(lambda said: self._loss(said, rows), logits, early, options.temperature)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(x)
            loss = loss + options.distill * divergence(logits, wanted, options.temperature)
        if self.lesson is not None:
            loss = loss + self.lesson(logits, rows)
        (loss * self.stepper.loss_scale).backward()  # type: ignore[no-untyped-call]
        self.stepper.step(rate)

    def _loss(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        classes = logits.shape[-1]
        flat = logits.reshape(-1, classes)
        if self.counts is not None:
            flat = flat + self.options.logit_adjustment * prior(self.counts, classes)
        return F.cross_entropy(flat, self.y[rows].long().reshape(-1))


def as_input(x: torch.Tensor) -> torch.Tensor:
    """Samples as modules take them: floats as they are, tokens as whole numbers of 64 bits."""
    return x if x.is_floating_point() else x.long()


def lessons(pupils: Sequence[Pupil], at: Visit, schedule: Schedule, options: Options) -> None:
    """Take the steps of a visit, all pupils on the same batch in turn. Raises: Cancelled."""
    if schedule.steps == ENDLESS:
        raise LearnError("plan.learn: plans of mode distill have epochs or steps, not seconds")
    for step, rows in enumerate(schedule.batches()):
        if at.cancelled is not None and at.cancelled():
            raise Cancelled
        for pupil in pupils:
            pupil.step(rows, rate(options, at.journey, step, step / schedule.steps))
        if at.progress is not None:
            at.progress((step + 1) / schedule.steps)
    for pupil in pupils:
        pupil.stepper.finish()
    for pupil in pupils:
        pupil.module.eval().requires_grad_(False)


def measured(module: nn.Module, at: Visit) -> dict[str, float]:
    """Loss and accuracy on some of the local samples. Raises: LearnError; Cancelled."""
    return measure(module, at.holding, limit=MEASURED_MAX, cancelled=at.cancelled)


class Batches:
    """Batches of the public set's inputs, in random order without end."""

    def __init__(self, public: Holding, batch: int, seed: int) -> None:
        self.x, _ = tensors_of(public, torch.arange(len(public.x)))
        self._batch = min(batch, len(self.x))
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> torch.Tensor:
        """Indices of the next batch."""
        return torch.randint(len(self.x), (self._batch,), generator=self._generator)

    def inputs(self, rows: torch.Tensor) -> torch.Tensor:
        """The samples with these indices."""
        return as_input(self.x[rows])


class Mixtures:
    """Invented inputs where there is no public set: local samples laid over each other, shifted.

    Rows and columns of one sample, values of another between them: what both models say of such
    inputs tells of labels that are rare here.
    """

    def __init__(self, holding: Holding, batch: int, seed: int) -> None:
        self.x, _ = tensors_of(holding, torch.arange(len(holding.x)))
        self._batch = batch
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = self.x[:0]

    def draw(self) -> torch.Tensor:
        """Invent the next batch."""
        g, count = self._generator, len(self.x)
        a = self.x[torch.randint(count, (self._batch,), generator=g)]
        b = self.x[torch.randint(count, (self._batch,), generator=g)]
        share = torch.rand((self._batch, *[1] * (a.ndim - 1)), generator=g)
        mixed = share * a + (1 - share) * b
        for axis in range(2, a.ndim):  # a picture's height and breadth
            size = a.shape[axis]
            reach = max(1, size // 8)
            by = int(torch.randint(-reach, reach + 1, (1,), generator=g))
            mixed = mixed.roll(by, axis)
            edge = torch.randint(size + 1, (2,), generator=g).sort().values
            inside = torch.zeros(size, dtype=torch.bool)
            inside[edge[0] : edge[1]] = True
            view = [1] * a.ndim
            view[axis] = size
            mixed = torch.where(inside.view(view), mixed, a)
        self._drawn = mixed
        return torch.arange(self._batch)

    def inputs(self, rows: torch.Tensor) -> torch.Tensor:
        """The batch last invented."""
        return self._drawn[rows]


def claims_of(
    after: Mapping[str, float], before: Mapping[str, float], schedule: Schedule
) -> dict[str, float]:
    """What is claimed of who has learned. Raises: LearnError where the loss is not finite."""
    if not math.isfinite(after["loss"]):
        raise LearnError(
            f"the loss is {after['loss']} after {schedule.steps} steps; lower plan.learn lr"
        )
    counts = {"samples": float(schedule.steps * schedule.batch), "steps": float(schedule.steps)}
    return {**after, **counts, "loss_before": before["loss"]}


def resident_claims(
    after: Mapping[str, float], before: Mapping[str, float], classes: int
) -> dict[str, float]:
    """What is claimed of the resident.

    Raises: LearnError where its loss is not finite, or far above that of a guess: whoever sends the
    walker decides how much it teaches, and must not be able to undo what a resident knows.
    """
    if not math.isfinite(after["loss"]):
        raise LearnError("the loss of the resident model is no longer finite; lower plan.learn lr")
    if after["loss"] > max(before["loss"], SPOILT * math.log(max(classes, 2))):
        raise LearnError(
            f"the lesson would leave the resident model with a loss of {after['loss']:.3g}, from "
            f"{before['loss']:.3g}, far worse than a guess; lower plan.learn teach or lr"
        )
    return {
        "resident_loss": after["loss"],
        "resident_accuracy": after["accuracy"],
        "resident_accuracy_before": before["accuracy"],
    }
