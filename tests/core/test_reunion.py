"""Contacts, lost neighbours, remembered peers: who is dialled, when, and until when."""

from __future__ import annotations

from mfd.core.config import Config
from mfd.core.dials import Dials, Purpose
from mfd.core.effects import Dial, Remember
from mfd.core.reunion import Reunion
from tests.core.lone import SECOND, Lone

A, B = b"a" * 32, b"b" * 32


class Reunited(Lone):
    def __init__(self, **config: int) -> None:
        super().__init__(Config(open_network=True, **config))
        self.linked: set[bytes] = set()
        self.dials = Dials(self.ctx)
        self.reunion = Reunion(self.ctx, self.dials, lambda peer: peer in self.linked)

    def round(self, *, alone: bool, seconds: float = 0) -> list[tuple[str, Purpose]]:
        """Let time pass, have one round, and let every dial of it fail."""
        self.run(seconds)
        self.reunion.round(alone=alone)
        found = []
        for effect in self.step():
            if isinstance(effect, Dial):
                dialled = self.dials.done(effect.address)
                assert dialled is not None
                found.append((effect.address, dialled.purpose))
                self.reunion.failed(effect.address, dialled.peer, "no")
        return found


def line(peer: bytes, address: str) -> str:
    return f"mfd://{address}/{peer.hex()}?network=mfd"


def test_a_contact_is_tried_for_ever_and_less_often() -> None:
    """Rules: M-18, M-20"""
    it = Reunited()
    it.reunion.contact("c:1")
    tries = sum(len(it.round(alone=True, seconds=1)) for _ in range(3_600))
    assert 14 <= tries <= 22
    assert it.reunion.unreachable() == {"c:1": "no"}


def test_a_contact_that_answered_rests_unless_we_are_alone() -> None:
    """Rules: M-20"""
    it = Reunited()
    it.reunion.contact("c:1")
    assert it.round(alone=True) == [("c:1", Purpose.JOIN)]
    it.reunion.found(A, "c:1")
    assert not it.reunion.unreachable()
    it.linked = {A}
    assert not it.round(alone=False, seconds=500)
    it.linked = set()
    it.reunion.found(A, "c:1")
    assert not it.round(alone=False, seconds=299)
    assert it.round(alone=False, seconds=80) == [("c:1", Purpose.ASK)]
    it.reunion.found(A, "c:1")
    assert it.round(alone=True, seconds=2) == [("c:1", Purpose.JOIN)]


def test_a_lost_neighbour_is_dialled_for_a_day() -> None:
    """Rules: M-18, M-19"""
    it = Reunited()
    it.reunion.lose(A, ("a:1", "a:2"))
    assert not it.round(alone=False)
    assert it.round(alone=False, seconds=1.3) == [(line(A, "a:1"), Purpose.RETURN)]
    assert it.round(alone=False, seconds=3) == [(line(A, "a:2"), Purpose.RETURN)]
    tries = sum(len(it.round(alone=False, seconds=60)) for _ in range(24 * 60 - 5))
    assert 200 <= tries <= 290
    assert it.reunion.lost
    assert not it.round(alone=False, seconds=600)
    assert not it.reunion.lost


def test_who_is_found_is_lost_no_more() -> None:
    """Rules: M-19"""
    it = Reunited()
    it.reunion.lose(A, ("a:1",))
    it.reunion.lose(B, ())
    assert set(it.reunion.lost) == {A}
    it.reunion.regained(A)
    assert not it.round(alone=False, seconds=60)


def test_few_lost_ones_at_once_and_a_bounded_number_in_all() -> None:
    """Rules: M-19"""
    it = Reunited(remembered_max=10)
    for number in range(40):
        it.reunion.lose(bytes((number,)) * 32, ("a:1",))
    assert len(it.reunion.lost) == 10
    assert len(it.round(alone=False, seconds=5)) == 2


def test_remembered_peers_are_for_the_lonely_best_first() -> None:
    """Rules: M-20, M-21"""
    it = Reunited()
    it.reunion.recall([(A, ("a:1",)), (B, ("b:1",)), (it.key.public_key, ("me:1",))])
    assert not it.round(alone=False, seconds=10)
    assert it.round(alone=True) == [
        (line(B, "b:1"), Purpose.JOIN),
        (line(A, "a:1"), Purpose.JOIN),
    ]
    assert not it.round(alone=True)


def test_good_peers_are_saved_together_and_only_when_they_change() -> None:
    """Rules: M-21"""
    it = Reunited(remembered_max=3)
    for number in range(5):
        it.reunion.good(bytes((number,)) * 32, ("a:1",))
    assert not it.run(9)
    saved = it.run(2)
    assert [type(effect) for effect in saved] == [Remember]
    assert isinstance(saved[0], Remember)
    assert [peer[0] for peer, _ in saved[0].peers] == [2, 3, 4]
    it.reunion.good(b"\4" * 32, ("a:1",))
    assert not it.run(60)
    it.reunion.good(b"\3" * 32, ("a:1",))
    it.reunion.save()
    assert len(it.step()) == 1
    assert it.ctx.now_us > SECOND
