"""What is broadcast, and what it means here: custody that concerns everybody.

    rumour kind 1: | custody message of type RECLAIM or STALE, signed by its sender |
    rumour kind 3: | revocation of tokens |
    rumour kind 2: | MessagePack [certificate, certificate] | one signer's two words on one thing

RECLAIM asks, past any relay that hides the owner, whether a walker lives; STALE shows the epoch
that somebody has issued, so that an older owner stops. Whoever has seen both of two certificates
that exclude each other publishes the pair: it proves by itself who has granted a walker twice.

Rules of this file: a broadcast says nothing that its sender could not have said to each by itself.
Source: spec/membership.md, section "What is broadcast".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgpack

from mfd.core.certificates import Certificate, open_certificate
from mfd.core.context import Context
from mfd.core.gossip import Gossip
from mfd.core.memberframes import PAYLOAD_BYTES_MAX
from mfd.core.messages import Kind, Message, decode_message, encode_message
from mfd.core.tokens import open_revocation
from mfd.packet.errors import Fault, PacketError

__all__ = ["CUSTODY", "EVIDENCE", "REVOCATION", "Tidings"]

CUSTODY = 1
EVIDENCE = 2
REVOCATION = 3
REVOCATION_VALID_S = 30 * 24 * 3_600  # by then every peer that comes back has heard of it
VOID_MAX = 4_096  # members whose tokens were revoked
ROW = "revoked/"  # ledger rows: issuer and member in hexadecimal -> the revocation
EVIDENCE_VALID_S = 24 * 3_600
CERTIFICATES_MAX = 4_096  # of any walkers, newest heard last, to be compared with later ones
VALID_S = {Kind.RECLAIM: 600, Kind.STALE: 24 * 3_600}  # a lost question, a split of a day


class Tidings:
    """Broadcasts made and understood by one peer."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.deliver: Callable[[Message], None]
        self.gossip: Gossip
        self.expel: Callable[[bytes], None] = lambda member: None
        self.void: dict[tuple[bytes, bytes], int] = {}  # as in tokens.Void
        self._rows: set[str] = set()  # of revocations, on this disk or on their way there
        self._certificates: dict[tuple[object, ...], bytes] = {}

    def restore(self, records: Mapping[str, bytes]) -> None:
        """Go by the revocations that an earlier life has taken: nobody may tell them again."""
        config = self._ctx.config
        self._rows = {key for key in records if key.startswith(ROW)}
        for key in sorted(self._rows):
            found = open_revocation(records[key], config.network, self._ctx.verify)
            if found is None:
                self._ctx.report("corrupt", row=key, reason="it is no revocation")
            elif found[0] in config.issuers and len(self.void) < VOID_MAX:
                self.void[found[:2]] = found[2]

    def spread(self, kind: Kind, *body: Any) -> None:
        """Tell everybody; what is too large for a broadcast stays between the two concerned."""
        config = self._ctx.config
        message = encode_message(kind, body, network=config.network, signer=self._ctx.signer)
        if len(message) <= PAYLOAD_BYTES_MAX:
            self.gossip.publish(CUSTODY, message, VALID_S[kind])

    def judge(self, kind: int, payload: bytes) -> int:
        """Check a broadcast, carry it out, and return for how many seconds it matters.

        Raises: PacketError for one that no honest neighbour passes on.
        """
        if kind == EVIDENCE:
            return self._on_evidence(payload)
        if kind == REVOCATION:
            return self._on_revocation(payload)
        if kind != CUSTODY:
            self._ctx.count("rumours_unknown")
            return 0  # of a newer version; it cannot be checked, so it is not passed on
        config = self._ctx.config
        message = decode_message(payload, network=config.network, verify=self._ctx.verify)
        valid_s = VALID_S.get(message.kind)
        if valid_s is None:
            raise PacketError(Fault.FIELD, f"{message.kind.name} is not for everybody")
        if message.kind is Kind.STALE:  # every relay checks the same, so none is blamed wrongly
            self.compare(message.body[1])
        if message.sender != self._ctx.me:
            self.deliver(message)
        return valid_s

    def revoke(self, payloads: Iterable[bytes]) -> None:
        """Make known what the owner has been told by an issuer."""
        for payload in payloads:
            try:
                valid_s = self._on_revocation(payload)
            except PacketError:
                valid_s = 0
            if valid_s:
                self.gossip.publish(REVOCATION, payload, valid_s)
            else:
                self._ctx.count("revocations_refused")

    def _on_revocation(self, payload: bytes) -> int:
        """Take a revocation; one by nobody that is an issuer here is not passed on."""
        config = self._ctx.config
        found = open_revocation(payload, config.network, self._ctx.verify)
        if found is None:
            raise PacketError(Fault.FIELD, "revocation")
        issuer, member, serial = found
        if issuer not in config.issuers:
            return 0
        key = (issuer, member)
        if serial > self.void.get(key, -1) and (key in self.void or len(self.void) < VOID_MAX):
            self.void[key] = serial
            self._keep(f"{ROW}{issuer.hex()}/{member.hex()}", payload)
            self._ctx.report("revoked", peer=member.hex(), issuer=issuer.hex(), serial=serial)
            self.expel(member)
        return REVOCATION_VALID_S

    def _keep(self, row: str, payload: bytes) -> None:
        """Write a revocation down, so that a restart does not void it."""
        if row in self._rows or len(self._rows) < VOID_MAX:
            self._rows.add(row)
            self._ctx.store(put=((row, bytes(payload)),), then=_nothing, failed=self._lost)

    def _lost(self, reason: str) -> None:
        self._ctx.report("disk", reason=reason)

    def compare(self, records: Iterable[bytes]) -> None:
        """Look whether a certificate excludes another that was heard; then show both to everybody.

        Raises: PacketError for one that is none.
        """
        for record in records:
            key = _about(open_certificate(record, self._ctx.verify))
            known = self._certificates.pop(key, None)
            self._certificates[key] = record
            if len(self._certificates) > CERTIFICATES_MAX:
                del self._certificates[next(iter(self._certificates))]
            if known is not None and known != record:
                pair = msgpack.packb(sorted((known, record)))
                self._report(key)
                self.gossip.publish(EVIDENCE, pair, EVIDENCE_VALID_S)

    def _on_evidence(self, payload: bytes) -> int:
        try:
            pair = msgpack.unpackb(payload)
        except (ValueError, msgpack.UnpackException, RecursionError) as exc:
            raise PacketError(Fault.MSGPACK, "evidence") from exc
        match pair:
            case [bytes() as first, bytes() as second] if first < second:
                about = [_about(open_certificate(r, self._ctx.verify)) for r in (first, second)]
                if about[0] == about[1]:
                    self._report(about[0])
                    return EVIDENCE_VALID_S
        raise PacketError(Fault.FIELD, "evidence")

    def _report(self, about: tuple[Any, ...]) -> None:
        walker, epoch, hop, _, source = about
        self._ctx.count("equivocations")
        self._ctx.report(
            "equivocated", walker=walker.hex(), peer=source.hex(), epoch=epoch[0], hop=hop
        )


def _about(certificate: Certificate) -> tuple[Any, ...]:
    """What an honest signer signs one certificate about at most."""
    c = certificate
    return (c.walker, c.epoch, c.hop, c.revision, c.source)


def _nothing() -> None:
    """Nobody waits for it."""
