"""SEEK: rings, answers, the way back, and what bounds it."""

from __future__ import annotations

import random
from functools import partial
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfd.core.bloom import make_filter
from mfd.core.config import Config
from mfd.core.context import Context
from mfd.core.frames import Class, Found, Open, Seek
from mfd.core.names import peer_name
from mfd.core.pace import PEER_US, Pace
from mfd.core.recordbook import RecordBook
from mfd.core.records import seal_peer_record
from mfd.core.seek import FRAMES_PER_S, PASSED_MAX, PASSES_MAX
from mfd.core.sources import Record, seal_record
from mfd.core.whereabouts import Whereabouts
from mfd.sim.keys import SimKey, sim_verify
from tests.core.circuit_world import Ear
from tests.core.seek_world import SECOND, Node, SeekWorld, line

NAME = "digits/train"
ONE = Config(sources_per_name=1)  # routing tells the nearest holder only
NAMES = "abcdefghijklmnopqrstuvwxyz"


def long_line(length: int, config: Config | None = None) -> SeekWorld:
    return SeekWorld(line(*NAMES[:length]), config)


def ids(world: SeekWorld, names: str) -> set[bytes]:
    return {world.nodes[name].id for name in names}


def rings(node: Node) -> list[tuple[int, int]]:
    """(ttl, when) of the SEEK that a node began: each once, whatever its number of links."""
    seen: dict[bytes, tuple[int, int]] = {}
    first = node.ctx.config.seek_rings
    for when, _, frame, _ in node.sent:
        if isinstance(frame, Seek) and frame.body[3] in first:
            seen.setdefault(frame.body[0], (frame.body[3], when))
    return list(seen.values())


# searching


def test_a_search_finds_holders_beyond_the_nearest() -> None:
    """Rules: R-26, R-27, R-31"""
    world = long_line(8, ONE)
    world.hold(NAME, "b", "h")
    world.run()
    a = world.nodes["a"]
    assert {s.holder for s in a.routes.holders(NAME)} == ids(world, "b")
    said = a.seek(NAME, but=ids(world, "b"))
    world.run()
    assert said == [True]
    assert a.found(NAME) == ids(world, "h")
    source = a.seeker.sources([NAME])[0]
    assert (source.metric, source.hops, source.samples) == (700, 7, 10)
    # e and beyond know h as their nearest, so the second ring ended there
    assert [ttl for ttl, _ in rings(a)] == [2, 4]
    assert world.counted(Seek)["e"] == 0


def test_rings_grow_until_somebody_is_found_or_there_is_nobody_beyond() -> None:
    """Rules: R-26, R-28"""
    world = long_line(6, ONE)
    world.run()
    a = world.nodes["a"]
    said = a.seek(NAME)
    world.run()
    assert said == [False]
    assert [ttl for ttl, _ in rings(a)] == [2, 4, 8]  # the third has been at both ends
    gaps = [b - a for (_, a), (_, b) in zip(rings(a), rings(a)[1:], strict=False)]
    assert gaps == [2 * ttl * world.config.seek_hop_us for ttl in (2, 4)]


def test_a_search_in_a_small_network_ends_with_its_first_ring() -> None:
    """Rules: R-28"""
    world = SeekWorld([("a", "b"), ("b", "c"), ("c", "a")])
    world.run()
    said = world.nodes["a"].seek(NAME)
    world.run(0.21)
    assert said == [False]
    assert len(rings(world.nodes["a"])) == 1


def test_a_peer_alone_finds_nobody_at_once() -> None:
    """Rules: R-26"""
    world = SeekWorld([("a", "b")])
    world.cut("a", "b")
    said = world.nodes["a"].seek(NAME)
    world.run(0.001)
    assert said == [False]


