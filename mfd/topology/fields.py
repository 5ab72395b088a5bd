"""Node and Edge from the loosely typed tables of files and graphs, every value checked.

Rules of this file: numbers and flags may be text, since several formats have nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from math import inf
from typing import Any

from mfd.topology.values import Edge, Node, TopologyError, parse_bytes

__all__ = ["read_edge", "read_name", "read_node", "refuse_unknown", "told"]

NAME_CHARS_MAX = 128


def read_name(name: object) -> str:
    """Return a node's name. Raises: TopologyError."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= NAME_CHARS_MAX:
        raise TopologyError(
            f"{name!r} is not a name of 1 to {NAME_CHARS_MAX} printable characters."
        )
    return name


def refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises: TopologyError for a key that is not known."""
    for key in table:
        if key not in known:
            raise TopologyError(f"{where}: unknown key {key!r}; known are {', '.join(known)}.")


def read_node(known: object, where: str, *, strict: bool = False) -> Node:
    """Make a node; `strict` refuses keys that a node does not have. Raises: TopologyError."""
    if not isinstance(known, Mapping):
        raise TopologyError(f"{where}: must be a table.")
    if strict:
        refuse_unknown(known, [*(f.name for f in fields(Node)), "memory", "whole"], where)
    address = known.get("address", "")
    if not isinstance(address, str):
        raise TopologyError(f"{where}: address must be text, not {address!r}.")
    custodian = known.get("custodian", False)
    if custodian in ("true", "false"):
        custodian = custodian == "true"
    if not isinstance(custodian, bool | int):
        raise TopologyError(f"{where}: custodian must be true or false, not {custodian!r}.")
    return Node(
        address=address.strip('"'),
        hold=_hold(known.get("hold", {}), where),
        custodian=bool(custodian),
        memory_bytes=_amount(known, "memory", where),
        whole_bytes=_amount(known, "whole", where),
        speed=_number(known, "speed", 1.0, where, least=1e-6),
    )


def _amount(known: Mapping[str, Any], name: str, where: str) -> int:
    """`memory` is for people ("2GiB"), `memory_bytes` a number; so are others."""
    if name not in known:
        return int(_number(known, f"{name}_bytes", 0, where))
    told = known[name]
    try:
        if isinstance(told, bool) or not isinstance(told, str | int):
            raise ValueError(f"{told!r} is no amount of memory: write 2GiB or 500MiB")
        return parse_bytes(told.strip('"') if isinstance(told, str) else told)
    except ValueError as exc:
        raise TopologyError(f"{where}: {name}: {exc}.") from exc


def _hold(hold: object, where: str) -> dict[str, str]:
    if isinstance(hold, str):
        pairs = [pair.partition("=") for pair in hold.strip('"').split(";") if pair.strip()]
        hold = {name.strip(): data.strip() for name, _, data in pairs}
    if not isinstance(hold, dict) or not all(
        isinstance(part, str) and part for pair in hold.items() for part in pair
    ):
        raise TopologyError(f"{where}: hold must say NAME = ADDRESS, not {hold!r}.")
    return hold


def read_edge(a: object, b: object, known: Mapping[str, Any], where: str) -> Edge:
    """Make an edge. `LinkSpeedRaw` is the Topology Zoo's word for bits a second.

    Raises: TopologyError.
    """
    if "bandwidth_bps" not in known and "LinkSpeedRaw" in known:
        known = {**known, "bandwidth_bps": known["LinkSpeedRaw"]}
    return Edge(
        read_name(a),
        read_name(b),
        latency_us=int(_number(known, "latency_us", 0, where)),
        bandwidth_bps=int(_number(known, "bandwidth_bps", 0, where)),
        loss=_number(known, "loss", 0.0, where, below=1.0),
    )


def told(value: Node | Edge) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    plain = Node() if isinstance(value, Node) else Edge("", "")
    pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
    return {name: found for name, found in pairs if found != getattr(plain, name)}


def _number(
    known: Mapping[str, Any],
    key: str,
    default: float,
    where: str,
    *,
    least: float = 0.0,
    below: float = inf,
) -> float:
    value = known.get(key, default)
    try:
        number = float(value.strip('"') if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        number = -inf
    if isinstance(value, bool) or not least <= number < below:
        bounds = f"at least {least:g}" + (f" and below {below:g}" if below < inf else "")
        raise TopologyError(f"{where}: {key} must be a number {bounds}, not {value!r}.")
    return number
