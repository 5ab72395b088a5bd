"""What a peer was told of void tokens outlives a restart, as long as its disk does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfd.core.config import Config
from mfd.core.tokens import issue, revoke
from mfd.sim import insight
from mfd.sim.keys import SimKey
from mfd.sim.world import Host, World

ISSUER = SimKey(b"issuer")
GUARDED = Config(issuers=frozenset({ISSUER.public_key}))
NAME = "data/train"


def line() -> World:
    """a - b - m: the last is a member that holds data."""
    world = World(1, GUARDED)
    for name in "abm":
        key = SimKey(name.encode())
        token = issue(GUARDED.network, key.public_key, 1, ISSUER)
        world.add(name, config=replace(GUARDED, token=token))
    world.link("a", "b")
    world.link("b", "m")
    world.hosts["m"].hold(NAME, 10)
    world.run(seconds=2)
    return world


def restart(world: World, host: Host, **changes: object) -> None:
    if host.peer is not None:
        world.kill(host, synced=True)
    host.config = replace(host.config, **changes)
    world.start(host)
    world.run(seconds=3)


def believes(host: Host) -> bool:
    assert host.peer is not None
    return any(record.name == NAME for record in insight.believed(host.peer))


@pytest.fixture
def told() -> World:
    """The member's token was called back by a; now it is on alone, and has no rumour to pass on."""
    world = line()
    a, b, m = (world.hosts[name] for name in "abm")
    assert believes(a)
    assert believes(b)
    void = revoke(GUARDED.network, m.key.public_key, 1, ISSUER)
    restart(world, a, revoked=(void,))
    assert not believes(a)
    assert not believes(b)
    for host in (a, b):
        world.kill(host, synced=True)
    restart(world, m)  # it tells nobody
    return world


def test_a_restarted_peer_still_refuses_a_member_that_was_revoked(told: World) -> None:
    """Rules: R-52"""
    b = told.hosts["b"]
    for _ in range(2):
        restart(told, b)
        assert not believes(b)
        assert b.peer is not None
        assert not b.peer.members.gossip.held, "it does not broadcast it anew"
    rows = [key for key in b.disk.records if key.startswith("revoked/")]
    assert len(rows) == 1
    told.kill(b)
    told.wipe(b)
    restart(told, b)
    assert believes(b), "who has lost its disk must be told again"


def test_only_what_an_issuer_has_signed_counts_after_a_restart(told: World) -> None:
    """Rules: R-52"""
    b, other = told.hosts["b"], SimKey(b"other").public_key

    def void() -> int:
        assert b.peer is not None
        return len(b.peer.members.tidings.void)

    restart(told, b, issuers=frozenset({other}))
    assert void() == 0, "its owner does not name that issuer any more"
    restart(told, b, issuers=frozenset({other, ISSUER.public_key}))
    assert void() == 1, "and now again"
    (row,) = (key for key in b.disk.records if key.startswith("revoked/"))
    b.disk.records[row] = b.disk.records[row][:-1] + b"\x07"
    restart(told, b)
    assert void() == 0
    assert believes(b)
    assert [r.fields["row"] for _, r in b.reports if r.kind == "corrupt"] == [row]
