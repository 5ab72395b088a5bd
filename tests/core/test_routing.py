"""Routing rules one by one: what a peer says, believes and asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfd.core.config import Config
from mfd.core.frames import Class, SeqnoRequest, Update
from mfd.core.origin import SEQNO_JUMP
from mfd.core.routestate import METRIC_MAX
from mfd.core.routetable import ENTRIES_MAX
from mfd.core.routing import Hop, Routes
from mfd.core.sources import Record, open_record, seal_record
from tests.core.routing_world import SECOND, KeyedHash, verify

CONFIG = Config()
NAME = "digits/train"
HOUR = CONFIG.record_valid_us
ME, A, B, C = (KeyedHash(n) for n in (100, 1, 2, 3))


def make(config: Config = CONFIG, boot: int = 1) -> Routes:
    return Routes(ME.public_key, config, signer=ME, verify=verify, boot=boot)


def record(key: KeyedHash, seqno: int, name: str = NAME) -> Record:
    return seal_record("mfd", Record(name, b"", seqno, 5, HOUR, b""), key)


def advert(key: KeyedHash, seqno: int, metric: int | None, **other: Any) -> list[Any]:
    bulk = other.get("bulk", metric)
    return [record(key, seqno, other.get("name", NAME)).sealed, metric, bulk, other.get("hops", 0)]


def bodies(frames: list[tuple[int, Any]], kind: type, link: int | None = None) -> list[Any]:
    return [f.body for to, f in frames if isinstance(f, kind) and link in (None, to)]


def said(frames: list[tuple[int, Any]], link: int) -> list[Any]:
    """Entries for a link, with adverts as (holder, seqno, thin, bulk, hops)."""
    out: list[Any] = []
    for body in bodies(frames, Update, link):
        for entry in body:
            if len(entry) == 3:
                out.append(tuple(entry))
            else:
                seen = open_record(entry[0], "mfd", verify)
                out.append((seen.holder, seen.seqno, *entry[1:]))
    return out


def flush(peer: Routes, now_us: int) -> list[tuple[int, Any]]:
    return peer.outgoing(now_us + CONFIG.update_batch_us)


# what a peer says


def test_a_new_link_is_told_everything_at_once_and_then_differences_only() -> None:
    """Rules: R-04, R-14"""
    peer = make(boot=3)
    peer.hold(NAME, 12, 0)
    peer.link_up(1, 40, 5)
    assert said(peer.outgoing(5), 1) == [(ME.public_key, 3 << 16, 0, 0, 0)]
    assert flush(peer, 5) == []
    peer.link_up(2, 40, 6)
    frames = peer.outgoing(6)
    assert said(frames, 1) == []
    assert said(frames, 2) == [(ME.public_key, 3 << 16, 0, 0, 0)]


def test_costs_add_up_in_each_class_and_hops_are_counted() -> None:
    """Rules: R-06, R-14"""
    peer = make()
    peer.link_up(1, 40, 0, bulk_cost=700)
    peer.link_up(2, 1, 0)
    peer.update(1, [advert(A, 5, 10, bulk=20, hops=3)], 0)
    assert peer.next_hop(NAME, A.public_key, Class.THIN) == Hop(1, 5, 50, 4)
    assert peer.next_hop(NAME, A.public_key, Class.BULK) == Hop(1, 5, 720, 4)
    assert said(flush(peer, 0), 2) == [(A.public_key, 5, 50, 720, 4)]


def test_out_of_reach_is_not_a_route() -> None:
    """Rules: R-06"""
    peer = make()
    peer.link_up(1, 2, 0)
    peer.update(1, [advert(A, 5, METRIC_MAX - 1, bulk=METRIC_MAX - 2, hops=255)], 0)
    assert peer.next_hop(NAME, A.public_key, Class.THIN) is None
    assert peer.next_hop(NAME, A.public_key, Class.BULK) == Hop(1, 5, METRIC_MAX, 255)


def test_changes_wait_for_company_and_retractions_do_not() -> None:
    """Rules: R-15"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(A, 5, 10)], 0)
    assert peer.outgoing(0) == []
    assert peer.deadline_us() == CONFIG.update_batch_us
    peer.update(1, [advert(B, 5, 20)], 10)
    assert len(said(flush(peer, 0), 2)) == 1
    assert len(said(flush(peer, 10), 2)) == 1
    peer.update(1, [[NAME, A.public_key, 3]], 99)
    assert said(peer.outgoing(99), 2) == [(NAME, A.public_key, 3)]


