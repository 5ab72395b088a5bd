"""A short campaign: seeds draw networks, faults and liars; no invariant breaks, every walker moves.

`make soak SEEDS=1000` runs the long one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfd.sim.faults import parse
from mfd.sim.running import Outcome, run
from mfd.sim.scenario import SWARM_CONFIG, Scenario
from mfd.sim.swarm import swarm
from mfd.topology import make

SEEDS = range(12)
OUTCOMES: list[Outcome] = []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_of_the_swarm(seed: int) -> None:
    outcome = run(swarm(seed, peers_max=16))
    OUTCOMES.append(outcome)
    assert outcome.violation == ""
    assert outcome.checked == outcome.events


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(36, id="an owner seeks two peers that are gone and, beside them, holders"),
        pytest.param(53, id="a liar replays an OPEN over a shorter way"),
        pytest.param(91, id="a liar signs a version whose parent it never kept"),
    ],
)
def test_a_seed_that_was_broken_once(seed: int) -> None:
    assert run(swarm(seed)).violation == ""


def test_the_campaign_was_about_something() -> None:
    if len(OUTCOMES) < len(SEEDS):
        pytest.skip("only some seeds were run")
    assert sum(o.handovers for o in OUTCOMES) > 60
    assert sum(o.home for o in OUTCOMES) > 10
    assert sum(o.reissued for o in OUTCOMES) > 0
    assert sum(o.liars for o in OUTCOMES) > 0
    kinds = {kind for o in OUTCOMES for kind in o.faults}
    assert len(kinds) > 8


def test_real_signatures_change_nothing_that_a_user_sees() -> None:
    scenario = Scenario(make("ring", 6), seed=2, seconds=5, config=SWARM_CONFIG, walkers=2)
    stand_in, real = run(scenario), run(replace(scenario, real_signatures=True))
    assert stand_in.violation == real.violation == ""
    assert (real.home, real.born) == (stand_in.home, stand_in.born) == (2, 2)
    assert real.signatures > 50


def test_without_heartbeats_the_same_things_come_right() -> None:
    faults = parse("crash=3,half=2,cut=2")
    scenario = Scenario(make("grid", 9), seed=4, seconds=20, config=SWARM_CONFIG, faults=faults)
    full, abstract = run(scenario), run(replace(scenario, heartbeats=False))
    assert full.violation == abstract.violation == ""
    assert full.home == abstract.home == 1
    assert abstract.events < full.events


def test_above_sixty_peers_the_checkers_look_at_samples() -> None:
    scenario = Scenario(make("small-world", 64, 1), seed=1, seconds=3, config=SWARM_CONFIG)
    outcome = run(scenario)
    assert outcome.violation == ""
    assert outcome.sampled
    assert outcome.events // 4 < outcome.checked < outcome.events
    assert outcome.home == 1
