"""Journeys beyond the nearest four: every holder is visited, whatever the graph."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import networkx as nx
import pytest

from mfd.core.config import Config
from mfd.core.events import Ticked
from mfd.core.frames import Class
from mfd.core.messages import Kind
from mfd.core.names import peer_name
from mfd.packet.manifest import Manifest
from mfd.sim.standin import StandIn
from mfd.sim.world import Host, World
from mfd.topology import make
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

FEW = Config(sources_per_name=2)


def edges_of(kind: str, n: int) -> list[tuple[str, str]]:
    return [(edge.a, edge.b) for edge in make(kind, n, seed=3).edges]


def at_home(host: Host, walker: bytes) -> Manifest:
    version = host.peer.version(walker)
    return version.manifest


def stops(home: Host) -> list[str]:
    return [told["peer"] for told in reports(home, "stop")]


def ids(world: World, names: list[str]) -> set[str]:
    return {world.hosts[name].key.public_key.hex() for name in names}


@pytest.mark.parametrize(
    "kind", ["line", "ring", "star", "tree", "grid", "small-world", "scale-free", "geometric"]
)
def test_a_lap_visits_every_holder_though_routing_tells_few(kind: str) -> None:
    """Rules: W-04, W-15"""
    edges = edges_of(kind, 12)
    names = sorted({name for edge in edges for name in edge})
    holders = names[1::2] + names[:1]
    world = world_of(edges, holders, config=FEW)
    birth = walker_for(world, names[0], layers=2, floats=20, laps=2, min_holders=len(holders))
    inject(world, names[0], birth)
    home = world.hosts[names[0]]
    assert world.run(until=arrived(home), seconds=600)
    seen = stops(home)
    assert len(seen) == 2 * len(holders)
    assert set(seen[: len(holders)]) == set(seen[len(holders) :]) == ids(world, holders)


def cliques(left: str, right: str) -> list[tuple[str, str]]:
    """Two cliques joined by a line of three."""
    pairs = [(x, y) for side in (left, right) for x in side for y in side if x < y]
    return [*pairs, (left[-1], "m"), ("m", "n"), ("n", right[0])]


def test_the_fourth_choice_goes_to_a_holder_that_seek_has_brought() -> None:
    """Rules: W-15"""
    world = world_of(cliques("abcdef", "pqrs"), "abcdefpqrs", config=FEW)
    birth = walker_for(world, "a", layers=2, floats=20, laps=1)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=600)
    chosen = [c for h in world.hosts.values() for c in reports(h, "chosen")]
    brought = [c for c in chosen if c["reason"].startswith("found by SEEK")]
    assert brought
    assert len(set(stops(home))) == 10
    assert ids(world, ["p", "q", "r", "s"]) & {c["target"] for c in brought}


def test_few_holders_are_all_there_are_and_nothing_is_sought() -> None:
    """Rules: W-15"""
    world = world_of(pairwise("abcdef"), "ace", config=Config(sources_per_name=4))
    world.run(seconds=1)
    birth = walker_for(world, "a", layers=2, floats=20, laps=2, min_holders=3)
    inject(world, "a", birth)
    assert world.run(until=arrived(world.hosts["a"]), seconds=600)
    assert all("seeks_sent" not in h.peer.status().counters for h in world.hosts.values())


def test_federated_rounds_reach_all_holders_through_seek() -> None:
    """Rules: W-11, W-15"""
    world = world_of(pairwise("abcdefghij"), "bdfhj", config=Config(sources_per_name=1))
    world.hosts["a"].learner = StandIn()  # it merges
    birth = walker_for(world, "a", layers=2, floats=20, laps=2, mode="fedavg", min_holders=5)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=600)
    assert at_home(home, birth.walker).progress.stops == 10
    assert all(len(world.hosts[name].learner.tasks) == 2 for name in "bdfhj")


# names


def test_a_prefix_leads_to_everything_beneath_it_one_name_a_lap() -> None:
    """Rules: W-14"""
    world = world_of(pairwise("abcd"), "")
    for host in world.hosts.values():
        host.learner = StandIn()
    world.hosts["b"].hold("hospital/xray/train", 10)
    world.hosts["b"].hold("hospital/ct/train", 10)
    world.hosts["d"].hold("hospital/xray/train", 10)
    world.hosts["c"].hold("farm/train", 10)
    birth = walker_for(world, "a", layers=2, floats=20, names=("hospital",), min_holders=2)
    inject(world, "a", birth)
    assert world.run(until=arrived(world.hosts["a"]), seconds=60)
    trained = {n: [t.name for t in h.learner.tasks] for n, h in world.hosts.items()}
    assert trained == {
        "a": [],
        "b": ["hospital/ct/train", "hospital/xray/train"],
        "c": [],
        "d": ["hospital/xray/train"] * 2,
    }


def test_any_of_several_names_will_do() -> None:
    """Rules: W-14"""
    world = world_of(pairwise("abc"), "")
    for name, data in (("b", "left"), ("c", "right")):
        world.hosts[name].learner = StandIn()
        world.hosts[name].hold(data, 10)
    birth = walker_for(world, "a", layers=2, floats=20, names=("left", "right"), min_holders=2)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=60)
    assert at_home(home, birth.walker).progress.stops == 4


def test_what_a_plan_measures_on_is_not_trained_on() -> None:
    """Rules: W-14"""
    world = world_of(pairwise("abcd"), "")
    for name in "bcd":
        world.hosts[name].learner = StandIn()
    world.hosts["b"].hold("digits/test", 10)  # holds nothing else: nearest, and unfit
    world.hosts["c"].hold("digits/train", 10)
    world.hosts["c"].hold("digits/test", 10)
    world.hosts["d"].hold("digits/train", 10)
    birth = walker_for(
        world, "a", layers=2, floats=20, names=("digits",), verify=("digits/test",), min_holders=2
    )
    inject(world, "a", birth)
    home = world.hosts["a"]
    start = world.now_us
    assert world.run(until=arrived(home), seconds=60)
    assert world.now_us - start < 20e6, "an unfit holder is not waited for"
    kinds = {(t.kind, t.name) for h in world.hosts.values() if h.learner for t in h.learner.tasks}
    assert kinds == {("train", "digits/train"), ("measure", "digits/test")}
    assert at_home(home, birth.walker).progress.stops == 4


# far peers


def test_home_announces_itself_while_its_walker_is_out() -> None:
    """Rules: R-34"""
    world = world_of(pairwise("abcd"), "d")
    birth = walker_for(world, "a", layers=2, floats=20, laps=3, copies=1)
    inject(world, "a", birth)
    home, d = world.hosts["a"], world.hosts["d"]
    name = peer_name(home.key.public_key)

    def known() -> bool:
        return d.peer._routes.next_hop(name, home.key.public_key, Class.THIN) is not None

    out = False
    while not reports(home, "arrived"):
        assert world.run(seconds=0.1) is False
        role = home.peer.status().walkers[0].role
        if role in ("shadow", "released") and world.now_us > 2e6:
            out = True
            assert known(), f"home is {role} and cannot be found"
        assert world.now_us < 60e6
    assert out
    world.run(seconds=5)
    assert not known()


def test_a_peer_of_which_no_route_tells_is_reached_through_seek() -> None:
    """Rules: R-33"""
    world = world_of(pairwise("abcdefg"), "")
    world.run(seconds=1)
    a, g = world.hosts["a"], world.hosts["g"]
    assert g.peer.status().routes == a.peer.status().routes == ()
    heard = []
    g.peer._courier._deliver = heard.append
    world.deliver(a, a.life, Ticked())  # what it sends is of this instant
    a.peer._courier.send(g.key.public_key, Kind.CANCEL, bytes(32))
    world.happen(a, Ticked())
    world.run(seconds=8)
    assert [(m.kind, m.sender) for m in heard] == [(Kind.CANCEL, a.key.public_key)]
    assert a.peer.status().counters["seeks_sent"] >= 1


def test_the_configuration_says_four() -> None:
    assert Config().sources_per_name == 4
    assert replace(Config(), sources_per_name=2) == FEW


@pytest.mark.parametrize("kind", sorted(["barbell", "clique"]))
def test_other_graphs(kind: str) -> None:
    """Rules: W-04, W-15"""
    graph = nx.barbell_graph(4, 3) if kind == "barbell" else nx.complete_graph(9)
    edges = [(f"n{a:02}", f"n{b:02}") for a, b in graph.edges]
    names = sorted({n for edge in edges for n in edge})
    world = world_of(edges, names, config=FEW)
    birth = walker_for(world, names[0], layers=2, floats=20, laps=1)
    inject(world, names[0], birth)
    home = world.hosts[names[0]]
    assert world.run(until=arrived(home), seconds=600)
    assert set(stops(home)) == ids(world, names)