def test_searches_are_paced_and_those_for_the_same_names_are_one() -> None:
    """Rules: R-26"""
    world = long_line(20, ONE)
    world.run()
    a = world.nodes["a"]
    first, second = a.seek(NAME), a.seek(NAME)
    other = a.seek("x")
    world.run(120)
    assert first == second == other == [False]
    times = [when for _, when in rings(a)]
    assert len(times) == 8  # two searches of four rings
    burst, every = len(world.config.seek_rings), world.config.seek_every_us
    for start in range(len(times)):
        for stop in range(start + burst, len(times)):
            allowed = burst + (times[stop] - times[start]) / every
            assert stop - start + 1 <= allowed + 1e-3


def test_searches_for_peers_in_vain_do_not_hold_up_those_for_holders() -> None:
    """Rules: R-26, R-33"""
    world = long_line(26, ONE)
    world.hold(NAME, "b", "z")
    world.run()
    a, strangers = world.nodes["a"], [SimKey(bytes((n,))) for n in range(3)]
    every_us = world.config.seek_every_us
    for _ in range(60):  # as a courier does with what it has for them
        for stranger in strangers:
            a.circuits.connect(stranger.public_key, Class.THIN, None, b"", Ear())
        world.run(1)
    before_us = world.now
    said = a.seek(NAME, but=ids(world, "b"))
    while not said:
        world.run(1)
    assert said == [True]
    assert world.now - before_us <= 5 * every_us  # one ring that may be due, and its own four


def test_a_peer_sought_in_vain_is_left_alone_for_a_while() -> None:
    """Rules: R-33"""
    world = long_line(3)
    world.run()
    a, stranger = world.nodes["a"], SimKey(b"stranger").public_key
    again_us = world.config.seek_again_us

    def try_for(seconds: int) -> list[float]:
        start, seen = world.now, len(rings(a))
        for _ in range(seconds):
            assert a.circuits.connect(stranger, Class.THIN, None, b"", Ear()) is None
            world.run(1)
        return [(when - start) / SECOND for _, when in rings(a)[seen:]]

    wait = again_us // SECOND
    began = try_for(8 * wait)
    assert len(began) == 4  # at once, then after 1, 2, 4 waits
    for number, (one, two) in enumerate(pairwise(began)):
        assert two - one == pytest.approx(wait << number, abs=2)
    world.link(99, "a", "c")
    assert len(try_for(3)) >= 1  # a new neighbour may know the way


def test_rings_wait_in_the_order_of_their_searches_and_cost_nothing_once_cancelled() -> None:
    """Rules: R-26"""
    ctx = Context(signer=SimKey(b"a"), verify=sim_verify, config=ONE, seed=b"")
    pace, done = Pace(ctx), []
    for number in range(len(ONE.seek_rings)):
        assert pace.in_turn(0, partial(done.append, number)) is None  # at once
    timers = [pace.in_turn(rank, partial(done.append, rank)) for rank in (7, PEER_US, 5, 9)]
    assert len(done) == len(ONE.seek_rings)
    assert timers[0] is not None
    timers[0].cancel()
    del done[:]
    for _ in range(4):
        ctx.now_us += ONE.seek_every_us + 2
        ctx.run_timers()
    assert done == [5, 9, PEER_US]


def test_peers_are_found_by_their_id_though_they_announce_nothing() -> None:
    """Rules: R-27, R-33"""
    world = long_line(7)
    world.run()
    a, g = world.nodes["a"], world.nodes["g"]
    assert a.connect(g) is None
    world.run()
    ear = a.connect(g)
    world.run()
    assert ear is not None
    assert ear.said[0] == "opened"
    assert len(g.ears) == 1
    assert a.routes.next_hop(peer_name(g.id), g.id, 0) is None


def test_prefixes_and_several_names_are_sought_alike() -> None:
    """Rules: R-24, R-27"""
    world = SeekWorld(line(*"abcdefg"), ONE)
    for name in ("hospital", "hospital/xray"):
        world.hold(name, "g")
        world.hold(name, "b")
    world.run()
    a = world.nodes["a"]
    a.seek("nothing", "hospital", but=ids(world, "b"))
    world.run()
    assert a.found("nothing", "hospital") == ids(world, "g")
    assert a.found("nothing") == set()


