"""Neighbours: which links stand and count, who is silent, who else exists, what everybody hears.

Rules of this file: it owns the links and joins the parts that decide about them. Only active links
carry routing, circuits and gossip; why one has ended is remembered for the owner.
Source: spec/membership.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from mfd.core.antientropy import AntiEntropy
from mfd.core.bucket import Bucket
from mfd.core.context import Context
from mfd.core.dials import Dials, Kept, Purpose
from mfd.core.drops import Drops
from mfd.core.effects import Close
from mfd.core.events import DialFailed, LinkUp
from mfd.core.far import FarLinks
from mfd.core.frames import Member, Ping, Pong, encode_frame
from mfd.core.gossip import Gossip
from mfd.core.liveness import Liveness
from mfd.core.memberframes import (
    Ask,
    Buckets,
    Call,
    Called,
    Digest,
    Disconnect,
    ForwardJoin,
    Graft,
    IHave,
    Join,
    MemberFrame,
    Probe,
    ProbeReply,
    Prune,
    Reply,
    Rumour,
    Shuffle,
    ShuffleReply,
    Sync,
    decode_member,
)
from mfd.core.peering import Neighbour, Peering
from mfd.core.presence import Presence
from mfd.core.recordbook import RecordBook
from mfd.core.records import is_address
from mfd.core.reunion import Reunion
from mfd.core.status import KnownStatus, LinkStatus, MemberStatus
from mfd.core.tidings import Tidings
from mfd.core.whereabouts import Whereabouts

__all__ = ["Membership", "Neighbour"]


class Membership:
    """Links of one peer, and what it knows of others.

    `counts(up)` and `ends(link)` are called when a link begins and ceases to carry everything else;
    `carries(link)` says whether ending it would break something.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        counts: Callable[[LinkUp], None] = lambda up: None,
        ends: Callable[[int], None] = lambda link: None,
        carries: Callable[[int], bool] = lambda link: False,
    ) -> None:
        self._ctx = ctx
        self._counts, self._ends, self._carries = counts, ends, carries
        self.neighbours: dict[int, Neighbour] = {}
        self.book = RecordBook(ctx.config, ctx.verify)
        self.presence = Presence(ctx, self.book)
        self.dials = Dials(ctx)
        self.kept = Kept(ctx, self.dials)
        self.peering = Peering(ctx, self, self.book, self.dials)
        self.far = FarLinks(ctx, self, self.peering, self.dials)
        self.far.book, self.peering.is_far = self.book, self.far.__contains__
        self.whereabouts = Whereabouts(ctx, self.book)
        self.book.news = self._news
        self.reunion = Reunion(ctx, self.dials, self._linked)
        self.liveness = Liveness(ctx, self.close, lambda link: self.neighbours[link].active)
        self.tidings = Tidings(ctx)
        self.gossip = self.tidings.gossip = Gossip(ctx, self.tidings.judge)
        self.comparing = AntiEntropy(ctx, self.gossip)
        self.drops = Drops()
        self.views = self.peering.views
        self.book.needed = lambda peer: (
            peer == ctx.me or peer in self.views.passive or peer in self.views.active
        )

    # what the owner says

    def restored(self, boot: int) -> None:
        """The store is open: sign who we are, and begin to look after the views."""
        self.presence.restored(boot)
        self._later_shuffle()
        if self._ctx.config.open_network:
            self._tick()

    def join(self, address: str) -> None:
        """Enter the network at an address; where links are given, keep this one."""
        if self._ctx.config.open_network:
            self.reunion.contact(address)
            self._turn_to_others()
        else:
            self.kept.keep(address)

    def remembered(self, peers: Iterable[tuple[bytes, tuple[str, ...]]]) -> None:
        """Good peers of an earlier life."""
        self.reunion.recall(peers)
        if self._ctx.config.open_network:
            self._turn_to_others()

    def discovered(self, peer: bytes, address: str) -> None:
        """A peer was heard of on the LAN."""
        if peer != self._ctx.me and is_address(address):
            if not self._ctx.config.open_network and not self.peering.lan:
                self._tick()
            self.peering.discovered(peer, address)

    def stop(self) -> None:
        """This peer stops: have the good peers remembered now."""
        self.reunion.save()

    # time

    def _later_shuffle(self) -> None:
        period_us = self._ctx.config.shuffle_us
        jitter_us = self._ctx.dice.below(period_us // 2 + 1)
        self._ctx.after(period_us * 3 // 4 + jitter_us, self._shuffle)

    def _shuffle(self) -> None:
        self.peering.expire()
        self._remember()
        self.peering.shuffle()
        self._later_shuffle()

    def _tick(self) -> None:
        """Look after the active view; more often while it is empty."""
        config = self._ctx.config
        self._turn_to_others()
        alone = config.open_network and not self.views.active
        self._ctx.after(config.alone_us if alone else config.promote_us, self._tick)

    def _turn_to_others(self) -> None:
        self.peering.promote()
        if self._ctx.config.open_network:
            alone = not self.views.active
            self.reunion.round(alone=alone)
            self.far.round(alone=alone, lost=self.reunion.lost)

    def _news(self, peer: bytes) -> None:
        """A newer record has come: it may tell other addresses."""
        self.whereabouts.news(peer)
        if peer in self.views.passive:
            self.peering.hope(peer)

    # links

    def _linked(self, peer: bytes) -> bool:
        return any(n.up.peer == peer for n in self.neighbours.values())

    def link_up(self, up: LinkUp) -> None:
        """A link stands; whether it counts is decided next."""
        config = self._ctx.config
        dialled = self.dials.done(up.address) if up.outbound else None
        self.kept.up(up.address, up.link)
        visitors = sum(not n.active and n.up.link not in self.far for n in self.neighbours.values())
        if config.open_network and visitors >= config.visitors_max:
            self._ctx.emit(Close(up.link, f"this peer has {visitors} visitors"))
            return
        if not config.open_network and len(self.neighbours) >= config.links_max:
            self._ctx.emit(Close(up.link, "this peer has links_max links"))
            return
        takes = Bucket(config.joins_per_s, config.joins_burst)
        self.neighbours[up.link] = Neighbour(up, self._ctx.now_us, takes)
        self.liveness.up(up.link, up.peer, outbound=up.outbound)
        self.reunion.found(up.peer, up.address if up.outbound else "")
        if dialled is not None and dialled.purpose is Purpose.FAR:
            self.neighbours[up.link].asked = Purpose.FAR
            self.far.greet(up.link, self.neighbours[up.link])
        else:
            self.peering.greet(up.link, dialled)

    def activate(self, link: int) -> None:
        """Let a link count from now on."""
        neighbour = self.neighbours[link]
        if neighbour.active:
            return
        neighbour.active = True
        up = neighbour.up
        self.views.activate(up.peer, link, outbound=up.outbound)
        self._ctx.report("linked", peer=up.peer.hex(), address=up.address)
        self._counts(up)
        self.far.promoted(link)
        self.reunion.regained(up.peer)
        self.whereabouts.link_up(link)
        self.gossip.link_up(link)
        self.comparing.link_up(link)
        self._remember()

    def _deactivate(self, link: int, reason: str) -> None:
        neighbour = self.neighbours[link]
        self.far.end(link)
        if not neighbour.active:
            return
        neighbour.active = False
        self.whereabouts.link_down(link)
        peer = neighbour.up.peer
        self.gossip.link_down(link)
        self.comparing.link_down(link)
        self.views.deactivate(peer, link)
        self.drops.note(neighbour.up, reason, self._ctx.now_us)
        self._ctx.report("unlinked", peer=peer.hex(), reason=reason)
        self.peering.gone(peer, self.book.reach(neighbour.up, self._ctx.now_us))
        self._ends(link)

    def close(self, link: int, reason: str) -> None:
        """End a link after what was sent on it; it counts no more."""
        neighbour = self.neighbours.get(link)
        if neighbour is None:
            return
        if not neighbour.leaving:
            neighbour.leaving = reason
        if self._ctx.config.open_network:
            self._deactivate(link, neighbour.leaving)
        self._ctx.emit(Close(link, reason))

    def busy(self, link: int) -> bool:
        """Whether ending a link would break something."""
        return self._carries(link)

    def link_down(self, link: int, reason: str) -> None:
        """Count a link out; look for others where links are ours to choose."""
        neighbour = self.neighbours.get(link)
        if neighbour is None:
            return
        failed = neighbour.active and not neighbour.leaving
        far = link in self.far
        if not neighbour.active and not neighbour.leaving and neighbour.up.outbound and not far:
            self.drops.note(neighbour.up, reason, self._ctx.now_us)
        self._deactivate(link, neighbour.leaving or reason)
        del self.neighbours[link]
        self.liveness.down(link)
        self.kept.down(link)
        if not self._ctx.config.open_network:
            return
        if failed or (neighbour.leaving.startswith("silent") and not far):
            self.reunion.lose(neighbour.up.peer, self.book.reach(neighbour.up, self._ctx.now_us))
        self.peering.hurry()

    def _remember(self) -> None:
        for neighbour in self.neighbours.values():
            if neighbour.active:
                self.reunion.good(
                    neighbour.up.peer, self.book.reach(neighbour.up, self._ctx.now_us)
                )

    def dial_failed(self, failed: DialFailed) -> None:
        """Try again later, each time after twice as long; meanwhile try others."""
        address, reason, there = failed.address, failed.reason, failed.standing
        dialled = self.dials.done(address)
        links = (k for k, n in self.neighbours.items() if n.up.peer == there and not n.leaving)
        if there and (link := next(links, None)) is not None:  # that link counts for the address
            self.kept.up(address, link)
            self.reunion.found(there, address)
            return
        quiet = bool(failed.standing)
        self.kept.failed(address, reason, quiet=quiet)
        peer = dialled.peer if dialled is not None else b""
        if self._linked(peer):
            return  # it has dialled us at the same time
        if dialled is None or dialled.purpose is not Purpose.KEEP:
            self.reunion.failed(address, peer, reason, quiet=quiet)
            self.peering.dial_failed(peer, reason)
            self.far.failed(peer)

    def heard(self, link: int) -> None:
        """Any frame proves that the neighbour lives."""
        self.liveness.heard(link)

    # frames

    def counts_now(self, link: int) -> bool:
        """Whether other frames than those of this file are taken from a link."""
        return self.neighbours[link].active or self.peering.implied(link)

    def may_carry(self, link: int) -> bool:
        """Whether circuits are taken from a link."""
        if link in self.far or self.counts_now(link):
            return True
        self._ctx.count("frames_of_strangers")
        return False

    def on_ping(self, link: int, frame: Ping) -> None:
        """Answer at once."""
        self._ctx.send(link, encode_frame(Pong(frame.echo)))

    def on_frame(self, link: int, raw: Member) -> None:
        """Take one frame of membership. Raises: PacketError."""
        frame = decode_member(raw.kind, raw.body)
        if self.neighbours[link].leaving:
            return
        match frame:
            case Join():
                self.peering.on_join(link, frame)
            case Ask():
                self.peering.on_ask(link, frame)
            case Reply():
                self.peering.on_reply(link, frame)
            case Disconnect():
                self.peering.on_disconnect(link, frame)
            case Call():
                self.far.on_call(link, frame)
            case Called():
                self.far.on_called(link, frame)
            case _ if self.counts_now(link):
                self._from_neighbour(link, frame)
            case _:
                self._ctx.count("frames_of_strangers")
        self.presence.heed()

    def _from_neighbour(self, link: int, frame: MemberFrame) -> None:
        if isinstance(frame, ForwardJoin | Shuffle | ShuffleReply) and not (
            self.neighbours[link].takes.take(self._ctx.now_us)
        ):
            self._ctx.count("records_over_rate")  # each may cost us eight signatures
            return
        match frame:
            case ForwardJoin():
                self.peering.on_forward_join(link, frame)
            case Shuffle():
                self.peering.on_shuffle(link, frame)
            case ShuffleReply():
                self.peering.on_shuffle_reply(link, frame)
            case Probe():
                self.liveness.on_probe(link, frame)
            case ProbeReply():
                self.liveness.on_probe_reply(link, frame)
            case Rumour():
                self.gossip.on_rumour(link, frame)
            case IHave(ids=ids):
                self.gossip.on_ihave(link, ids)
            case Graft(ids=ids):
                self.gossip.on_graft(link, ids)
            case Prune(tree=tree):
                self.gossip.on_prune(link, tree)
            case Digest():
                self.comparing.on_digest(link, frame)
            case Buckets():
                self.comparing.on_buckets(link, frame)
            case Sync():
                self.comparing.on_sync(link, frame)
            case Join() | Ask() | Reply() | Disconnect() | Call() | Called():
                raise AssertionError("these are taken from strangers too")
            case _:
                assert_never(frame)

    # what it looks like

    def links(self) -> tuple[LinkStatus, ...]:
        """Every link that stands."""
        return tuple(
            LinkStatus(
                link=link,
                peer=n.up.peer.hex(),
                address=n.up.address,
                outbound=n.up.outbound,
                cost=n.up.cost,
                silent_us=self.liveness.silent_us(link),
                active=n.active,
                reach=self.book.reach(n.up, self._ctx.now_us),
            )
            for link, n in self.neighbours.items()
        )

    def status(self) -> MemberStatus:
        """Views, failures and their reasons."""
        now_us = self._ctx.now_us
        passive = self.views.passive.values()
        known = tuple(
            KnownStatus(p.peer.hex(), p.addresses, now_us - p.born_us, p.tries, p.reason)
            for p in passive
        )
        return MemberStatus(
            open=self._ctx.config.open_network,
            known=known,
            dropped=self.drops.status(now_us),
            unreachable={**self.kept.unreachable(), **self.reunion.unreachable()},
            lost=len(self.reunion.lost),
            remembered=len(self.reunion.remembered),
            records=sum(1 for _ in self.book.valid(now_us)),
            rumours=len(self.gossip.held),
            patience=self.liveness.patience,
        )
