"""Every format there and back; every way to be unreadable is one sentence with the file's name."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest

from mfd.topology import (
    Edge,
    Node,
    Topology,
    TopologyError,
    dump,
    from_graph,
    load,
    make,
    to_graph,
)
from mfd.topology.files import WRITERS

DATA = Path(__file__).parents[3] / "shared" / "data"
RICH = Topology(
    {
        "north": Node(
            "127.0.0.1:0", {"a/b": "npz:x.npz?y=1&z=2", "c": "idx:d"}, memory_bytes=1 << 33
        ),
        'so"uth': Node("h\u00f6st:1", custodian=True, speed=2.5),
        "7": Node(),
    },
    (
        Edge("north", 'so"uth', latency_us=1_500, bandwidth_bps=10**10, loss=0.01),
        Edge('so"uth', "7"),
    ),
)


@pytest.mark.parametrize("ending", WRITERS)
def test_what_is_dumped_is_loaded_again(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rich{ending}"
    dump(RICH, path)
    assert load(path) == RICH


@pytest.mark.parametrize("ending", WRITERS)
def test_a_made_topology_survives_every_format(ending: str, tmp_path: Path) -> None:
    topology = make("geometric", 12, 3)
    dump(topology, tmp_path / f"t{ending}")
    again = load(tmp_path / f"t{ending}")
    assert again.nodes == topology.nodes
    ends = {frozenset((e.a, e.b)): e.latency_us for e in topology.edges}
    assert {frozenset((e.a, e.b)): e.latency_us for e in again.edges} == ends


def test_an_edge_list_may_carry_attributes(tmp_path: Path) -> None:
    path = tmp_path / "g.edgelist"
    path.write_text("# a comment\n1 2\n2 3 {'latency_us': 700}\n")
    assert load(path) == Topology(
        {"1": Node(), "2": Node(), "3": Node()}, (Edge("1", "2"), Edge("2", "3", latency_us=700))
    )


def test_links_and_numeric_ids_of_node_link_json(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text('{"nodes": [{"id": 0}, {"id": 1}], "links": [{"source": 0, "target": 1}]}')
    assert load(path) == Topology({"0": Node(), "1": Node()}, (Edge("0", "1"),))


def test_directed_and_parallel_edges_become_the_cheapest_link() -> None:
    graph = nx.MultiDiGraph()
    graph.add_edge(1, 2, latency_us=900)
    graph.add_edge(2, 1, latency_us=300)
    graph.add_edge(1, 2, latency_us=600)
    graph.add_edge(1, 1)
    assert from_graph(graph) == Topology(
        {"1": Node(), "2": Node()}, (Edge("2", "1", latency_us=300),)
    )


def test_labels_are_names_where_they_are_distinct() -> None:
    graph = nx.Graph()
    graph.add_nodes_from([(1, {"label": "Oslo"}), (2, {"label": "Bergen"})])
    graph.add_edge(1, 2)
    assert list(from_graph(graph).nodes) == ["Oslo", "Bergen"]
    graph.nodes[2]["label"] = "Oslo"
    assert list(from_graph(graph).nodes) == ["1", "2"]
    assert list(to_graph(from_graph(graph)).edges) == [("1", "2")]


@pytest.mark.parametrize(("name", "nodes"), [("Geant", 37), ("Nordu", 33)])
def test_maps_of_real_networks_are_read(name: str, nodes: int) -> None:
    path = DATA / f"{name}.graphml"
    if not path.exists():
        pytest.skip(f"the map {name}.graphml is not in ../shared/data beside the project")
    topology = load(path)
    assert topology.check(addresses=False) == []
    assert len(topology.nodes) == nx.read_graphml(path).number_of_nodes() == nodes
    if name == "Geant":
        assert "IS" in topology.nodes
        speeds = {frozenset((e.a, e.b)): e.bandwidth_bps for e in topology.edges}
        assert max(speeds.values()) == 10**10


def test_dot_is_read_or_its_package_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.dot"
    path.write_text('graph { a [address="h:1"]; a -- b [latency_us=5]; }')
    try:
        import pydot  # noqa: F401
    except ImportError:
        with pytest.raises(TopologyError, match=r"g\.dot: .*needs the package pydot"):
            load(path)
    else:
        assert load(path) == Topology(
            {"a": Node("h:1"), "b": Node()}, (Edge("a", "b", latency_us=5),)
        )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.png", "", "unknown ending"),
        ("x.toml", "a = \nb = 1", "not a valid toml file: .*line 1"),
        ("x.toml", "\ufffe\ud800", "not a valid toml file"),
        ("x.toml", "[node.a]", "the file: unknown key 'node'; known are nodes, edges"),
        ("x.toml", "nodes = 3", "nodes must be tables"),
        ("x.toml", "edges = 3", "edges must be"),
        ("x.toml", "[nodes]\na = 3", "node a: must be a table"),
        ("x.toml", "[nodes.a]\nadress = 'h:1'", "node a: unknown key 'adress'; known are address"),
        ("x.toml", "[nodes.a]\naddress = 3", "node a: address must be text, not 3"),
        ("x.toml", "[nodes.a]\nhold = 'x'", "node a: hold must say NAME = ADDRESS"),
        ("x.toml", "[nodes.a]\nhold = {x = 3}", "node a: hold must say NAME = ADDRESS"),
        ("x.toml", "[nodes.a]\nspeed = 0", "node a: speed must be a number at least 1e-06, not 0"),
        ("x.toml", "[nodes.a]\nspeed = nan", "node a: speed must be a number"),
        ("x.toml", "[nodes.a]\nspeed = inf", "node a: speed must be a number"),
        ("x.toml", "[nodes.a]\nmemory_bytes = true", "node a: memory_bytes must be a number"),
        ("x.toml", "[nodes.a]\ncustodian = 'maybe'", "custodian must be true or false"),
        ("x.toml", '[nodes."a\\n"]', "is not a name of 1 to 128 printable characters"),
        ("x.toml", "[[edges]]\na = 'x'", "edge 1: an edge needs its two ends"),
        ("x.toml", "[[edges]]\na = 'x'\nb = 3", "3 is not a name"),
        ("x.toml", "[[edges]]\na = 'x'\nb = 'y'\nlag = 1", "edge 1: unknown key 'lag'"),
        ("x.toml", "[[edges]]\na = 'x'\nb = 'y'\nloss = 1.0", "edge 1: loss must .* below 1, not"),
        ("x.toml", "[[edges]]\na = 'x'\nb = 'y'\nlatency_us = -1", "latency_us must be a number"),
        ("x.json", "{", "not a valid json file: .*line 1"),
        ("x.json", "[]", "node-link JSON has a list of nodes"),
        ("x.json", '{"nodes": [{}], "edges": []}', "not a valid json file: 'id'"),
        ("x.json", '{"nodes": [3], "edges": []}', "not a valid json file"),
        ("x.json", '{"nodes": [{"id": 1}, {"id": "1"}], "edges": []}', "the same name"),
        ("x.json", "[" * 100_000, "not a valid json file"),
        ("x.graphml", "<graphml>", "not a valid graphml file"),
        ("x.graphml", "<graphml/>", "not a valid graphml file"),
        ("x.graphml", "", "not a valid graphml file"),
        ("x.gml", "graph [ node [", "not a valid gml file"),
        ("x.gexf", "<gexf/>", "not a valid gexf file"),
        ("x.edgelist", "a b c", "not a valid edgelist file"),
    ],
)
def test_a_bad_file_is_one_sentence(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(TopologyError, match=sentence) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(".")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"no\.toml: cannot be read: No such file"):
        load(tmp_path / "no.toml")
    (tmp_path / "d.toml").mkdir()
    with pytest.raises(TopologyError, match=r"d\.toml: cannot be read: Is a directory"):
        load(tmp_path / "d.toml")
    with pytest.raises(TopologyError, match=r"d\.toml: cannot be written"):
        dump(RICH, tmp_path / "d.toml")
    with pytest.raises(TopologyError, match="unknown ending; one of"):
        dump(RICH, tmp_path / "d.edgelist")


def test_an_edge_to_a_stranger_is_for_check_to_say(tmp_path: Path) -> None:
    for name, text in (
        ("t.toml", '[nodes.a]\n[[edges]]\na = "a"\nb = "x"'),
        ("t.json", json.dumps({"nodes": [{"id": "a"}], "edges": [{"source": "a", "target": "x"}]})),
    ):
        (tmp_path / name).write_text(text)
        problems = load(tmp_path / name).check(addresses=False)
        assert problems == ["Edge a - x: there is no node x."]
