"""A Bloom filter over peers, salted so that each filter errs about other peers.

Rules of this file: pure functions of bytes; an empty filter holds nobody.
Source: spec/routing.md, section "SEEK".
"""

from __future__ import annotations

from collections.abc import Collection

from blake3 import blake3

__all__ = ["FILTER_BYTES_MAX", "make_filter", "matches"]

FILTER_BYTES_MAX = 256
PROBES = 5
BYTES_PER_ENTRY = 2  # 16 bits and 5 probes: one stranger in 700 is taken for a member


def make_filter(salt: bytes, marks: Collection[bytes]) -> bytes:
    """Return a filter that matches all `marks`: 2 bytes each, at most 256."""
    size = min(BYTES_PER_ENTRY * len(marks), FILTER_BYTES_MAX)
    bits = bytearray(size)
    for mark in marks:
        for place in _places(salt, mark, size):
            bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def matches(bits: bytes, salt: bytes, mark: bytes) -> bool:
    """Say whether a filter holds a mark; wrong for few that it does not hold."""
    return bool(bits) and all(bits[p >> 3] >> (p & 7) & 1 for p in _places(salt, mark, len(bits)))


def _places(salt: bytes, mark: bytes, size: int) -> list[int]:
    digest = blake3(salt + mark).digest(4 * PROBES)
    words = (int.from_bytes(digest[at : at + 4], "little") for at in range(0, 4 * PROBES, 4))
    return [word % (8 * size) for word in words]
