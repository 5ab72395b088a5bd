"""The envelope: what the network may read and rewrite at every hop, and the transfer index.

Rules of this file: nothing here is signed, so nothing here is believed; every number in the index
is checked against the manifest and against the bytes that follow.
Source: spec/packet.md, section "Envelope".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mfd.packet.errors import Fault, PacketError
from mfd.packet.fields import Fields, as_bytes, as_text, as_uint, pack_header
from mfd.packet.limits import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    ENVELOPE_BYTES_MAX,
    HOPS_MAX,
    INDEX_MAX,
    NAME_BYTES_MAX,
    OBJECT_BYTES_MAX,
)
from mfd.packet.objects import Buffer

__all__ = ["NOWHERE", "Envelope", "IndexEntry", "decode_envelope", "encode_envelope"]

TRACE_BYTES = 16
U8_MAX = 255


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One object that follows, in the order in which they follow."""

    digest: bytes  # of the raw object
    encoding: int  # 0: every chunk is raw, so the object lies contiguous; else what chunks may use
    base: bytes | None  # object that a delta builds upon
    encoded_bytes: int  # chunk table and bodies with their padding
    chunk_count: int
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where a packet goes and what it carries."""

    destination: bytes | str | None = None  # a peer id, a data name, or nowhere (a file)
    hop_limit: int = 64
    traffic_class: int = 0  # the network's own affair; 0 is the ordinary one
    priority: int = 0  # within a class; higher goes first
    trace: bytes = bytes(TRACE_BYTES)  # follows one journey through many logs
    index: tuple[IndexEntry, ...] = ()
    extra: Mapping[int, Any] = field(default_factory=dict)  # unknown odd fields, copied through


NOWHERE = Envelope()


def encode_envelope(envelope: Envelope) -> bytes:
    """Return the canonical bytes.

    Raises: ValueError or TypeError where the envelope breaks a rule of the format.
    """
    body = pack_header(
        {
            0: envelope.destination,
            2: envelope.hop_limit,
            4: envelope.traffic_class,
            6: envelope.priority,
            8: envelope.trace,
            10: [
                [e.digest, e.encoding, e.base, e.encoded_bytes, e.chunk_count, e.raw_bytes]
                for e in envelope.index
            ],
        },
        envelope.extra,
    )
    try:
        decode_envelope(body)
    except PacketError as exc:
        raise ValueError(f"this envelope cannot travel: {exc}") from exc
    return body


def decode_envelope(buffer: Buffer) -> Envelope:
    """Read an envelope; the index is consistent in itself, no more.

    Raises: PacketError, whatever the bytes.
    """
    fields = Fields(buffer, where="envelope", limit=ENVELOPE_BYTES_MAX)
    destination = fields.any(0)
    if destination is not None:
        peer = as_bytes(destination)
        destination = fields.check(0, peer or as_text(destination, NAME_BYTES_MAX))
    envelope = Envelope(
        destination=destination,
        hop_limit=fields.uint(2, HOPS_MAX),
        traffic_class=fields.uint(4, U8_MAX),
        priority=fields.uint(6, U8_MAX),
        trace=fields.bytes(8, TRACE_BYTES),
        index=fields.list(10, INDEX_MAX, _read_entry),
        extra=fields.rest(),
    )
    digests = {entry.digest for entry in envelope.index}
    if len(digests) != len(envelope.index):
        raise fields.fail(10, Fault.ORDER)
    return envelope


def _read_entry(item: object) -> IndexEntry | None:
    match item:
        case [digest, encoding, base, encoded_bytes, int() as chunk_count, raw_bytes]:
            pass
        case _:
            return None
    digest = as_bytes(digest)
    encoding = as_uint(encoding, U8_MAX)
    base = base if base is None else as_bytes(base, DIGEST_BYTES) or b""
    encoded_bytes = as_uint(encoded_bytes, 2 * OBJECT_BYTES_MAX)
    raw_bytes = as_uint(raw_bytes, OBJECT_BYTES_MAX, 1)
    if digest is None or encoding is None or base == b"" or encoded_bytes is None:
        return None
    if raw_bytes is None or as_uint(chunk_count) != -(-raw_bytes // CHUNK_BYTES):
        return None
    return IndexEntry(digest, encoding, base, encoded_bytes, chunk_count, raw_bytes)
