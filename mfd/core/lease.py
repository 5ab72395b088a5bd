"""Leases: how a shadow knows that the owner lives, and what happens when it does not.

The owner sends PROGRESS to every shadow of its certificate three times a lease. Its own lease ends
0.9 of a lease after it *sent* the newest PROGRESS that the first shadow acknowledged; a shadow's
patience ends one lease after it *received* the newest, times its rank.

Rules of this file: only drift-bounded intervals are compared, never clocks. A re-issue is an epoch
of its own, signed, so a fork is explicit and the older epoch is fenced when it is met.
Source: spec/custody.md, section "Leases".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from mfd.core.certificates import (
    Certificate,
    follows,
    open_certificate,
    seal_certificate,
)
from mfd.core.context import Context, Timer
from mfd.core.courier import Courier
from mfd.core.custody import EPOCH_MAX, Role, Walker
from mfd.core.messages import Kind, Message
from mfd.core.walkers import Walkers
from mfd.packet.objects import object_digest

__all__ = ["Leases", "Reissuer"]

PROBE_US = 1_000_000  # time for an answer before a re-issue
SENT_MAX = 16  # unacknowledged PROGRESS remembered


class Reissuer(Protocol):
    """Who acts once ownership has changed without a hand-over."""

    def owned(self, walker: Walker) -> None:
        """This peer has re-issued the walker."""

    def fenced(self, walker: Walker) -> None:
        """A newer epoch exists; stop."""

    def silent(self, walker: Walker, holder: bytes, rest_us: int) -> None:
        """The owner has missed its turn; in `rest_us` it is taken for lost."""


@dataclass(slots=True)
class _Lease:
    until_us: int | None = None  # None: nobody can take the walker from us
    count: int = 0
    sent_us: dict[int, int] = field(default_factory=dict)
    unreleased: tuple[bytes, ...] = ()  # shadows that still keep a copy; the first is nearest
    timer: Timer | None = None


class Leases:
    """The leases of one peer's walkers, as owner and as shadow."""

    def __init__(self, ctx: Context, walkers: Walkers, courier: Courier) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._courier = courier
        self.reissuer: Reissuer
        self.broadcast: Callable[..., None] = lambda kind, *body: None  # to all of the network

    def _of(self, walker: Walker) -> _Lease:
        if walker.lease is None:
            walker.lease = _Lease()
        lease: _Lease = walker.lease
        return lease

    def _stop(self, walker: Walker) -> None:
        lease = self._of(walker)
        if lease.timer is not None:
            lease.timer.cancel()
        walker.lease = _Lease()

    def _newest(self, walker: Walker) -> Certificate | None:
        if not walker.certificates:
            return None
        return open_certificate(walker.certificates[0], self._ctx.verify)

    # owner

    def own(self, walker: Walker) -> None:
        """This peer owns the walker: keep its shadows informed and release the older ones."""
        self._stop(walker)
        lease, newest = self._of(walker), self._newest(walker)
        lease.unreleased = tuple(p for p in newest.shadows if p != self._ctx.me) if newest else ()
        if newest is None or not lease.unreleased:
            return
        # after a restart nobody knows when STORED was sent: lapsed until renewed
        sent_us, walker.stored_us = walker.stored_us, None
        lease.until_us = self._ctx.now_us
        if sent_us is not None:
            lease.until_us = sent_us + newest.lease_us * 9 // 10
        self._progress(walker)

    def unreleased(self, walker: Walker) -> tuple[bytes, ...]:
        """Return the shadows that have not confirmed their release."""
        return self._of(walker).unreleased

    def lapsed(self, walker: Walker) -> bool:
        """Whether a shadow may have re-issued the walker by now."""
        until_us = self._of(walker).until_us
        auto = walker.identity.genesis.reissue == "auto"
        return auto and until_us is not None and self._ctx.now_us >= until_us

    def renew(self, walker: Walker) -> None:
        """Ask for a new lease at once."""
        lease = self._of(walker)
        if lease.timer is not None:
            lease.timer.cancel()
        self._progress(walker)

    def _progress(self, walker: Walker) -> None:
        lease = self._of(walker)
        if walker.role is not Role.OWN or not lease.unreleased or walker.version is None:
            return
        if self._walkers.broken:
            return  # it can commit nothing more: let a shadow take over
        newest = self._newest(walker)
        assert newest is not None
        auto = walker.identity.genesis.reissue == "auto"
        if auto and self._ctx.now_us >= (lease.until_us or 0) + newest.lease_us:
            self._reissue(walker, newest, "the shadow has been silent for a lease")
            return
        lease.count += 1
        lease.sent_us[lease.count] = self._ctx.now_us
        while len(lease.sent_us) > SENT_MAX:
            del lease.sent_us[min(lease.sent_us)]
        position = list(walker.high_water)
        seq = walker.version.manifest.seq
        for peer in lease.unreleased:
            self._courier.send(peer, Kind.PROGRESS, walker.id, lease.count, seq, 0, position)
        for peer in lease.unreleased[walker.identity.genesis.copies - 1 :]:
            self._courier.send(peer, Kind.RELEASE, walker.id, list(walker.certificates))
        lease.timer = self._ctx.after(newest.lease_us // 3, partial(self._progress, walker))

    def on_progress_ack(self, message: Message) -> None:
        """The nearest shadow's answer renews the lease, counted from when we asked."""
        walker_id, count = message.body
        walker = self._walkers.get(walker_id)
        if walker is None:
            return
        lease = self._of(walker)
        sent_us = lease.sent_us.get(count)
        if sent_us is None or lease.unreleased[:1] != (message.sender,):
            return
        newest = self._newest(walker)
        assert newest is not None
        lease.until_us = max(lease.until_us or 0, sent_us + newest.lease_us * 9 // 10)

    def done(self, walker: Walker) -> None:
        """The walker is home for good: every copy may go."""
        lease, newest = self._of(walker), self._newest(walker)
        if walker.lease.timer is None and newest is not None:  # first call since the start
            shadows = tuple(peer for peer in newest.shadows if peer != self._ctx.me)
            lease.unreleased = lease.unreleased or shadows
        for peer in lease.unreleased:
            self._courier.send(peer, Kind.RELEASE, walker.id, list(walker.certificates))
        if lease.unreleased:
            again = max(self._ctx.config.lease_us // 3, 1)
            lease.timer = self._ctx.after(again, partial(self.done, walker))

    def on_released(self, message: Message) -> None:
        """A shadow has let go, of what we asked for: an older answer may come late."""
        walker = self._walkers.get(message.body[0])
        if walker is None or not walker.certificates:
            return
        if message.body[1] == object_digest(walker.certificates[0]):
            lease = self._of(walker)
            lease.unreleased = tuple(p for p in lease.unreleased if p != message.sender)
            if walker.role is Role.OWN and not lease.unreleased:
                lease.until_us = None

    # shadow

    def watch(self, walker: Walker) -> None:
        """This peer is a shadow: expect PROGRESS."""
        self._stop(walker)
        newest = self._newest(walker)
        if newest is not None and (self._ctx.me in newest.shadows):
            patience_us = newest.lease_us * (newest.shadows.index(self._ctx.me) + 1)
            quiet_us = newest.lease_us * 2 // 3  # two PROGRESS have not come
            self._of(walker).timer = self._ctx.after(
                quiet_us, partial(self._silent, walker, newest, patience_us - quiet_us)
            )

    def _silent(self, walker: Walker, newest: Certificate, rest_us: int) -> None:
        """Say early that something may be wrong; act only when the patience is over."""
        self.reissuer.silent(walker, newest.target, rest_us)
        self._of(walker).timer = self._ctx.after(rest_us, partial(self._expired, walker))

    def on_progress(self, message: Message) -> None:
        """The owner lives; or an old owner does not know yet that it is one."""
        walker_id, count, _seq, _percent, position = message.body
        walker = self._walkers.get(walker_id)
        if walker is None:
            return
        high_water = list(walker.high_water)
        later = position[:2] == high_water[:2] and position[2:] >= high_water[2:]
        newest = self._newest(walker)
        if position == high_water and newest is not None and newest.target != message.sender:
            return  # not from whom this position was granted to
        if walker.role is Role.SHADOW and later:
            if walker.saving:
                return
            self._courier.send(message.sender, Kind.PROGRESS_ACK, walker.id, count)
            self.watch(walker)
            return
        if later:
            return  # we own nothing of it and know of nothing newer
        self._courier.send(message.sender, Kind.STALE, walker.id, list(walker.certificates))

    def on_release(self, message: Message) -> None:
        """The owner is two hand-overs on, or home: let go, durably, and say so.

        Raises: PacketError for certificates that do not verify.
        """
        walker_id, chain = message.body
        walker = self._walkers.get(walker_id)
        if walker is None or not chain:
            return
        newest = open_certificate(chain[0], self._ctx.verify)
        answer = partial(
            self._courier.send,
            message.sender,
            Kind.RELEASED,
            walker_id,
            object_digest(chain[0]),
        )
        if newest.walker != walker_id or newest.target != message.sender:
            return
        if walker.saving:
            return  # it is asked again
        if walker.role is not Role.SHADOW:
            if walker.high_water <= newest.position:
                answer()
            return
        mine = walker.certificates[0] == chain[0]
        if not mine and not self._proves(newest, chain, walker):
            return
        self._stop(walker)
        walker.role = Role.RELEASED
        walker.high_water = newest.position if not mine else walker.high_water
        walker.activity = ""
        self._walkers.save(walker, then=answer)

    def _expired(self, walker: Walker) -> None:
        """Ask whom we handed to: it may know that the walker is two hand-overs on."""
        newest = self._newest(walker)
        if walker.role is not Role.SHADOW or newest is None:
            return
        digest = object_digest(walker.certificates[0])
        nearer = newest.shadows[: newest.shadows.index(self._ctx.me)]  # they re-issue before us
        for peer in (newest.target, *nearer):
            self._courier.send(peer, Kind.RECLAIM, walker.id, digest)
        self.broadcast(Kind.RECLAIM, walker.id, digest)  # no relay can hide the owner from us
        patience_us = max(newest.lease_us // 4, PROBE_US)
        self._of(walker).timer = self._ctx.after(patience_us, partial(self._lost, walker))

    def on_reclaim(self, message: Message) -> None:
        """A shadow has heard nothing: answer with a sign of life, or with what is newer."""
        walker = self._walkers.get(message.body[0])
        if walker is None or not walker.certificates:
            return
        if walker.role is Role.OWN and message.sender in self._of(walker).unreleased:
            if message.body[1] != object_digest(walker.certificates[0]):
                self._courier.send(message.sender, Kind.STALE, walker.id, list(walker.certificates))
            self.renew(walker)
        elif walker.role is Role.DONE and not walker.saving:
            self._courier.send(message.sender, Kind.RELEASE, walker.id, list(walker.certificates))
        else:
            self._courier.send(message.sender, Kind.STALE, walker.id, list(walker.certificates))

    def _lost(self, walker: Walker) -> None:
        if walker.role is not Role.SHADOW:
            return
        newest = self._newest(walker)
        assert newest is not None
        lost = newest.target
        walker.shunned[lost] = self._ctx.now_us + self._ctx.config.failed_holder_us
        if walker.identity.genesis.reissue != "auto" or newest.epoch[0] >= EPOCH_MAX:
            self._ctx.report("lost", walker=walker.id.hex(), holder=lost.hex())
            return
        self._reissue(walker, newest, f"{lost.hex()[:12]} has been silent for a lease")

    def _reissue(self, walker: Walker, newest: Certificate, reason: str) -> None:
        """Issue the next epoch to ourselves, durably, and go on.

        The shadows farther than we are keep their copies: they would have had their turn after us.
        """
        me, rest, was_owner = self._ctx.me, newest.shadows, walker.role is Role.OWN
        nearest = 0 if was_owner else rest.index(me)  # of an owner's shadows the nearest is silent
        certificate = Certificate(
            walker=walker.id,
            epoch=(newest.epoch[0] + 1, self._ctx.me),
            hop=0,
            revision=0,
            source=self._ctx.me,
            target=self._ctx.me,
            manifest=walker.version.digest if walker.version else b"",
            previous=object_digest(walker.certificates[0]),
            stored=b"",
            shadows=tuple(peer for peer in rest[nearest + 1 :] if peer != me),
            released=(),
            nonce=b"",
            lease_us=self._ctx.config.lease_us,
        )
        record = seal_certificate(certificate, self._ctx.signer)
        self._stop(walker)
        walker.role = Role.OWN
        walker.high_water = certificate.position
        walker.certificates = (record, walker.certificates[0])
        self._ctx.report(
            "reissued",
            walker=walker.id.hex(),
            peer=self._ctx.me.hex(),
            epoch=certificate.epoch[0],
            holder=newest.target.hex(),
            reason=reason,
        )
        self._walkers.save(walker, then=partial(self._reissued, walker, again=was_owner))

    def _reissued(self, walker: Walker, *, again: bool) -> None:
        self.broadcast(Kind.STALE, walker.id, list(walker.certificates))
        self.own(walker)
        if not again:
            walker.busy = False
            self.reissuer.owned(walker)

    def on_broadcast(self, message: Message) -> None:
        """Somebody asks or shows everybody; of those who know the walker, few have to answer."""
        walker = self._walkers.get(message.body[0])
        if walker is None:
            return
        if message.kind is Kind.STALE:
            self.on_stale(message)
        elif walker.role in (Role.OWN, Role.DONE):
            self.on_reclaim(message)

    # fencing

    def on_stale(self, message: Message) -> None:
        """Somebody shows newer certificates: an owner's branch is over, a shadow learns its rank.

        Raises: PacketError for certificates that do not verify.
        """
        walker_id, chain = message.body
        walker = self._walkers.get(walker_id)
        if walker is None or not chain or not walker.certificates or walker.saving:
            return
        newest = open_certificate(chain[0], self._ctx.verify)
        if newest.walker != walker_id or not self._proves(newest, chain, walker):
            return
        if walker.role is Role.SHADOW:
            walker.certificates = (chain[0], walker.certificates[0])
            walker.high_water = newest.position
            self._walkers.save(walker, then=partial(self.watch, walker))
        elif walker.role is Role.OWN:
            self._fence(walker, newest)

    def _proves(self, newest: Certificate, chain: list[bytes], walker: Walker) -> bool:
        """Whether a chain is newer than ours and hangs on to it, directly or by one link more."""
        mine = self._newest(walker)
        assert mine is not None
        if newest.position <= mine.position:
            return False
        if walker.role is Role.OWN and newest.epoch == mine.epoch:
            return False  # within its epoch an owner is only followed by whom it granted to
        if follows(newest, mine, walker.certificates[0]):
            return True
        if len(chain) < 2:
            return False
        older = open_certificate(chain[1], self._ctx.verify)
        sibling = chain[1] in walker.certificates  # both were re-issued from the same hand-over
        later = older.walker == walker.id and (sibling or older.position >= mine.position)
        return later and follows(newest, older, chain[1])

    def _fence(self, walker: Walker, newest: Certificate) -> None:
        self._stop(walker)
        walker.role = Role.FENCED
        walker.high_water = newest.position
        walker.busy = False
        walker.activity = (
            f"fenced: epoch {newest.epoch[0]} was issued by {newest.source.hex()[:12]}"
        )
        self._ctx.report(
            "fenced", walker=walker.id.hex(), epoch=newest.epoch[0], reason=walker.activity
        )
        self._walkers.save(walker, then=partial(self.reissuer.fenced, walker))
