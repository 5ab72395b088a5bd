"""`mfd up`: every node of a graph as a process on this machine, with links as the graph says."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from mfd.cli.errors import CommandError, Misuse
from mfd.cli.fleet import Fleet, with_free_ports
from mfd.cli.graphs import line_facts
from mfd.cli.view import print_table
from mfd.topology import Edge, Topology, TopologyError, load

__all__ = ["up"]

LOOK_SECONDS = 1.0


def up(path: Path, *, emulate: bool, folder: Path | None, as_json: bool) -> None:
    """Start all nodes, tell where they are, stop them on Ctrl-C.

    Raises: Misuse for a graph that cannot run here; CommandError where a peer ends by itself.
    """
    try:
        topology = _placed(load(path))
    except TopologyError as exc:
        raise Misuse(str(exc)) from exc
    problems = topology.check()
    if problems:
        raise Misuse(f"{path}: {problems[0]}")
    place = folder or Path("mfd-up") / path.stem
    with Fleet(topology, place, {"threads": 1}, emulate=emulate) as fleet, _stoppable():
        _tell(fleet, place, emulate=emulate, as_json=as_json)
        _wait(fleet)


def _placed(topology: Topology) -> Topology:
    """Free ports on the loopback address for the nodes that have none."""
    free = with_free_ports(topology)
    nodes = {
        name: replace(node, address=free.nodes[name].address)
        if not node.address or node.address.endswith(":0")
        else node
        for name, node in topology.nodes.items()
    }
    return replace(topology, nodes=nodes)


def _tell(fleet: Fleet, place: Path, *, emulate: bool, as_json: bool) -> None:
    rows = [(name, member.peer, fleet.client(name).url) for name, member in fleet.members.items()]
    if as_json:
        for name, peer, url in rows:
            print(json.dumps({"node": name, "peer": peer, "status": url}), flush=True)
        for edge in fleet.topology.edges if emulate else ():
            print(json.dumps({"link": [edge.a, edge.b], **_asked(edge)}), flush=True)
        return
    print_table(("node", "peer", "status"), [(n, p[:12], u) for n, p, u in rows], "no nodes")
    edges = fleet.topology.edges
    emulated = emulate and any(any(_asked(edge).values()) for edge in edges)
    if emulated:
        print()
        told = [(f"{edge.a} - {edge.b}", _emulated(edge)) for edge in edges]
        print_table(("link", "emulated"), told, "")
    elif emulate:
        print("\nno link is emulated: none in the file has latency_us, bandwidth_bps or loss")
    links = f"{len(edges)} links{', emulated' if emulated else ''}"
    print(f"{len(rows)} peers, {links}; states and logs in {place}; Ctrl-C stops all", flush=True)


def _asked(edge: Edge) -> dict[str, float]:
    return {name: getattr(edge, name) for name in ("latency_us", "bandwidth_bps", "loss")}


def _emulated(edge: Edge) -> str:
    """What is emulated of a link, in words."""
    words = ("{} one way", "{}", "{} of the packets lost")
    parts = (form.format(fact) for form, fact in zip(words, line_facts(edge), strict=True))
    named = [part for part, asked in zip(parts, _asked(edge).values(), strict=True) if asked]
    return ", ".join(named) or "nothing: as fast as this machine"


class _Stopped(Exception):
    """The user wants an end."""


def _stop(number: int, _: FrameType | None) -> None:
    raise _Stopped(number)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Take Ctrl-C and SIGTERM for a good end, from the first line that is printed on."""
    usual = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stopped:
        return
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _wait(fleet: Fleet) -> None:
    """Wait for a peer to end by itself. Raises: CommandError."""
    while not (ended := fleet.ended()):
        time.sleep(LOOK_SECONDS)
    raise CommandError(ended[0].why_ended())
