"""Leases: who may act when nobody answers, and how a fork ends."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.events import Ticked
from mfd.core.messages import Kind
from mfd.packet.objects import object_digest
from mfd.sim.checks import Custody
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

LEASE_US = 6_000_000
EDGES = [("a", "b"), ("b", "c"), ("c", "a"), ("a", "d"), ("b", "d"), ("c", "d")]


def started(
    *, reissue: str = "auto", copies: int = 2, laps: int = 2, seconds: float = 1.0
) -> World:
    config = Config(lease_us=LEASE_US, offer_us=2_000_000, failed_holder_us=6_000_000)
    world = world_of(EDGES, "abcd", config=config)
    world.observers.append(Custody(world))
    for host in world.hosts.values():
        host.learner.seconds = seconds
    plan = {"laps": laps, "min_holders": 4}
    birth = walker_for(world, "a", layers=3, floats=50, reissue=reissue, copies=copies, **plan)
    inject(world, "a", birth)
    return world


def role(host: Host) -> str:
    walkers = host.peer.status().walkers if host.peer else ()
    return walkers[0].role if walkers else ""


def owner(world: World, *, but: str) -> Host | None:
    """A host that trains the walker now, durably its owner."""
    for host in world.hosts.values():
        if host.name == but or role(host) != "own":
            continue
        if "training" in host.peer.status().walkers[0].activity:
            return host
    return None


def first_away(world: World) -> Host:
    assert world.run(until=lambda: owner(world, but="a") is not None, seconds=120)
    return owner(world, but="a")


def test_a_dead_owner_is_replaced_after_a_lease() -> None:
    """Rules: C-20, C-22"""
    world = started()
    lost = first_away(world)
    world.kill(lost)
    at = world.now_us
    assert world.run(until=arrived(world.hosts["a"]), seconds=300)
    reissues = [(t, r) for h in world.hosts.values() for t, r in h.reports if r.kind == "reissued"]
    assert len(reissues) == 1
    assert reissues[0][0] - at + 100_000 >= LEASE_US  # not before the lease was over
    assert role(world.hosts["a"]) == "done"
    assert world.hosts["a"].peer.status().walkers[0].epoch == 1


def test_the_last_shadow_replaces_who_has_replaced_the_owner() -> None:
    """The first shadow re-issues and dies before it hands over: the second one knows its turn.

    Rules: C-22
    """
    world = started(copies=3, laps=4)
    shadows = lambda: [h for h in world.hosts.values() if role(h) == "shadow"]  # noqa: E731
    lone = lambda: len(shadows()) == 2 and owner(world, but="") is not None  # noqa: E731
    assert world.run(until=lambda: bool(reports(world.hosts["a"], "handed")), seconds=60)
    world.run(seconds=1)
    assert world.run(until=lone, seconds=120)
    world.kill(owner(world, but=""))
    reissued = lambda: [h for h in world.hosts.values() if reports(h, "reissued")]  # noqa: E731
    assert world.run(until=lambda: bool(reissued()), seconds=60)
    world.run(seconds=1)  # it tells the other shadow, and has not handed over
    (first,) = reissued()
    (last,) = shadows()
    assert role(first) == "own"
    world.kill(first)
    assert world.run(until=lambda: role(last) == "own", seconds=60)
    assert [r["epoch"] for r in reports(last, "reissued")] == [2]


@pytest.mark.parametrize("policy", ["manual", "never"])
def test_without_auto_nobody_re_issues(policy: str) -> None:
    """Rules: C-22"""
    world = started(reissue=policy)
    lost = first_away(world)
    world.kill(lost)
    world.run(seconds=60)
    assert not any(reports(h, "reissued") for h in world.hosts.values())
    assert any(reports(h, "lost") for h in world.hosts.values())
    world.start(lost)
    assert world.run(until=arrived(world.hosts["a"]), seconds=300)
    assert world.hosts["a"].peer.status().walkers[0].epoch == 0


def test_a_living_owner_keeps_its_lease_however_long_it_trains() -> None:
    """Rules: C-20"""
    world = started(laps=1, seconds=8 * LEASE_US / 1e6)
    assert world.run(until=arrived(world.hosts["a"]), seconds=600)
    assert not any(reports(h, "reissued") for h in world.hosts.values())


def test_a_lapsed_owner_offers_nothing_until_it_has_renewed() -> None:
    """Rules: C-21"""
    world = started()
    host = first_away(world)
    leases, walker = host.peer._leases, next(iter(host.peer._walkers))
    assert not leases.lapsed(walker)
    world.run(seconds=0.1)
    world.kill(host)
    world.start(host)  # nobody knows any more when the last PROGRESS was sent
    while role(host) != "own":
        world.run(seconds=0.0005)
    walker = next(iter(host.peer._walkers))
    leases = host.peer._leases
    assert leases.lapsed(walker)
    failed: list[bool] = []
    host.peer._handover.offer(
        walker, (world.hosts["a"].key.public_key,), lambda: failed.append(True)
    )
    assert failed
    assert not host.peer._handover._offers
    assert world.run(until=lambda: not leases.lapsed(walker), seconds=10)  # PROGRESS, PROGRESS_ACK


def test_the_lease_counts_from_the_first_stored() -> None:
    """The GRANT comes late: the lease began when STORED was sent, not when the GRANT came.

    Rules: C-20
    """
    world = started()
    delays: list[int] = []
    for host in world.hosts.values():
        deliver = host.peer._courier._deliver

        def late(message, host=host, deliver=deliver) -> None:
            if message.kind is Kind.GRANT and not delays:
                delays.append(world.now_us)  # lost; STORED is said again after 5 s
            elif message.kind is not Kind.PROGRESS_ACK:
                deliver(message)

        host.peer._courier._deliver = late
    host = first_away(world)
    until_us = host.peer._leases._of(next(iter(host.peer._walkers))).until_us
    assert until_us < delays[0] + LEASE_US * 9 // 10
    assert world.now_us > delays[0] + 4_900_000


def test_a_returning_owner_is_fenced() -> None:
    """Rules: C-23, C-24"""
    world = started(laps=4)
    lost = first_away(world)
    world.kill(lost)
    assert world.run(
        until=lambda: any(reports(h, "reissued") for h in world.hosts.values()), seconds=60
    )
    world.start(lost)
    assert world.run(until=lambda: bool(reports(lost, "fenced")), seconds=60)
    assert world.run(until=arrived(world.hosts["a"]), seconds=600)
    assert sum(len(reports(h, "arrived")) for h in world.hosts.values()) == 1


def test_a_partition_longer_than_a_lease_forks_and_one_branch_is_fenced() -> None:
    """The owner trains on behind the cut; its shadow re-issues; healed, one branch is left.

    Rules: C-21, C-22, C-24
    """
    world = started(laps=8)
    cut = first_away(world)
    wires = [(a, b) for a, b in EDGES if cut.name in (a, b)]
    for a, b in wires:
        world.unplug(a, b)
    world.run(seconds=5 * LEASE_US / 1e6)
    for a, b in wires:
        world.plug(a, b)
    assert world.run(until=arrived(world.hosts["a"]), seconds=900)
    world.run(seconds=60)
    roles = [role(h) for h in world.hosts.values()]
    assert roles.count("done") == 1
    assert roles.count("own") == 0
    assert sum(len(reports(h, "fenced")) for h in world.hosts.values()) >= 1


def test_copies_are_released_when_the_walker_is_home() -> None:
    """Rules: C-16, C-25"""
    world = started()
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
    world.run(seconds=3 * LEASE_US / 1e6)
    assert sorted(role(h) for h in world.hosts.values()) == ["done"] + 3 * ["released"]


def test_a_home_that_restarts_still_releases_the_last_shadow() -> None:
    """Rules: C-16, C-25"""
    world = started()
    home = world.hosts["a"]
    done = lambda: role(home) == "done" and not home.disk.syncing  # noqa: E731
    assert world.run(until=done, seconds=120)
    world.kill(home)
    world.start(home)
    world.run(seconds=10 * LEASE_US / 1e6)
    assert sorted(role(h) for h in world.hosts.values()) == ["done"] + 3 * ["released"]
    assert home.peer is not None
    assert [w.activity for w in home.peer.status().walkers] == ["home"]  # as before the restart
    assert not any(reports(h, "reissued") for h in world.hosts.values())


@pytest.mark.parametrize(("copies", "shadows"), [(1, 0), (2, 1), (3, 2)])
def test_as_many_copies_as_the_genesis_says(copies: int, shadows: int) -> None:
    """Rules: C-16"""
    world = started(copies=copies, seconds=4.0)
    stops = list(world.hosts.values())
    third = lambda: sum(len(reports(h, "handed")) for h in stops) >= 3  # noqa: E731
    assert world.run(until=third, seconds=120)
    world.run(seconds=3)  # the new owner has released the others, and still trains
    assert sorted(map(role, stops)).count("shadow") == shadows
    assert sorted(map(role, stops)).count("own") == 1


def test_with_three_copies_two_hosts_may_be_lost() -> None:
    """Rules: C-16, C-22"""
    world = started(copies=3, seconds=3.0)
    home = world.hosts["a"]
    hosts = world.hosts.values()
    third = lambda: sum(len(reports(h, "handed")) for h in hosts) >= 3  # noqa: E731
    assert world.run(until=third, seconds=120)
    world.run(seconds=1)
    holder = owner(world, but="a")
    target = holder.key.public_key.hex()
    handed = {h.name: reports(h, "handed")[-1:] for h in world.hosts.values()}
    nearest = world.hosts[next(n for n, r in handed.items() if r and r[0]["target"] == target)]
    assert nearest is not home
    world.kill(holder)
    world.kill(nearest)
    assert world.run(until=arrived(home), seconds=600)


def test_a_released_for_another_certificate_does_not_count() -> None:
    """Rules: C-16"""
    world = started(seconds=4.0)
    world.observers.clear()  # the shadow below says what its disk does not
    host = first_away(world)
    walker = next(iter(host.peer._walkers))
    leases = host.peer._leases
    shadow = next(h for h in world.hosts.values() if h.key.public_key in leases.unreleased(walker))
    for digest in (bytes(32), object_digest(walker.certificates[0])):
        before = leases.unreleased(walker)
        assert shadow.key.public_key in before
        shadow.peer._courier.send(host.key.public_key, Kind.RELEASED, walker.id, digest)
        world.happen(shadow, Ticked())
        world.run(seconds=0.3)
    assert shadow.key.public_key not in leases.unreleased(walker)
