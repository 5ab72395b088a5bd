"""What a walker leaves behind where nobody counts on it goes after a while; its mark stays."""

from __future__ import annotations

from mfd.core.config import Config
from mfd.sim import insight
from mfd.sim.checks import Custody
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, inject, walker_for, world_of

KEEP_S = 10
CONFIG = Config(released_keep_us=KEEP_S * 1_000_000, lease_us=6_000_000)
RING = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]


def journey(laps: int) -> World:
    world = world_of(RING, "abcd", config=CONFIG)
    world.observers.append(Custody(world))
    inject(world, "a", walker_for(world, "a", layers=3, floats=50, laps=laps, min_holders=4))
    assert world.run(until=arrived(world.hosts["a"]), seconds=300)
    return world


def marks(host: Host) -> list[tuple[int, bytes, int]]:
    assert host.peer is not None
    return [walker.high_water for walker in insight.walkers(host.peer)]


def test_released_copies_go_and_the_marks_stay() -> None:
    """Rules: C-39"""
    world = journey(laps=1)
    others = [world.hosts[name] for name in "bcd"]
    world.run(seconds=2)
    before = {host.name: marks(host) for host in others}
    assert all(host.disk.objects for host in others), "for a while: the walker may come again"
    off = others[0]
    world.run(seconds=KEEP_S / 2)
    world.kill(off, synced=True)
    world.start(off)
    world.run(seconds=KEEP_S / 2 + 1)
    assert off.disk.objects, "a restart begins to count anew"
    assert not any(host.disk.objects for host in others[1:])
    world.run(seconds=KEEP_S)
    assert not off.disk.objects
    assert {host.name: marks(host) for host in others} == before
    home = world.hosts["a"]
    assert home.peer is not None
    (walker,) = insight.walkers(home.peer)
    assert walker.version is not None
    assert walker.version.objects.keys() <= home.disk.objects.keys(), "home keeps it"
    world.kill(off)
    world.start(off)
    world.run(seconds=1)
    assert marks(off) == before[off.name]


def test_a_walker_that_comes_back_later_brings_everything_again() -> None:
    """Rules: C-39, C-10"""
    world = world_of(RING, "abcd", config=CONFIG)
    world.observers.append(Custody(world))
    for host in world.hosts.values():
        host.learner.seconds = 2.0 * KEEP_S  # type: ignore[union-attr]
    inject(world, "a", walker_for(world, "a", layers=3, floats=50, laps=2, min_holders=4))
    assert world.run(until=arrived(world.hosts["a"]), seconds=600)
    peers = [host.peer for host in world.hosts.values() if host.peer is not None]
    assert sum(insight.counter(peer, "copies_forgotten") for peer in peers) >= 2
