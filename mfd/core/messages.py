"""Messages between custodians, carried in thin circuits and each signed by its sender.

    stream:   | length u32 LE | message | length | message | ...
    message:  | type u8 | sender 32 | signature 64 | MessagePack array |

Rules of this file: any bytes give a message or a PacketError. A message is signed with the
network's name and its type, so it means the same whatever path it took; objects never travel here.
Source: spec/custody.md, section "Messages".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack

from mfd.core.certificates import CERTIFICATE_BYTES_MAX
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import LAYERS_MAX
from mfd.packet.objects import object_digest
from mfd.packet.signing import Signer, Verifier

__all__ = ["MESSAGE_BYTES_MAX", "Kind", "Message", "Splitter", "decode_message", "encode_message"]

DOMAIN = "mfd.custody.v1"
HEAD_BYTES = 1 + 32 + 64
MESSAGE_BYTES_MAX = 192 << 10  # a plan, two manifests, certificates and room


class Kind(IntEnum):
    """What a message is; the fields of its body stand beside it."""

    OFFER = 1  # walker, epoch, hop, genesis, plan, manifest, signature, certificates, bytes
    ACCEPT = 2  # ref, nonce, [digest lacked ...]
    REFUSE = 3  # ref, code, retry_us, reason
    STORED = 4  # ref, nonce, manifest digest
    GRANT = 5  # ref, nonce, certificate
    OWNED = 6  # ref, nonce, certificate digest
    RELEASE = 7  # walker, certificate of the owner that asks, its predecessor
    RELEASED = 8  # walker, certificate digest
    CANCEL = 9  # ref
    PROGRESS = 10  # walker, n, seq, percent, [epoch counter, epoch issuer, hop]
    PROGRESS_ACK = 11  # walker, n
    STALE = 12  # walker, certificates
    ERRAND = 13  # errand, walker, genesis, plan, manifest, signature, task
    RESULT = 14  # errand, claims, manifest | empty, signature | empty
    FAILED = 15  # errand, reason
    NOTICE = 16  # walker, kind, fields
    RECLAIM = 17  # walker, certificate digest: is it still with you?


_FIELDS: dict[Kind, tuple[type[Any], ...]] = {
    Kind.OFFER: (bytes, list, int, bytes, bytes, bytes, bytes, list, int),
    Kind.ACCEPT: (bytes, bytes, list),
    Kind.REFUSE: (bytes, int, int, str),
    Kind.STORED: (bytes, bytes, bytes),
    Kind.GRANT: (bytes, bytes, bytes),
    Kind.OWNED: (bytes, bytes, bytes),
    Kind.RELEASE: (bytes, list),
    Kind.RELEASED: (bytes, bytes),
    Kind.CANCEL: (bytes,),
    Kind.PROGRESS: (bytes, int, int, int, list),
    Kind.PROGRESS_ACK: (bytes, int),
    Kind.STALE: (bytes, list),
    Kind.ERRAND: (bytes, bytes, bytes, bytes, bytes, bytes, list),
    Kind.RESULT: (bytes, dict, bytes, bytes),
    Kind.FAILED: (bytes, str),
    Kind.NOTICE: (bytes, str, dict),
    Kind.RECLAIM: (bytes, bytes),
}


# kind -> at most so many byte strings of at most such a size in its list
_ITEMS: dict[Kind, tuple[int, int]] = {
    Kind.OFFER: (2, CERTIFICATE_BYTES_MAX + 96),
    Kind.ACCEPT: (LAYERS_MAX, 32),
    Kind.RELEASE: (2, CERTIFICATE_BYTES_MAX + 96),
    Kind.PROGRESS: (0, 0),
    Kind.STALE: (2, CERTIFICATE_BYTES_MAX + 96),
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message whose signature was right."""

    kind: Kind
    sender: bytes
    body: tuple[Any, ...]
    ref: bytes  # digest of the exact message, by which answers name it
    signature: bytes


def encode_message(kind: Kind, body: tuple[Any, ...], *, network: str, signer: Signer) -> bytes:
    """Sign and pack one message."""
    assert len(body) == len(_FIELDS[kind]), kind
    packed = msgpack.packb(body)
    signature = signer.sign(DOMAIN, _signed(kind, network, packed))
    message = bytes((kind,)) + signer.public_key + signature + bytes(packed)
    if len(message) > MESSAGE_BYTES_MAX:
        raise ValueError(f"{kind.name} of {len(message)} bytes is above {MESSAGE_BYTES_MAX}")
    return message


def decode_message(message: bytes, *, network: str, verify: Verifier) -> Message:
    """Check and read one message.

    Raises: PacketError.
    """
    if len(message) <= HEAD_BYTES:
        raise PacketError(Fault.TRUNCATED, "custody message")
    try:
        kind = Kind(message[0])
    except ValueError as exc:
        raise PacketError(Fault.FORMAT, f"custody message type {message[0]}") from exc
    sender, signature, packed = message[1:33], message[33:97], message[97:]
    if not verify(sender, DOMAIN, _signed(kind, network, packed), signature):
        raise PacketError(Fault.SIGNATURE, kind.name)
    try:
        body = msgpack.unpackb(packed, strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as exc:
        raise PacketError(Fault.MSGPACK, kind.name) from exc
    types = _FIELDS[kind]
    if not isinstance(body, list) or len(body) != len(types):
        raise PacketError(Fault.FIELD, kind.name)
    if not all(type(value) is wanted for value, wanted in zip(body, types, strict=True)):
        raise PacketError(Fault.FIELD, kind.name)
    for value in body:
        if isinstance(value, list) and kind in _ITEMS:
            _check_items(kind, value)
    return Message(kind, sender, tuple(body), object_digest(message), signature)


def _check_items(kind: Kind, items: list[Any]) -> None:
    """Check a list inside a body: a position, or records or digests of bounded number and size."""
    match items:
        case [int() as counter, bytes() as issuer] if kind is Kind.OFFER:
            fits = 0 <= counter < 1 << 32 and len(issuer) == 32
        case [int() as counter, bytes() as issuer, int() as hop] if kind is Kind.PROGRESS:
            fits = 0 <= counter < 1 << 32 and len(issuer) == 32 and hop >= 0
        case _:
            count, size = _ITEMS[kind]
            fits = len(items) <= count and all(
                isinstance(item, bytes) and len(item) <= size for item in items
            )
    if not fits:
        raise PacketError(Fault.FIELD, f"list in {kind.name}")


def _signed(kind: Kind, network: str, packed: bytes) -> bytes:
    name = network.encode()
    return bytes((kind,)) + len(name).to_bytes(2, "little") + name + packed


class Splitter:
    """Cuts a stream into length-prefixed messages; memory stays below one message's limit."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, payload: memoryview) -> list[bytes]:
        """Return the messages that are complete now.

        Raises: PacketError(LIMIT) for a length above the limit, before memory is taken.
        """
        self._held += payload
        out: list[bytes] = []
        while len(self._held) >= 4:
            size = int.from_bytes(self._held[:4], "little")
            if size > MESSAGE_BYTES_MAX:
                raise PacketError(Fault.LIMIT, f"custody message of {size} bytes")
            if len(self._held) < 4 + size:
                break
            out.append(bytes(self._held[4 : 4 + size]))
            del self._held[: 4 + size]
        return out
