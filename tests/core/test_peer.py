"""`Peer.handle` never raises on what a remote sent: real traffic, bent in every way."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import msgpack
import pytest

from mfd.core.certificates import Certificate, seal_certificate
from mfd.core.config import Config
from mfd.core.events import CommandFailed, Injected, LinkUp, Received, Restored, Ticked
from mfd.core.frames import DATA_TYPE, Class, Open, encode_data, encode_frame
from mfd.core.messages import Kind, Message, Splitter, decode_message, encode_message
from mfd.core.peer import Peer
from mfd.packet.manifest import decode_manifest, sign_manifest
from mfd.sim.keys import SimKey, sim_verify
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

EDGES = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "d")]


def recorded(mode: str) -> tuple[list[bytes], dict[Kind, Message]]:
    """Frames and custody messages of a quiet journey."""
    config = Config(lease_us=3_000_000)
    world = world_of(EDGES, "abcd", verifier="d", config=config, sealed=False)
    frames: list[bytes] = []
    messages: dict[Kind, Message] = {}
    streams: dict[tuple[str, int, bytes], Splitter] = {}

    def watch(host: Host, event, effects) -> None:
        if not isinstance(event, Received):
            return
        frame = bytes(event.frame)
        frames.append(frame)
        if frame[0] == DATA_TYPE and len(frame) < 5_000:
            try:
                stream = streams.setdefault((host.name, event.link, frame[1:5]), Splitter())
                for raw in stream.feed(memoryview(frame)[5:]):
                    message = decode_message(raw, network="mfd", verify=sim_verify)
                    messages.setdefault(message.kind, message)
            except ValueError:
                return  # a bulk circuit: no messages there

    world.observers.append(watch)
    plan = {"verify": ("data/test",), "min_holders": 4, "laps": 1, "mode": mode}
    inject(world, "a", walker_for(world, "a", layers=3, floats=50, **plan))
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
    world.run(seconds=10)
    return frames, messages


SNAKE_FRAMES, MESSAGES = recorded("snake")
FEDAVG_FRAMES, FEDAVG_MESSAGES = recorded("fedavg")
MESSAGES = {**FEDAVG_MESSAGES, **MESSAGES}


class Alone:
    """One peer whose only neighbour is us."""

    def __init__(self, *, custodian: bool = True) -> None:
        self.world = World(3, Config(custodian=custodian), sealed=False)
        self.host = self.world.add("b")
        self.host.hold("data/train", 10)
        self.world.run(seconds=0.1)
        self.attacker = SimKey(b"attacker")
        self.link = 77
        self.peer.handle(LinkUp(self.link, self.attacker.public_key, "x", False), self.now)

    @staticmethod
    def far() -> World:
        return world_of([("a", "z")], "a")

    @property
    def peer(self) -> Peer:
        assert self.host.peer is not None
        return self.host.peer

    @property
    def now(self) -> int:
        return self.world.now_us

    def frame(self, frame: bytes) -> None:
        self.world._deliver(self.host, self.host.life, Received(self.link, frame))

    def message(self, raw: bytes) -> None:
        circuit = Open(
            self.next_label(),
            self.host.key.public_key,
            None,
            (),
            raw[:8] + raw[-8:],
            1,
            Class.THIN,
            b"",
        )
        self.frame(encode_frame(circuit))
        stream = len(raw).to_bytes(4, "little") + raw
        for at in range(0, len(stream), 2_000):
            self.frame(encode_data(circuit.circuit) + stream[at : at + 2_000])

    labels = 1

    def next_label(self) -> int:
        self.labels += 2
        return self.labels


def bend(frame: bytes, dice: random.Random) -> bytes:
    raw = bytearray(frame)
    for _ in range(dice.randint(1, 4)):
        match dice.randrange(4):
            case 0 if raw:
                raw[dice.randrange(len(raw))] = dice.randrange(256)
            case 1 if raw:
                del raw[dice.randrange(len(raw)) :]
            case 2:
                at = dice.randint(0, len(raw))
                raw[at:at] = dice.randbytes(dice.randint(1, 9))
            case 3 if len(raw) > 6:
                raw[1:5] = dice.randrange(8).to_bytes(4, "little")
    return bytes(raw)


def twist(value: object, dice: random.Random) -> object:
    """Change one thing inside a message's body."""
    odd = [
        None,
        -1,
        0,
        1,
        True,
        2**31,
        2**61,
        2**62 - 1,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "x",
        b"",
        bytes(16),
        bytes(32),
        bytes(33),
        [],
        {},
        [b""],
        {"kind": 1, "self": 2},
        {"walker": 1.0, "lap": 2, "peer": 3, "steps": float("nan"), "samples": float("inf")},
        [5, bytes(32)],
        [[0, 1]] * 9,
    ]
    if isinstance(value, list | tuple) and value and dice.random() < 0.7:
        at = dice.randrange(len(value))
        return [twist(v, dice) if i == at else v for i, v in enumerate(value)]
    if isinstance(value, dict) and value and dice.random() < 0.5:
        return {**value, dice.choice(["kind", "self", "walker", "steps"]): dice.choice(odd)}
    if isinstance(value, bytes) and len(value) > 96 and dice.random() < 0.5:
        return bend(value, dice)
    return dice.choice(odd)


