"""The invented world: peers, links, disks and learners on one virtual clock, from one seed.

Rules of this file: no clock, no chance but the seed's, no I/O. The bytes of every frame are real.
The same seed gives the same trace, to the bit, in every process.
Source: ARCHITECTURE.md, "Bird's eye".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Protocol

from blake3 import blake3

from mfd.core.config import Config
from mfd.core.context import Dice
from mfd.core.effects import (
    CancelLearn,
    Close,
    Dial,
    Discard,
    Effect,
    Fetch,
    FetchTable,
    Keep,
    Learn,
    Report,
    Send,
    Store,
)
from mfd.core.events import (
    DialFailed,
    Event,
    Fetched,
    FetchFailed,
    Held,
    KeepFailed,
    Kept,
    Learned,
    LearnFailed,
    LinkDown,
    LinkUp,
    Received,
    Restored,
    Stored,
    Ticked,
)
from mfd.core.peer import Peer
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.task import LearnResult, LearnTask
from mfd.sim.disk import Disk
from mfd.sim.keys import SimKey, sim_verify

__all__ = ["Host", "Learner", "Observer", "World"]

FSYNC_US = 800


class Learner(Protocol):
    """Trains for one simulated peer: real learning, or a stand-in."""

    def perform(
        self,
        task: LearnTask,
        read: Callable[[bytes], Buffer],
        write: Callable[[LayerObject], None],
    ) -> LearnResult:
        """Do the task. Any ValueError becomes LearnFailed."""
        ...


@dataclass(slots=True)
class _Wire:
    """One link between two hosts."""

    ends: tuple[str, str]
    latency_us: int
    bytes_per_s: float
    free_us: dict[tuple[str, str], int] = field(default_factory=dict)  # (from, channel) -> idle
    last_us: dict[tuple[str, str], int] = field(default_factory=dict)  # -> last arrival
    links: dict[str, int] = field(default_factory=dict)  # host -> link number, while up


Observer = Callable[["Host", Event, Sequence[Effect]], None]
"""Told of every event and of the effects that answered it, once they are under way."""


class Host:
    """One machine: a peer, its disk and its learner."""

    def __init__(self, world: World, name: str, config: Config, learner: Learner | None) -> None:
        self.world = world
        self.name = name
        self.config = config
        self.learner = learner
        self.key = SimKey(name.encode())
        self.disk = Disk()
        self.holdings: dict[str, int] = {}
        self.peer: Peer | None = None  # None while it is off
        self.life = 0  # answers to an earlier life are lost
        self.sent_bytes: dict[str, int] = {"control": 0, "bulk": 0}
        self.reports: list[tuple[int, Report]] = []
        self.armed_us: int | None = None

    def hold(self, name: str, samples: int) -> None:
        """Offer data, now and after every restart."""
        self.holdings[name] = samples
        if self.peer is not None:
            self.world.happen(self, Held(name, samples))


class World:
    """Everything, and the order in which it happens."""

    def __init__(self, seed: int, config: Config | None = None) -> None:
        self.config = config or Config()
        self.now_us = 0
        self.hosts: dict[str, Host] = {}
        self.events = 0
        self.observers: list[Observer] = []
        self._seed = seed
        self._wires: list[_Wire] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._links = 0
        self._trace = blake3()
        self._delays = Dice(b"delays" + seed.to_bytes(8, "little"))

    # building

    def add(
        self, name: str, *, learner: Learner | None = None, config: Config | None = None
    ) -> Host:
        """Add a machine and start its peer."""
        host = self.hosts[name] = Host(self, name, config or self.config, learner)
        self.start(host)
        return host

    def link(self, a: str, b: str, *, latency_us: int = 1_000, bytes_per_s: float = 125e6) -> None:
        """Join two hosts with a wire; it comes up as soon as both peers run."""
        self._wires.append(_Wire((a, b), latency_us, bytes_per_s))
        self._plug(self._wires[-1])

    # faults

    def start(self, host: Host) -> None:
        """Switch a host on; its disk holds what was synced."""
        host.life += 1
        boot = host.disk.start()
        seed = f"{self._seed}/{host.name}/{boot}".encode()
        host.peer = Peer(signer=host.key, verify=sim_verify, config=host.config, seed=seed)
        host.armed_us = None
        sizes = {digest: len(data) for digest, data in host.disk.objects.items()}
        self.happen(host, Restored(boot, dict(host.disk.records), sizes))
        for name, samples in host.holdings.items():
            self.happen(host, Held(name, samples))
        for wire in self._wires:
            if host.name in wire.ends:
                self._plug(wire)

    def kill(self, host: Host, *, synced: bool = False) -> None:
        """Switch a host off at once; its neighbours see closed sockets.

        `synced`: what it had asked the disk for is durable, though it was never told so.
        """
        while synced and host.disk.syncing:
            host.disk.finish()
        host.peer = None
        host.life += 1
        for wire in self._wires:
            if host.name in wire.ends:
                self.unplug(wire.ends[0], wire.ends[1])

    def unplug(self, a: str, b: str) -> None:
        """Cut the wire between two hosts until `plug`."""
        for wire in self._wires:
            if set(wire.ends) == {a, b} and wire.links:
                links, wire.links = wire.links, {}
                for name, link in links.items():
                    if self.hosts[name].peer is not None:
                        self.happen(self.hosts[name], LinkDown(link, "the wire was cut"))

    def plug(self, a: str, b: str) -> None:
        """Mend the wire between two hosts."""
        for wire in self._wires:
            if set(wire.ends) == {a, b}:
                self._plug(wire)

    def _plug(self, wire: _Wire) -> None:
        a, b = (self.hosts[name] for name in wire.ends)
        if a.peer is None or b.peer is None or wire.links:
            return
        self._links += 1
        wire.links = {a.name: self._links, b.name: self._links}
        wire.free_us, wire.last_us = {}, {}
        cost = max(1, wire.latency_us // 10)
        self.happen(a, LinkUp(self._links, b.key.public_key, b.name, True, cost))
        self.happen(b, LinkUp(self._links, a.key.public_key, a.name, False, cost))

    # time

    def happen(self, host: Host, event: Event, delay_us: int = 0) -> None:
        """Let an event reach a host's peer after a delay."""
        life = host.life
        self.at(self.now_us + delay_us, partial(self._deliver, host, life, event))

    def at(self, when_us: int, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._count += 1
        heappush(self._heap, (when_us, self._count, action))

    def run(self, *, until: Callable[[], bool] = lambda: False, seconds: float = 3_600) -> bool:
        """Let time pass until a condition holds; False if it never did within `seconds`."""
        end_us = self.now_us + int(seconds * 1e6)
        while not until():
            if not self._heap or self._heap[0][0] > end_us:
                self.now_us = end_us
                return until()
            self.now_us, _, action = heappop(self._heap)
            action()
        return True

    def trace_hash(self) -> str:
        """Digest of everything that has happened so far, in order."""
        return self._trace.hexdigest()

    def _deliver(self, host: Host, life: int, event: Event) -> None:
        if host.peer is None or host.life != life:
            return
        if isinstance(event, Ticked):
            host.armed_us = None
        self.events += 1
        self._note(host, event)
        effects = host.peer.handle(event, self.now_us)
        for effect in effects:
            self._perform(host, effect)
        for observer in self.observers:
            observer(host, event, effects)
        if host.peer is None or host.life != life:
            return  # an observer has switched it off
        due_us = host.peer.deadline_us()
        if due_us is not None and (host.armed_us is None or due_us < host.armed_us):
            host.armed_us = due_us
            self.happen(host, Ticked(), max(0, due_us - self.now_us))

    def _note(self, host: Host, event: Event) -> None:
        what = bytes(event.frame) if isinstance(event, Received) else repr(event).encode()
        self._trace.update(f"{self.now_us} {host.name} {type(event).__name__} ".encode() + what)

    # effects

    def _perform(self, host: Host, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(host, effect)
            case Store(op=op):
                host.disk.begin(effect)
                self.at(self.now_us + FSYNC_US, partial(self._synced, host, host.life, op))
            case Keep(op=op):
                fault = host.disk.keep(effect)
                answer = Kept(op) if fault is None else KeepFailed(op, fault)
                self.happen(host, answer, FSYNC_US // 8)
            case Fetch(op=op, digest=digest, chunk=chunk):
                self.happen(host, self._fetch(op, partial(host.disk.chunk, digest, chunk)), 50)
            case FetchTable(op=op, digest=digest):
                read = partial(host.disk.table, digest)
                self.happen(host, self._fetch(op, lambda: (0, read())), 50)
            case Learn():
                self._learn(host, effect)
            case Report():
                host.reports.append((self.now_us, effect))
            case Dial(address=address):
                self.happen(host, DialFailed(address, "wires are laid by hand here"), 1_000)
            case Close(link=link):
                for wire in self._wires:
                    if link in wire.links.values():
                        self.unplug(*wire.ends)
            case Discard(digest=digest):
                host.disk.discard(digest)
            case CancelLearn(job=job):
                self.happen(host, LearnFailed(job, "cancelled"))

    def _synced(self, host: Host, life: int, op: int) -> None:
        if host.life == life:
            host.disk.finish()
            self._deliver(host, life, Stored(op))

    @staticmethod
    def _fetch(op: int, read: Callable[[], tuple[int, Buffer]]) -> Event:
        try:
            encoding, body = read()
        except KeyError:
            return FetchFailed(op, "the object is not on this disk")
        return Fetched(op, encoding, body)

    def _send(self, host: Host, send: Send) -> None:
        wire = next((w for w in self._wires if w.links.get(host.name) == send.link), None)
        if wire is None:
            return
        other = self.hosts[wire.ends[1] if wire.ends[0] == host.name else wire.ends[0]]
        frame = b"".join(send.frame)
        host.sent_bytes[send.channel] += len(frame) + 4
        key = (host.name, send.channel)
        start = max(self.now_us, wire.free_us.get(key, 0))
        busy = int(len(frame) * 1e6 / wire.bytes_per_s)
        wire.free_us[key] = start + busy
        jitter = self._delays.below(wire.latency_us // 10 + 1)
        # jitter must not reorder: a later frame never arrives before an earlier one
        arrival = max(start + busy + wire.latency_us + jitter, wire.last_us.get(key, 0))
        wire.last_us[key] = arrival
        self.at(arrival, partial(self._arrive, wire, other, send.link, frame))

    def _arrive(self, wire: _Wire, host: Host, link: int, frame: bytes) -> None:
        if wire.links.get(host.name) == link:
            self._deliver(host, host.life, Received(link, frame))

    def _learn(self, host: Host, learn: Learn) -> None:
        if host.learner is None:
            self.happen(host, LearnFailed(learn.job, "this host has no learner"))
            return
        try:
            result = host.learner.perform(learn.task, host.disk.read, host.disk.add)
        except ValueError as error:
            self.happen(host, LearnFailed(learn.job, str(error)), 1_000)
            return
        seconds = float(result.claims.get("seconds", 1.0))
        self.happen(host, Learned(learn.job, result), int(seconds * 1e6))
