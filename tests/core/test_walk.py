"""The walk's decisions, as pure functions: order, blocks, journey, ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.core.blocks import Work, joined, lies_within
from mfd.core.walk import (
    Arrive,
    Measure,
    Move,
    Round,
    SkipLap,
    Train,
    Wait,
    after_round,
    after_stop,
    decide,
    ranges_of,
)
from mfd.packet.manifest import Manifest, Progress
from mfd.packet.plan import Plan
from mfd.packet.task import LayerRef

HOME = bytes(32)


@dataclass(frozen=True)
class Holder:
    holder: bytes


def peer(number: int) -> bytes:
    return bytes((number,)) * 32


def plan_of(**fields) -> Plan:
    known = {"recipe": {}, "names": ("digits",), "home": HOME, "laps": 6}
    return Plan(**{**known, "layers_per_stop": 2, "full_laps": 0, **fields})


def manifest_of(layers: int = 6, **fields) -> Manifest:
    refs = tuple(LayerRef(i, f"l{i}", bytes((i,)) * 32, 100) for i in range(layers))
    known = {"walker": bytes(32), "model": bytes(32), "seq": 0, "plan": bytes(32)}
    return Manifest(**{**known, "layers": refs, "trainer": HOME, **fields})


def ask(plan: Plan, manifest: Manifest, me: bytes, holders: list[bytes], **more):
    known = {"verifiers": (), "measured": False, "shunned": frozenset(), **more}
    return decide(plan, manifest, me, holders=[Holder(h) for h in holders], **known)


def travel(plan: Plan, holders: list[bytes], layers: int = 6) -> list[tuple[int, bytes, Train]]:
    """(lap, peer, step) of every stop of a whole journey; moves to the first target."""
    manifest, me, out = manifest_of(layers), plan.home, []
    for _ in range(10_000):
        nearest = sorted(holders, key=lambda h: ((h[0] - me[0]) % 256, h))
        step = ask(plan, manifest, me, nearest)
        match step:
            case Train():
                out.append((manifest.progress.lap, me, step))
                known = [Holder(h) for h in nearest]
                progress = after_stop(
                    plan, manifest.progress, me, steps=5, holders=known, layers=layers
                )
                manifest = replace(manifest, seq=manifest.seq + 1, progress=progress, trainer=me)
            case Move(targets=targets):
                me = targets[0]
            case Arrive():
                return out
            case _:
                raise AssertionError(step)
    raise AssertionError("it never arrives")


journeys = st.tuples(
    st.integers(1, 6),  # holders
    st.integers(1, 4),  # laps
    st.integers(1, 9),  # layers
    st.integers(1, 4),  # layers per stop
    st.booleans(),  # head
    st.integers(0, 2),  # full laps
    st.sampled_from(["snake", "walk"]),
    st.sampled_from(["lap", "stop", "sweep", "boustrophedon"]),
    st.booleans(),  # first
)


@given(journeys)
def test_whole_journeys(shape) -> None:
    """Rules: W-03, W-04, W-05, W-06, W-07"""
    count, laps, layers, per_stop, head, full, mode, order, first = shape
    holders = [peer(i + 1) for i in range(count)]
    plan = plan_of(
        laps=laps,
        layers_per_stop=per_stop,
        head=head,
        full_laps=full,
        mode=mode,
        order=order,
        first=first,
        min_holders=count,
    )
    stops = travel(plan, holders, layers)
    assert len(stops) == count * laps
    for lap in range(laps):
        of_lap = [(p, s) for number, p, s in stops if number == lap]
        assert {p for p, _ in of_lap} == set(holders)  # each once a lap
        if order != "stop":
            assert len({s.ranges for _, s in of_lap}) == 1  # the whole lap the same block
    if count > 1:
        ends = [(a, b) for (i, a, _), (j, b, _) in pairwise(stops) if i != j]
        assert all(a != b for a, b in ends)  # the last of a lap is not the first of the next
    edge = 0.0
    for _, _, step in stops:  # the journey is cut into pieces without gap or overlap
        assert step.journey[0] == pytest.approx(edge)
        assert step.journey[1] > step.journey[0]
        edge = step.journey[1]
    assert edge == pytest.approx(1.0)


@given(st.integers(1, 20), st.integers(1, 9), st.booleans())
def test_the_blocks_of_successive_laps_cover_every_layer(
    layers: int, per_stop: int, head: bool
) -> None:
    """Rules: W-05"""
    plan = plan_of(layers_per_stop=per_stop, head=head, laps=100)
    body = layers - 1 if head and layers > 1 else layers
    turns = -(-body // min(per_stop, body))
    trained: list[int] = []
    for lap in range(turns):
        ranges = ranges_of(plan, Progress(lap=lap), layers)
        assert all(low < high for low, high in ranges)
        flat = [i for low, high in ranges for i in range(low, high)]
        assert flat == sorted(set(flat))
        assert (layers - 1 in flat) or not head
        trained += [i for i in flat if i < body]
    assert trained == list(range(body))  # each block once, in order
    assert ranges_of(plan, Progress(lap=turns), layers) == ranges_of(plan, Progress(), layers)


def test_a_full_lap_trains_everything() -> None:
    """Rules: W-05"""
    plan = plan_of(full_laps=1, laps=3)
    assert ranges_of(plan, Progress(lap=0), 6) == ((0, 6),)
    assert ranges_of(plan, Progress(lap=1), 6) == ((0, 2), (5, 6))


def test_a_new_block_at_every_stop() -> None:
    """Rules: W-05"""
    plan = plan_of(order="stop", head=False)
    blocks = [ranges_of(plan, Progress(stops=n), 6) for n in range(4)]
    assert blocks == [((0, 2),), ((2, 4),), ((4, 6),), ((0, 2),)]


def test_there_and_back() -> None:
    """Rules: W-05"""
    plan = plan_of(order="boustrophedon", head=False, laps=100)
    lows = [ranges_of(plan, Progress(lap=lap), 8)[0][0] for lap in range(9)]
    assert lows == [0, 2, 4, 6, 4, 2, 0, 2, 4]
    assert ranges_of(replace(plan, layers_per_stop=9), Progress(lap=5), 8) == ((0, 8),)


def test_first_head_and_body() -> None:
    """Rules: W-05"""
    plan = plan_of(first=True)
    assert ranges_of(plan, Progress(), 8) == ((0, 3), (7, 8))
    assert ranges_of(plan, Progress(lap=1), 8) == ((0, 1), (3, 5), (7, 8))
    assert ranges_of(plan, Progress(lap=2), 8) == ((0, 1), (5, 8))
    middle = plan_of(body=(2, 5), head=False)
    assert [ranges_of(middle, Progress(lap=n), 8) for n in range(3)] == [
        ((2, 4),),
        ((4, 5),),
        ((2, 4),),
    ]
    assert ranges_of(replace(middle, head=True), Progress(), 8) == ((2, 4), (7, 8))
    for layers in (1, 2):  # a body is never empty
        assert ranges_of(plan, Progress(), layers) == ((0, layers),)


def test_a_sweep_is_all_blocks_at_every_stop() -> None:
    """Rules: W-05"""
    step = ask(plan_of(order="sweep"), manifest_of(), HOME, [HOME])
    assert isinstance(step, Train)
    assert step.work == Work(((0, 6),), body=(0, 5), block=2, sweep=True)


def test_a_plan_for_layers_that_do_not_exist_is_parked() -> None:
    """Rules: W-27"""
    step = ask(plan_of(body=(3, 9)), manifest_of(), HOME, [HOME])
    assert isinstance(step, Wait)
    assert step.reason == "the plan names layers 3:9, and the model has 6: send it anew"


def budget_travel(plan: Plan, sizes: dict[bytes, int], layers: int = 6) -> list[list[tuple]]:
    """Ranges trained, lap by lap; a peer takes so many layers of those given, or fails at 0."""
    manifest, me, out = manifest_of(layers), plan.home, [[] for _ in range(plan.laps)]
    for _ in range(200):
        known = [Holder(h) for h in sorted(sizes)]
        step = ask(plan, manifest, me, [h.holder for h in known])
        match step:
            case Train(work=work):
                low, high = work.body
                size = sizes[me]
                taken = (low, min(low + size, high)) if not work.sweep else work.body
                given = {i for a, b in work.ranges for i in range(a, b)}
                ends = [(i, i + 1) for i in given if not low <= i < high]
                trained = joined([taken, *ends])
                trained = trained if size else ()
                out[manifest.progress.lap].append(trained)
                progress = after_stop(
                    plan,
                    manifest.progress,
                    me,
                    steps=1 if size else None,
                    holders=known,
                    layers=layers,
                    trained=trained,
                )
                manifest = replace(
                    manifest,
                    seq=manifest.seq + 1,
                    progress=progress,
                    trainer=me,
                    trained=trained,
                )
            case Move(targets=targets):
                me = targets[0]
            case Arrive():
                return out
    raise AssertionError("it never arrives")


def test_as_many_layers_as_memory_allows() -> None:
    """Rules: W-06, W-26"""
    plan = plan_of(layers_per_stop=0, order="stop", laps=2, min_holders=2, home=peer(1))
    laps = budget_travel(plan, {peer(1): 2, peer(2): 1}, 6)
    assert laps == [
        [((0, 2), (5, 6)), ((2, 3), (5, 6))],
        [((3, 6),), ((0, 1), (5, 6))],
    ]


def test_a_lap_goes_on_behind_what_all_have_trained() -> None:
    """Rules: W-06, W-26"""
    plan = plan_of(layers_per_stop=0, laps=4, head=False, min_holders=3, home=peer(1))
    laps = budget_travel(plan, {peer(1): 4, peer(2): 2, peer(3): 3}, 6)
    assert [lap[-1] for lap in laps] == [((0, 2),), ((2, 4),), ((4, 6),), ((0, 2),)]
    for lap in laps:
        ends = [trained[0][1] for trained in lap]
        assert ends == sorted(ends, reverse=True)
    failing = budget_travel(plan, {peer(1): 0, peer(2): 0, peer(3): 0}, 6)
    assert failing == [[(), (), ()]] * 4
    full = budget_travel(replace(plan, full_laps=1, min_holders=2), {peer(1): 4, peer(2): 2}, 6)
    assert [set(lap) for lap in full[:2]] == [{((0, 6),)}, {((0, 4),), ((0, 2),)}]


@given(
    st.lists(st.tuples(st.integers(-1, 9), st.integers(-1, 9)), max_size=3),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3),
)
def test_what_lies_within(inner: list[tuple[int, int]], outer: list[tuple[int, int]]) -> None:
    """Rules: W-26"""
    cells = {i for low, high in outer for i in range(low, high)}
    wanted = all(
        0 <= low < high and all(i in cells for i in range(low, high)) for low, high in inner
    )
    assert lies_within(inner, outer) == wanted
    assert lies_within(((0, 1 << 40),), ((0, 3),)) is False


def test_it_waits_at_home_for_holders() -> None:
    """Rules: W-02"""
    plan = plan_of(min_holders=3)
    assert isinstance(ask(plan, manifest_of(), HOME, [peer(1), peer(2)]), Wait)
    assert isinstance(ask(plan, manifest_of(), HOME, [peer(1), peer(2), peer(3)]), Move)
    later = manifest_of(progress=Progress(stops=1, visited=(peer(2)[:8],)))
    assert isinstance(ask(plan, later, peer(2), [peer(1), peer(2)]), Move)  # only at the start


def test_measuring_comes_before_the_next_lap() -> None:
    """Rules: W-08"""
    plan = plan_of(verify=("test",))
    boundary = manifest_of(progress=Progress(lap=1, stops=3, holders=3), trainer=peer(3))
    verifiers = [Holder(peer(9)), Holder(peer(8))]
    holders = [peer(1), peer(2), peer(3)]
    step = ask(plan, boundary, peer(3), holders, verifiers=verifiers)
    assert step == Measure((peer(9), peer(8)))
    measured = ask(plan, boundary, peer(3), holders, verifiers=verifiers, measured=True)
    assert isinstance(measured, Move)
    assert isinstance(ask(plan, boundary, peer(3), holders), Move)  # nobody can measure
    inside = manifest_of(progress=Progress(lap=1, stops=4, visited=(peer(3)[:8],)))
    assert isinstance(ask(plan, inside, peer(1), holders, verifiers=verifiers), Train)


def test_failed_holders_are_left_alone() -> None:
    """Rules: W-03"""
    holders = [peer(1), peer(2), peer(3)]
    step = ask(plan_of(), manifest_of(), HOME, holders, shunned=frozenset({peer(1)}))
    assert isinstance(step, Move)
    assert step.targets == (peer(2), peer(3))


def test_the_rest_of_a_lap_out_of_reach() -> None:
    """Rules: W-09"""
    seen = manifest_of(progress=Progress(stops=1, visited=(peer(1)[:8],)))
    assert ask(plan_of(), seen, peer(1), [peer(1)]) == SkipLap()
    assert isinstance(ask(plan_of(), manifest_of(), HOME, []), Wait)


def test_a_lap_does_not_end_because_holders_are_out_of_reach_for_a_moment() -> None:
    """Rules: W-09"""
    me = Holder(peer(1))
    before = Progress(lap=1, stops=3, holders=3)
    after = after_stop(plan_of(), before, peer(1), steps=1, holders=[me], layers=6)
    assert (after.lap, after.visited) == (1, (peer(1)[:8],))
    alone = Progress(lap=1, stops=3, holders=1)
    after = after_stop(plan_of(), alone, peer(1), steps=1, holders=[me], layers=6)
    assert (after.lap, after.visited) == (2, ())


def test_the_end() -> None:
    """Rules: W-10"""
    over = manifest_of(progress=Progress(lap=6, stops=18))
    assert ask(plan_of(), over, HOME, [peer(1)]) == Arrive()
    away = ask(plan_of(), over, peer(1), [peer(1)])
    assert isinstance(away, Move)
    assert away.targets == (HOME,)


def test_a_round_of_federated_averaging() -> None:
    """Rules: W-11"""
    plan = plan_of(mode="fedavg", laps=4)
    holders = [peer(1), peer(2)]
    step = ask(plan, manifest_of(progress=Progress(lap=1)), HOME, holders)
    assert step == Round((peer(1), peer(2)), ((0, 6),), (0.25, 0.5))
    assert isinstance(ask(plan, manifest_of(), peer(1), holders), Move)  # run from home
    progress = after_round(plan, Progress(lap=1, stops=2), clients=2, steps=30)
    assert (progress.lap, progress.stops, progress.step) == (2, 4, 30)


@pytest.mark.parametrize("mode", ["snake", "walk", "fedavg"])
def test_a_frozen_base_never_learns(mode: str) -> None:
    """Rules: W-35"""
    plan = plan_of(mode=mode, full_laps=1, layers_per_stop=2, extra={39: 4})
    trained = [ranges_of(plan, Progress(lap=lap, stops=lap), 9) for lap in range(4)]
    assert trained[0] == ((4, 9),)
    whole = mode != "snake"
    assert trained[1:] == (
        [((4, 9),)] * 3 if whole else [((4, 6), (8, 9)), ((6, 9),), *trained[1:2]]
    )
    for strange in (0, 9, -1, "4", True, None):
        bare = replace(plan, extra={39: strange})
        assert ranges_of(bare, Progress(), 9) == ((0, 9),), strange


def test_a_round_leaves_the_base_alone() -> None:
    """Rules: W-35"""
    step = ask(plan_of(mode="fedavg", extra={39: 4}), manifest_of(6), HOME, [peer(1)])
    assert isinstance(step, Round)
    assert step.ranges == ((4, 6),)
