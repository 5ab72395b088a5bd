"""Which way a circuit takes, by what routing knows.

Rules of this file: pure questions to the routes; a relay goes on only where it is strictly nearer.
Source: spec/routing.md, R-22; spec/transfer.md, section "Opening".
"""

from __future__ import annotations

from collections.abc import Sequence

from mfd.core.frames import Class, Via
from mfd.core.names import peer_name
from mfd.core.routing import Routes, Source
from mfd.core.seek import Seeker

__all__ = ["Trails", "holders", "next_hop", "via"]

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
    names = (peer_name(peer), *(r.name for r in routes.snapshot() if r.holder == target))
    for name in names:
        if routes.next_hop(name, peer, cls) is not None:
            return Via(name, peer, 0, UNBOUND)
    return None


def holders(routes: Routes, names: Sequence[str], seeker: Seeker) -> list[Source]:
    """Return the holders of any of these names, each once, nearest first.

    A holder that routing knows is as far as routing says; others are as SEEK has found them.
    """
    found: dict[bytes, Source] = {}
    for name in names:
        for source in routes.holders(name):
            if source.holder not in found or source.metric < found[source.holder].metric:
                found[source.holder] = source
    known = frozenset(found)
    for source in seeker.sources(names):
        if source.holder not in known and (
            source.holder not in found or source.metric < found[source.holder].metric
        ):
            found[source.holder] = source
    return sorted(found.values(), key=lambda s: (s.metric, s.holder))


class Trails:
    """Ways that SEEK has found, for peers that routing knows no route to."""

    def __init__(self, seeker: Seeker) -> None:
        self._seeker = seeker

    def way(self, peer: bytes) -> tuple[tuple[bytes, ...], Via] | None:
        """Return the way; where none is known, look for one, so that a later try finds it."""
        trail = self._seeker.trail(peer)
        if trail is None:
            self._seeker.seek_peer(peer)
            return None
        return trail.route, Via(trail.name, trail.holder, 0, UNBOUND)

    def broke(self, peer: bytes) -> None:
        """It leads nowhere any more."""
        self._seeker.forget(peer)
