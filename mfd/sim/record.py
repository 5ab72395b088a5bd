"""A run written down: its scenario as plain values, and one line an event.

    {"mfd-trace": 1, "scenario": {...}}
    time us <TAB> host <TAB> event <TAB> what <TAB> checksum of what the trace hash takes in
    {"events": n, "trace": digest, "violation": text}

Rules of this file: values and text; whoever has a disk writes them. A scenario read back makes the
same world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any
from zlib import crc32

from mfd.core.events import Event, LinkDown, LinkUp, Received
from mfd.core.frames import decode_frame
from mfd.packet.errors import PacketError
from mfd.sim.faults import parse
from mfd.sim.host import Host
from mfd.sim.scenario import Scenario
from mfd.topology import Edge, Node, Topology

__all__ = ["FORMAT", "KEY", "event_line", "from_plain", "to_plain"]

KEY = "mfd-trace"
FORMAT = 1


def to_plain(scenario: Scenario) -> dict[str, Any]:
    """Write a scenario with numbers, texts, lists and maps alone."""
    plain = {f.name: getattr(scenario, f.name) for f in fields(scenario)}
    nodes = {name: asdict(node) for name, node in scenario.topology.nodes.items()}
    edges = [list(asdict(edge).values()) for edge in scenario.topology.edges]
    plain["topology"] = {"nodes": nodes, "edges": edges}
    plain["faults"] = str(scenario.faults)
    plain["config"] = dict(scenario.config)
    return plain


def from_plain(plain: Mapping[str, Any]) -> Scenario:
    """Read a scenario. Raises: ValueError, TypeError or KeyError for what is none."""
    known = dict(plain)
    graph = known.pop("topology")
    nodes = {str(name): Node(**node) for name, node in graph["nodes"].items()}
    edges = tuple(Edge(*edge) for edge in graph["edges"])
    faults = parse(str(known.pop("faults")))
    return Scenario(Topology(nodes, edges), faults=faults, **known)


def event_line(now_us: int, host: Host, event: Event, note: bytes) -> str:
    """One line for one event."""
    kind = type(event).__name__
    return f"{now_us}\t{host.name}\t{kind}\t{_what(event)}\t{crc32(note):08x}"


def _what(event: Event) -> str:
    match event:
        case Received(link=link, frame=frame):
            try:
                name = type(decode_frame(frame)).__name__.upper()
            except PacketError:
                name = "no frame"
            return f"{name}, {len(frame)} B, link {link}"
        case LinkUp(link=link, address=address):
            return f"link {link}, {address}"
        case LinkDown(link=link, reason=reason):
            return f"link {link}, {reason}"
    return ""
