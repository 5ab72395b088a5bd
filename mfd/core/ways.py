"""Which way a circuit takes, by what routing knows.

Rules of this file: questions to the routes, and what SEEK has found beyond them; a relay goes on
only where it is strictly nearer.
Source: spec/routing.md, R-22, R-33; spec/transfer.md, section "Opening".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mfd.core.context import Context
from mfd.core.frames import Class, Via
from mfd.core.names import peer_name
from mfd.core.routing import Routes, Source
from mfd.core.seek import Seeker

__all__ = ["Trails", "holders", "next_hop", "via"]

DOUBLINGS = 6  # of the time between two searches in vain for the same peer
VAIN_MAX = 256  # peers that were sought in vain; the oldest is forgotten first
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


@dataclass(slots=True)
class _Vain:
    """The searches in vain for a peer, one after the other."""

    times: int
    until_us: int  # no other begins before
    ups: int  # neighbours that had come by then: a new one may know the way


class Trails:
    """Ways beside the nearest: what other neighbours say, and what SEEK has found."""

    def __init__(self, ctx: Context, seeker: Seeker, routes: Callable[[], Routes | None]) -> None:
        self._ctx = ctx
        self._seeker = seeker
        self._routes = routes
        # dials a far peer; says whether that is worth waiting for
        self.reach: Callable[[bytes], bool] = lambda peer: False
        self._vain: dict[bytes, _Vain] = {}

    def way(self, peer: bytes, but: frozenset[int]) -> tuple[tuple[bytes, ...], Via] | None:
        """Return the way; where none is known, look for one, so that a later try finds it.

        `but` are neighbours over which it was not reached lately: a way that begins there is
        returned, and another one is sought.
        """
        dialling = self.reach(peer)
        trail = self._seeker.trail(peer, but)
        if trail is None or self._seeker.begins_at(trail, but):
            if not dialling and self._may_seek(peer):
                self._seeker.seek_peer(peer, partial(self._sought, peer, self._seeker.ups), but)
            if trail is None:
                return None
        return trail.route, Via(trail.name, trail.holder, 0, UNBOUND)

    def via(self, routes: Routes, peer: bytes, cls: Class) -> Via | None:
        """Find a name that leads to a peer; a long way is worth a link, dialled meanwhile."""
        way = via(routes, peer, cls)
        hop = routes.next_hop(way.name, peer, cls) if way is not None else None
        if hop is not None and hop.hops >= self._ctx.config.far_hops:
            self.reach(peer)
        return way

    def links_toward(self, via: Via, cls: Class) -> list[int]:
        """Return the links over which neighbours advertise a holder, nearer than `via` says.

        The nearest comes first.
        """
        routes, than = self._routes(), (via.seqno, via.metric)
        return routes.links_toward(via.name, via.holder, cls, than) if routes is not None else []

    def broke(self, peer: bytes) -> None:
        """It leads nowhere any more."""
        self._seeker.forget(peer)

    def _may_seek(self, peer: bytes) -> bool:
        """Whoever was sought in vain is left alone for a while, unless a neighbour has come."""
        if self._seeker.seeks((peer_name(peer),)):
            return False
        vain = self._vain.get(peer)
        return vain is None or vain.ups != self._seeker.ups or self._ctx.now_us >= vain.until_us

    def _sought(self, peer: bytes, ups: int, found: bool) -> None:
        vain = self._vain.pop(peer, None)
        if found:
            return
        times = vain.times + 1 if vain is not None and vain.ups == ups else 1
        wait_us = self._ctx.config.seek_again_us << min(times - 1, DOUBLINGS)
        self._vain[peer] = _Vain(times, self._ctx.now_us + wait_us, ups)
        if len(self._vain) > VAIN_MAX:
            del self._vain[next(iter(self._vain))]
