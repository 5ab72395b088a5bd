"""Neighbours: which links stand, which addresses are to be dialled again, who has gone silent.

Rules of this file: failure is judged per link, from silence alone; a closed socket needs no
judging.
Source: spec/link.md, section "Liveness".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mfd.core.context import Context
from mfd.core.effects import Close, Dial
from mfd.core.events import LinkUp
from mfd.core.frames import Ping, Pong, encode_frame

__all__ = ["Membership", "Neighbour"]


@dataclass(slots=True)
class Neighbour:
    """The peer at the other end of a link."""

    up: LinkUp
    heard_us: int
    pings: int = 0


@dataclass(slots=True)
class _Address:
    """An address to be kept linked."""

    link: int | None = None
    dialling: bool = False
    delay_us: int = 0
    failures: int = 0


class Membership:
    """Links of one peer."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.neighbours: dict[int, Neighbour] = {}
        self._addresses: dict[str, _Address] = {}

    # addresses

    def join(self, address: str) -> None:
        """Keep a link to this address from now on."""
        if address not in self._addresses:
            self._addresses[address] = _Address(delay_us=self._ctx.config.redial_min_us)
            self._dial(address)

    def _dial(self, address: str) -> None:
        entry = self._addresses[address]
        if entry.link is None and not entry.dialling:
            entry.dialling = True
            self._ctx.emit(Dial(address))

    def dial_failed(self, address: str, reason: str) -> None:
        """Try again later, each time after twice as long."""
        entry = self._addresses.get(address)
        if entry is None:
            return
        entry.dialling = False
        entry.failures += 1
        if entry.failures == 1:
            self._ctx.report("unreachable", address=address, reason=reason)
        self._later(address, entry)

    def _later(self, address: str, entry: _Address) -> None:
        jitter = self._ctx.dice.below(entry.delay_us // 4 + 1)
        self._ctx.after(entry.delay_us + jitter, partial(self._dial, address))
        entry.delay_us = min(2 * entry.delay_us, self._ctx.config.redial_max_us)

    # links

    def link_up(self, up: LinkUp) -> None:
        """Count a link in."""
        self.neighbours[up.link] = Neighbour(up, self._ctx.now_us)
        entry = self._addresses.get(up.address) if up.outbound else None
        if entry is not None:
            entry.link, entry.dialling, entry.failures = up.link, False, 0
            entry.delay_us = self._ctx.config.redial_min_us
        self._ctx.report("linked", peer=up.peer.hex(), address=up.address)
        self._ctx.after(self._ctx.config.heartbeat_us, partial(self._beat, up.link))

    def link_down(self, link: int, reason: str) -> None:
        """Count a link out, and dial again where the address is ours to keep."""
        neighbour = self.neighbours.pop(link, None)
        if neighbour is None:
            return
        self._ctx.report("unlinked", peer=neighbour.up.peer.hex(), reason=reason)
        for address, entry in self._addresses.items():
            if entry.link == link:
                entry.link = None
                self._later(address, entry)

    def heard(self, link: int) -> None:
        """Any frame proves that the neighbour lives."""
        self.neighbours[link].heard_us = self._ctx.now_us

    def on_ping(self, link: int, frame: Ping) -> None:
        """Answer at once."""
        self._ctx.send(link, encode_frame(Pong(frame.echo)))

    def _beat(self, link: int) -> None:
        """Ping when idle; give up after too long a silence."""
        neighbour = self.neighbours.get(link)
        if neighbour is None:
            return
        config = self._ctx.config
        silent_us = self._ctx.now_us - neighbour.heard_us
        if silent_us >= config.down_us:
            self._ctx.emit(Close(link, f"silent for {silent_us / 1e6:.0f} s"))
            return
        if silent_us >= config.heartbeat_us:
            neighbour.pings += 1
            self._ctx.send(link, encode_frame(Ping(neighbour.pings)))
        self._ctx.after(config.heartbeat_us, partial(self._beat, link))
