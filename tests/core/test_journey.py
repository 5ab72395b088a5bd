"""Whole journeys: crashes, failing learners, holders that leave, and the news at home."""

from __future__ import annotations

from dataclasses import replace

from mfd.core.messages import Kind
from mfd.sim.standin import StandIn
from mfd.sim.world import World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

EDGES = [("a", "b"), ("b", "c"), ("c", "a")]


def started(**plan) -> tuple[World, bytes]:
    world = world_of(EDGES, "abc")
    birth = walker_for(world, "a", layers=3, floats=50, **{"min_holders": 3, **plan})
    inject(world, "a", birth)
    return world, birth.walker


def test_a_stop_that_a_crash_cut_short_happens_again() -> None:
    """Rules: W-01"""
    world, walker = started()
    b = world.hosts["b"]
    assert world.run(until=lambda: bool(b.learner.tasks), seconds=60)
    world.run(seconds=0.5)  # in the middle of training
    world.kill(b)
    world.start(b)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    assert len(b.learner.tasks) == 3  # two laps, one stop twice
    assert b.learner.tasks[0] == b.learner.tasks[1]
    manifest = home.peer.version(walker).manifest
    assert (manifest.seq, manifest.progress.stops) == (6, 6)


def test_a_holder_that_leaves_is_waited_for_and_then_left_out() -> None:
    """Rules: W-09"""
    world, walker = started(laps=3)
    home, c = world.hosts["a"], world.hosts["c"]
    lap_over = lambda: len({s["peer"] for s in reports(home, "stop")}) == 3  # noqa: E731
    assert world.run(until=lap_over, seconds=60)
    stops_before = len(reports(home, "stop"))
    assert world.run(until=lambda: len(reports(home, "stop")) > stops_before, seconds=60)
    assert world.run(
        until=lambda: all(w.role != "own" for w in c.peer.status().walkers), seconds=60
    )
    world.kill(c)
    assert world.run(until=arrived(home), seconds=200)
    reasons = {r["reason"] for h in (home, world.hosts["b"]) for r in reports(h, "parked")}
    assert "the other holders of this lap are out of reach" in reasons
    progress = home.peer.version(walker).manifest.progress
    assert progress.lap == 3
    assert progress.stops in (7, 8)  # three, then two or three, then two


def test_a_restarted_owner_does_not_cut_the_lap_short() -> None:
    """Rules: W-09"""
    world, walker = started(laps=1)
    home = world.hosts["a"]
    assert world.run(until=lambda: bool(reports(home, "stop")), seconds=60)
    world.run(until=lambda: not home.disk.syncing, seconds=1)
    world.kill(home)
    world.start(home)
    assert world.run(until=arrived(home), seconds=120)
    assert home.peer.version(walker).manifest.progress.stops == 3


class Failing(StandIn):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def perform(self, task, read, write):
        if len(self.tasks) < self.times:
            self.tasks.append(task)
            raise ValueError("out of memory")
        return super().perform(task, read, write)


def test_a_failing_learner_costs_one_visit() -> None:
    """Rules: W-13"""
    world = world_of(EDGES, "abc")
    world.hosts["b"].learner = Failing(1)
    birth = walker_for(world, "a", layers=3, floats=50, min_holders=3, laps=2)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=600)
    told = reports(home, "learning failed")
    assert [(t["peer"], t["reason"]) for t in told] == [
        (world.hosts["b"].key.public_key.hex(), "out of memory")
    ]
    assert len(reports(home, "stop")) == 5  # three holders, two laps, one visit lost
    assert len(world.hosts["b"].learner.tasks) == 2


class Stray(StandIn):
    """Changes a layer that it does not say it has trained."""

    def perform(self, task, read, write):
        made = super().perform(replace(task, trained=((0, 3),)), read, write)
        return replace(made, trained=task.trained[:1])


def test_a_stop_that_changed_other_layers_has_failed() -> None:
    """Rules: W-13, W-26"""
    world = world_of(EDGES, "abc")
    for host in world.hosts.values():
        host.learner = Stray()
    birth = walker_for(world, "a", layers=3, floats=50, min_holders=3, laps=1, layers_per_stop=1)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=600)
    reasons = {told["reason"] for told in reports(home, "learning failed")}
    assert reasons == {"the learner trained layers that it was not given"}
    manifest = home.peer.version(birth.walker).manifest
    assert {ref.digest for ref in manifest.layers} == {made.digest for made in birth.objects}


def test_a_model_that_nobody_can_train_comes_home_soon() -> None:
    """Rules: W-13"""
    world = world_of(EDGES, "abc")
    for host in world.hosts.values():
        host.learner = Failing(10**6)
    birth = walker_for(world, "a", layers=3, floats=50, min_holders=3, laps=2)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=600)
    progress = home.peer.version(birth.walker).manifest.progress
    assert (progress.lap, progress.stops) == (2, 0)
    assert len(reports(home, "learning failed")) == 6
    assert sum(len(h.learner.tasks) for h in world.hosts.values()) == 6


def test_home_hears_that_the_owner_is_silent_before_it_is_given_up() -> None:
    """Rules: C-22, W-12"""
    world, _ = started(laps=1)
    home = world.hosts["a"]
    assert world.run(until=lambda: bool(reports(home, "handed")), seconds=60)
    target = reports(home, "handed")[0]["target"]
    lost = next(h for h in world.hosts.values() if h.key.public_key.hex() == target)
    world.kill(lost)
    assert world.run(until=lambda: bool(reports(home, "silent")), seconds=100)
    assert not reports(home, "reissued")
    assert reports(home, "silent")[0]["holder"] == lost.key.public_key.hex()
    assert world.run(until=lambda: bool(reports(home, "reissued")), seconds=100)


def test_news_reaches_home() -> None:
    """Rules: W-12"""
    world, _ = started(laps=1)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=60)
    peers = [s["peer"] for s in reports(home, "stop")]
    assert sorted(peers) == sorted(h.key.public_key.hex() for h in world.hosts.values())


def test_news_is_bounded_and_cannot_speak_for_others() -> None:
    """Rules: W-12"""
    world, walker = started(laps=1)
    home, liar = world.hosts["a"], world.hosts["b"]
    assert world.run(until=arrived(home), seconds=60)
    fields = {"peer": "another", "walker": "another", "kind": 1, "self": 2, "text": "x" * 5_000}
    fields |= {f"k{i}": i for i in range(100)} | {"list": [1], "none": None}
    for kind in ("stop", "arrived", "linked"):
        target = home.key.public_key
        liar.peer._courier.send(target, Kind.NOTICE, walker, kind, fields)
    before = {kind: len(reports(home, kind)) for kind in ("stop", "arrived", "linked")}
    world.run(seconds=3)
    after = {kind: len(reports(home, kind)) for kind in ("stop", "arrived", "linked")}
    assert after == {**before, "stop": before["stop"] + 1}
    told = reports(home, "stop")[-1]
    assert told["peer"] == liar.key.public_key.hex()
    assert told["walker"] == walker.hex()
    assert len(told["text"]) == 256
    assert len(told) <= 26


def test_holding_again_and_again_leaves_one_timer() -> None:
    """Rules: W-01"""
    world = world_of([("a", "b")], "ab")
    inject(world, "a", walker_for(world, "a", layers=2, floats=50, min_holders=3))
    host = world.hosts["a"]
    world.run(seconds=1)
    for _ in range(200):
        host.hold("data/train", 100)
    world.run(seconds=1)
    events = world.events
    world.run(seconds=20)
    assert world.events - events < 400  # parked: one look every two seconds, and heartbeats
