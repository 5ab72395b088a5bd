"""Train, measure: a module, a range of its layers, local data.

Rules of this file: nothing outside the given layers changes, not a bit. Same seed, data, thread
count and machine type: same result.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

from mfd.learn.errors import Cancelled, LearnError
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, indices_of, split_at
from mfd.packet.task import Range

__all__ = ["DEFAULTS", "Options", "measure", "train"]

ROWS_BYTES_MAX = 256 << 20  # of activations or teacher logits kept for the time of a stop
MEASURE_BATCH = 256
MEASURE_BATCH_LANGUAGE = 16  # each with length x vocabulary logits
PRIOR_COUNT = 1.0  # imagined samples of every label
MEASURED_MAX = 1024  # samples behind the claims of a training stop: enough for +-1.5 points


@dataclass(frozen=True, slots=True)
class Options:
    """How a stop learns: the plan's `learn`; what it does not name has these values."""

    epochs: float = 10.0  # passes over the local data at one stop; may be a fraction
    batch: int = 32
    lr: float = 2e-3  # at the start of the journey; falls to 0 as a cosine over all of it
    optimizer: str = "adam"  # or "sgd", with momentum 0.9; its state lasts one stop
    distill: float = 0.3  # weight of the received model's opinion
    temperature: float = 2.0
    anchor: float = 0.0  # L2 pull to the received parameters
    warmup: int = 5  # steps at every stop, since Adam starts afresh
    clip: float = 5.0  # norm of the gradient; 0: none
    logit_adjustment: float = 1.0  # weight of the local label prior in the training loss
    threads: int = 0  # of torch; 0: as the peer is set

    @classmethod
    def of(cls, learn: Mapping[str, Any]) -> Options:
        """Raises: LearnError, one sentence, for an unknown name or a value out of range."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in learn.items():
            if key not in known:
                raise LearnError(f"plan.learn has no {key!r}; it has {', '.join(known)}")
            kind = type(known[key].default)
            if kind is float and type(value) in (int, bool):
                value = float(value)
            if type(value) is not kind:
                raise LearnError(f"plan.learn: {key} is a {kind.__name__}, not {value!r}")
            values[key] = value
        options = cls(**values)
        for key, value in asdict(options).items():
            if not isinstance(value, str) and not 0 <= value <= 1e6:
                raise LearnError(f"plan.learn: {key} is out of range: {value!r}")
        if options.optimizer not in ("adam", "sgd"):
            raise LearnError(f"plan.learn: optimizer is adam or sgd, not {options.optimizer!r}")
        for key in ("epochs", "batch", "lr", "temperature"):
            if not getattr(options, key):
                raise LearnError(f"plan.learn: {key} must be above 0")
        return options


DEFAULTS: Mapping[str, Any] = asdict(Options())


class Rows:
    """A frozen function of the local samples: kept where it fits, else computed every time."""

    def __init__(
        self,
        function: nn.Module,
        source: Callable[[torch.Tensor], torch.Tensor],
        *,
        shape: tuple[int, int],  # samples, batch
        frozen: bool,
    ) -> None:
        samples, batch = shape
        self.source = source
        self.table: torch.Tensor | None = None
        # whole batches only: with the same shape as in training, rows come out bit-equal
        starts = range(0, samples, batch)
        index = torch.arange(samples)
        first = self._compute(function, index[:batch])
        if first.nbytes * len(starts) > ROWS_BYTES_MAX:
            self.function = function if frozen else copy.deepcopy(function)
            return
        self.table = first.new_empty((samples, *first.shape[1:]))
        for start in starts:
            start = min(start, samples - batch)
            rows = index[start : start + batch]
            self.table[rows] = first if start == 0 else self._compute(function, rows)

    def _compute(self, function: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = function(self.source(rows))
        return out

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Values of the samples with these indices: (rows, ...)."""
        return self._compute(self.function, rows) if self.table is None else self.table[rows]


