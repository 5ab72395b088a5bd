"""Addresses to be dialled: which are tried now, why, and when again.

Rules of this file: one dial an address at a time, a bounded number in all; an address that does not
answer is left alone for twice as long each time.
Source: spec/membership.md, section "Dialling".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

from mfd.core.context import Context
from mfd.core.effects import Dial

__all__ = ["Dialled", "Dials", "Kept", "Purpose", "backoff_us"]


class Purpose(Enum):
    """What a link is dialled for: it decides the first frame."""

    KEEP = "the owner wants this link"
    JOIN = "to become part of the network"
    ASK = "to have one more neighbour"
    RETURN = "to have a lost neighbour again"
    FAR = "for circuits to a far peer"


@dataclass(frozen=True, slots=True)
class Dialled:
    """A dial under way."""

    purpose: Purpose
    peer: bytes  # empty: whoever answers


class Dials:
    """Dials under way, by address as dialled."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._under_way: dict[str, Dialled] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def dial(self, address: str, purpose: Purpose, peer: bytes = b"") -> bool:
        """Try to make a link; False where one is under way or too many are."""
        if address in self._under_way or any(
            peer and dialled.peer == peer for dialled in self._under_way.values()
        ):
            return False
        full = len(self._under_way) >= self._ctx.config.dials_max
        if full and purpose is not Purpose.KEEP:
            return False
        self._under_way[address] = Dialled(purpose, peer)
        self._ctx.emit(Dial(address))
        return True

    def done(self, address: str) -> Dialled | None:
        """The dial has led to a link, or to nothing."""
        return self._under_way.pop(address, None)


def backoff_us(ctx: Context, tries: int, most_us: int) -> int:
    """How long to leave an address alone after `tries` failures, with a quarter of jitter."""
    delay_us = min(ctx.config.redial_min_us << min(tries - 1, 30), most_us)
    return delay_us + ctx.dice.below(delay_us // 4 + 1)


@dataclass(slots=True)
class _Address:
    link: int | None = None
    dialling: bool = False
    tries: int = 0
    reason: str = ""


class Kept:
    """Addresses that the owner wants linked for ever."""

    def __init__(self, ctx: Context, dials: Dials) -> None:
        self._ctx = ctx
        self._dials = dials
        self._addresses: dict[str, _Address] = {}

    def __contains__(self, address: str) -> bool:
        return address in self._addresses

    def keep(self, address: str) -> None:
        """Keep a link to this address from now on."""
        if address not in self._addresses:
            self._addresses[address] = _Address()
            self._dial(address)

    def _dial(self, address: str) -> None:
        entry = self._addresses[address]
        if entry.link is None and not entry.dialling:
            entry.dialling = self._dials.dial(address, Purpose.KEEP)

    def failed(self, address: str, reason: str, *, quiet: bool = False) -> None:
        """Try again later, each time after twice as long; `quiet`: the first time is no failure."""
        entry = self._addresses.get(address)
        if entry is None:
            return
        entry.dialling = False
        if not quiet or entry.tries:
            if not entry.reason:
                self._ctx.report("unreachable", address=address, reason=reason)
            entry.reason = reason
        self._later(address, entry)

    def _later(self, address: str, entry: _Address) -> None:
        entry.tries += 1
        delay_us = backoff_us(self._ctx, entry.tries, self._ctx.config.redial_max_us)
        self._ctx.after(delay_us, partial(self._dial, address))

    def up(self, address: str, link: int) -> None:
        """The address answers."""
        entry = self._addresses.get(address)
        if entry is not None:
            entry.link, entry.dialling, entry.tries, entry.reason = link, False, 0, ""

    def down(self, link: int) -> None:
        """Dial again where the link was ours to keep."""
        for address, entry in self._addresses.items():
            if entry.link == link:
                entry.link = None
                self._later(address, entry)

    def unreachable(self) -> Mapping[str, str]:
        """Addresses that do not answer, with the last reason."""
        return {a: e.reason for a, e in self._addresses.items() if e.link is None and e.reason}
