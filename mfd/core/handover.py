"""The hand-over of a walker between two custodians, on the owner's side.

    owner                                   next
    OWN     OFFER ------------------------->         checks authority, space, high-water mark
            <------------------ ACCEPT(lacks)
            objects ----------------------->         written, checked
            <------------------------ STORED HELD    durable first
    SHADOW  durable first: the commit point
            GRANT(certificate) ------------> OWN     durable first
            <------------------------- OWNED

Rules of this file: every message is idempotent; a promise follows its Stored event, and so does its
repetition. The other side is reception.py.
Source: spec/custody.md, section "Hand-over".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from mfd.core.bases import common
from mfd.core.certificates import Certificate, Position, open_certificate, seal_certificate
from mfd.core.context import Context, Timer
from mfd.core.courier import Courier
from mfd.core.custody import Role, Walker, position_offered, shadows_after
from mfd.core.exchange import Exchange
from mfd.core.lease import Leases
from mfd.core.messages import Kind, Message
from mfd.core.walkers import Walkers
from mfd.packet.objects import object_digest

__all__ = ["BUSY", "PARTS", "STALE", "UNFIT", "Handover"]

BUSY, STALE, UNFIT, PARTS = 1, 2, 3, 4  # codes of REFUSE

Less = Callable[[bytes, int], None]  # a peer, and the most bytes that it takes


@dataclass(slots=True)
class _Offer:
    """The owner's side."""

    walker: Walker
    target: bytes
    others: tuple[bytes, ...]
    ref: bytes
    position: Position
    failed: Callable[[], None]
    less: Less | None
    nonce: bytes = b""
    sent_bytes: int = 0
    started_us: int = 0
    timer: Timer | None = field(default=None, repr=False)