def packable(body: list) -> bool:
    try:
        msgpack.packb(body)
    except (ValueError, OverflowError, TypeError):
        return False
    return True


@pytest.mark.parametrize("frames", [SNAKE_FRAMES, FEDAVG_FRAMES], ids=["snake", "fedavg"])
def test_bent_frames(frames: list[bytes]) -> None:
    """Rules: T-02, T-10"""
    dice = random.Random(1)
    alone = Alone()
    for _ in range(1_500):
        alone.frame(bend(dice.choice(frames), dice))
        if dice.random() < 0.02:
            alone.peer.handle(Ticked(), alone.now + dice.randrange(60_000_000))


def test_real_frames_in_any_order() -> None:
    """Rules: T-10"""
    dice = random.Random(2)
    for _ in range(5):
        alone = Alone()
        for frame in dice.sample(SNAKE_FRAMES, min(300, len(SNAKE_FRAMES))):
            alone.frame(frame)


def test_every_kind_of_message_was_recorded() -> None:
    missing = set(Kind) - set(MESSAGES)
    assert missing <= {Kind.REFUSE, Kind.CANCEL, Kind.STALE, Kind.FAILED, Kind.RECLAIM}


def test_messages_with_right_signatures_and_wrong_contents_in_a_living_world() -> None:
    """Every peer in turn is malicious while a walker travels: nobody's `handle` raises.

    Rules: C-02, C-07
    """
    dice = random.Random(3)
    false = 0
    for liar, mode in list(product("abcd", ("snake", "fedavg"))) * 6:
        world = world_of(EDGES, "abcd", verifier="d", config=Config(lease_us=3_000_000))
        lie(world, liar, dice)
        plan = {"verify": ("data/test",), "min_holders": 4, "laps": 1, "mode": mode}
        inject(world, "a", walker_for(world, "a", layers=3, floats=50, **plan))
        world.run(seconds=40)
        counters = [h.peer.status().counters for h in world.hosts.values()]
        false += sum(v for c in counters for k, v in c.items() if k.startswith("messages_refused"))
    assert false > 300  # the lies were heard


def lie(world: World, name: str, dice: random.Random) -> None:
    """Twist what a host sends: each message also in a wrong form, signed with its own key."""
    host = world.hosts[name]
    courier = host.peer._courier
    resend = courier.resend

    def false(peer: bytes, message: bytes) -> None:
        resend(peer, message)
        kind = Kind(message[0])
        for _ in range(dice.randrange(6)):
            body = twist(list(msgpack.unpackb(message[97:])), dice)
            if not isinstance(body, list) or not packable(body):
                continue
            head = bytes((kind,)) + (3).to_bytes(2, "little") + b"mfd"
            packed = msgpack.packb(body)
            signature = host.key.sign("mfd.custody.v1", head + packed)
            resend(peer, bytes((kind,)) + host.key.public_key + signature + packed)

    courier.resend = false


