"""Tokens: an issuer's word that a peer is a member, which travels in what the peer announces.

    token       [issuer 32, signature 64, serial u32]
    signed      MessagePack [network, member 32, serial]            domain mfd.token.v1
    revocation  | issuer 32 | signature 64 | member 32 | serial u32 |
    signed      the same                                            domain mfd.revocation.v1

Rules of this file: values and their checks. Who is an issuer, each owner says for itself.
Source: spec/routing.md, section "Tokens".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgpack

from mfd.packet.signing import KEY_BYTES, SIGNATURE_BYTES, Signer, Verifier

__all__ = [
    "TOKEN_BYTES",
    "Token",
    "Void",
    "is_token",
    "issue",
    "open_revocation",
    "parse_token",
    "revoke",
]

DOMAIN = "mfd.token.v1"
REVOCATION_DOMAIN = "mfd.revocation.v1"
SERIAL_BYTES = 4
SERIAL_MAX = (1 << 32) - 1
TOKEN_BYTES = KEY_BYTES + SIGNATURE_BYTES + SERIAL_BYTES


Void = Mapping[tuple[bytes, bytes], int]
"""(issuer, member) -> the highest serial of a token that was revoked."""


class Token(NamedTuple):
    """One issuer's word about one member, as it stands in records."""

    issuer: bytes
    signature: bytes
    serial: int  # which token of this member; a higher one is a newer one

    def __str__(self) -> str:
        return (self.issuer + self.signature + self.serial.to_bytes(SERIAL_BYTES, "little")).hex()

    def admits(
        self,
        member: bytes,
        network: str,
        issuers: Collection[bytes],
        verify: Verifier,
        void: Void,
    ) -> bool:
        """Say whether one of these issuers calls `member` a member of `network`."""
        if self.issuer not in issuers or self.serial <= void.get((self.issuer, member), -1):
            return False
        return verify(self.issuer, DOMAIN, _body(network, member, self.serial), self.signature)


def issue(network: str, member: bytes, serial: int, signer: Signer) -> Token:
    """Sign a token. Raises: ValueError for a serial that has no room."""
    if not 0 <= serial <= SERIAL_MAX:
        raise ValueError(f"serial {serial} is not within 0 and {SERIAL_MAX}")
    signature = signer.sign(DOMAIN, _body(network, member, serial))
    return Token(signer.public_key, signature, serial)


def parse_token(text: str) -> Token:
    """Read a token as `str` writes it. Raises: ValueError with one sentence."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != TOKEN_BYTES:
        raise ValueError(f"{text[:16]!r}... is not a token: {2 * TOKEN_BYTES} hexadecimal digits")
    issuer, rest = raw[:KEY_BYTES], raw[KEY_BYTES:]
    serial = int.from_bytes(rest[SIGNATURE_BYTES:], "little")
    return Token(issuer, rest[:SIGNATURE_BYTES], serial)


def revoke(network: str, member: bytes, serial: int, signer: Signer) -> bytes:
    """Sign that a member's tokens up to a serial are void. Raises: ValueError as `issue`."""
    if not 0 <= serial <= SERIAL_MAX:
        raise ValueError(f"serial {serial} is not within 0 and {SERIAL_MAX}")
    signature = signer.sign(REVOCATION_DOMAIN, _body(network, member, serial))
    return signer.public_key + signature + member + serial.to_bytes(SERIAL_BYTES, "little")


def open_revocation(raw: bytes, network: str, verify: Verifier) -> tuple[bytes, bytes, int] | None:
    """Return (issuer, member, serial); None for anything else."""
    if len(raw) != TOKEN_BYTES + KEY_BYTES:
        return None
    issuer, signature = raw[:KEY_BYTES], raw[KEY_BYTES : KEY_BYTES + SIGNATURE_BYTES]
    member = raw[KEY_BYTES + SIGNATURE_BYTES : -SERIAL_BYTES]
    serial = int.from_bytes(raw[-SERIAL_BYTES:], "little")
    if not verify(issuer, REVOCATION_DOMAIN, _body(network, member, serial), signature):
        return None
    return issuer, member, serial


def is_token(value: object) -> bool:
    """Say whether this has the form of a token in a record."""
    match value:
        case [bytes() as issuer, bytes() as signature, int() as serial]:
            sized = len(issuer) == KEY_BYTES and len(signature) == SIGNATURE_BYTES
            return sized and type(serial) is int and 0 <= serial <= SERIAL_MAX
    return False


def _body(network: str, member: bytes, serial: int) -> bytes:
    return bytes(msgpack.packb([network, member, serial]))
