"""Membership and gossip, as views, books and frames show them.

    S12  an active view is symmetric within two round trips and the timers of a visit; it is no
         larger than allowed, holds nobody twice and nobody of the passive view, and never itself
    S13  a rumour is delivered at most once in a peer's life, a record of an older seq never takes
         the place of a newer one, and nothing is sent once it has ended

Rules of this package: see its __init__. Source: spec/membership.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mfd.core.effects import Effect, Send
from mfd.core.events import Event, Received
from mfd.core.gossip import rumour_id
from mfd.core.memberframes import (
    Ask,
    ForwardJoin,
    Join,
    Reply,
    Rumour,
    Shuffle,
    ShuffleReply,
)
from mfd.core.recordbook import Entry
from mfd.core.records import Item, open_peer_record
from mfd.core.tidings import (
    CUSTODY,
    EVIDENCE,
    EVIDENCE_VALID_S,
    REVOCATION,
    REVOCATION_VALID_S,
    VALID_S,
)
from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer
from mfd.sim import insight
from mfd.sim.checks.frames import Frames
from mfd.sim.violation import Violation
from mfd.sim.wires import Link
from mfd.sim.world import Host, World

__all__ = ["Members"]

TYPES = range(32, 42)  # frames that carry records or rumours
SECOND_US = 1_000_000
SWEEP_US = SECOND_US // 2


@dataclass(slots=True)
class _View:
    """One host in its present life."""

    life: int
    heard: set[bytes] = field(default_factory=set)  # rumours taken
    born_us: dict[bytes, int] = field(default_factory=dict)  # of records and rumours, at the latest
    seqs: dict[bytes, int] = field(default_factory=dict)  # peer -> highest seq in the book
    booked: list[Entry] = field(default_factory=list)  # entered in the book by this event


class Members:
    """Watches views, records and rumours of all honest peers."""

    def __init__(self, world: World, liars: set[str]) -> None:
        self._world = world
        self._liars = liars
        self._views: dict[int, _View] = {}
        self._frames = Frames()
        self._lopsided: dict[int, int] = {}  # link -> since when one end alone counts it
        self._valid_us: dict[bytes, int | None] = {}  # by record
        self._sweep_us = 0
        self.rumours = 0  # taken by anybody

    def __call__(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """Check one honest host after one event. Raises: Violation."""
        view = self._views.get(host.index)
        if view is None or view.life != host.life:
            view = self._views[host.index] = _View(host.life)
            if host.peer is not None:
                insight.watch_book(host.peer, view.booked.append)
        came: set[bytes] = set()  # records that a relay may pass on as they are
        if type(event) is Received and _is_ours(event.frame):
            frame = self._frames.read(event.frame)
            if isinstance(frame, Rumour):
                self._hear_rumour(host, view, frame)
            items = _items(frame)
            came = {sealed for sealed, _ in items}
            for sealed, age_s in items:
                self._note(view, sealed, self._local_us(host) - age_s * SECOND_US)
        for entry in view.booked:  # adverts, answers of SEEK and sealed circuits bring records too
            if entry.record.sealed not in came:
                self._note(view, entry.record.sealed, entry.born_us)
        view.booked.clear()
        for effect in effects:
            if type(effect) is Send and _is_ours(effect.frame[0]):
                self._said(host, view, self._frames.read(effect.frame[0]), came)

    def _local_us(self, host: Host) -> int:
        return host.local_us(self._world.now_us)

    @staticmethod
    def _note(view: _View, what: bytes, born_us: int) -> None:
        view.born_us[what] = max(view.born_us.get(what, born_us), born_us)

    # rumours

    def _hear_rumour(self, host: Host, view: _View, frame: Rumour) -> None:
        ident = rumour_id(frame.kind, frame.payload)
        self._note(view, ident, self._local_us(host) - frame.age_s * SECOND_US)
        if host.peer is None:
            return
        count = insight.delivered(host.peer)
        if count == len(view.heard):
            return  # known, too late, or one too many at once
        self.rumours += 1
        if ident in view.heard or count > len(view.heard) + 1:
            raise self._violation("S13", f"{host.name} takes a rumour twice")
        view.heard.add(ident)

    def _said(self, host: Host, view: _View, frame: object, came: set[bytes]) -> None:
        if isinstance(frame, Rumour):
            valid_s = _rumour_valid_s(frame)
            self._check_age(host, view, rumour_id(frame.kind, frame.payload), frame.age_s, valid_s)
        relays = isinstance(frame, ForwardJoin | Shuffle | ShuffleReply)
        for sealed, age_s in _items(frame):
            valid_us = self._valid(host, sealed)
            if valid_us is not None and not (relays and sealed in came):
                self._check_age(host, view, sealed, age_s, valid_us // SECOND_US)

    def _check_age(self, host: Host, view: _View, what: bytes, age_s: int, valid_s: int) -> None:
        if age_s > valid_s:
            raise self._violation(
                "S13", f"{host.name} sends what has ended: {age_s} s old, valid for {valid_s} s"
            )
        # what is our own is said here before it is heard from others
        born_us = view.born_us.setdefault(what, self._local_us(host) - age_s * SECOND_US)
        if self._local_us(host) - born_us > (age_s + 1) * SECOND_US:
            raise self._violation("S13", f"{host.name} makes what it passes on younger than it is")

    def _valid(self, host: Host, sealed: bytes) -> int | None:
        """How long a record holds; None for one that is none."""
        if sealed not in self._valid_us:
            try:
                record = open_peer_record(sealed, host.config.network, lambda *_: True)
                valid_us = min(record.valid_us, host.config.peer_record_valid_us)
            except PacketError:
                valid_us = None
            self._valid_us[sealed] = valid_us
        return self._valid_us[sealed]

    # now and then

    def look(self, host: Host) -> None:
        """Check a host's views and book. Raises: Violation."""
        view = self._views.get(host.index)
        if host.peer is None or view is None:
            return
        config, me = host.config, host.key.public_key
        members = insight.members(host.peer)
        active, passive = members.views.active, members.views.passive
        counted = [n.up.peer for n in members.neighbours.values() if n.active]
        most = config.active_max if config.open_network else config.links_max
        for wrong, text in (
            (me in active or me in counted, "is its own neighbour"),
            (me in passive, "hopes for itself"),
            (len(active) > most, "has {active} neighbours; the most is {most}"),
            (len(set(counted)) < len(counted), "counts a neighbour twice"),
            (active.keys() != set(counted), "counts other neighbours than its view has"),
            (not active.keys().isdisjoint(passive), "hopes for a neighbour"),
            (len(passive) > config.passive_max, "has {passive} passive peers"),
        ):
            if wrong:
                what = text.format(active=len(active), most=most, passive=len(passive))
                raise self._violation("S12", f"{host.name} {what}")
        seqs = {peer: entry.record.seq for peer, entry in members.book.view().items()}
        if seqs.items() <= view.seqs.items():
            return  # nothing new
        for peer, seq in seqs.items():
            if seq < view.seqs.get(peer, 0):
                raise self._violation("S13", f"{host.name} has taken an older record for a newer")
            view.seqs[peer] = seq

    def sweep(self) -> None:
        """Look for links that one end alone has counted for too long. Raises: Violation."""
        world = self._world
        if world.now_us < self._sweep_us:
            return
        self._sweep_us = world.now_us + SWEEP_US
        before, self._lopsided = self._lopsided, {}
        for number, link in world.wires.links.items() if world.wires.weather.fair else ():
            if not self._is_lopsided(number, link):
                continue
            since_us = self._lopsided[number] = before.get(number, world.now_us)
            config = link.hosts[0].config
            # an unanswered visit ends by itself; a timer of a slow clock comes later
            limit_us = int(1.1 * config.visit_us) + 4 * link.wire.latency_us + 2 * SWEEP_US
            if world.now_us - since_us > limit_us:
                raise self._violation(
                    "S12", f"{link.hosts[0].name} and {link.hosts[1].name}: one counts the other"
                )

    def _is_lopsided(self, number: int, link: Link) -> bool:
        """Whether a link that both ends can use is active at one of them alone."""
        if not all(link.up) or any(link.wire.blocked) or any(link.backlog):
            return False
        counts = []
        for host in link.hosts:
            if host.peer is None or host.paused or host.slow > 1 or host.name in self._liars:
                return False
            neighbour = insight.members(host.peer).neighbours.get(number)
            counts.append(neighbour is not None and neighbour.active)
        return counts[0] != counts[1]

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")


def _is_ours(frame: Buffer) -> bool:
    """Say whether a frame may carry records or a rumour."""
    return len(frame) > 0 and frame[0] in TYPES


def _items(frame: object) -> Iterable[Item]:
    match frame:
        case Join(item=item) | ForwardJoin(item=item) | Ask(item=item):
            return (item,)
        case Reply(item=item, items=items) | Shuffle(item=item, items=items):
            return (item, *items)
        case ShuffleReply(items=items):
            return items
    return ()


def _rumour_valid_s(frame: Rumour) -> int:
    """How long a rumour matters; no honest peer passes on what it does not know."""
    if frame.kind != CUSTODY:
        return {EVIDENCE: EVIDENCE_VALID_S, REVOCATION: REVOCATION_VALID_S}.get(frame.kind, -1)
    return next((s for kind, s in VALID_S.items() if kind == frame.payload[0]), -1)
