"""Many real peers in a world of rounds: they find each other, lose each other, find again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import networkx as nx
import pytest

from mfd.core.config import Config
from mfd.core.dials import Purpose
from mfd.core.events import Discovered, Joined, LinkUp, Received, Restored, StopRequested
from mfd.core.frames import Bye, Class, Open, Ping, Update, encode_frame
from mfd.core.gossip import rumour_id
from mfd.core.memberframes import (
    Ask,
    Disconnect,
    IHave,
    Join,
    Reply,
    Shuffle,
    ShuffleReply,
    encode_member,
)
from mfd.core.messages import Kind, encode_message
from mfd.core.records import seal_peer_record
from mfd.core.tidings import CUSTODY
from mfd.sim.keys import SimKey
from tests.core.member_world import ROUND, Box, MemberWorld

GIVEN = Config()
OPEN = Config(open_network=True)


def joining(count: int, seed: int = 1, config: Config = OPEN) -> MemberWorld:
    """`count` peers, of which all but the first join at its address in the same round."""
    world = MemberWorld(seed, config)
    first = world.add()
    world.run(rounds=1)
    for _ in range(count - 1):
        world.happen(world.add(), Joined(first.address))
    return world


def settled(count: int, seed: int = 1, config: Config = OPEN) -> MemberWorld:
    world = joining(count, seed, config)
    world.run(seconds=20)
    world.check_views()
    assert world.islands() == 1
    return world


def degrees(world: MemberWorld) -> list[int]:
    return sorted(degree for _, degree in world.graph().degree())


def say(world: MemberWorld, box: Box, word: bytes) -> bytes:
    """Have a peer broadcast something; return the rumour's id."""
    body = (word.ljust(32), bytes(32))
    message = encode_message(Kind.RECLAIM, body, network="mfd", signer=box.key)
    assert box.peer is not None
    box.peer.members.gossip.publish(CUSTODY, message, 600)
    for effect in box.peer._ctx.take():
        world._perform(box, effect)
    return rumour_id(CUSTODY, message)


def holders(world: MemberWorld, ident: bytes) -> int:
    return sum(ident in box.peer.members.gossip.held for box in world.live() if box.peer)


def count(world: MemberWorld, name: str) -> int:
    return sum(box.peer._ctx.counters.get(name, 0) for box in world.live() if box.peer)


def frames(world: MemberWorld, kind: int) -> list[tuple[int, bytes]]:
    """(sender, frame) of a type, of those that were recorded."""
    return [(b.name, f) for b in world.boxes.values() for _, _, f in b.frames if f[0] == kind]


# joining


def test_two_hundred_join_at_one_address_within_eight_rounds() -> None:
    """Rules: M-09, M-10, M-12, M-13"""
    world = joining(200)
    world.run(rounds=8)
    assert world.islands() == 1
    assert sum(degree >= 3 for degree in degrees(world)) >= 185
    world.run(rounds=4)
    assert degrees(world)[0] >= 3
    world.run(seconds=10)
    assert degrees(world)[0] >= 5
    assert max(degrees(world)) <= 8
    world.check_views()
    for box in world.live():
        assert box.peer is not None
        assert box.peer.members.views.outbound() >= 2


