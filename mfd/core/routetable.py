"""The table under routing: sources, what each neighbour said of them, what each was told.

A source is a pair (name, holder). A route to it is feasible only if it is strictly nearer than the
best (seqno, metric) that this peer ever advertised for it: hence no loops, at any instant.

Rules of this file: it selects, ranks and words advertisements; it checks no signature and asks for
nothing. Every order is total: (metric, holder id), then link number.
Source: spec/routing.md, sections "Selection" and "Advertising"; RFC 8966 sections 3.5 to 3.7.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from mfd.core.config import Config
from mfd.core.frames import Class
from mfd.core.routestate import (
    ALL_CLASSES,
    CLASSES,
    DETOUR,
    LOST,
    METRIC_MAX,
    NOTHING,
    STARVING,
    Distance,
    Key,
    Neighbour,
    Route,
    State,
    Want,
    Way,
    by_class,
    is_nearer,
    onward,
)
from mfd.core.sources import Record

__all__ = ["ENTRIES_MAX", "RouteTable"]

ENTRIES_MAX = 512  # in one UPDATE
BODY_BYTES_MAX = 48 << 10
ENTRY_OVERHEAD_BYTES = 32  # MessagePack heads and numbers of one entry, at most
NO_WAYS: tuple[list[Way], ...] = ([], [])
NO_RANK = (METRIC_MAX + 1, True, 0)


class RouteTable:
    """Sources, neighbours, selected routes and pending advertisements of one peer."""

    def __init__(self, me: bytes, config: Config) -> None:
        self.me = me
        self.config = config
        self.links: dict[int, Neighbour] = {}
        self.names: dict[str, dict[bytes, State]] = {}
        self.count = 0  # of states
        self.appeared: set[str] = set()  # names of which a holder has come into reach
        self.wake_us: int | None = None  # never later than the first thing to do

    def find(self, name: str, holder: bytes) -> State | None:
        """Return what is known of a source."""
        states = self.names.get(name)
        return None if states is None else states.get(holder)

    def wake(self, due_us: int) -> None:
        """Remember that something is to be done then."""
        if self.wake_us is None or due_us < self.wake_us:
            self.wake_us = due_us

    # links

    def link_up(self, link: int, neighbour: Neighbour, now_us: int) -> None:
        """Add a neighbour; it is told everything at once."""
        assert link not in self.links, f"link {link} is already up"
        self.links[link] = neighbour
        for name, states in self.names.items():
            for holder in states:
                self.mark(neighbour, (name, holder), now_us)

    def link_down(self, link: int) -> dict[str, list[bytes]]:
        """Forget a neighbour; return the sources that lost an advertisement, by name."""
        gone = self.links.pop(link, None)
        lost: dict[str, list[bytes]] = {}
        for name in gone.names if gone else ():
            holders = lost[name] = []
            for holder, state in self.names[name].items():
                if link in state.adverts:
                    state.unheard(link)
                    holders.append(holder)
        return lost

    def mark(self, neighbour: Neighbour, key: Key, due_us: int) -> None:
        """Let a neighbour be told of a source by then, if there is news."""
        before_us = neighbour.dirty.get(key)
        if before_us is None or due_us < before_us:
            neighbour.dirty[key] = due_us
        self.wake(due_us)

    # sources

    def note(self, record: Record, now_us: int) -> State:
        """Return the state of a record's source, made or renewed. A seqno is renewed only once."""
        state = self.find(record.name, record.holder)
        if state is not None and record.seqno <= state.newest.seqno:
            return state
        valid_us = min(record.valid_us, self.config.record_valid_us)
        until_us, forget_us = now_us + valid_us, now_us + 2 * valid_us
        if state is None:
            state = State(record, until_us, forget_us)
            self.names.setdefault(record.name, {})[record.holder] = state
            self.count += 1
        else:
            state.newest, state.until_us, state.forget_us = record, until_us, forget_us
        return state

    def has_room(self, link: int, record: Record) -> bool:
        """Say whether one more advertisement of this neighbour fits. Nothing is ever evicted."""
        config, neighbour = self.config, self.links[link]
        state = self.find(record.name, record.holder)
        if state is not None and link in state.adverts:
            return True
        known = record.name in self.names
        per_name = len(CLASSES) * config.sources_per_name  # an honest neighbour never says more
        return (
            neighbour.adverts < config.adverts_per_link_max
            and neighbour.names.get(record.name, 0) < per_name
            and (known or len(self.names) < config.names_max)
            and (state is not None or self.count < config.sources_max)
        )

    def put(self, link: int, state: State, said: Iterable[Route | None]) -> None:
        """Take in an advertisement; None: nothing new in that class."""
        name = state.newest.name
        neighbour = self.links[link]
        if link not in state.adverts:
            state.adverts[link] = by_class()
            neighbour.adverts += 1
            neighbour.names[name] = neighbour.names.get(name, 0) + 1
        state.heard(link, said, neighbour.cost)

    def drop(self, link: int, state: State, mask: int) -> None:
        """Forget what a neighbour said in the classes of `mask`."""
        if link in state.adverts and state.unheard(link, mask):
            name, neighbour = state.newest.name, self.links[link]
            neighbour.adverts -= 1
            neighbour.names[name] -= 1
            if not neighbour.names[name]:
                del neighbour.names[name]

    # selection

    def feasible(self, state: State, cls: Class, advert: Route) -> bool:
        """Babel's condition: strictly nearer than anything this peer ever advertised."""
        limit = state.feasibility[cls]
        return limit is None or is_nearer((advert.record.seqno, advert.metric), limit)

    def lower(self, state: State, cls: Class, told: Route) -> None:
        """Note that `told` is advertised: the feasibility distance never lies above it."""
        limit, said = state.feasibility[cls], (told.record.seqno, told.metric)
        if limit is None or is_nearer(said, limit):
            state.feasibility[cls] = said

    def reachable(self, state: State, cls: Class) -> Collection[Way]:
        """Return (metric from here, link, advertisement) for each neighbour that advertises it."""
        return state.ways[cls].values()

    def links_toward(self, state: State | None, cls: Class, than: Distance) -> list[int]:
        """Return the links of advertisements nearer than that, the best way from here first."""
        ways = sorted(self.reachable(state, cls)) if state is not None else []
        return [link for _, link, a in ways if is_nearer((a.record.seqno, a.metric), than)]

    def select(self, state: State, cls: Class) -> bool:
        """Choose the nearest feasible route; of equals the present one, then the lowest link.

        Return whether that has changed anything.
        """
        now = state.best[cls]
        here = now.link if now else None
        barred, least, chosen = METRIC_MAX + 1, NO_RANK, None
        for metric, link, advert in self.reachable(state, cls):
            rank = (metric, link != here, link)
            if rank < least:
                if self.feasible(state, cls, advert):
                    least, chosen = rank, advert
                else:
                    barred = min(barred, metric)
        if barred < least[0]:
            state.nearer = None  # `wants` has to look
        if chosen is None:
            state.best[cls] = None
            return now is not None
        best = onward(least[0], least[2], chosen)
        if best == now:
            return False  # the same value stays, so that whoever has it sees that nothing changed
        state.best[cls] = best
        return True

    def order(self, route: Route) -> tuple[Any, ...]:
        """The ranking of sources, the same at every peer: two orders side by side never settle."""
        return (route.metric, route.record.holder)

    def ranked(self, name: str, cls: Class) -> list[Route]:
        """Return the selected routes to the holders of a name, nearest first."""
        states = self.names.get(name, {}).values()
        best = [state.best[cls] for state in states]
        return sorted((route for route in best if route is not None), key=self.order)

    def settle(self, name: str, changed: Iterable[bytes] | None, now_us: int) -> None:
        """Select anew for the changed holders, prune to the k nearest, mark what is news.

        None: what this peer itself holds has changed, and was selected already.
        """
        states = self.names.get(name, {})
        moved = 0 if changed is not None else ALL_CLASSES
        for holder in changed or ():
            state = states.get(holder)
            if holder != self.me and state is not None:
                before, state.nearer = state.best[0], NO_WAYS
                for cls in CLASSES:
                    if self.select(state, cls):
                        moved |= 1 << cls
                if before is None and state.best[0] is not None:
                    self.appeared.add(name)
        for cls in CLASSES:
            if moved >> cls & 1:  # else the offers are those of before
                self._prune(name, states, cls, now_us)
        idle = [h for h, s in states.items() if not s.adverts and self._is_idle(s, now_us)]
        for holder in idle:
            self.forget(name, holder)

    def _prune(self, name: str, states: dict[bytes, State], cls: Class, now_us: int) -> None:
        """Offer the k nearest, and mark what that changes."""
        kept = self.ranked(name, cls)[: self.config.sources_per_name]
        offers = {route.record.holder: route for route in kept}
        for holder, state in states.items():
            offer = offers.get(holder)
            if offer != state.offer[cls]:
                state.offer[cls] = offer
                hurry = offer is None or self._answers(state, cls, offer)
                due_us = now_us if hurry else now_us + self.config.update_batch_us
                for neighbour in self.links.values():
                    self.mark(neighbour, (name, holder), due_us)

    def _answers(self, state: State, cls: Class, offer: Route) -> bool:
        """Say whether somebody waits for this seqno."""
        asked = state.asked[cls]
        if asked is None or offer.record.seqno < asked[0]:
            return False
        state.asked[cls] = None
        return True

    def _is_idle(self, state: State, now_us: int) -> bool:
        """Say whether a state may go: nobody speaks of it, and nothing that we said binds us."""
        if state.adverts or any(state.best):
            return False
        bound = any(state.feasibility) and state.newest.holder != self.me
        return not bound or now_us >= state.forget_us

    def forget(self, name: str, holder: bytes) -> None:
        """Drop a state."""
        del self.names[name][holder]
        self.count -= 1
        if not self.names[name]:
            del self.names[name]

    # repair

    def toward(self, state: State, cls: Class, asker: int) -> int | None:
        """Return the link for a seqno request: a feasible route first, never back to the asker."""
        ways = (
            (not self.feasible(state, cls, advert), metric, link)
            for metric, link, advert in self.reachable(state, cls)
            if link != asker
        )
        return min(ways, default=(True, 0, None))[2]

    def wants(self, name: str) -> tuple[int, list[Want]]:
        """Return (how bad it is, what a newer seqno would repair), nearest first.

        A holder without a feasible route is lost only while the list is not full: nobody was
        pruned then.
        """
        found: tuple[list[Want], ...] = ([], [], [])  # by DETOUR, LOST, STARVING
        states = self.names.get(name, {})
        nearer = [
            (holder, state, ways)
            for holder, state in states.items()
            if state.nearer is not NO_WAYS
            and (ways := state.nearer or self._look(state)) is not NO_WAYS
        ]
        for cls in CLASSES if nearer else ():  # nearly always there is none
            better = [
                (state.best[cls], Want(metric, holder, cls, link), advert)
                for holder, state, ways in nearer
                for metric, link, advert in ways[cls]
            ]
            if not better:
                continue
            ranks = [self.order(route) for route in self.ranked(name, cls)]
            worst = ranks[: self.config.sources_per_name][-1:]
            full = len(ranks) >= self.config.sources_per_name
            for best, want, advert in better:
                if not ranks:
                    found[STARVING].append(want)
                elif not full:
                    found[DETOUR if best else LOST].append(want)
                elif self.order(onward(want.metric, want.link, advert)) <= worst[0]:
                    found[DETOUR].append(want)
        worst_need = max((need for need in (STARVING, LOST) if found[need]), default=DETOUR)
        return worst_need, sorted(found[worst_need])

    def _look(self, state: State) -> tuple[list[Way], ...]:
        """Find the infeasible ways that are nearer than the selected one."""
        found: list[list[Way]] = []
        for cls in CLASSES:
            best = state.best[cls]
            found.append(
                [
                    way
                    for way in self.reachable(state, cls)
                    if (best is None or way[0] < best.metric)
                    and not self.feasible(state, cls, way[2])
                ]
            )
        state.nearer = tuple(found) if any(found) else NO_WAYS
        return state.nearer

    # advertising

    def updates(self, now_us: int) -> list[tuple[int, list[Any]]]:
        """Return the UPDATE bodies due now, by link; what they say binds this peer from here on."""
        bodies = []
        for link, neighbour in self.links.items():
            keys = sorted(key for key, due_us in neighbour.dirty.items() if due_us <= now_us)
            retractions: list[Any] = []
            adverts: list[Any] = []
            for key in keys:
                del neighbour.dirty[key]
                self._word(neighbour, key, retractions, adverts)
            bodies += [(link, body) for body in _split(retractions + adverts)]
            for due_us in neighbour.dirty.values():
                self.wake(due_us)
        return bodies

    def _word(self, to: Neighbour, key: Key, retractions: list[Any], adverts: list[Any]) -> None:
        """Word the difference between what a neighbour was told of a source and what holds now."""
        state = self.find(*key)
        before = to.told.pop(key, NOTHING)
        if state is None:
            after = NOTHING
        else:
            thin, bulk = state.offer
            after = (
                thin and (thin.record.seqno, thin.metric, thin.hops),
                bulk and (bulk.record.seqno, bulk.metric, bulk.hops),
            )
        if after == before:
            if after != NOTHING:
                to.told[key] = after
            return
        if after != NOTHING:
            to.told[key] = after
        lost = 0
        entries: dict[tuple[bytes, int], list[int | None]] = {}
        for cls in CLASSES:
            if after[cls] == before[cls]:
                continue
            route = None if state is None else state.offer[cls]
            if state is None or route is None:
                lost |= 1 << cls
                continue
            self.lower(state, cls, route)
            metrics = entries.setdefault((route.record.sealed, route.hops), by_class())
            metrics[cls] = route.metric
        if lost:
            retractions.append([*key, lost])
        adverts += [[sealed, *metrics, hops] for (sealed, hops), metrics in entries.items()]


def _split(entries: list[Any]) -> list[list[Any]]:
    """Cut entries into bodies within the limits, in order."""
    bodies: list[list[Any]] = []
    room = 0
    for entry in entries:
        size = ENTRY_OVERHEAD_BYTES + sum(
            len(part if isinstance(part, bytes) else part.encode())
            for part in entry
            if isinstance(part, bytes | str)
        )
        if size > room or len(bodies[-1]) >= ENTRIES_MAX:
            bodies.append([])
            room = BODY_BYTES_MAX
        bodies[-1].append(entry)
        room -= size
    return bodies
