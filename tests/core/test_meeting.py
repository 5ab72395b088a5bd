"""Siblings: they begin apart, merge where they meet, and one of them comes home with everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mfd.core.ages import ages_of, has_news, with_ages
from mfd.core.config import Config
from mfd.core.custody import Role, Walker
from mfd.packet.objects import unpack_layer
from mfd.packet.task import LearnResult, LearnTask
from mfd.sim.checks import Watch
from mfd.sim.standin import StandIn
from mfd.sim.world import World
from tests.sim.worlds import inject, reports, walker_for, world_of

RING = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]


def sent(
    count: int = 3, *, config: Config | None = None, mode: str = "walk", rule: str = "", **plan
) -> tuple[World, list[bytes]]:
    world = world_of(RING, "abcd", config=config, sealed=False)
    extra = {41: count, **({43: rule} if rule else {}), **plan.pop("extra", {})}
    plan = {"laps": 2, "min_holders": 4, "mode": mode, **plan}
    ids = []
    for number in range(count):
        nonce = bytes([number]) * 16
        birth = walker_for(world, "a", layers=3, floats=20, nonce=nonce, extra=extra, **plan)
        inject(world, "a", birth)
        ids.append(birth.walker)
    return world, ids


def all_home(world: World, count: int) -> Callable[[], bool]:
    return lambda: len(reports(world.hosts["a"], "arrived")) == count


def walkers(world: World, host: str) -> dict:
    peer = world.hosts[host].peer
    return {w.id: w for w in peer._walkers}


@pytest.mark.parametrize("mode", ["walk", "snake"])
def test_siblings_merge_where_they_meet_and_one_has_it_all_at_home(mode: str) -> None:
    """Rules: W-42, W-45, W-49"""
    world, ids = sent(3, mode=mode)
    watch = Watch(world)
    world.observers.append(watch)
    home = world.hosts["a"]
    assert world.run(until=all_home(world, 3), seconds=600)
    assert reports(home, "merged")
    at_home = walkers(world, "a")
    versions = {i: at_home[i].version.manifest for i in ids}
    assert all(at_home[i].role is Role.DONE for i in ids)
    heirs = {w.heir for w in home.peer.status().walkers}
    assert len(heirs) == 1
    heir = versions[bytes.fromhex(heirs.pop())]
    for manifest in versions.values():
        assert not has_news(ages_of(heir), ages_of(manifest))
        assert manifest.progress.lap == 2
    assert len(ages_of(heir)) == 3
    # each has learned at every holder, twice
    for i in ids:
        stops = [s for s in reports(home, "stop") if s["walker"] == i.hex()]
        assert len(stops) == 8
    merges = [m for h in world.hosts.values() for m in _merge_commits(h)]
    assert all(len(m.parents) == 1 + m.claims["merged"] >= 2 for m in merges)


def _merge_commits(host):
    versions = (w.version for w in host.peer._walkers if w.version is not None)
    return [v.manifest for v in versions if "merged" in v.manifest.claims]


def test_siblings_begin_apart() -> None:
    """Rules: W-43"""
    world, ids = sent(3)
    home = world.hosts["a"]
    assert world.run(until=lambda: len(reports(home, "stop")) >= 3, seconds=100)
    first = {}
    for stop in reports(home, "stop"):
        first.setdefault(stop["walker"], stop["peer"])
    assert len(set(first.values())) == len(ids)
    told = [c["reason"] for c in reports(home, "chosen")]
    assert any("left to siblings" in reason for reason in told)


def test_ages_tell_every_sample_once() -> None:
    """Rules: W-45, W-46"""
    world, ids = sent(2)
    assert world.run(until=all_home(world, 2), seconds=600)
    versions = [walkers(world, "a")[i].version.manifest for i in ids]
    whole = max((ages_of(v) for v in versions), key=lambda a: sum(map(sum, a.values())))
    assert sorted(whole) == sorted(i[:8] for i in ids)
    assert set(whole.values()) == {(800, 800, 800)}  # two laps of four stops of 100 samples


def test_a_merge_is_never_made_twice_of_the_same() -> None:
    """Rules: W-44, W-45"""
    world, _ = sent(2)
    tasks = [h.learner for h in world.hosts.values()]
    assert world.run(until=all_home(world, 2), seconds=600)
    merges = [t for learner in tasks for t in learner.tasks if t.kind == "merge"]
    keys = [tuple(s.layers for s in t.siblings) for t in merges]
    assert len(merges) >= 2
    assert len(keys) == len(set(keys))
    for task in merges:
        for layer in range(3):
            assert sum(s.share(layer) for s in task.siblings) == pytest.approx(1) or not sum(
                s.share(layer) for s in task.siblings
            )
        digests = [b"".join(r.digest for r in s.layers) for s in task.siblings]
        assert len(set(digests)) == len(digests)


def test_one_walker_alone_never_merges() -> None:
    """Rules: W-42"""
    world = world_of(RING, "abcd", sealed=False)
    for number in range(2):  # one plan, but nothing in it speaks of siblings
        nonce = bytes([number]) * 16
        inject(world, "a", walker_for(world, "a", layers=2, floats=20, nonce=nonce, min_holders=4))
    assert world.run(until=all_home(world, 2), seconds=600)
    assert not reports(world.hosts["a"], "merged")


class Bad(StandIn):
    """Its merges find a sibling that does not pass, or fail."""

    def __init__(self, error: str = "") -> None:
        super().__init__()
        self.error = error

    def perform(self, task, read, write):
        if task.kind != "merge":
            return super().perform(task, read, write)
        if self.error:
            raise ValueError(self.error)
        own = [n for n, s in enumerate(task.siblings) if s.layers == task.layers]
        out = {f"out{n}": 1.0 for n in range(len(task.siblings)) if n not in own}
        return LearnResult((), {"samples": 1.0, "seconds": 0.1, **out})


@pytest.mark.parametrize("error", ["", "out of memory"])
def test_who_does_not_pass_the_gate_is_left_out_and_told(error: str) -> None:
    """Rules: W-48"""
    world, ids = sent(2)
    for host in world.hosts.values():
        host.learner = Bad(error)
    home = world.hosts["a"]
    assert world.run(until=all_home(world, 2), seconds=600)
    told = reports(home, "merged")
    assert told
    assert all(t["with"] == "" for t in told)
    why = error or "a number in it is not finite"
    assert all(t["left_out"].endswith(why) for t in told)
    for i in ids:  # the walkers went on, each alone
        manifest = walkers(world, "a")[i].version.manifest
        assert (manifest.seq, sorted(ages_of(manifest))) == (8, [i[:8]])


def test_a_sibling_that_is_lost_is_not_waited_for() -> None:
    """Rules: W-42, W-49"""
    world, ids = sent(2)
    home = world.hosts["a"]
    assert world.run(until=lambda: bool(reports(home, "handed")), seconds=60)
    for host in world.hosts.values():  # whoever comes by: one sibling is stuck for good
        stuck = walkers(world, host.name).get(ids[1])
        if stuck is not None and stuck.role is Role.OWN:
            stuck.busy = True
            break
    assert world.run(until=all_home(world, 1), seconds=600)
    assert {w["walker"] for w in reports(home, "arrived")} <= {i.hex() for i in ids}


def test_gossip_merges_on_arrival_and_then_learns_once() -> None:
    """Rules: W-40, W-45, W-47"""
    world, ids = sent(4, mode="gossip", laps=2)
    home = world.hosts["a"]
    assert world.run(until=all_home(world, 4), seconds=900)
    for i in ids:
        manifest = walkers(world, "a")[i].version.manifest
        assert manifest.progress.stops == 8  # two times four
        assert manifest.progress.lap == 2
        stops = [s["peer"] for s in reports(home, "stop") if s["walker"] == i.hex()]
        assert all(a != b for a, b in pairwise(stops))  # it moves on
    tasks = [t for h in world.hosts.values() for t in h.learner.tasks]
    assert {t.rule for t in tasks if t.kind == "merge"} == {"mean"}  # by age: the shares tell
    covered = sorted({t.journey for t in tasks if t.kind == "train"})
    assert covered == [(n / 8, (n + 1) / 8) for n in range(8)]


def test_a_free_walk_ends_after_its_stops() -> None:
    """Rules: W-40"""
    world = world_of(RING, "abcd", sealed=False)
    extra = {29: "metropolis"}
    birth = walker_for(world, "a", layers=2, floats=20, min_holders=4, laps=3, extra=extra)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=all_home(world, 1), seconds=600)
    assert walkers(world, "a")[birth.walker].version.manifest.progress.stops == 12
    reasons = [c["reason"] for c in reports(home, "chosen")]
    assert all(r.startswith("Metropolis walk: ") for r in reasons[:-1])


def test_released_versions_of_siblings_are_forgotten() -> None:
    """Rules: W-44"""
    config = Config(siblings_max=1, sibling_keep_us=1_000_000)
    world, _ = sent(4, config=config, laps=3)
    assert world.run(until=all_home(world, 4), seconds=900)
    assert reports(world.hosts["a"], "merged")
    world.run(seconds=10)
    for name in "bcd":
        released = [w for w in walkers(world, name).values() if w.role is Role.RELEASED]
        assert released
        assert all(w.version is None for w in released)
        objects = {d for w in walkers(world, name).values() for d in w.kept()}
        assert set(world.hosts[name].disk.objects) <= objects


def test_a_restart_in_the_middle_of_a_merge_loses_nothing() -> None:
    """Rules: W-01, W-45"""
    world, _ = sent(2)
    world.observers.append(Watch(world))
    merging = lambda h: any(  # noqa: E731
        w.activity.startswith("merging") for w in h.peer.status().walkers if h.peer
    )
    found = []

    def begun() -> bool:
        found.extend(h for h in world.hosts.values() if h.peer and merging(h))
        return bool(found)

    assert world.run(until=begun, seconds=300)
    world.kill(found[0])
    world.start(found[0])
    assert world.run(until=all_home(world, 2), seconds=900)
    heir = {w.heir for w in world.hosts["a"].peer.status().walkers}
    assert len(heir) == 1


def test_equal_siblings_merge_into_the_same_bits() -> None:
    """Rules: W-46"""

    class Still(StandIn):
        def perform(self, task, read, write):
            if task.kind == "merge":
                return super().perform(task, read, write)
            self.tasks.append(task)
            return LearnResult((), {"samples": 100.0, "seconds": 1.0, "steps": 10.0})

    world, ids = sent(3)
    for host in world.hosts.values():
        host.learner = Still()
    world.run(seconds=0.5)
    before = {r.digest for r in walkers(world, "a")[ids[0]].version.manifest.layers}
    assert world.run(until=all_home(world, 3), seconds=600)
    for i in ids:
        layers = walkers(world, "a")[i].version.manifest.layers
        assert {r.digest for r in layers} == before
    assert reports(world.hosts["a"], "merged")


def test_the_weights_are_those_of_the_samples() -> None:
    """Rules: W-46, W-47"""

    class Marking(StandIn):
        """A stop sets every number to its own; so what a merge made can be told."""

        def perform(self, task, read, write):
            result = super().perform(task, read, write)
            if task.kind == "merge":
                seen.append((task, result, {d: bytes(read(d)) for d in _digests(task, result)}))
            return result

    def _digests(task, result):
        refs = [r for s in task.siblings for r in s.layers] + list(result.layers)
        return {r.digest for r in refs}

    seen: list = []
    world, _ = sent(2)
    for host in world.hosts.values():
        host.learner = Marking()
    assert world.run(until=lambda: bool(seen), seconds=300)
    task, result, objects = seen[0]
    value = lambda ref: unpack_layer(objects[ref.digest])["w"].array()  # noqa: E731
    for ref in result.layers:
        wanted = sum(s.share(ref.index) * value(s.layers[ref.index]) for s in task.siblings)
        np.testing.assert_allclose(value(ref), wanted, rtol=1e-5, atol=1e-5)
    assert LearnTask.from_wire(task.to_wire()) == task


def test_what_is_no_version_of_the_same_model_is_not_merged() -> None:
    """Rules: W-44"""
    world, ids = sent(2)
    home = world.hosts["a"]
    assert world.run(until=lambda: len(reports(home, "stop")) >= 1, seconds=100)
    peer = home.peer
    meetings, mine = peer._journey._meetings, walkers(world, "a")
    own, other = (mine[i] for i in ids)
    assert own.version is not None
    blank = replace(own.version.manifest, extra={})  # as if it had seen nothing
    version = replace(own.version, manifest=blank, record=b"another")

    def lies(**fields: object) -> bool:
        made = replace(own.version.manifest, **fields)
        stranger = Walker(other.identity, Role.SHADOW, replace(own.version, manifest=made))
        return meetings._meeting(version, [stranger]) is None

    layers = own.version.manifest.layers
    assert not lies()
    assert lies(layers=layers[:2])
    assert lies(layers=tuple(replace(ref, name=f"x{ref.index}") for ref in layers))
    assert lies(seq=1 << 30)
    assert lies(model=bytes(32))
    assert lies(extra={41: [[bytes(8), b"\1\0\0\0"]]})  # one count for all of three layers
    assert lies(extra={})
    one = (1).to_bytes(4, "little") * 3
    assert not lies(extra={41: [[bytes([9, n]) * 4, one] for n in range(64)]})
    assert lies(extra={41: [[bytes([9, n]) * 4, one] for n in range(65)]})
    # of these the own version has seen none: a merge would tell of more walkers than there can be
    seen = with_ages(blank, {bytes([8]) * 8: (1, 1, 1)})
    version = replace(own.version, manifest=seen, record=b"another")
    assert lies(extra={41: [[bytes([9, n]) * 4, one] for n in range(64)]})


class Narrow(StandIn):
    """Has memory for one layer: of what it is given it trains the first alone, and says so."""

    def perform(self, task, read, write):
        if task.kind != "train":
            return super().perform(task, read, write)
        low = task.trained[0][0]
        made = super().perform(replace(task, trained=((low, low + 1),)), read, write)
        return replace(made, trained=((low, low + 1),))


def test_ages_count_what_was_trained_and_not_what_was_given() -> None:
    """Rules: W-26, W-45"""
    world, ids = sent(2, mode="snake", layers_per_stop=0, laps=1)
    for host in world.hosts.values():
        host.learner = Narrow()
    assert world.run(until=all_home(world, 2), seconds=600)
    for i in ids:
        seen = ages_of(walkers(world, "a")[i].version.manifest)
        assert all(counts[1:] == (0, 0) for counts in seen.values())
        assert any(counts[0] for counts in seen.values())


def test_layers_that_never_learn_are_not_merged_whatever_ages_claim() -> None:
    """Rules: W-35, W-46"""
    world, ids = sent(2, extra={39: 2})
    home = world.hosts["a"]
    assert world.run(until=lambda: len(reports(home, "stop")) >= 1, seconds=100)
    own, other = (walkers(world, "a")[i] for i in ids)
    assert own.version is not None
    blank = replace(own.version, manifest=replace(own.version.manifest, extra={}), record=b"own")
    counts = b"".join(n.to_bytes(4, "little") for n in (1 << 30, 1 << 30, 5))
    claims = replace(own.version.manifest, extra={41: [[bytes(8), counts]]})
    liar = Walker(other.identity, Role.SHADOW, replace(own.version, manifest=claims))
    meeting = home.peer._journey._meetings._meeting(blank, [liar])
    assert meeting is not None
    assert sorted(meeting.shares) == [(0.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
