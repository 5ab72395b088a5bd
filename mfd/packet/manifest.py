"""The manifest: one version of a model, every layer named by the digest of its content.

Rules of this file: the bytes are signed and never written anew; where a walker is and who owns it
is not told here but in custody certificates.
Source: spec/packet.md, section "Manifest".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from math import isfinite
from typing import Any

from mfd.packet.errors import Fault, PacketError
from mfd.packet.extent import FULL, Scale, plain_scale, read_scale
from mfd.packet.fields import INT_MAX, Fields, as_bytes, as_text, as_uint, pack_header
from mfd.packet.limits import (
    CLAIM_NAME_BYTES_MAX,
    CLAIM_TEXT_BYTES_MAX,
    CLAIMS_MAX,
    LAYERS_MAX,
    MANIFEST_BYTES_MAX,
    NAME_BYTES_MAX,
    OBJECT_BYTES_MAX,
    PARENTS_MAX,
    RANGES_MAX,
    SAMPLER_BYTES_MAX,
    SOFTWARE_BYTES_MAX,
    VISITED_MAX,
)
from mfd.packet.objects import Buffer, object_digest
from mfd.packet.signing import Signer, Verifier
from mfd.packet.task import LayerRef, Range

__all__ = [
    "MANIFEST_DOMAIN",
    "Kind",
    "Manifest",
    "Progress",
    "Scale",
    "decode_manifest",
    "encode_manifest",
    "pack_manifest",
    "sign_manifest",
    "verify_manifest",
    "version_of",
]

MANIFEST_DOMAIN = "mfd.manifest.v1"
VISITED_BYTES = 8  # of a peer id: enough to tell the few hundred peers of one lap apart
U32_MAX = (1 << 32) - 1
FIELD_NAMES = {  # of the manifest, for whoever makes one
    "0": "walker",
    "1": "claims",
    "2": "model",
    "3": "software",
    "4": "seq",
    "6": "parents",
    "8": "layers",
    "10": "kind",
    "12": "plan",
    "14": "trained",
    "16": "scale",
    "18": "trainer",
    "20": "progress",
}
ABSENT = object()  # nothing in a field (nil) is not the same as no field


class Kind(IntEnum):
    """What the layer objects hold."""

    LAYERS = 0
    ADAPTER = 1
    ACTIVATIONS = 2
    GRADIENTS = 3
    LOGITS = 4
    PROTOTYPES = 5
    OPTIMIZER = 6


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the journey is."""

    lap: int = 0
    cursor: int = 0  # first layer of the block that is next, or in work
    step: int = 0  # optimiser steps since the start
    stops: int = 0  # stops since the start
    holders: int = 0  # number of holders in the lap before
    visited: tuple[bytes, ...] = ()  # first 8 bytes of the peers of this lap, in order of visit
    sampler: bytes = b""  # state of the trainer's sampler, where the plan carries it