def test_one_class_is_retracted_alone() -> None:
    """Rules: R-13, R-15"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(A, 5, 10)], 0)
    flush(peer, 0)
    peer.update(1, [[NAME, A.public_key, 2]], 0)
    assert said(peer.outgoing(CONFIG.update_batch_us), 2) == [(NAME, A.public_key, 2)]
    assert peer.next_hop(NAME, A.public_key, Class.THIN) is not None
    assert peer.next_hop(NAME, A.public_key, Class.BULK) is None


def test_classes_with_different_records_travel_in_two_entries() -> None:
    """Rules: R-13"""
    peer = make()
    for link in (1, 2, 3):
        peer.link_up(link, 10, 0)
    peer.update(1, [advert(A, 5, 10, bulk=90)], 0)
    peer.update(2, [advert(A, 6, 80, bulk=20)], 0)
    assert said(flush(peer, 0), 3) == [
        (A.public_key, 5, 20, None, 1),
        (A.public_key, 6, None, 30, 1),
    ]


def test_only_the_nearest_are_advertised_and_the_rest_retracted_first() -> None:
    """Rules: R-11, R-15"""
    peer = make(replace(CONFIG, sources_per_name=2))
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(B, 5, 30), advert(C, 5, 40)], 0)
    assert sorted(entry[2] for entry in said(flush(peer, 0), 2)) == [40, 50]
    now = 10 * CONFIG.update_batch_us
    peer.update(1, [advert(A, 5, 20)], now)
    assert said(peer.outgoing(now), 2) == [(NAME, C.public_key, 3)]
    assert said(flush(peer, now), 2) == [(A.public_key, 5, 30, 30, 1)]
    assert [s.metric for s in peer.holders(NAME)] == [30, 40, 50]


def test_bodies_stay_within_their_limits() -> None:
    """Rules: R-13"""
    peer = make()
    for n in range(700):
        peer.hold(f"short/{n}", 1, 0)
    for n in range(120):
        peer.hold(f"{n:0512}", 1, 0)
    peer.link_up(1, 1, 0)
    sizes = [(len(b), sum(len(e[0]) for e in b)) for b in bodies(peer.outgoing(0), Update)]
    assert sum(entries for entries, _ in sizes) == 820
    assert all(entries <= 512 and size <= 48 << 10 for entries, size in sizes)
    for n in range(700):
        peer.unhold(f"short/{n}", 1)
    counts = [len(b) for b in bodies(peer.outgoing(1), Update)]
    assert counts == [512, 188]


# what a peer believes


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        [],
        {},
        ["x"],
        [b"", 1, 1, 1, 1],
        [b"", 1, 1, -1],
        [b"", 1, 1, 256],
        [b"", 1, 1, True],
        [b"", 1, -1, 1],
        [b"", METRIC_MAX + 1, 1, 1],
        [b"", 1.0, 1, 1],
        [b"", True, 1, 1],
        [b"", 1, 1, 1],
        [bytes(200), 1, 1, 1],
        [NAME, A.public_key, 0],
        [NAME, A.public_key, 4],
        [NAME, "holder", 3],
        [A.public_key, NAME, 3],
    ],
    ids=str,
)
def test_a_bad_entry_is_counted_and_harms_no_other(entry: Any) -> None:
    """Rules: R-13"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.update(1, [entry, advert(A, 5, 10)], 0)
    assert peer.refused["malformed"] + peer.refused["unsigned"] == 1
    assert [s.holder for s in peer.holders(NAME)] == [A.public_key]


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.sampled_from([NAME, A.public_key, ME.public_key, record(A, 5).sealed])
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), ANYTHING), max_size=6))
def test_no_body_whatever_makes_it_raise(bodies: list[tuple[bool, Any]]) -> None:
    """Rules: R-13, R-19"""
    peer = make()
    peer.hold(NAME, 5, 0)
    peer.link_up(1, 10, 0)
    for now, (is_update, body) in enumerate(bodies):
        (peer.update if is_update else peer.request)(1, body, now)
        peer.outgoing(now)
    peer.link_down(1, 100)
    assert [s.holder for s in peer.holders(NAME)] == [ME.public_key]