# answers


def test_whoever_knows_answers_with_the_nearest_four_and_passes_nothing_on() -> None:
    """Rules: R-27"""
    world = SeekWorld([("a", "b"), *(("b", x) for x in "cdefgh")], Config(sources_per_name=1))
    world.hold(NAME, *"cdefgh")
    world.run()
    a, b = world.nodes["a"], world.nodes["b"]
    nearest = {s.holder for s in a.routes.holders(NAME)}
    said = a.seek(NAME, but=nearest)
    world.run()
    assert said == [True]
    assert len(a.found(NAME)) == 4
    assert not a.found(NAME) & nearest
    assert b.of(Seek) == []


def test_ways_that_lead_back_to_the_asker_are_no_answer() -> None:
    """Rules: R-27"""
    world = long_line(3)
    world.hold(NAME, "a")
    world.run()
    b = world.nodes["b"]
    world.nodes["c"].seek(NAME)
    world.run()
    assert ids(world, "a") == world.nodes["c"].found(NAME)
    before = len(b.of(Found))
    world.nodes["a"].seek(NAME)  # b knows a alone, and a is the one that asks
    world.run()
    answers = [frame for frame in b.of(Found)[before:] if frame.body[2]]
    assert answers == []


def test_a_holder_out_of_reach_for_bulk_is_no_answer() -> None:
    """Rules: R-27"""
    world = long_line(4)
    world.run()
    c, d = world.nodes["c"], world.nodes["d"]
    link = next(number for number, name in c.links.items() if name == "d")
    c.routes.update(link, [[sealed(d), 5, None, 0]], world.now)
    world.nodes["a"].seek(NAME)
    world.run()
    assert world.nodes["a"].found(NAME) == set()
    c.routes.update(link, [[sealed(d), None, 5, 0]], world.now)
    world.nodes["a"].seek(NAME)
    world.run()
    assert world.nodes["a"].found(NAME) == {d.id}


def test_excluded_peers_are_not_told() -> None:
    """Rules: R-26, R-27"""
    world = SeekWorld([("a", "b"), ("b", "c"), ("b", "d")], Config())
    world.hold(NAME, "c", "d")
    world.run()
    a = world.nodes["a"]
    assert a.seek(NAME, but=ids(world, "cd")) == []
    world.run()
    assert a.found(NAME) == set()
    sent = [f for f in a.of(Seek) if isinstance(f, Seek)]
    assert all(len(f.body[2]) == 4 for f in sent)


def test_duplicates_are_dropped_however_many_ways_lead_to_a_peer() -> None:
    """Rules: R-29"""
    nodes = "abcdef"
    world = SeekWorld([(x, y) for x in nodes for y in nodes if x < y])
    world.run()
    world.nodes["a"].seek(NAME)
    world.run()
    assert world.counted(Seek)["a"] == 5
    assert all(world.counted(Seek)[x] == 4 for x in "bcdef")  # passed on once: ttl 2, then 1
    assert all(world.nodes[x].ctx.counters["seek_duplicates"] == 4 for x in "bcdef")


def test_the_way_back_is_that_of_the_seek_and_costs_add_up() -> None:
    """Rules: R-30"""
    world = long_line(4)
    world.hold(NAME, "d")
    world.run()
    world.nodes["a"].seek(NAME)
    world.run()
    a, b = world.nodes["a"], world.nodes["b"]
    told = [f for f in b.of(Found) if isinstance(f, Found) and f.body[2]]
    assert len(told) == 1
    assert told[0].body[1] == [b.id[:8]]  # b answers for d by its routes
    assert a.seeker.trail(world.nodes["d"].id).route == (b.id[:8],)


def sealed(node: Node, name: str = NAME) -> bytes:
    return seal_record("mfd", Record(name, b"", 9, 5, 60_000_000, b""), node.key).sealed


