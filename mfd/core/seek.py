"""SEEK: holders beyond the nearest ones that routing tells of, and peers by their id.

    origin        relays                      who knows a holder
    SEEK(ttl) --> SEEK(ttl - 1) -->           by its own data or its routes
              <-- FOUND(route)  <-- FOUND     by the reverse path; every hop puts itself in front

Rules of this file: it keeps what was found and the way there; who is chosen is decided elsewhere.
What it sends is bounded by a share of each link, what it remembers by constants.
Source: spec/routing.md, section "SEEK".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from mfd.core.bloom import FILTER_BYTES_MAX, make_filter, matches
from mfd.core.bucket import Bucket
from mfd.core.context import Context, Timer
from mfd.core.frames import Class, Found, Frame, Seek, encode_frame
from mfd.core.names import peer_name
from mfd.core.pace import PEER_US, Pace
from mfd.core.routestate import HOPS_MAX, METRIC_MAX, Route
from mfd.core.routing import Routes, Source
from mfd.core.sources import RECORD_BYTES_MAX, is_name
from mfd.core.whereabouts import Whereabouts, is_item

__all__ = ["MARK_BYTES", "Seeker", "Trail"]

MARK_BYTES = 8  # of a peer id, in routes
ID_BYTES = 16
TTL_MAX = 16
NAMES_MAX = 8  # in one SEEK
ANSWERS_MAX = 4  # holders in one FOUND
PASSED_MAX = 8  # FOUND that a relay passes back for one SEEK
PASSES_MAX = 4_096  # SEEK remembered for duplicates and the way back
PASS_US = 10_000_000
FOUND_MAX = 1_024  # holders kept
SEARCHES_MAX = 64
FRAMES_PER_S = 32  # SEEK of one neighbour that are looked at
NONE: frozenset[int] = frozenset()
NOBODY = -1  # no link has this number: the asker of our own SEEK
THIN_BYTES = 64 << 10  # what the cost of a link is reckoned for

Then = Callable[[bool], None]


class Trail(NamedTuple):
    """A way to a peer that SEEK has found: hops up to one that has a route, and that route."""

    route: tuple[bytes, ...]  # marks, the first hop's first
    name: str
    holder: bytes


@dataclass(slots=True)
class _Link:
    """One neighbour."""

    peer: bytes
    cost: int
    out: Bucket  # bytes of SEEK and FOUND
    into: Bucket  # frames


@dataclass(slots=True)
class _Pass:
    """A SEEK that came by."""

    asker: int
    asked: frozenset[int]  # links that it was passed on to
    until_us: int
    passed: int = 0
    more: bool = False


@dataclass(slots=True)
class _Held:
    """A holder that was found."""

    source: Source
    trail: Trail
    until_us: int


@dataclass(slots=True)
class _Search:
    """A search that this peer has begun."""

    names: tuple[str, ...]
    exclude: frozenset[bytes]  # marks
    then: list[Then]
    but: frozenset[int] = NONE  # neighbours left out, where others are there
    ring: int = 0
    id: bytes = b""
    found: bool = False
    ended: bool = False
    more: bool = False  # there are peers beyond the ring
    rank_us: int = 0  # whose ring goes first where several wait
    said: dict[tuple[bytes, int], int] = field(default_factory=dict)  # answers by id and link
    timer: Timer | None = field(default=None, repr=False)


class Seeker:
    """Searches of one peer, and its part in those of others."""

    def __init__(self, ctx: Context, routes: Callable[[], Routes | None]) -> None:
        self._ctx = ctx
        self._routes = routes
        self._links: dict[int, _Link] = {}
        self._passes: dict[bytes, _Pass] = {}
        self._searches: dict[tuple[str, ...], _Search] = {}
        self._ids: dict[bytes, _Search] = {}
        self._found: dict[tuple[str, bytes], _Held] = {}
        self._pace = Pace(ctx)
        self.ups = 0  # neighbours, ever
        self.whereabouts: Whereabouts | None = None  # where records of peers are kept

    # links

    def link_up(self, link: int, peer: bytes, cost: int) -> None:
        """A neighbour is there. Its cost tells at least how fast the link is."""
        config = self._ctx.config
        bytes_per_s = THIN_BYTES / (max(1, cost) * 1e-5)
        allowed = max(config.seek_floor_bytes_per_s, config.seek_share * bytes_per_s)
        into = Bucket(FRAMES_PER_S, 2 * FRAMES_PER_S)
        self.ups += 1
        self._links[link] = _Link(peer, max(1, cost), Bucket(allowed, 2 * allowed), into)

    def link_down(self, link: int) -> None:
        """A neighbour is gone, and what was found through it."""
        gone = self._links.pop(link, None)
        if gone is not None:
            mark = gone.peer[:MARK_BYTES]
            self._found = {k: h for k, h in self._found.items() if h.trail.route[0] != mark}

    def _send(self, link: int, frame: Frame) -> bool:
        """Send within the share of the link; what is over it is dropped, and asked for again."""
        raw = encode_frame(frame)
        if not self._links[link].out.take(self._ctx.now_us, len(raw) + 4):
            self._ctx.count("seek_over_share")
            return False
        self._ctx.send(link, raw)
        return True

    # what was found

    def sources(self, names: Sequence[str]) -> list[Source]:
        """Holders found under any of these names that are still good, in no order."""
        now_us, wanted = self._ctx.now_us, set(names)
        held = self._found.items()
        return [h.source for (name, _), h in held if name in wanted and now_us < h.until_us]

    def trail(self, peer: bytes, but: frozenset[int] = NONE) -> Trail | None:
        """Return a way to a peer that was found, the nearest of several, rather not over `but`."""
        now_us = self._ctx.now_us
        held = [
            (self.begins_at(h.trail, but), h.source.metric, h.trail)
            for (_, holder), h in self._found.items()
            if holder == peer and now_us < h.until_us
        ]
        return min(held)[2] if held else None

    def begins_at(self, trail: Trail, links: frozenset[int]) -> bool:
        """Whether a way begins at one of these neighbours, though there are others."""
        marks = {n: link.peer[:MARK_BYTES] for n, link in self._links.items() if n in links}
        return len(marks) < len(self._links) and trail.route[0] in marks.values()

    def forget(self, peer: bytes) -> None:
        """It did not answer: let the next search find another way, or nobody."""
        self._found = {k: h for k, h in self._found.items() if k[1] != peer}

    # searching

    def seek(
        self, names: Sequence[str], exclude: Iterable[bytes], then: Then, but: frozenset[int] = NONE
    ) -> None:
        """Look for holders of any of `names` but these peers; `then` is told if any was found.

        A search for the same names that is under way counts for this one too.
        """
        key = tuple(names[:NAMES_MAX])
        search = self._searches.get(key)
        if search is not None:
            search.then.append(then)
            return
        if len(self._searches) >= SEARCHES_MAX or not self._links:
            self._ctx.after(0, lambda: then(False))
            return
        marks = frozenset(peer[:MARK_BYTES] for peer in exclude)
        search = self._searches[key] = _Search(key, marks, [then], but)
        search.rank_us = self._ctx.now_us + (PEER_US if _is_for_peer(search) else 0)
        self._ring(search)

    def seek_peer(self, peer: bytes, then: Then, but: frozenset[int] = NONE) -> None:
        """Look for a peer by its id, over other neighbours than `but` if there are any."""
        self.seek((peer_name(peer),), (), then, but)

    def seeks(self, names: Sequence[str]) -> bool:
        """Say whether a search for these names is under way."""
        return tuple(names[:NAMES_MAX]) in self._searches

    def _ring(self, search: _Search) -> None:
        """Send the next ring as soon as the pace of this peer allows."""
        waits = self._pace.in_turn(search.rank_us, partial(self._ring_now, search))
        search.timer = waits or search.timer

    def _ring_now(self, search: _Search) -> None:
        config = self._ctx.config
        ttl = config.seek_rings[search.ring]
        search.ring += 1
        search.more = False
        search.id = self._ctx.dice.bytes(ID_BYTES)
        self._ids[search.id] = search
        self._remember(search.id, _Pass(NOBODY, frozenset(), self._ctx.now_us + PASS_US))
        exclude = make_filter(search.id, search.exclude)
        for link in [n for n in self._links if n not in search.but] or self._links:
            self._send(link, Seek([search.id, list(search.names), exclude, ttl]))
        self._ctx.count("seeks_sent")
        rest = partial(self._ring_over, search)
        search.timer = self._ctx.after(2 * ttl * config.seek_hop_us, rest)

    def _ring_over(self, search: _Search) -> None:
        if search.found or not search.more or search.ring >= len(self._ctx.config.seek_rings):
            self._end(search)
        else:
            self._ring(search)

    def _end(self, search: _Search) -> None:
        search.ended = True  # answers that come later are kept all the same
        del self._searches[search.names]
        if search.timer is not None:
            search.timer.cancel()
        for then in search.then:
            then(search.found)

    # what neighbours ask

    def on_seek(self, link: int, body: Any) -> None:
        """Take in the body of a SEEK: answer it, pass it on or drop it. Never raises."""
        match body:
            case [bytes() as seek, list() as names, bytes() as exclude, int() as ttl] if (
                len(seek) == ID_BYTES
                and 1 <= len(names) <= NAMES_MAX
                and all(map(is_name, names))
                and len(exclude) <= FILTER_BYTES_MAX
                and type(ttl) is int
                and 1 <= ttl <= TTL_MAX
            ):
                pass
            case _:
                self._ctx.count("seek_malformed")
                return
        now_us = self._ctx.now_us
        if not self._links[link].into.take(now_us):
            self._ctx.count("seek_too_many")
            return
        if seek in self._passes:
            self._ctx.count("seek_duplicates")
            return
        offers = self._offers(names, link, partial(matches, exclude, seek))
        others = [other for other in self._links if other != link]
        onward = others if ttl > 1 and not offers else []
        if not self._remember(seek, _Pass(link, frozenset(onward), now_us + PASS_US)):
            self._ctx.count("seek_too_many")
            return
        if offers:
            told = [self._told(o) for o in offers]
            self._send(link, Found([seek, [self._mark], told, False]))
        elif ttl == 1 and others:
            self._send(link, Found([seek, [self._mark], [], True]))
        for other in onward:
            self._send(other, Seek([seek, names, exclude, ttl - 1]))

    def _told(self, offer: Route) -> list[Any]:
        """An answer; where it can be dialled, with the holder's own record."""
        answer = [offer.record.sealed, offer.metric, offer.hops]
        item = self.whereabouts.item(offer.record.holder) if self.whereabouts is not None else None
        return answer if item is None else [*answer, list(item)]

    @property
    def _mark(self) -> bytes:
        return self._ctx.me[:MARK_BYTES]

    def _remember(self, seek: bytes, new: _Pass) -> bool:
        """Forget what is old; say whether there was room for one SEEK more."""
        for old, known in list(self._passes.items()):
            if self._ctx.now_us < known.until_us:
                break
            del self._passes[old]
            self._ids.pop(old, None)
        if len(self._passes) >= PASSES_MAX:
            return False
        self._passes[seek] = new
        return True

    def _offers(
        self, names: Sequence[str], asker: int, but: Callable[[bytes], bool]
    ) -> list[Route]:
        """Routes to the nearest holders of any of these names; none that leads back.

        A holder that is out of reach for bulk circuits is no help.
        """
        routes, me = self._routes(), self._ctx.me
        if routes is None:
            return []
        best: dict[bytes, Route] = {}
        if peer_name(me) in names:
            best[me] = Route(None, routes.proof(self._ctx.now_us), 0, 0)
        for route in (route for name in names for route in routes.ranked(name)):
            known = best.get(route.record.holder)
            if route.link == asker or (known is not None and known.metric <= route.metric):
                continue
            if routes.next_hop(route.record.name, route.record.holder, Class.BULK) is not None:
                best[route.record.holder] = route
        fit = [route for holder, route in best.items() if not but(holder[:MARK_BYTES])]
        return sorted(fit, key=lambda r: (r.metric, r.record.holder))[:ANSWERS_MAX]

    # what neighbours answer

    def on_found(self, link: int, body: Any) -> None:
        """Take in the body of a FOUND: keep it, or pass it back. Never raises."""
        match body:
            case [bytes() as seek, list() as route, list() as told, bool() as more] if (
                1 <= len(route) <= TTL_MAX
                and all(isinstance(m, bytes) and len(m) == MARK_BYTES for m in route)
                and len(told) <= ANSWERS_MAX
                and all(map(_is_answer, told))
            ):
                pass
            case _:
                self._ctx.count("seek_malformed")
                return
        if self._mark in route or len(set(route)) < len(route):
            return
        cost = self._links[link].cost
        told = [[a[0], a[1] + cost, min(a[2] + 1, HOPS_MAX), *a[3:]] for a in told]
        search = self._ids.get(seek)
        if search is not None:
            said = search.said[seek, link] = search.said.get((seek, link), 0) + bool(told)
            if said <= PASSED_MAX:  # an honest neighbour passes on no more
                self._keep(search, tuple(route), told, more=more)
            return
        known = self._passes.get(seek)
        if known is None or link not in known.asked or known.asker not in self._links:
            return
        if (told and known.passed < PASSED_MAX) or (more and not known.more):
            known.passed += bool(told)
            known.more |= more
            self._send(known.asker, Found([seek, [self._mark, *route], told, more]))

    def _keep(
        self, search: _Search, route: tuple[bytes, ...], told: list[Any], *, more: bool
    ) -> None:
        """Remember holders whose record is right; relays do not check it."""
        search.more |= more
        routes, now_us = self._routes(), self._ctx.now_us
        for sealed, metric, hops, *item in told:
            record = routes.open(sealed) if routes is not None else None
            if record is None or record.name not in search.names or metric > METRIC_MAX:
                continue
            key = (record.name, record.holder)
            if record.holder == self._ctx.me or record.holder[:MARK_BYTES] in search.exclude:
                continue
            if item and self.whereabouts is not None:
                self.whereabouts.learn(record.holder, item[0])
            known = self._found.get(key)
            if known is None and len(self._found) >= FOUND_MAX:
                self._found = {k: h for k, h in self._found.items() if now_us < h.until_us}
                if len(self._found) >= FOUND_MAX:
                    continue
            search.found = True
            gone = known is not None and self.begins_at(known.trail, search.but)
            if known is None or gone or metric <= known.source.metric or now_us >= known.until_us:
                word = (record.samples, record.labels, record.capacity)
                source = Source(record.holder, metric, hops, *word)
                valid_us = min(record.valid_us, self._ctx.config.seek_keep_us)
                self._found[key] = _Held(source, Trail(route, *key), now_us + valid_us)
        if search.found and not search.ended and _is_for_peer(search):
            self._end(search)  # there is but one holder of such a name


def _is_for_peer(search: _Search) -> bool:
    return search.names[0].startswith("@")


def _is_answer(item: object) -> bool:
    match item:
        case [bytes() as sealed, int() as metric, int() as hops, *item]:
            numbers = type(metric) is int and type(hops) is int
            if item and (len(item) > 1 or not is_item(item[0])):
                return False
            return numbers and len(sealed) <= RECORD_BYTES_MAX and _are_small(metric, hops)
    return False


def _are_small(metric: int, hops: int) -> bool:
    return 0 <= metric <= METRIC_MAX and 0 <= hops <= HOPS_MAX
