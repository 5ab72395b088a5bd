"""Membership of whole peers in the simulator: custody, routing and views together."""

from __future__ import annotations

from itertools import pairwise

from mfd.core.config import Config
from mfd.core.events import Addressed
from mfd.sim.standin import StandIn
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

LEASE_US = 6_000_000


def enter(world: World, name: str, contact: Host | None = None) -> Host:
    """A host with data that others can dial; it joins at another one."""
    host = world.add(name, learner=StandIn())
    world.address(host)
    host.hold("data/train", 100)
    if contact is not None:
        world.join(host, world.address(contact))
    return host


def neighbours(host: Host) -> set[bytes]:
    assert host.peer is not None
    return set(host.peer.members.views.active)


def test_a_walker_travels_a_network_that_made_itself() -> None:
    """Rules: M-10, M-17"""
    config = Config(open_network=True, lease_us=LEASE_US, sources_per_name=16)
    world = World(3, config)
    home = enter(world, "home")
    world.run(seconds=0.1)
    for number in range(8):
        enter(world, f"h{number}", home)
    world.run(seconds=15)
    assert all(len(neighbours(host)) >= 4 for host in world.hosts.values())
    assert all(len(neighbours(host)) <= 8 for host in world.hosts.values())
    inject(world, "home", walker_for(world, "home", layers=3, floats=50, laps=1, min_holders=9))
    assert world.run(until=arrived(home), seconds=300)
    stops = [fields["stops"] for fields in reports(home, "arrived")]
    assert stops == [9]


def test_a_third_dies_and_the_walker_still_comes_home() -> None:
    """Rules: M-17, M-19"""
    config = Config(open_network=True, lease_us=LEASE_US, offer_us=2_000_000, sources_per_name=16)
    world = World(5, config)
    home = enter(world, "home")
    world.run(seconds=0.1)
    for number in range(8):
        enter(world, f"h{number}", home)
    world.run(seconds=10)
    inject(world, "home", walker_for(world, "home", layers=3, floats=50, laps=1, min_holders=9))
    world.run(seconds=4)
    dead = [world.hosts[f"h{number}"] for number in range(3)]
    for host in dead:
        world.kill(host)
    world.run(seconds=10)
    gone = {host.key.public_key for host in dead}
    living = [host for host in world.hosts.values() if host.peer is not None]
    assert not any(neighbours(host) & gone for host in living)
    assert all(len(neighbours(host)) >= 4 for host in living)
    for host in dead:
        world.start(host)
    world.run(seconds=70)
    assert all(len(neighbours(host)) >= 2 for host in world.hosts.values())  # dialled again
    assert world.run(until=arrived(home), seconds=200)


def forked(world: World) -> str:
    """Cut the owner off until its shadow has re-issued the walker; return the owner's name."""

    def owner() -> str:
        for name in "bcd":
            peer = world.hosts[name].peer
            walkers = peer.status().walkers if peer else ()
            if walkers and walkers[0].role == "own" and "training" in walkers[0].activity:
                return name
        return ""

    assert world.run(until=lambda: owner() != "", seconds=120)
    lost = owner()
    for other in sorted(world.hosts):
        if other != lost:
            world.unplug(lost, other)
    reissued = lambda: any(reports(h, "reissued") for h in world.hosts.values())  # noqa: E731
    assert world.run(until=reissued, seconds=120)
    return lost


def test_an_owner_that_was_cut_off_hears_of_the_new_epoch_from_anybody() -> None:
    """Rules: M-30, M-31"""
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("a", "d"), ("b", "d"), ("c", "d"), ("d", "far")]
    config = Config(lease_us=LEASE_US, offer_us=2_000_000)
    world = world_of([*edges, ("far", "b"), ("far", "c")], "abcd", config=config)
    for host in world.hosts.values():
        if host.learner is not None:
            host.learner.seconds = 30.0  # type: ignore[attr-defined]
    inject(world, "a", walker_for(world, "a", layers=3, floats=50, laps=2, min_holders=4))
    lost = forked(world)
    world.run(seconds=1)
    far = world.hosts["far"]
    assert far.peer is not None
    assert not far.peer.status().walkers
    assert {held.payload[0] for held in far.peer.members.gossip.held.values()} >= {12, 17}
    world.plug(lost, "far")  # a relay that has nothing to do with the walker
    assert world.run(until=lambda: bool(reports(world.hosts[lost], "fenced")), seconds=1.5)


def test_records_of_all_reach_everybody_over_given_links() -> None:
    """Rules: M-08, M-16"""
    names = [f"n{number}" for number in range(12)]
    world = world_of([*pairwise(names), (names[-1], names[0])], names)
    for host in world.hosts.values():
        world.happen(host, Addressed((f"10.0.1.{names.index(host.name) + 1}:7000",)))
    world.run(seconds=300)
    for host in world.hosts.values():
        assert host.peer is not None
        assert len(neighbours(host)) == 2
        assert len(host.peer.members.views.passive) >= 6
        assert len(list(host.peer.members.book.valid(world.now_us))) >= 9