def test_a_bad_body_is_dropped_whole() -> None:
    """Rules: R-13"""
    peer = make()
    peer.link_up(1, 10, 0)
    for body in (None, 5, b"x", {}, [advert(A, 5, 10)] * (ENTRIES_MAX + 1)):
        peer.update(1, body, 0)
    assert peer.refused["malformed"] == 5
    assert peer.holders(NAME) == []
    peer.update(9, [advert(A, 5, 10)], 0)  # a link that is gone
    assert peer.holders(NAME) == []


def test_a_forged_record_is_refused() -> None:
    """Rules: R-03, R-13"""
    peer = make()
    peer.link_up(1, 10, 0)
    forged = bytearray(record(A, 5).sealed)
    forged[-4] ^= 1
    foreign = seal_record("elsewhere", Record(NAME, b"", 5, 5, HOUR, b""), A)
    peer.update(1, [[bytes(forged), 1, 1, 1], [foreign.sealed, 1, 1, 1]], 0)
    assert peer.refused["unsigned"] == 2
    assert peer.holders(NAME) == []


def test_news_of_what_this_peer_holds_is_ignored() -> None:
    """Rules: R-12"""
    peer = make()
    peer.hold(NAME, 9, 0)
    peer.link_up(1, 10, 0)
    peer.update(1, [advert(ME, 99 << 16, 0), [NAME, ME.public_key, 3]], 0)
    assert peer.next_hop(NAME, ME.public_key, Class.THIN) == Hop(None, 1 << 16, 0, 0)
    peer.unhold(NAME, 1)
    peer.update(1, [advert(ME, 99 << 16, 0)], 1)
    assert peer.holders(NAME) == []


