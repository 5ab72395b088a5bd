"""The cryptography of sealed circuits: X25519, HKDF-SHA-256, AES-256-GCM.

Rules of this file: keys live in memory only, one pair a circuit, one key a direction; a nonce is
the number of a record and is never used twice.
Source: spec/transfer.md, section "Sealing"; RFC 7748, RFC 5869, NIST SP 800-38D.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mfd.packet.objects import Buffer

__all__ = ["Sealing"]

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
INFO = b"mfd.circuit.v1"


class _Box:
    def __init__(self, out: bytes, into: bytes) -> None:
        self._out, self._into = AESGCM(out), AESGCM(into)
        self._sealed = self._opened = 0

    def seal(self, plain: Buffer, head: bytes = b"") -> bytearray:
        self._sealed += 1
        nonce = self._sealed.to_bytes(NONCE_BYTES, "little")
        out = bytearray(len(head) + len(plain) + TAG_BYTES)
        out[: len(head)] = head
        self._out.encrypt_into(nonce, plain, None, memoryview(out)[len(head) :])
        return out

    def open(self, box: Buffer) -> bytes:
        self._opened += 1
        try:
            return self._into.decrypt(self._opened.to_bytes(NONCE_BYTES, "little"), box, None)
        except InvalidTag as exc:
            raise ValueError("a record was changed, left out or repeated") from exc


class _Ephemeral:
    def __init__(self, seed: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def agree(self, other: bytes, transcript: bytes, *, dialler: bool) -> _Box:
        shared = self._private.exchange(X25519PublicKey.from_public_bytes(other))
        keys = HKDF(SHA256(), 2 * KEY_BYTES, salt=transcript, info=INFO).derive(shared)
        out, into = keys[:KEY_BYTES], keys[KEY_BYTES:]
        return _Box(out, into) if dialler else _Box(into, out)


class Sealing:
    """A `mfd.core.seals.Sealer`."""

    def fresh(self, seed: bytes) -> _Ephemeral:
        """Make a key pair from 32 secret bytes."""
        return _Ephemeral(seed)
