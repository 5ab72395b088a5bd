"""Rumours: judged, passed on once, fetched where missing, forgotten in time."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.gossip import MISSING_MAX, Gossip, rumour_id
from mfd.core.memberframes import Graft, IHave, Prune, Rumour
from mfd.packet.errors import Fault, PacketError
from tests.core.lone import SECOND, Lone, sent

VALID_S = 600
TREE = rumour_id(1, b"the first")[:8]


class Talker(Lone):
    def __init__(self, links: int = 4, **config: int) -> None:
        super().__init__(Config(**config))
        self.delivered: list[bytes] = []
        self.gossip = Gossip(self.ctx, self.judge)
        for link in range(1, links + 1):
            self.gossip.link_up(link)

    def judge(self, kind: int, payload: bytes) -> int:
        if payload.startswith(b"lie"):
            raise PacketError(Fault.SIGNATURE, "a lie")
        if kind != 1:
            return 0
        self.delivered.append(payload)
        return VALID_S

    def hear(
        self,
        link: int,
        payload: bytes,
        *,
        age_s: int = 0,
        hops: int = 1,
        kind: int = 1,
        tree: bytes = TREE,
    ) -> list:
        self.gossip.on_rumour(link, Rumour(kind, age_s, hops, tree, payload))
        return sent(self.step())


def test_a_new_rumour_goes_to_all_others_at_once() -> None:
    """Rules: M-27"""
    it = Talker()
    assert it.hear(2, b"news", hops=3) == [(n, Rumour(1, 0, 4, TREE, b"news")) for n in (1, 3, 4)]
    assert it.delivered == [b"news"]


def test_a_known_rumour_makes_the_link_lazy_in_its_tree() -> None:
    """Rules: M-26, M-27"""
    it = Talker()
    it.hear(2, b"news")
    assert it.hear(3, b"news") == [(3, Prune(TREE))]
    assert it.hear(3, b"news") == []
    it.gossip.on_prune(4, TREE)
    assert it.gossip.eager(TREE) == (1, 2)
    assert it.delivered == [b"news"]
    assert it.hear(1, b"more") == [(2, Rumour(1, 0, 2, TREE, b"more"))]
    later = sent(it.run(0.05))
    ids = (rumour_id(1, b"more"),)
    assert later == [(3, IHave(ids)), (4, IHave(ids))]
    it.gossip.on_prune(1, b"unheard.")
    other = it.hear(1, b"elsewhere", tree=b"unheard.")
    assert other == [(n, Rumour(1, 0, 2, b"unheard.", b"elsewhere")) for n in (2, 3, 4)]


def test_where_two_trees_meet_nothing_is_cut() -> None:
    """Rules: M-27"""
    it = Talker()
    it.hear(1, b"seen by two", tree=b"one.....")
    assert it.hear(2, b"seen by two", tree=b"another.") == []
    assert it.gossip.eager(b"another.") == it.gossip.eager(b"one.....") == (1, 2, 3, 4)
    assert it.hear(3, b"seen by two", tree=b"one.....") == [(3, Prune(b"one....."))]


def test_ids_wait_for_company() -> None:
    """Rules: M-27"""
    it = Talker(2)
    it.hear(1, b"grows a tree")
    it.gossip.on_prune(2, TREE)
    for number in range(4):
        it.hear(1, bytes((number + 1,)))
    assert [len(f.ids) for _, f in sent(it.run(1)) if isinstance(f, IHave)] == [4]


def test_what_we_say_goes_everywhere_and_is_not_delivered_to_us() -> None:
    """Rules: M-26"""
    it = Talker(3)
    ours = it.gossip.publish(1, b"a flood", VALID_S)[:8]
    assert sent(it.step()) == [(n, Rumour(1, 0, 1, ours, b"a flood")) for n in (1, 2, 3)]
    it.gossip.on_prune(3, ours)
    ident = it.gossip.publish(1, b"mine", VALID_S)
    out = sent(it.run(1))
    assert out == [
        (1, Rumour(1, 0, 1, ours, b"mine")),
        (2, Rumour(1, 0, 1, ours, b"mine")),
        (3, IHave((ident,))),
    ]
    assert not it.delivered
    assert it.hear(1, b"mine", tree=ours) == [(1, Prune(ours))]
    it.gossip.publish(1, b"mine", VALID_S)
    assert not sent(it.step())


def test_a_lie_is_an_error_and_goes_nowhere() -> None:
    """Rules: M-26"""
    it = Talker()
    with pytest.raises(PacketError):
        it.hear(1, b"lie")
    assert not sent(it.step())
    assert not it.gossip.held


def test_what_cannot_be_checked_is_not_passed_on() -> None:
    """Rules: M-26"""
    it = Talker()
    assert it.hear(1, b"of the future", kind=9) == []
    assert it.hear(2, b"of the future", kind=9) == [(2, Prune(TREE))]
    assert not it.gossip.held


def test_a_rumour_ends_and_its_age_travels() -> None:
    """Rules: M-26"""
    it = Talker()
    it.hear(1, b"old", age_s=VALID_S - 10)
    it.run(5)
    it.gossip.on_graft(2, [rumour_id(1, b"old")])
    assert sent(it.step()) == [(2, Rumour(1, VALID_S - 5, 2, TREE, b"old"))]
    it.run(5)
    it.gossip.on_graft(2, [rumour_id(1, b"old")])
    assert not sent(it.step())
    it.run(20)
    assert not it.gossip.held
    assert it.hear(3, b"older", age_s=VALID_S) == []
    assert rumour_id(1, b"older") not in it.gossip.held


def test_an_id_is_remembered_for_twice_the_time() -> None:
    """Rules: M-26"""
    it = Talker()
    it.hear(1, b"once")
    it.run(2 * VALID_S - 1)
    assert it.hear(2, b"once") == [(2, Prune(TREE))]
    assert it.delivered == [b"once"]
    it.run(20)
    assert not it.gossip.seen
    assert it.ctx.deadline_us() is None  # nothing left to look after


def test_a_missing_rumour_is_asked_for_one_after_the_other() -> None:
    """Rules: M-28"""
    it = Talker()
    ident = rumour_id(1, b"late")
    it.hear(1, b"grows a tree")
    it.gossip.on_prune(3, TREE)
    for link in (3, 2, 3):
        it.gossip.on_ihave(link, [ident])
    assert not sent(it.run(0.4))
    assert sent(it.run(0.1)) == [(3, Graft((ident,)))]
    assert sent(it.run(0.5)) == [(2, Graft((ident,)))]
    assert not sent(it.run(5))
    assert 3 not in it.gossip.eager(TREE)
    it.hear(3, b"late")
    assert 3 in it.gossip.eager(TREE)
    it.gossip.on_ihave(4, [rumour_id(1, b"later")])
    it.hear(1, b"later")
    assert all(not isinstance(frame, Graft) for _, frame in sent(it.run(5)))


def test_a_neighbour_that_went_is_not_asked() -> None:
    """Rules: M-28"""
    it = Talker()
    it.gossip.on_ihave(1, [b"i" * 32])
    it.gossip.link_down(1)
    assert not sent(it.run(5))


def test_rates_hold_in_both_directions() -> None:
    """Rules: M-29"""
    it = Talker()
    for number in range(200):
        it.hear(1, number.to_bytes(2, "big"))
    assert len(it.delivered) == 64
    assert it.ctx.counters["rumours_over_rate"] == 136
    dropped = (199).to_bytes(2, "big")
    assert it.hear(2, dropped)  # not remembered: others may bring it
    it.run(1)
    before = len(it.delivered)
    for number in range(300, 400):
        it.hear(1, number.to_bytes(2, "big"))
    assert len(it.delivered) - before == 10
    it.gossip.on_graft(3, list(it.gossip.held))
    it.gossip.on_graft(3, list(it.gossip.held))
    assert len(sent(it.step())) == 64


def test_memory_is_bounded() -> None:
    """Rules: M-29"""
    it = Talker(rumours_max=5, rumour_ids_max=12, rumours_per_s=1_000, rumours_burst=10_000)
    for number in range(100):
        it.hear(1, number.to_bytes(2, "big"), age_s=number)
    assert len(it.gossip.held) == 5
    assert {held.payload[1] for held in it.gossip.held.values()} == {0, 1, 2, 3, 99} or len(
        it.gossip.seen
    ) <= 12
    assert len(it.gossip.seen) <= 12
    it = Talker(rumour_bytes_max=10_000, rumours_per_s=1_000, rumours_burst=10_000)
    for number in range(100):
        it.hear(1, bytes((number,)) * 3_000)
    assert len(it.gossip.held) == 3
    for number in range(2 * MISSING_MAX):
        it.gossip.on_ihave(1, [number.to_bytes(32, "big")])
    assert len(it.gossip._missing) == MISSING_MAX


def test_who_is_asked_for_a_rumour_sends_what_comes_later_too() -> None:
    """Rules: M-28"""
    it = Talker()
    it.hear(1, b"news")
    it.gossip.on_prune(3, TREE)
    it.gossip.on_graft(3, [rumour_id(1, b"news")])
    assert sent(it.step()) == [(3, Rumour(1, 0, 2, TREE, b"news"))]
    assert 3 in [link for link, _ in it.hear(1, b"more")]


def test_a_new_link_is_eager() -> None:
    """Rules: M-27"""
    it = Talker(1)
    it.hear(1, b"news")
    it.gossip.on_prune(1, TREE)
    it.gossip.link_up(5)
    assert it.gossip.eager(TREE) == (5,)
    assert it.ctx.now_us < SECOND
