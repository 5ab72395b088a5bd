"""Topologies from and to files and networkx graphs.

Rules of this file: the only part of topology that touches the disk. networkx is loaded where a
format needs it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfd.topology.fields import read_edge, read_name, read_node, refuse_unknown, told
from mfd.topology.values import Edge, Topology, TopologyError, link_cost

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["dump", "from_graph", "load", "to_graph"]

FILE_BYTES_MAX = 64 << 20  # the largest public graphs of networks are far below
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # TOML wants quotes around other names
MALFORMED = (ValueError, SyntaxError, LookupError, TypeError, AttributeError, RecursionError)


def load(path: str | Path) -> Topology:
    """Read a topology; the ending of the file's name tells its format.

    Raises: TopologyError.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TopologyError(f"{path}: unknown ending; a topology is one of {' '.join(READERS)}.")
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise TopologyError(f"larger than {FILE_BYTES_MAX >> 20} MiB.")
        return reader(path)
    except TopologyError as error:
        raise TopologyError(f"{path}: {error}") from error
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except ImportError as error:
        missing = f"this format needs the package {error.name}: install it, or use GraphML"
        sentence = f"{path}: {missing}."
        raise TopologyError(sentence) from error
    except MALFORMED as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise TopologyError(f"{path}: not a valid {path.suffix[1:]} file: {reason}.") from error


