"""Epochs: copies that no certificate names any more, and branches that have gone far apart."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from mfd.core import epochs
from mfd.core.certificates import follows, open_certificate, seal_certificate
from mfd.core.config import Config
from mfd.core.custody import Role, Walker
from mfd.core.events import Ticked
from mfd.core.fences import Fences
from mfd.core.lease import Leases
from mfd.core.messages import Kind, Message
from mfd.packet.errors import PacketError
from mfd.packet.objects import object_digest
from mfd.sim.checks import Custody
from mfd.sim.keys import SimKey, sim_verify
from mfd.sim.world import Host, World
from tests.core.test_certificates import FIRST_RECORD, NEXT, WALKER, A, B, C, D, reissue
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

LEASE_US = 3_000_000
PAIR = [("a", "b")]
TRIANGLE = [("a", "b"), ("a", "c"), ("b", "c")]


def started(edges: list[tuple[str, str]], *, laps: int = 2) -> tuple[World, Custody]:
    config = Config(lease_us=LEASE_US, offer_us=1_000_000, failed_holder_us=3_000_000)
    names = sorted({name for edge in edges for name in edge})
    world = world_of(edges, names, config=config, sealed=False)
    custody = Custody(world)
    world.observers.append(custody)
    for host in world.hosts.values():
        host.learner.seconds = 1.0
    plan = {"laps": laps, "min_holders": len(names)}
    inject(world, "a", walker_for(world, "a", layers=1, floats=10, **plan))
    return world, custody


def walker(host: Host) -> Walker | None:
    return next(iter(host.peer._walkers), None) if host.peer else None


def role(host: Host) -> Role:
    known = walker(host)
    return Role.NONE if known is None else known.role


def forked(edges: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> tuple[World, Custody]:
    """The home is cut off once it has handed the walker on; it has re-issued it, and is met again.

    Everybody else has learnt of its epoch; it has not handed anything on since.
    """
    world, custody = started(edges)
    home, others = world.hosts["a"], [h for n, h in world.hosts.items() if n != "a"]
    assert world.run(until=lambda: any(role(h) is Role.OWN for h in others), seconds=60)
    cut = [edge for edge in edges if "a" in edge]
    for a, b in cut:
        world.unplug(a, b)
    assert world.run(until=lambda: bool(reports(home, "reissued")), seconds=60)
    handover = home.peer._handover
    monkeypatch.setattr(handover, "offer", lambda walker, targets, failed, less=None: failed())
    for a, b in cut:
        world.plug(a, b)

    def told() -> bool:
        kept = [h for h in others if role(h) in (Role.OWN, *epochs.KEEPERS)]
        return all(walker(h).high_water[0] == 1 and not h.disk.syncing for h in kept)

    assert world.run(until=told, seconds=60)
    return world, custody


def lose(world: World, custody: Custody, name: str) -> None:
    """One disk is lost; the host comes back with an empty one."""
    host = world.hosts[name]
    world.kill(host)
    custody.bereave(host)
    world.wipe(host)
    world.start(host)


@pytest.mark.parametrize("edges", [PAIR, TRIANGLE])
def test_one_lost_disk_of_two_loses_no_walker(
    edges: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who issued the epoch named no shadow and loses its disk: a fenced owner or a shadow goes on.

    Rules: C-22, C-42, C-40
    """
    world, custody = forked(edges, monkeypatch)
    others = [h for n, h in world.hosts.items() if n != "a"]
    assert {role(h) for h in others} >= {Role.FENCED}
    assert (Role.SHADOW in {role(h) for h in others}) is (edges is TRIANGLE)
    lose(world, custody, "a")
    reissued = lambda: any(reports(h, "reissued") for h in others)  # noqa: E731
    assert world.run(until=reissued, seconds=10 * LEASE_US / 1e6)
    assert world.run(until=arrived(world.hosts["a"]), seconds=300)
    assert not custody.excused


def test_an_owner_without_copies_keeps_the_strays() -> None:
    """Asked once a lease, it answers: nobody drops a copy, nobody begins an epoch.

    Rules: C-42, C-41
    """
    with pytest.MonkeyPatch.context() as patch:
        world, _ = forked(TRIANGLE, patch)
        world.run(seconds=8 * LEASE_US / 1e6)
    assert sorted(role(h).value for h in world.hosts.values()) == ["fenced", "own", "shadow"]
    assert [len(reports(h, "reissued")) for h in world.hosts.values()] == [1, 0, 0]


def test_strays_are_released_once_copies_are_kept_elsewhere() -> None:
    """Rules: C-25, C-41"""
    with pytest.MonkeyPatch.context() as patch:
        world, _ = forked(TRIANGLE, patch)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    world.run(seconds=4 * LEASE_US / 1e6)
    assert sorted(role(h).value for h in world.hosts.values()) == ["done", "released", "released"]
    assert sum(len(reports(h, "reissued")) for h in world.hosts.values()) == 1


