"""Far peers: dialled by address for circuits alone, boundedly, never where links are given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfd.core.circuit import Channel
from mfd.core.config import Config
from mfd.core.dials import Purpose
from mfd.core.events import Addressed, Joined, LinkUp, Received, Ticked
from mfd.core.frames import Class, Open, Update, Via, encode_frame
from mfd.core.memberframes import Call, Called, Probe, Shuffle, encode_member
from mfd.core.records import OPEN_NETWORK, seal_peer_record
from mfd.sim.keys import SimKey
from tests.core.circuit_world import Ear
from tests.core.member_world import MemberWorld

THIN = Config(
    open_network=True, active_target=2, active_max=2, outbound_min=1, passive_max=3, far_hops=3
)
CALL, CALLED = 48, 49


class Chain(MemberWorld):
    """Peers in a row, each with its two neighbours and no room for more."""

    def __init__(self, count: int = 7, config: Config = THIN) -> None:
        super().__init__(1, config)
        for _ in range(count):
            self.add()
        self.run(rounds=1)
        for a in range(count - 1):
            here, there = self.boxes[a], self.boxes[a + 1]
            self.happen(here, Joined(there.address), a * 50_000 * 20)
            self.run(rounds=8)
        self.run(seconds=2)
        self.recording = True

    def peer(self, number: int):
        peer = self.boxes[number].peer
        assert peer is not None
        return peer

    def connect(self, a: int, b: int, ear: Ear | None = None) -> Channel | None:
        """Open a thin circuit as the courier does."""
        peer, target = self.peer(a), self.boxes[b].key.public_key
        via = peer._via(target, Class.THIN)
        circuit = peer._seals.connect(target, Class.THIN, via, b"", ear or Ear())
        self.happen(self.boxes[a], Ticked())
        return circuit

    def far(self, number: int) -> set[int]:
        """Who is at the other end of a peer's far links."""
        box = self.boxes[number]
        return {box.links[n][0].name for n in box.links if n in self.peer(number).members.far}

    def knows(self, number: int, other: int) -> bool:
        key = self.boxes[other].key.public_key
        return self.peer(number).members.book.get(key, self.now) is not None

    def teach(self, number: int, other: int) -> None:
        """Let a peer have the record of another."""
        key = self.boxes[other].key.public_key
        item = self.peer(other).members.book.item(key, self.now)
        assert item is not None
        self.peer(number).members.book.learn(item, self.now)


def joined(count: int = 12) -> Chain:
    return Chain(count)


def far_pair(world: Chain) -> tuple[int, int]:
    """Two peers without a link between them."""
    for a in world.boxes:
        for b in world.boxes:
            linked = {other.name for other, _ in world.boxes[a].links.values()}
            if a != b and b not in linked:
                return a, b
    raise AssertionError("everybody is linked to everybody")


def test_a_peer_that_no_route_leads_to_is_dialled_and_reached() -> None:
    """Rules: M-36, M-37"""
    world = joined()
    a, b = far_pair(world)
    world.teach(a, b)
    views = {n: world.active(box) for n, box in world.boxes.items()}
    assert world.connect(a, b) is None, "nothing leads there yet"
    world.run(rounds=6)
    assert world.far(a) == {b}
    assert world.far(b) == {a}
    ear = Ear()
    assert world.connect(a, b, ear) is not None
    world.run(rounds=4)
    assert ear.said == ["opened"]
    assert ear.circuit is not None
    assert ear.circuit.hops == 1
    assert {n: world.active(box) for n, box in world.boxes.items()} == views, "no view has changed"
    kinds = {frame[0] for _, to, frame in world.boxes[a].frames if to == b}
    assert not kinds & {4, 5, 12, 13, 36, 41, 45}, "no routing, SEEK or gossip goes over it"


@pytest.mark.parametrize("used", [False, True])
def test_a_far_link_ends_when_no_circuit_needs_it(used: bool) -> None:
    """Rules: M-38"""
    world = joined()
    a, b = far_pair(world)
    world.teach(a, b)
    world.connect(a, b)
    world.run(rounds=6)
    assert world.far(a) == {b}
    if used:
        assert world.connect(a, b) is not None  # the other end ends it 30 to 45 s later
    world.run(seconds=52)
    assert bool(world.far(a)) is bool(world.far(b)) is used
    world.run(seconds=45)
    assert world.far(a) == world.far(b) == set()
    assert not any(other.name == b for other, _ in world.boxes[a].links.values())


