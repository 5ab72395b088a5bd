"""Membership of whole peers in the simulator: custody, routing and views together."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from mfd.core.config import Config
from mfd.core.effects import Dial, Effect
from mfd.core.events import Addressed, DialFailed, Joined
from mfd.sim.standin import StandIn
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

LEASE_US = 6_000_000


class DiallingWorld(World):
    """Hosts that can all dial each other: a dial lays a wire."""

    def address(self, host: Host) -> str:
        return f"10.0.0.{list(self.hosts).index(host.name) + 1}:7000"

    def enter(self, name: str, contact: Host | None = None) -> Host:
        host = self.add(name, learner=StandIn())
        self.happen(host, Addressed((self.address(host),)))
        host.hold("data/train", 100)
        if contact is not None:
            self.happen(host, Joined(self.address(contact)))
        return host

    def _perform(self, host: Host, effect: Effect) -> None:
        if not isinstance(effect, Dial):
            super()._perform(host, effect)
            return
        self.at(self.now_us + 1_000, partial(self._dial, host, host.life, effect.address))

    def _dial(self, host: Host, life: int, line: str) -> None:
        address = line.removeprefix("mfd://").partition("/")[0]
        other = next((h for h in self.hosts.values() if self.address(h) == address), None)
        if host.life != life or host.peer is None:
            return
        if other is None or other.peer is None or other is host:
            self.happen(host, DialFailed(line, "nobody listens there"))
            return
        wire = next((w for w in self._wires if set(w.ends) == {host.name, other.name}), None)
        if wire is not None and wire.links:
            self.happen(host, DialFailed(line, "a link to this peer stands"))
            return
        if wire is not None:
            self._wires.remove(wire)
        # the simulator names the far host as the address dialled; the peer asked for a line
        self._lines[host.name, other.name] = line
        self.link(host.name, other.name)

    def _deliver(self, host: Host, life: int, event) -> None:
        from dataclasses import replace

        from mfd.core.events import LinkUp

        if isinstance(event, LinkUp) and event.outbound:
            event = replace(event, address=self._lines.get((host.name, event.address), ""))
        super()._deliver(host, life, event)

    def __init__(self, seed: int, config: Config | None = None) -> None:
        super().__init__(seed, config)
        self._lines: dict[tuple[str, str], str] = {}


def neighbours(host: Host) -> set[bytes]:
    assert host.peer is not None
    return set(host.peer.members.views.active)


def test_a_walker_travels_a_network_that_made_itself() -> None:
    """Rules: M-10, M-17"""
    config = Config(open_network=True, lease_us=LEASE_US, sources_per_name=16)
    world = DiallingWorld(3, config)
    home = world.enter("home")
    world.run(seconds=0.1)
    for number in range(8):
        world.enter(f"h{number}", home)
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
    world = DiallingWorld(5, config)
    home = world.enter("home")
    world.run(seconds=0.1)
    for number in range(8):
        world.enter(f"h{number}", home)
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
        world.happen(host, Addressed((world.address(host),)))
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
