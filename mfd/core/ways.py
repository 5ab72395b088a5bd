"""Which way a circuit takes, by what routing knows.

Rules of this file: pure questions to the routes; a relay goes on only where it is strictly nearer.
Source: spec/routing.md, R-22; spec/transfer.md, section "Opening".
"""

from __future__ import annotations

from collections.abc import Sequence

from mfd.core.frames import Class, Via
from mfd.core.routing import Routes, Source

__all__ = ["holders", "next_hop", "via"]

UNBOUND = (1 << 32) - 1  # metric that promises nothing yet: the first hop sets it


def next_hop(routes: Routes, way: Via, cls: Class) -> tuple[int, Via] | None:
    """Return the link toward a holder and our own promise, if that is nearer than `way` says."""
    hop = routes.next_hop(way.name, way.holder, cls)
    if hop is None or hop.link is None:
        return None
    if not routes.nearer(way.name, way.holder, (way.seqno, way.metric), cls):
        return None
    return hop.link, Via(way.name, way.holder, hop.seqno, hop.metric)


def via(routes: Routes, peer: bytes, cls: Class) -> Via | None:
    """Find a name that leads to a peer: its own, or any data that it holds."""
    target = peer.hex()
    names = ("@" + target, *(r.name for r in routes.snapshot() if r.holder == target))
    for name in names:
        if routes.next_hop(name, peer, cls) is not None:
            return Via(name, peer, 0, UNBOUND)
    return None


def holders(routes: Routes, names: Sequence[str]) -> list[Source]:
    """Return the holders of any of these names, each once, nearest first."""
    found: dict[bytes, Source] = {}
    for name in names:
        for source in routes.holders(name):
            if source.holder not in found or source.metric < found[source.holder].metric:
                found[source.holder] = source
    return sorted(found.values(), key=lambda s: (s.metric, s.holder))
