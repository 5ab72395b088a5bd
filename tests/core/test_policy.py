"""The order in which holders are asked, by what they announce."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from mfd.core.events import Held
from mfd.core.policy import Place, rank, reason
from mfd.core.routing import Source
from mfd.core.sources import label_shares
from mfd.core.walk import CHOOSE_KEY, POLICIES, policy_of
from mfd.packet.plan import Plan, decode_plan, encode_plan
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

ME = b"m" * 32


def plan(choose: object = None, seed: int = 0) -> Plan:
    extra = {} if choose is None else {CHOOSE_KEY: choose}
    return Plan({"zoo": "none"}, ("d",), bytes(32), seed=seed, extra=extra)


def source(
    key: str, *, samples: int = 10, counts: dict[int, int] | None = None, capacity: int = 0
) -> Source:
    return Source(key.encode() * 32, 250, 2, samples, label_shares(counts or {}), capacity)


def order(
    choose: object,
    holders: list[Source],
    seen: tuple[Source, ...] = (),
    seq: int = 0,
    seed: int = 0,
) -> str:
    ranked = rank(plan(choose, seed), holders, seen, Place(ME, seq))
    assert sorted(ranked) == sorted(holders)
    return "".join(s.holder[:1].decode() for s in ranked)


def test_a_plan_carries_its_choice_as_an_optional_field() -> None:
    """Rules: W-17"""
    for choose in POLICIES:
        assert policy_of(decode_plan(encode_plan(plan(choose)))) == choose
    assert policy_of(plan()) == policy_of(plan("later")) == policy_of(plan(7)) == "nearest"


def test_nearest_is_the_order_given() -> None:
    """Rules: W-17"""
    assert order(None, [source("z"), source("a")]) == "za"
    told = reason(plan(), source("z"), [source("z"), source("a")], (), Place(ME))
    assert told == "nearest of 2 that can be chosen: 2.50 ms, 2 hops away"
    near = source("z")._replace(hops=1)
    assert reason(plan(), near, [near], (), Place(ME)).endswith(
        "1 that can be chosen: 2.50 ms, 1 hop away"
    )


def test_labels_that_complement_those_seen_come_first() -> None:
    """Rules: W-17"""
    zeros, ones, both = {0: 10}, {1: 10}, {0: 5, 1: 5}
    holders = [source("s"), source("z", counts=zeros), source("o", counts=ones)]
    seen = (source("v", counts=zeros),)
    assert order("labels", holders, seen) == "ozs"  # s tells nothing: last
    assert order("labels", [*holders, source("b", counts=both)], ()) == "bzos"
    large = source("l", samples=1_000, counts=ones)
    assert order("labels", [large, *holders], seen) == "olzs"  # too much of what was lacking
    told = reason(plan("labels"), holders[2], holders, seen, Place(ME))
    assert told == (
        "its labels complement those seen in this lap: 0.00 from even with it, "
        "1.00 before (0 even, 2 one label), the least of 3 that can be chosen"
    )


def test_most_samples_first_and_nearest_among_equals() -> None:
    """Rules: W-17"""
    holders = [source("a"), source("b", samples=20), source("c"), source("d", samples=20)]
    assert order("samples", holders) == "bdac"
    told = reason(plan("samples"), holders[1], holders, (), Place(ME))
    assert told == "it has the most samples, 20, of 4 that can be chosen"


def test_most_capacity_first_and_those_that_tell_none_last() -> None:
    """Rules: W-17"""
    holders = [source("a"), source("b", capacity=200), source("c", capacity=900)]
    assert order("capacity", holders) == "cba"
    told = reason(plan("capacity"), holders[2], holders, (), Place(ME))
    assert told == "capacity decides: the most capacity, 900, of 3 that can be chosen"


def test_round_robin_goes_on_after_ones_own_id() -> None:
    """Rules: W-17"""
    assert order("robin", [source(k) for k in "zamno"]) == "nozam"


def test_lots_are_weighted_by_samples_and_repeatable() -> None:
    """Rules: W-17, W-20"""
    holders = [source("a", samples=30), source("b", samples=10), source("c", samples=10)]
    drawn = [order("random", holders, seq=seq, seed=3) for seq in range(2_000)]
    assert drawn == [order("random", holders, seq=seq, seed=3) for seq in range(2_000)]
    assert drawn != [order("random", holders, seq=seq, seed=4) for seq in range(2_000)]
    first = Counter(each[0] for each in drawn)
    assert 0.57 < first["a"] / 2_000 < 0.63
    assert abs(first["b"] - first["c"]) < 120


def chain(choose: str, holders: list[Source], steps: int) -> list[bytes]:
    """Where a free walk goes, by what is first in each order."""
    here, way = holders[0].holder, []
    for stops in range(steps):
        place = Place(here, stops, b"walker", stops)
        here = rank(plan(choose, seed=5), holders, (), place)[0].holder
        way.append(here)
    return way


def test_a_metropolis_walk_visits_by_samples() -> None:
    """Rules: W-40, W-41"""
    holders = [source(k, samples=n) for k, n in (("a", 50), ("b", 30), ("c", 10), ("d", 10))]
    visits = Counter(chain("metropolis", holders, 6_000))
    shares = [visits[s.holder] / 6_000 for s in holders]
    assert shares == pytest.approx([0.5, 0.3, 0.1, 0.1], abs=0.03)
    way = chain("metropolis", holders, 200)
    assert any(a == b for a, b in pairwise(way))  # it stays where a smaller holder was drawn
    assert way == chain("metropolis", holders, 200)
    place = Place(holders[2].holder, 0, b"walker", 0)
    told = {reason(plan("metropolis", s), holders[0], holders, (), place) for s in range(20)}
    assert any("with 50 samples to 10 here, to be taken with chance 1.00" in t for t in told)


def test_an_even_lot_never_draws_the_peer_itself_first() -> None:
    """Rules: W-40, W-41"""
    holders = [source(k, samples=n) for k, n in (("a", 50), ("b", 30), ("c", 10), ("d", 10))]
    way = chain("uniform", holders, 4_000)
    assert not any(a == b for a, b in pairwise(way))
    visits = Counter(way)
    assert [visits[s.holder] / 4_000 for s in holders] == pytest.approx([0.25] * 4, abs=0.03)
    assert policy_of(replace(plan(), mode="gossip")) == "uniform"


@pytest.mark.parametrize("choose", ["samples", "labels"])
def test_a_walker_takes_the_way_that_its_plan_chooses(choose: str) -> None:
    """Rules: W-17"""
    world = world_of([("a", "b"), *pairwise("bcd")], "bcd")
    holding = {"b": (10, {0: 10}), "c": (20, {0: 20}), "d": (30, {1: 30})}
    for name, (samples, counts) in holding.items():
        world.happen(world.hosts[name], Held("data/train", samples, label_shares(counts)))
    world.run(seconds=1)
    extra = {CHOOSE_KEY: choose}
    inject(world, "a", walker_for(world, "a", layers=2, floats=20, laps=1, extra=extra))
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=60)
    names = {host.key.public_key.hex(): name for name, host in world.hosts.items()}
    way = "".join(names[stop["peer"]] for stop in reports(home, "stop"))
    # labels: each has one alone, so the nearest; then the other label, then the rest
    assert way == {"samples": "dcb", "labels": "bdc"}[choose]
    reasons = {told["reason"] for told in reports(home, "chosen")}
    why = {"samples": "it has the most samples, 30,", "labels": "its labels complement those seen"}
    assert any(told.startswith(why[choose]) for told in reasons)
    assert "the journey is over: home" in reasons
