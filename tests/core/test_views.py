"""Active and passive view: who is in, who has to go, who is asked next."""

from __future__ import annotations

from collections import Counter

from mfd.core.config import Config
from mfd.core.context import Dice
from mfd.core.views import Views, pick, shuffle

ME = bytes(32)


def peer(number: int) -> bytes:
    return number.to_bytes(32, "big")


def views(**config: int) -> Views:
    return Views(ME, Config(open_network=True, **config), Dice(b"views"))


def private(number: int) -> tuple[str, ...]:
    return (f"10.0.{number // 250}.{number % 250 + 1}:7000",)


def victims(known: Views, *, idle: bool) -> Counter[int]:
    """Links chosen in 300 tries."""
    return Counter(getattr(known.victim(lambda link: not idle), "link", -1) for _ in range(300))


def test_a_peer_is_in_one_view_and_never_we_ourselves() -> None:
    """Rules: M-13"""
    known = views()
    known.hear(ME, private(1), 0)
    known.hear(peer(1), (), 0)
    assert not known.passive
    known.hear(peer(1), private(1), 0)
    known.activate(peer(1), 7, outbound=True)
    known.hear(peer(1), private(1), 5)
    assert not known.passive
    assert not known.deactivate(peer(1), 8)
    assert known.deactivate(peer(1), 7)
    assert not known.active


def test_the_oldest_record_leaves_a_full_passive_view() -> None:
    """Rules: M-15"""
    known = views(passive_max=4)
    for number in (5, 2, 9, 4):
        known.hear(peer(number), private(number), number)
    known.hear(peer(1), private(1), 1)
    assert peer(1) not in known.passive
    known.hear(peer(7), private(7), 7)
    assert set(known.passive) == {peer(n) for n in (5, 9, 4, 7)}


def test_who_did_not_answer_leaves_first() -> None:
    """Rules: M-15"""
    known = views(passive_max=3)
    for number in (1, 2, 3):
        known.hear(peer(number), private(number), number)
    known.passive[peer(3)].tries = 1
    known.hear(peer(4), private(4), 0)
    assert set(known.passive) == {peer(1), peer(2), peer(4)}


def test_a_newer_record_is_a_new_hope() -> None:
    known = views()
    known.hear(peer(1), private(1), 10)
    known.passive[peer(1)].tries = 3
    known.hear(peer(1), private(1), 10)
    assert known.passive[peer(1)].tries == 3
    known.hear(peer(1), private(2), 11)
    assert known.passive[peer(1)].tries == 0
    assert known.passive[peer(1)].addresses == private(2)


def test_few_of_one_public_subnet() -> None:
    """Rules: M-15"""
    known = views()
    for number in range(10):
        known.hear(peer(number + 1), (f"8.8.8.{number + 1}:7000",), 0)
        known.hear(peer(number + 50), (f"10.0.0.{number + 1}:7000",), 0)
    assert sum(p.addresses[0].startswith("8.8") for p in known.passive.values()) == 2
    assert len(known.passive) == 12


def test_peers_chosen_by_us_stay_while_they_are_few() -> None:
    """Rules: M-14"""
    known = views()
    for number in range(8):
        known.activate(peer(number + 1), number, outbound=number < 2)
    gone = victims(known, idle=True)
    assert set(gone) == set(range(2, 8))
    assert max(gone.values()) < 100
    known.activate(peer(50), 50, outbound=True)
    assert set(victims(known, idle=True)) >= {0, 1, 50}


def test_a_link_that_carries_circuits_stays() -> None:
    """Rules: M-14"""
    known = views()
    for number in range(8):
        known.activate(peer(number + 1), number, outbound=False)
    assert {known.victim(lambda link: link != 3) for _ in range(50)} == {known.active[peer(4)]}
    assert len(victims(known, idle=False)) == 8


def test_how_many_are_missing() -> None:
    """Rules: M-17"""
    known = views()
    assert known.missing() == 6
    for number in range(6):
        known.activate(peer(number + 1), number, outbound=number < 1)
    assert known.missing() == 1
    known.activate(peer(9), 9, outbound=True)
    assert known.missing() == 0


def test_candidates_come_hopeful_ones_first_and_when_their_time_has_come() -> None:
    """Rules: M-17, M-18"""
    known = views()
    for number in range(1, 9):
        known.hear(peer(number), private(number), 0)
        known.passive[peer(number)].tries = number % 2
    known.passive[peer(2)].retry_us = 100
    order = [hope.tries for hope in known.candidates(50)]
    assert order == [0] * 3 + [1] * 4
    assert len(known.candidates(100)) == 8
    firsts = {known.candidates(100)[0].peer for _ in range(60)}
    assert firsts == {peer(2), peer(4), peer(6), peer(8)}


def test_a_sample_holds_each_once() -> None:
    known = views()
    for number in range(1, 20):
        known.hear(peer(number), private(number), 0)
    for number in range(1, 6):
        known.activate(peer(number), number, outbound=True)
    sample = known.sample(3, 4, without=peer(1))
    assert len(sample) == len(set(sample)) == 7
    assert peer(1) not in sample


def test_chance_is_fair_and_repeats() -> None:
    dice = Dice(b"a")
    counts = Counter(tuple(shuffle(dice, "abc")) for _ in range(600))
    assert len(counts) == 6
    assert min(counts.values()) > 60
    assert pick(dice, []) is None
    assert [pick(Dice(b"x"), range(99)) for _ in "ab"] == [pick(Dice(b"x"), range(99))] * 2
