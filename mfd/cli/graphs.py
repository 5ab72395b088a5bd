"""`mfd topology`: network graphs in files."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from mfd.cli.errors import CommandError, Misuse
from mfd.cli.view import print_json, print_table
from mfd.topology import Edge, Topology, TopologyError, dump, link_cost, load, make

__all__ = ["check", "make_file", "show"]

PORT_MAX = 65_535


def _load(path: Path) -> Topology:
    try:
        return load(path)
    except TopologyError as exc:
        raise CommandError(str(exc)) from exc


def show(path: Path, *, as_json: bool) -> None:
    """Print nodes and links."""
    graph = _load(path)
    if as_json:
        print_json(
            {
                "nodes": [{"name": name, **asdict(node)} for name, node in graph.nodes.items()],
                "edges": [{**asdict(edge), "cost": link_cost(edge)} for edge in graph.edges],
            }
        )
        return
    nodes = [
        (
            name,
            node.address or "-",
            "relay" if node.relay else "custodian" if node.custodian else "holder",
            ", ".join(node.hold) or "-",
            len(graph.neighbours(name)),
        )
        for name, node in graph.nodes.items()
    ]
    print_table(("node", "address", "role", "holds", "links"), nodes, "no nodes")
    print()
    edges = [
        (f"{edge.a} - {edge.b}", *_line_facts(edge), f"{link_cost(edge) / 100:.2f} ms")
        for edge in graph.edges
    ]
    print_table(("link", "latency", "bandwidth", "loss", "cost"), edges, "no links")


def _line_facts(edge: Edge) -> tuple[str, str, str]:
    return (
        f"{edge.latency_us / 1000:g} ms" if edge.latency_us else "-",
        f"{edge.bandwidth_bps / 1e6:g} Mbit/s" if edge.bandwidth_bps else "-",
        f"{edge.loss:.2%}" if edge.loss else "-",
    )


def check(path: Path, *, addresses: bool) -> None:
    """Print every problem. Raises: CommandError where there is one."""
    graph = _load(path)
    problems = graph.check(addresses=addresses)
    for problem in problems:
        print(problem)
    if problems:
        raise CommandError(f"{path} has {len(problems)} problem(s)")
    print(f"{path}: sound; {len(graph.nodes)} nodes, {len(graph.edges)} links")


def make_file(kind: str, count: int, out: Path, *, seed: int, port: int) -> None:
    """Write a made graph; with `port`, nodes get addresses on this machine."""
    if port and not 0 < port <= PORT_MAX - count + 1:
        raise Misuse(f"--port {port}: {count} nodes need ports up to {PORT_MAX}")
    try:
        graph = make(kind, count, seed)
        if port:
            nodes = {
                name: replace(node, address=f"127.0.0.1:{port + index}")
                for index, (name, node) in enumerate(graph.nodes.items())
            }
            graph = replace(graph, nodes=nodes)
        dump(graph, out)
    except TopologyError as exc:
        raise Misuse(str(exc)) from exc
    print(f"{out}: {len(graph.nodes)} nodes, {len(graph.edges)} links")
