"""A holder that routes lead to but no circuit, or that never has room, keeps no walker for ever."""

from __future__ import annotations

from itertools import pairwise

from mfd.core.config import Config
from mfd.core.frames import ResetCode
from mfd.core.tries import FULL_US, TRIES, Tries
from mfd.sim.running import run
from mfd.sim.scenario import SWARM_CONFIG, Scenario
from mfd.topology import make
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

HOLDER, OTHER = bytes([1]) * 32, bytes([2]) * 32


def test_five_offers_in_vain_are_enough() -> None:
    """Rules: W-09"""
    tries = Tries()
    for _ in range(TRIES - 1):
        tries.failed(HOLDER, 0)
    tries.failed(OTHER, 0)
    assert tries.hopeless() == frozenset()
    tries.failed(HOLDER, 0)
    assert tries.hopeless() == {HOLDER}
    tries.clear()
    assert tries.hopeless() == frozenset()


def test_a_holder_without_room_is_waited_for_an_hour() -> None:
    """Rules: W-09"""
    tries = Tries()
    for second in range(0, FULL_US, FULL_US // 100):
        tries.failed(HOLDER, second, full=True)
    assert tries.hopeless() == frozenset()
    for _ in range(TRIES):
        tries.failed(HOLDER, FULL_US, full=True)
    assert tries.hopeless() == {HOLDER}


def test_a_holder_that_no_circuit_reaches_keeps_no_walker_from_home() -> None:
    """Rules: W-09"""
    config = Config(offer_us=3_000_000, lease_us=600_000_000)
    world = world_of(pairwise("abcd"), "abd", config=config)
    relay = world.hosts["c"].peer
    relay._circuits._why_not = lambda link, frame: (
        None if frame.target == relay.id else ResetCode.STALLED
    )
    inject(world, "a", walker_for(world, "a", layers=2, floats=20, laps=1, min_holders=3))
    home, away = world.hosts["a"], world.hosts["d"].key.public_key.hex()
    assert world.run(until=arrived(home), seconds=90)
    [told] = reports(home, "skipped")
    assert told["reason"] == "lap 1 ends after 2 of 3 holders: the others stay away"
    assert away not in {stop["peer"] for stop in reports(home, "stop")}
    refused = [fields for host in world.hosts.values() for fields in reports(host, "refused")]
    assert [fields["holder"] for fields in refused] == [away] * TRIES


def test_peers_full_of_walkers_that_wait_for_each_other_go_on() -> None:
    """Rules: C-43"""
    scene = Scenario(
        make("line", 2, 1),
        seed=1,
        seconds=1.0,
        calm=60.0,
        walkers=6,
        holders=2,
        training=0.1,
        config={**SWARM_CONFIG, "slots": 1},
    )
    outcome = run(scene)
    assert outcome.violation == ""
    assert outcome.home == outcome.born == 6
