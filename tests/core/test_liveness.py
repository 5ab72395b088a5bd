"""Silence is judged link by link, with a second opinion, and never by somebody who slept."""

from __future__ import annotations

from mfd.core.frames import Ping
from mfd.core.liveness import HEARD, NO_LINK, SILENT, Liveness
from mfd.core.memberframes import Probe, ProbeReply
from tests.core.lone import SECOND, Lone, sent

A, B, C = (bytes((letter,)) * 32 for letter in b"abc")


class Watcher(Lone):
    """Links 1, 2, 3 to A, B, C; those in `alive` answer every ping at once."""

    def __init__(self, links: int = 3) -> None:
        super().__init__()
        self.given_up: list[tuple[int, int, str]] = []
        self.liveness = Liveness(self.ctx, self.silent)
        self.alive = set(range(1, links + 1))
        for link in self.alive:
            self.liveness.up(link, (A, B, C)[link - 1], outbound=True)

    def silent(self, link: int, reason: str) -> None:
        self.given_up.append((self.ctx.now_us, link, reason))
        self.liveness.down(link)

    def step(self, us: int = 0):
        out = super().step(us)
        for link, frame in sent(out):
            if link in self.alive and isinstance(frame, Ping):
                self.liveness.heard(link)
        return out


def test_an_idle_neighbour_is_pinged_and_stays() -> None:
    """Rules: M-23"""
    it = Watcher()
    out = sent(it.run(100))
    assert not it.given_up
    assert {type(frame) for _, frame in out} == {Ping}
    assert 140 <= len(out) <= 150


def test_only_neighbours_are_asked_about_a_silent_one() -> None:
    """Rules: M-23"""
    it = Watcher(3)
    it.liveness._active = lambda link: link == 2  # link 3 leads to a far peer
    it.alive = {2, 3}
    asked = [link for link, frame in sent(it.run(6)) if isinstance(frame, Probe)]
    assert asked == [2]


def test_traffic_saves_the_pings() -> None:
    """Rules: M-23"""
    it = Watcher(1)
    for _ in range(30):
        assert not sent(it.run(1))
        it.liveness.heard(1)


def test_who_listens_pings_a_little_later() -> None:
    """Rules: M-23"""
    it = Watcher(0)
    it.liveness.up(1, A, outbound=False)
    assert not sent(it.run(2.4))
    assert sent(it.run(0.2)) == [(1, Ping(1))]
    it.run(4)
    assert [us for us, *_ in it.given_up] == []
    it.run(2)
    assert [us for us, *_ in it.given_up] == [7_500_000]


def test_silence_ends_a_link_within_eight_seconds() -> None:
    """Rules: M-23"""
    it = Watcher()
    it.run(5)
    it.liveness.heard(1)
    it.alive.discard(1)
    out = sent(it.run(20))
    assert [(us, link) for us, link, _ in it.given_up] == [(12_500_000, 1)]
    assert sum(link == 1 and isinstance(frame, Ping) for link, frame in out) == 3
    assert [(link, frame) for link, frame in out if isinstance(frame, Probe)] == [
        (2, Probe(A)),
        (3, Probe(A)),
    ]


def test_a_pause_of_four_seconds_is_forgiven() -> None:
    """Rules: M-23"""
    it = Watcher()
    for pause in range(20):
        it.run(1.7 + pause / 20)
        it.alive.discard(1)
        it.run(4)
        it.alive.add(1)
    assert not it.given_up


def test_the_reason_tells_a_dead_link_from_a_dead_peer() -> None:
    """Rules: M-24"""
    for opinions, words in (
        ([HEARD, SILENT], "the link is broken, not the peer"),
        ([SILENT, NO_LINK], "as 1 common neighbour(s) confirm"),
        ([NO_LINK], "silent for 7.5 s"),
    ):
        it = Watcher()
        it.alive.discard(1)
        it.run(6.5)
        for heard in opinions:
            it.liveness.on_probe_reply(2, ProbeReply(A, heard))
        it.run(3)
        assert it.given_up[0][2].endswith(words)


def test_an_opinion_that_nobody_asked_for_counts_nothing() -> None:
    """Rules: M-24"""
    it = Watcher()
    it.liveness.on_probe_reply(2, ProbeReply(A, HEARD))
    it.alive.discard(1)
    it.run(9)
    assert it.given_up[0][2] == "silent for 7.5 s"


def test_a_probe_is_answered_with_what_is_known() -> None:
    """Rules: M-24"""
    it = Watcher()
    it.liveness.on_probe(2, Probe(bytes(32)))
    it.liveness.on_probe(2, Probe(B))  # itself: no neighbour in common
    it.liveness.heard(1)
    it.liveness.on_probe(2, Probe(A))
    assert sent(it.step()) == [
        (2, ProbeReply(bytes(32), NO_LINK)),
        (2, ProbeReply(B, NO_LINK)),
        (2, ProbeReply(A, HEARD)),
    ]


def test_a_probe_of_somebody_quiet_waits_for_its_answer() -> None:
    """Rules: M-24"""
    for alive, heard in ((True, HEARD), (False, SILENT)):
        it = Watcher()
        it.run(1.5)
        it.liveness.on_probe(2, Probe(A))
        it.alive -= set() if alive else {1}
        out = sent(it.run(1.1))
        assert [frame for link, frame in out if link == 2 and not isinstance(frame, Ping)] == [
            ProbeReply(A, heard)
        ]


def test_who_slept_blames_nobody_and_is_patient_for_a_while() -> None:
    """Rules: M-25"""
    it = Watcher()
    it.run(5)
    it.step(30 * SECOND)  # suspended: nothing was heard, no timer ran
    assert not it.given_up
    assert it.liveness.patience == 2
    it.run(3)
    assert not it.given_up
    it.alive.clear()
    start = it.ctx.now_us
    it.run(9)
    assert not it.given_up
    it.run(8)
    assert [14 * SECOND <= us - start <= 17 * SECOND for us, *_ in it.given_up] == [True] * 3


def test_patience_is_bounded_and_goes_again() -> None:
    """Rules: M-25"""
    it = Watcher()
    for _ in range(20):
        it.step(3 * SECOND)
    assert it.liveness.patience == 8
    it.run(200)
    assert it.liveness.patience == 1
    assert not it.given_up


def test_many_at_once_are_rather_our_own_fault() -> None:
    """Rules: M-25"""
    it = Watcher()
    it.run(4)
    it.alive.clear()
    it.run(7)
    assert it.liveness.patience == 2
    it.run(9)
    assert {us for us, *_ in it.given_up} == {19 * SECOND}


def test_a_link_that_ended_is_watched_no_more() -> None:
    it = Watcher()
    it.liveness.on_probe(2, Probe(A))
    it.liveness.down(1)
    it.liveness.down(1)
    it.alive.discard(1)
    assert all(link != 1 for link, _ in sent(it.run(30)))
    assert not it.given_up
