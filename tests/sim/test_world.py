"""The same seed gives the same world, to the bit, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mfd.sim.world import World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

EDGES = [("a", "r"), ("r", "b"), ("b", "c"), ("c", "d"), ("r", "d")]
ROOT = Path(__file__).parents[2]
SCRIPT = "from tests.sim.test_world import travel; print(travel(5).trace_hash())"


def travel(seed: int) -> World:
    world = world_of(EDGES, "abcd", verifier="c", seed=seed)
    plan = {"verify": ("data/test",), "min_holders": 4, "laps": 1}
    inject(world, "a", walker_for(world, "a", floats=100, **plan))
    victim = world.hosts["d"]
    world.at(3_500_000, lambda: world.kill(victim))
    world.at(4_500_000, lambda: world.start(victim))
    assert world.run(until=arrived(world.hosts["a"]), seconds=600)
    return world


def in_process(hash_seed: str) -> str:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_same_seed_same_trace() -> None:
    """Rules: W-20"""
    first, second = travel(5), travel(5)
    assert first.trace_hash() == second.trace_hash()
    assert first.events == second.events
    assert travel(6).trace_hash() != first.trace_hash()


def test_the_trace_does_not_depend_on_the_order_of_hashing() -> None:
    """Rules: W-20"""
    here = travel(5).trace_hash()
    assert {in_process(seed) for seed in ("0", "1", "4242")} == {here}


def test_what_was_not_synced_is_gone_after_a_crash() -> None:
    world = world_of([("a", "b")], "ab")
    inject(world, "a", walker_for(world, "a", floats=100, min_holders=2))
    host = world.hosts["a"]
    assert world.run(until=lambda: bool(host.disk.syncing), seconds=10)
    world.kill(host)
    world.start(host)
    world.run(seconds=5)
    assert host.disk.records == {}


def test_what_the_disk_had_been_asked_for_may_also_survive() -> None:
    world = world_of([("a", "b")], "ab")
    inject(world, "a", walker_for(world, "a", floats=100, min_holders=2))
    host = world.hosts["a"]
    assert world.run(until=lambda: bool(host.disk.syncing), seconds=10)
    world.kill(host, synced=True)
    world.start(host)
    assert world.run(until=arrived(host), seconds=600)
    assert not reports(host, "corrupt")
