"""Who may own a walker: its genesis, and the chain of certificates that hands it on.

Rules of this file: values and their checks; sealed records are kept and sent as the exact bytes
that were signed. Position in custody (epoch, hop) lives here, never in the manifest.
Source: spec/custody.md, sections "Genesis" and "Certificate".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
from blake3 import blake3

from mfd.packet.errors import Fault, PacketError
from mfd.packet.objects import Buffer, object_digest
from mfd.packet.signing import Signer, Verifier, open_sealed, seal

__all__ = [
    "CERTIFICATE_BYTES_MAX",
    "GENESIS_BYTES_MAX",
    "SHADOWS_MAX",
    "Certificate",
    "Epoch",
    "Genesis",
    "Position",
    "open_certificate",
    "open_genesis",
    "seal_certificate",
    "seal_genesis",
    "walker_id",
]

GENESIS_DOMAIN = "mfd.genesis.v1"
CERTIFICATE_DOMAIN = "mfd.certificate.v1"
GENESIS_BYTES_MAX = 1024
CERTIFICATE_BYTES_MAX = 2048
SHADOWS_MAX = 4
EPOCHS_SKIPPED_MAX = 1 << 10
REISSUE = ("auto", "manual", "never")

Epoch = tuple[int, bytes]  # (counter, issuer id): totally ordered, never reused
Position = tuple[int, bytes, int]  # epoch counter, epoch issuer, hop: the high-water mark


@dataclass(frozen=True, slots=True)
class Genesis:
    """The birth of a walker, signed by its creator."""

    creator: bytes
    nonce: bytes  # 16 bytes
    model: bytes  # digest of the recipe's first manifest layers
    plan: bytes  # digest of the sealed plan
    copies: int  # custody copies kept while it travels, the owner's among them: 1 to 3
    reissue: str  # auto, manual, never


@dataclass(frozen=True, slots=True)
class Certificate:
    """One hand-over, or one re-issue (then `source` == `target` == the epoch's issuer)."""

    walker: bytes
    epoch: Epoch
    hop: int
    revision: int
    source: bytes
    target: bytes
    manifest: bytes  # version handed over
    previous: bytes  # digest of the certificate before, empty for the first
    stored: bytes  # digest of the target's STORED signature, empty for a re-issue
    shadows: tuple[bytes, ...]  # who still keeps a copy, newest first
    released: tuple[bytes, ...]
    nonce: bytes
    lease_us: int

    @property
    def position(self) -> Position:
        """The high-water mark that this certificate sets."""
        return (self.epoch[0], self.epoch[1], self.hop)


def walker_id(genesis_record: bytes) -> bytes:
    """Name of a walker: hash over its sealed genesis."""
    return blake3(b"mfd.walker.v1" + genesis_record).digest()


def seal_genesis(genesis: Genesis, signer: Signer) -> bytes:
    """Sign a genesis; `genesis.creator` must be the signer."""
    body = [genesis.nonce, genesis.model, genesis.plan, genesis.copies, genesis.reissue]
    return seal(GENESIS_DOMAIN, msgpack.packb(body), signer)


def open_genesis(record: Buffer, verify: Verifier) -> Genesis:
    """Check a sealed genesis.

    Raises: PacketError.
    """
    creator, body = open_sealed(GENESIS_DOMAIN, record, verify, GENESIS_BYTES_MAX)
    match _unpack(body, "genesis"):
        case [
            bytes() as nonce,
            bytes() as model,
            bytes() as plan,
            int() as copies,
            str() as policy,
        ]:
            sizes = (len(nonce), len(model), len(plan))
            if (
                sizes == (16, 32, 32)
                and type(copies) is int
                and 1 <= copies <= 3
                and policy in REISSUE
            ):
                return Genesis(creator, nonce, model, plan, copies, policy)
    raise PacketError(Fault.FIELD, "genesis")


def seal_certificate(certificate: Certificate, signer: Signer) -> bytes:
    """Sign a certificate; `certificate.source` must be the signer."""
    assert certificate.source == signer.public_key
    body = [
        certificate.walker,
        list(certificate.epoch),
        certificate.hop,
        certificate.revision,
        certificate.target,
        certificate.manifest,
        certificate.previous,
        certificate.stored,
        list(certificate.shadows),
        list(certificate.released),
        certificate.nonce,
        certificate.lease_us,
    ]
    return seal(CERTIFICATE_DOMAIN, msgpack.packb(body), signer)


def open_certificate(record: Buffer, verify: Verifier) -> Certificate:
    """Check a sealed certificate by itself; whether its issuer had the right is custody's business.

    Raises: PacketError.
    """
    source, body = open_sealed(CERTIFICATE_DOMAIN, record, verify, CERTIFICATE_BYTES_MAX)
    row = _unpack(body, "certificate")
    if not isinstance(row, list) or len(row) != 12:
        raise PacketError(Fault.FIELD, "certificate")
    walker, epoch, hop, revision, target, manifest, previous, stored, shadows, released = row[:10]
    match epoch:
        case [counter, bytes() as issuer] if type(counter) is int and len(issuer) == 32:
            if not 0 <= counter < 1 << 32:
                raise PacketError(Fault.FIELD, "epoch counter")
        case _:
            raise PacketError(Fault.FIELD, "epoch")
    nonce, lease_us = row[10:]
    sizes_right = all(
        isinstance(value, bytes) and len(value) in sizes
        for value, sizes in (
            (walker, (32,)),
            (target, (32,)),
            (manifest, (32,)),
            (previous, (0, 32)),
            (stored, (0, 32)),
            (nonce, (0, 16)),
        )
    )
    counts = (hop, revision, lease_us)
    if not sizes_right or not all(type(n) is int and 0 <= n < 1 << 62 for n in counts):
        raise PacketError(Fault.FIELD, "certificate")
    return Certificate(
        walker=walker,
        epoch=(counter, issuer),
        hop=hop,
        revision=revision,
        source=source,
        target=target,
        manifest=manifest,
        previous=previous,
        stored=stored,
        shadows=_ids(shadows),
        released=_ids(released),
        nonce=nonce,
        lease_us=lease_us,
    )


def follows(newer: Certificate, older: Certificate, older_record: bytes) -> bool:
    """Whether `newer` was issued by someone whom `older` entitles: its owner, or a shadow of it."""
    if newer.walker != older.walker or newer.previous != object_digest(older_record):
        return False
    if newer.epoch == older.epoch:
        return newer.source == older.target and newer.hop == older.hop + 1
    entitled = newer.source == older.target or newer.source in older.shadows
    # others may have issued epochs between the two; a liar must not use all counters up
    later = 0 < newer.epoch[0] - older.epoch[0] <= EPOCHS_SKIPPED_MAX
    right = later and newer.epoch[1] == newer.source and newer.hop == 0
    return entitled and right and newer.target == newer.source


def _ids(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > SHADOWS_MAX:
        raise PacketError(Fault.FIELD, "list of peers")
    if not all(isinstance(peer, bytes) and len(peer) == 32 for peer in value):
        raise PacketError(Fault.FIELD, "peer id")
    return tuple(value)


def _unpack(body: bytes, what: str) -> Any:
    try:
        return msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException, RecursionError) as exc:
        raise PacketError(Fault.MSGPACK, what) from exc