def test_peers_that_join_one_after_the_other() -> None:
    """Rules: M-10, M-11"""
    world = joining(1)
    for number in range(1, 40):
        box = world.add()
        world.happen(box, Joined(world.boxes[number // 2].address))
        world.run(seconds=1)
    world.run(seconds=20)
    world.check_views()
    assert world.islands() == 1
    assert degrees(world)[0] >= 5


def test_a_newcomer_at_a_full_network_gets_its_neighbours() -> None:
    """Rules: M-10, M-12"""
    world = settled(30)
    late = world.add()
    world.happen(late, Joined(world.boxes[3].address))
    world.run(rounds=10)
    assert len(world.active(late)) >= 3
    world.run(seconds=10)
    assert len(world.active(late)) >= 5


def test_three_peers_and_one_address_that_comes_late() -> None:
    """Rules: M-20"""
    world = MemberWorld()
    boxes = [world.add() for _ in range(3)]
    world.kill(boxes[0])
    for box in boxes[1:]:
        world.happen(box, Joined(boxes[0].address))
    world.run(seconds=20)
    assert world.islands() == 2
    told = boxes[1].peer.status().members  # type: ignore[union-attr]
    assert told.unreachable == {boxes[0].address: "nobody listens there"}
    world.start(boxes[0])
    assert world.until(lambda: world.islands() == 1, seconds=60) < 45


def test_a_contact_that_has_forgotten_everybody_is_looked_at_again() -> None:
    """Rules: M-20"""
    world = settled(20)
    contact = world.boxes[0]
    world.kill(contact)
    world.run(seconds=1)
    # a new machine behind the old address: nobody is looking for it, and it knows nobody
    other = world.add()
    world.by_address[contact.address] = other
    assert world.until(lambda: len(world.active(other)) > 0, seconds=400) > 100
    world.run(seconds=5)
    assert world.islands() == 1


def test_records_are_never_broadcast() -> None:
    """Rules: M-05"""
    world = joining(30)
    world.recording = True
    world.run(seconds=30)
    assert not frames(world, 41)
    assert frames(world, 33)


def test_a_walk_ends_and_its_length_is_not_the_senders_to_choose() -> None:
    """Rules: M-11"""
    world = settled(40)
    world.recording = True
    record = seal_peer_record(
        "mfd",
        SimKey(b"nobody"),
        seq=1,
        addresses=["10.9.9.9:1"],
        caps=0,
        valid_us=3_600_000_000,
    )
    neighbour = next(iter(world.active(world.boxes[5])))
    link = next(n for n, (o, _) in world.boxes[neighbour].links.items() if o.name == 5)
    forward = bytes((33,)) + encode_member(Join((record.sealed, 0)))[1:]
    longer = forward[:1] + b"\x92" + forward[2:] + b"\xcc\xff"  # ttl 255
    world.happen(world.boxes[neighbour], Received(link, longer))
    world.run(rounds=20)
    sent = sorted(frame for box in world.boxes.values() for frame in box.frames)
    assert [f[-1] for *_, f in sent if f[0] == 33 and record.sealed in f] == [5, 4, 3, 2, 1, 0]
    knowing = [b for b in world.live() if b.peer and record.peer in b.peer.members.views.passive]
    assert len(knowing) == 2  # three hops before the end, and at the end


def test_newcomers_walk_at_a_bounded_rate() -> None:
    """Rules: M-10"""
    world = joining(60, config=Config(open_network=True, joins_per_s=1, joins_burst=2))
    world.recording = True
    world.run(rounds=20)
    walks = Counter(f for name, f in frames(world, 33) if name == 0)
    assert len(walks) <= 3
    assert world.islands() == 1


# losing


@pytest.mark.parametrize("share", [3, 2])
def test_a_part_of_all_dies_at_once_and_one_repair_round_heals(share: int) -> None:
    """Rules: M-17, M-23"""
    world = settled(90, seed=share)
    dice = random.Random(share)
    dead = dice.sample(world.live(), 90 // share)
    world.kill(*dead)
    world.run(rounds=1)
    assert world.until(lambda: world.islands() == 1, seconds=10) <= 10
    world.run(seconds=10)
    assert world.islands() == 1
    assert degrees(world)[0] >= 3
    world.check_views()


def test_a_split_heals() -> None:
    """Rules: M-19"""
    world = settled(40)
    world.split(world.live()[:20])
    world.run(seconds=60)
    world.check_views()
    assert world.islands() == 2
    assert degrees(world)[0] >= 3
    world.heal()
    assert world.until(lambda: world.islands() == 1, seconds=130) <= 130
    world.run(seconds=60)
    world.check_views()
    crossing = [(a, b) for a, b in world.graph().edges if (a < 20) != (b < 20)]
    assert len(crossing) >= 10


def test_a_long_split_heals_after_all_records_have_ended() -> None:
    """Rules: M-15, M-19"""
    brief = Config(open_network=True, peer_record_valid_us=60_000_000)
    world = settled(12, config=brief)
    world.split(world.live()[:6])
    world.run(seconds=200)
    for box in world.live():
        assert box.peer is not None
        for peer in box.peer.members.views.passive:
            assert (box.name < 6) == ([b.key.public_key for b in world.live()].index(peer) < 6)
    world.heal()
    world.until(lambda: world.islands() == 1, seconds=400)


def test_restarted_peers_remember_good_ones() -> None:
    """Rules: M-21"""
    world = settled(20)
    assert all(1 <= len(box.remembered) <= 64 for box in world.live())
    boxes = world.live()
    world.kill(*boxes)
    world.run(seconds=5)
    for box in boxes:
        world.start(box)  # nobody is told an address
    world.until(lambda: world.islands() == 1, seconds=30)
    world.run(seconds=15)
    world.check_views()
    assert degrees(world)[0] >= 4


def test_what_is_remembered_is_saved_at_the_end_and_bounded() -> None:
    """Rules: M-21"""
    few = Config(open_network=True, remembered_max=3)
    world = joining(12, config=few)
    world.run(seconds=3)
    box = world.boxes[5]
    assert box.remembered == ()
    world.happen(box, StopRequested())
    world.run(rounds=1)
    assert len(box.remembered) == 3
    assert all(address for _, (address, *_) in box.remembered)


# views


def test_a_victim_does_not_run_dry() -> None:
    """Rules: M-14"""
    world = settled(40)
    world.recording = True
    for number in range(12):
        world.happen(world.add(), Joined(world.boxes[number].address))
    world.run(seconds=3)
    farewells = [(b, to, f) for b in world.boxes.values() for _, to, f in b.frames if f[0] == 38]
    assert farewells
    for box, to, frame in farewells:
        assert frame == encode_member(Disconnect(1))
        sent = [f for _, other, f in box.frames if other == to]
        before = sent[sent.index(frame) - 1]
        assert before[0] in (37, 34, 32)  # others to turn to, or it had only asked
    world.run(seconds=10)
    assert degrees(world)[0] >= 5


def test_shuffles_walk_and_answers_come_back() -> None:
    """Rules: M-16"""
    world = settled(40)
    world.recording = True
    world.run(seconds=40)
    walks = [f for _, f in frames(world, 36)]
    nonces = Counter(f[2:12] for f in walks)
    assert 40 <= len(nonces) <= 80
    assert max(nonces.values()) == 3
    assert sum(n == 3 for n in nonces.values()) >= 0.95 * len(nonces)
    answers = Counter(f[2:12] for _, f in frames(world, 37) if f[4:12] != bytes(8))
    assert set(answers) <= set(nonces)
    assert sum(answers[nonce] == 3 for nonce in nonces) >= 0.95 * len(nonces)
    for box in world.live():
        assert box.peer is not None
        assert len(box.peer.members.views.passive) >= 15


def test_an_answer_to_nothing_is_dropped() -> None:
    """Rules: M-16"""
    world = settled(5)
    box = world.boxes[2]
    assert box.peer is not None
    before = dict(box.peer.members.book.view())
    record = seal_peer_record("mfd", SimKey(b"x"), seq=1, addresses=[], caps=0, valid_us=10**9)
    reply = ShuffleReply(b"unknown!", ((record.sealed, 0),))
    world.happen(box, Received(next(iter(box.links)), encode_member(reply)))
    world.run(rounds=2)
    assert box.peer.members.book.view() == before


# strangers


class Stranger:
    """A link to one open peer whose other end is the test."""

    def __init__(self, config: Config = OPEN) -> None:
        self.world = MemberWorld(1, config)
        self.box = self.world.add()
        self.world.run(rounds=1)
        self.key = SimKey(b"stranger")
        self.box.links[999] = (Box(99, self.key, "10.3.3.3:3"), 998)
        self.world.recording = True
        self.world.happen(self.box, LinkUp(999, self.key.public_key, "10.3.3.3:3", False))
        self.world.run(rounds=1)

    def item(self, signer: SimKey | None = None) -> tuple[bytes, int]:
        record = seal_peer_record(
            "mfd", signer or self.key, seq=1, addresses=["10.3.3.3:3"], caps=0, valid_us=10**9
        )
        return record.sealed, 0

    def send(self, frame: bytes) -> None:
        self.world.happen(self.box, Received(999, frame))
        self.world.run(rounds=1)

    @property
    def linked(self) -> bool:
        return 999 in self.box.links

    @property
    def counted(self) -> bool:
        assert self.box.peer is not None
        return self.key.public_key in self.box.peer.members.views.active

    def answers(self, kind: int) -> list[bytes]:
        return [frame for _, _, frame in self.box.frames if frame[0] == kind]


def test_nothing_but_asking_is_taken_from_a_stranger() -> None:
    """Rules: M-07"""
    it = Stranger()
    for frame in (
        encode_frame(Update([])),
        encode_frame(Open(1, bytes(32), None, (), bytes(16), 1, Class.THIN, b"")),
        encode_member(Shuffle(bytes(8), 0, it.item(), ())),
        encode_member(IHave((bytes(32),))),
    ):
        it.send(frame)
    assert it.linked
    assert not it.answers(37)
    assert it.box.peer is not None
    assert it.box.peer.status().counters["frames_of_strangers"] == 4
    it.send(encode_frame(Ping(5)))
    assert it.answers(2)
    it.send(encode_member(Ask(it.item(), urgent=False)))
    assert it.counted
    it.send(encode_member(Shuffle(b"12345678", 0, it.item(), ())))
    assert it.answers(37)


def test_records_are_taken_from_a_neighbour_at_a_bounded_rate() -> None:
    """Rules: M-35"""
    it = Stranger(Config(open_network=True, joins_burst=20))
    it.send(encode_member(Ask(it.item(), urgent=True)))
    it.world.run(seconds=5)
    for number in range(50):
        nonce = number.to_bytes(8, "big")
        frame = Received(999, encode_member(Shuffle(nonce, 0, it.item(), ())))
        it.world.happen(it.box, frame)
    it.world.run(rounds=1)
    assert len(it.answers(37)) == 20
    assert it.linked
    assert it.box.peer is not None
    assert it.box.peer.status().counters["records_over_rate"] == 30
    it.world.run(seconds=1)
    for _ in range(50):
        it.world.happen(it.box, frame)
    it.world.run(rounds=1)
    assert len(it.answers(37)) == 30


def test_a_visitor_that_asks_nothing_is_sent_away() -> None:
    """Rules: M-09"""
    it = Stranger()
    it.world.run(seconds=4.8)
    assert it.linked
    it.world.run(seconds=0.3)
    assert not it.linked


def test_visitors_are_bounded() -> None:
    """Rules: M-09"""
    it = Stranger(Config(open_network=True, visitors_max=3))
    for number in range(5):
        key = SimKey(bytes((number,)))
        it.box.links[number] = (Box(50 + number, key, "10.3.3.4:3"), 50 + number)
        it.world.happen(it.box, LinkUp(number, key.public_key, "10.3.3.4:3", False))
    it.world.run(rounds=1)
    assert len(it.box.links) == 3


@pytest.mark.parametrize("make", [Join, lambda item: Ask(item, urgent=True)])
def test_somebody_elses_record_ends_the_link(make: Callable) -> None:
    """Rules: M-06"""
    it = Stranger()
    it.send(encode_member(make(it.item(SimKey(b"other")))))
    assert not it.linked
    assert not it.counted


def test_a_wrong_record_that_a_relay_passed_on_is_dropped_without_blame() -> None:
    """Rules: M-16"""
    it = Stranger()
    it.send(encode_member(Ask(it.item(), urgent=True)))
    wrong = it.item()[0][:-1] + b"\0"
    right = it.item(SimKey(b"third"))
    it.send(encode_member(Shuffle(b"12345678", 0, it.item(), ((wrong, 0), right))))
    assert it.counted
    assert it.answers(37)
    assert it.box.peer is not None
    assert it.box.peer.status().counters["records_refused"] == 1
    assert right[0][:32] in it.box.peer.members.views.passive


def test_a_neighbour_that_says_no_is_none_any_more() -> None:
    """Rules: M-07"""
    it = Stranger()
    it.send(encode_member(Ask(it.item(), urgent=True)))
    assert it.counted
    it.send(encode_member(Reply(False, it.item(), ())))
    assert not it.counted
    assert not it.linked


def test_routing_news_do_not_overfill_the_active_view() -> None:
    """Rules: M-07, M-13"""
    world = settled(12)
    box = world.boxes[4]
    assert box.peer is not None
    views = box.peer.members.views
    for number in range(9):
        key = SimKey(b"early%d" % number)
        box.links[500 + number] = (Box(200 + number, key, "10.8.8.8:8"), 600 + number)
        box.peer.members.dials.dial(f"x:{number}", Purpose.ASK)
        world.happen(box, LinkUp(500 + number, key.public_key, f"x:{number}", True))
        world.happen(box, Received(500 + number, encode_frame(Update([]))))
    world.run(rounds=3)
    assert len(views.active) == 8


def test_a_frame_that_is_none_ends_the_link() -> None:
    """Rules: M-06"""
    it = Stranger()
    it.send(bytes((34, 0xC1)))
    assert not it.linked
    it = Stranger()
    it.send(bytes((36,)) + bytes(20_000))
    assert not it.linked


def test_an_answer_that_nobody_asked_for_makes_no_neighbour() -> None:
    """Rules: M-13"""
    it = Stranger()
    it.send(encode_member(Reply(True, it.item(), ())))
    assert it.linked
    assert not it.counted


# given links


def given(edges: list[tuple[int, int]], config: Config = GIVEN) -> MemberWorld:
    world = MemberWorld(1, config)
    for _ in range(1 + max(max(edge) for edge in edges)):
        world.add()
    world.run(rounds=1)
    for a, b in edges:
        world.wire(world.boxes[a], world.boxes[b])
    world.run(rounds=3)
    return world


def test_given_links_count_at_once_and_are_kept() -> None:
    """Rules: M-08"""
    world = MemberWorld(1, GIVEN)
    boxes = [world.add() for _ in range(12)]
    world.recording = True
    for box in boxes[1:]:
        world.happen(box, Joined(boxes[0].address))
    world.run(rounds=2)
    assert len(world.active(boxes[0])) == 11
    assert len(world.graph().edges) == 11
    world.run(seconds=2)
    assert len([f for _, f in frames(world, 34)]) == 11
    assert all(f[1:3] == b"\x93\xc3" for _, f in frames(world, 35))
    assert boxes[0].peer is not None
    assert len(boxes[0].peer.members.book.view()) == 12
    for link in list(boxes[3].links):
        world._break(boxes[3], link, "pulled")
        world.happen(boxes[3], boxes_down(link))
    world.run(seconds=3)
    assert len(world.graph().edges) == 11


def boxes_down(link: int):
    from mfd.core.events import LinkDown

    return LinkDown(link, "pulled")


def test_records_spread_where_links_are_given() -> None:
    """Rules: M-08, M-16"""
    world = given([(n, n + 1) for n in range(9)])
    world.run(seconds=300)
    assert len(world.graph().edges) == 9
    for box in world.live():
        assert box.peer is not None
        assert len(box.peer.members.views.passive) >= 5


def test_open_and_given_understand_each_other() -> None:
    """Rules: M-07, M-08"""
    for first, second in ((OPEN, GIVEN), (GIVEN, OPEN)):
        world = MemberWorld()
        boxes = [world.add(config=first), world.add(config=second)]
        world.happen(boxes[1], Joined(boxes[0].address))
        world.run(seconds=10)
        assert world.islands() == 1
        for box, other in (boxes, boxes[::-1]):
            assert box.peer is not None
            box.peer._known_routes().hold("data", 3, world.now)
            world.happen(box, Joined(other.address))
        world.run(seconds=3)
        for box in boxes:
            assert box.peer is not None
            assert len(box.peer.status().routes) == 2


# on the LAN


@pytest.mark.parametrize("config", [Config(lan_links_max=3), OPEN])
def test_peers_heard_of_on_the_lan_become_neighbours(config: Config) -> None:
    """Rules: M-33"""
    world = MemberWorld(1, config)
    boxes = [world.add() for _ in range(8)]
    for box in boxes:
        for other in boxes:
            world.happen(box, Discovered(other.key.public_key, other.address))
    world.run(seconds=12)
    assert world.islands() == 1
    enough, most = (5, 7) if config.open_network else (3, 7)
    assert enough <= degrees(world)[0]
    assert max(degrees(world)) <= most
    world.kill(boxes[0])
    world.run(seconds=3)
    world.start(boxes[0])
    world.happen(boxes[0], Discovered(boxes[1].key.public_key, boxes[1].address))
    world.run(seconds=10)
    assert len(world.active(boxes[0])) >= 1


def test_what_is_heard_on_the_lan_proves_nothing() -> None:
    """Rules: M-32, M-33"""
    world = MemberWorld(1, GIVEN)
    box, honest, liar = (world.add() for _ in range(3))
    world.happen(box, Discovered(honest.key.public_key, liar.address))
    world.happen(box, Discovered(box.key.public_key, liar.address))
    world.happen(box, Discovered(liar.key.public_key, "nonsense"))
    world.run(seconds=20)
    assert not world.graph().edges
    assert box.peer is not None
    [known] = box.peer.status().members.known
    assert known.reason == "another peer answers there"
    assert known.tries >= 2


# what the owner is told


def test_why_a_neighbour_is_none_any_more() -> None:
    """Rules: M-22"""
    world = settled(4)
    world.kill(world.boxes[1])
    world.happen(world.boxes[2], StopRequested())
    world.run(seconds=2)
    told = world.boxes[3].peer.status().members  # type: ignore[union-attr]
    assert {drop.reason for drop in told.dropped} >= {
        "the connection was closed",
        "the neighbour says: stopping",
    }
    assert all(0 < drop.ago_us <= 2_000_000 for drop in told.dropped)
    assert told.open
    assert told.lost == 1


def test_a_peer_that_says_goodbye_is_not_dialled_again() -> None:
    """Rules: M-19"""
    it = Stranger()
    it.send(encode_member(Ask(it.item(), urgent=True)))
    it.send(encode_frame(Bye("stopping")))
    assert not it.linked
    assert it.box.peer is not None
    assert it.box.peer.status().members.lost == 0


# broadcast


def test_a_broadcast_reaches_a_thousand_peers_in_nine_rounds() -> None:
    """Rules: M-26, M-27, M-41"""
    graph = nx.random_regular_graph(6, 1_000, seed=1)
    world = given(list(graph.edges))
    ident = say(world, world.boxes[0], b"first")
    world.run(rounds=9)
    assert holders(world, ident) == 1_000
    world.run(seconds=1)
    # a tree is left: it serves all who are near its root, with hardly a frame too many
    known = count(world, "rumours_known")
    near = sorted(nx.single_source_shortest_path_length(graph, 0, 2))[-1]
    later = say(world, world.boxes[near], b"second")
    world.run(rounds=9)
    assert holders(world, later) == 1_000
    assert count(world, "rumours_known") - known <= 100
    assert count(world, "rumours_heard") == 2 * 999  # at most once each


def test_after_a_quiet_time_a_broadcast_is_a_flood_again() -> None:
    """Rules: M-27"""
    world = given(list(nx.random_regular_graph(6, 60, seed=1).edges))
    for number in range(3):
        say(world, world.boxes[number], bytes((number,)))
        world.run(seconds=1)
    known = count(world, "rumours_known")
    assert known >= 200
    say(world, world.boxes[7], b"soon")
    world.run(seconds=1)
    assert count(world, "rumours_known") - known <= 6
    world.run(seconds=30)
    say(world, world.boxes[9], b"later")
    world.run(seconds=1)
    assert count(world, "rumours_known") - known >= 200


def test_a_new_neighbour_hears_what_it_missed() -> None:
    """Rules: M-30"""
    world = given([(0, 1), (1, 2), (3, 4), (4, 5)])
    idents = [say(world, world.boxes[n], bytes((n,))) for n in (0, 5)]
    world.run(seconds=2)
    assert [holders(world, ident) for ident in idents] == [3, 3]
    world.wire(world.boxes[2], world.boxes[3])
    world.run(seconds=3)
    assert [holders(world, ident) for ident in idents] == [6, 6]


def test_a_rumour_that_was_lost_on_the_way_is_found_within_two_periods() -> None:
    """Rules: M-30"""
    graph = nx.random_regular_graph(4, 20, seed=3)
    world = given(list(graph.edges))
    world.silent = {box.name for box in world.live()}
    ident = say(world, world.boxes[0], b"lost")
    world.run(rounds=2)
    world.silent = set()
    assert holders(world, ident) == 1
    world.run(seconds=150)
    assert holders(world, ident) == 20


def test_an_ended_rumour_is_not_sent_again() -> None:
    """Rules: M-26"""
    world = given([(0, 1)])
    ident = say(world, world.boxes[0], b"old")
    world.run(seconds=598)
    world.add()
    world.run(rounds=1)
    world.wire(world.boxes[1], world.boxes[2])
    world.run(rounds=6)
    assert holders(world, ident) == 3
    world.run(seconds=2)
    late = world.add()
    world.run(rounds=1)
    world.recording = True
    for box in world.live()[:3]:
        world.wire(box, late)
    world.run(seconds=200)
    assert not frames(world, 41)
    assert late.peer is not None
    assert ident not in late.peer.members.gossip.held


def test_the_same_seed_gives_the_same_world() -> None:
    def story() -> list:
        world = joining(25, seed=9)
        world.recording = True
        world.run(seconds=8)
        world.kill(world.boxes[3], world.boxes[4])
        world.run(seconds=8)
        return [(box.name, box.frames) for box in world.boxes.values()]

    assert story() == story()


def test_a_peer_has_no_record_before_its_store_is_open() -> None:
    world = MemberWorld()
    box = world.add()
    assert box.peer is not None
    assert not box.peer.members.book.view()
    world.run(rounds=1)
    assert len(box.peer.members.book.view()) == 1
    assert Restored(1).boot == 1
    assert ROUND == 50_000


# whatever a remote sends


def test_bent_frames_raise_nothing_and_bounds_hold() -> None:
    """Rules: M-06, M-13, M-15, M-29"""
    world = joining(14)
    world.recording = True
    world.run(seconds=40)
    for number in range(4):
        say(world, world.boxes[number], bytes((number,)))
        world.run(rounds=4)
    late = world.add()
    world.happen(late, Joined(world.boxes[1].address))
    world.run(seconds=70)
    seen = [frame for box in world.boxes.values() for *_, frame in box.frames]
    by_kind = {kind: [f for f in seen if f[0] == kind] for kind in sorted({f[0] for f in seen})}
    assert set(by_kind) >= {1, 2, 32, 33, 34, 35, 36, 37, 41, 42, 45}
    dice = random.Random(4)
    for _ in range(60):
        it = Stranger()
        it.send(encode_member(Ask(it.item(), urgent=True)))
        for _ in range(40):
            frame = bytearray(dice.choice(by_kind[dice.choice(list(by_kind))]))
            for _ in range(dice.randint(0, 3)):
                match dice.randrange(3):
                    case 0:
                        frame[dice.randrange(len(frame))] = dice.randrange(256)
                    case 1 if len(frame) > 1:
                        del frame[dice.randrange(1, len(frame)) :]
                    case 2:
                        at = dice.randint(1, len(frame))
                        frame[at:at] = dice.randbytes(dice.randint(1, 9))
            it.send(bytes(frame))
            if not it.linked:
                break
        it.world.run(seconds=1)
        assert it.box.peer is not None
        views = it.box.peer.members.views
        assert len(views.passive) <= 32
        assert len(views.active) <= 8
        assert it.box.key.public_key not in {*views.active, *views.passive}
