"""Three siblings among crashes, losses and cuts: every invariant holds, all of them come home."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfd.sim.faults import parse
from mfd.sim.running import run
from mfd.sim.scenario import SWARM_CONFIG, Scenario
from mfd.topology import make

SCENE = Scenario(
    make("small-world", 8, 1),
    seconds=25,
    config=SWARM_CONFIG,
    siblings=3,
    laps=2,
    holders=5,
    faults=parse("crash=4,loss=3%,cut=1,half=1"),
)


@pytest.mark.parametrize("seed", range(1, 5))
def test_siblings_in_trouble(seed: int) -> None:
    """Rules: W-42"""
    outcome = run(replace(SCENE, seed=seed, topology=make("small-world", 8, seed)))
    assert outcome.violation == ""
    assert (outcome.born, outcome.home, outcome.expected) == (3, 3, outcome.expected)
    assert outcome.merges > 3
    assert outcome.faults


def test_the_same_seed_merges_the_same() -> None:
    """Rules: W-20, W-46"""
    scene = replace(SCENE, seed=7, seconds=8)
    one, two = run(scene), run(scene)
    assert one.merges > 0
    assert one.trace == two.trace