def test_messages_of_a_stranger_with_right_signatures() -> None:
    """Rules: C-02, C-07"""
    dice = random.Random(4)
    heard = 0
    for _ in range(40):
        alone = Alone()
        for _ in range(30):
            kind = dice.choice(list(MESSAGES))
            body = twist(list(MESSAGES[kind].body), dice)
            if isinstance(body, list) and len(body) == len(MESSAGES[kind].body) and packable(body):
                packed = msgpack.packb(body)
                head = bytes((kind,)) + (3).to_bytes(2, "little") + b"mfd"
                signature = alone.attacker.sign("mfd.custody.v1", head + packed)
                alone.message(bytes((kind,)) + alone.attacker.public_key + signature + packed)
        alone.world.run(seconds=200)
        heard += sum(alone.peer.status().counters.values())
    assert heard > 400


@pytest.mark.parametrize(
    "changes",
    [{"seq": 2**48}, {"seq": 2**63 - 1}, {"seq": 2**62}],
    ids=str,
)
def test_a_version_without_room_for_a_successor(changes: dict) -> None:
    """Rules: C-07"""
    errand = MESSAGES[Kind.ERRAND]
    body = list(errand.body)
    liar = SimKey(b"attacker")
    manifest = replace(decode_manifest(body[4]), trainer=liar.public_key, **changes)
    body[4], body[5] = sign_manifest(manifest, liar)
    body[6] = ["train", [[0, 1]], [0.0, 1.0]]
    alone = Alone()
    alone.message(encode_message(Kind.ERRAND, tuple(body), network="mfd", signer=liar))
    assert alone.peer.status().counters["messages_refused_field"] == 1


def test_a_forged_certificate_does_not_release_a_shadow() -> None:
    """A member signs a certificate of a far epoch for itself and asks a shadow to let go.

    Rules: C-23
    """
    world = world_of(EDGES, "abcd")
    inject(world, "a", walker_for(world, "a", layers=3, floats=50, min_holders=4))
    home = world.hosts["a"]
    assert world.run(until=lambda: bool(reports(home, "handed")), seconds=60)
    status = home.peer.status().walkers[0]
    walker = bytes.fromhex(status.walker)
    liar = world.hosts["d"].key
    forged = Certificate(
        walker=walker,
        epoch=(9, liar.public_key),
        hop=0,
        revision=0,
        source=liar.public_key,
        target=liar.public_key,
        manifest=bytes(32),
        previous=b"",
        stored=b"",
        shadows=(),
        released=(),
        nonce=b"",
        lease_us=1,
    )
    record = seal_certificate(forged, liar)
    world.hosts["d"].peer._courier.send(home.key.public_key, Kind.RELEASE, walker, [record])
    world.happen(world.hosts["d"], Ticked())
    world.run(seconds=0.5)
    after = home.peer.status().walkers[0]
    assert (after.role, after.epoch) == ("shadow", 0)


def test_a_local_command_that_cannot_be_carried_out() -> None:
    """Rules: C-07"""
    alone = Alone()
    birth = walker_for(alone.world, "b")
    foreign = walker_for(Alone.far(), "a")
    wrong = Injected(birth.event.genesis, birth.event.plan, b"", b"")
    for event, text in ((wrong, "not valid"), (foreign.event, "send it there")):
        with pytest.raises(CommandFailed, match=text):
            alone.peer.handle(event, alone.now)


def test_nothing_happens_before_the_store_is_open() -> None:
    key = SimKey(b"x")
    peer = Peer(signer=key, verify=sim_verify, config=Config(), seed=b"")
    with pytest.raises(CommandFailed, match="not open"):
        peer.handle(walker_for(Alone().world, "b").event, 0)
    peer.handle(Restored(1), 0)
    assert peer.status().walkers == ()
