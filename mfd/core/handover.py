"""The hand-over of a walker between two custodians, seen from both sides.

    owner                                   next
    OWN     OFFER ------------------------->         checks authority, space, high-water mark
            <------------------ ACCEPT(lacks)
            objects ----------------------->         written, checked
            <------------------------ STORED HELD    durable first
    SHADOW  durable first: the commit point
            GRANT(certificate) ------------> OWN     durable first
            <------------------------- OWNED

Rules of this file: every message is idempotent; a promise follows its Stored event. HELD never
promotes itself.
Source: spec/custody.md, section "Hand-over".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from mfd.core.certificates import Certificate, open_certificate, seal_certificate
from mfd.core.context import Context, Timer
from mfd.core.courier import Courier
from mfd.core.custody import (
    Held,
    Role,
    Version,
    Walker,
    open_identity,
    position_offered,
    shadows_after,
    why_not_granted,
    why_refuse,
)
from mfd.core.exchange import Exchange
from mfd.core.lease import Leases
from mfd.core.messages import Kind, Message, encode_message
from mfd.core.walkers import Walkers
from mfd.packet.errors import Fault, PacketError
from mfd.packet.objects import object_digest

__all__ = ["Handover", "Traveller"]

RESEND_US = 5_000_000
BUSY, STALE, UNFIT = 1, 2, 3  # codes of REFUSE


class Traveller(Protocol):
    """What the walk wants to know of a hand-over."""

    def owned(self, walker: Walker) -> None:
        """This peer has become the owner, durably."""

    def may_hold(self, walker: Walker) -> bool:
        """Whether this peer takes custody of such a walker."""
        ...


@dataclass(slots=True)
class _Offer:
    """The owner's side."""

    walker: Walker
    target: bytes
    others: tuple[bytes, ...]
    ref: bytes
    failed: Callable[[], None]
    nonce: bytes = b""
    sent_bytes: int = 0
    started_us: int = 0
    timer: Timer | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Incoming:
    """The next custodian's side, until HELD."""

    walker: Walker
    version: Version
    position: tuple[int, bytes, int]
    certificates: tuple[bytes, ...]
    offerer: bytes
    ref: bytes
    nonce: bytes