def stray(world: SeekWorld, seek: bytes, **other: Any) -> list[Any]:
    route = other.get("route", [world.nodes["c"].id[:8]])
    told = other.get("told", [[sealed(world.nodes["d"]), 5, 1]])
    return [seek, route, told, other.get("more", False)]


def passing(world: SeekWorld) -> bytes:
    """Let b pass a SEEK of a on to c; return its id."""
    seek = bytes(range(16))
    world.nodes["b"].seeker.on_seek(1, [seek, [NAME], b"", 4])
    return seek


def test_found_is_taken_only_from_whom_the_seek_went_to() -> None:
    """Rules: R-30"""
    world = SeekWorld([("a", "b"), ("b", "c"), ("b", "d")])
    world.run()
    b = world.nodes["b"]
    seek = passing(world)
    unknown = stray(world, b"?" * 16)
    b.seeker.on_found(2, unknown)
    b.seeker.on_found(1, stray(world, seek))  # the asker itself
    world.run(0.001)
    assert b.of(Found) == []
    b.seeker.on_found(2, stray(world, seek))
    world.run(0.001)
    (passed,) = b.of(Found)
    assert isinstance(passed, Found)
    assert passed.body[1] == [b.id[:8], world.nodes["c"].id[:8]]
    assert passed.body[2][0][1:] == [105, 2]


def test_a_relay_passes_few_answers_and_one_word_of_more() -> None:
    """Rules: R-30"""
    world = long_line(4)
    world.run()
    b = world.nodes["b"]
    seek = passing(world)
    for _ in range(3 * PASSED_MAX):
        b.seeker.on_found(2, stray(world, seek))
        b.seeker.on_found(2, stray(world, seek, told=[], more=True))
    world.run(0.001)
    bodies = [f.body for f in b.of(Found) if isinstance(f, Found)]
    assert sum(bool(body[2]) for body in bodies) == PASSED_MAX
    assert sum(body[3] for body in bodies) == 1


def test_routes_with_a_peer_twice_or_through_the_receiver_are_dropped() -> None:
    """Rules: R-30"""
    world = long_line(4)
    world.run()
    b, c, d = (world.nodes[n] for n in "bcd")
    seek = passing(world)
    for route in ([c.id[:8], d.id[:8], c.id[:8]], [c.id[:8], b.id[:8]]):
        b.seeker.on_found(2, stray(world, seek, route=route))
    world.run(0.001)
    assert b.of(Found) == []


def test_the_origin_checks_what_it_is_told() -> None:
    """Rules: R-31"""
    world = long_line(4)
    world.run()
    a, d, liar = world.nodes["a"], world.nodes["d"], SimKey(b"liar")
    a.seek(NAME, but=[liar.public_key])
    world.run(0.001)
    seek = next(f for f in a.of(Seek) if isinstance(f, Seek)).body[0]
    good = sealed(d)
    foreign = seal_record("other", Record(NAME, b"", 9, 5, 60_000_000, b""), d.key).sealed
    excluded = seal_record("mfd", Record(NAME, b"", 9, 5, 60_000_000, b""), liar).sealed
    bad = [good[:-1], sealed(d, "another"), foreign, excluded, sealed(a)]
    b = [world.nodes["b"].id[:8]]
    a.seeker.on_found(1, [seek, b, [[record, 1, 1] for record in bad[:4]], False])
    a.seeker.on_found(1, [seek, b, [[record, 1, 1] for record in bad[4:]], False])
    assert a.found(NAME) == set()
    a.seeker.on_found(1, [seek, b, [[good, 1, 1]], False])
    assert a.found(NAME) == {d.id}


def test_the_origin_checks_no_more_than_an_honest_neighbour_passes_on() -> None:
    """Rules: R-30, R-31"""
    world = long_line(3)
    world.run()
    a, c = world.nodes["a"], world.nodes["c"]
    a.seek(NAME)
    world.run(0.001)
    seek = next(f for f in a.of(Seek) if isinstance(f, Seek)).body[0]
    route = [world.nodes["b"].id[:8]]
    checked = a.routes.refused["unsigned"]
    for number in range(5 * PASSED_MAX):
        a.seeker.on_found(1, [seek, route, [[number.to_bytes(100, "big"), 1, 1]], False])
    assert a.routes.refused["unsigned"] - checked == PASSED_MAX
    a.seeker.on_found(1, [seek, route, [[sealed(c), 1, 1]], False])
    assert a.found(NAME) == set()


