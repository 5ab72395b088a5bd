"""`mfd.run`: send a model of yours into a network of peers, and get it back trained.

The network is the simulator: the real protocol and its real bytes on a virtual clock, with real
training. The same seed gives the same layers, to the bit, on one type of machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfd.core.ages import (
    GATE_KEY,
    MERGE_KEY,
    RULES,
    WALKERS_KEY,
    gate_of,
    rule_of,
    walkers_of,
)
from mfd.core.birth import bear
from mfd.core.blocks import BASE_KEY
from mfd.core.effects import Report
from mfd.core.walk import CHOOSE_KEY, POLICIES, policy_of
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, frozen_count, load, pack
from mfd.learn.learner import Learner
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.plan import Plan
from mfd.packet.task import LearnResult, LearnTask
from mfd.sim.keys import SimKey
from mfd.sim.world import Host, World
from mfd.topology import Topology
from mfd.topology import load as load_topology
from mfd.topology import make as make_topology

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Run", "RunError", "run"]

TRAIN, TEST = "data/train", "data/test"
LINK_LATENCY_US = 1_000  # where the topology does not say
LINK_BYTES_PER_S = 125e6
QUIET_SECONDS = 300.0  # virtual; longer than any timer that could still move a walker
FAILED = "learning failed"
OF_MACHINE = ("peak_bytes", "taken_bytes")  # claims that tell of this machine, not of the device
Arrays = tuple[Any, Any]
DataFn = Callable[[int, int], Arrays]


class RunError(RuntimeError):
    """The walker did not come home; the sentence says what it was waiting for."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came back."""

    model: nn.Module  # a trained copy; the module given is left as it was
    history: tuple[Mapping[str, Any], ...]  # one entry a stop, merge and measurement, in order
    route: tuple[str, ...]  # node names in order of stops
    wire_bytes: int  # everything that crossed a link, each link counted
    seconds: float  # virtual time from start to home


class _Device:
    """A learner whose time is that of a stated device, not of this machine."""

    def __init__(self, learner: Learner, samples_per_s: float) -> None:
        self._learner = learner
        self._samples_per_s = samples_per_s

    def perform(
        self,
        task: LearnTask,
        read: Callable[[bytes], Buffer],
        write: Callable[[LayerObject], None],
    ) -> LearnResult:
        """Learn for real; claim virtual seconds."""
        result = self._learner.perform(task, read, write)
        claims = {k: v for k, v in result.claims.items() if k not in OF_MACHINE}
        claims["seconds"] = claims.get("samples", 0.0) / self._samples_per_s
        return replace(result, claims=claims)


def run(
    model: nn.Module,
    data: DataFn,
    *,
    topology: Topology | str | Path = "ring:5",
    mode: str = "snake",
    test: Arrays | None = None,
    laps: int = 6,
    seed: int = 0,
    layers_per_stop: int = 3,
    full_laps: int = 1,
    order: str = "lap",
    head: bool = True,
    first: bool = False,
    body: tuple[int, int] | None = None,
    home: str = "",
    samples_per_s: float = 10_000.0,
    **learn: str | float | bool,
) -> Run:
    """Train `model` by letting it travel; every node that holds data trains the layers it gets.

    `data(part, parts)` returns (x, y) of one holder: x (samples, ...) float or integer arrays, y
    (samples,) integer labels; of a language model both are tokens, y one later. A model of Hugging
    Face answers with its logits; of one with adapters (PEFT) those alone learn and travel, once
    the base is where they go. `topology` is a Topology, a graph file, or "kind:nodes" such as
    "ring:5". Where the topology names no holders, every node is one. `test` is (x, y) held at
def _home(graph: Topology, home: str) -> str:
    if home not in graph.nodes:
        names = ", ".join(graph.nodes)
        raise ValueError(f"home {home!r} is not a node of the topology; nodes: {names}")
    return home
