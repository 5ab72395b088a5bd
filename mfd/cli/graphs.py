"""`mfd topology`: network graphs in files."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mfd.cli.config import parse_hold
from mfd.cli.drawing import MARKS, draw_image, draw_text, role, terminal_size
from mfd.cli.errors import CommandError, Misuse
from mfd.cli.view import print_json, print_table
from mfd.topology import (
    KINDS,
    PURPOSES,
    Edge,
    Topology,
    TopologyError,
    dump,
    link_cost,
    load,
    make,
)

__all__ = ["check", "line_facts", "make_file", "show"]

PORT_MAX = 65_535
LISTED_MAX = 60


def _load(path: Path) -> Topology:
    kind, _, count = str(path).partition(":")
    if kind in KINDS and count.isdecimal():
        made = f"mfd topology make {kind} {count} --out {kind}{count}.toml"
        raise Misuse(f"{path} is a graph to be made, not a file: `{made}` writes it")
    try:
        return load(path)
    except TopologyError as exc:
        raise CommandError(str(exc)) from exc


def show(path: Path, *, as_json: bool, out: Path | None = None) -> None:
    """Draw a graph, and list its nodes and links; `out`: as a picture instead."""
    graph = _load(path)
    if out is not None:
        draw_image(graph, out, path.stem)
        print(f"{out}: {len(graph.nodes)} nodes, {len(graph.edges)} links")
        return
    if as_json:
        print_json(
            {
                "nodes": [{"name": name, **asdict(node)} for name, node in graph.nodes.items()],
                "edges": [{**asdict(edge), "cost": link_cost(edge)} for edge in graph.edges],
            }
        )
        return
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    print(draw_text(graph, *terminal_size(), plain=plain))
    print()
    print(_summary(graph))
    if len(graph.nodes) > LISTED_MAX:
        print(f"More than {LISTED_MAX} nodes are not listed; --json lists all.")
        return
    print()
    nodes = [
        (
            name,
            node.address or "-",
            role(node),
            ", ".join(node.hold) or "-",
            len(graph.neighbours(name)),
        )
        for name, node in graph.nodes.items()
    ]
    print_table(("node", "address", "role", "holds", "links"), nodes, "no nodes")
    print()
    edges = [
        (f"{edge.a} - {edge.b}", *line_facts(edge), f"{link_cost(edge) / 100:.2f} ms")
        for edge in graph.edges
    ]
    print_table(("link", "latency", "bandwidth", "loss", "cost"), edges, "no links")


def _summary(graph: Topology) -> str:
    """What the signs mean, and how many of each there are."""
    roles = Counter(role(node) for node in graph.nodes.values())
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    parts = [f"{MARKS[kind][plain]} {number} {kind}(s)" for kind, number in roles.items()]
    return f"{', '.join(parts) or 'no nodes'}; {len(graph.edges)} links"


def line_facts(edge: Edge) -> tuple[str, str, str]:
    """Latency one way, bandwidth and loss of a link as people read them; "-": not given."""
    return (
        f"{edge.latency_us / 1000:g} ms" if edge.latency_us else "-",
        f"{edge.bandwidth_bps / 1e6:g} Mbit/s" if edge.bandwidth_bps else "-",
        f"{edge.loss:.2%}" if edge.loss else "-",
    )


def check(path: Path, *, addresses: bool, as_json: bool = False) -> None:
    """Print every problem. Raises: CommandError where there is one."""
    graph = _load(path)
    problems = graph.check(addresses=addresses)
    if as_json:
        counts = {"nodes": len(graph.nodes), "edges": len(graph.edges)}
        print_json({"sound": not problems, **counts, "problems": problems})
    else:
        for problem in problems:
            print(problem)
    if problems:
        raise CommandError(f"{path} has {len(problems)} problem(s)")
    if not as_json:
        print(f"{path}: sound; {len(graph.nodes)} nodes, {len(graph.edges)} links")


def make_file(
    kind: str,
    count: int,
    out: Path,
    *,
    seed: int,
    port: int,
    hold: Sequence[str] = (),
    holders: int = 0,
) -> None:
    """Write a made graph; with `port`, nodes get addresses on this machine.

    `hold` is dealt out to `holders` nodes (0: all) spread evenly over the graph.
    """
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
        graph = _deal(graph, hold, holders or count)
        dealt = "".join(f" --hold {shlex.quote(data)}" for data in hold)
        dealt = f" --holders {holders}{dealt}" if hold else ""
        command = f"mfd topology make {kind} {count} --seed {seed} --port {port}{dealt}"
        dump(graph, out, comment=f"{PURPOSES[kind]}\n{command} --out {out.name}")
    except TopologyError as exc:
        raise Misuse(str(exc)) from exc
    print(f"{out}: {len(graph.nodes)} nodes, {len(graph.edges)} links")


def _deal(graph: Topology, hold: Sequence[str], holders: int) -> Topology:
    """Give every so many a node its part of the data. Raises: Misuse."""
    if not 1 <= holders <= len(graph.nodes):
        raise Misuse(f"--holders {holders}: there are {len(graph.nodes)} nodes")
    names = list(graph.nodes)
    chosen = [names[i * (len(names) - 1) // max(1, holders - 1)] for i in range(holders)]
    nodes = dict(graph.nodes)
    for name, address in map(parse_hold, hold):
        to = chosen if "{i}" in address else chosen[-1:]
        for i, node in enumerate(to, 1):
            part = address.replace("{i}", str(i)).replace("{n}", str(len(to)))
            nodes[node] = replace(nodes[node], hold={**nodes[node].hold, name: part})
    return replace(graph, nodes=nodes)
