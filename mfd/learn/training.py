"""Train: a module, a range of its layers, local data.

Rules of this file: nothing outside the given layers changes, not a bit. Same seed, data, thread
count and machine type: same result (but where `seconds` end a stop).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from mfd.learn.errors import Cancelled, LearnError
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, indices_of
from mfd.learn.measuring import measure
from mfd.learn.memory import Fit, Meter, fit, is_want_of_memory, state_bytes
from mfd.learn.options import DEFAULTS, Options, rate
from mfd.learn.replay import Draws
from mfd.learn.rows import ENDLESS, Schedule
from mfd.learn.stop import Smaller, Stop
from mfd.packet.task import Range

__all__ = ["DEFAULTS", "Options", "Outcome", "measure", "train", "train_blocks"]

MEASURED_LEAST = 128  # samples behind the claims of a training stop
MEASURED_MAX = 1024  # enough for +-1.5 points
MEASURED_SHARE = 24  # of the samples trained on: measuring twice costs some 3 % of training
EXPLODED = 100.0  # times the loss before, and one: training goes nowhere
LOOKS = {"cpu": 1, "cuda": 16}  # steps between two looks at the loss

Progress = Callable[[float], None]
Check = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stop has made of a module."""

    claims: dict[str, float]
    trained: tuple[Range, ...]
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)  # the optimiser's state


def train(
    module: nn.Module,
    holding: Holding,
    *,
    trained: Sequence[Range],
    options: Options | None = None,
    journey: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    progress: Progress | None = None,
    cancelled: Check | None = None,
) -> dict[str, float]:
    """Train layers lo..hi-1 of each range in place; all others keep their bytes. Returns claims.

    Raises: LearnError where the model and the data do not fit or the loss is no longer finite;
    Cancelled, with the trained layers left in between.
    """
    return train_blocks(
        module,
        holding,
        trained=trained,
        options=options,
        journey=journey,
        seed=seed,
        progress=progress,
        cancelled=cancelled,
    ).claims


def train_blocks(
    module: nn.Module,
    holding: Holding,
    *,
    trained: Sequence[Range],
    body: Range | None = None,
    block: int = 0,
    sweep: bool = False,
    budget: int = 0,
    options: Options | None = None,
    journey: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    carried: Mapping[str, torch.Tensor] | None = None,
    draws: Draws | None = None,
    progress: Progress | None = None,
    cancelled: Check | None = None,
    smaller: Smaller | None = None,
) -> Outcome:
    """Train as `train` does, by blocks (mfd.packet.task.LearnTask) within `budget` bytes, 0: any.

    `carried` is the optimiser's state of earlier stops; `draws` gives samples of all classes to
    learn from beside those here (mfd.learn.replay); `smaller` gives what versions inside the
    model answer to a batch: they learn along. Raises: as train.
    """
    options = options or Options()
    chosen = indices_of(trained, len(find_layers(module)))
    device = _device(options)
    module.to(device)
    try:
        fitted = fit(
            module,
            holding,
            options,
            trained=chosen,
            body=body,
            block=block,
            sweep=sweep,
            budget=budget,
            smaller=smaller,
        )
        run = _Run(module, holding, options, fitted, seed)
        run.smaller, run.draws = smaller, draws
        run.tell, run.cancelled, run.state = progress, cancelled, dict(carried or {})
        claims = run.claims(journey, device)
    except (RuntimeError, MemoryError) as exc:
        if not is_want_of_memory(exc):
            raise
        raise LearnError(
            f"this peer has too little memory to train layers {_shown(trained)}: {_first(exc)}"
        ) from exc
    finally:
        module.to("cpu").eval().requires_grad_(False)
    return Outcome(claims, fitted.ranges, run.state if options.carry else {})


def _shown(ranges: Sequence[Range]) -> str:
    return "+".join(f"{low}:{high}" for low, high in ranges)


def _first(exc: BaseException) -> str:
    return (str(exc) or "memory has run out").splitlines()[0][:200]


def _device(options: Options) -> str:
    has = torch.cuda.is_available()
    if options.device == "cuda" and not has:
        raise LearnError("the plan wants cuda, and this peer has none: leave device at auto")
    return "cuda" if has and options.device != "cpu" else "cpu"


