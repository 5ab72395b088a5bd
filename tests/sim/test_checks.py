"""Each invariant bites: break the peer on purpose, and its checker must say so."""

from __future__ import annotations

import pytest

from mfd.core.custody import Role, Walker
from mfd.core.fences import Fences
from mfd.core.handover import Handover
from mfd.core.lease import Leases
from mfd.core.reception import Reception
from mfd.core.walkers import Walkers
from mfd.sim.checks import Custody, Violation
from mfd.sim.world import World
from tests.sim.test_crashes import TRIANGLE, journey
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of


def run_home() -> World:
    world, _ = journey()
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
    return world


def test_nothing_is_found_where_nothing_is_broken() -> None:
    """Rules: C-30, C-31, C-32, C-33, C-34"""
    world, custody = journey()
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
    assert custody.promises >= 9  # three hand-overs of three promises each


@pytest.mark.parametrize("message", ["STORED", "GRANT", "OWNED"])
def test_a_promise_before_its_fsync(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """Rules: C-33"""
    save, roles = Walkers.save, {"STORED": None, "GRANT": Role.SHADOW, "OWNED": Role.OWN}

    def eager(self: Walkers, walker: Walker, *, then, objects=()) -> None:
        early = walker.held is not None if message == "STORED" else walker.role is roles[message]
        if early and (walker.certificates or walker.held):
            then()
            then = lambda: None  # noqa: E731
        save(self, walker, then=then, objects=objects)

    monkeypatch.setattr(Walkers, "save", eager)
    with pytest.raises(Violation, match=f"S4: . sent {message} before its fsync"):
        run_home()


def test_held_that_promotes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: C-30"""

    def promote(self: Reception, walker: Walker, held) -> None:
        walker.role, walker.version, walker.held = Role.OWN, held.version, None
        walker.high_water = held.position
        self._walkers.save(walker, then=lambda: None)

    monkeypatch.setattr(Reception, "_say_first", promote)
    monkeypatch.setattr(Handover, "on_stored", lambda self, message: None)
    world, _ = journey()
    with pytest.raises(Violation, match="S1"):
        world.run(until=arrived(world.hosts["a"]), seconds=120)


def test_a_grantor_that_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: C-31"""

    def careless(self: Handover, offer, ref: bytes, nonce: bytes, record: bytes) -> None:
        offer.walker.role, offer.walker.version = Role.RELEASED, None
        self._walkers.save(offer.walker, then=lambda: None)

    monkeypatch.setattr(Handover, "_granted", careless)
    world, custody = journey()
    world.run(until=lambda: any(h.disk.syncing for h in world.hosts.values()), seconds=60)

    def receiver_dies(host, event, effects) -> None:
        held = [row for (_, _), row in custody._rows.items() if row.held is not None]
        if held and not custody.lost:
            name = next(n for (n, _), row in custody._rows.items() if row.held is not None)
            custody.lost.add(name)

    world.observers.append(receiver_dies)
    with pytest.raises(Violation, match="S2"):
        world.run(seconds=60)


def stale_owner(monkeypatch: pytest.MonkeyPatch, *, high_water: bool) -> None:
    """An owner cut off for long comes back, deaf to fences, and offers its old epoch."""
    monkeypatch.setattr(Leases, "lapsed", lambda self, walker: False)
    monkeypatch.setattr(Leases, "on_stale", lambda self, message: None)
    monkeypatch.setattr(Fences, "against", lambda *_: ())  # C-45 refuses it, too
    if not high_water:
        why_not = Reception._why_not

        def forgetful(self: Reception, walker: Walker, position):
            mark, walker.high_water = walker.high_water, (0, b"", 0)
            try:
                return why_not(self, walker, position)
            finally:
                walker.high_water = mark

        came, granted = Reception._came, Reception.on_grant

        def without_mark(method):
            def call(self: Reception, first, *rest):
                walkers = list(self._walkers)
                marks = [w.high_water for w in walkers]
                for w in walkers:
                    w.high_water = (0, b"", 0)
                before = [w.high_water for w in walkers]
                method(self, first, *rest)
                for w, mark, low in zip(walkers, marks, before, strict=True):
                    if w.high_water is low or w.high_water == low:
                        w.high_water = mark

            return call

        monkeypatch.setattr(Reception, "_why_not", forgetful)
        monkeypatch.setattr(Reception, "_came", without_mark(came))
        monkeypatch.setattr(Reception, "on_grant", without_mark(granted))
    world, _ = journey()
    hosts = world.hosts
    others = [hosts["b"], hosts["c"]]

    def trains(host) -> bool:
        return any(w.activity.startswith("training") for w in host.peer.status().walkers)

    assert world.run(until=lambda: any(map(trains, others)), seconds=60)
    owner = next(filter(trains, others))
    world.kill(owner)
    assert world.run(until=arrived(hosts["a"]), seconds=120)
    world.start(owner)
    if not high_water:
        world.run(seconds=60)
        return

    def refused() -> bool:
        told = [report["reason"] for host in hosts.values() for report in reports(host, "refused")]
        return "a newer certificate is known here" in told

    # the fence that follows is wasted on the deaf, which S11 would see
    assert world.run(until=refused, seconds=60)


def test_a_stale_owner_is_refused_by_the_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: C-32"""
    stale_owner(monkeypatch, high_water=True)


def test_without_the_mark_the_stale_owner_takes_a_host_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rules: C-32"""
    with pytest.raises(Violation, match="S3"):
        stale_owner(monkeypatch, high_water=False)


def test_one_position_granted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: C-34"""
    granted = Handover._granted

    def twice(self: Handover, offer, ref: bytes, nonce: bytes, record: bytes) -> None:
        from dataclasses import replace

        from mfd.core.certificates import open_certificate, seal_certificate
        from mfd.core.messages import Kind

        granted(self, offer, ref, nonce, record)
        other = replace(open_certificate(record, self._ctx.verify), lease_us=1)
        forged = seal_certificate(other, self._ctx.signer)
        walker = offer.walker
        walker.certificates = (forged, record)
        self._walkers.save(
            walker,
            then=lambda: self._courier.send(offer.target, Kind.GRANT, ref, nonce, forged),
        )

    monkeypatch.setattr(Handover, "_granted", twice)
    with pytest.raises(Violation, match="S5"):
        run_home()


def test_a_checker_reads_every_disk() -> None:
    world = world_of(TRIANGLE, "abc")
    custody = Custody(world)
    world.observers.append(custody)
    inject(world, "a", walker_for(world, "a", layers=2, floats=40, laps=1))
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
    assert {name for name, _ in custody._rows} == {"a", "b", "c"}
