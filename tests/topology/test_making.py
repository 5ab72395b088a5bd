"""Made topologies: connected, of the asked size, the same for the same seed."""

from __future__ import annotations

import networkx as nx
import pytest

from mfd.topology import KINDS, TopologyError, make, to_graph

EDGES = {
    "line": lambda n: n - 1,
    "ring": lambda n: n if n > 2 else n - 1,
    "star": lambda n: n - 1,
    "tree": lambda n: n - 1,
    "clique": lambda n: n * (n - 1) // 2,
}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10, 31])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_sound_at_every_size(kind: str, n: int) -> None:
    topology = make(kind, n, seed=5)
    assert len(topology.nodes) == n
    assert topology.check(addresses=False) == []
    assert make(kind, n, seed=5) == topology
    if kind in EDGES:
        assert len(topology.edges) == EDGES[kind](n)


@pytest.mark.parametrize("kind", ["small-world", "scale-free", "geometric"])
def test_another_seed_gives_another_network(kind: str) -> None:
    assert make(kind, 20, 1) != make(kind, 20, 2)


@pytest.mark.parametrize(("n", "rows", "columns"), [(9, 3, 3), (12, 3, 4), (20, 4, 5)])
def test_a_grid_is_a_grid(n: int, rows: int, columns: int) -> None:
    assert nx.is_isomorphic(to_graph(make("grid", n)), nx.grid_2d_graph(rows, columns))


def test_latency_of_a_geometric_network_is_its_length() -> None:
    latencies = [edge.latency_us for edge in make("geometric", 40, 1).edges]
    assert min(latencies) >= 1
    assert max(latencies) < 10_000
    assert len(set(latencies)) > 20


def test_senseless_wishes_are_answered_with_a_sentence() -> None:
    with pytest.raises(TopologyError, match="There is no topology 'torus'; there are line, ring"):
        make("torus", 4)
    for n in (0, -1, 100_001):
        with pytest.raises(TopologyError, match=f"1 to 100000 nodes, not {n}"):
            make("line", n)
