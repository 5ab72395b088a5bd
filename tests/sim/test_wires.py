"""A link is an ordered stream whatever its datagrams meet; its ends fail as sockets do."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.events import LinkDown, LinkUp, Received
from mfd.core.frames import Ping, Pong, encode_frame
from mfd.sim.chance import Streams
from mfd.sim.wires import Weather
from mfd.sim.world import Host, World

BEATS = (encode_frame(Ping(0))[0], encode_frame(Pong(0))[0])
STORM = Weather(loss=0.2, duplicate=0.2, reorder=0.2, delay_us=5_000)


def pair(seed: int = 1, **config: int) -> tuple[World, dict[str, list]]:
    """Two hosts over one dialled wire, and what each of them was told."""
    world = World(seed, Config(**config))
    told: dict[str, list] = {"a": [], "b": []}
    world.observers.append(lambda host, event, effects: told[host.name].append(event))
    for name in "ab":
        world.add(name)
    world.wire("a", "b", latency_us=10_000, bytes_per_s=1e6)
    world.run(seconds=1)
    return world, told


def link_of(host: Host, told: dict[str, list]) -> int:
    return [e.link for e in told[host.name] if isinstance(e, LinkUp)][-1]


def send(world: World, told: dict[str, list], frames: list[bytes]) -> None:
    for frame in frames:
        world.wires.send(world.hosts["a"], link_of(world.hosts["a"], told), "bulk", frame)


def heard(told: dict[str, list], name: str) -> list[bytes]:
    return [e.frame for e in told[name] if isinstance(e, Received) and len(e.frame) == 900]


FRAMES = [bytes([18]) + bytes([n]) * 899 for n in range(100)]


@pytest.mark.parametrize("weather", [Weather(), STORM], ids=["fair", "storm"])
def test_frames_arrive_once_and_in_order(weather: Weather) -> None:
    world, told = pair()
    world.wires.weather = weather
    send(world, told, FRAMES)
    world.run(seconds=60)
    assert heard(told, "b") == FRAMES


def test_lost_datagrams_cost_time() -> None:
    def seconds(weather: Weather) -> float:
        world, told = pair()
        world.wires.weather = weather
        send(world, told, FRAMES)
        start_us = world.now_us
        assert world.run(until=lambda: len(heard(told, "b")) == len(FRAMES), seconds=60)
        return (world.now_us - start_us) / 1e6

    fair, lossy = seconds(Weather()), seconds(Weather(loss=0.1))
    assert fair == pytest.approx(0.09 + 0.01, rel=0.1)  # 90 kB at 1 MB/s, 10 ms away
    assert lossy > fair + 0.2  # at least one retransmission


def test_what_is_sent_into_a_short_cut_comes_later_in_order() -> None:
    world, told = pair()
    wire = world.wires.wires[0]
    world.wires.block(wire, 0)
    send(world, told, FRAMES[:50])
    world.run(seconds=2)
    assert heard(told, "b") == []
    world.wires.unblock(wire, 0)
    send(world, told, FRAMES[50:])
    world.run(seconds=2)
    assert heard(told, "b") == FRAMES
    assert not [e for e in told["b"] if isinstance(e, LinkDown)]


def test_a_cut_of_one_direction_ends_the_link_at_both_ends() -> None:
    """The deaf end hears nothing for `down` and closes; its farewell passes the open direction."""
    world, told = pair()
    world.wires.block(world.wires.wires[0], 0)  # nothing from a to b
    world.run(seconds=12)
    downs = {name: [e.reason for e in told[name] if isinstance(e, LinkDown)] for name in "ab"}
    assert downs == {"a": ["closed by the other side"], "b": ["closed"]}
    world.wires.unblock(world.wires.wires[0], 0)
    world.run(seconds=40)
    assert all(
        isinstance([e for e in told[n] if isinstance(e, LinkUp | LinkDown)][-1], LinkUp)
        for n in "ab"
    )


@pytest.mark.parametrize(("silent", "low", "high"), [(False, 0.0, 0.1), (True, 6.0, 10.5)])
def test_a_crash_is_found_by_its_sockets_or_by_silence(
    silent: bool, low: float, high: float
) -> None:
    world, told = pair()
    start_us = world.now_us
    world.kill(world.hosts["b"], silent=silent)
    assert world.run(until=lambda: any(isinstance(e, LinkDown) for e in told["a"]), seconds=20)
    assert low <= (world.now_us - start_us) / 1e6 <= high


def test_a_half_open_link_is_reset_when_it_is_used() -> None:
    """b restarts before a has noticed: a's next frame meets nobody and is answered by a reset."""
    world, told = pair()
    old = link_of(world.hosts["a"], told)
    world.kill(world.hosts["b"], silent=True)
    world.start(world.hosts["b"])
    world.run(seconds=5)
    assert [e.link for e in told["a"] if isinstance(e, LinkDown)] == [old]
    assert link_of(world.hosts["a"], told) != old


def test_nobody_answers_a_dial_into_the_dark() -> None:
    world = World(1)
    for name in "abc":
        world.add(name)
    wire = world.wire("a", "b", latency_us=1_000, bytes_per_s=1e6)
    wire.plugged = False
    world.join(world.hosts["a"], "c")
    world.join(world.hosts["a"], "nobody")
    world.run(seconds=20)
    failures = {r.fields["address"]: r.fields["reason"] for _, r in world.hosts["a"].reports}
    assert failures == {
        "b": "no answer",
        "c": "no wire leads there",
        "nobody": "no wire leads there",
    }


def test_streams_of_chance_do_not_shift_each_other() -> None:
    first, second = Streams(7), Streams(7)
    for _ in range(1_000):
        second.of("crash").word()
    noise = second.of("loss")
    assert [first.of("loss").word()] == [noise.word()]
    assert len({Streams(7).of(p).word() for p in ("loss", "crash", "delay")}) == 3
    units = [noise.unit() for _ in range(2_000)]
    assert 0.45 < sum(units) / len(units) < 0.55
    assert all(0 <= u < 1 for u in units)


def test_abstracted_heartbeats_find_the_same_silence() -> None:
    world, told = pair(heartbeat_us=1 << 60, down_us=1 << 60)
    world.wires.detect_us = (6_000_000, 10_000_000)
    world.run(seconds=60)
    assert not [e for n in "ab" for e in told[n] if isinstance(e, LinkDown)]
    beats = [e for n in "ab" for e in told[n] if isinstance(e, Received) and e.frame[0] in BEATS]
    assert not beats
    world.wires.block(world.wires.wires[0], 1)
    world.run(seconds=5.9)
    assert not [e for e in told["a"] if isinstance(e, LinkDown)]
    world.run(seconds=4.2)
    assert [e.reason for n in "ab" for e in told[n] if isinstance(e, LinkDown)] == ["silent"] * 2


def test_two_peers_have_one_link_even_where_a_wire_is_no_more() -> None:
    """A machine that has moved is dialled again before its old link is found to be silent."""
    world, told = pair()
    old = link_of(world.hosts["a"], told)
    world.wires.remove(world.wires.wires[0])
    world.wire("b", "a", latency_us=10_000, bytes_per_s=1e6)
    world.run(seconds=1)
    for name in "ab":
        ups_and_downs = [e.link for e in told[name] if isinstance(e, LinkUp | LinkDown)]
        assert ups_and_downs == [old, old, old + 1]
