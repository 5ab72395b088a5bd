"""A swarm: each seed draws its own network, faults, walkers and habits; a campaign runs many seeds.

Rules of this file: everything is drawn from the seed, so a seed alone tells what happened.
"""

from __future__ import annotations

from dataclasses import replace

from mfd.sim.chance import Streams
from mfd.sim.faults import Faults, draw
from mfd.sim.scenario import SWARM_CONFIG, Scenario
from mfd.topology import make

__all__ = ["PEERS_MAX", "swarm"]

KINDS = ("ring", "small-world", "grid", "scale-free", "geometric", "tree")
SMALL_KINDS = (*KINDS[:-1], "clique")
CLIQUE_MAX = 12
PEERS_MAX = 30


def swarm(seed: int, *, peers_max: int = PEERS_MAX, faults: Faults | None = None) -> Scenario:
    """Draw the scenario of a seed: 3 to `peers_max` peers; `faults` replaces what is drawn."""
    chance = Streams(seed).of("swarm")
    count = chance.between(3, max(3, peers_max))
    kind = chance.pick(SMALL_KINDS if count <= CLIQUE_MAX else KINDS)
    seconds = float(chance.between(20, 60))
    drawn = draw(chance, seconds)
    scenario = Scenario(
        make(kind, count, seed),
        seed=seed,
        faults=drawn,
        seconds=seconds,
        walkers=chance.between(1, 3),
        laps=chance.between(1, 2),
        copies=chance.between(2, 3),
        reissue="auto" if chance.hit(0.8) else "manual",
        planes=chance.hit(0.2),
        part=chance.hit(1 / 3),
        open=chance.hit(1 / 4),
        config=SWARM_CONFIG,
    )
    return scenario if faults is None else replace(scenario, faults=faults)
