"""Chance from one seed, in streams split by purpose.

Rules of this file: a stream depends on the seed and on its purpose alone, so drawing more from one
(another fault, say) does not shift what another one gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TypeVar

from blake3 import blake3

__all__ = ["Chance", "Streams"]

BLOCK_BYTES = 4096
UNIT = 1.0 / (1 << 64)

T = TypeVar("T")


class Chance:
    """One stream: BLAKE3 in counter mode, read 64 bits at a time."""

    __slots__ = ("_at", "_block", "_count", "_key")

    def __init__(self, seed: bytes) -> None:
        self._key = blake3(b"mfd.sim.chance.v1" + seed).digest()
        self._count = 0
        self._block: memoryview = memoryview(b"").cast("Q")
        self._at = 0

    def word(self) -> int:
        """Return 64 fresh bits."""
        if self._at >= len(self._block):
            self._count += 1
            block = blake3(self._count.to_bytes(8, "little"), key=self._key).digest(BLOCK_BYTES)
            self._block, self._at = memoryview(block).cast("Q"), 0
        self._at += 1
        return int(self._block[self._at - 1])

    def below(self, bound: int) -> int:
        """Return a number in 0..bound-1, near enough to uniform."""
        return self.word() % bound

    def between(self, low: int, high: int) -> int:
        """Return a number in low..high."""
        return low + self.word() % (high - low + 1)

    def unit(self) -> float:
        """Return a number in [0, 1)."""
        return self.word() * UNIT

    def hit(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return probability > 0.0 and self.word() * UNIT < probability

    def wait_us(self, mean_us: float) -> int:
        """Return an exponentially distributed time, at least 1."""
        return max(1, round(-log(1.0 - self.unit()) * mean_us))

    def pick(self, items: Sequence[T]) -> T:
        """Return one of `items`."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` different items, in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(min(count, len(left)))]

    def bytes(self, size: int) -> bytes:
        """Return `size` fresh bytes."""
        words = (self.word().to_bytes(8, "little") for _ in range(-(-size // 8)))
        return b"".join(words)[:size]


class Streams:
    """All streams of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def of(self, *purpose: str) -> Chance:
        """Return the stream of a purpose, from its beginning."""
        return Chance(f"{self._seed}/{'/'.join(purpose)}".encode())
