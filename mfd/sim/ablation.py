"""Peers broken on purpose, one rule each: what a checker is worth is whether it notices.

Each ablation patches the core while it lasts, names the invariants of which at least one must be
reported, and the scenario in which that has to happen. The same scenario is sound without it.

Rules of this file: nothing here is ever in force outside `with ablation.broken():`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from mfd.sim.faults import parse
from mfd.sim.scenario import SWARM_CONFIG, Scenario
from mfd.topology import make

__all__ = ["Ablation", "Patch"]

Patch = tuple[Any, str, Any]  # owner, attribute, what replaces it


@dataclass(frozen=True, slots=True)
class Ablation:
    """One rule of the core taken away."""

    name: str
    caught_by: tuple[str, ...]
    patches: tuple[Patch, ...]
    scene: Mapping[str, Any]  # fields of Scenario, "graph" as (kind, nodes), "faults" as text
    around: tuple[Patch, ...] = ()  # in force with the rule and without it: how the scene is set
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)  # tried in turn

    def scenario(self, seed: int) -> Scenario:
        """The scene with one seed."""
        fields = dict(self.scene)
        kind, count = fields.pop("graph")
        faults = parse(fields.pop("faults", "none"))
        config = {**SWARM_CONFIG, **fields.pop("config", {})}
        known: dict[str, Any] = {"seconds": 30.0, "calm": 0.0, **fields}
        return Scenario(make(kind, count, seed), seed=seed, faults=faults, config=config, **known)

    @contextmanager
    def broken(self, *, really: bool = True) -> Iterator[None]:
        """Take the rule away; with `really` false only set the scene."""
        with ExitStack() as stack:
            for patch in (*self.around, *(self.patches if really else ())):
                stack.enter_context(_patched(*patch))
            yield


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
