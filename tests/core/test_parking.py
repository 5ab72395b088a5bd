"""Walkers that can go nowhere: they say so, and move on when somebody appears."""

from __future__ import annotations

from itertools import pairwise

from mfd.core.config import Config
from mfd.sim.standin import StandIn
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of


def test_a_walker_without_a_holder_is_parked_says_so_and_moves_on_at_once() -> None:
    """Rules: W-16"""
    world = world_of(pairwise("abcdef"), "")
    inject(world, "a", walker_for(world, "a", layers=2, floats=20, laps=1))
    home = world.hosts["a"]
    world.run(seconds=100)
    status = home.peer.status().walkers[0]
    assert (status.role, status.activity) == (
        "own",
        "parked: 0 of 1 holders of data/train are known",
    )
    assert [p["reason"] for p in reports(home, "parked")] == [
        status.activity.removeprefix("parked: ")
    ]
    f = world.hosts["f"]
    f.learner = StandIn()
    f.hold("data/train", 10)
    start = world.now_us
    assert world.run(until=lambda: bool(reports(home, "chosen")), seconds=30)
    assert world.now_us - start < 0.2e6, "it does not wait for its next look"
    assert world.run(until=arrived(home), seconds=30)
    assert [s["peer"] for s in reports(home, "stop")] == [f.key.public_key.hex()]


def test_a_holder_behind_a_cut_is_waited_for() -> None:
    """Rules: W-16"""
    world = world_of(pairwise("abcd"), "ad")
    world.unplug("b", "c")
    birth = walker_for(world, "a", layers=2, floats=20, laps=2, min_holders=2)
    inject(world, "a", birth)
    home = world.hosts["a"]
    world.run(seconds=30)
    assert home.peer.status().walkers[0].activity.startswith("parked: 1 of 2 holders")
    world.plug("b", "c")
    assert world.run(until=arrived(home), seconds=30)
    assert len(reports(home, "stop")) == 4


def test_a_walker_whose_home_is_away_waits_and_goes_home_when_it_is_back() -> None:
    """Rules: W-10, W-16"""
    world = world_of(pairwise("abcd"), "d", config=Config(lease_us=3_600_000_000))
    inject(world, "a", walker_for(world, "a", layers=2, floats=20, laps=1))
    home, d = world.hosts["a"], world.hosts["d"]
    owns = lambda: any(w.role == "own" for w in d.peer.status().walkers)  # noqa: E731
    assert world.run(until=owns, seconds=30)
    world.kill(home)
    world.run(seconds=60)
    assert owns()
    assert d.peer.status().walkers[0].activity.startswith(("parked: ", "offering to "))
    assert [p["reason"] for p in reports(d, "parked")] == ["no peer that was asked takes it now"]
    world.start(home)
    assert world.run(until=arrived(home), seconds=60)


def test_a_parked_walker_costs_next_to_nothing() -> None:
    """Rules: R-26, W-15, W-16"""
    world = world_of([("a", "b"), ("b", "c")], "")
    inject(world, "a", walker_for(world, "a", layers=2, floats=20, laps=1))
    world.run(seconds=600)
    sent = world.hosts["a"].peer.status().counters["seeks_sent"]
    world.run(seconds=3_600)
    assert 0 < world.hosts["a"].peer.status().counters["seeks_sent"] - sent <= 4


def test_news_of_the_same_name_does_not_start_work_twice() -> None:
    """Rules: W-01, W-16"""
    world = world_of(pairwise("abc"), "abc")
    inject(world, "a", walker_for(world, "a", layers=2, floats=20, laps=1, min_holders=3))
    home = world.hosts["a"]
    assert world.run(until=lambda: bool(home.learner.tasks), seconds=10)
    for _ in range(5):  # holders come and go while it trains
        world.unplug("b", "c")
        world.run(seconds=0.02)
        world.plug("b", "c")
        world.run(seconds=0.1)
    assert world.run(until=arrived(home), seconds=60)
    assert all(len(host.learner.tasks) == 1 for host in world.hosts.values())
