"""Peers to turn to outside the passive view: contacts, lost neighbours, good ones of earlier days.

A network that was split is one again because each side goes on dialling the neighbours it lost.

Rules of this file: contacts are the owner's word and are never given up; lost neighbours are, after
a day; remembered ones are dialled only while this peer is alone.
Source: spec/membership.md, section "Finding each other again".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mfd.core.context import Context
from mfd.core.dials import Dials, Purpose, backoff_us
from mfd.core.effects import Remember
from mfd.core.records import dial_line

__all__ = ["Reunion"]

RETURNS_AT_ONCE = 2  # lost neighbours dialled in one round
RECALLS_AT_ONCE = 3  # remembered ones
SAVE_US = 10_000_000  # a change of the remembered peers waits so long for others


@dataclass(slots=True)
class _Hope:
    """Somebody to be dialled."""

    addresses: tuple[str, ...]
    peer: bytes = b""  # empty: not known yet
    tries: int = 0
    retry_us: int = 0
    rest_us: int = 0  # of a contact that has answered: not before, unless we are alone
    until_us: int = 0
    reason: str = ""


class Reunion:
    """Whom one peer dials beside its passive view."""

    def __init__(self, ctx: Context, dials: Dials, linked: Callable[[bytes], bool]) -> None:
        self._ctx = ctx
        self._dials = dials
        self._linked = linked
        self._contacts: dict[str, _Hope] = {}  # by address as the owner wrote it
        self._lost: dict[bytes, _Hope] = {}
        self._good: dict[bytes, _Hope] = {}  # best last
        self._saved: tuple[tuple[bytes, tuple[str, ...]], ...] = ()
        self._saving = False

    @property
    def lost(self) -> Mapping[bytes, _Hope]:
        """Neighbours that failed and are dialled again: read only."""
        return self._lost

    @property
    def remembered(self) -> tuple[tuple[bytes, tuple[str, ...]], ...]:
        """Good peers, the best last."""
        return tuple((peer, hope.addresses) for peer, hope in self._good.items())

    def unreachable(self) -> Mapping[str, str]:
        """Contacts that do not answer, with the last reason."""
        return {address: hope.reason for address, hope in self._contacts.items() if hope.reason}

    # who is to be dialled

    def contact(self, address: str) -> None:
        """The owner names an address at which the network can be joined."""
        if address not in self._contacts:
            self._contacts[address] = _Hope((address,))

    def recall(self, peers: Iterable[tuple[bytes, tuple[str, ...]]]) -> None:
        """Take what was remembered before the start."""
        for peer, addresses in peers:
            if peer != self._ctx.me and addresses:
                self._good.setdefault(peer, _Hope(addresses, peer))
        self._saved = self.remembered

    def lose(self, peer: bytes, addresses: tuple[str, ...]) -> None:
        """A neighbour has failed: it, or the way to it, may come back."""
        if not addresses:
            return
        config = self._ctx.config
        until_us = self._ctx.now_us + config.lost_us
        retry_us = self._ctx.now_us + backoff_us(self._ctx, 1, config.dial_max_us)
        self._lost[peer] = _Hope(addresses, peer, retry_us=retry_us, until_us=until_us)
        while len(self._lost) > config.remembered_max:
            del self._lost[next(iter(self._lost))]

    def found(self, peer: bytes, address: str) -> None:
        """A link to a peer stands."""
        contact = self._contacts.get(address)
        if contact is not None:
            contact.peer, contact.tries, contact.reason = peer, 0, ""
            config = self._ctx.config
            contact.retry_us = self._ctx.now_us + backoff_us(self._ctx, 1, config.dial_max_us)
            # after the longest wait we look whether it has forgotten everybody
            contact.rest_us = self._ctx.now_us + config.dial_max_us
            contact.rest_us += self._ctx.dice.below(config.dial_max_us // 4 + 1)

    def regained(self, peer: bytes) -> None:
        """It is a neighbour again."""
        self._lost.pop(peer, None)

    def good(self, peer: bytes, addresses: tuple[str, ...]) -> None:
        """A neighbour has proven itself: remember it."""
        if not addresses:
            return
        self._good.pop(peer, None)
        self._good[peer] = _Hope(addresses, peer)
        while len(self._good) > self._ctx.config.remembered_max:
            del self._good[next(iter(self._good))]
        if not self._saving:
            self._saving = True
            self._ctx.after(SAVE_US, self.save)

    def save(self) -> None:
        """Have the remembered peers kept for the next start, if they have changed."""
        self._saving = False
        if self.remembered != self._saved:
            self._saved = self.remembered
            self._ctx.emit(Remember(self._saved))

    # dialling

    def round(self, *, alone: bool) -> None:
        """Dial whose time has come."""
        purpose = Purpose.JOIN if alone else Purpose.ASK
        rested = [h for h in self._contacts.values() if alone or h.rest_us <= self._ctx.now_us]
        self._dial_some(rested, purpose, len(rested))
        self._lost = {p: h for p, h in self._lost.items() if h.until_us > self._ctx.now_us}
        self._dial_some(list(self._lost.values()), Purpose.RETURN, RETURNS_AT_ONCE)
        if alone:
            newest_first = list(self._good.values())[::-1]
            self._dial_some(newest_first, Purpose.JOIN, RECALLS_AT_ONCE)

    def _dial_some(self, hopes: Iterable[_Hope], purpose: Purpose, most: int) -> None:
        for hope in hopes:
            if most <= 0:
                return
            if hope.retry_us > self._ctx.now_us or self._linked(hope.peer):
                continue
            address = hope.addresses[hope.tries % len(hope.addresses)]
            if hope.until_us or address not in self._contacts:
                address = dial_line(self._ctx.config.network, hope.peer, address)
            most -= self._dials.dial(address, purpose, hope.peer)

    def failed(self, address: str, peer: bytes, reason: str, *, quiet: bool = False) -> None:
        """A dial came to nothing: next time later; `quiet`: the first time is no failure."""
        contact = self._contacts.get(address)
        hopes = [h for h in (contact, self._lost.get(peer), self._good.get(peer)) if h is not None]
        for hope in hopes:
            if not quiet or hope.tries:
                if hope is contact and not hope.reason:
                    self._ctx.report("unreachable", address=address, reason=reason)
                hope.reason = reason
            hope.tries += 1
            most_us = self._ctx.config.dial_max_us
            hope.retry_us = self._ctx.now_us + backoff_us(self._ctx, hope.tries, most_us)