def train(
    module: nn.Module,
    holding: Holding,
    *,
    trained: Sequence[Range],
    options: Options | None = None,
    journey: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Train layers lo..hi-1 of each range in place; all others keep their bytes. Returns claims.

    Raises: LearnError where the model and the data do not fit or the loss is no longer finite;
    Cancelled, with the trained layers left in between.
    """
    options = options or Options()
    layers = find_layers(module)
    chosen = indices_of(trained, len(layers))
    before = measure(module, holding, limit=MEASURED_MAX, cancelled=cancelled)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        schedule = Schedule.of(len(holding.x), options, seed)
        steps = schedule.steps
        stop = _Stop(module, holding, schedule, chosen, options)
        for step, rows in enumerate(schedule.batches()):
            if cancelled is not None and cancelled():
                raise Cancelled
            stop.step(rows, _rate(options, journey, step, steps))
            if progress is not None:
                progress((step + 1) / steps)
    module.eval().requires_grad_(False)
    after = measure(module, holding, limit=MEASURED_MAX, cancelled=cancelled)
    if not math.isfinite(after["loss"]):
        raise LearnError(f"the loss is {after['loss']} after {steps} steps; lower plan.learn lr")
    after.update(
        samples=float(steps * schedule.batch), steps=float(steps), loss_before=before["loss"]
    )
    return after


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which samples each step sees: passes in random order, cut into batches of one size."""

    used: torch.Tensor  # indices of the samples that are seen at all
    steps: int
    batch: int
    seed: int

    @classmethod
    def of(cls, samples: int, options: Options, seed: int) -> Schedule:
        """For a holding of so many samples."""
        batch = min(options.batch, samples)
        steps = max(1, round(options.epochs * samples / batch))
        used = torch.arange(samples)
        if steps * batch < samples:
            generator = torch.Generator().manual_seed(seed)
            used = torch.randperm(samples, generator=generator)[: steps * batch]
        return cls(used, steps, batch, seed)

    def batches(self) -> Iterator[torch.Tensor]:
        """Positions in `used` for each step; one pass is in memory at a time."""
        generator = torch.Generator().manual_seed(self.seed)
        left = torch.empty(0, dtype=torch.int64)
        for _ in range(self.steps):
            if len(left) < self.batch:
                left = torch.cat([left, torch.randperm(len(self.used), generator=generator)])
            yield left[: self.batch]
            left = left[self.batch :]


def _rate(options: Options, journey: tuple[float, float], step: int, steps: int) -> float:
    """Cosine over the whole journey, of which this stop is a part, times this stop's warm-up."""
    first, last = journey
    done = first + (last - first) * step / steps
    warm = min(1.0, (step + 1) / (options.warmup + 1))
    return options.lr * warm * 0.5 * (1 + math.cos(math.pi * done))


class _Stop:
    """One stop: the frozen front as rows, the trained rest, the optimiser, the losses."""

    def __init__(
        self,
        module: nn.Module,
        holding: Holding,
        schedule: Schedule,
        chosen: list[int],
        options: Options,
    ) -> None:
        self.options = options
        self.x, self.y = _tensors(holding, schedule.used)
        layers = find_layers(module)
        module.eval().requires_grad_(False)
        front, self.rest = split_at(module, layers, chosen[0])
        shape = (len(schedule.used), schedule.batch)
        self.inputs: Callable[[torch.Tensor], torch.Tensor] = self._raw
        if front is not None:
            self.inputs = Rows(front, self._raw, shape=shape, frozen=True)
        self.teacher: Rows | None = None
        if options.distill:
            self.teacher = Rows(self.rest, self.inputs, shape=shape, frozen=False)
        self.counts = None
        if options.logit_adjustment and holding.y.ndim == 1:
            self.counts = torch.bincount(torch.from_numpy(holding.y.astype("int64")))
        self.parameters = _thaw(
            module, [layers[i] for i in chosen], every=len(chosen) == len(layers)
        )
        self.received = [p.detach().clone() for p in self.parameters] if options.anchor else []
        self.optimizer: torch.optim.Optimizer
        if options.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(self.parameters, options.lr, momentum=0.9)
        else:
            self.optimizer = torch.optim.Adam(self.parameters, options.lr)

    def _raw(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.x[rows]
        return x if x.is_floating_point() else x.long()

    def step(self, rows: torch.Tensor, rate: float) -> None:
        options = self.options
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.rest(self.inputs(rows))
        loss = self._loss(logits, rows)
        loss.backward()  # type: ignore[no-untyped-call]
        for p, origin in zip(self.parameters, self.received, strict=False):
            if p.grad is not None:
                p.grad.add_(p.detach() - origin, alpha=options.anchor)
        if options.clip:
            nn.utils.clip_grad_norm_(self.parameters, options.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def _loss(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        classes, options = logits.shape[-1], self.options
        target = self.y[rows].long().reshape(-1)
        flat = logits.reshape(-1, classes)
        adjusted = flat
        if self.counts is not None:
            adjusted = flat + options.logit_adjustment * _prior(self.counts, classes)
        loss = F.cross_entropy(adjusted, target)
        if self.teacher is not None:
            tau = options.temperature
            wanted = F.log_softmax(self.teacher(rows).reshape(-1, classes) / tau, dim=-1)
            student = F.log_softmax(flat / tau, dim=-1)
            kl = F.kl_div(student, wanted, reduction="batchmean", log_target=True)
            loss = loss + options.distill * tau * tau * kl
        return loss


def _thaw(module: nn.Module, chosen: Sequence[Any], *, every: bool) -> list[nn.Parameter]:
    """Let the chosen layers learn: gradients for parameters, training mode for modules."""
    keys = {key for layer in chosen for key in layer.tensors}
    parameters = [
        p for key, p in module.named_parameters() if key in keys and p.is_floating_point()
    ]
    if not parameters:
        names = ", ".join(layer.name for layer in chosen)
        raise LearnError(f"layers {names} have no parameters that could be trained")
    for p in parameters:
        p.requires_grad_(True)
    if every:
        module.train()
    for layer in chosen:
        for name in layer.modules:
            module.get_submodule(name).train()
    return parameters


def _prior(counts: torch.Tensor, classes: int) -> torch.Tensor:
    """Log prior of the local labels, smoothed, so that a label never seen here has a finite one."""
    smooth = F.pad(counts.float(), (0, classes - len(counts))) + PRIOR_COUNT
    return torch.log(smooth / smooth.sum())


def _tensors(holding: Holding, used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    index = used.numpy()
    whole = len(index) == len(holding.x)
    x, y = (holding.x, holding.y) if whole else (holding.x[index], holding.y[index])
    if not x.flags.writeable:
        x = x.copy()
    if not y.flags.writeable:
        y = y.copy()
    return torch.from_numpy(x), torch.from_numpy(y)


def measure(
    module: nn.Module,
    holding: Holding,
    *,
    limit: int | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Mean cross entropy and accuracy, on all samples or on `limit` of them spread evenly.

    Raises: LearnError where the model and the data do not fit; Cancelled.
    """
    count = len(holding.x)
    chosen = torch.arange(count)
    if limit is not None and count > limit:
        chosen = torch.arange(limit) * count // limit
    x, y = _tensors(holding, chosen)
    module.eval()
    loss, right = 0.0, 0
    batch = MEASURE_BATCH if y.ndim == 1 else MEASURE_BATCH_LANGUAGE
    for start in range(0, len(x), batch):
        if cancelled is not None and cancelled():
            raise Cancelled
        rows = x[start : start + batch]
        target = y[start : start + batch].long()
        with torch.no_grad():
            logits = _forward(module, rows, target, holding.classes)
        flat, wanted = logits.reshape(-1, logits.shape[-1]), target.reshape(-1)
        loss += float(F.cross_entropy(flat, wanted, reduction="sum"))
        right += int((flat.argmax(-1) == wanted).sum())
    total = y.numel()
    return {"samples": float(len(x)), "loss": loss / total, "accuracy": right / total}


def _forward(
    module: nn.Module, x: torch.Tensor, target: torch.Tensor, classes: int
) -> torch.Tensor:
    try:
        logits: torch.Tensor = module(x if x.is_floating_point() else x.long())
    except (RuntimeError, IndexError, TypeError) as exc:
        shape = list(x.shape[1:])
        raise LearnError(f"the model does not take samples of shape {shape}: {exc}") from exc
    if tuple(logits.shape[:-1]) != tuple(target.shape) or logits.shape[-1] < classes:
        raise LearnError(
            f"the model answers {list(logits.shape[1:])} a sample, the data has labels of shape "
            f"{list(target.shape[1:])} and {classes} classes"
        )
    return logits