def test_what_was_found_ends_with_its_time_and_with_its_link() -> None:
    """Rules: R-31"""
    world = SeekWorld([("a", "b"), ("b", "c"), ("a", "x")], ONE)
    world.hold(NAME, "x", "c")
    world.run()
    a = world.nodes["a"]
    a.seek(NAME, but=ids(world, "x"))
    world.run()
    assert a.found(NAME) == ids(world, "c")
    world.cut("a", "b")
    assert a.found(NAME) == set()
    world.link(9, "a", "b")
    world.run(20)
    a.seek(NAME, but=ids(world, "x"))
    world.run()
    assert a.found(NAME) == ids(world, "c")
    world.run(world.config.seek_keep_us / SECOND)
    assert a.found(NAME) == set()


def test_answers_that_come_late_are_kept_all_the_same() -> None:
    """Rules: R-31"""
    world = long_line(4)
    world.run()
    a, d = world.nodes["a"], world.nodes["d"]
    said = a.seek(NAME)
    world.run(5)
    assert said == [False]
    seek = next(f for f in a.of(Seek) if isinstance(f, Seek)).body[0]
    a.seeker.on_found(1, [seek, [world.nodes["b"].id[:8]], [[sealed(d), 1, 1]], False])
    assert a.found(NAME) == {d.id}
    assert said == [False]


# bounds


def test_seek_takes_its_share_of_a_link_and_no_more() -> None:
    """Rules: R-32"""
    world = SeekWorld(line(*"abc"))
    cost = 100_000  # 64 KiB a second: the floor counts
    world.cut("b", "c")
    world.link(7, "b", "c", cost=cost)
    world.run()
    b = world.nodes["b"]
    for second in range(20):
        for number in range(FRAMES_PER_S):
            seek = (second * 1000 + number).to_bytes(16, "big")
            b.seeker.on_seek(1, [seek, ["x" * 400], b"", 4])
        world.run(1)
    sent = sum(size for _, link, frame, size in b.sent if link == 7 and isinstance(frame, Seek))
    floor = world.config.seek_floor_bytes_per_s
    assert 0.5 * 20 * floor < sent <= (20 + 2) * floor
    assert b.ctx.counters["seek_over_share"] > 0


