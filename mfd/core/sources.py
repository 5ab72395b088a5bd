"""What a holder signs about one data name that it holds.

    | holder's key 32 | signature 64 | MessagePack [network, name, seqno, samples, minutes] |
                                       and then, where they are told, labels, capacity and token

Rules of this file: values and their checks; whether a record is new or late is routing's business.
Source: spec/routing.md, section "Source records".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from mfd.core.config import Config
from mfd.core.tokens import Token, Void, is_token
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import NAME_BYTES_MAX
from mfd.packet.signing import Signer, Verifier, open_sealed, seal

__all__ = [
    "LABELS_MAX",
    "RECORD_BYTES_MAX",
    "SEQNO_MAX",
    "SHARE",
    "Record",
    "Source",
    "is_member",
    "is_name",
    "label_shares",
    "open_member_record",
    "open_record",
    "seal_record",
]

DOMAIN = "mfd.src.v1"
NOTHING_VOID: Void = {}
RECORD_BYTES_MAX = 1024  # key, signature, a name of 512 bytes, a network of 64, three numbers
NETWORK_BYTES_MAX = 64
SEQNO_MAX = (1 << 63) - 1
SAMPLES_MAX = (1 << 63) - 1
MINUTES_MAX = (1 << 16) - 1
MINUTE_US = 60_000_000
CAPACITY_MAX = (1 << 32) - 1
LABELS_MAX = 128  # of a histogram; data with more labels tells none
SHARE = 20  # a share of the samples is told in 1/20: enough to choose by, little to learn from


@dataclass(frozen=True, slots=True)
class Record:
    """One holder's word that it holds one name. Only the holder can raise `seqno`."""

    name: str
    holder: bytes
    seqno: int
    samples: int
    valid_us: int  # from the moment when this seqno is first heard; no clock is shared
    sealed: bytes  # the exact bytes, to be passed on
    labels: bytes = b""  # of each label its share in 1/20; empty: its owner tells none
    capacity: int = 0  # how much work its owner says it takes; 0: its owner tells none
    token: Token | None = None  # that the holder is a member, where the network wants one

    def is_void(self, void: Void) -> bool:
        """Say whether its token was revoked."""
        token = self.token
        return token is not None and token.serial <= void.get((token.issuer, self.holder), -1)


def seal_record(network: str, record: Record, signer: Signer) -> Record:
    """Return `record` with its holder and its sealed bytes filled in by the signer."""
    minutes = min(max(1, -(-record.valid_us // MINUTE_US)), MINUTES_MAX)
    fields = [network, record.name, record.seqno, record.samples, minutes]
    told = [value for value in (record.labels, record.capacity, record.token) if value]
    body = msgpack.packb([*fields, *told])
    return Record(
        name=record.name,
        holder=signer.public_key,
        seqno=record.seqno,
        samples=record.samples,
        valid_us=minutes * MINUTE_US,
        sealed=seal(DOMAIN, body, signer),
        labels=record.labels,
        capacity=record.capacity,
        token=record.token,
    )


def open_record(sealed: bytes, network: str, verify: Verifier) -> Record:
    """Check a sealed record of this network.

    Raises: PacketError.
    """
    holder, body = open_sealed(DOMAIN, sealed, verify, RECORD_BYTES_MAX)
    match _unpack(body):
        case [
            str() as home,
            str() as name,
            int() as seqno,
            int() as samples,
            int() as minutes,
            *rest,
        ] if (told := _told(rest)) is not None:
            whole = all(type(n) is int for n in (seqno, samples, minutes))
            ranges = 0 <= seqno <= SEQNO_MAX and 0 <= samples <= SAMPLES_MAX
            valid = ranges and 1 <= minutes <= MINUTES_MAX
            if whole and valid and home == network and is_name(name) and _may_hold(name, holder):
                valid_us = minutes * MINUTE_US
                return Record(name, holder, seqno, samples, valid_us, bytes(sealed), *told)
    raise PacketError(Fault.FIELD, "source record")


def open_member_record(
    sealed: bytes, config: Config, verify: Verifier, void: Void = NOTHING_VOID
) -> Record:
    """Check a sealed record, and that its holder is a member where the network has issuers.

    Raises: PacketError.
    """
    record = open_record(sealed, config.network, verify)
    if not _admitted(record.token, record.holder, config, verify, void):
        raise PacketError(Fault.FIELD, "source record without a token of this network")
    return record


def is_member(config: Config, me: bytes, verify: Verifier) -> bool:
    """Say whether others will believe what this peer announces."""
    return _admitted(config.token, me, config, verify, NOTHING_VOID)


def _admitted(
    token: Token | None, holder: bytes, config: Config, verify: Verifier, void: Void
) -> bool:
    if not config.issuers:
        return True
    terms = (config.network, config.issuers, verify, void)
    return token is not None and token.admits(holder, *terms)


class Source(NamedTuple):
    """A holder of a data name, as seen from here."""

    holder: bytes
    metric: int  # unit 10 us
    hops: int
    samples: int
    labels: bytes = b""  # rounded histogram, where its owner tells one
    capacity: int = 0  # where its owner tells it


def is_name(name: object) -> bool:
    """Say whether this is a data name: printable text of 1 to 512 bytes in UTF-8."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= NAME_BYTES_MAX
        and name.isprintable()
        and len(name.encode()) <= NAME_BYTES_MAX
    )


def label_shares(counts: Mapping[int, int]) -> bytes:
    """Return the rounded histogram of label -> samples; empty where there are too many labels."""
    total = sum(counts.values())
    if not total or min(counts) < 0 or max(counts) >= LABELS_MAX:
        return b""
    shares = (counts.get(label, 0) * SHARE / total for label in range(max(counts) + 1))
    return bytes(round(share) for share in shares)


def _told(rest: list[Any]) -> tuple[bytes, int, Token | None] | None:
    """What a record tells beyond its five fields: labels, capacity, token, in this order, or none.

    None: it tells something else.
    """
    labels, capacity, token = b"", 0, None
    rest = rest[::-1]
    if rest and _are_shares(rest[-1]):
        labels = rest.pop()
    if rest and _is_capacity(rest[-1]):
        capacity = rest.pop()
    if rest and is_token(rest[-1]):
        token = Token(*rest.pop())
    return None if rest else (labels, capacity, token)


def _is_capacity(value: object) -> bool:
    return type(value) is int and 0 < value <= CAPACITY_MAX


def _are_shares(value: object) -> bool:
    return isinstance(value, bytes) and 0 < len(value) <= LABELS_MAX and max(value) <= SHARE


def _may_hold(name: str, holder: bytes) -> bool:
    return not name.startswith("@") or name == "@" + holder.hex()


def _unpack(body: Any) -> Any:
    try:
        return msgpack.unpackb(
            body, max_str_len=NAME_BYTES_MAX, max_bin_len=LABELS_MAX, max_array_len=8, max_map_len=0
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise PacketError(Fault.MSGPACK, "source record") from error
