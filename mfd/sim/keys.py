"""A stand-in for Ed25519: keyed hashes, fast and checkable by everyone in the same process.

WARNING: no security at all. Reason: the simulator checks millions of signatures, and what it tests
is what peers do with right and wrong ones. The verifier refuses every wrong byte, as the real one
does.
"""

from __future__ import annotations

from blake3 import blake3

from mfd.packet.signing import signing_input

__all__ = ["SimKey", "sim_verify"]


class SimKey:
    """Signs by hashing with a key that is its own name."""

    def __init__(self, seed: bytes) -> None:
        self._key = blake3(b"mfd.sim.key" + seed).digest()

    @property
    def public_key(self) -> bytes:
        """The peer id, 32 bytes."""
        return self._key

    def sign(self, domain: str, body: bytes) -> bytes:
        """Return 64 bytes that only this key's name gives."""
        return _tag(self._key, domain, body)


def sim_verify(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
    """Whether `signature` is what `public_key` signs."""
    return len(public_key) == 32 and signature == _tag(public_key, domain, body)


def _tag(key: bytes, domain: str, body: bytes) -> bytes:
    return blake3(signing_input(domain, body), key=key).digest(64)
