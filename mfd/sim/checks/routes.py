"""Routing, as next hops and UPDATE frames show it.

    S8   for each source and class the next hops of all peers form no circle, at any instant
    S9   nothing infeasible is selected, no feasibility distance lies above what was advertised, and
         only the holder raises its seqno
    S13  a record is not passed on once it has expired
    R4   routing says no more than what has changed warrants: a storm or a livelock is neither

A next hop counts where the link to it stands at both ends: nothing travels over any other.
Circles through a liar are the liar's.

Rules of this package: see its __init__. Source: spec/routing.md; RFC 8966 section 2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from mfd.core.effects import Effect, Send
from mfd.core.events import Event, Held, LinkDown, LinkUp, Received, Restored, Unheld
from mfd.core.frames import Class, SeqnoRequest, Update
from mfd.core.routestate import Distance, Key, Route, by_class, is_nearer
from mfd.core.sources import Record, open_record
from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer
from mfd.sim import insight
from mfd.sim.checks.frames import Frames
from mfd.sim.insight import Sigma
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["Routing"]

UPDATE_TYPE, REQUEST_TYPE = 4, 5
UPDATE_HEAD = bytes([UPDATE_TYPE])
CHURN = 8  # entries to a neighbour that one change of a selected route warrants
CHURN_SLACK = 100
ALL_NAMES_TURNS = 16  # what an UPDATE is not about is looked at once in so many of them
CHANGING = frozenset({LinkUp, LinkDown, Restored, Held, Unheld})
REQUEST_HOPS = 64

Selected = tuple[Route | None, ...]  # to one holder, by class
NO_ROUTES: Selected = (None,) * len(Class)


@dataclass(slots=True)
class _View:
    """One host's routes, as last seen, in its present life."""

    life: int
    routes: dict[str, dict[bytes, Selected]] = field(default_factory=dict)  # by name, by holder
    turns: int = 0  # UPDATE frames heard
    told: dict[Key, list[Distance | None]] = field(default_factory=dict)  # nearest ever, by class
    heard: dict[tuple[str, bytes, int], int] = field(default_factory=dict)  # record -> first, us
    newest: dict[tuple[str, bytes], int] = field(default_factory=dict)  # seqno
    asked: dict[tuple[str, int], list[int]] = field(default_factory=dict)  # though reachable
    entries: int = 0  # said to neighbours
    warranted: int = 0

    def count(self) -> int:
        """How many routes are selected."""
        chosen = (each for routes in self.routes.values() for each in routes.values())
        return sum(route is not None for each in chosen for route in each)


