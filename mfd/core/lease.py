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
from dataclasses import dataclass, field, replace
from functools import partial

from mfd.core import epochs
from mfd.core.certificates import Certificate, open_certificate, seal_certificate
from mfd.core.context import Context, Timer
from mfd.core.courier import Courier
from mfd.core.custody import EPOCH_MAX, Role, Walker
from mfd.core.fences import Fences
from mfd.core.messages import Kind, Message
from mfd.core.settled import Reissuer, outlive
from mfd.core.walkers import Walkers
from mfd.packet.objects import object_digest

__all__ = ["Leases"]

PROBE_US = 1_000_000  # time for an answer before a re-issue
SAVED_US = 1_000_000  # by then what the disk was asked for is done
SENT_MAX = 16  # unacknowledged PROGRESS remembered


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
        self.fences = Fences(ctx.verify)
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
        return epochs.newest(walker, self._ctx.verify)

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
        """This peer keeps a copy: expect PROGRESS, or ask for it where nobody would send it."""
        self._stop(walker)
        newest = self._newest(walker)
        if newest is None or newest.position != walker.high_water:
            return  # fenced by certificates that were not kept
        if epochs.is_stray(newest, self._ctx.me):
            if epochs.claim(walker, self._ctx.me, self._ctx.verify) is not None:
                self._ask_later(walker, newest, epochs.rank(newest, self._ctx.me))
            return
        patience_us = newest.lease_us * epochs.rank(newest, self._ctx.me)
        quiet_us = newest.lease_us * 2 // 3  # two PROGRESS have not come
        self._of(walker).timer = self._ctx.after(
            quiet_us, partial(self._silent, walker, newest, patience_us - quiet_us)
        )

    def _ask_later(self, walker: Walker, newest: Certificate, turns: int) -> None:
        ask = partial(self._ask, walker, newest, turns)
        self._of(walker).timer = self._ctx.after(newest.lease_us, ask)

    def _ask(self, walker: Walker, newest: Certificate, turns: int) -> None:
        """A stray asks once a lease; whatever it hears begins its watch anew."""
        digest = object_digest(walker.certificates[0])
        self._courier.send(newest.target, Kind.RECLAIM, walker.id, digest)
        if turns > 1:
            self._ask_later(walker, newest, turns - 1)
        else:
            self._wait(walker, newest, lambda: self._silent(walker, newest, 0))

    def _wait(self, walker: Walker, newest: Certificate, then: Callable[[], None]) -> None:
        """Give an answer time before the next step is taken."""
        wait_us = max(newest.lease_us // 4, PROBE_US)
        self._of(walker).timer = self._ctx.after(wait_us, then)

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
        if walker.role in epochs.KEEPERS and walker.certificates and later:
            if walker.saving:
                return
            self._courier.send(message.sender, Kind.PROGRESS_ACK, walker.id, count)
            self.watch(walker)
            return
        if later:
            return  # we own nothing of it and know of nothing newer
        self._show(walker, message.sender)

    def _show(self, walker: Walker, peer: bytes) -> None:
        self._courier.send(peer, Kind.STALE, walker.id, list(walker.certificates[:2]))

    def on_release(self, message: Message) -> None:
        """The owner is two hand-overs on, or home: let go, durably, and say so.

        Raises: PacketError for certificates that do not verify.
        """
        walker_id, chain = message.body
        walker = self._walkers.get(walker_id)
        if walker is None or not chain:
            return
        newest = open_certificate(chain[0], self._ctx.verify)
        digest, send = object_digest(chain[0]), self._courier.send
        answer = partial(send, message.sender, Kind.RELEASED, walker_id, digest)
        if newest.walker != walker_id or newest.target != message.sender or walker.saving:
            return  # while it is being saved: it is asked again
        if walker.role not in epochs.KEEPERS or not walker.certificates:
            if walker.high_water <= newest.position:
                answer()
            return
        mine = walker.certificates[0] == chain[0]
        if not mine and not epochs.proves(chain, walker, self._ctx.verify):
            return
        self._stop(walker)
        walker.high_water = newest.position if not mine else walker.high_water
        if walker.role is Role.FENCED:
            walker.certificates = ()  # its branch stays, and nobody counts on it
        else:
            walker.role, walker.activity = Role.RELEASED, ""
        self._walkers.save(walker, then=answer)

    def _expired(self, walker: Walker) -> None:
        """Ask whom we handed to: it may know that the walker is two hand-overs on."""
        newest = self._newest(walker)
        if walker.role not in epochs.KEEPERS or newest is None:
            return
        digest = object_digest(walker.certificates[0])
        nearer = newest.shadows[: epochs.rank(newest, self._ctx.me) - 1]  # they act before us
        for peer in (newest.target, *nearer):
            self._courier.send(peer, Kind.RECLAIM, walker.id, digest)
        self.broadcast(Kind.RECLAIM, walker.id, digest)  # no relay can hide the owner from us
        self._wait(walker, newest, lambda: self._lost(walker))

    def on_reclaim(self, message: Message) -> None:
        """A shadow has heard nothing: answer with a sign of life, or with what is newer."""
        walker = self._walkers.get(message.body[0])
        if walker is None or not walker.certificates:
            return
        if walker.role is Role.OWN:
            self._answer(walker, message.sender, message.body[1])
        elif walker.role is Role.DONE and not walker.saving:
            self._courier.send(message.sender, Kind.RELEASE, walker.id, list(walker.certificates))
        else:
            self._show(walker, message.sender)

    def _answer(self, walker: Walker, peer: bytes, known: bytes) -> None:
        """An owner lives; who keeps a copy that is not counted may drop it if others are kept."""
        lease = self._of(walker)
        named = peer in lease.unreleased
        enough = len(lease.unreleased) >= walker.identity.genesis.copies - 1
        if not named and enough and not walker.saving and not self.lapsed(walker):
            self._courier.send(peer, Kind.RELEASE, walker.id, list(walker.certificates))
            return
        if known != object_digest(walker.certificates[0]):
            self._show(walker, peer)
        if named:
            self.renew(walker)
        elif walker.version is not None and not self._walkers.broken:
            position, seq = list(walker.high_water), walker.version.manifest.seq
            self._courier.send(peer, Kind.PROGRESS, walker.id, 0, seq, 0, position)

    def _lost(self, walker: Walker) -> None:
        if walker.role not in epochs.KEEPERS:
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
        """Issue the next epoch to ourselves, durably, and go on."""
        was_owner = walker.role is Role.OWN
        ctx = self._ctx
        certificate, before = epochs.next_epoch(walker, ctx.me, ctx.config.lease_us, ctx.verify)
        record = seal_certificate(certificate, self._ctx.signer)
        if walker.role is Role.FENCED and walker.version is not None:
            walker.version = replace(walker.version)  # what was begun before the fence is void
        self._stop(walker)
        walker.role = Role.OWN
        walker.high_water = certificate.position
        walker.certificates = (record, before)
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
        if message.kind is Kind.STALE:
            self.fences.learn(message.body[1])
            self.on_stale(message)
            return
        walker = self._walkers.get(message.body[0])
        if walker is not None and walker.role in (Role.OWN, Role.DONE):
            self.on_reclaim(message)

    # fencing

    def on_stale(self, message: Message) -> None:
        """Somebody shows newer certificates: an owner's branch is over, a keeper learns its rank.

        Raises: PacketError for certificates that do not verify.
        """
        walker_id, chain = message.body
        walker = self._walkers.get(walker_id)
        concerned = (Role.OWN, Role.DONE, *epochs.KEEPERS)
        if walker is None or not chain or walker.role not in concerned:
            return
        if not epochs.proves(chain, walker, self._ctx.verify) or self._walkers.broken:
            return
        if walker.saving:
            self._ctx.after(SAVED_US, partial(self.on_stale, message))  # a rumour comes but once
        elif walker.role is Role.OWN:
            self._fence(walker, chain)
        elif walker.role is Role.DONE:
            self.outlive(walker, open_certificate(chain[0], self._ctx.verify).epoch[0])
        else:
            self._take(walker, chain)

    def outlive(self, walker: Walker, counter: int) -> None:
        """It is home for good, and another branch has come to this epoch: end that one."""
        unreleased = self._of(walker).unreleased

        def told() -> None:
            self.broadcast(Kind.STALE, walker.id, list(walker.certificates))

        outlive(self._ctx, self._walkers, walker, (counter, unreleased), told)

    def _take(self, walker: Walker, chain: list[bytes]) -> None:
        self._stop(walker)
        walker.certificates = epochs.shown(walker, chain, self._ctx.me, self._ctx.verify)
        walker.high_water = open_certificate(chain[0], self._ctx.verify).position
        self._walkers.save(walker, then=partial(self._taken, walker))

    def _taken(self, walker: Walker) -> None:
        if walker.role is Role.FENCED:
            self.reissuer.fenced(walker)
        if walker.role in epochs.KEEPERS:
            self.watch(walker)

    def _fence(self, walker: Walker, chain: list[bytes]) -> None:
        newest = open_certificate(chain[0], self._ctx.verify)
        epoch, source = newest.epoch[0], newest.source.hex()[:12]
        walker.role, walker.busy = Role.FENCED, False
        walker.activity = f"fenced: epoch {epoch} was issued by {source}"
        self._ctx.report("fenced", walker=walker.id.hex(), epoch=epoch, reason=walker.activity)
        self._take(walker, chain)
