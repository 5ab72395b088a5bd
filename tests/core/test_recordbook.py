"""The newest valid record of each peer, and how old it is."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.recordbook import RecordBook
from mfd.core.records import Item, seal_peer_record
from mfd.packet.errors import PacketError
from mfd.sim.keys import SimKey, sim_verify

SECOND = 1_000_000
HOUR = 3_600 * SECOND


def item(name: str, seq: int = 1, age_s: int = 0, minutes: int = 60) -> Item:
    record = seal_peer_record(
        "mfd",
        SimKey(name.encode()),
        seq=seq,
        addresses=["10.0.0.1:1"],
        caps=0,
        valid_us=minutes * 60 * SECOND,
    )
    return record.sealed, age_s


def peer(name: str) -> bytes:
    return SimKey(name.encode()).public_key


def book(**config: int) -> RecordBook:
    return RecordBook(Config(**config), sim_verify)


def test_an_older_seq_never_overwrites_a_newer_one() -> None:
    """Rules: M-03"""
    known = book()
    assert known.learn(item("a", seq=5), 0)
    for seq in (4, 5):
        assert known.learn(item("a", seq=seq, minutes=30), 1) is None
    assert known.late == 2
    entry = known.get(peer("a"), 2)
    assert entry is not None
    assert entry.record.seq == 5
    assert known.learn(item("a", seq=6), 3)
    assert known.view()[peer("a")].record.seq == 6


def test_hearing_again_does_not_renew() -> None:
    """Rules: M-04"""
    known = book()
    known.learn(item("a"), 0)
    assert known.learn(item("a"), HOUR - 1)
    assert known.get(peer("a"), HOUR - 1)
    assert known.get(peer("a"), HOUR) is None
    assert known.item(peer("a"), HOUR) is None
    assert known.learn(item("a"), HOUR) is None
    assert not list(known.valid(HOUR))


def test_an_ended_record_does_not_come_back() -> None:
    """Rules: M-04"""
    known = book()
    known.learn(item("a"), 0)
    known.expire(HOUR + 1)
    assert known.learn(item("a", age_s=0), 2 * HOUR - 1) is None
    known.expire(2 * HOUR + 1)
    assert not known.view()


def test_ages_add_up_over_many_peers() -> None:
    """Rules: M-04

    Each of 40 peers hands it on two minutes later: none holds it beyond its hour.
    """
    held = item("a")
    for hop in range(40):
        now = 100 * HOUR * (hop + 1)  # every peer has a clock of its own
        known = book()
        if known.learn(held, now) is None:
            break
        passed = known.item(peer("a"), now + 120 * SECOND - 1)
        assert passed is not None
        assert passed[1] == 120 * (hop + 1)
        held = passed
    assert hop == 30


def test_validity_is_capped_and_an_age_may_exceed_it() -> None:
    """Rules: M-04"""
    known = book()
    known.learn(item("a", minutes=600), 0)
    assert known.get(peer("a"), HOUR) is None
    assert known.learn(item("b", minutes=1, age_s=60), 0) is None
    assert known.learn(item("b", minutes=1, age_s=59), 0)


def test_the_book_is_bounded_and_keeps_what_is_needed() -> None:
    """Rules: M-05"""
    known = book(peer_records_max=10)
    known.needed = lambda who: who == peer("p0")
    for number in range(25):
        known.learn(item(f"p{number}"), number * SECOND)
    assert len(known.view()) == 10
    assert peer("p0") in known.view()
    assert peer("p24") in known.view()
    assert peer("p1") not in known.view()


def test_what_is_no_record_is_an_error_and_changes_nothing() -> None:
    """Rules: M-01"""
    known = book()
    with pytest.raises(PacketError):
        known.learn((item("a")[0][:-1] + b"\0", 0), 0)
    assert not known.view()
