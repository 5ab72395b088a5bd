"""Faults made to happen: by their rates and appointments while it lasts, then healed.

Rules of this file: every kind of fault draws from a stream of its own; what one fault has broken,
only its own end or `heal` mends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mfd.core.events import StopRequested
from mfd.sim.chance import Chance, Streams
from mfd.sim.faults import Appointment, Faults
from mfd.sim.host import Host
from mfd.sim.wires import Weather, Wire
from mfd.sim.world import World

__all__ = ["Trouble"]

MINUTE_US = 60e6
GOODBYE_US = 20_000
MOVE_US = 2_000_000
SLOWNESS = 10


class Trouble:
    """Makes the faults of one world happen."""

    def __init__(self, world: World, faults: Faults, streams: Streams) -> None:
        self.world = world
        self.faults = faults
        self.counts: dict[str, int] = {}  # what happened how often
        self.killed: set[str] = set()  # never to come back
        self.liars: set[str] = set()
        self.bereaved: list[Callable[[Host], None]] = []  # told before a disk is emptied
        self.buried: list[Callable[[Host], None]] = []  # told when a host goes for good
        self._streams = streams
        self._active = False
        self._blocks: list[tuple[Wire, int]] = []
        self._fates = {
            "crash": self._crash,
            "kill": self._kill,
            "amnesia": self._amnesia,
            "leave": self._leave,
            "pause": self._pause,
            "slow": self._slow,
            "move": self._move,
            "full": self._full,
            "rot": self._rot,
        }

        if faults.drift:  # clocks run wrong from the first: none jumps
            chance = streams.of("drift")
            for host in world.hosts.values():
                host.clock_rate = 1.0 + faults.drift * (2 * chance.unit() - 1)

    def begin(self) -> None:
        """Let trouble start now."""
        faults, world = self.faults, self.world
        self._active = True
        world.wires.weather = Weather(
            faults.loss, faults.duplicate, faults.reorder, faults.delay_us
        )
        for kind in self._fates:
            if getattr(faults, kind):
                self._next_fate(kind, self._streams.of(kind))
        for kind in ("cut", "half", "stall"):
            if getattr(faults, kind):
                self._next_block(kind, self._streams.of(kind))
        for number, appointment in enumerate(faults.appointments):
            chance = self._streams.of(appointment.kind, str(number))
            start = partial(self._appointed, appointment, chance)
            world.at(world.now_us + appointment.start_us, start)

    def _count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    # peers

    def _next_fate(self, kind: str, chance: Chance) -> None:
        mean_us = MINUTE_US / (getattr(self.faults, kind) * len(self.world.hosts))
        when_us = self.world.now_us + chance.wait_us(mean_us)
        self.world.at(when_us, self._fate, (kind, chance))

    def _fate(self, kind: str, chance: Chance) -> None:
        if not self._active:
            return
        host = chance.pick(list(self.world.hosts.values()))
        if host.peer is not None:
            self._count(kind)
            self._fates[kind](host, chance)
        self._next_fate(kind, chance)

    def _off(self, host: Host, chance: Chance) -> None:
        """Off: any part of what was asked of the disk may have become durable."""
        host.disk_full = False
        writes = chance.below(host.disk.syncing + 1)
        self.world.kill(host, silent=chance.hit(0.3), writes=writes)

    def _back(self, host: Host, delay_us: int) -> None:
        self.world.at(self.world.now_us + delay_us, self._on, (host, host.life))

    def _on(self, host: Host, life: int) -> None:
        if self._active and host.peer is None and host.life == life:
            self.world.start(host)

    def _crash(self, host: Host, chance: Chance) -> None:
        self._off(host, chance)
        self._back(host, chance.between(50_000, 8_000_000))

    def _kill(self, host: Host, chance: Chance) -> None:
        if len(self.killed) >= len(self.world.hosts) // 3:
            return  # a network that is gone teaches nothing
        self._off(host, chance)
        self.killed.add(host.name)
        for tell in self.buried:
            tell(host)

    def _amnesia(self, host: Host, chance: Chance) -> None:
        self._off(host, chance)
        for tell in self.bereaved:
            tell(host)
        self.world.wipe(host)
        self._back(host, chance.between(50_000, 8_000_000))

    def _leave(self, host: Host, chance: Chance) -> None:
        self.world.happen(host, StopRequested())
        off = partial(self._left, host, host.life, chance.between(500_000, 15_000_000))
        self.world.at(self.world.now_us + GOODBYE_US, off)

    def _left(self, host: Host, life: int, away_us: int) -> None:
        if host.life == life and host.peer is not None:
            self.world.kill(host, synced=True)
            self._back(host, away_us)

    def _pause(self, host: Host, chance: Chance) -> None:
        self.world.pause(host)
        end_us = self.world.now_us + chance.between(200_000, 20_000_000)
        self.world.at(end_us, self._resume, (host, host.life))

    def _resume(self, host: Host, life: int) -> None:
        if host.life == life and host.paused:
            self.world.resume(host)

    def _slow(self, host: Host, chance: Chance) -> None:
        host.slow = SLOWNESS
        end_us = self.world.now_us + chance.between(1_000_000, 30_000_000)
        self.world.at(end_us, self._quick, (host,))

    @staticmethod
    def _quick(host: Host) -> None:
        host.slow = 1

    def _full(self, host: Host, chance: Chance) -> None:
        host.disk_full = True

    def _rot(self, host: Host, chance: Chance) -> None:
        if host.disk.objects:
            host.disk.rotten.add(chance.pick(list(host.disk.objects)))

    def _move(self, host: Host, chance: Chance) -> None:
        """All links of a peer change within 2 s: the old ones go silent, new ones are dialled."""
        old = list(self.world.wires.of(host.name))
        others = [other for other in self.world.hosts if other != host.name]
        for wire, name in zip(old, chance.sample(others, len(old)), strict=False):
            when_us = self.world.now_us + chance.below(MOVE_US)
            self.world.at(when_us, self._moved, (host, wire, name))

    def _moved(self, host: Host, old: Wire, other: str) -> None:
        if self._active and old in self.world.wires.wires:
            self.world.wires.remove(old)
            if not self.world.wires.between(host.name, other):
                self.world.wire(
                    host.name, other, latency_us=old.latency_us, bytes_per_s=old.bytes_per_s
                )

    # links

    def _next_block(self, kind: str, chance: Chance) -> None:
        count = max(1, len(self.world.wires.wires))
        mean_us = MINUTE_US / (getattr(self.faults, kind) * count)
        when_us = self.world.now_us + chance.wait_us(mean_us)
        self.world.at(when_us, self._block_one, (kind, chance))

    def _block_one(self, kind: str, chance: Chance) -> None:
        if not self._active:
            return
        if self.world.wires.wires:
            self._count(kind)
            wire = chance.pick(self.world.wires.wires)
            longest_us = 5_000_000 if kind == "stall" else 25_000_000
            length_us = chance.between(100_000, longest_us)
            for side in [chance.below(2)] if kind == "half" else [0, 1]:
                self._block(wire, side, length_us)
        self._next_block(kind, chance)

    def _block(self, wire: Wire, side: int, length_us: int) -> None:
        self.world.wires.block(wire, side)
        self._blocks.append((wire, side))
        self.world.at(self.world.now_us + length_us, self._unblock, (wire, side))

    def _unblock(self, wire: Wire, side: int) -> None:
        if (wire, side) in self._blocks:
            self._blocks.remove((wire, side))
            self.world.wires.unblock(wire, side)

    # appointments

    def _appointed(self, appointment: Appointment, chance: Chance) -> None:
        if not self._active:
            return
        self._count(appointment.kind)
        length_us = appointment.end_us - appointment.start_us
        hosts = list(self.world.hosts.values())
        some = chance.sample(hosts, max(1, round(len(hosts) * appointment.share)))
        match appointment.kind:
            case "partition":
                names = {host.name for host in some}
                for wire in list(self.world.wires.wires):
                    if len(names & set(wire.ends)) == 1:
                        self._block(wire, 0, length_us)
                        self._block(wire, 1, length_us)
            case "swizzle":
                self._swizzle(appointment.share, length_us, chance)
            case "storm":
                for host in some:
                    when_us = self.world.now_us + chance.below(max(1, length_us // 4))
                    self.world.at(when_us, self._storms, (host, length_us, chance))
            case "power":
                for host in some:
                    if host.peer is not None:
                        self._off(host, chance)
                        self._back(host, length_us)

    def _storms(self, host: Host, length_us: int, chance: Chance) -> None:
        if self._active and host.peer is not None:
            self.world.happen(host, StopRequested())
            off = partial(self._left, host, host.life, chance.between(length_us // 2, length_us))
            self.world.at(self.world.now_us + GOODBYE_US, off)

    def _swizzle(self, share: float, length_us: int, chance: Chance) -> None:
        wires = self.world.wires.wires
        for wire in chance.sample(wires, max(1, round(len(wires) * share))):
            start_us = chance.below(max(1, length_us // 2))
            rest_us = chance.between(1, max(1, length_us // 2))
            self.world.at(self.world.now_us + start_us, self._stop_wire, (wire, rest_us))

    def _stop_wire(self, wire: Wire, length_us: int) -> None:
        if self._active:
            self._block(wire, 0, length_us)
            self._block(wire, 1, length_us)

    # the end

    def heal(self, *, part: bool = False) -> set[str]:
        """End all trouble, heal a core and leave the rest broken; return the core's names.

        The core is connected and holds every peer that was not killed and does not lie; with
        `part`, two thirds of these at most.
        """
        self._active = False
        world, chance = self.world, self._streams.of("heal")
        world.wires.weather = Weather()
        for wire, side in self._blocks:
            world.wires.unblock(wire, side)
        self._blocks.clear()
        able = [n for n in world.hosts if n not in self.killed and n not in self.liars]
        core = self._connected(able, chance)
        if part and len(core) > 3:
            core = self._connected(chance.sample(sorted(core), len(core) * 2 // 3), chance)
        for host in world.hosts.values():
            host.slow = 1
            if host.peer is not None and (host.name not in core or host.disk_full):
                world.kill(host)  # whose disk has failed owns nothing new until it is restarted
            host.disk_full = False
            if host.name in core:
                if host.peer is None:
                    world.start(host)
                elif host.paused:
                    world.resume(host)
                # media are mended too: a peer cannot yet fetch a decayed object from a shadow
                host.disk.rotten.clear()
        return core

    def _connected(self, names: list[str], chance: Chance) -> set[str]:
        """The largest part of `names` that wires connect; all where anybody can dial anybody."""
        if self.world.wires.anywhere:
            return set(names)
        left, largest = set(names), set[str]()
        while left:
            part = [min(left)]
            left.discard(part[0])
            for name in part:  # grows while it is walked through
                for wire in self.world.wires.of(name):
                    for other in wire.ends:
                        if other in left and wire.plugged:
                            left.discard(other)
                            part.append(other)
            if len(part) > len(largest):
                largest = set(part)
        return largest