Claim = int | float | str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a walker's model. Layer i of `layers` has index i; names are distinct."""

    walker: bytes  # 32 bytes
    model: bytes  # 32 bytes; the same for all walkers of one architecture
    seq: int  # above those of all parents
    layers: tuple[LayerRef, ...]
    plan: bytes  # digest of the plan record
    trainer: bytes  # 32 bytes: peer id of the signer
    parents: tuple[bytes, ...] = ()  # versions, none twice
    trained: tuple[Range, ...] = ()  # the layers just trained: ascending, no overlap
    scale: Scale = FULL
    kind: Kind = Kind.LAYERS
    progress: Progress = Progress()
    claims: Mapping[str, Claim] = field(default_factory=dict)  # samples, steps, loss, ...
    software: str = ""
    extra: Mapping[int, Any] = field(default_factory=dict)  # unknown odd fields, copied through


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical bytes. A claim that is not finite becomes the text nan, inf or -inf.

    Raises: ValueError or TypeError where the manifest breaks a rule of the format.
    """
    return pack_manifest(manifest)[0]


def pack_manifest(manifest: Manifest) -> tuple[bytes, Manifest]:
    """Return what `encode_manifest` does, and the manifest as a reader will see it.

    Raises: as encode_manifest.
    """
    scale, progress = manifest.scale, manifest.progress
    known: dict[int, object] = {
        0: manifest.walker,
        2: manifest.model,
        4: manifest.seq,
        6: list(manifest.parents),
        8: [[ref.index, ref.name, ref.digest, ref.raw_bytes] for ref in manifest.layers],
        10: int(manifest.kind),
        12: manifest.plan,
        14: [list(span) for span in manifest.trained],
        16: plain_scale(scale),
        18: manifest.trainer,
        20: [
            progress.lap,
            progress.cursor,
            progress.step,
            progress.stops,
            progress.holders,
            b"".join(progress.visited),
            progress.sampler,
        ],
    }
    if manifest.claims:
        known[1] = {name: _finite(value) for name, value in manifest.claims.items()}
    if manifest.software:
        known[3] = manifest.software
    body = pack_header(known, manifest.extra)
    try:
        return body, decode_manifest(body)
    except PacketError as exc:
        name = FIELD_NAMES.get(exc.where.rpartition(" ")[2], "")
        which = f" ({name})" if name and exc.where.startswith("manifest field") else ""
        raise ValueError(f"this manifest cannot travel{which}: {exc}") from exc


def _finite(value: Claim) -> Claim:
    if isinstance(value, float):
        value = float(value)  # drops subclasses such as numpy's
        return value if isfinite(value) else str(value)
    return value


def decode_manifest(buffer: Buffer) -> Manifest:
    """Read a manifest.

    Raises: PacketError, whatever the bytes.
    """
    fields = Fields(buffer, where="manifest", limit=MANIFEST_BYTES_MAX)
    walker, model, seq = fields.bytes(0), fields.bytes(2), fields.uint(4)
    parents = fields.list(6, PARENTS_MAX, as_bytes)
    if len(set(parents)) != len(parents):
        raise fields.fail(6, Fault.ORDER)
    layers = fields.list(8, LAYERS_MAX, _read_layer)
    if not layers:
        raise fields.fail(8)
    if any(ref.index != i for i, ref in enumerate(layers)):
        raise fields.fail(8, Fault.ORDER)
    if len({ref.name for ref in layers}) != len(layers):
        raise fields.fail(8, Fault.ORDER)
    if len({(ref.digest, ref.raw_bytes) for ref in layers}) != len({ref.digest for ref in layers}):
        raise fields.fail(8)
    kind = fields.uint(10, max(Kind))
    plan = fields.bytes(12)
    trained = fields.list(14, RANGES_MAX, lambda item: _read_range(item, len(layers)))
    if any(before[1] > after[0] for before, after in pairwise(trained)):
        raise fields.fail(14, Fault.ORDER)
    return Manifest(
        walker=walker,
        model=model,
        seq=seq,
        layers=layers,
        plan=plan,
        trainer=fields.bytes(18),
        parents=parents,
        trained=trained,
        scale=fields.check(16, read_scale(fields.any(16))),
        kind=Kind(kind),
        progress=_read_progress(fields),
        claims=_read_claims(fields),
        software=_read_software(fields),
        extra=fields.rest(),
    )


def _read_layer(item: object) -> LayerRef | None:
    match item:
        case [index, name, digest, raw_bytes]:
            pass
        case _:
            return None
    index = as_uint(index, LAYERS_MAX - 1)
    name = as_text(name, NAME_BYTES_MAX)
    digest = as_bytes(digest)
    raw_bytes = as_uint(raw_bytes, OBJECT_BYTES_MAX, 1)
    if index is None or name is None or digest is None or raw_bytes is None:
        return None
    return LayerRef(index, name, digest, raw_bytes)


def _read_range(item: object, layers: int) -> Range | None:
    match item:
        case [int() as first, int() as last] if type(first) is int and type(last) is int:
            return (first, last) if 0 <= first < last <= layers else None
        case _:
            return None


def _read_progress(fields: Fields) -> Progress:
    match fields.any(20):
        case [lap, cursor, step, stops, holders, bytes() as visited, bytes() as sampler]:
            pass
        case _:
            raise fields.fail(20)
    if len(visited) > VISITED_MAX * VISITED_BYTES or len(sampler) > SAMPLER_BYTES_MAX:
        raise fields.fail(20, Fault.LIMIT)
    if len(visited) % VISITED_BYTES:
        raise fields.fail(20)
    peers = tuple(visited[at : at + VISITED_BYTES] for at in range(0, len(visited), VISITED_BYTES))
    if len(set(peers)) != len(peers):
        raise fields.fail(20, Fault.ORDER)
    return Progress(
        lap=fields.check(20, as_uint(lap, U32_MAX)),
        cursor=fields.check(20, as_uint(cursor, LAYERS_MAX)),
        step=fields.check(20, as_uint(step)),
        stops=fields.check(20, as_uint(stops, U32_MAX)),
        holders=fields.check(20, as_uint(holders, U32_MAX)),
        visited=peers,
        sampler=sampler,
    )


def _read_claims(fields: Fields) -> dict[str, Claim]:
    claims = fields.maybe(1, ABSENT)
    if claims is ABSENT:
        return {}
    if not isinstance(claims, dict) or not claims:
        raise fields.fail(1)
    if len(claims) > CLAIMS_MAX:
        raise fields.fail(1, Fault.LIMIT)
    for name, value in claims.items():
        if as_text(name, CLAIM_NAME_BYTES_MAX) is None or not _is_claim(value):
            raise fields.fail(1)
    return claims


def _is_claim(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, str):
        return as_text(value, CLAIM_TEXT_BYTES_MAX, 0) is not None
    return as_uint(value, INT_MAX, -INT_MAX) is not None


def _read_software(fields: Fields) -> str:
    software = fields.maybe(3, ABSENT)
    if software is ABSENT:
        return ""
    return fields.check(3, as_text(software, SOFTWARE_BYTES_MAX))


def version_of(manifest: Buffer) -> bytes:
    """Return the version that these manifest bytes are: their digest."""
    return object_digest(manifest)


def sign_manifest(manifest: Manifest, signer: Signer) -> tuple[bytes, bytes]:
    """Return the canonical bytes and the trainer's signature over them.

    Raises: ValueError where the signer is not the manifest's trainer, or as encode_manifest.
    """
    if signer.public_key != manifest.trainer:
        raise ValueError("a manifest is signed by its trainer: the signer has another key")
    body = encode_manifest(manifest)
    return body, signer.sign(MANIFEST_DOMAIN, body)


def verify_manifest(buffer: Buffer, signature: bytes, verify: Verifier) -> Manifest:
    """Read a manifest and check its trainer's signature over these exact bytes.

    Raises: PacketError; Fault.SIGNATURE where the signature is not the trainer's.
    """
    manifest = decode_manifest(buffer)
    if not verify(manifest.trainer, MANIFEST_DOMAIN, bytes(buffer), bytes(signature)):
        raise PacketError(Fault.SIGNATURE, f"manifest of trainer {manifest.trainer.hex()[:16]}")
    return manifest
