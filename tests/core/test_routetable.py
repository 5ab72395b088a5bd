"""Whole networks under faults, and the four traps of routing with the rule broken on purpose."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from blake3 import blake3

from mfd.core.config import Config
from mfd.core.frames import Class, Update
from mfd.core.routestate import STARVING, Route, State, Want
from mfd.core.routetable import RouteTable
from tests.core.routing_world import SECOND, Broken, World


def geometric(n: int, seed: int) -> nx.Graph:
    """Unit square, mean degree about seven, connected."""
    while True:
        graph = nx.random_geometric_graph(n, (7 / (3.14 * n)) ** 0.5, seed=seed)
        if nx.is_connected(graph):
            return graph
        seed += 1_000


GRAPHS: dict[str, Callable[[int], nx.Graph]] = {
    "line": lambda seed: nx.path_graph(10),
    "ring": lambda seed: nx.cycle_graph(12),
    "grid": lambda seed: nx.grid_2d_graph(4, 5),
    "barbell": lambda seed: nx.barbell_graph(5, 4),
    "geometric": lambda seed: geometric(24, seed),
    "clique": lambda seed: nx.complete_graph(8),
    "star": lambda seed: nx.star_graph(9),
    "tree": lambda seed: nx.balanced_tree(2, 3),
    "small world": lambda seed: nx.connected_watts_strogatz_graph(20, 4, 0.2, seed=seed),
    "scale-free": lambda seed: nx.barabasi_albert_graph(20, 2, seed=seed),
}
REAL = sorted((Path(__file__).parents[2] / "../shared/data").glob("*.graphml"))
ROUND_US = 70_000  # the slowest hop, and the time that news waits for company


def build(
    graph: nx.Graph, seed: int, *, holders: int = 6, kind: type[World] = World, **rules: Any
) -> World:
    """Make a world at rest: `holders` of "a", one of "b"; few distinct costs, so ties abound."""
    dice = random.Random(seed)
    graph = nx.convert_node_labels_to_integers(graph)
    for edge in graph.edges:
        graph.edges[edge].update(thin=dice.randint(1, 4) * 10, bulk=dice.randint(1, 4) * 10)
    world = kind(graph, seed, config=Config(sources_per_name=3, names_max=8), **rules)
    for node in dice.sample(sorted(graph), min(holders, len(graph))):
        world.hold(node, "a")
    world.hold(dice.choice(sorted(graph)), "b")
    world.run(5 * SECOND)
    return world


def storm(world: World, seed: int, events: int = 50) -> None:
    """Overlapping faults, one every 50 ms in the mean."""
    dice = random.Random(seed * 7 + 1)
    nodes, edges = sorted(world.graph), sorted(world.graph.edges)
    for _ in range(events):
        kind, held = dice.random(), sorted(world.held["a"])
        if kind < 0.45:
            world.link_down(*dice.choice(edges))
        elif kind < 0.85:
            world.link_up(*dice.choice(edges))
        elif kind < 0.9:
            world.restart(dice.choice(nodes))
        elif kind < 0.95 and len(held) > 1:
            world.unhold(dice.choice(held), "a")
        else:
            world.hold(dice.choice(nodes), "a")
        world.run(dice.randrange(100_000))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", GRAPHS)
def test_no_loop_under_faults_and_the_true_nearest_afterwards(shape: str, seed: int) -> None:
    """Rules: R-06, R-07, R-09, R-10, R-11, R-17"""
    survives(build(GRAPHS[shape](seed), seed), seed)


@pytest.mark.skipif(not REAL, reason="no maps of real networks in ../shared/data")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_no_loop_in_real_networks_either(path: Path) -> None:
    """Rules: R-07, R-09, R-10, R-11, R-17"""
    survives(build(nx.Graph(nx.read_graphml(path)), 1), 1)


def survives(world: World, seed: int) -> None:
    """S8, S9 in every event; L2: after 3 x diameter rounds all have a route; then the best ones."""
    world.check_nearest()
    storm(world, seed)
    live = nx.Graph(list(world.up))
    live.add_nodes_from(world.graph)
    diameter = max(nx.diameter(live.subgraph(part)) for part in nx.connected_components(live))
    world.run(max(1, 3 * diameter) * ROUND_US)
    world.check_nobody_starves()
    world.run(100 * SECOND)  # the lazy repair of detours included
    world.check_nearest()  # a stretch of 1
    assert world.changes > 50
    frames = world.frames
    world.run(300 * SECOND)
    assert world.frames == frames, "a network at rest is silent"


@pytest.mark.parametrize("shape", ["grid", "geometric", "clique"])
def test_one_link_that_fails_costs_few_messages(shape: str) -> None:
    """Entries per failure stay below 8 x (what changed) x (who must hear of it)."""
    world = build(GRAPHS[shape](1), 1)

    def routes() -> dict[tuple[int, str, bytes, Class], Any]:
        return {
            (node, name, holder, cls): hop[1:]
            for node, peer in world.peers.items()
            for name in world.held
            for holder in world.node_of
            for cls in Class
            if (hop := peer.next_hop(name, holder, cls))
        }

    for edge in sorted(world.graph.edges)[::3]:
        before, entries = routes(), world.entries
        world.link_down(*edge)
        world.run(8 * SECOND)
        after = routes()
        changed = [key for key in before if before[key] != after.get(key)]
        hearers = sum(world.graph.degree[key[0]] for key in changed)
        assert world.entries - entries <= 8 * hearers
        world.link_up(*edge)
        world.run(40 * SECOND)


DIGEST = """
from hashlib import sha256
from tests.core.test_routetable import build, geometric, storm
world = build(geometric(16, 2), 2)
storm(world, 2)
world.run(40_000_000)
print(world.frames, sha256(repr([p.snapshot() for p in world.peers.values()]).encode()).hexdigest())
"""


def test_the_same_seed_gives_the_same_network_under_any_hash_seed() -> None:
    """Rules: R-23"""
    root = Path(__file__).parents[2]
    seen = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


# the four traps, each with the rule broken on purpose


class NeverLowered(RouteTable):
    """Lowers the distance for the first advertisement of a seqno only."""

    def lower(self, state: State, cls: Class, told: Route) -> None:
        limit = state.feasibility[cls]
        if limit is None or told.record.seqno > limit[0]:
            super().lower(state, cls, told)


class LocalOrder(RouteTable):
    """Breaks ties in an order of its own."""

    def order(self, route: Route) -> tuple[Any, ...]:
        return (route.metric, blake3(self.me + route.record.holder).digest())


class AsksForThePruned(RouteTable):
    """Misses every holder that it cannot reach, though the name has routes."""

    def wants(self, name: str) -> tuple[int, list[Want]]:
        missed = [
            Want(metric, holder, cls, link)
            for holder, state in self.names.get(name, {}).items()
            for cls in Class
            for metric, link, _ in self.reachable(state, cls)
            if state.best[cls] is None
        ]
        return (STARVING, sorted(missed)) if missed else super().wants(name)


class ForgetsWithTheRoute(RouteTable):
    """Drops the distance together with the last route."""

    def _is_idle(self, state: State, now_us: int) -> bool:
        return not state.adverts and not any(state.best)


class LoopsOnly(World):
    """Looks at loops alone, so that a broken rule must show its harm, not its breach."""

    def _check_said(self, node: int, frame: Update) -> None:
        pass


def loops(table: type[RouteTable], seeds: range) -> int:
    """Count the seeds whose storm shows a loop."""
    found = 0
    for seed in seeds:
        try:
            world = build(geometric(20, seed), seed, table=table, kind=LoopsOnly)
            storm(world, seed, events=80)
        except Broken as broken:
            found += "S8" in str(broken)
    return found


def test_trap_1_a_distance_not_lowered_with_every_advertisement_makes_loops() -> None:
    """Rules: R-09"""
    with pytest.raises(Broken, match="S9"):
        build(geometric(20, 0), 0, table=NeverLowered)
    world = build(geometric(20, 0), 0)
    assert loops(NeverLowered, range(2)) > 0
    world.check_nearest()


def test_trap_2_ties_broken_in_local_orders_lose_the_nearest() -> None:
    """Rules: R-11"""
    build(geometric(20, 3), 3).check_nearest()
    with pytest.raises(Broken, match="the truth is"):
        build(geometric(20, 3), 3, table=LocalOrder).check_nearest()


def prunings(table: type[RouteTable]) -> int:
    """Count the requests while ever more holders appear and others are pruned; nothing fails."""
    world = build(geometric(20, 5), 5, holders=2, table=table)
    for node in sorted(world.graph):
        world.hold(node, "a")
        world.run(SECOND)
    world.check_nearest()
    return world.asked


def test_trap_3_pruning_sets_off_no_requests() -> None:
    """Rules: R-18"""
    assert prunings(RouteTable) == 0
    assert prunings(AsksForThePruned) > 20


def test_trap_4_a_distance_forgotten_with_its_route_makes_loops() -> None:
    """Rules: R-10"""
    storms = range(1, 3)
    assert loops(RouteTable, storms) == 0
    assert loops(ForgetsWithTheRoute, storms) > 0
