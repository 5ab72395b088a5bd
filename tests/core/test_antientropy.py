"""Two peers compare what they hold, and end with the same."""

from __future__ import annotations

import random

from mfd.core.antientropy import AntiEntropy
from mfd.core.config import Config
from mfd.core.gossip import Gossip, rumour_id
from mfd.core.memberframes import Buckets, Digest, Graft, IHave, Rumour, Sync
from tests.core.lone import Lone, sent


class Side(Lone):
    def __init__(self, name: bytes, **config: int) -> None:
        fast = {"rumours_per_s": 10_000, "rumours_burst": 100_000, **config}
        super().__init__(Config(**fast), seed=name)
        self.gossip = Gossip(self.ctx, lambda kind, payload: 600)
        self.comparing = AntiEntropy(self.ctx, self.gossip)

    def know(self, *words: bytes) -> None:
        for word in words:
            self.gossip.publish(1, word, 600)

    @property
    def words(self) -> set[bytes]:
        return {held.payload for held in self.gossip.held.values()}

    def up(self) -> None:
        self.gossip.link_up(1)
        self.comparing.link_up(1)

    def take(self, frame) -> None:
        match frame:
            case Digest():
                self.comparing.on_digest(1, frame)
            case Buckets():
                self.comparing.on_buckets(1, frame)
            case Sync():
                self.comparing.on_sync(1, frame)
            case Rumour():
                self.gossip.on_rumour(1, frame)
            case IHave():
                self.gossip.on_ihave(1, frame.ids)
            case Graft():
                self.gossip.on_graft(1, frame.ids)


def talk(a: Side, b: Side, seconds: float) -> list:
    """Let time pass in steps and frames pass between; return the frames."""
    out = []
    for _ in range(round(seconds / 0.1)):
        for one, other in ((a, b), (b, a)):
            frames = [frame for _, frame in sent(one.run(0.1))]
            out += frames
            for frame in frames:
                other.take(frame)
    return out


def words(count: int, seed: int) -> list[bytes]:
    dice = random.Random(seed)
    return [dice.randbytes(8) for _ in range(count)]


def test_equal_sides_say_nothing_more() -> None:
    """Rules: M-30"""
    a, b = Side(b"a"), Side(b"b")
    for side in (a, b):
        side.know(*words(50, 1))
        side.up()
    frames = talk(a, b, 1)
    assert [type(frame) for frame in frames] == [Digest, Digest]


def test_what_one_lacks_comes_both_ways() -> None:
    """Rules: M-30"""
    a, b = Side(b"a"), Side(b"b")
    both, mine, yours = words(100, 1), words(20, 2), words(20, 3)
    a.know(*both, *mine)
    b.know(*both, *yours)
    a.up()
    b.up()
    frames = talk(a, b, 5)
    assert a.words == b.words == {*both, *mine, *yours}
    assert sum(isinstance(frame, Rumour) for frame in frames) <= 80
    assert max(len(frame.ids) for frame in frames if isinstance(frame, Sync)) <= 64


def test_many_differences_are_settled_period_by_period() -> None:
    """Rules: M-30"""
    a, b = Side(b"a", compare_us=1_000_000), Side(b"b", compare_us=1_000_000)
    a.know(*words(600, 5))
    a.up()
    b.up()
    talk(a, b, 30)
    assert b.words == a.words


def test_one_overfull_bucket_does_not_stop_it() -> None:
    """Rules: M-30"""
    a, b = Side(b"a", compare_us=1_000_000), Side(b"b", compare_us=1_000_000)
    chosen = [w for w in words(40_000, 7) if rumour_id(1, w)[0] == 5][:90]
    assert len(chosen) == 90
    a.know(*chosen)
    a.up()
    b.up()
    talk(a, b, 30)
    assert b.words == a.words


def test_once_a_minute_with_one_neighbour() -> None:
    """Rules: M-30"""
    it = Side(b"a")
    for link in (1, 2, 3):
        it.gossip.link_up(link)
        it.comparing.link_up(link)
    out = sent(it.run(3_600))
    assert {type(frame) for _, frame in out} == {Digest}
    assert 50 <= len(out) <= 75
    assert {link for link, _ in out} == {1, 2, 3}
    for link in (1, 2, 3):
        it.comparing.link_down(link)
    assert not sent(it.run(600))
    it.comparing.link_up(4)
    assert sent(it.run(80))


def test_ended_rumours_are_not_compared() -> None:
    """Rules: M-26, M-30"""
    a, b = Side(b"a"), Side(b"b")
    a.know(b"ended")
    a.run(599.95)
    b.ctx.now_us = a.ctx.now_us
    a.up()
    b.up()
    a.step(100_000)
    b.take(Digest(bytes(16)))
    assert a.comparing._sums() == bytes(2_048)
    frames = talk(a, b, 2)
    assert b.words == set()
    assert not any(isinstance(frame, Rumour) for frame in frames)
