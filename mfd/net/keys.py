"""Who this peer is: one Ed25519 key pair, kept in a file that only its owner can read.

Rules of this file: the secret never leaves it, not in a repr and not in an error.
Source: spec/packet.md, section "Signatures"; spec/link.md.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mfd.packet.signing import KEY_BYTES, SIGNATURE_BYTES, signing_input

__all__ = ["KeyFileError", "KeyPair", "parse_peer_id", "short", "verify"]

_HEADER = "mfd-key-1"


class KeyFileError(ValueError):
    """The key file cannot be used; the sentence says why and what to do."""


class KeyPair:
    """An Ed25519 key pair; its public half is the peer id. A `mfd.packet.signing.Signer`."""

    __slots__ = ("_private", "_public_key")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._public_key = private.public_key().public_bytes_raw()

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        """Make the pair that belongs to 32 secret bytes. Raises: ValueError for another length."""
        if len(seed) != KEY_BYTES:
            raise ValueError(f"a key seed has {KEY_BYTES} bytes, not {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load_or_create(cls, path: Path) -> KeyPair:
        """Read the key file, or make a new key and write it with mode 0600.

        Raises: KeyFileError for a file open to others, without a key, or that cannot be made.
        """
        try:
            if not path.exists():
                cls.create(path, Ed25519PrivateKey.generate().private_bytes_raw())
            if path.stat().st_mode & 0o077:
                raise KeyFileError(f"key file {path} is open to others: run `chmod 600 {path}`")
            text = path.read_text("ascii", errors="replace")
        except OSError as exc:
            raise KeyFileError(f"key file {path} cannot be used: {exc.strerror}") from exc
        return cls.from_seed(_parse_key(text, path))

    @classmethod
    def create(cls, path: Path, seed: bytes) -> KeyPair:
        """Write a key beside its place and link it there: whole, and never over another.

        Raises: OSError; ValueError for a seed that is not 32 bytes.
        """
        made = cls.from_seed(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{_HEADER} {seed.hex()}\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first: its key counts
                os.link(draft, path)
        finally:
            draft.unlink()
        return made

    @property
    def public_key(self) -> bytes:
        """The peer id, 32 bytes."""
        return self._public_key

    def sign(self, domain: str, body: bytes) -> bytes:
        """Return the 64-byte signature over `signing_input(domain, body)`."""
        return self._private.sign(signing_input(domain, body))


def _parse_key(text: str, path: Path) -> bytes:
    match text.split():
        case [header, digits] if header == _HEADER and len(digits) == 2 * KEY_BYTES:
            try:
                return bytes.fromhex(digits)
            except ValueError:
                pass
    raise KeyFileError(
        f"key file {path} does not hold a key: restore it from a copy, "
        "or move it away to start as a new peer"
    )


@lru_cache(maxsize=1024)  # parsing costs a third of verifying; neighbours and trainers come back
def _public(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)


def verify(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
    """Say whether the signature is valid; a `mfd.packet.signing.Verifier`. Never raises."""
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        _public(bytes(public_key)).verify(bytes(signature), signing_input(domain, bytes(body)))
    except (InvalidSignature, ValueError):
        return False
    return True


def parse_peer_id(text: str) -> bytes:
    """Read a peer id from its 64 hexadecimal digits. Raises: ValueError with one sentence."""
    try:
        peer = bytes.fromhex(text)
    except ValueError:
        peer = b""
    if len(peer) != KEY_BYTES:
        raise ValueError(f"{text!r} is not a peer id: 64 hexadecimal digits are needed")
    return peer


def short(peer: bytes) -> str:
    """The first eight digits of an id: enough for people, never for programs."""
    return peer[:4].hex()
