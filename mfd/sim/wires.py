"""Wires and the links over them: bytes take time, share a rate, and meet trouble on the way.

A link is an ordered stream, as TCP is, so what happens to the datagrams below it shows as it does
above TCP, and never as a missing or doubled frame:

    lost         the frame waits for a retransmission (one round trip where more datagrams follow,
                 else 200 ms, doubling while it is lost again), and all behind it wait too
    duplicated   it takes the wire's time twice
    overtaken    the frame waits for the straggler, and all behind it wait too
    cut          a direction carries nothing; what was sent comes 200 ms after it is mended, in
                 order, to an end that still stands, else it is answered with a reset

Nobody hears of a cut: ends find out by silence. An end that has closed its side says so in order
behind its frames; if that is lost too, the other end is half open until its next frame is reset.

Large worlds may do without heartbeats: with `detect_us` ends are told of silence after a drawn
time, as late as heartbeats would find it.

Rules of this file: it carries and delays; whether a peer is on is the world's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfd.core.effects import Channel
from mfd.core.events import DialFailed, LinkDown, LinkUp, Received
from mfd.sim.chance import Chance, Streams

if TYPE_CHECKING:
    from mfd.sim.host import Host
    from mfd.sim.world import World

__all__ = ["Link", "Weather", "Wire", "Wires"]

DATAGRAM_BYTES = 1_448
HEAD_BYTES = 4  # of a frame on a channel
RETRANSMIT_US = 200_000
RETRANSMISSIONS_MAX = 6
DIAL_US = 5_000_000  # a dial into silence
REFUSED_US = 1_000


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to each datagram; probabilities below 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_us: int = 0  # further time on the way, uniform from 0

    @property
    def fair(self) -> bool:
        """Whether nothing happens at all."""
        return not (self.loss or self.duplicate or self.reorder or self.delay_us)


class Wire:
    """Where a link between two hosts can be. `blocked` is by sender: index into `ends`."""

    __slots__ = ("blocked", "by_hand", "bytes_per_s", "ends", "latency_us", "link", "plugged")

    def __init__(
        self, ends: tuple[str, str], latency_us: int, bytes_per_s: float, *, by_hand: bool
    ) -> None:
        self.ends = ends
        self.latency_us = latency_us
        self.bytes_per_s = bytes_per_s
        self.by_hand = by_hand  # comes up by itself; else somebody must dial
        self.plugged = True
        self.blocked = [0, 0]  # faults that hold up what each end sends
        self.link: Link | None = None  # the newest

    @property
    def cost(self) -> int:
        """Routing metric, unit 10 us."""
        return max(1, self.latency_us // 10)


class Link:
    """One connection over a wire; each end stands or not, as far as that end knows."""

    __slots__ = ("backlog", "free_us", "hosts", "last_us", "number", "up", "wire")

    def __init__(self, number: int, wire: Wire, hosts: tuple[Host, Host]) -> None:
        self.number = number
        self.wire = wire
        self.hosts = hosts
        self.up = [True, True]
        self.free_us = ([0, 0], [0, 0])  # by sender, by channel: when the wire is idle again
        self.last_us = ([0, 0], [0, 0])  # last arrival
        self.backlog: tuple[deque[bytes | None], deque[bytes | None]] = (deque(), deque())

    def side(self, host: Host) -> int:
        """0 for the host at the first end, 1 for the other."""
        return 0 if self.hosts[0] is host else 1


@dataclass(slots=True)
class Wires:
    """All wires of a world."""

    world: World
    streams: Streams
    wires: list[Wire] = field(default_factory=list)
    links: dict[int, Link] = field(default_factory=dict)  # with an end that stands
    weather: Weather = field(default_factory=Weather)
    anywhere: bool = False  # every host can dial every other one
    anywhere_us: tuple[int, int] = (2_000, 32_000)  # over wires that take so long, drawn
    addresses: dict[str, str] = field(default_factory=dict)  # host:port -> host
    detect_us: tuple[int, int] | None = None  # heartbeats abstracted: when silence is found out
    on_frame: Callable[[Link, int, bytes], None] | None = None  # for whoever taps wires
    made: int = 0  # links, ever
    _at: dict[str, list[Wire]] = field(default_factory=dict)
    _links_at: dict[str, dict[int, Link]] = field(default_factory=dict)  # by host, by number
    _jitter: Chance = field(init=False)
    _trouble: Chance = field(init=False)
    _detection: Chance = field(init=False)

    def __post_init__(self) -> None:
        self._jitter = self.streams.of("jitter")
        self._trouble = self.streams.of("weather")
        self._detection = self.streams.of("detection")

    # wires

    def lay(
        self, a: str, b: str, *, latency_us: int, bytes_per_s: float, by_hand: bool = True
    ) -> Wire:
        """Lay a wire."""
        wire = Wire((a, b), latency_us, bytes_per_s, by_hand=by_hand)
        self.wires.append(wire)
        for name in (a, b):
            self._at.setdefault(name, []).append(wire)
        return wire

    def remove(self, wire: Wire) -> None:
        """Take a wire away; a link over it goes silent."""
        wire.plugged = False
        self.block(wire, 0)
        self.block(wire, 1)
        self.wires.remove(wire)
        for name in wire.ends:
            self._at[name].remove(wire)

    def of(self, name: str) -> list[Wire]:
        """Return the wires at a host."""
        return self._at.get(name, [])

    def between(self, a: str, b: str) -> list[Wire]:
        """Return the wires between two hosts."""
        return [wire for wire in self._at.get(a, ()) if b in wire.ends]

    def connect(self, wire: Wire, dialler: int = 0, address: str = "") -> None:
        """Bring a link up over a wire if both hosts are on; `address`: as it was dialled."""
        hosts = self.world.hosts[wire.ends[0]], self.world.hosts[wire.ends[1]]
        if hosts[0].peer is None or hosts[1].peer is None or not wire.plugged:
            return
        if wire.link is not None and all(wire.link.up):
            return  # two peers have one link
        for old in [old for old in self.links_at(hosts[0]) if hosts[1] in old.hosts]:
            for side in (0, 1):  # half open, or over a wire that is no more
                self._drop(old, side, "another link to the same peer took its place")
        self.made += 1
        link = wire.link = self.links[self.made] = Link(self.made, wire, hosts)
        for host in hosts:
            self._links_at.setdefault(host.name, {})[link.number] = link
        for side in (dialler, 1 - dialler):
            me, other = hosts[side], hosts[1 - side]
            outbound = side == dialler
            dialled = address if outbound and address else other.name
            event = LinkUp(link.number, other.key.public_key, dialled, outbound, wire.cost)
            self.world.happen(me, event)

    def dial(self, host: Host, address: str) -> None:
        """Carry out a Dial effect; addresses are names of hosts, or lines with what they tell."""
        name = self.whom(address)
        other = self.world.hosts.get(name)
        wires = self.between(host.name, name) if other is not None else []
        if not wires and self.anywhere and other is not None and other is not host:
            low_us, high_us = self.anywhere_us
            latency_us = low_us + self._jitter.below(high_us - low_us)
            wires = [
                self.lay(host.name, name, latency_us=latency_us, bytes_per_s=12.5e6, by_hand=False)
            ]
        if not wires:
            self.world.happen(host, DialFailed(address, "no wire leads there"), REFUSED_US)
            return
        wire = wires[0]
        there = wire.ends.index(name)
        if any(wire.blocked) or not wire.plugged:
            self.world.happen(host, DialFailed(address, "no answer"), DIAL_US)
            return
        trip_us = 3 * wire.latency_us
        self.world.at(
            self.world.now_us + trip_us, self._dialled, (host, host.life, wire, 1 - there, address)
        )

    def _dialled(self, host: Host, life: int, wire: Wire, side: int, address: str) -> None:
        if host.life != life:
            return
        if any(wire.blocked) or not wire.plugged:
            self.world.happen(host, DialFailed(address, "no answer"), DIAL_US)
        elif self.world.hosts[wire.ends[1 - side]].peer is None:
            self.world.happen(host, DialFailed(address, "connection refused"), REFUSED_US)
        elif wire.link is not None and all(wire.link.up):
            # it stands already: the other end has dialled at the same time
            standing = self.world.hosts[wire.ends[1 - side]].key.public_key
            failed = DialFailed(address, "there is already a link", standing)
            self.world.happen(host, failed, REFUSED_US)
        else:
            self.connect(wire, side, address)

    def whom(self, address: str) -> str:
        """Name the host that is dialled; a line also says which peer must be there."""
        return self.addresses.get(address.removeprefix("mfd://").partition("/")[0], address)

    # endings

    def hang_up(self, wire: Wire, reason: str) -> None:
        """End a link at both ends at once."""
        if wire.link is not None:
            for side in (0, 1):
                self._drop(wire.link, side, reason)

    def close(self, host: Host, number: int) -> None:
        """Carry out a Close effect: this end now, the other when it hears of it."""
        link = self.links.get(number)
        if link is None or not link.up[link.side(host)]:
            return
        side = link.side(host)
        self._drop(link, side, "closed")
        if link.up[1 - side]:
            self._schedule(link, side, 0, None, 0)

    def power_off(self, host: Host, *, silent: bool) -> None:
        """Take all ends at a host away; the others hear resets, or nothing."""
        for link in self.links_at(host):
            side = link.side(host)
            link.up[side] = False
            self._forget(link)
            if link.up[1 - side] and not silent:
                when_us = self.world.now_us + link.wire.latency_us
                self.world.at(when_us, self._reset, (link, 1 - side, "reset"))
            elif link.up[1 - side] and self.detect_us is not None:
                self.world.at(self._found_out_us(), self._drop, (link, 1 - side, "silent"))

    def _reset(self, link: Link, side: int, reason: str) -> None:
        """A reset reaches an end, unless its way is cut."""
        if not link.wire.blocked[1 - side]:
            self._drop(link, side, reason)

    def _drop(self, link: Link, side: int, reason: str) -> None:
        if link.up[side]:
            link.up[side] = False
            self._forget(link)
            host = link.hosts[side]
            if host.peer is not None:
                self.world.happen(host, LinkDown(link.number, reason))

    def _forget(self, link: Link) -> None:
        if not any(link.up):
            self.links.pop(link.number, None)
            for host in link.hosts:
                self._links_at[host.name].pop(link.number, None)

    def links_at(self, host: Host) -> list[Link]:
        """Return the links with an end at a host of which some end stands, oldest first."""
        return list(self._links_at.get(host.name, {}).values())

    # carrying

    def send(self, host: Host, number: int, channel: Channel, frame: bytes) -> None:
        """Put one frame on a link."""
        link = self.links.get(number)
        if link is None:
            return
        side = link.side(host)
        if link.up[side]:
            if self.on_frame is not None:
                self.on_frame(link, side, frame)
            self._schedule(link, side, 0 if channel == "control" else 1, frame, len(frame))

    def _schedule(
        self, link: Link, side: int, channel: int, frame: bytes | None, size: int
    ) -> None:
        world, wire = self.world, link.wire
        free, last = link.free_us[side], link.last_us[side]
        start = world.now_us if world.now_us > free[channel] else free[channel]
        sent_us = start + int(size * 1e6 / wire.bytes_per_s)
        jitter = self._jitter.below(wire.latency_us // 10 + 1)
        arrival = sent_us + wire.latency_us + jitter
        if not self.weather.fair:
            doubled_us, late_us = self._storm(size, wire)
            sent_us += doubled_us
            arrival += doubled_us + late_us
        free[channel] = sent_us
        # a later frame never arrives before an earlier one
        arrival = last[channel] = max(arrival, last[channel])
        world.at(arrival, self._arrive, (link, side, frame))

    def _storm(self, size: int, wire: Wire) -> tuple[int, int]:
        """Return (time of duplicates on the wire, further delay) of a frame."""
        weather, chance = self.weather, self._trouble
        count = 1 + size // DATAGRAM_BYTES
        doubled_us = late_us = 0
        if weather.delay_us:
            late_us = chance.below(weather.delay_us + 1)
        if weather.duplicate:
            doubles = sum(chance.hit(weather.duplicate) for _ in range(count))
            doubled_us = int(doubles * DATAGRAM_BYTES * 1e6 / wire.bytes_per_s)
        if weather.reorder and chance.hit(1 - (1 - weather.reorder) ** count):
            late_us += chance.below(2 * wire.latency_us + 1)
        if weather.loss and chance.hit(1 - (1 - weather.loss) ** count):
            quick = count > 3  # later datagrams tell at once that one is missing
            wait_us = 2 * wire.latency_us if quick else max(RETRANSMIT_US, 3 * wire.latency_us)
            late_us += wait_us
            for _ in range(RETRANSMISSIONS_MAX - 1):
                if not chance.hit(weather.loss):
                    break
                wait_us = 2 * max(wait_us, RETRANSMIT_US)
                late_us += wait_us
        return doubled_us, late_us

    def _arrive(self, link: Link, side: int, frame: bytes | None) -> None:
        if link.wire.blocked[side] or link.backlog[side]:
            link.backlog[side].append(frame)
            return
        there = 1 - side
        host = link.hosts[there]
        if not link.up[there]:
            if host.peer is not None and link.up[side]:
                reason = "reset: the other end has closed it"
                self.world.at(
                    self.world.now_us + link.wire.latency_us, self._reset, (link, side, reason)
                )
        elif frame is None:
            self._drop(link, there, "closed by the other side")
        else:
            self.world.deliver(host, host.life, Received(link.number, frame))

    # cuts

    def block(self, wire: Wire, side: int) -> None:
        """Let nothing through that one end sends; cuts on top of each other count."""
        wire.blocked[side] += 1
        if self.detect_us is not None and wire.link is not None:
            self.world.at(self._found_out_us(), self._silent, (wire.link, side))

    def _found_out_us(self) -> int:
        assert self.detect_us is not None
        return self.world.now_us + self._detection.between(*self.detect_us)

    def _silent(self, link: Link, side: int) -> None:
        """Both ends of a link that is still cut give it up, as heartbeats would make them."""
        if link.wire.blocked[side]:
            for end in (0, 1):
                self._drop(link, end, "silent")

    def unblock(self, wire: Wire, side: int) -> None:
        """End one cut; what was sent meanwhile is sent again."""
        wire.blocked[side] -= 1
        if not wire.blocked[side] and wire.link is not None and wire.link.backlog[side]:
            when_us = self.world.now_us + RETRANSMIT_US + wire.latency_us
            self.world.at(when_us, self._flush, (wire.link, side))

    def _flush(self, link: Link, side: int) -> None:
        if link.wire.blocked[side]:
            return
        waiting = list(link.backlog[side])
        link.backlog[side].clear()
        for frame in waiting:
            self._arrive(link, side, frame)
