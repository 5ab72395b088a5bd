"""Keys for tests: a keyed hash that stands in for Ed25519, and Ed25519 itself."""

from __future__ import annotations

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mfd.packet import signing_input


class HashSigner:
    """Anyone could forge it, but a changed byte shows."""

    def __init__(self, name: str) -> None:
        self.public_key = blake3(name.encode()).digest()

    def sign(self, domain: str, body: bytes) -> bytes:
        return blake3(signing_input(domain, body), key=self.public_key).digest(length=64)


def verify_hash(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
    made = blake3(signing_input(domain, body), key=public_key).digest(length=64)
    return signature == made


def verify_ed25519(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, signing_input(domain, body))
    except (InvalidSignature, ValueError):
        return False
    return True