def test_a_released_branch_stays_and_watches_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: C-40"""
    world, _ = forked(PAIR, monkeypatch)
    home, other = world.hosts["a"], world.hosts["b"]
    known = walker(home)
    me = other.key.public_key
    home.peer._courier.send(me, Kind.RELEASE, known.id, list(known.certificates))
    world.happen(home, Ticked())
    world.run(seconds=0.5)
    assert walker(other).certificates == ()
    world.kill(home)
    world.kill(other)
    world.start(other)
    world.run(seconds=5 * LEASE_US / 1e6)
    assert role(other) is Role.FENCED
    assert walker(other).high_water[0] == 1
    assert walker(other).version is not None


def test_a_rumour_is_not_lost_on_a_row_that_is_being_saved() -> None:
    """Rules: C-23"""
    world, _ = started(PAIR)
    home, other = world.hosts["a"], world.hosts["b"]
    assert world.run(until=lambda: role(other) is Role.OWN, seconds=60)
    world.unplug(*PAIR[0])
    assert world.run(until=lambda: bool(reports(home, "reissued")), seconds=60)
    known, told = walker(other), list(walker(home).certificates)
    known.saving += 1
    body = (known.id, told)
    other.peer._leases.on_stale(Message(Kind.STALE, home.key.public_key, body, b"", b""))
    known.saving -= 1
    world.happen(other, Ticked())
    assert role(other) is Role.OWN
    world.run(seconds=1.5)
    assert role(other) is Role.FENCED


@pytest.mark.parametrize("hears", [True, False])
def test_what_is_home_stays_though_an_older_branch_comes_later(
    hears: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keeper was off, and finds the home off: it goes on from its own, shorter branch.

    Rules: C-44
    """
    world, custody = started(TRIANGLE, laps=1)
    home, *others = world.hosts.values()
    went = lambda h: role(h) is Role.SHADOW and not h.disk.syncing  # noqa: E731
    assert world.run(until=lambda: any(went(h) for h in others), seconds=60)
    older = next(h for h in others if went(h))
    [last] = [h for h in others if h is not older]
    world.run(seconds=0.1)
    world.kill(older)
    assert world.run(until=arrived(home), seconds=60)
    came = walker(home).version
    assert came.manifest.progress.stops == 3
    world.kill(home)
    world.kill(last)
    world.start(older)
    assert world.run(until=lambda: bool(reports(older, "reissued")), seconds=20)
    assert walker(older).version.manifest.progress.stops == 2
    if not hears:  # of the other epoch from the offer alone
        monkeypatch.setattr(Leases, "on_broadcast", lambda *_: None)
    world.start(home)
    over = lambda: role(older) is Role.FENCED and walker(older).certificates == ()  # noqa: E731
    assert world.run(until=over, seconds=30)
    assert role(home) is Role.DONE
    assert walker(home).version == came
    assert all(digest in home.disk.objects for digest in came.objects)
    assert len(reports(home, "arrived")) == 1
    assert not custody.excused


def test_a_version_that_was_held_when_another_came_home_is_not_taken() -> None:
    """Rules: C-44"""
    world, _ = started(PAIR)
    home = world.hosts["a"]
    assert world.run(until=lambda: walker(home) and walker(home).held is not None, seconds=60)
    known = walker(home)
    held, known.role = known.held, Role.DONE  # as if the newer branch had just arrived
    before = known.version
    world.run(seconds=1)
    assert (known.role, known.held, known.version) == (Role.DONE, None, before)
    assert held.version != before


def test_a_fence_told_to_all_is_shown_to_an_owner_who_missed_it() -> None:
    """The next custodian has never had the walker, and has heard of the newer epoch.

    Rules: C-45
    """
    world, _ = started(TRIANGLE)
    home, *others = world.hosts.values()
    assert world.run(until=lambda: any(role(h) is Role.OWN for h in others), seconds=60)
    owner = next(h for h in others if role(h) is Role.OWN)
    [next_one] = [h for h in others if h is not owner]
    key, known = home.key, walker(home)
    certificate, before = epochs.next_epoch(known, key.public_key, LEASE_US, sim_verify)
    body = (known.id, [seal_certificate(certificate, key), before])
    told = Message(Kind.STALE, key.public_key, body, b"", b"")
    next_one.peer._leases.on_broadcast(told)
    assert world.run(until=lambda: bool(reports(owner, "fenced")), seconds=10)
    assert role(owner) is Role.FENCED
    assert walker(next_one) is None, "not even a row was spent on it"


# rows and certificates

NEXT_RECORD = seal_certificate(NEXT, B)


def row(kind: Role, *records: bytes) -> Walker:
    """A row that knows these certificates, newest first."""
    newest = open_certificate(records[0], sim_verify)
    known = Walker(SimpleNamespace(walker=WALKER), kind, certificates=records)
    known.high_water = newest.position
    return known