class Handover:
    """The hand-overs that this peer has begun."""

    def __init__(
        self, ctx: Context, walkers: Walkers, courier: Courier, exchange: Exchange, leases: Leases
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._courier = courier
        self._exchange = exchange
        self._leases = leases
        self._offers: dict[bytes, _Offer] = {}

    # the owner's side

    def offer(
        self,
        walker: Walker,
        targets: tuple[bytes, ...],
        failed: Callable[[], None],
        less: Less | None = None,
    ) -> None:
        """Hand over to the first of `targets` that takes it; `failed` when none does.

        `less` ends it for one that would take a part: it is told of it instead.
        """
        if not targets or walker.role is not Role.OWN or walker.version is None:
            failed()
            return
        if self._leases.lapsed(walker):
            walker.activity = "the lease has run out: asking the predecessor to renew"
            self._leases.renew(walker)
            failed()
            return
        version, target = walker.version, targets[0]
        position = position_offered(walker)
        identity = walker.identity
        ref = self._courier.send(
            target,
            Kind.OFFER,
            walker.id,
            list(position[:2]),
            position[2],
            identity.genesis_record,
            identity.plan_record,
            version.record,
            version.signature,
            list(walker.certificates),
            sum(version.objects.values()),
        )
        offer = _Offer(
            walker, target, targets[1:], ref, position, failed, less, started_us=self._ctx.now_us
        )
        self._offers[ref] = offer
        walker.activity = f"offering to {target.hex()[:12]}"
        offer.timer = self._ctx.after(
            self._ctx.config.offer_us, partial(self._unheard, offer, "no answer")
        )

    def _unheard(self, offer: _Offer, reason: str) -> None:
        """It may be back in a moment: ask it again after the others."""
        self._gave_up(offer, reason, 3 * self._ctx.config.park_retry_us)

    def _gave_up(
        self, offer: _Offer, reason: str, shun_us: int | None = None, *, full: bool = False
    ) -> None:
        if self._offers.pop(offer.ref, None) is None:
            return
        if offer.timer is not None:
            offer.timer.cancel()
        self._courier.send(offer.target, Kind.CANCEL, offer.ref)
        walker = offer.walker
        shun_us = self._ctx.config.failed_holder_us if shun_us is None else shun_us
        walker.shunned[offer.target] = self._ctx.now_us + shun_us
        walker.tries.failed(offer.target, self._ctx.now_us, full=full)
        self._ctx.report(
            "refused", walker=walker.id.hex(), holder=offer.target.hex(), reason=reason
        )
        self.offer(walker, offer.others, offer.failed, offer.less)

    def on_accept(self, message: Message) -> bool:
        """Send what the next custodian lacks; False where the ref is not an offer of ours."""
        ref, nonce, lacks, told = message.body
        offer = self._offers.get(ref)
        if offer is None or message.sender != offer.target:
            return offer is not None
        if offer.nonce:
            return True  # a repeated ACCEPT; the objects are on their way
        assert offer.walker.version is not None
        objects = offer.walker.version.objects
        if not all(d in objects for d in lacks):
            self._gave_up(offer, "it asks for objects that are not the walker's")
            return True
        offer.nonce = nonce
        if offer.timer is not None:
            offer.timer.cancel()
        wanted = tuple((d, objects[d]) for d in objects if d in set(lacks))
        self._exchange.ship(
            offer.target,
            (ref, nonce),
            wanted,
            partial(self._sent, offer),
            partial(self._gave_up, offer),
            bases=common(offer.walker, objects, lacks, told),
        )
        return True

    def _sent(self, offer: _Offer, sent_bytes: int) -> None:
        offer.sent_bytes = sent_bytes
        limit = 2 * self._ctx.config.stalled_us
        offer.timer = self._ctx.after(limit, partial(self._gave_up, offer, "it did not store"))

    def on_refuse(self, message: Message) -> bool:
        """Choose again; False where the ref is not an offer of ours."""
        ref, code, retry_us, reason = message.body
        offer = self._offers.get(ref)
        if offer is None or message.sender != offer.target:
            return offer is not None
        if code == PARTS and offer.less is not None and not offer.nonce:
            del self._offers[ref]
            if offer.timer is not None:
                offer.timer.cancel()
            offer.less(offer.target, retry_us)
            return True
        limit = self._ctx.config.failed_holder_us
        if code == UNFIT:
            offer.walker.unfit[offer.target] = self._ctx.now_us + limit
        full = code == BUSY
        self._gave_up(offer, reason, min(retry_us, limit) if full else limit, full=full)
        return True

    def on_stored(self, message: Message) -> None:
        """The commit point: become a shadow durably, then grant."""
        ref, nonce, digest = message.body
        offer = self._offers.get(ref)
        if offer is None:
            self._stored_again(message)
            return
        walker = offer.walker
        version = walker.version
        if message.sender != offer.target or nonce != offer.nonce or version is None:
            return
        if digest != version.digest or walker.role is not Role.OWN or walker.saving:
            return  # not this version, not ours any more, or not now: STORED comes again
        if offer.position != position_offered(walker):
            return  # an epoch has begun since
        del self._offers[ref]
        if offer.timer is not None:
            offer.timer.cancel()
        counter, issuer, hop = offer.position
        previous = walker.certificates[0] if walker.certificates else b""
        certificate = Certificate(
            walker=walker.id,
            epoch=(counter, issuer),
            hop=hop,
            revision=0,
            source=self._ctx.me,
            target=offer.target,
            manifest=digest,
            previous=object_digest(previous) if previous else b"",
            stored=message.ref,
            shadows=shadows_after(walker, self._ctx.me, self._leases.unreleased(walker)),
            released=(),
            nonce=nonce,
            lease_us=self._ctx.config.lease_us,
        )
        record = seal_certificate(certificate, self._ctx.signer)
        walker.role = Role.SHADOW
        walker.high_water = certificate.position
        walker.certificates = (record, previous) if previous else (record,)
        walker.busy = False
        walker.went, walker.left_us = offer.target, self._ctx.now_us
        walker.activity = f"with {offer.target.hex()[:12]}"
        self._walkers.save(walker, then=partial(self._granted, offer, ref, nonce, record))

    def _granted(self, offer: _Offer, ref: bytes, nonce: bytes, record: bytes) -> None:
        self._courier.send(offer.target, Kind.GRANT, ref, nonce, record)
        self._leases.watch(offer.walker)
        self._ctx.report(
            "handed",
            walker=offer.walker.id.hex(),
            source=self._ctx.me.hex(),
            target=offer.target.hex(),
            hop=offer.walker.high_water[2],
            sent_bytes=offer.sent_bytes,
            seconds=(self._ctx.now_us - offer.started_us) / 1e6,
        )

    def _stored_again(self, message: Message) -> None:
        """A STORED whose offer is not open: granted before, or void."""
        ref, nonce, _ = message.body
        for walker in self._walkers:
            if walker.role is Role.SHADOW and walker.certificates:
                newest = open_certificate(walker.certificates[0], self._ctx.verify)
                if walker.saving and newest.stored == message.ref:
                    return  # the GRANT follows once we are a shadow durably
                if newest.stored == message.ref and newest.target == message.sender:
                    self._courier.send(
                        message.sender, Kind.GRANT, ref, nonce, walker.certificates[0]
                    )
                    return
        self._courier.send(message.sender, Kind.CANCEL, ref)

    def on_owned(self, message: Message) -> None:
        """The next custodian has it; its PROGRESS keeps the lease alive from here."""
        self._ctx.count("handovers")