def test_one_neighbour_cannot_make_a_peer_look_at_more_than_so_many() -> None:
    """Rules: R-32"""
    world = long_line(3)
    world.run()
    b = world.nodes["b"]
    for number in range(10 * FRAMES_PER_S):
        b.seeker.on_seek(1, [number.to_bytes(16, "big"), [NAME], b"", 2])
    world.run(0.001)
    assert len(b.of(Seek)) == 2 * FRAMES_PER_S
    assert b.ctx.counters["seek_too_many"] == 8 * FRAMES_PER_S


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: R-29, R-32"""
    monkeypatch.setattr("mfd.core.seek.PASSES_MAX", 8)
    assert PASSES_MAX > 8
    world = long_line(3)
    world.run()
    b = world.nodes["b"]
    for number in range(20):
        b.seeker.on_seek(1, [number.to_bytes(16, "big"), [NAME], b"", 2])
    assert len(b.seeker._passes) == 8
    world.run(11)
    b.seeker.on_seek(1, [b"n" * 16, [NAME], b"", 2])
    assert len(b.seeker._passes) == 1


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        [b"i" * 15, [NAME], b"", 2],
        [b"i" * 16, [], b"", 2],
        [b"i" * 16, [NAME] * 9, b"", 2],
        [b"i" * 16, [""], b"", 2],
        [b"i" * 16, [7], b"", 2],
        [b"i" * 16, [NAME], b"x" * 257, 2],
        [b"i" * 16, [NAME], b"", 0],
        [b"i" * 16, [NAME], b"", 17],
        [b"i" * 16, [NAME], b"", True],
        [b"i" * 16, NAME, b"", 2],
    ],
    ids=str,
)
def test_malformed_seeks_are_dropped(body: Any) -> None:
    """Rules: R-32"""
    world = long_line(3)
    world.run()
    b = world.nodes["b"]
    b.seeker.on_seek(1, body)
    world.run(0.001)
    assert b.of(Seek, Found) == []
    assert b.ctx.counters["seek_malformed"] == 1


MARK = b"m" * 8


@pytest.mark.parametrize(
    "body",
    [
        None,
        [b"i" * 16, [], [], True],
        [b"i" * 16, [MARK] * 17, [], True],
        [b"i" * 16, [b"m" * 7], [], True],
        [b"i" * 16, [MARK], [[b"r", 1, 1]] * 5, False],
        [b"i" * 16, [MARK], [[b"r", -1, 1]], False],
        [b"i" * 16, [MARK], [[b"r", 1, 256]], False],
        [b"i" * 16, [MARK], [[b"r" * 1025, 1, 1]], False],
        [b"i" * 16, [MARK], [b"r"], False],
        [b"i" * 16, [MARK], [], 1],
    ],
    ids=lambda body: str(body)[:60],
)
def test_malformed_answers_are_dropped(body: Any) -> None:
    """Rules: R-32"""
    world = long_line(3)
    world.run()
    world.nodes["b"].seeker.on_found(1, body)
    assert world.nodes["b"].ctx.counters["seek_malformed"] == 1


LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.binary(max_size=20)
PLAIN = LEAF | st.lists(LEAF | st.lists(LEAF, max_size=4), max_size=5)


@settings(max_examples=200, deadline=None)
@given(body=PLAIN, more=PLAIN)
def test_nothing_that_a_neighbour_says_raises(body: Any, more: Any) -> None:
    """Rules: R-32"""
    world = long_line(3)
    node = world.nodes["b"]
    for shape in (body, [b"i" * 16, body, more, 2], [b"i" * 16, [MARK], body, more]):
        node.seeker.on_seek(1, shape)
        node.seeker.on_found(1, shape)


# ways


def circuit_opens(world: SeekWorld, source: str, target: str) -> bool:
    ear = world.nodes[source].connect(world.nodes[target])
    world.run()
    return ear is not None and ear.said[:1] == ["opened"]


def test_a_holder_found_by_its_neighbourhood_is_reached_over_the_way_there() -> None:
    """Rules: R-33, T-27"""
    world = long_line(9, ONE)
    world.hold(NAME, "b", "i")
    world.run()
    a, i = world.nodes["a"], world.nodes["i"]
    a.seek(NAME, but=ids(world, "b"))
    world.run()
    trail = a.seeker.trail(i.id)
    assert trail is not None
    assert len(trail.route) < 8  # somebody on the way has a route
    assert circuit_opens(world, "a", "i")
    assert len(i.ears) == 1
    routes = {n: [f.route for f in world.nodes[n].of(Open) if isinstance(f, Open)] for n in "abc"}
    assert routes["a"] == [trail.route[1:]]
    assert routes["b"] == [trail.route[2:]]


def test_a_way_that_broke_is_forgotten_and_sought_anew() -> None:
    """Rules: R-33"""
    ring = [*line(*"abcdefgh"), ("h", "a")]
    world = SeekWorld(ring)
    world.run()
    assert not circuit_opens(world, "a", "d")
    assert circuit_opens(world, "a", "d")
    world.cut("b", "c")
    assert not circuit_opens(world, "a", "d")  # the way broke; it is forgotten
    assert world.nodes["a"].seeker.trail(world.nodes["d"].id) is None
    world.run(10)
    assert not circuit_opens(world, "a", "d")
    assert circuit_opens(world, "a", "d")


def test_every_hop_of_an_open_is_nearer_or_shortens_its_route() -> None:
    """Rules: R-22, T-03, T-27; S10 of the design"""
    dice = random.Random(5)
    graph = nx.connected_watts_strogatz_graph(16, 4, 0.3, seed=5)
    world = SeekWorld([(NAMES[a], NAMES[b]) for a, b in graph.edges], ONE)
    world.hold(NAME, *dice.sample(NAMES[:16], 4))
    world.run()
    pairs = [(a, b) for a in NAMES[:16] for b in NAMES[:16] if a != b]
    for source, target in dice.sample(pairs, 40):
        if not circuit_opens(world, source, target):
            world.run(5)
            assert circuit_opens(world, source, target), f"{source} does not reach {target}"
    ways: dict[bytes, list[tuple[int, Open]]] = {}
    for node in world.nodes.values():
        for when, _, frame, _ in node.sent:
            if isinstance(frame, Open):
                ways.setdefault(frame.nonce, []).append((when, frame))
    assert len(ways) >= 40
    for steps in ways.values():
        opens = [frame for _, frame in sorted(steps, key=lambda step: step[1].hops)]
        assert [frame.hops for frame in opens] == list(range(1, len(opens) + 1))
        for before, after in pairwise(opens):
            shorter = len(after.route) < len(before.route)
            nearer = (
                before.via is not None
                and after.via is not None
                and (-after.via.seqno, after.via.metric) < (-before.via.seqno, before.via.metric)
            )
            assert shorter or nearer or after.via is None, (before, after)


def test_filters_grow_with_the_excluded_up_to_their_limit() -> None:
    """Rules: R-26"""
    marks = [n.to_bytes(8, "big") for n in range(500)]
    assert make_filter(b"s", []) == b""
    assert len(make_filter(b"s", marks[:10])) == 20
    assert len(make_filter(b"s", marks)) == 256


def test_answers_tell_where_a_holder_can_be_dialled() -> None:
    """Rules: R-48"""
    config = Config(sources_per_name=1, open_network=True)
    world = long_line(8, config)
    world.hold(NAME, "b", "h")
    world.run()
    a, h = world.nodes["a"], world.nodes["h"]
    books = {}
    for name, node in world.nodes.items():
        books[name] = RecordBook(config, sim_verify)
        node.seeker.whereabouts = Whereabouts(node.ctx, books[name])
    record = seal_peer_record(
        "mfd", h.key, seq=1, addresses=("10.0.0.8:7",), caps=2, valid_us=3_600_000_000
    )
    for name in "defgh":
        books[name].learn((record.sealed, 5), world.now)
    a.seek(NAME, but=ids(world, "b"))
    world.run()
    known = books["a"].get(h.id, world.now)
    assert known is not None
    assert known.record.addresses == ("10.0.0.8:7",)
    assert not any(books[name].view() for name in "bc"), "relays pass it on"
    # of somebody else, or none at all: the holder is found all the same
    a.seeker.forget(h.id)
    books["a"]._entries.clear()
    other = seal_peer_record(
        "mfd", SimKey(b"m"), seq=1, addresses=("6.6.6.6:6",), caps=2, valid_us=3_600_000_000
    )
    for name in "defgh":
        where = world.nodes[name].seeker.whereabouts
        where.item = lambda peer: (other.sealed, 1)
    world.run(30)
    a.seek(NAME, but=ids(world, "b"))
    world.run()
    assert a.found(NAME) == {h.id}
    assert not books["a"].view()
    before = a.ctx.counters.get("seek_malformed", 0)
    link = next(iter(a.links))
    for item in ([], [b"x", 1], [bytes(100)], [bytes(100), True], [bytes(2_000), 1]):
        a.seeker.on_found(link, [bytes(16), [bytes(8)], [[b"r", 1, 1, item]], False])
    assert a.ctx.counters["seek_malformed"] == before + 5
