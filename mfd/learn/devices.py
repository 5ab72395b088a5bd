"""How long learning takes, and how much it holds, on a stated machine: by formula, not measured.

Rules of this file: torch is not loaded to import it. Counted are matrix products and convolutions
of forward and backward passes; measuring before and after a stop, and merging, are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mfd.packet.extent import FULL, Scale
from mfd.packet.task import LearnTask, Range

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Costs", "Device", "Flop", "Lesson", "resident_state", "state_bytes"]

LEARNING = 3  # times a forward pass: it, and backward through activations and weights


class Flop(NamedTuple):
    """Of a forward pass over one sample in one layer."""

    own: float
    exit: float = 0.0  # of an early exit, which is run in training alone


@dataclass(frozen=True, slots=True)
class Costs:
    """Work for one sample, in FLOP of a forward pass, layer by layer."""

    layers: tuple[float, ...]
    parts: Mapping[Scale, Mapping[str, Flop]] = field(default_factory=dict)
    """Of versions inside the model, layer by name; the narrower ones learn along with all of it."""
    exits: tuple[float, ...] = ()  # of the early exit of each layer; (): there are none
    opinion: bool = False  # the received model answers each different sample, for distillation
    draws: float = 0.0  # of all classes beside each sample, for replay
    lesson: Lesson | None = None  # of a plan that teaches residents

    def of(self, by: Scale, names: Sequence[str]) -> Costs:
        """Those of one version, in the layers with these names; layers that it drops cost none."""
        if by == FULL:
            return self
        found = [self.parts[by].get(name, Flop(0.0)) for name in names]
        own, exits = tuple(one.own for one in found), tuple(one.exit for one in found)
        return Costs(own, exits=exits, opinion=self.opinion, draws=self.draws)

    def training(self, trained: Sequence[Range], *, samples: float, kept: float) -> float:
        """FLOP of a stop that sees `samples`, `kept` of them different.

        What lies before the first trained layer runs once for each different sample, the rest
        forward and, at twice the cost, backward for each, early exits with it; draws alike, each
        of them once. Where all layers train, one of the narrower versions learns along with each
        batch, in turn.
        """
        first = min((low for low, _ in trained), default=0)
        rest = sum(self.layers[first:])
        work = kept * (sum(self.layers[:first]) + self.opinion * rest)
        work += LEARNING * samples * (1 + self.draws) * (rest + sum(self.exits[first:]))
        work += self.draws * samples * sum(self.layers[:first])
        narrow = [part.values() for by, part in self.parts.items() if by.width < 1]
        along = [sum(flop.own for flop in flops) for flops in narrow]
        if along and sum(high - low for low, high in trained) == len(self.layers):
            work += LEARNING * samples * sum(along) / len(along)
        return work

    def measuring(self, samples: float) -> float:
        """FLOP of a forward pass over so many samples."""
        return samples * sum(self.layers)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Work of what a visit teaches: both models, on the peer's samples and on what both answer."""

    share: str  # proxy, logits or prototypes
    residents: Mapping[str, Costs] = field(default_factory=dict)  # by peer
    public: int = 0  # samples of the public set
    answered: bool = False  # as many other samples, public or invented, are answered, too

    def training(self, walker: Costs, peer: str, *, samples: float, kept: float) -> float:
        """FLOP of a visit."""
        own = self.residents.get(peer, Costs(()))
        resident, more = sum(own.layers), LEARNING * samples * self.answered
        work = LEARNING * samples * (resident + sum(own.exits))
        match self.share:
            case "logits":  # it follows the consensus, then answers the whole set
                return work + (LEARNING * samples + self.public) * resident
            case "prototypes":  # means of embeddings, once
                return work + kept * resident
        proxy = sum(walker.layers)
        work += LEARNING * samples * (proxy + sum(walker.exits)) + samples * walker.opinion * proxy
        if peer in self.residents:  # its opinion; both, and the proxy as it came, answer the others
            work += samples * resident + more * (resident + proxy)
            work += samples * self.answered * proxy
        return work

    def measuring(self, walker: Costs, peer: str, samples: float) -> float:
        """FLOP of measuring both."""
        own = self.residents.get(peer, Costs(()))
        return walker.measuring(samples) + own.measuring(samples)


@dataclass(frozen=True, slots=True)
class Device:
    """How long learning takes on a node of speed 1. A model of a machine, not this one's clock.

    Either so many samples a second in training and three times as many in measuring, whatever
    learns from them, or so many FLOP a second, where `costs` says what a sample takes. A merge
    takes no time.
    """

    samples_per_s: float = 10_000.0
    flops: float = 0.0  # FLOP/s; 0: samples_per_s counts
    costs: Costs | None = None

    def seconds(
        self,
        task: LearnTask,
        trained: Sequence[Range],
        samples: float,
        *,
        held: float,
        by: Scale = FULL,
        peer: str = "",
    ) -> float:
        """Virtual time of a task on a node of speed 1 that holds so many samples.

        `trained` counts the task's layers, `by` is the version of the model that was trained;
        `peer`: whose resident learns along.
        """
        if task.kind not in ("train", "measure"):
            return 0.0
        training = task.kind == "train"
        if not self.flops or self.costs is None:
            return samples / self.samples_per_s / (1 if training else 3)
        costs, kept = self.costs.of(by, [ref.name for ref in task.layers]), min(samples, held)
        if costs.lesson is not None:
            lesson = costs.lesson
            if training:
                work = lesson.training(costs, peer, samples=samples, kept=kept)
            else:
                work = lesson.measuring(costs, peer, samples)
        elif training:
            work = costs.training(trained, samples=samples, kept=kept)
        else:
            work = costs.measuring(samples)
        return work / self.flops


def state_bytes(
    task: LearnTask,
    trained: Sequence[Range],
    learn: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
) -> int:
    """Model state of a trainer by formula: all weights; of trained layers gradient and moments.

    Activations are not in it, nor residents. `learn`: the plan's options, those of sharing among
    them; Adam has two moments, SGD one or none. `sizes`: bytes of the layers in memory by name,
    where a smaller version of the model is trained.
    """
    inside = {i for low, high in trained for i in range(low, high)}
    held = {r.index: r.raw_bytes if sizes is None else sizes.get(r.name, 0) for r in task.layers}
    learning = sum(size for index, size in held.items() if index in inside)
    return sum(held.values()) + (1 + _moments(learn)) * learning


def resident_state(module: nn.Module, learn: Mapping[str, Any], *, learns: bool) -> int:
    """Model state of a resident by formula; where it learns, a copy of it does."""
    from mfd.learn.memory import state_bytes as weights_of

    weights = weights_of(module)
    return weights * (3 + _moments(learn)) if learns else weights


def _moments(learn: Mapping[str, Any]) -> int:
    from mfd.learn.options import Sharing
    from mfd.learn.stepping import slots_of

    return slots_of(Sharing.of(learn)[1])
