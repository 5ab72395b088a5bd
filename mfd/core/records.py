"""What a peer signs about itself: where it can be dialled, and what it is ready to do.

    | peer's key 32 | signature 64 | MessagePack [network, seq, [address ...], caps, minutes] |

Rules of this file: values and their checks; whether a record is new or late is the book's business.
Source: spec/membership.md, section "Peer records".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgpack

from mfd.packet.errors import Fault, PacketError
from mfd.packet.signing import KEY_BYTES, Signer, Verifier, open_sealed, seal

__all__ = [
    "ADDRESSES_MAX",
    "CUSTODIAN",
    "OPEN_NETWORK",
    "SEALED_BYTES_MAX",
    "SEQ_MAX",
    "Item",
    "PeerRecord",
    "crowd_of",
    "dial_line",
    "is_address",
    "open_peer_record",
    "seal_peer_record",
]

DOMAIN = "mfd.peer.v1"
ADDRESSES_MAX = 8
ADDRESS_BYTES_MAX = 80
NETWORK_BYTES_MAX = 64
BODY_BYTES_MAX = 768  # eight addresses of 80 bytes, a network of 64, three numbers
SEALED_BYTES_MAX = 96 + BODY_BYTES_MAX
SEQ_MAX = (1 << 63) - 1
MINUTE_US = 60_000_000
MINUTES_MAX = (1 << 16) - 1
CUSTODIAN = 1  # caps: takes custody without holding data
OPEN_NETWORK = 2  # caps: chooses its neighbours itself

Item = tuple[bytes, int]
"""A record under way: its sealed bytes and its age in seconds."""


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """One peer's word about itself. Only the peer can raise `seq`."""

    peer: bytes
    seq: int
    addresses: tuple[str, ...]  # host:port, best first; none: it cannot be dialled
    caps: int
    valid_us: int  # from the moment when it was made; its age travels beside it
    sealed: bytes  # the exact bytes, to be passed on


def seal_peer_record(
    network: str, signer: Signer, *, seq: int, addresses: Sequence[str], caps: int, valid_us: int
) -> PeerRecord:
    """Sign a record about the signer. Raises: ValueError for addresses that nobody could dial."""
    if len(addresses) > ADDRESSES_MAX or not all(map(is_address, addresses)):
        raise ValueError(f"{list(addresses)} are not at most {ADDRESSES_MAX} addresses host:port")
    minutes = min(max(1, -(-valid_us // MINUTE_US)), MINUTES_MAX)
    body = msgpack.packb([network, seq, list(addresses), caps, minutes])
    return PeerRecord(
        peer=signer.public_key,
        seq=seq,
        addresses=tuple(addresses),
        caps=caps,
        valid_us=minutes * MINUTE_US,
        sealed=seal(DOMAIN, body, signer),
    )


def open_peer_record(sealed: bytes, network: str, verify: Verifier) -> PeerRecord:
    """Check a sealed record of this network.

    Raises: PacketError.
    """
    peer, body = open_sealed(DOMAIN, sealed, verify, BODY_BYTES_MAX)
    match _unpack(body):
        case [str() as home, int() as seq, list() as addresses, int() as caps, int() as minutes]:
            whole = all(type(n) is int for n in (seq, caps, minutes))
            ranges = 0 <= seq <= SEQ_MAX and 0 <= caps < 1 << 32 and 1 <= minutes <= MINUTES_MAX
            dialled = len(addresses) <= ADDRESSES_MAX and all(map(is_address, addresses))
            if whole and ranges and dialled and home == network:
                valid_us = minutes * MINUTE_US
                return PeerRecord(peer, seq, tuple(addresses), caps, valid_us, bytes(sealed))
    raise PacketError(Fault.FIELD, "peer record")


def is_address(text: object) -> bool:
    """Say whether this is `host:port`, with brackets around an IPv6 host."""
    if not isinstance(text, str) or not 0 < len(text.encode()) <= ADDRESS_BYTES_MAX:
        return False
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        return False
    if host.startswith("[") and host.endswith("]"):
        return _ip(host[1:-1]) is not None
    return host != "" and host.isascii() and set(host) <= _HOST


_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def dial_line(network: str, peer: bytes, address: str) -> str:
    """Return the join line by which `peer`, and nobody else, is dialled (spec/link.md, 5)."""
    return f"mfd://{address}/{peer.hex()}?network={quote(network, safe='')}"


def crowd_of(address: str) -> str:
    """Name the part of the world whose addresses one owner can have many of: /24, /48 or a host.

    Empty for private, loopback and link-local addresses, which no stranger can choose.
    """
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    found = _ip(host)
    if found is None:
        return host.lower()
    if not found.is_global:
        return ""
    prefix = 24 if found.version == 4 else 48
    return str(ipaddress.ip_network((found, prefix), strict=False))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _unpack(body: bytes) -> Any:
    try:
        return msgpack.unpackb(
            body,
            max_str_len=ADDRESS_BYTES_MAX,
            max_bin_len=KEY_BYTES,
            max_array_len=ADDRESSES_MAX,
            max_map_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise PacketError(Fault.MSGPACK, "peer record") from error
