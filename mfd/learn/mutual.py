"""Mutual learning: a small model visits, and it and the resident learn from each other.

Rules of this file: both see the same batches; each one's loss holds the other's opinion, weighted
by how much better than a guess the other was when they met.
Source: arXiv 1706.00384, 2111.11343.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mfd.learn.exits import divergence
from mfd.learn.options import Options
from mfd.learn.pupils import (
    Batches,
    Mixtures,
    Pupil,
    Visit,
    claims_of,
    lessons,
    measured,
    resident_claims,
)
from mfd.learn.rows import Schedule

__all__ = ["AT_HOME", "meet"]

AT_HOME: dict[str, Any] = {"distill": 0.0, "anchor": 0.0}  # the resident forgets nothing by moving


def meet(
    proxy: nn.Module,
    resident: nn.Module | None,
    at: Visit,
    options: Options,
    *,
    follow: float,
    teach: float,
) -> dict[str, float]:
    """Change both in place; return claims. `follow` weighs the resident's opinion, `teach` the
    proxy's. A peer without resident trains the proxy alone. Raises: LearnError; Cancelled.
    """
    schedule = Schedule.of(len(at.holding.x), options, at.seed)
    before = measured(proxy, at)
    if resident is None:
        lessons([Pupil(proxy, at, schedule, options)], at, schedule, options)
        return claims_of(measured(proxy, at), before, schedule)
    at_home = measured(resident, at)
    pupils = (
        Pupil(proxy, at, schedule, options),
        Pupil(resident, at, schedule, replace(options, **AT_HOME)),
    )
    classes = at.holding.classes
    weights = (follow * _worth(at_home["loss"], classes), teach * _worth(before["loss"], classes))
    pair = _Pair(pupils, weights, at)
    if pair.public is not None:
        pair.received = copy.deepcopy(proxy).eval().requires_grad_(False)
    pupils[0].lesson, pupils[1].lesson = pair.first, pair.second
    lessons(pupils, at, schedule, options)
    found = resident_claims(measured(resident, at), at_home, classes)
    return {**claims_of(measured(proxy, at), before, schedule), **found}


def _worth(loss: float, classes: int) -> float:
    """How much an opinion counts: nothing where it is no better than a guess, else up to 1."""
    if not math.isfinite(loss):
        return 0.0
    return min(1.0, max(0.0, 1 - loss / math.log(max(classes, 2))))


class _Pair:
    """Two models on the same batches: each hears what the other says of them."""

    def __init__(
        self, pupils: tuple[Pupil, Pupil], weights: tuple[float, float], at: Visit
    ) -> None:
        self._pupils = pupils
        self._weights = weights
        self._tau = pupils[0].options.temperature
        size = pupils[0].options.batch
        self.received: nn.Module | None = None  # the first as it came: it answers public samples
        self.public: Batches | Mixtures | None = None
        if at.public is not None:
            self.public = Batches(at.public, size, at.seed)
        elif at.holding.x.dtype.kind == "f":
            self.public = Mixtures(at.holding, size, at.seed)
        self._rows = torch.empty(0, dtype=torch.int64)
        self._heard: list[torch.Tensor] = []  # what the first said, for the second

    def first(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The first model's lesson from the second; remembers what the first said.

        On samples of others it stays with what it knew: the second has not seen their labels.
        """
        other = self._pupils[1]
        with torch.no_grad():
            wanted = [other.module(other.inputs(rows))]
        said = [logits]
        if self.public is not None and self.received is not None:
            self._rows = self.public.draw()
            x = self.public.inputs(self._rows)
            said.append(self._pupils[0].module(x))
            with torch.no_grad():
                wanted.append(self.received(x))
        self._heard = [one.detach() for one in said]
        return self._weights[0] * self._sum(said, wanted)

    def second(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The second model's lesson from what the first said of the same batches."""
        said = [logits]
        if self.public is not None:
            said.append(self._pupils[1].module(self.public.inputs(self._rows)))
        return self._weights[1] * self._sum(said, self._heard)

    def _sum(self, said: list[torch.Tensor], wanted: list[torch.Tensor]) -> torch.Tensor:
        parts = [divergence(a, b, self._tau) for a, b in zip(said, wanted, strict=True)]
        return torch.stack(parts).sum()
