"""The plan: what a walker is to do, signed once by its creator and never changed.

Rules of this file: the walk reads the top-level fields, a learner reads `recipe` and `learn`.
Source: spec/packet.md, section "Plan".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MODES", "ORDERS", "Plan"]

MODES = ("snake", "walk", "fedavg")
ORDERS = ("lap", "stop")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a model goes and how it learns there."""

    recipe: Mapping[str, Any]  # {"zoo": "cnn", "inputs": [1, 8, 8], ...}: how to build the module
    names: tuple[str, ...]  # data names whose holders are visited
    home: bytes  # peer id to which the walker returns
    mode: str = "snake"
    task: str = "classification"
    verify: tuple[str, ...] = ()  # data names whose holders measure the model after each lap
    laps: int = 6
    order: str = "lap"  # lap: one block for a whole lap; stop: a new block at every stop
    layers_per_stop: int = 2
    head: bool = True  # the last layer trains at every stop too
    full_laps: int = 0  # the first laps train every layer
    min_holders: int = 1  # wait at home until so many holders are known
    seed: int = 0
    learn: Mapping[str, Scalar] = field(default_factory=dict)  # epochs, batch, lr, distill, ...