def test_the_nearest_route_wins_and_of_equals_the_one_in_use() -> None:
    """Rules: R-08"""
    peer = make()
    for link in (1, 2, 3):
        peer.link_up(link, 10, 0)
    peer.update(2, [advert(A, 5, 30)], 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    assert peer.next_hop(NAME, A.public_key, Class.THIN) == Hop(2, 5, 40, 1)
    peer.update(3, [advert(A, 5, 20)], 0)
    assert peer.next_hop(NAME, A.public_key, Class.THIN) == Hop(3, 5, 30, 1)
    peer.link_down(3, 0)
    assert peer.next_hop(NAME, A.public_key, Class.THIN) == Hop(1, 5, 40, 1)


def test_a_route_is_feasible_only_if_strictly_nearer_than_what_was_advertised() -> None:
    """Rules: R-07, R-09"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    flush(peer, 0)  # advertised (5, 40)
    peer.link_down(1, 0)
    for metric, usable in ((41, False), (40, False), (39, True)):
        peer.update(2, [advert(A, 5, metric)], 0)
        assert (peer.next_hop(NAME, A.public_key, Class.THIN) is not None) is usable
    peer.update(2, [advert(A, 4, 1)], 0)
    assert peer.next_hop(NAME, A.public_key, Class.THIN) is None
    peer.update(2, [advert(A, 6, 5000)], 0)
    assert peer.next_hop(NAME, A.public_key, Class.THIN) == Hop(2, 6, 5010, 1)


def test_a_feasibility_distance_outlives_its_routes_until_twice_the_validity() -> None:
    """Rules: R-05, R-10"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    flush(peer, 0)
    peer.update(1, [[NAME, A.public_key, 3]], 0)
    peer.update(2, [advert(A, 5, 40)], HOUR - 1)
    assert peer.holders(NAME) == []
    peer.update(2, [[NAME, A.public_key, 3], advert(A, 5, 1)], 2 * HOUR - 1)
    assert peer.refused["late"] == 1
    run_idle(peer, 2 * HOUR + HOUR // 32)
    peer.update(2, [advert(A, 5, 40)], 2 * HOUR + HOUR // 32)
    assert [s.metric for s in peer.holders(NAME)] == [50]


def run_idle(peer: Routes, until_us: int) -> list[tuple[int, Any]]:
    """Call a peer at its deadlines; it must not ask to be woken more than 2,000 times."""
    frames: list[tuple[int, Any]] = []
    for _ in range(2_000):
        due = peer.deadline_us()
        if due is None or due > until_us:
            return frames
        frames += [(to, (due, frame)) for to, frame in peer.outgoing(due)]
    raise AssertionError("a peer without news is woken again and again")


def test_routes_end_with_their_record_and_hearing_it_again_renews_nothing() -> None:
    """Rules: R-05"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    run_idle(peer, HOUR - 1)
    peer.update(1, [advert(A, 5, 20)], HOUR - 1)
    assert len(peer.holders(NAME)) == 1
    run_idle(peer, HOUR + HOUR // 32)
    assert peer.holders(NAME) == []
    peer.update(1, [advert(A, 6, 20)], HOUR + HOUR // 32)
    assert len(peer.holders(NAME)) == 1


def test_a_holder_renews_its_record_at_half_time() -> None:
    """Rules: R-04, R-05"""
    peer = make()
    peer.hold(NAME, 9, 0)
    peer.link_up(1, 10, 0)
    peer.outgoing(0)
    frames = run_idle(peer, HOUR)
    news = [(due, f.body[0]) for _, (due, f) in frames]
    assert [open_record(e[0], "mfd", verify).seqno for _, e in news] == [(1 << 16) + 1]
    assert HOUR // 2 <= news[0][0] <= HOUR // 2 + HOUR // 32 + CONFIG.update_batch_us


def test_a_seqno_never_goes_back_when_a_name_is_withdrawn_and_offered_again() -> None:
    """Rules: R-04"""
    peer = make()
    peer.hold(NAME, 9, 0)
    peer.hold(NAME, 10, 0)
    peer.unhold(NAME, 0)
    peer.unhold(NAME, 0)
    assert peer.holders(NAME) == []
    peer.hold(NAME, 11, 0)
    assert peer.next_hop(NAME, ME.public_key, Class.THIN) == Hop(None, (1 << 16) + 2, 0, 0)
    assert [s.samples for s in peer.holders(NAME)] == [11]
    for name in ("", "a\n", "@me", "@" + A.public_key.hex()):
        with pytest.raises(ValueError, match="not a data name"):
            peer.hold(name, 1, 0)


def test_full_tables_refuse_and_never_evict() -> None:
    """Rules: R-16"""
    keys = [KeyedHash(n) for n in range(6)]
    for limits, room in (
        ({"sources_per_name": 1}, 2),  # two classes, one source each
        ({"adverts_per_link_max": 4}, 4),
        ({"sources_max": 3}, 3),
    ):
        peer = make(replace(CONFIG, **limits))
        peer.link_up(1, 10, 0)
        for n, key in enumerate(keys):
            peer.update(1, [advert(key, 5, 100 - n)], 0)
        assert [s.holder for s in peer.holders(NAME)][::-1] == [k.public_key for k in keys[:room]]
        assert peer.refused["full"] == 6 - room
        peer.update(1, [advert(keys[0], 6, 1)], 0)  # known ones still change
        assert peer.holders(NAME)[0].holder == keys[0].public_key
        peer.update(1, [[NAME, keys[0].public_key, 3]], 0)
        peer.update(1, [advert(keys[5], 5, 7)], 0)
        assert peer.holders(NAME)[0].holder == keys[5].public_key
    peer = make(replace(CONFIG, names_max=2))
    peer.link_up(1, 10, 0)
    peer.update(1, [advert(A, 5, 1, name=name) for name in "abc"], 0)
    assert [len(peer.holders(name)) for name in "abc"] == [1, 1, 0]
    for name in "ab":
        peer.hold(name, 1, 0)
    with pytest.raises(ValueError, match="names_max"):
        peer.hold("c", 1, 0)


def test_a_liar_that_advertises_and_retracts_leaves_nothing_behind() -> None:
    """Rules: R-10, R-16"""
    peer = make(replace(CONFIG, sources_per_name=2))
    peer.link_up(1, 10, 0)
    peer.update(1, [advert(A, 5, 1), advert(B, 5, 1)], 0)
    flush(peer, 0)
    for n in range(10, 60):
        liar = KeyedHash(n)
        peer.update(1, [advert(liar, 5, 50), [NAME, liar.public_key, 3]], 0)
    assert peer.refused["full"] == 0
    assert peer._table.count == 2


def test_the_same_calls_give_the_same_frames_whatever_the_order_of_entries() -> None:
    """Rules: R-23"""

    def run(turn: int) -> list[Any]:
        peer = make(replace(CONFIG, sources_per_name=2))
        peer.link_up(1, 10, 0)
        peer.link_up(2, 10, 0)
        entries = [advert(KeyedHash(n), 5, 7) for n in range(4)]
        peer.update(1, entries[turn:] + entries[:turn], 0)
        return said(flush(peer, 0), 2)

    assert run(0) == run(1) == run(2) == run(3)


def test_a_link_takes_what_was_said_over_it_along() -> None:
    """Rules: R-14"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    flush(peer, 0)
    peer.link_down(1, 7)
    assert said(peer.outgoing(7), 2) == [(NAME, A.public_key, 3)]
    peer.link_up(3, 10, 8)
    assert peer.outgoing(8) == []
    peer.link_down(77, 9)  # never was up


def test_a_circuit_goes_on_only_where_it_comes_strictly_nearer() -> None:
    """Rules: R-22"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    for promise, nearer in (
        ((5, 41), True),
        ((5, 40), False),
        ((5, 39), False),
        ((4, 1), True),
        ((6, 999), False),
    ):
        assert peer.nearer(NAME, A.public_key, promise, Class.THIN) is nearer
    assert not peer.nearer(NAME, B.public_key, (0, METRIC_MAX), Class.THIN)
    peer.hold(NAME, 1, 0)
    assert peer.nearer(NAME, ME.public_key, (9 << 16, 0), Class.BULK)


def test_a_snapshot_names_the_neighbour() -> None:
    peer = make()
    peer.hold(NAME, 12, 0)
    peer.link_up(1, 10, 0, peer=B.public_key)
    peer.update(1, [advert(A, 5, 30, hops=2)], 0)
    mine, other = peer.snapshot()
    assert (mine.via, mine.metric, mine.samples) == ("", 0, 12)
    assert (other.via, other.holder) == (B.public_key.hex(), A.public_key.hex())
    assert (other.metric, other.hops, other.seqno, other.samples) == (40, 3, 5, 5)


# asking for sequence numbers


def starve(peer: Routes, others: list[list[Any]]) -> list[Any]:
    """Lose the only feasible route, (5, 30) over link 1, while others are advertised on link 2."""
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    flush(peer, 0)
    peer.update(2, others, 100_000)
    peer.link_down(1, 100_000)
    return bodies(peer.outgoing(100_000), SeqnoRequest, 2)


def test_a_starving_peer_asks_at_once_and_again_ever_more_slowly() -> None:
    """Rules: R-17"""
    peer = make()
    wanted = [NAME, A.public_key, 6, 0, 64]
    assert starve(peer, [advert(A, 5, 60)]) == [wanted]
    frames = [(due, f.body) for _, (due, f) in run_idle(peer, 200 * SECOND)]
    assert [(due - 100_000) / SECOND for due, _ in frames] == [1, 3, 7, 37, 97]
    assert [body[3] for _, body in frames] == [1, 0, 1, 0, 1]  # the classes take turns


def test_a_peer_that_cannot_starve_does_not_ask() -> None:
    """Rules: R-17"""
    assert starve(make(), []) == []
    assert starve(make(), [advert(A, 5, 39)]) == []


def test_the_next_holder_is_asked_when_the_first_goes_out_of_reach() -> None:
    """Rules: R-17"""
    peer = make()
    peer.link_up(1, 10, 0)
    peer.link_up(2, 10, 0)
    peer.update(1, [advert(A, 5, 30), advert(B, 5, 30)], 0)
    flush(peer, 0)
    peer.update(2, [advert(A, 5, 60), advert(B, 5, 70)], 1)
    peer.link_down(1, 2)
    assert bodies(peer.outgoing(2), SeqnoRequest) == [[NAME, A.public_key, 6, 0, 64]]
    peer.update(2, [[NAME, A.public_key, 3]], 3)
    assert [body[1] for body in bodies(peer.outgoing(3), SeqnoRequest)] == [B.public_key]
    peer.update(2, [advert(B, 6, 70)], 4)
    flush(peer, 4)
    assert bodies(run_idle(peer, 60 * SECOND), SeqnoRequest) == []


def test_a_holder_that_is_lost_is_asked_soon_where_nobody_was_pruned() -> None:
    """Rules: R-17"""
    peer = make()
    both = [advert(A, 5, 60), advert(B, 5, 990)]
    assert starve(peer, both) == []
    after = [(due, f.body) for _, (due, f) in run_idle(peer, 1.5 * SECOND) if to_asks(f)]
    assert after == [(100_000 + CONFIG.seqno_retry_us, [NAME, A.public_key, 6, 0, 64])]
    peer.update(2, [advert(A, 6, 60)], 2 * SECOND)
    flush(peer, 2 * SECOND)
    assert bodies(run_idle(peer, 300 * SECOND), SeqnoRequest) == []


def test_a_holder_that_is_back_within_a_moment_is_not_asked() -> None:
    """Rules: R-17"""
    peer = make()
    starve(peer, [advert(A, 5, 60), advert(B, 5, 990)])
    peer.link_up(3, 10, 200_000)
    peer.update(3, [advert(A, 5, 10)], 200_000)
    assert bodies(run_idle(peer, 300 * SECOND), SeqnoRequest) == []


def test_another_neighbour_is_asked_when_the_one_asked_goes_away() -> None:
    """Rules: R-17"""
    peer = make()
    for link in (1, 2, 3):
        peer.link_up(link, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    flush(peer, 0)
    for link, metric in ((2, 60), (3, 70)):
        peer.update(link, [advert(A, 5, metric)], 1)
    peer.link_down(1, 600_000)
    assert len(bodies(peer.outgoing(600_000), SeqnoRequest, 2)) == 1
    peer.link_down(2, 1_200_000)
    assert len(bodies(peer.outgoing(1_200_000), SeqnoRequest, 3)) == 1


def test_a_detour_is_repaired_at_the_lazy_pace() -> None:
    """Rules: R-18"""
    peer = make(replace(CONFIG, sources_per_name=1))
    near = [advert(A, 5, 60), advert(B, 5, 990)]
    assert starve(peer, near) == []
    frames = [(due, f.body) for _, (due, f) in run_idle(peer, 100 * SECOND) if to_asks(f)]
    lazy = CONFIG.seqno_lazy_us
    # a list of one: the nearer of its two classes is asked for
    assert frames == [(100_000 + n * lazy, [NAME, A.public_key, 6, 0, 64]) for n in (1, 3)]


def to_asks(frame: Any) -> bool:
    return isinstance(frame, SeqnoRequest)


def relay() -> Routes:
    """A peer with a feasible route to A over link 1 and a worse advertisement on link 2."""
    peer = make()
    for link in (1, 2, 3):
        peer.link_up(link, 10, 0)
    peer.update(1, [advert(A, 5, 30)], 0)
    flush(peer, 0)
    peer.update(2, [advert(A, 5, 60)], 50_000)
    return peer


def ask(peer: Routes, link: int, body: list[Any], now_us: int = 60_000) -> list[tuple[int, Any]]:
    peer.request(link, body, now_us)
    return peer.outgoing(now_us)


def test_a_request_goes_along_the_feasible_route_and_never_back() -> None:
    """Rules: R-19"""
    assert ask(relay(), 3, [NAME, A.public_key, 6, 0, 64]) == [
        (1, SeqnoRequest([NAME, A.public_key, 6, 0, 63]))
    ]
    assert ask(relay(), 1, [NAME, A.public_key, 6, 0, 2]) == [
        (2, SeqnoRequest([NAME, A.public_key, 6, 0, 1]))
    ]
    lonely = relay()
    lonely.link_down(2, 55_000)
    assert ask(lonely, 1, [NAME, A.public_key, 6, 0, 64]) == []


def test_a_request_that_is_satisfied_is_not_passed_on() -> None:
    """Rules: R-15, R-19"""
    peer = relay()
    peer.update(1, [advert(A, 6, 90)], 60_000)
    frames = ask(peer, 3, [NAME, A.public_key, 6, 0, 64])  # told at once, not after the batch
    assert frames == [(3, Update([[record(A, 6).sealed, 100, 100, 1]]))]
    assert sorted(to for to, _ in flush(peer, 60_000)) == [1, 2]


def test_the_answer_is_passed_on_without_waiting_for_company() -> None:
    """Rules: R-15"""
    peer = relay()
    ask(peer, 3, [NAME, A.public_key, 6, 0, 64])
    peer.update(1, [advert(A, 6, 30)], 70_000)
    assert (A.public_key, 6, 40, 40, 1) in said(peer.outgoing(70_000), 3)


@pytest.mark.parametrize(
    "body",
    [
        [NAME, A.public_key, 6, 0, 1],
        [NAME, A.public_key, 6, 0, 65],
        [NAME, B.public_key, 6, 0, 64],
        ["other", A.public_key, 6, 0, 64],
        [NAME, A.public_key, 6, 2, 64],
        [NAME, A.public_key, -1, 0, 64],
        [NAME, A.public_key, 1 << 63, 0, 64],
        [NAME, A.public_key, True, 0, 64],
        [NAME, A.public_key, 6, 0, None],
        [NAME, "A", 6, 0, 64],
        [NAME, A.public_key, 6, 0],
        None,
        {},
    ],
    ids=str,
)
def test_requests_that_lead_nowhere_are_dropped(body: Any) -> None:
    """Rules: R-19"""
    assert ask(relay(), 3, body) == []


def test_a_request_may_go_to_another_neighbour_in_the_same_moment() -> None:
    """Rules: R-20"""
    peer = relay()
    body = [NAME, A.public_key, 6, 0, 64]
    assert [to for to, _ in ask(peer, 3, body)] == [1]
    peer.link_down(1, 70_000)  # now it starves itself, and asks for the same
    assert bodies(peer.outgoing(70_000), SeqnoRequest, 2) == [body]
    assert ask(peer, 3, body, 80_000) == []


def test_the_same_request_is_not_passed_on_twice_in_a_moment() -> None:
    """Rules: R-20"""
    peer = relay()
    body = [NAME, A.public_key, 6, 0, 64]
    half = CONFIG.seqno_retry_us // 2
    assert len(ask(peer, 3, body)) == 1
    assert ask(peer, 3, body, 60_000 + half - 1) == []
    assert len(ask(peer, 3, body, 60_000 + half)) == 1
    assert len(ask(peer, 3, [NAME, A.public_key, 7, 0, 64], 60_001 + half)) == 1


def test_a_holder_raises_its_seqno_as_asked_but_not_too_far_nor_too_often() -> None:
    """Rules: R-21"""
    peer = make()
    first, half = 1 << 16, CONFIG.seqno_retry_us // 2
    peer.hold(NAME, 9, 0)
    peer.link_up(1, 10, 0)
    peer.outgoing(0)

    def seqno(wanted: int, now_us: int) -> int:
        peer.request(1, [NAME, ME.public_key, wanted, 0, 1], now_us)
        peer.outgoing(now_us)
        hop = peer.next_hop(NAME, ME.public_key, Class.THIN)
        assert hop is not None
        return hop.seqno

    assert seqno(first, half) == first
    assert seqno(first + 1, half) == first + 1
    assert seqno(first + 2, half + 1) == first + 1
    assert peer.deadline_us() is not None
    assert seqno(0, 2 * half - 1) == first + 1
    assert seqno(0, 2 * half) == first + 2
    assert seqno((1 << 63) - 1, 3 * half) == first + 2 + SEQNO_JUMP
