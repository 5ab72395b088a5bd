"""Who owns which walker: the durable records and the transitions between them.

    NONE -> HELD -> OWN -> SHADOW -> RELEASED          the hand-over
            OWN -> DONE                                 home again
            OWN -> FENCED                               a newer epoch exists
            SHADOW, FENCED -> OWN                       re-issue, in an epoch of its own

Rules of this file: transitions are functions of a record and a message; none of them acts. Whoever
changes a record makes it durable before promising anything. (epoch, hop) never goes down.
Source: spec/custody.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgpack

from mfd.core.certificates import (
    SHADOWS_MAX,
    Certificate,
    Genesis,
    Position,
    follows,
    open_certificate,
    open_genesis,
    walker_id,
)
from mfd.core.tries import Tries
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import PLAN_BYTES_MAX
from mfd.packet.manifest import Manifest, verify_manifest, version_of
from mfd.packet.objects import object_digest
from mfd.packet.plan import Plan, decode_plan
from mfd.packet.signing import Verifier, open_sealed

__all__ = [
    "EPOCH_MAX",
    "PLAN_DOMAIN",
    "SEQ_MAX",
    "Held",
    "Identity",
    "Role",
    "Version",
    "Walker",
    "must_be_found",
    "open_identity",
    "position_offered",
    "why_not_granted",
    "why_refuse",
]

PLAN_DOMAIN = "mfd.plan.v1"
SEQ_MAX = 1 << 48  # no honest walker comes near these; above, a successor might have no room
EPOCH_MAX = 1 << 31


class Role(Enum):
    """What this peer is to a walker."""

    NONE = "none"  # it only keeps objects, from an errand
    OWN = "own"
    SHADOW = "shadow"
    RELEASED = "released"
    FENCED = "fenced"
    DONE = "done"


# asked for after every event
_OWN, _SHADOW, _RELEASED, _FENCED = Role.OWN, Role.SHADOW, Role.RELEASED, Role.FENCED


@dataclass(frozen=True, slots=True)
class Version:
    """A manifest as signed bytes, and what it says."""

    record: bytes
    signature: bytes
    manifest: Manifest

    @property
    def digest(self) -> bytes:
        """The version's name."""
        return version_of(self.record)

    @property
    def objects(self) -> dict[bytes, int]:
        """Layer objects named, each once, in layer order: digest -> raw bytes."""
        return {ref.digest: ref.raw_bytes for ref in self.manifest.layers}

    @classmethod
    def open(cls, record: bytes, signature: bytes, verify: Verifier) -> Version:
        """Check the trainer's signature. Raises: PacketError."""
        return cls(record, signature, verify_manifest(record, signature, verify))


@dataclass(frozen=True, slots=True)
class Identity:
    """What never changes about a walker: genesis and plan, both signed by its creator."""

    walker: bytes
    genesis_record: bytes
    plan_record: bytes
    genesis: Genesis
    plan: Plan


def open_identity(genesis_record: bytes, plan_record: bytes, verify: Verifier) -> Identity:
    """Check that a genesis is signed and that the plan is the one it names.

    Raises: PacketError.
    """
    genesis = open_genesis(genesis_record, verify)
    if object_digest(plan_record) != genesis.plan:
        raise PacketError(Fault.DIGEST, "plan")
    creator, body = open_sealed(PLAN_DOMAIN, plan_record, verify, PLAN_BYTES_MAX)
    if creator != genesis.creator:
        raise PacketError(Fault.SIGNATURE, "plan is not the creator's")
    walker = walker_id(genesis_record)
    return Identity(walker, genesis_record, plan_record, genesis, decode_plan(body))


@dataclass(frozen=True, slots=True)
class Held:
    """A version stored for an offer: ours only once the GRANT comes."""

    version: Version
    position: Position
    certificates: tuple[bytes, ...]  # of the offerer, newest first
    offerer: bytes
    ref: bytes  # of the OFFER
    nonce: bytes
    stored: bytes  # the exact STORED message, to be sent again


