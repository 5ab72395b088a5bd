"""Every crash point of a hand-over: one side dies after each single event."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mfd.core.config import Config
from mfd.sim.checks import Custody
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

TRIANGLE = [("a", "b"), ("b", "c"), ("c", "a")]
LEASE_US = 4_000_000


def journey(*, watch: Callable[[World], None] | None = None) -> tuple[World, Custody]:
    config = Config(lease_us=LEASE_US, offer_us=2_000_000, failed_holder_us=6_000_000)
    world = world_of(TRIANGLE, "abc", config=config)
    custody = Custody(world)
    world.observers.append(custody)
    if watch is not None:
        world.observers.append(lambda host, event, effects: watch(world))
    inject(world, "a", walker_for(world, "a", layers=3, floats=40, laps=1, min_holders=3))
    return world, custody


def by_id(world: World, peer: str) -> Host:
    return next(h for h in world.hosts.values() if h.key.public_key.hex() == peer)


def second_handover() -> tuple[str, str, int, int, set[tuple[str, int]]]:
    """The second hand-over in the quiet world.

    Its sender, its receiver, its first and its last event, and (host, event) wherever a host waits
    for its disk after an event.
    """
    writing: set[tuple[str, int]] = set()

    def watch(world: World) -> None:
        writing.update((n, world.events) for n, h in world.hosts.items() if h.disk.syncing)

    world, _ = journey(watch=watch)
    senders = [h for h in world.hosts.values() if h.name != "a"]
    assert world.run(until=lambda: any(reports(h, "chosen") for h in senders), seconds=60)
    first = world.events
    sender = next(h for h in senders if reports(h, "chosen"))
    assert world.run(until=lambda: bool(reports(sender, "handed")), seconds=60)
    receiver = by_id(world, reports(sender, "handed")[0]["target"])
    done = sender.peer.status().counters.get("handovers", 0)
    assert world.run(
        until=lambda: sender.peer.status().counters.get("handovers", 0) > done, seconds=60
    )
    return sender.name, receiver.name, first, world.events, writing


SENDER, RECEIVER, FIRST, LAST, WRITING = second_handover()


def crash(victim: str, at: int, *, comes_back: bool, synced: bool) -> World:
    killed: list[int] = []

    def watch(world: World) -> None:
        if world.events == at and not killed:
            killed.append(at)
            host = world.hosts[victim]
            world.kill(host, synced=synced)
            if comes_back:
                world.at(world.now_us + 500_000, lambda: world.start(host))
            else:
                custody.lost.add(victim)

    world, custody = journey(watch=watch)
    assert world.run(until=arrived(world.hosts["a"]), seconds=300), (
        f"killed {victim} after event {at}: {[h.reports[-1:] for h in world.hosts.values()]}"
    )
    world.run(seconds=2 * LEASE_US / 1e6)  # and nothing breaks afterwards
    assert killed
    return world


def test_the_hand_over_that_is_cut_is_a_whole_one() -> None:
    assert (SENDER, RECEIVER) in (("b", "c"), ("c", "b"))
    assert LAST - FIRST > 20


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("victim", [SENDER, RECEIVER])
def test_no_crash_of_one_side_loses_or_doubles_the_walker(
    victim: str, comes_back: bool, synced: bool
) -> None:
    """Rules: C-30, C-31, C-32, C-33"""
    ends = [at for at in range(FIRST, LAST + 1) if not synced or (victim, at) in WRITING]
    assert ends  # where nothing is being written, what was synced and what was not is the same
    for at in ends:
        crash(victim, at, comes_back=comes_back, synced=synced)


def test_both_sides_may_crash_and_come_back() -> None:
    """Rules: C-30, C-31, C-32, C-33"""
    for at in range(FIRST, LAST + 1, 3):
        killed: list[int] = []

        def watch(world: World, at: int = at, killed: list[int] = killed) -> None:
            if world.events == at and not killed:
                killed.append(at)
                for name in (SENDER, RECEIVER):
                    world.kill(world.hosts[name])
                    world.at(world.now_us + 300_000, lambda n=name: world.start(world.hosts[n]))

        world, _ = journey(watch=watch)
        assert world.run(until=arrived(world.hosts["a"]), seconds=300), at