class Handover:
    """All hand-overs of one peer."""

    def __init__(
        self, ctx: Context, walkers: Walkers, courier: Courier, exchange: Exchange, leases: Leases
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._courier = courier
        self._exchange = exchange
        self._leases = leases
        self._offers: dict[bytes, _Offer] = {}
        self._incoming: dict[bytes, _Incoming] = {}
        self.traveller: Traveller

    # the owner's side

    def offer(self, walker: Walker, targets: tuple[bytes, ...], failed: Callable[[], None]) -> None:
        """Hand over to the first of `targets` that takes it; `failed` when none does."""
        if not targets or walker.role is not Role.OWN or walker.version is None:
            failed()
            return
        if self._leases.lapsed(walker):
            walker.activity = "the lease has run out: asking the predecessor to renew"
            self._leases.renew(walker)
            failed()
            return
        version, target = walker.version, targets[0]
        epoch, hop = list(walker.high_water[:2]), walker.high_water[2] + 1
        identity = walker.identity
        ref = self._courier.send(
            target,
            Kind.OFFER,
            walker.id,
            epoch,
            hop,
            identity.genesis_record,
            identity.plan_record,
            version.record,
            version.signature,
            list(walker.certificates),
            sum(version.objects.values()),
        )
        offer = _Offer(walker, target, targets[1:], ref, failed, started_us=self._ctx.now_us)
        self._offers[ref] = offer
        walker.activity = f"offering to {target.hex()[:12]}"
        offer.timer = self._ctx.after(
            self._ctx.config.offer_us, partial(self._gave_up, offer, "no answer")
        )

    def _gave_up(self, offer: _Offer, reason: str, shun_us: int | None = None) -> None:
        if self._offers.pop(offer.ref, None) is None:
            return
        if offer.timer is not None:
            offer.timer.cancel()
        self._courier.send(offer.target, Kind.CANCEL, offer.ref)
        walker = offer.walker
        shun_us = self._ctx.config.failed_holder_us if shun_us is None else shun_us
        walker.shunned[offer.target] = self._ctx.now_us + shun_us
        self._ctx.report(
            "refused", walker=walker.id.hex(), holder=offer.target.hex(), reason=reason
        )
        self.offer(walker, offer.others, offer.failed)

    def on_accept(self, message: Message) -> bool:
        """Send what the next custodian lacks; False where the ref is not an offer of ours."""
        ref, nonce, lacks = message.body
        offer = self._offers.get(ref)
        if offer is None or message.sender != offer.target:
            return offer is not None
        if offer.nonce:
            return True  # a repeated ACCEPT; the objects are on their way
        assert offer.walker.version is not None
        objects = offer.walker.version.objects
        if not all(isinstance(d, bytes) and d in objects for d in lacks):
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
        limit = self._ctx.config.failed_holder_us
        self._gave_up(offer, reason, min(retry_us, limit) if code == BUSY else limit)
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
        if digest != version.digest or walker.role is not Role.OWN:
            return
        del self._offers[ref]
        if offer.timer is not None:
            offer.timer.cancel()
        counter, issuer, hop = position_offered(walker)
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
                if newest.stored == message.ref and newest.target == message.sender:
                    self._courier.send(
                        message.sender, Kind.GRANT, ref, nonce, walker.certificates[0]
                    )
                    return
        self._courier.send(message.sender, Kind.CANCEL, ref)

    def on_owned(self, message: Message) -> None:
        """The next custodian has it; its PROGRESS keeps the lease alive from here."""
        self._ctx.count("handovers")

    # the next custodian's side

    def on_offer(self, message: Message) -> None:
        """Check authority and fitness, then ask for what is lacking.

        Raises: PacketError for records that do not verify.
        """
        walker_id, epoch, hop, genesis, plan, record, signature, certificates, _size = message.body
        verify = self._ctx.verify
        identity = open_identity(genesis, plan, verify)
        version = Version.open(record, signature, verify)
        if len(epoch) != 2 or not isinstance(epoch[0], int):
            raise PacketError(Fault.FIELD, "epoch of an OFFER")
        position = (epoch[0], epoch[1], hop)
        reason = why_refuse(
            identity,
            version,
            position,
            tuple(certificates[:2]),
            sender=message.sender,
            verify=verify,
        )
        if reason is not None or identity.walker != walker_id:
            self._refuse(message, UNFIT, reason or "the genesis names another walker")
            return
        walker = self._walkers.get(walker_id) or self._walkers.add(identity)
        if walker is None:
            self._refuse(message, BUSY, "too many walkers are known here")
            return
        if walker.held is not None and walker.held.ref == message.ref:
            self._courier.resend(message.sender, walker.held.stored)
            return
        if message.ref in self._incoming:
            return
        if position <= walker.high_water:
            self._refuse(message, STALE, "a newer certificate is known here")
            self._courier.send(message.sender, Kind.STALE, walker.id, list(walker.certificates))
            return
        if not self.traveller.may_hold(walker):
            self._refuse(message, UNFIT, "this peer takes no custody of this walker")
            return
        if self._walkers.slots_used() + len(self._incoming) >= self._ctx.config.slots:
            self._refuse(message, BUSY, "no free slot")
            return
        nonce = self._ctx.dice.bytes(16)
        chain = tuple(certificates[:2])
        incoming = _Incoming(walker, version, position, chain, message.sender, message.ref, nonce)
        self._incoming[message.ref] = incoming
        lacks = self._walkers.lacks(walker, version)
        self._courier.send(
            message.sender, Kind.ACCEPT, message.ref, nonce, [digest for digest, _ in lacks]
        )
        self._exchange.expect(
            (message.ref, nonce),
            lacks,
            partial(self._came, incoming, tuple(d for d, _ in lacks)),
            partial(self._did_not_come, incoming),
        )

    def _refuse(self, message: Message, code: int, reason: str) -> None:
        self._courier.send(
            message.sender, Kind.REFUSE, message.ref, code, self._ctx.config.park_retry_us, reason
        )

    def _did_not_come(self, incoming: _Incoming, reason: str) -> None:
        self._incoming.pop(incoming.ref, None)
        self._ctx.report("intake failed", walker=incoming.walker.id.hex(), reason=reason)

    def _came(self, incoming: _Incoming, digests: tuple[bytes, ...], came_bytes: int) -> None:
        if self._incoming.pop(incoming.ref, None) is None:
            return
        walker = incoming.walker
        stored = encode_message(
            Kind.STORED,
            (incoming.ref, incoming.nonce, incoming.version.digest),
            network=self._ctx.config.network,
            signer=self._ctx.signer,
        )
        walker.arrived_bytes = came_bytes
        held = Held(
            incoming.version,
            incoming.position,
            incoming.certificates,
            incoming.offerer,
            incoming.ref,
            incoming.nonce,
            stored,
        )
        walker.held = held
        self._walkers.save(walker, objects=digests, then=partial(self._say_stored, walker, held))

    def _say_stored(self, walker: Walker, held: Held) -> None:
        """Repeat STORED until GRANT or CANCEL comes; the first lease counts from the last one."""
        if walker.held is not held:
            return
        self._leases.begin(walker)
        self._courier.resend(held.offerer, held.stored)
        self._ctx.after(RESEND_US, partial(self._say_stored, walker, held))

    def on_grant(self, message: Message) -> None:
        """Become the owner, durably, then say so.

        Raises: PacketError for a certificate that does not verify.
        """
        ref, nonce, record = message.body
        certificate = open_certificate(record, self._ctx.verify)
        walker = self._walkers.get(certificate.walker)
        if walker is None:
            return
        if walker.certificates and walker.certificates[0] == record:
            self._say_owned(message)
            return
        held = walker.held
        if held is None or held.ref != ref or held.nonce != nonce:
            return
        reason = why_not_granted(held, certificate, sender=message.sender, me=self._ctx.me)
        if reason is not None:
            self._ctx.report("refused", walker=walker.id.hex(), reason=reason)
            return
        if walker.role is Role.OWN:
            self.traveller_fenced(walker)
        walker.role = Role.OWN
        walker.version, walker.held = held.version, None
        walker.high_water = certificate.position
        walker.certificates = (record, *held.certificates[:1])
        walker.busy = False
        self._walkers.save(walker, then=partial(self._now_owned, walker, message))

    def traveller_fenced(self, walker: Walker) -> None:
        """An older epoch's work here ends; the newer epoch's copy takes its place."""
        self._ctx.report("fenced", walker=walker.id.hex(), reason="a newer epoch was granted here")

    def _now_owned(self, walker: Walker, message: Message) -> None:
        self._say_owned(message)
        self._leases.own(walker)
        self.traveller.owned(walker)

    def _say_owned(self, message: Message) -> None:
        ref, nonce, record = message.body
        self._courier.send(message.sender, Kind.OWNED, ref, nonce, object_digest(record))

    def on_cancel(self, message: Message) -> None:
        """The offerer chose otherwise."""
        ref = message.body[0]
        incoming = self._incoming.get(ref)
        if incoming is not None and incoming.offerer == message.sender:
            del self._incoming[ref]
            self._exchange.cancel((ref, incoming.nonce))
        for walker in self._walkers:
            held = walker.held
            if held is not None and held.ref == ref and held.offerer == message.sender:
                walker.held = None
                self._walkers.save(walker, then=lambda: None)

    def restored(self, walker: Walker) -> None:
        """After a restart: go on where the record says."""
        if walker.held is not None:
            self._say_stored(walker, walker.held)
        if walker.role is Role.SHADOW:
            self._leases.watch(walker)
        elif walker.role is Role.OWN:
            self._leases.own(walker)
            self.traveller.owned(walker)