@dataclass(slots=True)
class Walker:
    """One walker at one peer: the durable record, and beside it what a restart may forget."""

    identity: Identity
    role: Role = Role.NONE
    version: Version | None = None  # owned, shadowed, or kept since
    cache: Version | None = None  # got for an errand
    held: Held | None = None
    certificates: tuple[bytes, ...] = ()  # sealed, newest first: two, and core.epochs' third
    high_water: Position = (0, b"", 0)
    # transient
    siblings: tuple[Version, ...] = ()  # versions about to be merged
    earlier: tuple[Version, ...] = ()  # kept as bases for differences (core.bases)
    parts: dict[bytes, Version] = field(default_factory=dict)  # scaled, out on errands, by peer
    pinned: dict[bytes, Version] = field(default_factory=dict)  # on their way here, by their ref
    bases: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)  # named for those
    saving: int = 0  # saves under way: nothing may be promised, not even again
    stored_us: int | None = None  # when STORED was first sent for what is held
    activity: str = ""
    measured: bytes = b""  # version that was measured
    met: bytes = b""  # what was last tried to be merged with siblings
    went: bytes = b""  # to whom it was handed from here last
    left_us: int | None = None  # when; None: not known
    shunned: dict[bytes, int] = field(default_factory=dict)  # holder -> until when
    unfit: dict[bytes, int] = field(default_factory=dict)  # holder with nothing for it -> until
    tries: Tries = field(default_factory=Tries)  # what was offered in vain since it last went on
    arrived_bytes: int = 0
    lease: Any = None  # handover's and lease's own state
    busy: bool = False  # a job, an offer or an errand is under way
    waits: bool = False  # parked, and nothing done here since: it takes no slot

    @property
    def id(self) -> bytes:
        """The walker's name."""
        return self.identity.walker

    @property
    def plan(self) -> Plan:
        """Its plan."""
        return self.identity.plan

    def kept(self) -> dict[bytes, int]:
        """Return the objects that this record names: all of them are on this disk."""
        out: dict[bytes, int] = {}
        held = self.held.version if self.held else None
        for version in (self.version, self.cache, held, *self.siblings, *self.parts.values()):
            if version is not None:
                out.update(version.objects)
        return out

    def row(self) -> tuple[str, bytes]:
        """Ledger row: key and value."""
        held = self.held
        value = [
            self.role.value,
            self.identity.genesis_record,
            self.identity.plan_record,
            _pair(self.version),
            _pair(self.cache),
            list(self.certificates),
            list(self.high_water),
            None
            if held is None
            else [
                _pair(held.version),
                list(held.position),
                list(held.certificates),
                held.offerer,
                held.ref,
                held.nonce,
                held.stored,
            ],
        ]
        return f"walker/{self.id.hex()}", msgpack.packb(value)

    @classmethod
    def from_row(cls, value: bytes, verify: Verifier) -> Walker:
        """Read back a ledger row; signatures are checked again, disks rot.

        Raises: PacketError or ValueError for a row that is not ours.
        """
        role, genesis, plan, version, cache, certificates, water, held = msgpack.unpackb(value)
        walker = cls(
            open_identity(genesis, plan, verify),
            Role(role),
            _version(version, verify),
            _version(cache, verify),
            certificates=tuple(certificates),
            high_water=(water[0], water[1], water[2]),
        )
        if held is not None:
            stored_version = _version(held[0], verify)
            assert stored_version is not None
            position = (held[1][0], held[1][1], held[1][2])
            walker.held = Held(stored_version, position, tuple(held[2]), *held[3:])
        return walker


def _pair(version: Version | None) -> list[bytes] | None:
    return None if version is None else [version.record, version.signature]


def _version(pair: list[bytes] | None, verify: Verifier) -> Version | None:
    return None if pair is None else Version.open(pair[0], pair[1], verify)


def position_offered(walker: Walker) -> Position:
    """Return the (epoch, hop) that the owner's next hand-over takes."""
    counter, issuer, hop = walker.high_water
    return (counter, issuer, hop + 1)


def why_refuse(
    identity: Identity,
    version: Version,
    position: Position,
    certificates: tuple[bytes, ...],
    *,
    sender: bytes,
    verify: Verifier,
) -> str | None:
    """Say why an OFFER has no authority, or None: the offerer must be the certified owner.

    Raises: PacketError for certificates that do not verify.
    """
    manifest = version.manifest
    if manifest.seq >= SEQ_MAX or position[0] >= EPOCH_MAX or position[2] >= SEQ_MAX:
        return "the numbers leave no room for a successor"
    if manifest.walker != identity.walker or manifest.plan != identity.genesis.plan:
        return "the manifest belongs to another walker"
    if not certificates:
        first = (0, identity.genesis.creator, 1)
        if position != first or sender != identity.plan.home:
            return "only the home may offer a walker without certificates"
        return None
    opened = [open_certificate(record, verify) for record in certificates]
    newest = opened[0]
    if newest.walker != identity.walker or newest.target != sender:
        return "the newest certificate names another owner"
    if position != (*newest.epoch, newest.hop + 1):
        return "the offer does not follow the newest certificate"
    if len(opened) > 1:
        if not follows(newest, opened[1], certificates[1]):
            return "the newest certificate was not issued by the owner before"
    elif newest.previous or newest.source != identity.plan.home:
        return "the chain of certificates is cut"
    return None


def why_not_granted(
    held: Held, certificate: Certificate, *, sender: bytes, me: bytes
) -> str | None:
    """Say why a GRANT is not for what is held, or None."""
    if certificate.source != sender or sender != held.offerer or certificate.target != me:
        return "the certificate is between other peers"
    if certificate.position != held.position or certificate.manifest != held.version.digest:
        return "the certificate is for another hand-over"
    if certificate.stored != object_digest(held.stored) or certificate.nonce != held.nonce:
        return "the certificate answers another STORED"
    return None


def shadows_after(walker: Walker, me: bytes, unreleased: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return who keeps a copy once `me` hands over: `me` first, then who was not released yet."""
    rest = tuple(peer for peer in unreleased if peer != me)
    return (me, *rest)[:SHADOWS_MAX]


def must_be_found(walker: Walker, me: bytes) -> bool:
    """Say whether somebody has to find this peer: as owner, shadow, next custodian or home."""
    role = walker.role
    if role is _OWN or role is _SHADOW or role is _FENCED or walker.held is not None:
        return True
    return role is _RELEASED and walker.plan.home == me
