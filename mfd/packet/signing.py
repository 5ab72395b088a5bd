"""What is signed, and by whom: values and protocols; the keys themselves live elsewhere.

Rules of this file: no key, no curve. A caller hands in a Signer and a Verifier.
Source: spec/packet.md, section "Signatures".
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["KEY_BYTES", "SIGNATURE_BYTES", "Signer", "Verifier", "signing_input"]

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
