"""Hand-overs in the simulator: what travels, what is refused, what a repetition does."""

from __future__ import annotations

import numpy as np
import pytest

from mfd.core.config import Config
from mfd.core.events import Received
from mfd.core.frames import DATA_TYPE
from mfd.core.messages import Kind, Message, Splitter, decode_message
from mfd.packet.objects import unpack_layer
from mfd.sim.checks import Custody
from mfd.sim.keys import sim_verify
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

LAYERS, FLOATS = 6, 20_000
HEADS = 400  # object head, chunk head and chunk digest of one layer, with room


def listen(world: World) -> list[tuple[str, Message]]:
    """Every custody message that reaches its custodian, with the name of that host."""
    heard: list[tuple[str, Message]] = []
    for host in world.hosts.values():
        deliver = host.peer._courier._deliver

        def also(message: Message, name: str = host.name, deliver=deliver) -> None:
            heard.append((name, message))
            deliver(message)

        host.peer._courier._deliver = also
    return heard


def layer_bytes(world: World) -> int:
    """What one layer costs on the wire: weights do not compress by more than a few percent."""
    disk = world.hosts["a"].disk
    digest = next(d for d, data in disk.objects.items() if len(data) > FLOATS)
    return len(disk.chunk(digest, 0)[1])


def test_on_the_second_visit_only_what_is_lacking_travels() -> None:
    """Two holders, one middle block for a whole lap: each layer that did not change stays home.

    Rules: C-10, T-12
    """
    world = world_of([("a", "b")], "ab")
    plan = {"laps": 3, "head": True, "order": "lap", "min_holders": 2}
    inject(world, "a", walker_for(world, "a", layers=LAYERS, floats=FLOATS, **plan))
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    one = layer_bytes(world)
    stops = reports(home, "stop")
    layers = [s["layers"] for s in stops]
    assert layers == ["0:2+5:6", "0:2+5:6", "2:4+5:6", "2:4+5:6", "4:6", "4:6"]
    came = [round(s["came_bytes"] / one) for s in stops]
    lacked = expected_travel(stops, LAYERS)
    assert came == lacked
    assert came[1] == LAYERS  # b had nothing at its first visit
    assert all(n < LAYERS for n in came[2:])  # and never lacks everything again
    for stop, count in zip(stops, lacked, strict=True):
        assert abs(stop["came_bytes"] - count * one) <= count * HEADS + one * 0.02 * count


def expected_travel(stops: list[dict], layers: int) -> list[int]:
    """How many layers each stop must bring: those changed elsewhere since its last visit."""
    version = [0] * layers
    known: dict[str, list[int]] = {stops[0]["peer"]: [0] * layers}
    out = []
    for number, stop in enumerate(stops, 1):
        before = known.get(stop["peer"], [-1] * layers)
        out.append(sum(1 for i in range(layers) if before[i] != version[i]))
        for part in stop["layers"].split("+"):
            low, high = map(int, part.split(":"))
            version[low:high] = [number] * (high - low)
        known[stop["peer"]] = list(version)
    return out


def test_the_walker_that_comes_home_is_the_one_that_was_trained() -> None:
    """Rules: C-10, C-11"""
    world = world_of([("a", "b"), ("b", "c")], "abc")
    birth = walker_for(world, "a", layers=3, floats=100, min_holders=3, mode="walk")
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    version = home.peer.version(birth.walker)
    assert version is not None
    assert version.manifest.seq == 6
    for ref, first in zip(version.manifest.layers, birth.objects, strict=True):
        assert len(home.disk.read(ref.digest)) == ref.raw_bytes
        now = unpack_layer(home.disk.read(ref.digest))["w"].array()
        then = unpack_layer(first.tobytes())["w"].array()
        assert 1.0 < np.std(now - then) < 4.0  # six stops of unit noise