class Routing:
    """Watches the routes of all honest peers."""

    def __init__(self, world: World, liars: set[str]) -> None:
        self._world = world
        self._liars = liars
        self._views: dict[int, _View] = {}
        self._frames = Frames()
        self._seqnos: dict[tuple[str, bytes], int] = {}  # highest that a holder has signed
        self._records: dict[bytes, Record | None] = {}
        self.changes = 0  # of selected routes, at all peers
        self.entries = 0
        self.sweeping = False  # circles are looked for by `sweep` alone

    # each event

    def __call__(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """Check one host after one event. Raises: Violation."""
        view = self._view(host)
        kind = type(event)
        if kind is Received:
            if event.frame[:1] == UPDATE_HEAD:  # type: ignore[union-attr]
                names = self._hear(host, view, event.frame)  # type: ignore[union-attr]
                view.turns += 1
                self.compare(host, names if view.turns % ALL_NAMES_TURNS else None)
        elif kind in CHANGING:
            if kind is LinkUp:
                view.warranted += 2 * (1 + view.count())
            self.compare(host)
        if host.name in self._liars:
            return
        for effect in effects:
            if type(effect) is Send and effect.frame[0][0] in (UPDATE_TYPE, REQUEST_TYPE):
                self._said(host, view, effect.frame[0])
        if view.entries > view.warranted + CHURN_SLACK:
            raise self._violation(
                "R4", f"{host.name} has told {view.entries} changes; {view.warranted} are warranted"
            )

    def _view(self, host: Host) -> _View:
        view = self._views.get(host.index)
        if view is None or view.life != host.life:
            view = self._views[host.index] = _View(host.life)
        return view

    # next hops

    def compare(self, host: Host, names: Collection[str] | None = None) -> None:
        """See which next hops of a host have changed; none may close a circle.

        `names`: what may have changed; None: anything.
        """
        if host.peer is None:
            return
        view, sources = self._view(host), insight.sources(host.peer)
        changed: list[tuple[Sigma, Route]] = []
        moved = 0
        for name in {**view.routes, **sources} if names is None else names:
            known, states = view.routes.setdefault(name, {}), sources.get(name, {})
            for holder, state in states.items():
                before, (thin, bulk) = known.get(holder, NO_ROUTES), state.best
                if thin is not before[0] or bulk is not before[1]:
                    known[holder] = (thin, bulk)
                    for cls, (old, route) in enumerate(zip(before, (thin, bulk), strict=True)):
                        if route is not None and route is not old:
                            changed.append((Sigma(name, holder, cls), route))
                        moved += _has_moved(old, route)
            if not known.keys() <= states.keys():
                for holder in known.keys() - states.keys():
                    moved += sum(route is not None for route in known.pop(holder))
            if not known:
                del view.routes[name]
        self.changes += moved
        if moved:
            view.warranted += CHURN * moved * max(1, len(insight.links(host.peer)))
        liar = host.name in self._liars
        for sigma, route in changed:
            if route.link is None:
                source = (sigma.name, sigma.holder)
                self._seqnos[source] = max(self._seqnos.get(source, 0), route.record.seqno)
        for sigma, route in () if liar else changed:
            if route.link is not None:
                self._check_feasible(host, view, sigma, route)
                if not self.sweeping:
                    self._check_circle(host, sigma)

    def sweep(self) -> None:
        """Look for circles in the next hops of this instant. Raises: Violation."""
        for host in self._world.hosts.values():
            self.compare(host)
        for host in self._world.hosts.values():
            view = self._views.get(host.index)
            if host.peer is not None and view is not None and host.name not in self._liars:
                for name, routes in view.routes.items():
                    for sigma in (Sigma(name, holder, cls) for holder in routes for cls in Class):
                        self._check_circle(host, sigma)

    def _check_feasible(self, host: Host, view: _View, sigma: Sigma, route: Route) -> None:
        nearest = view.told.get((sigma.name, sigma.holder))
        told = None if nearest is None else nearest[sigma.cls]
        if told is None:
            return
        assert route.link is not None
        assert host.peer is not None
        advert = insight.chosen_advert(host.peer, sigma, route.link)
        if advert is None:
            return
        first_us = view.heard.get((sigma.name, sigma.holder, told[0]))
        bound_us = 2 * min(route.record.valid_us, host.config.record_valid_us)
        if first_us is not None and host.local_us(self._world.now_us) >= first_us + bound_us:
            return  # what was said then binds nobody any more
        if not is_nearer((advert.record.seqno, advert.metric), told):
            raise self._violation(
                "S9",
                f"{host.name} selects {_where(sigma)} at {(advert.record.seqno, advert.metric)}, "
                f"which is not nearer than {told}, told before",
            )

    def _check_circle(self, host: Host, sigma: Sigma) -> None:
        name, holder, cls = sigma
        links, here, seen = self._world.wires.links, host, [host]
        while True:
            view = self._views.get(here.index)
            if here.peer is None or view is None or view.life != here.life:
                return
            route = view.routes.get(name, {}).get(holder, NO_ROUTES)[cls]
            if route is None or route.link is None:
                return
            link = links.get(route.link)
            if link is None or not all(link.up) or here.name in self._liars:
                return
            one, other = link.hosts
            here = other if here is one else one
            if here is host:
                circle = " -> ".join(each.name for each in (*seen, host))
                raise self._violation("S8", f"next hops to {_where(sigma)} run {circle}")
            if here in seen:
                return  # a circle further on, which was found when it closed, or is a liar's
            seen.append(here)

    # frames

    def _record(self, sealed: bytes) -> Record | None:
        if sealed not in self._records:
            try:
                verify = self._world.signatures.verify
                record = open_record(sealed, self._world.config.network, verify)
            except PacketError:
                record = None
            self._records[sealed] = record
        return self._records[sealed]

    def _hear(self, host: Host, view: _View, frame: Buffer) -> set[str]:
        """Remember what a host was told; return the names that it was about."""
        names = set[str]()
        update = self._frames.read(frame)
        if not isinstance(update, Update) or type(update.body) is not list:
            return names
        for entry in update.body:
            if type(entry) is list and len(entry) == 3 and type(entry[0]) is str:
                names.add(entry[0])
            if type(entry) is list and len(entry) == 4 and type(entry[0]) is bytes:
                record = self._record(entry[0])
                if record is not None:
                    names.add(record.name)
                    source = (record.name, record.holder)
                    if record.seqno > view.newest.get(source, -1):
                        view.newest[source] = record.seqno
                        now_us = host.local_us(self._world.now_us)
                        view.heard.setdefault((*source, record.seqno), now_us)
        return names

    def _said(self, host: Host, view: _View, frame: Buffer) -> None:
        message = self._frames.read(frame)
        if isinstance(message, SeqnoRequest):
            view.entries += 1
            self.entries += 1
            self._check_request(host, view, message.body)
            return
        assert isinstance(message, Update)
        assert host.peer is not None
        for entry in message.body:
            view.entries += 1
            self.entries += 1
            if len(entry) == 4:
                self._check_told(host, view, entry)

    def _check_request(self, host: Host, view: _View, body: list[Any]) -> None:
        """A name that can be reached is asked about at the lazy pace."""
        name, _, _, cls, hops = body
        if hops != REQUEST_HOPS or host.peer is None:
            return  # passed on for somebody else
        if not any(s.cls == cls for s in insight.selected(host.peer, name)):
            return  # it starves
        now_us = host.local_us(self._world.now_us)
        since_us = now_us - host.config.seqno_lazy_us * 9 // 10
        asked = [us for us in view.asked.get((name, cls), ()) if us > since_us]
        view.asked[name, cls] = [*asked, now_us]
        if len(asked) >= 2 * host.config.sources_per_name:
            raise self._violation(
                "R4", f"{host.name} asks {len(asked) + 1} times about {name}, which it can reach"
            )

    def _check_told(self, host: Host, view: _View, entry: list[Any]) -> None:
        sealed, *metrics, _ = entry
        record = self._record(sealed)
        if record is None:
            raise self._violation("S9", f"{host.name} passes on a record that is not signed")
        source = (record.name, record.holder)
        if record.holder == host.key.public_key:
            self._seqnos[source] = max(self._seqnos.get(source, 0), record.seqno)
        highest = self._seqnos.get(source)
        if highest is None or record.seqno > highest:
            highest = self._ask_holder(source)
        over = highest is None or record.seqno > highest
        if over and record.holder not in self._liar_ids():
            raise self._violation(
                "S9",
                f"{host.name} passes on seqno {record.seqno} of {record.name}; "
                f"its holder's is {highest}",
            )
        self._check_age(host, view, record)
        assert host.peer is not None
        limits = insight.feasibility(host.peer, *source)
        nearest = view.told.setdefault(source, by_class())
        for cls, metric in enumerate(metrics):
            if metric is None:
                continue
            said, told = (record.seqno, metric), nearest[cls]
            if told is None or is_nearer(said, told):
                told = nearest[cls] = said
            limit = limits[cls]
            if limit is None or is_nearer(told, limit):
                raise self._violation(
                    "S9",
                    f"{host.name} told {told} of {_where(Sigma(*source, cls))} and its feasibility "
                    f"distance is {limit}",
                )

    def _ask_holder(self, source: tuple[str, bytes]) -> int | None:
        """The holder's own word, where its events are not watched."""
        name, holder = source
        host = next((h for h in self._world.hosts.values() if h.key.public_key == holder), None)
        own = None if host is None or host.peer is None else insight.own_seqno(host.peer, name)
        if own is not None:
            self._seqnos[source] = max(self._seqnos.get(source, 0), own)
        return self._seqnos.get(source)

    def _liar_ids(self) -> set[bytes]:
        return {self._world.hosts[name].key.public_key for name in self._liars}

    def _check_age(self, host: Host, view: _View, record: Record) -> None:
        first_us = view.heard.get((record.name, record.holder, record.seqno))
        if first_us is None or record.holder == host.key.public_key:
            return
        valid_us = min(record.valid_us, host.config.record_valid_us)
        age_us = host.local_us(self._world.now_us) - first_us
        if age_us > valid_us + valid_us // 16:  # expiry is looked for 32 times in a validity
            raise self._violation(
                "S13",
                f"{host.name} passes on a record of {record.name} {age_us / 1e6:.0f} s old, "
                f"valid for {valid_us / 1e6:.0f} s",
            )

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")


def _has_moved(old: Route | None, now: Route | None) -> bool:
    """Say whether a selected route is another one, or none any more.

    A newer seqno over the same way is no change: who asks for one needs a reason.
    """
    if old is None or now is None:
        return old is not now
    return (old.link, old.metric) != (now.link, now.metric)


def _where(sigma: Sigma) -> str:
    return f"{sigma.name[:40]} at {sigma.holder[:4].hex()} ({Class(sigma.cls).name.lower()})"
