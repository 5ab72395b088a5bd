"""What a network looks like, as values, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "BULK_BYTES",
    "THIN_BYTES",
    "Edge",
    "Node",
    "Topology",
    "TopologyError",
    "link_cost",
    "parse_bytes",
]

THIN_BYTES = 64 << 10  # what the cost of a link is reckoned for, by class
BULK_BYTES = 64 << 20
COST_UNKNOWN = 100  # 1 ms: a link of which nothing is known
COST_MAX = 1 << 30


UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
UNITS_TOLD = "units are KB, MB, GB, TB (of 1000) and KiB, MiB, GiB, TiB (of 1024)"
BYTES_MAX = 1 << 50
BYTES_MIN = 1 << 10  # less is no memory that anything could be done in
BARE_BYTES_MIN = 1 << 20  # of a number without unit: who writes 512 means no bytes


class TopologyError(ValueError):
    """A topology cannot be read, written or made; one sentence says where and why."""


@dataclass(frozen=True, slots=True)
class Node:
    """One peer."""

    address: str = ""  # host:port; port 0: any free one; empty: not decided
    hold: Mapping[str, str] = field(default_factory=dict)  # data name -> address of the data
    custodian: bool = False  # takes custody without holding data
    memory_bytes: int = 0  # for the trainer; 0: not known
    whole_bytes: int = 0  # largest model that it takes as a whole, of others parts; 0: any
    speed: float = 1.0  # of training, relative to the other nodes

    @property
    def relay(self) -> bool:
        """Forwards only: holds nothing and takes no custody."""
        return not self.hold and not self.custodian


@dataclass(frozen=True, slots=True)
class Edge:
    """One link; it has no direction."""

    a: str
    b: str
    latency_us: int = 0  # one way; 0: not known
    bandwidth_bps: int = 0  # bits a second; 0: not known or not limited
    loss: float = 0.0  # part of the packets that is lost, below 1


@dataclass(frozen=True, slots=True)
class Topology:
    """A network. Order of nodes and edges is that of the file."""

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...] = ()

    def neighbours(self, name: str) -> list[str]:
        """Return the nodes linked to a node, in order of the edges."""
        ends = ((e.a, e.b) for e in self.edges if name in (e.a, e.b))
        return [b if a == name else a for a, b in ends]

    def check(self, *, addresses: bool = True) -> list[str]:
        """Return every problem as a sentence; `addresses=False`: without those of addresses."""
        problems = [] if self.nodes else ["The topology has no nodes."]
        seen: set[frozenset[str]] = set()
        for edge in self.edges:
            pair = frozenset((edge.a, edge.b))
            strangers = sorted(pair - self.nodes.keys())
            problems += [f"Edge {edge.a} - {edge.b}: there is no node {s}." for s in strangers]
            if edge.a == edge.b:
                problems.append(f"Edge {edge.a} - {edge.b}: a node cannot be linked to itself.")
            if pair in seen:
                problems.append(f"Edge {edge.a} - {edge.b} is given twice.")
            seen.add(pair)
        parts = self._parts()
        if len(parts) > 1:
            alone = "; ".join(", ".join(part[:5]) + (", ..." * (len(part) > 5)) for part in parts)
            problems.append(f"The network falls into {len(parts)} islands: {alone}.")
        return problems + (self._check_addresses() if addresses else [])

    def _parts(self) -> list[list[str]]:
        linked: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            if edge.a in linked and edge.b in linked:
                linked[edge.a].append(edge.b)
                linked[edge.b].append(edge.a)
        parts: list[list[str]] = []
        seen: set[str] = set()
        for first in self.nodes:
            if first not in seen:
                seen.add(first)
                parts.append([first])
                for name in parts[-1]:  # grows while it is walked through
                    fresh = [other for other in dict.fromkeys(linked[name]) if other not in seen]
                    seen.update(fresh)
                    parts[-1].extend(fresh)
        return parts

    def _check_addresses(self) -> list[str]:
        problems = []
        owner: dict[str, str] = {}
        for name, node in self.nodes.items():
            host, _, port = node.address.rpartition(":")
            if not node.address:
                problems.append(f"Node {name} has no address.")
            elif not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
                problems.append(f"Node {name}: {node.address!r} is not of the form host:port.")
            elif int(port) and node.address in owner:
                problems.append(f"Nodes {owner[node.address]} and {name} share {node.address}.")
            owner.setdefault(node.address, name)
        return problems


def link_cost(edge: Edge, payload_bytes: int = THIN_BYTES) -> int:
    """Return the routing metric of a link: time for `payload_bytes`, unit 10 us, at least 1."""
    if not (edge.latency_us or edge.bandwidth_bps):
        return COST_UNKNOWN
    transfer_us = payload_bytes * 8e6 / edge.bandwidth_bps if edge.bandwidth_bps else 0.0
    cost = (edge.latency_us + transfer_us) / (1.0 - edge.loss) / 10
    return max(1, round(min(cost, COST_MAX)))


def parse_bytes(text: str | int) -> int:
    """Read an amount of memory: 2GiB or 500 MB; a number alone counts bytes, 0 is no limit.

    Raises: ValueError, one sentence, also for what is too little for any model.
    """
    number, unit = str(text).strip(), ""
    while number and not (number[-1].isdecimal() or number[-1] == "."):
        number, unit = number[:-1], number[-1] + unit
    unit = unit.strip().upper()
    try:
        count = float(number) * UNITS[unit]
    except (ValueError, KeyError):
        count = -1.0
    if not 0 <= count <= BYTES_MAX:
        raise ValueError(f"{text!r} is no amount of memory: write 2GiB or 500MiB; {UNITS_TOLD}")
    if 0 < count < (BYTES_MIN if unit else BARE_BYTES_MIN):
        told = f"{count:g} byte" + "s" * (count != 1)
        hint = f"{number}MiB" if not unit else "500MiB"
        raise ValueError(
            f"{text!r} is {told}, too little for any model: write it with its unit, as {hint}; "
            f"{UNITS_TOLD}"
        )
    return round(count)
