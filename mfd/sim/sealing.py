"""A stand-in for sealing: keyed hashes where X25519 and AES-GCM would be.

WARNING: no secrecy at all. Reason: the simulator opens many circuits, and what it tests is what
peers do with right and wrong records. Every changed, missing or repeated record is refused.
"""

from __future__ import annotations

from blake3 import blake3

from mfd.packet.objects import Buffer

__all__ = ["SimSealing"]

TAG_BYTES = 16


class _Box:
    def __init__(self, out: bytes, into: bytes) -> None:
        self._out, self._into = out, into
        self._sealed = self._opened = 0

    def seal(self, plain: Buffer, head: bytes = b"") -> bytes:
        self._sealed += 1
        return head + bytes(plain) + _tag(self._out, self._sealed, plain)

    def open(self, box: Buffer) -> bytes:
        self._opened += 1
        plain, tag = bytes(box[:-TAG_BYTES]), box[-TAG_BYTES:]
        if tag != _tag(self._into, self._opened, plain):
            raise ValueError("a record was changed, left out or repeated")
        return plain


def _tag(key: bytes, number: int, plain: Buffer) -> bytes:
    return blake3(number.to_bytes(8, "little"), key=key).update(plain).digest(TAG_BYTES)


class _Ephemeral:
    def __init__(self, seed: bytes) -> None:
        self.public = blake3(b"mfd.sim.sealing" + seed).digest()

    def agree(self, other: bytes, transcript: bytes, *, dialler: bool) -> _Box:
        if other == bytes(32):
            raise ValueError("not a key")
        pair = b"".join(sorted((self.public, other)))
        keys = blake3(pair + transcript).digest(64)
        out, into = keys[:32], keys[32:]
        return _Box(out, into) if dialler else _Box(into, out)


class SimSealing:
    """A `mfd.core.seals.Sealer`."""

    def fresh(self, seed: bytes) -> _Ephemeral:
        """Make a pair that any 32 bytes name."""
        return _Ephemeral(seed)