class _Run:
    """All blocks of a stop, one after the other."""

    def __init__(
        self, module: nn.Module, holding: Holding, options: Options, fitted: Fit, seed: int
    ) -> None:
        self.module, self.holding, self.options = module, holding, options
        self.fitted, self.seed = fitted, seed
        self.tell: Progress | None = None
        self.smaller: Smaller | None = None
        self.draws: Draws | None = None
        self.cancelled: Check | None = None
        self.state: dict[str, torch.Tensor] = {}
        self.steps = self.samples = 0
        self.bound = math.inf  # of the loss

    def claims(self, journey: tuple[float, float], device: str) -> dict[str, float]:
        """Measure, train, measure."""
        count = len(self.fitted.blocks)
        narrow = any(p.dtype == torch.bfloat16 for p in self.module.parameters())
        meter = Meter(device, torch.bfloat16 if narrow else torch.float32)
        before = self._measure()
        if not math.isfinite(before["loss"]):
            raise LearnError(self._why_not_finite(before["loss"]))
        self.bound = EXPLODED * (1 + before["loss"])
        devices = [torch.cuda.current_device()] if device == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            for number, block in enumerate(self.fitted.blocks):
                first, last = journey
                edges = [first + (last - first) * (number + i) / count for i in (0, 1)]
                part = (edges[0], edges[1]) if count > 1 else journey
                self._block(block, number, part, LOOKS[device])
        self.module.eval().requires_grad_(False)
        after = self._measure()
        if not after["loss"] < self.bound:
            raise LearnError(
                f"the loss is {after['loss']:g} after {self.steps} steps, it was "
                f"{before['loss']:g}; lower plan.learn lr"
            )
        after.update(
            samples=float(self.samples), steps=float(self.steps), loss_before=before["loss"]
        )
        after["taken_bytes"] = float(state_bytes(self.module) + meter.taken())
        if self.fitted.estimate:
            after["estimate_bytes"] = float(self.fitted.estimate)
            after["micro"] = float(self.fitted.micro)
        if count > 1:
            after["blocks"] = float(count)
        return after

    def _why_not_finite(self, loss: float) -> str:
        """Say whose fault it is that there is no loss before the first step."""
        x = self.holding.x
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            odd = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0])
            return (
                f"the loss is {loss:g} before the first step: sample {odd} of this peer's data "
                "holds a number that is not finite; mend the data"
            )
        return (
            f"the loss is {loss:g} before the first step: the version that came, or the data here, "
            "has numbers that are too large or not finite"
        )

    def _measure(self) -> dict[str, float]:
        options = self.options
        rows = options.steps * options.batch or options.epochs * len(self.holding.x)
        limit = min(max(round(rows / MEASURED_SHARE), MEASURED_LEAST), MEASURED_MAX)
        batch = self.fitted.micro if self.fitted.estimate else 0
        return measure(
            self.module, self.holding, limit=limit, cancelled=self.cancelled, batch=batch
        )

    def _block(
        self, block: Sequence[int], number: int, journey: tuple[float, float], looks: int
    ) -> None:
        options, count = self.options, len(self.fitted.blocks)
        torch.manual_seed(self.seed + number)
        schedule = Schedule.of(len(self.holding.x), options, self.seed + number, 1 / count)
        stop = Stop(
            self.module,
            self.holding,
            schedule,
            list(block),
            options,
            micro=self.fitted.micro,
            keep=self.fitted.keep,
            draws=self.draws,
        )
        stop.smaller = self.smaller
        if options.carry:
            stop.stepper.resume(self.state)
        seconds, started = options.seconds / count, time.monotonic()
        losses: list[torch.Tensor] = []
        for step, rows in enumerate(schedule.batches()):
            if self.cancelled is not None and self.cancelled():
                raise Cancelled
            done = step / schedule.steps
            if schedule.steps == ENDLESS:
                done = (time.monotonic() - started) / seconds
                if done >= 1 and step:
                    break
            losses.append(stop.step(rows, rate(options, journey, step, min(done, 1.0))))
            self.steps += 1
            self.samples += len(rows)
            if len(losses) >= looks:
                self._look(losses)
            if self.tell is not None:
                part = min(done, 1.0) if schedule.steps == ENDLESS else (step + 1) / schedule.steps
                self.tell((number + part) / count)
        self._look(losses)
        stop.stepper.finish()
        if options.carry:
            self.state.update(stop.stepper.state())

    def _look(self, losses: list[torch.Tensor]) -> None:
        """Raises: LearnError where the loss has left all bounds."""
        for back, loss in enumerate(reversed(losses)):
            value = float(loss)
            if not value < self.bound:
                step = self.steps - back
                raise LearnError(f"the loss is {value:g} at step {step}; lower plan.learn lr")
        losses.clear()
