"""Messages between custodians, carried in thin circuits and each signed by its sender.

    stream:   | length u32 LE | message | length | message | ...
    message:  | type u8 | sender 32 | signature 64 | MessagePack array |

Rules of this file: any bytes give a message or a PacketError. A message is signed with the
network's name and its type, so it means the same whatever path it took; objects never travel here.
Source: spec/custody.md, section "Messages".
"""

from __future__ import annotations

from collections.abc import Callable
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
BASES_MAX = 4  # named for one object
MESSAGE_BYTES_MAX = 192 << 10  # a plan, two manifests, certificates and room


class Kind(IntEnum):
    """What a message is; the fields of its body stand beside it."""

    OFFER = 1  # walker, epoch, hop, genesis, plan, manifest, signature, certificates, bytes
    ACCEPT = 2  # ref, nonce, [digest lacked ...], [[base ...] for each]; the last left out if empty
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


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_id(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def _is_nonce(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 16


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_epoch(value: object) -> bool:
    match value:
        case [int() as counter, issuer]:
            return _is_whole(counter) and counter < 1 << 32 and _is_id(issuer)
    return False


def _is_position(value: object) -> bool:
    return (
        isinstance(value, list) and _is_epoch(value[:2]) and len(value) == 3 and _is_whole(value[2])
    )


def _is_digests(value: object) -> bool:
    return isinstance(value, list) and len(value) <= LAYERS_MAX and all(map(_is_id, value))


def _is_bases(value: object) -> bool:
    if not isinstance(value, list) or len(value) > LAYERS_MAX:
        return False
    return all(_is_digests(bases) and len(bases) <= BASES_MAX for bases in value)


def _is_chain(value: object) -> bool:
    """At most two certificates, newest first."""
    return (
        isinstance(value, list)
        and len(value) <= 2
        and all(isinstance(v, bytes) and len(v) <= CERTIFICATE_BYTES_MAX + 96 for v in value)
    )


Check = Callable[[object], bool]
_FIELDS: dict[Kind, tuple[Check, ...]] = {
    Kind.OFFER: (
        *(_is_id, _is_epoch, _is_whole, _is_bytes, _is_bytes, _is_bytes, _is_bytes),
        *(_is_chain, _is_whole),
    ),
    Kind.ACCEPT: (_is_id, _is_nonce, _is_digests, _is_bases),
    Kind.REFUSE: (_is_id, _is_whole, _is_whole, _is_text),
    Kind.STORED: (_is_id, _is_nonce, _is_id),
    Kind.GRANT: (_is_id, _is_nonce, _is_bytes),
    Kind.OWNED: (_is_id, _is_nonce, _is_id),
    Kind.RELEASE: (_is_id, _is_chain),
    Kind.RELEASED: (_is_id, _is_id),
    Kind.CANCEL: (_is_id,),
    Kind.PROGRESS: (_is_id, _is_whole, _is_whole, _is_whole, _is_position),
    Kind.PROGRESS_ACK: (_is_id, _is_whole),
    Kind.STALE: (_is_id, _is_chain),
    Kind.ERRAND: (_is_nonce, _is_id, *(_is_bytes,) * 4, _is_list),
    Kind.RESULT: (_is_nonce, _is_map, _is_bytes, _is_bytes),
    Kind.FAILED: (_is_nonce, _is_text),
    Kind.NOTICE: (_is_id, _is_text, _is_map),
    Kind.RECLAIM: (_is_id, _is_id),
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
    if kind is Kind.ACCEPT and not body[-1]:
        body = body[:-1]
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
    if len(message) > MESSAGE_BYTES_MAX:
        raise PacketError(Fault.LIMIT, f"custody message of {len(message)} bytes")
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
    checks = _FIELDS[kind]
    if kind is Kind.ACCEPT and isinstance(body, list) and len(body) == len(checks) - 1:
        body.append([])
    if not isinstance(body, list) or len(body) != len(checks):
        raise PacketError(Fault.FIELD, kind.name)
    if not all(check(value) for check, value in zip(checks, body, strict=True)):
        raise PacketError(Fault.FIELD, kind.name)
    return Message(kind, sender, tuple(body), object_digest(message), signature)


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