def test_the_messages_of_a_hand_over_in_order() -> None:
    """Rules: C-10, C-11, C-12, C-13"""
    world = world_of([("a", "b")], "ab")
    heard = listen(world)
    inject(world, "a", walker_for(world, "a", layers=2, floats=50, min_holders=2))
    home = world.hosts["a"]
    assert world.run(until=lambda: bool(home.peer.status().counters.get("handovers")), seconds=60)
    kinds = [(name, m.kind) for name, m in heard if m.kind < Kind.RELEASE]
    assert kinds[:5] == [
        ("b", Kind.OFFER),
        ("a", Kind.ACCEPT),
        ("a", Kind.STORED),
        ("b", Kind.GRANT),
        ("a", Kind.OWNED),
    ]
    offer, accept, stored, grant, _ = (m for _, m in heard if m.kind < Kind.RELEASE)
    assert accept.body[0] == stored.body[0] == grant.body[0] == offer.ref
    assert accept.body[1] == stored.body[1] == grant.body[1]  # the nonce of the ACCEPT


def replay(world: World, heard: list[tuple[str, Message]], raws: dict[bytes, bytes]) -> None:
    """Deliver every message again, to whom it was addressed, oldest first."""
    for name, message in list(heard):
        host = world.hosts[name]
        again = decode_message(raws[message.ref], network="mfd", verify=sim_verify)
        host.peer._courier._deliver(again)
        world.happen(host, Received(10_000, b""))  # lets the effects out; the link is unknown


def test_a_replay_of_everything_changes_nothing() -> None:
    """Rules: C-14, C-30, C-32, C-34"""
    world = world_of([("a", "b"), ("b", "c"), ("c", "a")], "abc", sealed=False)
    world.observers.append(Custody(world))
    raws: dict[bytes, bytes] = {}
    collect(world, raws)
    heard = listen(world)
    birth = walker_for(world, "a", layers=3, floats=50, min_holders=3)
    inject(world, "a", birth)
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
    world.run(seconds=30)
    before = {n: roles(h) for n, h in world.hosts.items()}
    replay(world, heard, raws)
    world.run(seconds=200)
    assert {n: roles(h) for n, h in world.hosts.items()} == before
    assert world.hosts["a"].peer.version(birth.walker).manifest.seq == 6


def roles(host: Host) -> list[tuple[str, int, int]]:
    return [(w.role, w.epoch, w.hop) for w in host.peer.status().walkers]


def collect(world: World, raws: dict[bytes, bytes]) -> None:
    streams: dict[tuple[str, int, bytes], Splitter] = {}

    def watch(host: Host, event, effects) -> None:
        if isinstance(event, Received) and event.frame and event.frame[0] == DATA_TYPE:
            frame = bytes(event.frame)
            try:
                stream = streams.setdefault((host.name, event.link, frame[1:5]), Splitter())
                for raw in stream.feed(memoryview(frame)[5:]):
                    raws[decode_message(raw, network="mfd", verify=sim_verify).ref] = raw
            except ValueError:
                return

    world.observers.append(watch)


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.ACCEPT, Kind.STORED, Kind.GRANT, Kind.OWNED])
def test_any_message_may_be_lost(kind: Kind) -> None:
    """Rules: C-14"""
    config = Config(offer_us=2_000_000, stalled_us=3_000_000, lease_us=20_000_000)
    world = world_of([("a", "b")], "ab", config=config)
    custody = Custody(world)
    world.observers.append(custody)
    lost: list[Kind] = []
    for host in world.hosts.values():
        deliver = host.peer._courier._deliver

        def drop(message: Message, deliver=deliver) -> None:
            if message.kind is kind and len(lost) < 1:
                lost.append(message.kind)
            else:
                deliver(message)

        host.peer._courier._deliver = drop
    inject(world, "a", walker_for(world, "a", layers=2, floats=50, min_holders=2, laps=1))
    assert world.run(until=arrived(world.hosts["a"]), seconds=300)
    assert lost == [kind]
    assert roles(world.hosts["a"])[0][:2] == ("done", 0)  # no re-issue was needed


