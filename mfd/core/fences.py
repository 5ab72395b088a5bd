"""Epochs that everybody was told of, kept for walkers that come here later.

Rules of this file: it remembers what was broadcast and believes it no further than an owner would.
Source: spec/custody.md, C-45.
"""

from __future__ import annotations

from collections.abc import Sequence

from mfd.core.certificates import Position, follows, open_certificate
from mfd.packet.signing import Verifier

__all__ = ["Fences"]

WALKERS_MAX = 1_024  # heard of last


class Fences:
    """The newest certificates of walkers that a STALE to everybody has shown."""

    def __init__(self, verify: Verifier) -> None:
        self._verify = verify
        self._told: dict[bytes, tuple[bytes, ...]] = {}

    def __len__(self) -> int:
        return len(self._told)

    def learn(self, chain: Sequence[bytes]) -> None:
        """Keep the newer of what is known and told. Raises: PacketError for no certificates."""
        if not chain:
            return
        first = open_certificate(chain[0], self._verify)
        if first.walker in self._told:
            known = self._told.pop(first.walker)
            if first.position < open_certificate(known[0], self._verify).position:
                chain = known
        self._told[first.walker] = tuple(chain)
        if len(self._told) > WALKERS_MAX:
            del self._told[next(iter(self._told))]

    def against(
        self, walker: bytes, position: Position, chain: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        """Return the certificates that end the branch of an offer, which brings `chain`; or ()."""
        told = self._told.get(walker, ())
        if not told or not chain:
            return ()
        first, *second = [open_certificate(record, self._verify) for record in told]
        if first.position <= position or first.epoch == position[:2]:
            return ()  # within its epoch an owner is only followed by whom it granted to
        linked = follows(first, open_certificate(chain[0], self._verify), chain[0])
        if linked or any(follows(first, older, told[1]) for older in second):
            return told
        return ()
