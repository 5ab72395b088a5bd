"""Replay: draws of all classes beside the local samples, from what holders have told of theirs.

Where labels are skewed, hardly any holder has pictures of two classes that look alike, and no loss
of its own tells them apart. So every class that is told of travels with the model as a normal
distribution with few directions, told once by each holder whose owner allows it, in the first lap;
each step then learns from some draws of all classes too, as many of one as of another. Draws of the
classes that are here are among them, or else being drawn would itself tell the class.
Rules of this file: nothing is told of a class with fewer than LEAST samples here, and no more than
one direction for TELLING samples; what comes from strangers is checked, and what does not fit
begins afresh.
Source: spec/packet.md, P-07; a generative replay (arXiv 1705.08690) whose generator is a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch

from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding
from mfd.learn.options import Options
from mfd.learn.states import state_of
from mfd.learn.stepping import CARRIED
from mfd.packet.extent import FULL
from mfd.packet.objects import Buffer
from mfd.packet.plan import Plan
from mfd.packet.task import LearnTask

__all__ = ["LEAST", "Classes", "Draws", "known_at"]

LEAST = 50  # samples of a class here, or nothing is told of it
TELLING = 10  # samples for each direction of its spread
TOLD_MAX = 65_504.0  # means and directions travel in 16 bits
SEEN_MAX = 5_000  # samples of a class that its moments are computed from
EXTRA = 8  # directions more than wanted, while they are sought
POOL_BYTES = 64 << 20  # of draws for one stop, which take no more than the samples here either
TABLE_BYTES = 64 << 20  # of what is told, in 32 bits: twice what travels
KIND = f"{CARRIED}classes."
SLOTS = ("count", "mean", "spread", "range")

Pair = tuple[torch.Tensor, torch.Tensor]
Draws = Callable[[int], Pair]  # so many samples, labels in turn


@dataclass(frozen=True)
class Classes:
    """What is known of each class: D numbers a sample, C classes, R directions.

    Shape: count (C,), mean (C, D), spread (C, R, D): rows at right angles, each as long as the
    standard deviation along it; range (2,): the least and the largest value that a sample has.
    """

    count: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor
    range: torch.Tensor
    shape: tuple[int, ...]  # of a sample
    room: int = POOL_BYTES  # bytes that draws may take

    @classmethod
    def none(cls, holding: Holding, directions: int) -> Classes:
        """Nothing is known yet. Raises: LearnError for data that cannot be drawn."""
        if holding.y.ndim != 1 or holding.x.dtype.kind != "f":
            raise LearnError("replay draws samples of numbers, and this data is text: set replay=0")
        shape = tuple(holding.x.shape[1:])
        classes, width = holding.classes, prod(shape)
        if (size := 4 * classes * (1 + directions) * width) > TABLE_BYTES:
            raise LearnError(
                f"replay: {classes} classes of {width} numbers in {directions} directions take "
                f"{size >> 20} MiB > {TABLE_BYTES >> 20}; lower replay_directions, or set replay=0"
            )
        return cls(
            torch.zeros(classes),
            torch.zeros(classes, width),
            torch.zeros(classes, directions, width),
            torch.tensor([torch.inf, -torch.inf]),
            shape,
            min(POOL_BYTES, holding.x.nbytes),
        )

    @classmethod
    def read(cls, state: Mapping[str, torch.Tensor], holding: Holding, directions: int) -> Classes:
        """What a layer has brought; nothing, where it brings none or what does not fit."""
        blank = cls.none(holding, directions)
        found = {
            name.removeprefix(KIND).partition("/")[0]: tensor.float()
            for name, tensor in state.items()
            if name.startswith(KIND)
        }
        if set(found) != set(SLOTS) or not all(
            found[slot].shape == getattr(blank, slot).shape for slot in SLOTS
        ):
            return blank
        finite = all(bool(torch.isfinite(found[slot]).all()) for slot in SLOTS)
        low, high = (float(edge) for edge in found["range"])
        if not finite or low > high or float(found["count"].min()) < 0:
            return blank
        return cls(**found, shape=blank.shape, room=blank.room)

    def tensors(self, owner: str) -> dict[str, torch.Tensor]:
        """As they travel with the layer that has the tensor `owner`; none while none is known."""
        if not len(self.known):
            return {}
        wide = ("count", "range")
        return {
            f"{KIND}{slot}/{owner}": getattr(self, slot).to(
                torch.float32 if slot in wide else torch.float16
            )
            for slot in SLOTS
        }

    @property
    def known(self) -> torch.Tensor:
        """Labels of which something is known, ascending."""
        return torch.arange(len(self.count))[self.count > 0]

    def with_those_of(self, holding: Holding, seed: int) -> Classes:
        """These, and what is here of the classes with samples enough. Memory: one class's samples.

        Two normal distributions are joined as their mixture's mean and the first directions of its
        covariance.
        """
        count, mean, spread = self.count.clone(), self.mean.clone(), self.spread.clone()
        low, high = (float(v) for v in self.range)
        generator = torch.Generator().manual_seed(seed)
        for label, amount in ((int(k), n) for k, n in holding.labels().items() if n >= LEAST):
            rows = torch.from_numpy(holding.y.astype("int64") == label).nonzero().flatten()
            rows = rows[torch.randperm(len(rows), generator=generator)[:SEEN_MAX]]
            x = torch.from_numpy(holding.x[rows.numpy()]).reshape(len(rows), -1)
            if not float(x.abs().max()) <= TOLD_MAX:
                continue  # not finite, as training is about to say, or too large
            here = x.mean(0)
            own = _directions(x - here, min(spread.shape[1], amount // TELLING), seed)
            before, total = float(count[label]), float(count[label]) + amount
            apart = (here - mean[label]) * (before * amount) ** 0.5 / total
            rest = spread[label] * (before / total) ** 0.5
            joined = torch.cat([rest, own * (amount / total) ** 0.5, apart[None]])
            told = mean[label] + (here - mean[label]) * (amount / total)
            directions = _longest(joined, spread.shape[1])
            if not bool(torch.isfinite(torch.cat([told[None], directions]).half()).all()):
                continue
            mean[label], spread[label], count[label] = told, directions, total
            low, high = min(low, float(x.min())), max(high, float(x.max()))
        return replace(self, count=count, mean=mean, spread=spread, range=torch.tensor([low, high]))

    def draws(self, seed: int) -> Draws | None:
        """A source of samples; None where fewer than two classes are known."""
        labels = self.known
        if len(labels) < 2:
            return None

        def draw(samples: int) -> Pair:
            width = self.mean.shape[1]
            samples = max(len(labels), min(samples, self.room // (4 * width)))
            generator = torch.Generator().manual_seed(seed)
            y = labels[torch.arange(samples) % len(labels)]
            x = torch.empty(samples, width)
            for at, label in enumerate(labels):
                some = x[at :: len(labels)]
                lots = torch.randn(len(some), self.spread.shape[1], generator=generator)
                some.copy_(self.mean[label] + lots @ self.spread[label])
            x.clamp_(float(self.range[0]), float(self.range[1]))
            return x.reshape(samples, *self.shape), y

        return draw


def known_at(
    task: LearnTask, plan: Plan, holding: Holding, layer: int, read: Callable[[bytes], Buffer]
) -> Classes | None:
    """What a stop knows of the classes: what `layer` brings, and in the first lap what is here.

    None where the plan wants no replay, and for a part that was cut elsewhere. Raises: LearnError
    for data that cannot be drawn.
    """
    options = Options.of(plan.learn)
    if not options.replay or task.scale != FULL:
        return None
    state = state_of([task.layers[layer]], read)
    known = Classes.read(state, holding, options.replay_directions)
    if holding.tells and task.journey[0] < 1 / plan.laps:
        known = known.with_those_of(holding, task.seed)
    return known


def _directions(x: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """The first directions of centred samples (N, D), as long as the deviation along each."""
    count = min(count, *x.shape)
    if not count:
        return x[:0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, lengths, axes = torch.svd_lowrank(x, min(count + EXTRA, *x.shape), niter=2)
    scaled: torch.Tensor = lengths[:count, None] / len(x) ** 0.5 * axes.T[:count]
    return scaled


def _longest(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Rows (N, D) as `count` rows at right angles with nearly the same sum of squares."""
    squares, turns = torch.linalg.eigh(rows @ rows.T)
    made = (turns.T @ rows).flip(0)[:count]
    made = torch.where(squares.flip(0)[:count, None] > 0, made, torch.zeros(()))
    out = torch.zeros(count, rows.shape[1])
    out[: len(made)] = made
    return out
