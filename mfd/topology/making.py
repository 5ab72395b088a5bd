"""Topologies made to measure: line, ring, grid, small world and others, from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isqrt

from mfd.topology.values import Edge, Node, Topology, TopologyError

__all__ = ["KINDS", "PURPOSES", "make"]

NODES_MAX = 100_000
DIAGONAL_US = 10_000  # latency from corner to corner of a geometric topology


def make(kind: str, n: int, seed: int = 0) -> Topology:
    """Return a connected topology of `n` nodes; same arguments, same topology.

    Raises: TopologyError for an unknown kind or a senseless size.
    """
    if kind not in KINDS:
        raise TopologyError(f"There is no topology {kind!r}; there are {', '.join(KINDS)}.")
    if not 1 <= n <= NODES_MAX:
        raise TopologyError(f"A topology has 1 to {NODES_MAX} nodes, not {n}.")
    width = len(str(n))
    names = [f"peer{number:0{width}}" for number in range(1, n + 1)]
    pairs = sorted({(min(a, b), max(a, b), us) for a, b, us in KINDS[kind](n, seed)})
    return Topology(
        {name: Node() for name in names},
        tuple(Edge(names[a], names[b], latency_us=us) for a, b, us in pairs),
    )


Pairs = Iterable[tuple[int, int, int]]  # two nodes and the latency between them, 0: not known


def _line(n: int, _: int) -> Pairs:
    return ((i, i + 1, 0) for i in range(n - 1))


def _ring(n: int, _: int) -> Pairs:
    return ((i, (i + 1) % n, 0) for i in range(n if n > 2 else n - 1))


def _star(n: int, _: int) -> Pairs:
    return ((0, i, 0) for i in range(1, n))


def _tree(n: int, _: int) -> Pairs:
    return (((i - 1) // 2, i, 0) for i in range(1, n))


def _barbell(n: int, _: int) -> Pairs:
    """Two cliques of a third of the nodes each, joined by a line of the rest."""
    bell = max(1, n // 3)
    left = [(i, j, 0) for i in range(bell) for j in range(i + 1, bell)]
    right = [(n - 1 - i, n - 1 - j, 0) for i, j, _ in left]
    return [*left, *((i, i + 1, 0) for i in range(bell - 1, n - bell)), *right]


def _clique(n: int, _: int) -> Pairs:
    return ((i, j, 0) for i in range(n) for j in range(i + 1, n))


def _grid(n: int, _: int) -> Pairs:
    """Nearly square; the last row may be short."""
    columns = isqrt(n - 1) + 1
    right = [(i, i + 1, 0) for i in range(n - 1) if (i + 1) % columns]
    return right + [(i, i + columns, 0) for i in range(n - columns)]


def _small_world(n: int, seed: int) -> Pairs:
    import networkx as nx

    if n < 4:
        return _ring(n, seed)
    graph = nx.connected_watts_strogatz_graph(n, min(4, n - 1), 0.2, tries=1_000, seed=seed)
    return ((a, b, 0) for a, b in graph.edges)


def _scale_free(n: int, seed: int) -> Pairs:
    import networkx as nx

    if n < 4:
        return _line(n, seed)
    return ((a, b, 0) for a, b in nx.barabasi_albert_graph(n, 2, seed=seed).edges)


def _geometric(n: int, seed: int) -> Pairs:
    """Points in the unit square, linked within the smallest radius tried that connects them."""
    import networkx as nx

    radius = (2 / n) ** 0.5
    while True:
        graph = nx.random_geometric_graph(n, radius, seed=seed)
        if nx.is_connected(graph):
            break
        radius *= 1.1
    at = nx.get_node_attributes(graph, "pos")
    scale = DIAGONAL_US / 2**0.5
    for a, b in graph.edges:
        apart = ((at[a][0] - at[b][0]) ** 2 + (at[a][1] - at[b][1]) ** 2) ** 0.5
        yield a, b, max(1, round(apart * scale))


KINDS: dict[str, Callable[[int, int], Pairs]] = {
    "line": _line,
    "ring": _ring,
    "star": _star,
    "tree": _tree,
    "grid": _grid,
    "clique": _clique,
    "barbell": _barbell,
    "small-world": _small_world,
    "scale-free": _scale_free,
    "geometric": _geometric,
}

PURPOSES: dict[str, str] = {
    "line": "The longest ways for its size: every model passes everybody in between.",
    "ring": "Two ways between any two peers: one link may fail, the second one cuts it in two.",
    "star": "All ways lead through the peer in the middle: what does it carry, what if it fails?",
    "tree": "One way between any two peers and short ones: every failure cuts off a branch.",
    "grid": "Many ways of the same length between far peers, as in a hall or a city.",
    "clique": "Everybody is linked to everybody: the limit that a real network never reaches.",
    "barbell": "Two dense groups on a thin line: holders nearby crowd out those on the other side.",
    "small-world": "Neighbourhoods with a few far links: short ways in spite of few links.",
    "scale-free": "Few peers with many links, many with few, as where newcomers join the known.",
    "geometric": "Peers in a plane, linked where they are near: radio, rooms, robots.",
}
