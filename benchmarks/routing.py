r"""Routing under faults, on the core's own tables: loops, gaps, stretch, messages, size.

Prints Markdown.

    python benchmarks/routing.py [--changes 1000000] [--seed 1] [--peers 80] [--only loops,size,...]

An invented network (tests/core/routing_world.py): random delays of 10 to 50 ms a hop, bytes as they
travel, signatures by a keyed hash. Every change of a next hop is followed to its end at once, while
other news is still under way. Same arguments, same figures.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import networkx as nx

sys.path.insert(0, str(Path(__file__).parents[1]))

from mfd.core.config import Config
from mfd.core.frames import Class, Found, Seek, Update
from mfd.core.names import peer_name
from mfd.core.routestate import State
from mfd.core.routetable import RouteTable
from tests.core.routing_world import SECOND, World
from tests.core.seek_world import SeekWorld

ROUND_US = 70_000  # the slowest hop and the time that news waits for company
FAULTS = 60  # in one storm, 50 ms apart in the mean
R4 = 8
NAMES = tuple(f"site{i}/train" for i in range(4))
HOLDERS = 8


class Watched(RouteTable):
    """A table that notes every change of a next hop."""

    def __init__(self, me: bytes, config: Config) -> None:
        super().__init__(me, config)
        self.changed: list[tuple[str, bytes, Class]] = []

    def select(self, state: State, cls: Class) -> bool:
        before = state.best[cls]
        moved = super().select(state, cls)
        after = state.best[cls]
        if (before and before.link) != (after and after.link):
            self.changed.append((state.newest.name, state.newest.holder, cls))
        return moved


class Observed(World):
    """A world that follows what has changed and nothing else: a million changes take minutes."""

    def _check_said(self, node: int, frame: Update) -> None:
        self.entries += len(frame.body)

    def _check_loops(self, node: int) -> None:
        table: Any = self.peers[node]._table
        changed, table.changed = table.changed, []
        for name, holder, cls in changed:
            self.changes += 1
            self._follow(node, name, holder, cls)

    def _follow(self, node: int, name: str, holder: bytes, cls: Class) -> None:
        seen = {node}
        while True:
            hop = self.peers[node].next_hop(name, holder, cls)
            if hop is None or hop.link not in self._ends:
                return
            node = self._ends[hop.link][1]
            if node in seen:
                self.loops += 1
                return
            seen.add(node)


def shapes(n: int, seed: int) -> dict[str, nx.Graph]:
    """The graphs of the campaign; their edges carry costs of 0.1 to 5 ms."""
    while True:
        geometric = nx.random_geometric_graph(n, (7 / (3.14 * n)) ** 0.5, seed=seed)
        if nx.is_connected(geometric):
            break
        seed += 1_000
    side = max(2, round(n**0.5))
    graphs = {
        "geometric": geometric,
        "line": nx.path_graph(n // 2),
        "ring": nx.cycle_graph(n // 2),
        "tree": nx.balanced_tree(2, max(2, (n + 1).bit_length() - 2)),
        "grid": nx.grid_2d_graph(side, side),
        "barbell": nx.barbell_graph(n // 8, n // 4),
        "small world": nx.connected_watts_strogatz_graph(n, 4, 0.2, seed=seed),
        "scale-free": nx.barabasi_albert_graph(n, 2, seed=seed),
    }
    data = Path(__file__).parents[1] / "../shared/data"
    for path in sorted(data.glob("*.graphml")):
        graphs[path.stem] = nx.Graph(nx.read_graphml(path))
    dice = random.Random(seed)
    out = {}
    for name, graph in graphs.items():
        out[name] = nx.convert_node_labels_to_integers(graph)
        for edge in out[name].edges:
            thin = dice.randint(10, 500)
            out[name].edges[edge].update(thin=thin, bulk=thin * dice.randint(1, 20))
    return out


def settled(
    graph: nx.Graph, seed: int, names: Iterable[str] = NAMES, holders: int = HOLDERS
) -> Observed:
    """A world at rest in which every name has so many holders."""
    world = Observed(graph, seed, config=Config(), table=Watched)
    dice = random.Random(seed)
    for name in names:
        for node in dice.sample(sorted(graph), min(holders, len(graph))):
            world.hold(node, name)
    world.run(10 * SECOND)
    return world


def storm(world: Observed, dice: random.Random) -> None:
    """Overlapping faults: links, restarts, holders that come and go."""
    nodes, edges = sorted(world.graph), sorted(world.graph.edges)
    for _ in range(FAULTS):
        kind, name = dice.random(), dice.choice(sorted(world.held))
        held = sorted(world.held[name])
        if kind < 0.45:
            world.link_down(*dice.choice(edges))
        elif kind < 0.85:
            world.link_up(*dice.choice(edges))
        elif kind < 0.9:
            world.restart(dice.choice(nodes))
        elif kind < 0.95 and len(held) > 1:
            world.unhold(dice.choice(held), name)
        else:
            world.hold(dice.choice(nodes), name)
        world.run(dice.randrange(100_000))


def live(world: Observed) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(world.graph)
    graph.add_edges_from((a, b, world.graph.edges[a, b]) for a, b in world.up)
    return graph


def gaps(world: Observed) -> tuple[int, int]:
    """(peers without any route to a name that has a reachable holder, all such pairs)."""
    without = pairs = 0
    for part in nx.connected_components(live(world)):
        for name, nodes in world.held.items():
            for node in part if nodes & part else ():
                pairs += 1
                without += not world.peers[node].holders(name)
    return without, pairs


def stretch(world: Observed) -> list[float]:
    """Metric of each peer's nearest holder of each name, against the true shortest way."""
    found = []
    graph = live(world)
    for name, nodes in world.held.items():
        far = nx.multi_source_dijkstra_path_length(graph, nodes, weight="thin") if nodes else {}
        for node, true in far.items():
            known = world.peers[node].holders(name)
            if known and true:
                found.append(known[0].metric / true)
    return found


