"""Signatures in the invented world: a stand-in by default, Ed25519 where they are to be real.

WARNING: the stand-in, keyed hashes that everyone in the process can check, gives no security at
all. Reason: the simulator checks millions of signatures, and what it tests is what peers do with
right and wrong ones. Its verifier refuses every wrong byte, as the real one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mfd.packet.signing import Signer, Verifier, signing_input

if TYPE_CHECKING:
    from mfd.sim.host import Host

__all__ = ["RealKey", "Signatures", "SimKey", "real_verify", "sim_verify"]

KNOWN_MAX = 1 << 16


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


class RealKey:
    """An Ed25519 key from a seed."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(
            blake3(b"mfd.sim.real" + seed).digest()
        )
        self._public = self._private.public_key().public_bytes_raw()

    @property
    def public_key(self) -> bytes:
        """The peer id, 32 bytes."""
        return self._public

    def sign(self, domain: str, body: bytes) -> bytes:
        """Sign for real."""
        return self._private.sign(signing_input(domain, body))


def real_verify(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature is right."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, signing_input(domain, body))
    except (InvalidSignature, ValueError):
        return False
    return True


class Signatures:
    """What keys a world uses, and who checks how much."""

    def __init__(self, *, real: bool = False) -> None:
        self.real = real
        self.computed = 0  # real ones: see `verifier`
        self._known: dict[tuple[bytes, str, bytes, bytes], bool] = {}

    def key(self, seed: bytes) -> Signer:
        """Make the key of a peer."""
        return RealKey(seed) if self.real else SimKey(seed)

    @property
    def verify(self) -> Verifier:
        """Check without counting."""
        return real_verify if self.real else sim_verify

    def verifier(self, host: Host) -> Verifier:
        """Return a host's verifier, which counts.

        Real signatures are computed once for all peers of the world: checking the same bytes
        again on another machine gives the same answer.
        """
        return self._real(host) if self.real else self._stand_in(host)

    def _stand_in(self, host: Host) -> Verifier:
        def verify(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
            host.signatures += 1
            return sim_verify(public_key, domain, body, signature)

        return verify

    def _real(self, host: Host) -> Verifier:
        known = self._known

        def verify(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
            host.signatures += 1
            key = (public_key, domain, bytes(body), bytes(signature))
            right = known.get(key)
            if right is None:
                if len(known) >= KNOWN_MAX:
                    known.clear()
                self.computed += 1
                right = known[key] = real_verify(*key)
            return right

        return verify
