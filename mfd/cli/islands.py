"""Who of a network is linked with whom, asked of every peer that answers here; and its islands.

Rules of this file: no token goes to a peer that was only heard of. A peer that does not answer
still counts by what others say of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mfd.cli.errors import CommandError

__all__ = ["Seen", "islands", "sentence", "survey"]

Json = dict[str, Any]
PEERS_MAX = 10_000
ADDRESSES_TRIED_MAX = 2


@dataclass(slots=True)
class Seen:
    """One peer, by its own word or by that of others."""

    peer: str
    addresses: list[str] = field(default_factory=list)
    links: set[str] = field(default_factory=set)
    answers: bool = False


def survey(first: Json, ask: Callable[[str], Json]) -> dict[str, Seen]:
    """Go from peer to peer, beginning with the status of one; `ask` gives that at an address.

    Peers that nobody is linked with and that do not answer themselves are left out.
    """
    found = {first["peer"]: Seen(first["peer"])}
    waiting = [(first["peer"], first)]
    while waiting:
        peer, told = waiting.pop()
        seen = found[peer]
        seen.answers, seen.addresses = True, [told["address"]]
        seen.links = {link["peer"] for link in told["links"] if link["active"]}
        for other, addresses in _others(told):
            if other in found or len(found) >= PEERS_MAX:
                continue
            found[other] = Seen(other, list(addresses))
            answer = _ask(found[other], ask)
            if answer is not None:
                waiting.append((other, answer))
    linked = {peer for seen in found.values() for peer in seen.links}
    return {peer: seen for peer, seen in found.items() if seen.answers or peer in linked}


def _others(told: Json) -> Iterable[tuple[str, list[str]]]:
    """Everybody whom a peer names, neighbours first."""
    for link in told["links"]:
        yield link["peer"], link["reach"]
    for known in told["members"]["known"]:
        yield known["peer"], known["addresses"]


def _ask(seen: Seen, ask: Callable[[str], Json]) -> Json | None:
    for address in seen.addresses[:ADDRESSES_TRIED_MAX]:
        try:
            answer = ask(address)
        except CommandError:
            continue
        if answer.get("peer") == seen.peer:
            return answer
    return None


def islands(found: Mapping[str, Seen]) -> list[list[str]]:
    """Peers that are linked, directly or through others; the largest island first."""
    near: dict[str, set[str]] = {peer: set() for peer in found}
    for peer, seen in found.items():
        for other in seen.links & near.keys():
            near[peer].add(other)
            near[other].add(peer)
    left, parts = set(near), []
    while left:
        part, border = set[str](), {min(left)}
        while border:
            part |= border
            border = {other for peer in border for other in near[peer]} - part
        left -= part
        parts.append(sorted(part))
    return sorted(parts, key=lambda part: (-len(part), part))


def sentence(parts: list[list[str]]) -> str:
    """Say how many islands there are, and who is on them."""
    if len(parts) == 1:
        return f"1 island: all {len(parts[0])} peers reach each other"
    told = "; ".join(", ".join(peer[:8] for peer in part) for part in parts)
    return f"{len(parts)} islands: {told}"
