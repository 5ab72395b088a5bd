"""The order in which holders are asked, by what they announce."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from mfd.core.events import Held
from mfd.core.policy import CHOOSE_KEY, POLICIES, policy_of, rank, reason
from mfd.core.routing import Source
from mfd.core.sources import label_shares
from mfd.packet.plan import Plan, decode_plan, encode_plan
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

ME = b"m" * 32


def plan(choose: object = None, seed: int = 0) -> Plan:
    extra = {} if choose is None else {CHOOSE_KEY: choose}
    return Plan({"zoo": "none"}, ("d",), bytes(32), seed=seed, extra=extra)


def source(key: str, *, samples: int = 10, counts: dict[int, int] | None = None) -> Source:
    return Source(key.encode() * 32, 0, 0, samples, label_shares(counts or {}))


def order(
    choose: object,
    holders: list[Source],
    seen: tuple[Source, ...] = (),
    seq: int = 0,
    seed: int = 0,
) -> str:
    ranked = rank(plan(choose, seed), holders, seen, me=ME, seq=seq)
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
    assert reason(plan(), "nearest of 2") == "nearest of 2"


def test_labels_that_complement_those_seen_come_first() -> None:
    """Rules: W-17"""
    zeros, ones, both = {0: 10}, {1: 10}, {0: 5, 1: 5}
    holders = [source("s"), source("z", counts=zeros), source("o", counts=ones)]
    seen = (source("v", counts=zeros),)
    assert order("labels", holders, seen) == "ozs"  # s tells nothing: last
    assert order("labels", [*holders, source("b", counts=both)], ()) == "bzos"
    large = source("l", samples=1_000, counts=ones)
    assert order("labels", [large, *holders], seen) == "olzs"  # too much of what was lacking
    assert "complement" in reason(plan("labels"), "")


def test_most_samples_first_and_nearest_among_equals() -> None:
    """Rules: W-17"""
    holders = [source("a"), source("b", samples=20), source("c"), source("d", samples=20)]
    assert order("samples", holders) == "bdac"


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
    assert POLICIES[choose] in reasons
    assert "the journey is over: home" in reasons