def epoch(key: SimKey, counter: int, before: bytes, **changes) -> bytes:
    certificate = reissue(
        key, epoch=(counter, key.public_key), previous=object_digest(before), **changes
    )
    return seal_certificate(certificate, key)


def test_of_branches_that_forked_long_ago_the_higher_one_is_believed() -> None:
    """Rules: C-23, C-24"""
    one = [NEXT_RECORD]
    other = [NEXT_RECORD]
    for counter in (1, 2, 3):
        one.insert(0, epoch(A, counter, one[0]))
        other.insert(0, epoch(B, counter, other[0]))
    lower, higher = sorted((one, other), key=lambda c: open_certificate(c[0], sim_verify).position)
    assert epochs.proves(higher[:2], row(Role.OWN, *lower[:2]), sim_verify)
    assert not epochs.proves(lower[:2], row(Role.OWN, *higher[:2]), sim_verify)
    assert not epochs.proves(higher[:1], row(Role.OWN, *lower[:2]), sim_verify)
    cut = [higher[0], higher[2]]  # does not hang together
    assert not epochs.proves(cut, row(Role.OWN, *lower[:2]), sim_verify)
    foreign = Walker(SimpleNamespace(walker=bytes(32)), Role.OWN, certificates=tuple(lower[:2]))
    assert not epochs.proves(higher[:2], foreign, sim_verify)
    with pytest.raises(PacketError):
        epochs.proves([higher[0], b"none"], row(Role.OWN, *lower[:2]), sim_verify)


@pytest.mark.parametrize("kind", epochs.KEEPERS)
def test_a_stray_keeps_what_entitles_it(kind: Role) -> None:
    """However many epochs it is shown that do not name it, it may follow the one that does.

    Rules: C-06, C-42
    """
    me = C.public_key if kind is Role.FENCED else B.public_key
    known = row(kind, NEXT_RECORD, FIRST_RECORD)  # B has handed on to C
    chain = [epoch(A, 1, FIRST_RECORD), FIRST_RECORD]
    for counter in (2, 3):
        known.certificates = epochs.shown(known, chain, me, sim_verify)
        known.high_water = open_certificate(chain[0], sim_verify).position
        assert known.certificates[:2] == tuple(chain)
        assert len(known.certificates) <= 3
        chain = [epoch(A, counter, chain[0]), chain[0]]
        assert epochs.is_stray(open_certificate(known.certificates[0], sim_verify), me)
    assert epochs.claim(known, me, sim_verify) in (NEXT_RECORD, FIRST_RECORD)
    made, before = epochs.next_epoch(known, me, LEASE_US, sim_verify)
    assert (made.epoch, made.hop, made.shadows) == ((3, me), 0, ())
    assert follows(made, open_certificate(before, sim_verify), before)
    assert epochs.claim(known, D.public_key, sim_verify) is None


def test_fences_are_believed_no_further_than_by_an_owner_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rules: C-45"""
    known = Fences(sim_verify)
    first = open_certificate(FIRST_RECORD, sim_verify)
    offered = (*first.epoch, 2)
    against = lambda: known.against(WALKER, offered, [FIRST_RECORD])  # noqa: E731
    known.learn([epoch(D, 1, NEXT_RECORD)])
    assert against() == (), "it hangs together with nothing"
    fence = (epoch(B, 2, FIRST_RECORD), FIRST_RECORD)
    known.learn(fence)
    known.learn([epoch(D, 1, NEXT_RECORD)])
    assert against() == fence
    assert known.against(WALKER, (3, bytes(32), 1), [FIRST_RECORD]) == ()
    assert known.against(WALKER, offered, []) == ()
    assert known.against(bytes(32), offered, [FIRST_RECORD]) == ()
    known.learn([NEXT_RECORD])
    monkeypatch.setattr("mfd.core.fences.WALKERS_MAX", 2)
    for number in range(3):
        known.learn([epoch(D, 1, NEXT_RECORD, walker=bytes([number]) * 32)])
    assert len(known) == 2
    assert against() == (), "what was heard longest ago is forgotten first"


def test_who_is_named_has_its_turn_before_a_stray() -> None:
    """Rules: C-22, C-42"""
    named = replace(NEXT, shadows=(B.public_key, A.public_key))
    assert [epochs.rank(named, k.public_key) for k in (B, A, D)] == [1, 2, 3]
    known = row(Role.SHADOW, seal_certificate(named, B), FIRST_RECORD)
    made, _ = epochs.next_epoch(known, B.public_key, LEASE_US, sim_verify)
    assert made.shadows == (A.public_key,)
    shown = [epoch(A, 1, FIRST_RECORD, shadows=(B.public_key,)), FIRST_RECORD]
    known.certificates = epochs.shown(known, shown, B.public_key, sim_verify)
    assert known.certificates == tuple(shown)