def settle(world: World, host: Host) -> None:
    """Let the effects of a direct call out: a frame on an unknown link does nothing else."""
    world._deliver(host, host.life, Received(10_000, b""))


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.STORED, Kind.GRANT])
def test_a_repeated_message_is_not_answered_before_the_disk(kind: Kind) -> None:
    """Rules: C-12, C-33"""
    world = world_of([("a", "b")], "ab")
    world.observers.append(Custody(world))
    for host in world.hosts.values():
        deliver = host.peer._courier._deliver

        def often(message: Message, host: Host = host, deliver=deliver) -> None:
            deliver(message)
            if message.kind is not kind or reports(host, "handed"):
                return
            for n in range(60):  # some of these come while a Store is under way
                world.at(world.now_us + 200 * n, lambda: again(host, message, deliver))

        host.peer._courier._deliver = often

    def again(host: Host, message: Message, deliver) -> None:
        deliver(message)
        settle(world, host)

    inject(world, "a", walker_for(world, "a", layers=2, floats=50, min_holders=2, laps=1))
    assert world.run(until=arrived(world.hosts["a"]), seconds=300)


def test_a_full_peer_is_busy_until_it_has_room() -> None:
    """Rules: C-15"""
    world = world_of([("a", "b")], "ab")
    b = world.hosts["b"]
    b.peer._ctx.config = Config(slots=0)
    inject(world, "a", walker_for(world, "a", layers=2, floats=50, min_holders=2, laps=1))
    home = world.hosts["a"]
    world.run(seconds=8)
    assert {r["reason"] for r in reports(home, "refused")} == {"no free slot"}
    assert not reports(home, "handed")
    assert not b.disk.objects
    b.peer._ctx.config = Config()
    assert world.run(until=arrived(home), seconds=120)


def test_a_peer_that_holds_nothing_takes_no_custody() -> None:
    """Rules: C-15"""
    world = world_of([("a", "b")], "a")
    b = world.hosts["b"]
    birth = walker_for(world, "a", layers=2, floats=50)
    inject(world, "a", birth)
    world.run(seconds=0.5)
    a = world.hosts["a"].peer
    walker = a._walkers.get(birth.walker)
    failed: list[bool] = []
    walker.role = walker.role.OWN
    a._handover.offer(walker, (b.key.public_key,), lambda: failed.append(True))
    world.happen(world.hosts["a"], Received(10_000, b""))
    world.run(seconds=5)
    assert failed
    assert [r["reason"] for r in reports(world.hosts["a"], "refused")] == [
        "this peer takes no custody of this walker"
    ]
    assert not b.disk.objects


@pytest.mark.parametrize("owner", [True, False])
def test_a_peer_whose_disk_has_failed_takes_no_custody_until_it_is_restarted(owner: bool) -> None:
    """Its disk fails under an owner, whose shadow takes over, or under a peer that had let go.

    Rules: C-18
    """
    config = Config(lease_us=4_000_000, failed_holder_us=2_000_000)
    world = world_of([("a", "b"), ("b", "c"), ("c", "a")], "abc", config=config)
    inject(world, "a", walker_for(world, "a", layers=2, floats=50, min_holders=3, laps=3))
    b, others = world.hosts["b"], [world.hosts[name] for name in "ac"]
    last = "b" if owner else "c"

    def trains(name: str) -> bool:
        walkers = world.hosts[name].peer.status().walkers
        return any(w.activity.startswith("training") and w.hop > 1 for w in walkers)

    assert world.run(until=lambda: bool(reports(b, "handed")) or trains(last), seconds=60)
    assert world.run(until=lambda: trains(last), seconds=60)
    b.disk_full = True
    assert world.run(until=lambda: bool(reports(b, "disk")), seconds=60)
    b.disk_full = False

    def refused() -> bool:
        reasons = [r["reason"] for host in others for r in reports(host, "refused")]
        return "the disk of this peer has failed" in reasons

    assert world.run(until=refused, seconds=60)
    assert bool([r for host in others for r in reports(host, "reissued")]) is owner
    world.kill(b)
    world.start(b)
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
