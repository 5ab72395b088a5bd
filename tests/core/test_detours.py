"""A way over which a peer was not reached is not the next one that is tried."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.context import Context
from mfd.core.detours import TARGETS_MAX, Detours
from mfd.core.frames import Open, Reset, ResetCode, Seek, encode_frame
from mfd.sim.keys import SimKey, sim_verify
from tests.core.seek_world import SECOND, Node, SeekWorld

NAME = "data"
TARGET = bytes(32)


def way(link: int):
    return (link, None, ()), False


def diamond() -> SeekWorld:
    """a reaches d over b, or, no farther, over c."""
    world = SeekWorld([("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")])
    world.hold(NAME, "d")
    world.run()
    return world


def break_at(node: Node, code: ResetCode) -> list[Open]:
    """Let a relay answer every OPEN with a RESET."""
    seen: list[Open] = []

    def refuse(link: int, frame: Open) -> None:
        seen.append(frame)
        node.ctx.send(link, encode_frame(Reset(frame.circuit, code, 0)))

    node.circuits.on_open = refuse
    return seen


@pytest.mark.parametrize("code", [ResetCode.STALLED, ResetCode.UNKNOWN, ResetCode.NO_ROUTE])
def test_the_next_try_takes_another_neighbour(code: ResetCode) -> None:
    """Rules: T-30"""
    world = diamond()
    a, d = world.nodes["a"], world.nodes["d"]
    seen = break_at(world.nodes["b"], code)
    first = a.connect(d)
    world.run()
    assert first.said == [code]
    again = a.connect(d)
    world.run()
    assert again.said[0] == "opened"
    assert len(seen) == 1
    world.run(world.config.detour_us / SECOND)
    a.connect(d)
    world.run()
    assert len(seen) == 2  # after a while the nearest way is tried again


@pytest.mark.parametrize("code", [ResetCode.REFUSED, ResetCode.BUSY])
def test_what_the_target_says_is_not_the_way_s_fault(code: ResetCode) -> None:
    """Rules: T-30"""
    world = diamond()
    seen = break_at(world.nodes["b"], code)
    for _ in range(3):
        world.nodes["a"].connect(world.nodes["d"])
        world.run()
    assert len(seen) == 3


def test_where_no_neighbour_is_left_seek_finds_a_way() -> None:
    """Rules: T-30"""
    world = SeekWorld([("a", "b"), ("b", "d"), ("a", "c"), ("c", "e"), ("e", "d")])
    world.hold(NAME, "d")
    world.run()
    a, d = world.nodes["a"], world.nodes["d"]
    a.circuits._trails.links_toward = lambda via, cls: []  # c has told nothing
    break_at(world.nodes["b"], ResetCode.STALLED)
    world.nodes["b"].seeker.on_seek = lambda link, body: None  # it answers nothing else either
    said = []
    for _ in range(3):
        ear = a.connect(d)
        world.run(2)
        said.append(ear.said[0])
    assert said[0] is ResetCode.STALLED
    assert said[2] == "opened"


@pytest.mark.parametrize("code", [ResetCode.STALLED, ResetCode.UNKNOWN])
def test_seek_leaves_out_the_first_hop_that_has_just_failed(code: ResetCode) -> None:
    """Rules: R-33, T-30"""
    world = SeekWorld([("a", "b"), ("b", "d"), ("a", "c"), ("c", "e"), ("e", "d")])
    a, b, d = (world.nodes[name] for name in "abd")
    seen = break_at(b, code)
    link = next(number for number, name in a.links.items() if name == "b")
    said, asked = [], []
    for _ in range(4):
        ear = a.connect(d)
        world.run(6)
        said.append(ear.said[0] if ear is not None else None)
        asked.append(sum(isinstance(f, Seek) and to == link for _, to, f, _ in a.sent))
    assert said[:2] == [None, code], "b is nearest, and answers first"
    assert said[-1] == "opened"
    assert len(seen) <= 2, "where the way is not forgotten it is taken once more, beside the search"
    assert asked[-1] == asked[0], "b was not asked again"


def test_seek_asks_the_only_neighbour_again() -> None:
    """Rules: R-33, T-30"""
    world = SeekWorld([("a", "b"), ("b", "d")])
    a, d = world.nodes["a"], world.nodes["d"]
    seen = break_at(world.nodes["b"], ResetCode.STALLED)
    for _ in range(6):
        a.connect(d)
        world.run(6)
    assert len(seen) >= 2


def test_the_only_way_is_taken_again_though_it_has_failed() -> None:
    """Rules: T-30"""
    world = SeekWorld([("a", "b"), ("b", "d")])
    world.hold(NAME, "d")
    world.run()
    seen = break_at(world.nodes["b"], ResetCode.STALLED)
    for _ in range(3):
        assert world.nodes["a"].connect(world.nodes["d"]) is not None
        world.run()
    assert len(seen) == 3


def test_a_relay_takes_another_way_on_than_that_which_failed() -> None:
    """Rules: T-34"""
    world = SeekWorld([("a", "b"), ("b", "c"), ("c", "e"), ("b", "d"), ("d", "e")])
    world.hold(NAME, "e")
    world.run()
    a, e = world.nodes["a"], world.nodes["e"]
    seen = break_at(world.nodes["c"], ResetCode.STALLED)
    other = break_at(world.nodes["d"], ResetCode.BUSY)
    said = []
    for _ in range(3):
        ear = a.connect(e)
        world.run()
        said += ear.said
    assert said == [ResetCode.STALLED, ResetCode.BUSY, ResetCode.BUSY]
    assert (len(seen), len(other)) == (1, 2)
    promises = {(frame.via.seqno, frame.via.metric) for frame in (*seen, *other)}
    assert len(promises) == 1, "either way the relay's own promise is what is passed on"


def test_a_relay_goes_on_only_to_whom_is_nearer_than_it() -> None:
    """Rules: T-03, T-34"""
    world = SeekWorld([("a", "b"), ("b", "c"), ("c", "e"), ("b", "d"), ("d", "f"), ("f", "e")])
    world.hold(NAME, "e")
    world.run()
    seen = break_at(world.nodes["c"], ResetCode.STALLED)
    other = break_at(world.nodes["d"], ResetCode.BUSY)
    for _ in range(3):
        world.nodes["a"].connect(world.nodes["e"])
        world.run()
    assert (len(seen), len(other)) == (3, 0), "d is as far as b"


def test_ways_that_have_all_failed_are_taken_in_turn() -> None:
    """Rules: T-30"""
    world = diamond()
    seen = [break_at(world.nodes[name], ResetCode.STALLED) for name in "bc"]
    for _ in range(6):
        world.nodes["a"].connect(world.nodes["d"])
        world.run()
    assert [len(frames) for frames in seen] == [3, 3]


def test_a_neighbour_is_always_dialled_directly() -> None:
    """Rules: T-30"""
    world = SeekWorld([("a", "d"), ("a", "b"), ("b", "d")])
    world.hold(NAME, "d")
    world.run()
    a, d = world.nodes["a"], world.nodes["d"]
    seen = break_at(d, ResetCode.STALLED)
    for _ in range(2):
        a.connect(d)
        world.run()
    assert [frame.hops for frame in seen] == [1, 1]


def test_what_is_remembered_is_bounded() -> None:
    """Rules: T-30"""
    ctx = Context(signer=SimKey(b"a"), verify=sim_verify, config=Config(), seed=b"")
    detours = Detours(ctx)
    for number in range(2 * TARGETS_MAX):
        detours.failed(number.to_bytes(32, "big"), 1)
    assert len(detours._failed) == TARGETS_MAX
    assert detours.choose(TARGET, iter(())) is None
    last = (2 * TARGETS_MAX - 1).to_bytes(32, "big")
    assert detours.choose(last, [way(1), way(2)]) == way(2)
    assert detours.choose(last, [way(1)]) == way(1)
    assert detours.choose(TARGET, [way(1), way(2)]) == way(1)  # forgotten since


def test_links_that_came_and_went_are_not_kept() -> None:
    """Rules: T-30"""
    ctx = Context(signer=SimKey(b"a"), verify=sim_verify, config=Config(), seed=b"")
    detours = Detours(ctx)
    for link in range(100):  # a neighbour that goes and comes has another number each time
        detours.failed(TARGET, link)
        ctx.now_us += ctx.config.detour_us // 2
    assert sorted(detours._failed[TARGET]) == [98, 99]
    assert detours.choose(TARGET, [way(99), way(7)]) == way(7)
