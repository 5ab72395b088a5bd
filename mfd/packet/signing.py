"""What is signed, and by whom: values and protocols; the keys themselves live elsewhere.

Rules of this file: no key, no curve. A caller hands in a Signer and a Verifier.
Source: spec/packet.md, section "Signatures".
"""

from __future__ import annotations

from typing import Protocol

from mfd.packet.errors import Fault, PacketError

__all__ = [
    "KEY_BYTES",
    "SIGNATURE_BYTES",
    "Signer",
    "Verifier",
    "open_sealed",
    "seal",
    "signing_input",
]

KEY_BYTES = 32
SIGNATURE_BYTES = 64


class Signer(Protocol):
    """Signs exact bytes in a named domain."""

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that name the signer: its Ed25519 public key, which is its peer id."""
        ...

    def sign(self, domain: str, body: bytes) -> bytes:
        """Return the 64-byte signature over `signing_input(domain, body)`."""
        ...


class Verifier(Protocol):
    """Says whether `signature` over `body` in `domain` was made by `public_key`. Never raises."""

    def __call__(self, public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
        """Return True only for a valid signature."""
        ...


def signing_input(domain: str, body: bytes) -> bytes:
    """Frame a body with its domain, so that a signature of one kind never passes for another.

    | domain, ASCII | 0x00 | body length, u64 little-endian | body |
    """
    return domain.encode("ascii") + b"\x00" + len(body).to_bytes(8, "little") + body


def seal(domain: str, body: bytes, signer: Signer) -> bytes:
    """Make a signed record.

    | public key, 32 | signature, 64 | body |
    """
    return signer.public_key + signer.sign(domain, body) + body


def open_sealed(
    domain: str, record: bytes | bytearray | memoryview, verify: Verifier, limit: int
) -> tuple[bytes, bytes]:
    """Return (public key, body) of a signed record whose body has at most `limit` bytes.

    Raises: PacketError with Fault.LIMIT, TRUNCATED or SIGNATURE; the body is not looked at.
    """
    head = KEY_BYTES + SIGNATURE_BYTES
    if len(record) > head + limit:
        raise PacketError(Fault.LIMIT, f"record {domain} of {len(record)} bytes")
    if len(record) < head:
        raise PacketError(Fault.TRUNCATED, f"record {domain}")
    key, signature = bytes(record[:KEY_BYTES]), bytes(record[KEY_BYTES:head])
    body = bytes(record[head:])
    if not verify(key, domain, body, signature):
        raise PacketError(Fault.SIGNATURE, f"record {domain}")
    return key, body
