"""Topologies as values: what is wrong with one, and what a link costs."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest

from mfd.topology import BULK_BYTES, Edge, Node, Topology, link_cost, load, to_graph

SHIPPED = Path(__file__).parents[2] / "topologies"
HERE = Node("127.0.0.1:0")


def test_a_sound_topology_has_no_problems() -> None:
    assert Topology({"a": HERE, "b": HERE}, (Edge("a", "b"),)).check() == []


@pytest.mark.parametrize(
    ("topology", "problem"),
    [
        (Topology({}), "The topology has no nodes."),
        (Topology({"a": HERE}, (Edge("a", "x"),)), "Edge a - x: there is no node x."),
        (Topology({"a": HERE}, (Edge("a", "a"),)), "a node cannot be linked to itself"),
        (
            Topology({"a": HERE, "b": HERE}, (Edge("a", "b"), Edge("b", "a"))),
            "Edge b - a is given twice.",
        ),
        (Topology({"a": HERE, "b": HERE}), "The network falls into 2 islands: a; b."),
        (Topology({"a": Node()}), "Node a has no address."),
        (Topology({"a": Node("localhost")}), "'localhost' is not of the form host:port"),
        (Topology({"a": Node("host:70000")}), "not of the form host:port"),
        (Topology({"a": Node(":80")}), "not of the form host:port"),
        (
            Topology({"a": Node("h:80"), "b": Node("h:80")}, (Edge("a", "b"),)),
            "Nodes a and b share h:80.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_problem_is_one_sentence(topology: Topology, problem: str) -> None:
    (found,) = topology.check()
    assert problem in found


def test_addresses_matter_only_where_they_are_used() -> None:
    assert Topology({"a": Node()}).check(addresses=False) == []


def test_islands_are_named_but_not_at_length() -> None:
    nodes = {f"n{i}": HERE for i in range(9)}
    edges = tuple(Edge("n0", f"n{i}") for i in range(1, 8))
    assert Topology(nodes, edges).check() == [
        "The network falls into 2 islands: n0, n1, n2, n3, n4, ...; n8."
    ]


def test_a_links_cost_is_its_time_in_units_of_ten_microseconds() -> None:
    assert link_cost(Edge("a", "b")) == 100
    assert link_cost(Edge("a", "b", latency_us=2_000)) == 200
    assert link_cost(Edge("a", "b", latency_us=1)) == 1
    gigabit = Edge("a", "b", latency_us=500, bandwidth_bps=10**9)
    assert link_cost(gigabit) == 102  # 500 us + 524 us
    assert link_cost(gigabit, BULK_BYTES) == 53_737
    assert link_cost(Edge("a", "b", latency_us=2_000, loss=0.5)) == 400
    assert link_cost(Edge("a", "b", bandwidth_bps=1), BULK_BYTES) == 1 << 30


def test_neighbours_follow_the_edges() -> None:
    topology = load(SHIPPED / "campus6.toml")
    assert topology.neighbours("relay") == ["maths", "library", "clinic"]
    assert topology.neighbours("nobody") == []


def test_the_campus_is_what_its_comment_says() -> None:
    campus = load(SHIPPED / "campus6.toml")
    assert campus.check() == []
    holders = [name for name, node in campus.nodes.items() if "digits/train" in node.hold]
    parts = {campus.nodes[name].hold["digits/train"] for name in holders}
    assert parts == {f"sklearn:digits?part={i}/5&skew=0.3&seed=1" for i in range(1, 6)}
    assert [name for name, node in campus.nodes.items() if node.relay] == ["relay"]
    testers = [name for name, node in campus.nodes.items() if "digits/test" in node.hold]
    assert len(testers) == 1
    assert testers[0] in holders
    graph = to_graph(campus)
    assert sorted(n.address for n in campus.nodes.values()) == [
        f"127.0.0.1:{port}" for port in range(47611, 47617)
    ]
    assert not graph.has_edge("maths", "library")
    assert nx.shortest_path_length(graph, "library", "physics") == 3
    assert nx.shortest_path(graph, "maths", "library") == ["maths", "relay", "library"]
    graph.remove_node("relay")
    assert not nx.has_path(graph, "maths", "library")


def test_the_line_is_sound_and_its_middle_is_a_relay() -> None:
    line = load(SHIPPED / "line3.toml")
    assert line.check() == []
    assert line.nodes["middle"].relay
    assert not line.nodes["left"].relay
    assert not Node(custodian=True).relay
