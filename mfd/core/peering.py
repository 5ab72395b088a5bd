"""Who becomes a neighbour: joining, walks, asking, shuffles, promotion.

In an open network this peer chooses; in a constrained one links are given and only records move.

Rules of this file: a peer is active only after it has answered; whoever makes room for another says
whom else to turn to. Work for a stranger is bounded by rates and by the ttl of walks.
Source: spec/membership.md, sections "Joining" to "Promotion".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mfd.core.bucket import Bucket
from mfd.core.context import Context
from mfd.core.dials import Dialled, Dials, Purpose, backoff_us
from mfd.core.events import LinkUp
from mfd.core.memberframes import (
    ITEMS_MAX,
    Ask,
    Disconnect,
    ForwardJoin,
    Join,
    MemberFrame,
    Reply,
    Shuffle,
    ShuffleReply,
    encode_member,
)
from mfd.core.recordbook import RecordBook
from mfd.core.records import Item, PeerRecord, dial_line
from mfd.core.views import Active, Views, pick
from mfd.packet.errors import Fault, PacketError

__all__ = ["Links", "Neighbour", "Peering"]

FULL, NO_ROOM = 1, 2  # codes of Disconnect
REASONS = {FULL: "it made room for another peer", NO_ROOM: "it has no room"}
UNASKED = bytes(8)
PATHS_MAX = 256  # shuffles that passed through here and whose answers may come back
PATH_US = 10_000_000
NO_ROOM_US = 30_000_000  # a peer without room is not asked again before


@dataclass(slots=True)
class Neighbour:
    """The peer at the other end of a link; `active` once it counts for routing and gossip."""

    up: LinkUp
    since_us: int
    takes: Bucket  # frames with records of others
    active: bool = False
    asked: Purpose | None = None  # what we have dialled it for, once we have asked
    leaving: str = ""  # why the link is about to end, as either side has said


class Links(Protocol):
    """What the owner of the links does for us."""

    @property
    def neighbours(self) -> Mapping[int, Neighbour]:
        """Links by number."""

    def activate(self, link: int) -> None:
        """Let a link count."""

    def close(self, link: int, reason: str) -> None:
        """End a link, after what was sent on it; it counts no more."""

    def busy(self, link: int) -> bool:
        """Whether ending it would break something."""


class Peering:
    """The choices of one peer."""

    def __init__(self, ctx: Context, links: Links, book: RecordBook, dials: Dials) -> None:
        self._ctx = ctx
        self._links = links
        self._book = book
        self._dials = dials
        self.views = Views(ctx.me, ctx.config, ctx.dice)
        self.lan: set[bytes] = set()  # peers heard of on the LAN
        self._joins = Bucket(ctx.config.joins_per_s, ctx.config.joins_burst)
        self._paths: dict[bytes, tuple[int, int]] = {}  # nonce -> link it came from, until when
        self._mine: bytes | None = None  # nonce of our own shuffle
        self.is_far: Callable[[int], bool] = lambda link: False

    # small things

    def _send(self, link: int, frame: MemberFrame) -> None:
        self._ctx.send(link, encode_member(frame))

    def _me(self) -> Item | None:
        return self._book.item(self._ctx.me, self._ctx.now_us)

    def _others(self, peer: bytes) -> tuple[Item, ...]:
        """Whom to turn to instead of us: rather many passive peers than the same few active."""
        far = min(len(self.views.passive), ITEMS_MAX - 1)
        return self._items(ITEMS_MAX - far, far, without=peer)

    def _items(self, active: int, passive: int, *, without: bytes = b"") -> tuple[Item, ...]:
        peers = self.views.sample(active, passive, without=without)
        items = (self._book.item(peer, self._ctx.now_us) for peer in peers)
        return tuple(item for item in items if item is not None)

    def _learn(self, item: Item, *, of: bytes | None = None) -> PeerRecord | None:
        """Take a record. Raises: PacketError."""
        if of is not None and item[0][:32] != of:
            raise PacketError(Fault.FIELD, "record of another peer")
        return self._book.learn(item, self._ctx.now_us)

    def hope(self, peer: bytes) -> None:
        """Take a peer into the passive view, if its record holds."""
        entry = self._book.get(peer, self._ctx.now_us)
        if entry is not None:
            self.views.hear(peer, entry.record.addresses, entry.born_us)

    def _learn_all(self, items: Iterable[Item]) -> None:
        """Take what is right; whoever passed on the rest has not looked at it either."""
        for item in items:
            try:
                known = self._learn(item) is not None
            except PacketError:
                self._ctx.count("records_refused")
                continue
            if known:
                self.hope(item[0][:32])

    def _peer(self, link: int) -> bytes:
        return self._links.neighbours[link].up.peer

    # links

    def greet(self, link: int, dialled: Dialled | None) -> None:
        """A link stands: say what it is for, or wait for what the other says."""
        neighbour, me = self._links.neighbours[link], self._me()
        config = self._ctx.config
        if not config.open_network:
            self._links.activate(link)
            if neighbour.up.outbound and me is not None:
                self._send(link, Ask(me, urgent=True))
            return
        self._ctx.after(config.visit_us, partial(self._visit_over, link, neighbour))
        if not neighbour.up.outbound or me is None:
            return
        neighbour.asked = dialled.purpose if dialled is not None else Purpose.ASK
        if neighbour.asked is Purpose.JOIN:
            self._send(link, Join(me))
        else:
            returns = neighbour.asked is Purpose.RETURN
            self._send(link, Ask(me, urgent=returns or self._few() or self._scarce()))

    def ask_over(self, link: int) -> None:
        """Ask a far peer to be a neighbour: it is needed more than room is."""
        me = self._me()
        if me is not None:
            self._links.neighbours[link].asked = Purpose.RETURN
            self._send(link, Ask(me, urgent=True))

    def _few(self) -> bool:
        """Whether there are fewer neighbours than half of what is wanted."""
        return 2 * len(self.views.active) < self._ctx.config.active_target

    def _scarce(self) -> bool:
        """Whether too many neighbours have been forced upon us."""
        return self.views.outbound() < self._ctx.config.outbound_min

    def _visit_over(self, link: int, neighbour: Neighbour) -> None:
        stands = self._links.neighbours.get(link) is neighbour
        if stands and not neighbour.active and not self.is_far(link):
            seconds = self._ctx.config.visit_us // 1_000_000
            self._links.close(link, f"no neighbour after {seconds} s")

    def implied(self, link: int) -> bool:
        """Routing news over a link that we asked on says yes: there, links are given."""
        neighbour = self._links.neighbours[link]
        if not (neighbour.active or neighbour.leaving):
            self._take(link, neighbour)
        return neighbour.active

    def gone(self, peer: bytes, addresses: tuple[str, ...]) -> None:
        """A neighbour is none any more: it may be one again."""
        if self._book.get(peer, self._ctx.now_us) is not None:
            self.hope(peer)
        elif peer in self.lan:
            self.views.hear(peer, addresses, self._ctx.now_us)

    def discovered(self, peer: bytes, address: str) -> None:
        """A peer was heard of on the LAN; whether it is that peer, the handshake shows."""
        if len(self.lan) < self._ctx.config.peer_records_max:
            self.lan.add(peer)
            self.views.hear(peer, (address,), self._ctx.now_us)
            self.promote()

    # asking to be a neighbour

    def on_join(self, link: int, frame: Join) -> None:
        """Take a newcomer in, give it others to turn to, and let them know of it."""
        peer = self._peer(link)
        self._learn(frame.item, of=peer)
        # nobody is sent away for a newcomer that has others to turn to: many may come at once
        few = len(self._others(peer)) < self._ctx.config.asks_at_once
        self._answer(link, urgent=few)
        if not self._ctx.config.open_network:
            return
        self.hope(peer)
        if self._joins.take(self._ctx.now_us):
            onward = ForwardJoin(frame.item, self._ctx.config.walk_active)
            for slot in self.views.active.values():
                if slot.peer != peer:
                    self._send(slot.link, onward)

    def on_ask(self, link: int, frame: Ask) -> None:
        """Say yes if there is room, or if it is urgent."""
        self._learn(frame.item, of=self._peer(link))
        self._answer(link, urgent=frame.urgent)

    def _answer(self, link: int, *, urgent: bool) -> None:
        me, peer = self._me(), self._peer(link)
        if me is None:
            return
        accepted = self._links.neighbours[link].active or self._admit(link, urgent=urgent)
        self._send(link, Reply(accepted, me, self._others(peer)))
        if not accepted:
            self._links.close(link, "there is no room for it")

    def _admit(self, link: int, *, urgent: bool) -> bool:
        if len(self.views.active) >= self._ctx.config.active_max:
            victim = self.views.victim(self._links.busy) if urgent else None
            if victim is None:
                return False
            self._disconnect(victim)
        self._links.activate(link)
        return True

    def _disconnect(self, slot: Active) -> None:
        """Part from a neighbour, but do not let it run dry."""
        self._send(slot.link, ShuffleReply(UNASKED, self._others(slot.peer)))
        self._send(slot.link, Disconnect(FULL))
        self._links.close(slot.link, "room was made for another peer")

    def on_reply(self, link: int, frame: Reply) -> None:
        """The answer to Join or Ask, with others to turn to."""
        neighbour = self._links.neighbours[link]
        self._learn(frame.item, of=neighbour.up.peer)
        self.hope(neighbour.up.peer)
        self._learn_all(frame.items)
        if not frame.accepted:
            self._links.close(link, REASONS[NO_ROOM])
            passive = self.views.passive.get(neighbour.up.peer)
            if passive is not None:
                passive.retry_us = self._ctx.now_us + NO_ROOM_US
                passive.reason = REASONS[NO_ROOM]
        elif not neighbour.active:
            self._take(link, neighbour)
        self.hurry()

    def _take(self, link: int, neighbour: Neighbour) -> None:
        """The answer is yes: do we still want it? Two islands may hang on one that returns."""
        if neighbour.asked in (None, Purpose.FAR):
            return  # a call does not ask for a neighbour
        if not self._admit(link, urgent=self._scarce() or neighbour.asked is Purpose.RETURN):
            self._send(link, Disconnect(FULL))
            self._links.close(link, "others were quicker")

    def on_disconnect(self, link: int, frame: Disconnect) -> None:
        """The neighbour has no more room for us."""
        reason = REASONS.get(frame.code, "the neighbour ended it")
        self._links.neighbours[link].leaving = reason
        self._links.close(link, reason)

    # walks

    def on_forward_join(self, link: int, frame: ForwardJoin) -> None:
        """Somebody is new: ask it, remember it, or let the news walk on."""
        record = self._learn(frame.item)
        config = self._ctx.config
        if record is None or record.peer == self._ctx.me or not config.open_network:
            return
        onward = [
            slot.link
            for slot in self.views.active.values()
            if slot.link != link and slot.peer != record.peer
        ]
        ttl = min(frame.ttl, config.walk_active)
        if ttl in (0, config.walk_passive) or not onward:
            self.hope(record.peer)
        if ttl == 0 or not onward:
            if self.views.missing():
                self._dial(record.peer)
            return
        next_link = pick(self._ctx.dice, onward)
        assert next_link is not None
        self._send(next_link, ForwardJoin(frame.item, ttl - 1))

    def shuffle(self) -> None:
        """Begin an exchange of records with somebody a few hops away."""
        links = [n for n, neighbour in self._links.neighbours.items() if neighbour.active]
        link, me = pick(self._ctx.dice, links), self._me()
        if link is None or me is None:
            return
        self._mine = self._ctx.dice.bytes(8)
        items = self._items(3, 4, without=self._peer(link))
        self._send(link, Shuffle(self._mine, self._ctx.config.walk_passive - 1, me, items))

    def on_shuffle(self, link: int, frame: Shuffle) -> None:
        """Pass it on while it walks; answer where it ends."""
        others = [n for n, o in self._links.neighbours.items() if o.active and n != link]
        ttl = min(frame.ttl, self._ctx.config.walk_passive)
        onward = pick(self._ctx.dice, others) if ttl else None
        if onward is None:
            answer = ShuffleReply(frame.nonce, self._items(4, 4, without=frame.item[0][:32]))
            self._learn_all((frame.item, *frame.items))
            self._send(link, answer)
            return
        now_us = self._ctx.now_us
        if len(self._paths) >= PATHS_MAX:
            self._paths = {n: p for n, p in self._paths.items() if p[1] > now_us}
        if len(self._paths) < PATHS_MAX and frame.nonce not in self._paths:
            self._paths[frame.nonce] = (link, now_us + PATH_US)
            self._send(onward, Shuffle(frame.nonce, ttl - 1, frame.item, frame.items))

    def on_shuffle_reply(self, link: int, frame: ShuffleReply) -> None:
        """Take what answers us or comes with a farewell; send the rest back the way it came."""
        path = self._paths.pop(frame.nonce, None)
        if path is not None:
            neighbour = self._links.neighbours.get(path[0])
            if neighbour is not None and path[1] > self._ctx.now_us:
                self._send(path[0], frame)
        elif frame.nonce in (self._mine, UNASKED):
            self._learn_all(frame.items)

    # promotion

    def hurry(self) -> None:
        """Ask the next at once where neighbours are very few; else the next round will do."""
        if self._few():
            self.promote()

    def promote(self) -> None:
        """Ask some passive peers, while there are not enough active ones."""
        wanted = min(self._missing(), self._ctx.config.asks_at_once)
        wanted -= len(self._dials) + self._pending()
        for hope in self.views.candidates(self._ctx.now_us) if wanted > 0 else ():
            if not self._ctx.config.open_network and hope.peer not in self.lan:
                continue
            wanted -= self._dial(hope.peer)
            if wanted <= 0:
                return

    def _missing(self) -> int:
        """Neighbours still wanted; where links are given, only those on the LAN."""
        config = self._ctx.config
        if config.open_network:
            return self.views.missing()
        return config.lan_links_max - len(self.views.active) if self.lan else 0

    def _pending(self) -> int:
        return sum(n.asked is not None and not n.active for n in self._links.neighbours.values())

    def _dial(self, peer: bytes) -> bool:
        hope = self.views.passive.get(peer)
        if hope is None or any(n.up.peer == peer for n in self._links.neighbours.values()):
            return False
        line = dial_line(self._ctx.config.network, peer, hope.address())
        return self._dials.dial(line, Purpose.ASK, peer)

    def dial_failed(self, peer: bytes, reason: str) -> None:
        """A passive peer does not answer: leave it alone for a while and ask the next."""
        hope = self.views.passive.get(peer)
        if hope is not None:
            hope.tries += 1
            most_us = self._ctx.config.dial_max_us
            hope.retry_us = self._ctx.now_us + backoff_us(self._ctx, hope.tries, most_us)
            hope.reason = reason
        self.hurry()

    def expire(self) -> None:
        """Give up passive peers whose records have ended."""
        limit_us = self._ctx.now_us - self._ctx.config.peer_record_valid_us
        for peer in [p for p, hope in self.views.passive.items() if hope.born_us <= limit_us]:
            self.views.forget(peer)
        self._book.expire(self._ctx.now_us)