def test_a_peer_that_does_not_answer_is_sought_and_left_alone() -> None:
    """Rules: M-36, R-33"""
    world = joined()
    a, b = far_pair(world)
    world.teach(a, b)
    world.cut = lambda x, y: {x.name, y.name} == {a, b}
    reach = world.peer(a).members.far.reach
    key = world.boxes[b].key.public_key
    assert world.connect(a, b) is None
    assert not world.peer(a)._seeker.seeks(("@" + key.hex(),)), "it is being dialled"
    world.run(rounds=2)
    assert not reach(key), "it is left alone"
    ear = Ear()
    world.connect(a, b)
    world.run(seconds=1)
    assert world.connect(a, b, ear) is not None, "SEEK has found a way over others"
    world.run(seconds=1)
    assert ear.said == ["opened"]
    dials = world.peer(a).status().counters["far_dials"]
    assert dials == 1
    world.cut = lambda x, y: False
    world.run(seconds=2)
    assert reach(key), "after a while it is tried again"


def test_far_links_are_bounded_on_both_sides() -> None:
    """Rules: M-38"""
    config = replace(THIN, far_links_max=2)
    world = Chain(12, config)
    for other in range(1, 12):
        world.teach(0, other)
        world.teach(other, 0)
    for other in range(1, 12):
        world.connect(0, other)
    world.run(rounds=6)
    assert len(world.far(0)) <= 2
    assert world.peer(0).status().counters["far_dials"] == 2
    for other in range(1, 12):
        world.connect(other, 0)
    world.run(rounds=6)
    inbound = [n for n in world.peer(0).members.neighbours.values() if not n.up.outbound]
    far = world.peer(0).members.far
    assert sum(n.up.link in far for n in inbound) <= 2
    refused = [f for _, _, f in world.boxes[0].frames if f[0] == CALLED and f[2] == 0xC2]
    assert refused, "those that came too late were told"


@pytest.mark.parametrize("hops", [2, 3, 5])
def test_a_long_way_is_worth_a_link(hops: int) -> None:
    """Rules: M-36"""
    world = joined()
    a, b = far_pair(world)
    world.teach(a, b)
    peer, key = world.peer(a), world.boxes[b].key.public_key

    class Routes:
        def snapshot(self) -> tuple:
            return ()

        def next_hop(self, name: str, holder: bytes, cls: Class) -> object:
            return type("Hop", (), {"hops": hops, "link": 1, "seqno": 1, "metric": 1})

    assert peer._trails.via(Routes(), key, Class.THIN) is not None
    dialled = peer.status().counters.get("far_dials", 0)
    assert dialled == (hops >= THIN.far_hops)


def test_where_links_are_given_nobody_is_dialled_or_taken() -> None:
    """Rules: M-36, M-37, R-47"""
    world = MemberWorld(1, Config())
    boxes = [world.add() for _ in range(3)]
    world.run(rounds=1)
    world.happen(boxes[0], Joined(boxes[1].address))
    world.run(seconds=1)
    there, key = boxes[0].peer, boxes[2].key
    assert there is not None
    item = boxes[2].peer.members.book.item(key.public_key, world.now)
    there.members.book.learn(item, world.now)
    assert not there.members.far.reach(key.public_key)
    link = next(iter(boxes[0].links))
    other = boxes[1].peer.members.book.item(boxes[1].key.public_key, world.now)
    world.happen(boxes[0], Received(link, encode_member(Call(other))))
    world.happen(boxes[0], Received(link, encode_frame(Update([list(item)]))))
    world.run(rounds=2)
    assert there.status().counters["calls_out_of_place"] == 1
    assert there._routes.refused["malformed"] == 1
    assert len(there.members.far._used_us) == 0


def test_a_peer_alone_makes_a_neighbour_of_a_far_one() -> None:
    """Rules: M-39"""
    world = joined()
    a, b = far_pair(world)
    world.teach(a, b)
    world.connect(a, b)
    world.run(rounds=6)
    ear = Ear()
    world.connect(a, b, ear)
    world.run(rounds=4)
    others = [box for box in world.boxes.values() if box.name not in (a, b)]
    world.kill(*others)
    world.run(seconds=5)
    assert world.active(world.boxes[a]) == {b}
    assert world.active(world.boxes[b]) == {a}
    assert world.far(a) == world.far(b) == set()
    assert ear.said == ["opened"], "its circuits went on"
    assert not ear.circuit.gone