def dump(topology: Topology, path: str | Path, *, comment: str = "") -> None:
    """Write a topology as TOML, node-link JSON, GraphML, GML or GEXF, by the file's ending.

    `comment` stands at the top of a TOML file; the other formats have no place for it.
    Raises: TopologyError.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise TopologyError(f"{path}: unknown ending; one of {' '.join(WRITERS)} can be written.")
    try:
        writer(topology, path)
        if comment and writer is _write_toml:
            lines = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
            path.write_text(f"{lines}\n{path.read_text('utf-8')}", "utf-8")
    except OSError as error:
        raise TopologyError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _read_toml(path: Path) -> Topology:
    table = tomllib.loads(path.read_text("utf-8"))
    refuse_unknown(table, ("nodes", "edges"), "the file")
    nodes, edges = table.get("nodes", {}), table.get("edges", [])
    if not isinstance(nodes, dict) or not isinstance(edges, list):
        raise TopologyError("nodes must be tables [nodes.NAME], edges must be [[edges]].")
    return Topology(
        {
            read_name(name): read_node(known, f"node {name}", strict=True)
            for name, known in nodes.items()
        },
        tuple(_toml_edge(known, f"edge {number}") for number, known in enumerate(edges, 1)),
    )


def _toml_edge(known: object, where: str) -> Edge:
    if not isinstance(known, dict) or not {"a", "b"} <= known.keys():
        raise TopologyError(f'{where}: an edge needs its two ends, a = "..." and b = "...".')
    refuse_unknown(known, [f.name for f in fields(Edge)], where)
    return read_edge(known["a"], known["b"], known, where)


def _read_json(path: Path) -> Topology:
    table = json.loads(path.read_text("utf-8"))
    edges = table.get("edges", table.get("links")) if isinstance(table, dict) else None
    if not isinstance(edges, list) or not isinstance(table.get("nodes"), list):
        raise TopologyError("node-link JSON has a list of nodes and a list of edges or links.")
    return _assemble(
        [(node["id"], node) for node in table["nodes"]],
        [(edge["source"], edge["target"], edge) for edge in edges],
    )


def _read_with(function: str, **options: Any) -> Callable[[Path], Topology]:
    def read(path: Path) -> Topology:
        import networkx as nx

        try:
            return from_graph(getattr(nx, function)(path, **options))
        except nx.NetworkXException as error:
            raise ValueError(str(error)) from error

    return read


def _read_dot(path: Path) -> Topology:
    import networkx as nx

    return from_graph(nx.nx_pydot.read_dot(path))


def _write_toml(topology: Topology, path: Path) -> None:
    def text(value: object) -> str:
        if isinstance(value, Mapping):
            return "{ " + ", ".join(f"{text(k)} = {text(v)}" for k, v in value.items()) + " }"
        return json.dumps(value, ensure_ascii=False)

    lines: list[str] = []
    for name, node in topology.nodes.items():
        lines += [f"[nodes.{name if BARE_KEY.fullmatch(name) else text(name)}]"]
        lines += [f"{key} = {text(value)}" for key, value in told(node).items()] + [""]
    for edge in topology.edges:
        lines += ["[[edges]]"]
        lines += [f"{key} = {text(value)}" for key, value in told(edge).items()] + [""]
    path.write_text("\n".join(lines), "utf-8")


def _write_json(topology: Topology, path: Path) -> None:
    nodes = [{"id": name, **told(node)} for name, node in topology.nodes.items()]
    edges = [{"source": e.a, "target": e.b, **told(e)} for e in topology.edges]
    table = {"directed": False, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges}
    path.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _write_with(function: str) -> Callable[[Topology, Path], None]:
    def write(topology: Topology, path: Path) -> None:
        import networkx as nx

        getattr(nx, function)(to_graph(topology), path)

    return write


READERS: dict[str, Callable[[Path], Topology]] = {
    ".toml": _read_toml,
    ".json": _read_json,
    ".graphml": _read_with("read_graphml"),
    ".gml": _read_with("read_gml", label="id"),
    ".gexf": _read_with("read_gexf"),
    ".edgelist": _read_with("read_edgelist"),
    ".edges": _read_with("read_edgelist"),
    ".dot": _read_dot,
}
WRITERS: dict[str, Callable[[Topology, Path], None]] = {
    ".toml": _write_toml,
    ".json": _write_json,
    ".graphml": _write_with("write_graphml_xml"),
    ".gml": _write_with("write_gml"),
    ".gexf": _write_with("write_gexf"),
}


def to_graph(topology: Topology) -> nx.Graph[str]:
    """Return a networkx graph; holdings are text: `name=address; name=address`."""
    import networkx as nx

    graph: nx.Graph[str] = nx.Graph()
    for name, node in topology.nodes.items():
        known = told(node)
        if node.hold:
            known["hold"] = "; ".join(f"{data}={where}" for data, where in node.hold.items())
        graph.add_node(name, **known)
    for edge in topology.edges:
        known = {key: value for key, value in told(edge).items() if key not in ("a", "b")}
        graph.add_edge(edge.a, edge.b, **known)
    return graph


def from_graph(graph: nx.Graph[Any]) -> Topology:
    """Return the topology of any networkx graph, with labels for names where they are distinct.

    Directions are dropped, of parallel edges the cheapest is kept, loops are left out.
    Raises: TopologyError if an attribute that matters here has a wrong value.
    """
    return _assemble(graph.nodes(data=True), graph.edges(data=True))


def _assemble(
    nodes: Iterable[tuple[Any, Mapping[str, Any]]],
    edges: Iterable[tuple[Any, Any, Mapping[str, Any]]],
) -> Topology:
    nodes = list(nodes)
    labels = [str(known.get("label", "")).strip('"') for _, known in nodes]
    distinct = all(labels) and len(set(labels)) == len(labels)
    names = {
        key: read_name(label if distinct else str(key))
        for (key, _), label in zip(nodes, labels, strict=True)
    }
    if len(set(names.values())) < len(nodes):
        raise TopologyError("two nodes have the same name.")
    best: dict[frozenset[str], Edge] = {}
    for a, b, known in edges:
        ends = names.get(a, str(a)), names.get(b, str(b))
        edge = read_edge(*ends, known, "edge " + " - ".join(ends))
        pair = frozenset(ends)
        if len(pair) == 2 and (pair not in best or link_cost(edge) < link_cost(best[pair])):
            best[pair] = edge
    return Topology(
        {names[key]: read_node(known, f"node {names[key]}") for key, known in nodes},
        tuple(best.values()),
    )
