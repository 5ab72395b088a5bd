"""A neighbour that floods is held to its rates, then parted from; honest ones never notice."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.effects import Close
from mfd.core.events import Joined, LinkDown, LinkUp, Received, Restored
from mfd.core.frames import Ping, Seek, SeqnoRequest, Update, encode_frame
from mfd.core.memberframes import Digest, IHave, Prune, encode_member
from mfd.core.messages import Kind, encode_message
from mfd.core.peer import Peer
from mfd.core.rates import MESSAGES, RATES, RECORDS, STRIKES_BURST, UPDATE, Rates
from mfd.sim.keys import SimKey, sim_verify
from tests.core.circuit_world import Ear
from tests.core.lone import SECOND, Lone
from tests.core.member_world import MemberWorld

OTHER = SimKey(b"other").public_key


class Door:
    """A peer with one neighbour that sends what it likes."""

    def __init__(self, config: Config | None = None) -> None:
        key = SimKey(b"me")
        self.now = 0
        self.peer = Peer(signer=key, verify=sim_verify, config=config or Config(), seed=b"x")
        self.peer.handle(Restored(1), 0)
        self.link = 0
        self.meet()

    def meet(self) -> list[object]:
        self.link += 1
        return self.peer.handle(LinkUp(self.link, OTHER, "there:1", False), self.now)

    def say(self, frame: bytes, times: int = 1) -> list[object]:
        out: list[object] = []
        for _ in range(times):
            out += self.peer.handle(Received(self.link, frame), self.now)
        return out

    def closed(self, effects: list[object]) -> list[str]:
        return [effect.reason for effect in effects if isinstance(effect, Close)]

    def counted(self, name: str) -> int:
        return self.peer.status().counters.get(name, 0)


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(Ping(1)),
        encode_frame(SeqnoRequest(["x", bytes(32), 1, 0, 64])),
        encode_frame(Seek([bytes(16), ["x"], b"", 2])),
        encode_member(IHave((bytes(32),))),
        encode_member(Digest(bytes(16))),
        encode_member(Prune(bytes(8))),
    ],
    ids=["ping", "seqno", "seek", "ihave", "digest", "prune"],
)
def test_what_is_over_the_rate_is_dropped_and_a_flood_ends_the_link(frame: bytes) -> None:
    """Rules: T-32, T-33"""
    door = Door()
    name, per_s, burst = RATES[frame[0]]
    assert not door.closed(door.say(frame, burst))
    assert door.counted("frames_over_rate") == 0
    dropped = door.say(frame, STRIKES_BURST)
    assert dropped == [], "nothing is answered"
    assert door.counted("frames_over_rate") == STRIKES_BURST
    door.now += SECOND
    assert not door.closed(door.say(frame, per_s)), "tokens come again"
    assert door.counted("frames_over_rate") == STRIKES_BURST
    reasons = door.closed(door.say(frame, 3))
    assert reasons
    assert set(reasons) == {f"it floods: more {name} than a neighbour may send"}
    assert door.counted("links_flooded") == 1


@pytest.mark.parametrize("new", [False, True])
def test_an_update_too_many_ends_the_link_at_once(new: bool) -> None:
    """Rules: T-33"""
    door = Door()
    if new:
        entries = [[bytes([n % 256, n // 256]) * 50, 1, 1, 0] for n in range(512)]
    else:
        entries = [["x/y", bytes(32), 1]] * 512
    kind = RECORDS if new else UPDATE
    frame = encode_frame(Update(entries))
    fits = RATES[kind][2] // 512
    assert not door.closed(door.say(frame, fits))
    door.now += 3 * SECOND
    assert not door.closed(door.say(frame))
    [reason, *_] = door.closed(door.say(frame, 3))
    assert RATES[kind][0] in reason
    door.peer.handle(LinkDown(door.link, "closed"), door.now)
    [drop] = door.peer.status().members.dropped
    assert RATES[kind][0] in drop.reason, "the owner is told"


def test_who_has_flooded_is_left_alone_for_a_while() -> None:
    """Rules: T-33"""
    door = Door(Config(flooded_us=20 * SECOND))
    frame = encode_frame(Ping(1))
    assert door.closed(door.say(frame, 500))
    door.peer.handle(LinkDown(door.link, "closed"), door.now)
    door.now += 19 * SECOND
    assert door.closed(door.meet()) == ["it has flooded this peer a moment ago"]
    door.peer.handle(LinkDown(door.link, "closed"), door.now)
    door.now += SECOND
    assert not door.closed(door.meet())


def test_rates_are_by_neighbour_and_the_past_is_forgotten() -> None:
    """Rules: T-32"""
    it = Lone()
    closed: list[int] = []
    rates = Rates(it.ctx, lambda link, reason: closed.append(link))
    for link in (1, 2):
        rates.link_up(LinkUp(link, bytes([link]) * 32, "x", False))
    burst = RATES[45][2]
    assert all(rates.take(1, 45) for _ in range(burst))
    assert not rates.take(1, 45)
    assert rates.take(2, 45), "another neighbour has its own"
    assert rates.take(1, 42), "another type too"
    assert all(rates.take(1, 18) for _ in range(10_000)), "DATA is bounded by credit"
    for number in range(3, 700):  # peers that flooded are not remembered without end
        rates.link_up(LinkUp(number, number.to_bytes(32, "big"), "x", False))
        assert not rates.take(number, UPDATE, 20_000)
        rates.link_down(number)
    assert len(rates._flooded) <= 256
    assert set(rates._links) == {1, 2}
    assert not closed[:1] or closed[0] == 3


def test_custody_messages_are_checked_at_a_bounded_rate() -> None:
    """Rules: T-32"""
    checked = []

    def verify(*args: object) -> bool:
        checked.append(args)
        return bool(sim_verify(*args))

    it = Lone()
    it.ctx.verify = verify
    from mfd.core.courier import Courier

    rates = Rates(it.ctx, lambda link, reason: None)
    rates.link_up(LinkUp(7, OTHER, "x", False))
    heard: list[object] = []
    courier = Courier(it.ctx, lambda: None, lambda *_: None, heard.append)
    courier.takes = lambda link: rates.take(link, MESSAGES)

    class Pipe(Ear):
        cls, nonce, link, gone, sendable, queued, window = 0, b"n", 7, False, False, 0, 8_192

        def consumed(self, size: int) -> None: ...

    pipe = Pipe()
    courier.accept(pipe)
    message = encode_message(Kind.CANCEL, (bytes(32),), network="mfd", signer=SimKey(b"other"))
    raw = memoryview(len(message).to_bytes(4, "little") + message)
    for _ in range(3_000):
        courier.received(pipe, raw)
    most = RATES[MESSAGES][2]
    assert len(heard) == len(checked) == most
    assert it.ctx.counters["messages_over_rate"] == 3_000 - most


def test_an_honest_swarm_never_comes_near() -> None:
    """Rules: T-32"""
    world = MemberWorld(3, Config(open_network=True, frame_rates=0.25))
    first = world.add()
    world.run(rounds=1)
    for _ in range(40):  # all at once
        world.happen(world.add(), Joined(first.address))
    world.run(seconds=20)
    for box in list(world.boxes.values())[:20]:  # half of them announce, some die, all repair
        box.peer._routes.hold(f"data/{box.name}", 10, world.now)
    world.run(seconds=5)
    world.kill(*list(world.boxes.values())[:8])
    world.run(seconds=20)
    for box in world.live():
        counters = box.peer.status().counters
        assert counters.get("frames_over_rate", 0) == 0, counters