def table(title: str, heads: list[str], rows: Iterable[list[Any]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    for row in rows:
        print(
            "| " + " | ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row) + " |",
            flush=True,
        )


def loops(args: argparse.Namespace) -> Iterator[list[Any]]:
    """Storms over all graphs in turn until there were enough changes."""
    graphs = shapes(args.peers, args.seed)
    share = -(-args.changes // len(graphs))
    total = [0] * 5
    for name, graph in graphs.items():
        dice = random.Random(f"{args.seed}/{name}")
        world = settled(graph, args.seed)
        start, storms, without, pairs, early = world.changes, 0, 0, 0, []
        while world.changes - start < share:
            storm(world, dice)
            storms += 1
            world.run(SECOND // 4)  # the last fault has happened: a restart takes so long
            parts = [live(world).subgraph(p) for p in nx.connected_components(live(world))]
            diameter = max(nx.diameter(part) for part in parts)
            world.run(3 * diameter * ROUND_US)
            some, all_ = gaps(world)
            without, pairs = without + some, pairs + all_
            early += stretch(world)
        world.run(100 * SECOND)
        rest = stretch(world)
        row = [world.changes - start, world.loops, storms, without, pairs]
        total = [a + b for a, b in zip(total, row, strict=True)]
        yield [name, len(graph), *row, mean(early), mean(rest), max(rest)]
    yield ["**all**", "", *total, "", "", ""]


def failures(args: argparse.Namespace) -> Iterator[list[Any]]:
    """Single links that fail, one after the other, in networks at rest."""
    for name, graph in shapes(args.peers, args.seed).items():
        world = settled(graph, args.seed)
        _rest(world)
        edges = random.Random(args.seed).sample(sorted(graph.edges), min(args.links, graph.size()))
        entries, frames, ratios = [], [], []
        for edge in edges:
            before = _routes(world)
            entries_0, frames_0 = world.entries, world.frames
            world.link_down(*edge)
            world.run(100 * SECOND)  # the lazy repair included
            after = _routes(world)
            changed = [key for key in before if before[key] != after.get(key)]
            bound = R4 * sum(graph.degree[key[0]] for key in changed)
            entries.append(world.entries - entries_0)
            frames.append(world.frames - frames_0)
            ratios.append(entries[-1] / bound if bound else float(entries[-1] > 0))
            world.link_up(*edge)
            _rest(world)
        yield [
            name,
            len(edges),
            median(frames),
            max(frames),
            median(entries),
            max(entries),
            max(ratios),
        ]


def _rest(world: Observed) -> None:
    """Wait until nobody says anything any more, not at the lazy pace either."""
    frames = -1
    while frames != world.frames:
        frames = world.frames
        world.run(200 * SECOND)


def _routes(world: Observed) -> dict[Any, Any]:
    return {
        (node, s.newest.name, s.newest.holder, cls): (best.link, best.record.seqno, best.metric)
        for node, peer in world.peers.items()
        for states in peer._table.names.values()
        for s in states.values()
        for cls in Class
        if (best := s.best[cls])
    }


def seeks(args: argparse.Namespace) -> Iterator[list[Any]]:
    """Searches for holders beyond those that routing tells of, and for peers by their id."""
    for name, graph in shapes(args.peers, args.seed).items():
        dice = random.Random(f"{args.seed}/{name}")
        world = SeekWorld([(f"{a:03}", f"{b:03}") for a, b in graph.edges])
        nodes = sorted(world.nodes)
        world.hold("d", *dice.sample(nodes, min(20, len(nodes) // 2)))
        world.run(20)
        for kind in ("holder", "peer"):
            found, times, frames, volume = [], [], [], []
            for source in dice.sample(nodes, args.searches):
                node = world.nodes[source]
                other = world.nodes[dice.choice([n for n in nodes if n != source])]
                known = {s.holder for s in node.routes.holders("d")} | {node.id}
                wanted = ("d", known) if kind == "holder" else (peer_name(other.id), ())
                for each in world.nodes.values():
                    each.sent.clear()
                start, said = world.now, node.seek(wanted[0], but=wanted[1])
                while not said:
                    world.run(0.05)
                world.run(1)
                sent = [s for n in world.nodes.values() for s in n.sent]
                mine = [s for s in sent if isinstance(s[2], Seek | Found)]
                found.append(said[0])
                times.append((world.now - start) / SECOND - 1)
                frames.append(len(mine) / len(nodes))
                volume.append(sum(size for *_, size in mine) / len(nodes))
                world.run(30)
            yield [
                name,
                kind,
                f"{sum(found)}/{len(found)}",
                median(times),
                median(frames),
                max(frames),
                median(volume),
            ]


def size(args: argparse.Namespace) -> Iterator[list[Any]]:
    """Tables for 256 names of 4 holders each."""
    for n in args.sizes:
        graph = nx.random_regular_graph(6, n, seed=args.seed) if n > 6 else nx.complete_graph(n)
        for edge in graph.edges:
            graph.edges[edge].update(thin=100, bulk=100)
        tracemalloc.start()
        world = settled(graph, args.seed, [f"name{i:03}" for i in range(256)], holders=4)
        world.run(5 * SECOND)
        world._best_said.clear()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        tables = [peer._table for peer in world.peers.values()]
        sources = [t.count for t in tables]
        adverts = [sum(nb.adverts for nb in t.links.values()) for t in tables]
        yield [n, max(sources), mean(adverts), max(adverts), held / n / 1e6, world.entries / n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=100_000, help="of next hops, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", type=int, default=80)
    parser.add_argument("--links", type=int, default=12, help="that fail, of each graph")
    parser.add_argument(
        "--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[8, 16, 32, 64]
    )
    parser.add_argument("--searches", type=int, default=12, help="on each graph, of each kind")
    parser.add_argument("--only", default="loops,failures,seeks,size")
    args = parser.parse_args()
    print(f"`{shlex.join(['python', *sys.argv])}`, seed {args.seed}")
    start = time.perf_counter()
    if "loops" in args.only:
        table(
            "Storms of overlapping faults",
            [
                "graph",
                "peers",
                "next-hop changes",
                "loops",
                "storms",
                "without a route after 3 x diameter rounds",
                "of",
                "stretch then",
                "stretch at rest",
                "largest",
            ],
            loops(args),
        )
    if "failures" in args.only:
        table(
            f"One link fails: messages, and entries against R4 ({R4} x changed routes x degree)",
            [
                "graph",
                "failures",
                "frames, median",
                "most",
                "entries, median",
                "most",
                "largest share of R4",
            ],
            failures(args),
        )
    if "seeks" in args.only:
        table(
            "SEEK for one of 20 holders beyond those known, and for a peer that announces nothing",
            [
                "graph",
                "for a",
                "found",
                "s, median",
                "frames a peer, median",
                "most",
                "bytes a peer, median",
            ],
            seeks(args),
        )
    if "size" in args.only:
        table(
            "Tables for 256 names of 4 holders each, degree 6",
            ["peers", "sources", "adverts heard, mean", "most", "MB a peer", "entries sent a peer"],
            size(args),
        )
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
