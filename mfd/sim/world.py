"""The invented world: peers, links, disks and learners on one virtual clock, from one seed.

Rules of this file: no clock, no chance but the seed's, no I/O. The bytes of every frame are real.
The same seed gives the same trace, to the bit, in every process.
Source: ARCHITECTURE.md, "Bird's eye".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from struct import Struct
from typing import Any

from blake3 import blake3

from mfd.core.config import Config
from mfd.core.effects import Effect
from mfd.core.events import (
    Addressed,
    CommandFailed,
    Event,
    Fetched,
    Held,
    Joined,
    Kept,
    Received,
    Remembered,
    Restored,
    Stored,
    Ticked,
)
from mfd.core.peer import Peer
from mfd.packet.signing import Signer
from mfd.sim.chance import Streams
from mfd.sim.disk import Disk
from mfd.sim.host import PERFORM, Host, Learner
from mfd.sim.keys import Signatures
from mfd.sim.sealing import SimSealing
from mfd.sim.violation import Violation
from mfd.sim.wires import Wire, Wires

__all__ = ["Host", "Learner", "Observer", "World"]

HANDLE_US = 100  # what a machine that is slow needs for one event, times its slowness
NOTE = Struct("<QIBQ")
NOTES_BYTES = 1 << 16
TICKED = Ticked()

Observer = Callable[["Host", Event, Sequence[Effect]], None]
"""Told of every event and of the effects that answered it, once they are under way."""

Log = Callable[[int, Host, Event, bytes], None]
"""Told (time, host, event, what is hashed) of every event before it is handled."""


class World:
    """Everything, and the order in which it happens."""

    def __init__(
        self,
        seed: int,
        config: Config | None = None,
        *,
        signatures: Signatures | None = None,
        sealed: bool = True,
    ) -> None:
        self.config = config or Config()
        self.now_us = 0
        self.hosts: dict[str, Host] = {}
        self.events = 0
        self.observers: list[Observer] = []
        self.log: Log | None = None
        self.streams = Streams(seed)
        self.wires = Wires(self, self.streams)
        self.signatures = signatures or Signatures()
        self._seed = seed
        self._sealed = sealed  # circuits: their ends prove who they are
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._trace = blake3()
        self._notes = bytearray()

    # building

    def add(
        self,
        name: str,
        *,
        learner: Learner | None = None,
        config: Config | None = None,
        key: Signer | None = None,
        on: bool = True,
    ) -> Host:
        """Add a machine and, where `on`, start its peer."""
        key = key or self.signatures.key(name.encode())
        host = self.hosts[name] = Host(self, name, config or self.config, learner, key)
        if on:
            self.start(host)
        return host

    def link(self, a: str, b: str, *, latency_us: int = 1_000, bytes_per_s: float = 125e6) -> None:
        """Join two hosts with a wire; it comes up as soon as both peers run."""
        self.wires.connect(self.wires.lay(a, b, latency_us=latency_us, bytes_per_s=bytes_per_s))

    def wire(self, a: str, b: str, *, latency_us: int, bytes_per_s: float) -> Wire:
        """Lay a wire that `a` dials over, now and for ever."""
        wire = self.wires.lay(a, b, latency_us=latency_us, bytes_per_s=bytes_per_s, by_hand=False)
        self.join(self.hosts[a], b)
        return wire

    def join(self, host: Host, address: str) -> None:
        """Let a host's owner want a link to an address."""
        host.joins.append(address)
        if host.peer is not None:
            self.happen(host, Joined(address))

    def address(self, host: Host) -> str:
        """Give a host an address at which all others can dial it, now and after every restart."""
        line = f"10.0.{host.index >> 8}.{host.index & 255}:7000"
        if not host.addresses:
            host.addresses = (line,)
            self.wires.anywhere = True  # which says nothing against wires that are laid already
            self.wires.addresses[line] = host.name
            if host.peer is not None:
                self.happen(host, Addressed(host.addresses))
        return line

    # machines on and off

    def start(self, host: Host) -> None:
        """Switch a host on; its disk holds what was synced."""
        host.life += 1
        boot = host.disk.start()
        seed = f"{self._seed}/{host.name}/{boot}/{host.life}".encode()
        verify = self.signatures.verifier(host)
        sealer = SimSealing() if self._sealed else None
        peer = Peer(signer=host.key, verify=verify, config=host.config, seed=seed, sealer=sealer)
        host.peer = peer if host.wrap is None else host.wrap(host, peer)
        host.armed_us = None
        sizes = {digest: len(data) for digest, data in host.disk.objects.items()}
        self.happen(host, Restored(boot, dict(host.disk.records), sizes))
        if host.addresses:
            self.happen(host, Addressed(host.addresses))
        if host.disk.remembered:
            self.happen(host, Remembered(host.disk.remembered))
        for name, samples in host.holdings.items():
            self.happen(host, Held(name, samples))
        for address in host.joins:
            self.happen(host, Joined(address))
        for wire in self.wires.of(host.name):
            if wire.by_hand:
                self.wires.connect(wire)

    def kill(
        self, host: Host, *, synced: bool = False, silent: bool = False, writes: int = 0
    ) -> None:
        """Switch a host off at once; its neighbours see closed sockets, or nothing if `silent`.

        `synced`: what it had asked the disk for is durable, though it was never told so; `writes`:
        so many of the oldest of these are.
        """
        while host.disk.syncing and (synced or writes > 0):
            host.disk.finish()
            writes -= 1
        host.peer = None
        host.life += 1
        host.paused, host.slow, host.busy_us = False, 1, 0
        host.waiting.clear()
        self.wires.power_off(host, silent=silent)

    def wipe(self, host: Host) -> None:
        """Lose the whole disk of a host that is off."""
        host.disk = Disk(host.disk.encoding)

    def pause(self, host: Host) -> None:
        """Stop a host as SIGSTOP does: its sockets stand, its clock goes on."""
        host.paused = True

    def resume(self, host: Host) -> None:
        """Let a paused host go on; what came meanwhile comes now, in order."""
        host.paused = False
        waiting, host.waiting = list(host.waiting), type(host.waiting)()
        life = host.life
        for event in waiting:
            self.deliver(host, life, event)

    # cables

    def unplug(self, a: str, b: str) -> None:
        """Cut the wire between two hosts until `plug`; both ends see it at once."""
        for wire in self.wires.between(a, b):
            wire.plugged = False
            self.wires.hang_up(wire, "the wire was cut")

    def plug(self, a: str, b: str) -> None:
        """Mend the wire between two hosts."""
        for wire in self.wires.between(a, b):
            wire.plugged = True
            if wire.by_hand:
                self.wires.connect(wire)

    # time

    def happen(self, host: Host, event: Event, delay_us: int = 0) -> None:
        """Let an event reach a host's peer after a delay."""
        self._count += 1
        entry = (self.now_us + delay_us, self._count, self.deliver, (host, host.life, event))
        heappush(self._heap, entry)

    def at(self, when_us: int, action: Callable[..., None], args: tuple[Any, ...] = ()) -> None:
        """Do something at a time."""
        self._count += 1
        heappush(self._heap, (when_us, self._count, action, args))

    def run(
        self,
        *,
        until: Callable[[], bool] | None = None,
        seconds: float = 3_600,
        events: int | None = None,
    ) -> bool:
        """Let time pass until a condition holds; False if it never did within `seconds`.

        `events`: stop after so many, too.
        """
        end_us = self.now_us + int(seconds * 1e6)
        limit = None if events is None else self.events + events
        heap = self._heap
        while until is None or not until():
            if not heap or heap[0][0] > end_us:
                self.now_us = end_us
                return until is not None and until()
            if limit is not None and self.events >= limit:
                return False
            self.now_us, _, action, args = heappop(heap)
            action(*args)
        return True

    def deliver(self, host: Host, life: int, event: Event) -> None:
        """Hand an event to a host's peer: at once, or when the host comes to it."""
        if host.peer is None or host.life != life:
            return
        if host.paused:
            host.waiting.append(event)
        elif host.slow > 1 or host.busy_us > self.now_us:
            start_us = max(self.now_us, host.busy_us)
            host.busy_us = start_us + HANDLE_US * host.slow
            self.at(start_us, self._late, (host, life, event))
        else:
            self._handle(host, event)

    _deliver = deliver

    def _late(self, host: Host, life: int, event: Event) -> None:
        if host.peer is not None and host.life == life:
            if host.paused:
                host.waiting.append(event)
            else:
                self._handle(host, event)

    def _handle(self, host: Host, event: Event) -> None:
        peer, life, now_us = host.peer, host.life, self.now_us
        assert peer is not None
        self.events += 1
        self._note(host, event)
        local_us = now_us if host.clock_rate == 1.0 else host.local_us(now_us)
        try:
            effects = peer.handle(event, local_us)
        except (CommandFailed, Violation):
            raise
        except Exception as exc:  # task boundary: a peer that raises is a bug, with time and place
            raise Violation(
                f"S15: {host.name} raised {type(exc).__name__} ({exc}) on {type(event).__name__}, "
                f"at {now_us / 1e6:.6f} s"
            ) from exc
        for effect in effects:
            PERFORM[type(effect)](host, effect)
        for observer in self.observers:
            observer(host, event, effects)
        if host.peer is None or host.life != life:
            return  # an observer has switched it off
        due_us = peer.deadline_us()
        if due_us is not None:
            if host.clock_rate != 1.0:
                due_us = host.world_us(due_us)
            if host.armed_us is None or due_us < host.armed_us:
                host.armed_us = due_us
                self.at(max(due_us, now_us), self._tick, (host, life, due_us))

    def _tick(self, host: Host, life: int, due_us: int) -> None:
        """The alarm that was set last; an earlier one that was set since has replaced it."""
        if host.life == life and host.armed_us == due_us:
            host.armed_us = None
            self.deliver(host, life, TICKED)

    # the trace

    def trace_hash(self) -> str:
        """Digest of everything that has happened so far, in order."""
        self._trace.update(bytes(self._notes))
        self._notes.clear()
        return str(self._trace.hexdigest())

    def _note(self, host: Host, event: Event) -> None:
        if type(event) is Received:  # the others are fewer
            kind, number, what = 1, event.link, event.frame
        else:
            kind, number, what = _wording(event)
        notes = self._notes
        note = NOTE.pack(self.now_us, host.index, kind, number)
        notes += note
        notes += what
        if len(notes) > NOTES_BYTES:
            self._trace.update(bytes(notes))
            notes.clear()
        if self.log is not None:
            self.log(self.now_us, host, event, note + bytes(what))


def _wording(event: Event) -> tuple[int, int, Any]:
    """What the trace says of an event: (kind, number, bytes)."""
    kind = type(event)
    if kind is Ticked:
        return 2, 0, b""
    if kind is Stored or kind is Kept:
        return 3 if kind is Stored else 4, event.op, b""  # type: ignore[union-attr]
    if kind is Fetched:
        return 5, event.op, event.body  # type: ignore[union-attr]
    return 0, 0, repr(event).encode()
