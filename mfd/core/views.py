"""The two views of an open network: few active peers, each a link; some passive ones, each a hope.

Rules of this file: tables that remember and answer; a peer is in one view at most, and never we
ourselves. Chance comes from the dice handed in.
Source: spec/membership.md, section "Views"; HyParView (Leitao, Pereira, Rodrigues 2007), own words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mfd.core.config import Config
from mfd.core.context import Dice
from mfd.core.records import crowd_of

__all__ = ["Active", "Passive", "Views", "pick"]

T = TypeVar("T")
CROWD_MAX = 2  # passive peers behind one public /24, /48 or host name


@dataclass(frozen=True, slots=True)
class Active:
    """A neighbour that has said yes."""

    peer: bytes
    link: int
    outbound: bool


@dataclass(slots=True)
class Passive:
    """A peer that could become one."""

    peer: bytes
    addresses: tuple[str, ...]
    born_us: int  # of its newest record: the dead make no new ones
    tries: int = 0  # dials that failed since it was last heard
    retry_us: int = 0
    reason: str = ""
    crowds: frozenset[str] = frozenset()  # where its addresses are, as far as that is public

    def address(self) -> str:
        """The address whose turn it is."""
        return self.addresses[self.tries % len(self.addresses)]


class Views:
    """Active and passive view of one peer."""

    def __init__(self, me: bytes, config: Config, dice: Dice) -> None:
        self._me = me
        self._config = config
        self._dice = dice
        self._active: dict[bytes, Active] = {}
        self._passive: dict[bytes, Passive] = {}

    @property
    def active(self) -> Mapping[bytes, Active]:
        """Neighbours by peer: read only."""
        return self._active

    @property
    def passive(self) -> Mapping[bytes, Passive]:
        """The others by peer: read only."""
        return self._passive

    # active

    def activate(self, peer: bytes, link: int, *, outbound: bool) -> None:
        """A peer is a neighbour from now on."""
        self._passive.pop(peer, None)
        self._active[peer] = Active(peer, link, outbound)

    def deactivate(self, peer: bytes, link: int) -> bool:
        """A neighbour is gone; False if another link to it counts."""
        slot = self._active.get(peer)
        if slot is None or slot.link != link:
            return False
        del self._active[peer]
        return True

    def outbound(self) -> int:
        """How many neighbours were chosen by us."""
        return sum(slot.outbound for slot in self._active.values())

    def missing(self) -> int:
        """How many more neighbours are wanted: six in all, two of them dialled by us."""
        config = self._config
        return max(
            config.active_target - len(self._active), config.outbound_min - self.outbound(), 0
        )

    def victim(self, busy: Callable[[int], bool], keep: bytes = b"") -> Active | None:
        """Choose who has to go for another: no peer chosen by us if these are few, best an idle."""
        scarce = self.outbound() <= self._config.outbound_min
        slots = [
            slot
            for slot in self._active.values()
            if slot.peer != keep and not (scarce and slot.outbound)
        ]
        slots = slots or [slot for slot in self._active.values() if slot.peer != keep]
        idle = [slot for slot in slots if not busy(slot.link)]
        return pick(self._dice, idle or slots)

    # passive

    def hear(self, peer: bytes, addresses: tuple[str, ...], born_us: int) -> None:
        """A peer's record has come: it may be a neighbour one day."""
        if peer == self._me or peer in self._active or not addresses:
            return
        known = self._passive.get(peer)
        if known is not None:
            if born_us > known.born_us:
                crowds = _crowds(addresses)
                self._passive[peer] = Passive(peer, addresses, born_us, crowds=crowds)
            return
        crowds = _crowds(addresses)
        there = Counter(c for p in self._passive.values() for c in p.crowds) if crowds else {}
        if any(there.get(crowd, 0) >= CROWD_MAX for crowd in crowds):
            return
        if len(self._passive) >= self._config.passive_max:
            # those that did not answer first, then the oldest: the dead leave in bounded time
            worst = min(self._passive.values(), key=lambda p: (not p.tries, p.born_us))
            if not worst.tries and worst.born_us > born_us:
                return
            del self._passive[worst.peer]
        self._passive[peer] = Passive(peer, addresses, born_us, crowds=crowds)

    def forget(self, peer: bytes) -> None:
        """A peer is no hope any more."""
        self._passive.pop(peer, None)

    def candidates(self, now_us: int) -> list[Passive]:
        """Peers that may be asked now, in the order in which to ask: hopeful ones first."""
        ready = [p for p in self._passive.values() if p.retry_us <= now_us]
        shuffled = shuffle(self._dice, ready)
        return sorted(shuffled, key=lambda p: p.tries)

    def sample(self, active: int, passive: int, *, without: bytes = b"") -> list[bytes]:
        """Peers whose records are to be passed on."""
        near = shuffle(self._dice, [p for p in self._active if p != without])[:active]
        far = shuffle(self._dice, [p for p in self._passive if p != without])[:passive]
        return near + far


def _crowds(addresses: Sequence[str]) -> frozenset[str]:
    return frozenset(map(crowd_of, addresses)) - {""}


def pick(dice: Dice, values: Sequence[T]) -> T | None:
    """Choose one; None of none."""
    return values[dice.below(len(values))] if values else None


def shuffle(dice: Dice, values: Sequence[T]) -> list[T]:
    """Return the values in a random order (Fisher and Yates)."""
    out = list(values)
    for at in range(len(out) - 1, 0, -1):
        other = dice.below(at + 1)
        out[at], out[other] = out[other], out[at]
    return out
