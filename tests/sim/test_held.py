"""Whole swarms: a flooding liar is held to its rates, honest ones never are, far links carry."""

from __future__ import annotations

from collections import Counter

import pytest

from mfd.core.rates import RATES
from mfd.sim import liars, running, scenario
from mfd.sim.faults import parse
from mfd.sim.running import Outcome, run
from mfd.sim.scenario import SWARM_CONFIG, Scenario, Stage
from mfd.topology import make

WORDS = ("frames_over_rate", "links_flooded", "far_links", "far_dials")


def watched(
    scene: Scenario, monkeypatch: pytest.MonkeyPatch
) -> tuple[Outcome, dict[str, Counter[str]]]:
    """Run a scene; return also the counters of each honest peer at its end."""
    stages: list[Stage] = []
    build = scenario.stage

    def built(given: Scenario) -> Stage:
        stages.append(build(given))
        return stages[-1]

    monkeypatch.setattr(running, "stage", built)
    outcome = run(scene)
    [stage] = stages
    counters = {
        name: Counter({w: host.peer.status().counters.get(w, 0) for w in WORDS})
        for name, host in stage.world.hosts.items()
        if host.peer is not None and name not in stage.trouble.liars
    }
    return outcome, counters


def flood(monkeypatch: pytest.MonkeyPatch) -> tuple[str, Outcome, dict[str, Counter[str]]]:
    """Two walkers on a ring of six; one peer pours out 500 times as much as a liar else does."""
    topology = make("ring", 6, 1)
    liar = list(topology.nodes)[3]
    monkeypatch.setattr(scenario, "_liars", lambda *_: {liar: ("flood",)})
    monkeypatch.setitem(liars.BEAT_US, "flood", 2_000)
    config = dict(SWARM_CONFIG)
    scene = Scenario(topology, seed=1, walkers=2, seconds=9.0, config=config)
    return liar, *watched(scene, monkeypatch)


def test_a_flooding_liar_is_parted_from_and_walkers_come_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rules: T-32, T-33"""
    liar, outcome, counters = flood(monkeypatch)
    assert not outcome.violation
    assert outcome.home == outcome.born == 2
    nodes = list(make("ring", 6, 1).nodes)
    at = nodes.index(liar)
    beside = {nodes[at - 1], nodes[(at + 1) % 6]}
    assert {name for name, seen in counters.items() if seen["links_flooded"]} == beside
    assert not any(counters[name]["frames_over_rate"] for name in counters if name not in beside)


def test_without_rates_a_flood_costs_more_than_is_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: T-32"""
    for kind in list(RATES):
        monkeypatch.delitem(RATES, kind)
    _, outcome, _ = flood(monkeypatch)
    assert outcome.violation.startswith("R5"), "too many signatures are checked"


def test_an_honest_swarm_in_trouble_is_never_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: T-32"""
    scene = Scenario(
        make("small-world", 14, 2),
        seed=2,
        faults=parse("cut=6,half=3,crash=2,move=2"),
        walkers=3,
        laps=2,
        seconds=12.0,
        config={**SWARM_CONFIG, "frame_rates": 0.25},
    )
    outcome, counters = watched(scene, monkeypatch)
    assert not outcome.violation
    assert not any(seen["frames_over_rate"] for seen in counters.values())


def test_walkers_go_over_far_links_and_every_invariant_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rules: M-36, M-37"""
    scene = Scenario(
        make("small-world", 16, 1),
        seed=1,
        faults=parse("loss=0.01,partition@3s-8s"),
        open=True,
        walkers=2,
        seconds=12.0,
        config={"active_target": 3, "active_max": 4, "far_hops": 2, "lease_us": 9_000_000},
    )
    outcome, counters = watched(scene, monkeypatch)
    assert not outcome.violation
    assert outcome.home == outcome.born == 2
    assert sum(seen["far_links"] for seen in counters.values()) > 4
    assert not any(seen["frames_over_rate"] for seen in counters.values())