def test_calls_out_of_place_change_nothing() -> None:
    """Rules: M-06, M-07, M-37"""
    world = joined()
    box = world.boxes[0]
    peer, key = world.peer(0), SimKey(b"stranger")
    world.happen(box, LinkUp(999, key.public_key, "10.9.9.9:1", False))
    record = seal_peer_record(
        "mfd", key, seq=9, addresses=(), caps=OPEN_NETWORK, valid_us=3_600_000_000
    )
    opening = encode_frame(Open(1, bytes(32), Via("x", bytes(32), 0, 9), (), bytes(16), 1, 0, b""))
    world.happen(box, Received(999, opening))
    world.happen(box, Received(999, encode_member(Called(True, (record.sealed, 0)))))
    world.run(rounds=1)
    assert 999 not in peer.members.far, "nobody had called"
    assert peer.status().counters["frames_of_strangers"] == 1
    for _ in range(2):
        world.happen(box, Received(999, encode_member(Call((record.sealed, 0)))))
    world.run(rounds=1)
    assert 999 in peer.members.far
    assert peer.status().counters["calls_out_of_place"] == 2
    shuffle = encode_member(Shuffle(bytes(8), 0, (record.sealed, 0), ()))
    world.happen(box, Received(999, shuffle))
    world.happen(box, Received(999, opening))
    world.run(rounds=1)
    assert peer.status().counters["frames_of_strangers"] == 2, (
        "the shuffle; the circuit is looked at"
    )
    wrong = peer.members.book.item(peer.id, world.now)
    world.happen(box, LinkUp(998, SimKey(b"other").public_key, "10.9.9.8:1", False))
    world.happen(box, Received(998, encode_member(Call(wrong))))
    world.run(rounds=1)
    assert 998 not in peer.members.far, "the record of somebody else"


@pytest.mark.parametrize("frame", [Probe(bytes(32)), Update([])])
def test_a_call_asks_for_no_neighbour(frame: object) -> None:
    """Rules: M-07, M-37"""
    world = joined()
    a, b = far_pair(world)
    world.teach(a, b)
    world.connect(a, b)
    world.run(rounds=1)
    asked = next(n for n, x in world.peer(a).members.neighbours.items() if x.asked is Purpose.FAR)
    encode = encode_member if isinstance(frame, Probe) else encode_frame
    world.happen(world.boxes[a], Received(asked, encode(frame)))
    assert not world.peer(a).members.neighbours[asked].active
    world.run(rounds=6)
    assert world.far(a) == {b}, "the answer to CALL is CALLED"


def test_holders_records_travel_beside_their_adverts() -> None:
    """Rules: R-47, M-40"""
    world = Chain(6)
    holder, far = 0, 5
    told = [d for box in world.boxes.values() for _, _, d in box.frames if d[0] == 4]
    assert not told
    for number in (1, 2, 3, 4, 5):  # what shuffles have brought is forgotten
        book = world.peer(number).members.book
        book._entries.pop(world.boxes[holder].key.public_key, None)
    item = world.peer(holder).members.book.item(world.boxes[holder].key.public_key, world.now)
    world.peer(holder)._routes.hold("x/y", 10, world.now)
    for number in (1, 2):
        world.teach(number, holder)
    world.happen(world.boxes[holder], Ticked())
    world.run(seconds=8)
    assert item is not None
    assert all(world.knows(number, holder) for number in range(6))
    carried = [
        (box.name, to)
        for box in world.boxes.values()
        for _, to, frame in box.frames
        if frame[0] == 4 and item[0] in frame
    ]
    assert len(set(carried)) == len(carried), "once over each link"
    assert not {(b, a) for a, b in carried} & set(carried), "and not back"
    world.happen(world.boxes[holder], Addressed(("10.7.7.7:7000",)))
    world.run(seconds=8)
    key = world.boxes[holder].key.public_key
    entry = world.peer(far).members.book.get(key, world.now)
    assert entry is not None
    assert entry.record.addresses == ("10.7.7.7:7000",)
