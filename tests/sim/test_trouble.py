"""Each fault happens, is counted, and ends when trouble ends."""

from __future__ import annotations

import pytest

from mfd.sim.faults import RATES, parse
from mfd.sim.running import run
from mfd.sim.scenario import SWARM_CONFIG, Scenario, stage
from mfd.topology import make

RING = make("ring", 8)


def scenario(faults: str, **fields) -> Scenario:
    known = {"seconds": 20.0, "calm": 90.0, "config": SWARM_CONFIG, "seed": 3, **fields}
    return Scenario(RING, faults=parse(faults), **known)


PEER_AND_LINK = [name for name in RATES if RATES[name][1] == 60.0]


@pytest.mark.parametrize("kind", PEER_AND_LINK)
def test_every_rate_makes_its_fault_happen(kind: str) -> None:
    staged = stage(scenario(f"{kind}=6", walkers=2))
    staged.world.run(seconds=2)
    staged.trouble.begin()
    staged.world.run(seconds=20)
    assert staged.trouble.counts[kind] >= 3
    core = staged.trouble.heal()
    staged.world.run(seconds=40)
    healed = [staged.world.hosts[name] for name in core]
    assert healed
    assert all(host.peer is not None and not host.paused for host in healed)
    assert not any(any(wire.blocked) for wire in staged.world.wires.wires)


@pytest.mark.parametrize("kind", ["partition", "storm", "swizzle", "power"])
def test_every_appointment_is_kept_and_survived(kind: str) -> None:
    outcome = run(scenario(f"{kind}@3s-12s"))
    assert outcome.violation == ""
    assert outcome.faults == {kind: 1}
    assert outcome.home == outcome.born == 1


def test_weather_and_clocks_do_not_stop_a_walker() -> None:
    outcome = run(scenario("loss=5%,duplicate=5%,reorder=5%,delay=30ms,drift=1%,bandwidth=1Mbit/s"))
    assert outcome.violation == ""
    assert outcome.home == 1


@pytest.mark.parametrize("seed", range(3))
def test_liars_break_nothing(seed: int) -> None:
    outcome = run(scenario("liars=25%", seed=seed, walkers=2))
    assert outcome.violation == ""
    assert outcome.liars >= 1
    assert outcome.home >= 1


def test_a_fault_more_does_not_shift_the_others() -> None:
    """Pauses happen at the same times to the same peers, whether or not datagrams are lost."""

    def pauses(faults: str) -> list[tuple[int, str]]:
        staged = stage(scenario(faults))
        seen, world = [], staged.world
        pause = world.pause
        world.pause = lambda host: (seen.append((world.now_us, host.name)), pause(host))[1]
        world.run(seconds=2)
        staged.trouble.begin()
        world.run(seconds=20)
        return seen

    alone = pauses("pause=6")
    assert len(alone) > 3
    assert pauses("pause=6,loss=5%,stall=5") == alone


def test_the_same_scenario_gives_the_same_trace() -> None:
    faults = "crash=3,loss=2%,liars=15%,stall=2,partition@5s-9s"
    first, second = run(scenario(faults)), run(scenario(faults))
    assert first == second
    assert run(scenario(faults, seed=4)).trace != first.trace
