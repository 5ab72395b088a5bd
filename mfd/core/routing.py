"""Which neighbour is nearer to a holder of a data name: k-nearest-source Babel.

Holders sign what they hold; each name keeps routes to its nearest holders in two classes; a name
without a feasible route asks a holder for a newer sequence number.

Rules of this file: it remembers and answers; it sends nothing, its caller passes on what `outgoing`
returns. What neighbours say is checked here, and no call raises because of it.
Source: spec/routing.md; RFC 8966 section 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from mfd.core.config import Config
from mfd.core.frames import Class, SeqnoRequest, Update
from mfd.core.origin import Origin
from mfd.core.routestate import (
    ALL_CLASSES,
    CLASSES,
    DETOUR,
    LOST,
    STARVING,
    Distance,
    Neighbour,
    Route,
    Want,
    are_numbers,
    is_nearer,
)
from mfd.core.routetable import ENTRIES_MAX, RouteTable
from mfd.core.sources import SEQNO_MAX, Record, Source, open_member_record
from mfd.core.status import RouteStatus
from mfd.core.tokens import Void
from mfd.packet.errors import PacketError
from mfd.packet.signing import Signer, Verifier

__all__ = ["Hop", "Routes", "Source"]

REQUEST_HOPS = 64
SWEEPS = 32  # looks for expired records in the time that a record is valid
LAZY_DOUBLINGS = 6

Outgoing = Update | SeqnoRequest


class Hop(NamedTuple):
    """A selected route. `link` is None where this peer is the holder itself."""

    link: int | None
    seqno: int
    metric: int  # unit 10 us
    hops: int


@dataclass(slots=True)
class _Ask:
    """A name that a newer seqno would help."""

    due_us: int
    need: int  # DETOUR, LOST or STARVING
    tries: int = 0
    asked: tuple[bytes, int] = (b"", 0)  # holder and link, last


class Routes:
    """The routing of one peer. Methods that change it take the time in microseconds.

    Bad entries from neighbours are dropped and counted in `refused`.
    """

    def __init__(
        self, me: bytes, config: Config, signer: Signer, verify: Verifier, boot: int
    ) -> None:
        self.me = me
        self.refused: dict[str, int] = {"malformed": 0, "unsigned": 0, "late": 0, "full": 0}
        self._config = config
        self._verify = verify
        self._table = RouteTable(me, config)
        self._origin = Origin(config, signer, boot)
        self._asks: dict[str, _Ask] = {}
        self._requests: list[tuple[int, Outgoing]] = []
        self._opened: dict[bytes, Record] = {}  # verified before
        self.void: Void = {}
        self._sweep_us: int | None = None

    # what this peer holds

    def hold(self, name: str, samples: int, now_us: int, labels: bytes = b"") -> None:
        """Announce data under a name, or news of it; `labels` is a rounded histogram.

        Raises: ValueError if the name cannot be announced.
        """
        self._origin.check(name)
        self._announce(self._origin.make(name, samples, now_us, labels=labels), now_us)

    def may_hold(self, name: str) -> bool:
        """Say whether a name can be announced."""
        try:
            self._origin.check(name)
        except ValueError:
            return False
        return True

    def unhold(self, name: str, now_us: int) -> None:
        """Withdraw a name; harmless if it is not held."""
        state = self._table.find(name, self.me)
        if self._origin.drop(name) and state is not None:
            state.best = [None] * len(CLASSES)
            self._settle(name, None, now_us)

    def _announce(self, record: Record, now_us: int) -> None:
        self._table.note(record, now_us).best = [Route(None, record, 0, 0)] * len(CLASSES)
        self._settle(record.name, None, now_us)

    # what the neighbours say

    def link_up(
        self, link: int, cost: int, now_us: int, *, peer: bytes = b"", bulk_cost: int | None = None
    ) -> None:
        """Add a neighbour, which is told everything at once. Costs: unit 10 us, at least 1."""
        costs = (max(1, cost), max(1, cost if bulk_cost is None else bulk_cost))
        self._table.link_up(link, Neighbour(peer, costs), now_us)

    def link_down(self, link: int, now_us: int) -> None:
        """Forget a neighbour and all that it said."""
        self._requests = [(to, frame) for to, frame in self._requests if to != link]
        for name, holders in self._table.link_down(link).items():
            self._settle(name, holders, now_us)

    def update(self, link: int, entries: Any, now_us: int) -> None:
        """Take in the body of an UPDATE. Never raises."""
        if link not in self._table.links:
            return
        if type(entries) is not list or len(entries) > ENTRIES_MAX:
            self.refused["malformed"] += 1
            return
        changed: dict[str, list[bytes]] = {}
        for entry in entries:
            key = None
            match entry:
                case [bytes() as sealed, thin, bulk, hops] if are_numbers(thin, bulk, hops):
                    key = self._take_advert(link, sealed, (thin, bulk), hops, now_us=now_us)
                case [str() as name, bytes() as holder, 1 | 2 | 3 as mask]:
                    key = self._take_retraction(link, name, holder, int(mask))
                case _:
                    self.refused["malformed"] += 1
            if key is not None:
                changed.setdefault(key[0], []).append(key[1])
        for name, holders in changed.items():
            self._settle(name, holders, now_us)

    def _take_advert(
        self, link: int, sealed: bytes, metrics: tuple[int | None, ...], hops: int, *, now_us: int
    ) -> tuple[str, bytes] | None:
        record = self.open(sealed)
        if record is None or record.holder == self.me:
            return None
        known = self._table.find(record.name, record.holder)
        if known and record.seqno <= known.newest.seqno and now_us >= known.until_us:
            self.refused["late"] += 1
            return None
        if not self._table.has_room(link, record):
            self.refused["full"] += 1
            return None
        state = self._table.note(record, now_us)
        said = (None if m is None else Route(link, record, m, hops) for m in metrics)
        self._table.put(link, state, said)
        return (record.name, record.holder)

    def strangers(self, entries: list[Any]) -> int:
        """Count the records in the body of an UPDATE that are still to be verified."""
        rows = (e for e in entries if type(e) is list and len(e) == 4 and type(e[0]) is bytes)
        return sum(row[0] not in self._opened for row in rows)

    def open(self, sealed: bytes) -> Record | None:
        """Check a record that somebody passed on; None if it is not valid."""
        record = self._opened.get(sealed)
        if record is None:
            try:
                record = open_member_record(sealed, self._config, self._verify, self.void)
            except PacketError:
                self.refused["unsigned"] += 1
                return None
            if len(self._opened) >= self._config.sources_max:
                self._opened.clear()
            self._opened[sealed] = record
        return record

    def expel(self, holder: bytes, now_us: int) -> None:
        """Forget what a holder announces with a token that is void."""
        self._opened = {s: r for s, r in self._opened.items() if not r.is_void(self.void)}
        for name, states in list(self._table.names.items()):
            if holder in states and states[holder].newest.is_void(self.void):
                for link in self._table.links:
                    self._take_retraction(link, name, holder, ALL_CLASSES)
                self._settle(name, [holder], now_us)

    def _take_retraction(
        self, link: int, name: str, holder: bytes, mask: int
    ) -> tuple[str, bytes] | None:
        state = self._table.find(name, holder)
        if state is None:
            return None
        self._table.drop(link, state, mask)
        return (name, holder)

    def _settle(self, name: str, holders: list[bytes] | None, now_us: int) -> None:
        self._table.settle(name, holders, now_us)
        self._watch(name, now_us)
        if self._sweep_us is None and self._table.count:
            self._sweep_us = now_us + self._config.record_valid_us // SWEEPS
            self._table.wake(self._sweep_us)

    # sequence numbers

    def request(self, link: int, body: Any, now_us: int) -> None:
        """Take in the body of a SEQNO_REQ: answer it, pass it on or drop it. Never raises."""
        if link not in self._table.links:
            return
        match body:
            case [str() as name, bytes() as holder, seqno, 0 | 1 as which, hops] if (
                are_numbers(hops) and type(seqno) is int and 0 <= seqno <= SEQNO_MAX
            ):
                cls = Class(which)
            case _:
                self.refused["malformed"] += 1
                return
        state = self._table.find(name, holder)
        if state is None:
            return
        best = state.best[cls]
        if best is not None and best.record.seqno >= seqno:
            self._table.mark(self._table.links[link], (name, holder), now_us)
        elif holder == self.me:
            self._origin.want(name, seqno)
            self._raise(now_us)
        elif 2 <= hops <= REQUEST_HOPS:
            target = self._table.toward(state, cls, link)
            if target is not None:
                self._ask(Want(0, holder, cls, target), name, seqno, hops=hops - 1, now_us=now_us)

    def _raise(self, now_us: int) -> None:
        """Give the seqnos that are wanted and due; wake for the rest."""
        for record in self._origin.raised(now_us):
            self._announce(record, now_us)
        for due_us in self._origin.dues_us():
            self._table.wake(due_us)

    @property
    def _quiet_us(self) -> int:
        """Half a retry, so that a retry is never taken for a duplicate."""
        return self._config.seqno_retry_us // 2

    def _ask(self, want: Want, name: str, seqno: int, *, hops: int, now_us: int) -> None:
        """Ask a neighbour for a newer seqno, unless that was done a moment ago."""
        state = self._table.names[name][want.holder]
        asked = state.asked[want.cls]
        duplicate = asked is not None and asked[0] >= seqno and asked[2] == want.link
        if asked and duplicate and now_us < asked[1] + self._quiet_us:
            return
        state.asked[want.cls] = (seqno, now_us, want.link)
        body = [name, want.holder, seqno, int(want.cls), hops]
        self._requests.append((want.link, SeqnoRequest(body)))
        self._table.wake(now_us)

    def _watch(self, name: str, now_us: int) -> None:
        """Start, hasten or end the asking for a name after its routes changed.

        A name without any feasible route asks at once; for one lost holder a moment later, since a
        pruning may be under way. One that a neighbour has pruned is not missed, or every pruning
        would set off requests.
        """
        need, wants = self._table.wants(name)
        ask = self._asks.get(name)
        if not wants:
            self._asks.pop(name, None)
            return
        if ask is None or need != ask.need:
            waits = {STARVING: 0, LOST: self._config.seqno_retry_us}
            wait_us = waits.get(need, self._config.seqno_lazy_us)
            ask = self._asks[name] = _Ask(now_us + wait_us, need)
        elif need != DETOUR and ask.tries and ask.asked not in {(w.holder, w.link) for w in wants}:
            ask.due_us = now_us  # whom we asked is out of reach: do not wait for the retry,
            ask.tries -= 1  # which is still to come
        self._table.wake(ask.due_us)

    def _chase(self, name: str, ask: _Ask, now_us: int) -> None:
        """Ask now, and settle when to ask again."""
        _, wants = self._table.wants(name)
        if ask.need != DETOUR:
            wants = [wants[ask.tries % len(wants)]]
        for want in wants[: self._config.sources_per_name]:
            limit = self._table.names[name][want.holder].feasibility[want.cls]
            assert limit is not None, f"{name} has an infeasible route without a limit"
            self._ask(want, name, limit[0] + 1, hops=REQUEST_HOPS, now_us=now_us)
            ask.asked = (want.holder, want.link)
        ask.tries += 1
        quick = self._config.seqno_retries if ask.need != DETOUR else -1
        if ask.tries <= quick:
            ask.due_us = now_us + (self._config.seqno_retry_us << ask.tries - 1)
        else:
            doublings = min(ask.tries - quick - 1, LAZY_DOUBLINGS)
            ask.due_us = now_us + (self._config.seqno_lazy_us << doublings)

    # time

    def deadline_us(self) -> int | None:
        """Return when to call `outgoing` at the latest, None if there is nothing to do."""
        return self._table.wake_us

    def outgoing(self, now_us: int) -> list[tuple[int, Outgoing]]:
        """Do what is due and return (link, frame) in the order in which they must be sent."""
        table = self._table
        if table.wake_us is None or now_us < table.wake_us:
            return []
        if self._sweep_us is not None and now_us >= self._sweep_us:
            self._sweep(now_us)
        for name, ask in self._asks.items():
            if now_us >= ask.due_us:
                self._chase(name, ask, now_us)
        table.wake_us = self._sweep_us
        for ask in self._asks.values():
            table.wake(ask.due_us)
        self._raise(now_us)
        requests, self._requests = self._requests, []
        return [(link, Update(body)) for link, body in table.updates(now_us)] + requests

    def _sweep(self, now_us: int) -> None:
        """Announce anew what is half expired here; end what is expired from elsewhere."""
        for record in self._origin.renewed(now_us):
            self._announce(record, now_us)
        for name, states in list(self._table.names.items()):
            ended = [h for h, state in states.items() if now_us >= state.until_us and h != self.me]
            for state in map(states.__getitem__, ended):
                for link in list(state.adverts):
                    self._table.drop(link, state, ALL_CLASSES)
            if ended:
                self._settle(name, ended, now_us)
        self._sweep_us = None
        if self._table.count:
            self._sweep_us = now_us + self._config.record_valid_us // SWEEPS

    # the answers

    def next_hop(self, name: str, holder: bytes, cls: Class) -> Hop | None:
        """Return the selected route to a holder, None if there is none."""
        state = self._table.find(name, holder)
        best = state.best[cls] if state else None
        return best and Hop(best.link, best.record.seqno, best.metric, best.hops)

    def links_toward(self, name: str, holder: bytes, cls: Class, than: Distance) -> list[int]:
        """Return the links over which neighbours advertise a holder nearer than that, in order."""
        return self._table.links_toward(self._table.find(name, holder), cls, than)

    def nearer(self, name: str, holder: bytes, promise: Distance, cls: Class) -> bool:
        """Say whether the route from here is strictly nearer than the promised (seqno, metric)."""
        hop = self.next_hop(name, holder, cls)
        return hop is not None and (hop.link is None or is_nearer((hop.seqno, hop.metric), promise))

    def holders(self, name: str, cls: Class = Class.THIN) -> list[Source]:
        """Return the reachable holders of a name, this peer included, nearest first."""
        return [
            Source(r.holder, route.metric, route.hops, r.samples, r.labels, r.capacity)
            for route in self._table.ranked(name, cls)
            for r in (route.record,)
        ]

    def ranked(self, name: str) -> list[Route]:
        """Return the selected routes to the holders of a name, nearest first."""
        return self._table.ranked(name, Class.THIN)

    def proof(self, now_us: int) -> Record:
        """Return a record that shows that this peer is here."""
        return self._origin.proof(now_us)

    def take_appeared(self) -> set[str]:
        """Return the names of which a holder has come into reach since the last call."""
        appeared, self._table.appeared = self._table.appeared, set()
        return appeared

    def snapshot(self) -> tuple[RouteStatus, ...]:
        """Return every selected route of the thin class: by name, nearest first."""
        links = self._table.links
        return tuple(
            RouteStatus(
                name=name,
                holder=route.record.holder.hex(),
                via="" if route.link is None else links[route.link].peer.hex(),
                metric=route.metric,
                hops=route.hops,
                seqno=route.record.seqno,
                samples=route.record.samples,
                labels=tuple(route.record.labels),
            )
            for name in sorted(self._table.names)
            for route in self._table.ranked(name, Class.THIN)
        )
