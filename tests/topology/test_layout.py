"""Places of nodes: everybody somewhere, near ones near, the same each time."""

from __future__ import annotations

from math import dist

import pytest

from mfd.topology import KINDS, Edge, Node, Topology, make, place


@pytest.mark.parametrize("n", [1, 2, 3, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_every_node_has_a_place_of_its_own_within_the_square(kind: str, n: int) -> None:
    topology = make(kind, n, 1)
    at = place(topology)
    assert list(at) == list(topology.nodes)
    assert all(-1e-9 <= v <= 1 + 1e-9 for point in at.values() for v in point)
    points = list(at.values())
    apart = [dist(a, b) for i, a in enumerate(points) for b in points[:i]]
    assert not apart or min(apart) > 0.01
    assert place(topology) == at


def test_a_line_lies_flat_and_in_order() -> None:
    at = place(make("line", 10))
    xs = [x for x, _ in at.values()]
    assert xs in (sorted(xs), sorted(xs, reverse=True))
    assert max(y for _, y in at.values()) < 0.1


def test_distances_follow_hops() -> None:
    topology = make("grid", 25)
    at, names = place(topology), list(topology.nodes)
    near = [dist(at[e.a], at[e.b]) for e in topology.edges]
    corners = dist(at[names[0]], at[names[-1]])
    assert max(near) < 1.5 * min(near)
    assert corners > 3 * max(near)


def test_islands_and_nothing_at_all() -> None:
    assert place(Topology({})) == {}
    two = Topology({name: Node() for name in "abcd"}, (Edge("a", "b"), Edge("c", "d")))
    at = place(two)
    assert dist(at["a"], at["b"]) < dist(at["a"], at["c"])


def test_large_networks_are_placed_too() -> None:
    at = place(make("scale-free", 1_000, 1))
    assert len(set(at.values())) == 1_000
