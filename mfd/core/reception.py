"""The hand-over of a walker between two custodians, on the side of the next one.

Rules of this file: every message is idempotent; a promise follows its Stored event, and so does its
repetition. HELD never promotes itself. The picture is in handover.py.
Source: spec/custody.md, section "Hand-over".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mfd.core.certificates import Position, open_certificate
from mfd.core.context import Context
from mfd.core.courier import Courier
from mfd.core.custody import (
    Held,
    Role,
    Version,
    Walker,
    open_identity,
    why_not_granted,
    why_refuse,
)
from mfd.core.epochs import KEEPERS
from mfd.core.exchange import Exchange
from mfd.core.handover import BUSY, PARTS, STALE, UNFIT
from mfd.core.lease import Leases
from mfd.core.messages import Kind, Message, encode_message
from mfd.core.tasks import is_too_large
from mfd.core.walkers import Walkers
from mfd.packet.objects import object_digest

__all__ = ["Reception", "Traveller"]

RESEND_US = 5_000_000  # STORED without GRANT; doubles


class Traveller(Protocol):
    """What the walk wants to know of a hand-over."""

    def owned(self, walker: Walker) -> None:
        """This peer has become the owner, durably."""

    def may_hold(self, walker: Walker) -> bool:
        """Whether this peer takes custody of such a walker."""
        ...


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


class Reception:
    """The hand-overs that this peer has been offered, and what it holds for them."""

    def __init__(
        self, ctx: Context, walkers: Walkers, courier: Courier, exchange: Exchange, leases: Leases
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._courier = courier
        self._exchange = exchange
        self._leases = leases
        self._incoming: dict[bytes, _Incoming] = {}
        self.traveller: Traveller

    def on_offer(self, message: Message) -> None:
        """Check authority and fitness, then ask for what is lacking.

        Raises: PacketError for records that do not verify.
        """
        walker_id, epoch, hop, genesis, plan, record, signature, certificates, _size = message.body
        verify = self._ctx.verify
        identity = open_identity(genesis, plan, verify)
        version = Version.open(record, signature, verify)
        position = (epoch[0], epoch[1], hop)
        chain = tuple(certificates)
        reason = why_refuse(
            identity, version, position, chain, sender=message.sender, verify=verify
        )
        if reason is not None or identity.walker != walker_id:
            self._refuse(message, UNFIT, reason or "the genesis names another walker")
            return
        if fence := self._leases.fences.against(walker_id, position, chain):
            self._refuse(message, STALE, "all were told of a newer epoch")
            self._courier.send(message.sender, Kind.STALE, walker_id, list(fence))
            return
        walker = self._walkers.get(walker_id) or self._walkers.add(identity)
        if walker is None:
            self._refuse(message, BUSY, "this peer can remember no more walkers")
            return
        if message.ref in self._incoming or self._is_held(walker, message):
            return
        refusal = self._why_not(walker, position) or self._why_parts(walker, version)
        if refusal is not None:
            self._refuse(message, *refusal)
            if refusal[0] == STALE and not walker.saving:
                chain = walker.certificates[:2]
                self._courier.send(message.sender, Kind.STALE, walker.id, list(chain))
            return
        nonce = self._ctx.dice.bytes(16)
        incoming = _Incoming(walker, version, position, chain, message.sender, message.ref, nonce)
        self._incoming[message.ref] = incoming
        walker.pinned[message.ref] = version
        lacks = self._walkers.lacks(walker, version)
        digests = [digest for digest, _ in lacks]
        told = self._walkers.bases(walker, message.ref, version, lacks)
        self._courier.send(message.sender, Kind.ACCEPT, message.ref, nonce, digests, told)
        self._exchange.expect(
            (message.ref, nonce),
            lacks,
            partial(self._came, incoming, tuple(digests)),
            partial(self._did_not_come, incoming),
            bases=dict(zip(digests, map(tuple, told), strict=False)),
        )

    def _is_held(self, walker: Walker, message: Message) -> bool:
        """A repeated OFFER of what is held is answered with the same STORED."""
        held = walker.held
        if held is None or held.ref != message.ref:
            return False
        if not walker.saving:
            self._courier.resend(message.sender, held.stored)
        return True

    def _why_not(self, walker: Walker, position: Position) -> tuple[int, str] | None:
        """Say why a rightful OFFER does not suit this peer, or None."""
        if position <= walker.high_water:
            return STALE, "a newer certificate is known here"
        if walker.role is Role.DONE:
            self._leases.outlive(walker, position[0])
            return STALE, "it is home for good"
        if self._walkers.broken:
            return UNFIT, "the disk of this peer has failed"
        if walker.held is not None and position < walker.held.position:
            return BUSY, "a later position is held here and may be granted"
        if not self.traveller.may_hold(walker):
            return UNFIT, "this peer takes no custody of this walker"
        taken = {id(other.walker) for other in self._incoming.values()} - {id(walker)}
        if self._walkers.slots_used(but=walker) + len(taken) >= self._ctx.config.slots:
            return BUSY, "no free slot"
        return None

    def _why_parts(self, walker: Walker, version: Version) -> tuple[int, str] | None:
        """Say so where this peer would take the walker but for its size (C-37)."""
        if walker.plan.home == self._ctx.me or not is_too_large(version, self._ctx.config):
            return None
        return PARTS, "this peer takes only parts of it"

    def _refuse(self, message: Message, code: int, reason: str) -> None:
        config = self._ctx.config
        number = config.whole_bytes_max if code == PARTS else config.park_retry_us
        self._courier.send(message.sender, Kind.REFUSE, message.ref, code, number, reason)

    def _did_not_come(self, incoming: _Incoming, reason: str) -> None:
        """Tell the offerer at once, so that it need not wait for a STORED that will not come."""
        if not self._forget(incoming):
            return
        self._ctx.report("intake failed", walker=incoming.walker.id.hex(), reason=reason)
        shun_us = self._ctx.config.failed_holder_us
        ref = incoming.ref
        self._courier.send(incoming.offerer, Kind.REFUSE, ref, UNFIT, shun_us, reason[:200])

    def _came(self, incoming: _Incoming, digests: tuple[bytes, ...], came_bytes: int) -> None:
        if not self._forget(incoming):
            return
        walker = incoming.walker
        if incoming.position <= walker.high_water:
            return  # something newer has passed here meanwhile
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
        walker.held, walker.stored_us = held, None
        self._walkers.save(walker, objects=digests, then=partial(self._say_first, walker, held))

    def _say_first(self, walker: Walker, held: Held) -> None:
        """The first lease counts from here: the shadow's patience can only begin later."""
        if walker.held is held:
            walker.stored_us = self._ctx.now_us
            self._say_stored(walker, held, RESEND_US)

    def _say_stored(self, walker: Walker, held: Held, again_us: int) -> None:
        """Repeat STORED until GRANT or CANCEL comes, ever more rarely."""
        if walker.held is not held:
            return
        self._courier.resend(held.offerer, held.stored)
        later_us = min(2 * again_us, self._ctx.config.held_query_us)
        self._ctx.after(again_us, partial(self._say_stored, walker, held, later_us))

    def _forget(self, incoming: _Incoming) -> bool:
        incoming.walker.pinned.pop(incoming.ref, None)
        incoming.walker.bases.pop(incoming.ref, None)
        return self._incoming.pop(incoming.ref, None) is not None

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
            if not walker.saving and certificate.target == self._ctx.me:
                self._say_owned(message)
            return
        held = walker.held
        if held is None or held.ref != ref or held.nonce != nonce or walker.saving:
            return
        if held.position <= walker.high_water or walker.role is Role.DONE:
            walker.held = None  # granted too late: something newer has passed here
            self._walkers.save(walker, then=lambda: None)
            return
        reason = why_not_granted(held, certificate, sender=message.sender, me=self._ctx.me)
        if reason is not None:
            self._ctx.report("refused", walker=walker.id.hex(), reason=reason)
            return
        if walker.role is Role.OWN:  # an older epoch's work here ends
            reason = "a newer epoch was granted here"
            self._ctx.report("fenced", walker=walker.id.hex(), reason=reason)
        walker.role = Role.OWN
        walker.version, walker.held = held.version, None
        walker.high_water = certificate.position
        walker.certificates = (record, *held.certificates[:1])
        walker.busy = False
        self._walkers.save(walker, then=partial(self._now_owned, walker, message))

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
            self._forget(incoming)
            self._exchange.cancel((ref, incoming.nonce))
        for walker in self._walkers:
            held = walker.held
            if held is not None and held.ref == ref and held.offerer == message.sender:
                walker.held = None
                self._walkers.save(walker, then=lambda: None)

    def restored(self, walker: Walker) -> None:
        """After a restart: go on where the record says."""
        if walker.held is not None:
            self._say_stored(walker, walker.held, RESEND_US)
        if walker.role in KEEPERS:
            self._leases.watch(walker)
        elif walker.role is Role.OWN:
            self._leases.own(walker)
            self.traveller.owned(walker)
        elif walker.role is Role.DONE:
            self._leases.done(walker)
