"""What versions have seen, and what a merge of them weighs."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.core.ages import (
    RULES,
    Rule,
    aged,
    ages_of,
    gate_of,
    has_news,
    joined,
    rule_of,
    total,
    walkers_of,
    weights,
    with_ages,
)
from mfd.packet.manifest import Manifest, decode_manifest, encode_manifest
from mfd.packet.plan import Plan, decode_plan, encode_plan
from mfd.packet.task import LayerRef

A, B, C = (bytes([n]) * 8 for n in range(1, 4))


def manifest(layers: int = 3, walker: bytes = A * 4) -> Manifest:
    refs = tuple(LayerRef(i, f"l{i}", bytes([i]) * 32, 64) for i in range(layers))
    return Manifest(walker, bytes(32), 1, refs, bytes(32), bytes(32))


def plan(mode: str = "walk", **extra: object) -> Plan:
    keys = {"walkers": 41, "merge": 43, "gate": 45}
    return Plan({}, ("d",), bytes(32), mode=mode, extra={keys[k]: v for k, v in extra.items()})


def versions(*rows: dict[bytes, tuple[int, ...]]) -> list[list[float]]:
    layers = max((len(c) for row in rows for c in row.values()), default=1)
    return weights(rows, layers, by_age=False)


def test_what_a_plan_tells_of_siblings_is_optional_and_bounded() -> None:
    """Rules: P-32, W-47"""
    told = decode_plan(encode_plan(plan(walkers=3, merge="near:0.5", gate=0.25)))
    assert (walkers_of(told), rule_of(told), gate_of(told)) == (3, Rule("near", 0.5), 0.25)
    assert (walkers_of(plan()), rule_of(plan()), gate_of(plan())) == (1, Rule("mean"), None)
    assert rule_of(plan("gossip")) == Rule("age")
    assert [rule_of(plan(merge=rule)).name for rule in RULES] == list(RULES)
    for odd in (0, 1, 65, True, "3", -2):
        assert walkers_of(plan(walkers=odd)) == 1
    for odd in ("later", "near:x", "clip:-1", "clip:nan", 7):
        assert rule_of(plan(merge=odd)) == Rule("mean")
    for odd in (-1, True, "1", float("nan")):
        assert gate_of(Plan({}, ("d",), bytes(32), extra={45: odd})) is None


def test_ages_travel_and_what_breaks_them_is_read_as_nothing() -> None:
    """Rules: P-27"""
    ages = {B: (1, 2, 3), A: (7, 0, 1 << 31)}
    travelled = decode_manifest(encode_manifest(with_ages(manifest(), ages)))
    assert ages_of(travelled) == ages
    good = b"\1\0\0\0"
    broken: list[object] = [
        7,
        [[A, good * 2]],  # two counts for three layers
        [[A, good * 3], [B, good]],  # both kinds
        [[B, good], [A, good]],  # not ascending
        [[A, good], [A, good]],
        [[A[:4], good]],
        [[A, "text"]],
        [[bytes([n, n]) * 4, good] for n in range(65)],
    ]
    for rows in broken:
        assert ages_of(Manifest(**{**_fields(manifest()), "extra": {41: rows}})) == {}


def _fields(made: Manifest) -> dict:
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


def test_a_stop_adds_its_samples_to_the_layers_that_were_trained() -> None:
    """Rules: W-46, P-27"""
    three = plan(walkers=3)
    first = aged(manifest(), three, ((0, 1), (2, 3)), 100.0)
    assert ages_of(first) == {A: (100, 0, 100)}
    assert ages_of(aged(first, three, ((1, 3),), 50.0)) == {A: (100, 50, 150)}
    assert aged(manifest(), plan(), ((0, 3),), 100.0) == manifest()  # it has no siblings
    large = aged(manifest(64), plan(walkers=64), ((3, 4),), 100.0)
    assert ages_of(large) == {A: (100,)}  # one count for all layers
    huge = aged(first, three, ((0, 3),), 1e30)
    assert ages_of(huge) == {A: ((1 << 32) - 1,) * 3}
    decode_manifest(encode_manifest(huge))


def test_weights_are_samples_since_what_all_have_seen() -> None:
    """Rules: W-46"""
    assert versions({A: (30,)}, {B: (30,)}) == [[0.5], [0.5]]
    own, other = versions({A: (10,), B: (20,)}, {A: (25,), B: (10,)})
    assert own[0] / other[0] == pytest.approx(10 / 15 * (30 / 35) ** 0.5)
    # b has seen all that a has, and more: it is taken as it is, layer by layer
    assert versions({A: (10, 10)}, {A: (10, 10), B: (0, 5)}) == [[0.0, 0.0], [0.0, 1.0]]
    # what two have seen counts once
    shared = versions({A: (5,), B: (5,)}, {A: (5,), C: (5,)}, {C: (10,)})
    assert [row[0] for row in shared] == pytest.approx([7.5 / 20, 5 / 20, 7.5 / 20])
    by_age = weights([{A: (30,)}, {B: (10,)}], 1, by_age=True)
    assert by_age == [[0.75], [0.25]]


def test_a_version_left_behind_counts_less() -> None:
    """Rules: W-46"""
    ahead, behind = versions({A: (300,)}, {B: (100,)})
    assert behind[0] < 100 / 400
    assert behind[0] / ahead[0] == pytest.approx(100 / 300 * (100 / 300) ** 0.5)


COUNTS = st.dictionaries(st.sampled_from([A, B, C]), st.tuples(*[st.integers(0, 9)] * 2))


@given(st.lists(COUNTS, min_size=1, max_size=4), st.booleans())
def test_weights_add_up_to_one_in_any_order(rows: list, by_age: bool) -> None:
    """Rules: W-46"""
    found = weights(rows, 2, by_age=by_age)
    for layer in range(2):
        whole = sum(row[layer] for row in found)
        assert whole == pytest.approx(1) or whole == 0
        columns = {tuple(row.get(m, (0, 0))[layer] for m in (A, B, C)) for row in rows}
        assert (whole == 0) == (len(columns) == 1)
        assert all(row[layer] >= 0 for row in found)
    for order in permutations(range(len(rows))):
        again = weights([rows[n] for n in order], 2, by_age=by_age)
        for place, number in enumerate(order):
            assert again[place] == pytest.approx(found[number])


@given(COUNTS, COUNTS)
def test_a_merge_has_seen_what_both_have(a: dict, b: dict) -> None:
    """Rules: W-44, W-45"""
    both = joined([a, b])
    assert not has_news(both, a)
    assert not has_news(both, b)
    assert total(both) >= max(total(a), total(b))
    assert has_news(a, b) == has_news(a, both)
    assert joined([both, a]) == both
