"""One machine of the invented world: a peer, its disk, its learner, its clock and its moods.

Rules of this file: it carries effects out as a driver would, and decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mfd.core.config import Config
from mfd.core.effects import (
    CancelLearn,
    Close,
    Dial,
    Discard,
    Fetch,
    FetchTable,
    Keep,
    Learn,
    Remember,
    Report,
    Send,
    Store,
)
from mfd.core.events import (
    Event,
    Fetched,
    FetchFailed,
    Held,
    KeepFailed,
    Kept,
    Learned,
    LearnFailed,
    Stored,
    StoreFailed,
)
from mfd.core.peer import Peer
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.signing import Signer
from mfd.packet.task import LearnResult, LearnTask
from mfd.sim.disk import Disk

if TYPE_CHECKING:
    from mfd.sim.world import World

__all__ = ["PERFORM", "Host", "Learner"]

FSYNC_US = 800
FETCH_US = 50


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


class Host:
    """One machine: a peer, its disk and its learner."""

    def __init__(
        self, world: World, name: str, config: Config, learner: Learner | None, key: Signer
    ) -> None:
        self.world = world
        self.name = name
        self.index = len(world.hosts)
        self.config = config
        self.learner = learner
        self.key = key
        self.disk = Disk()
        self.holdings: dict[str, int] = {}
        self.joins: list[str] = []  # addresses that its owner wants linked
        self.addresses: tuple[str, ...] = ()  # host:port, where others can dial it
        self.peer: Peer | None = None  # None while it is off
        self.wrap: Callable[[Host, Peer], Peer] | None = None  # makes it a liar
        self.life = 0  # answers to an earlier life are lost
        self.sent_bytes: dict[str, int] = {"control": 0, "bulk": 0}
        self.reports: list[tuple[int, Report]] = []
        self.armed_us: int | None = None
        self.signatures = 0  # checked so far
        # moods
        self.paused = False
        self.waiting: deque[Event] = deque()  # what came while it was paused
        self.slow = 1  # times slower than it should be
        self.busy_us = 0  # a slow machine is busy until then
        self.clock_rate = 1.0  # of its clock, against the world's
        self.disk_full = False

    def hold(self, name: str, samples: int) -> None:
        """Offer data, now and after every restart."""
        self.holdings[name] = samples
        if self.peer is not None:
            self.world.happen(self, Held(name, samples))

    def local_us(self, now_us: int) -> int:
        """What this machine's clock shows."""
        return now_us if self.clock_rate == 1.0 else int(now_us * self.clock_rate)

    def world_us(self, local_us: int) -> int:
        """When this machine's clock will show that."""
        return local_us if self.clock_rate == 1.0 else int(local_us / self.clock_rate) + 2

    # effects: see PERFORM

    def _send(self, send: Send) -> None:
        parts = send.frame
        frame = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        self.sent_bytes[send.channel] += len(frame) + 4
        self.world.wires.send(self, send.link, send.channel, frame)

    def _store(self, store: Store) -> None:
        world = self.world
        self.disk.begin(store)
        world.at(world.now_us + FSYNC_US * self.slow, self._synced, (self.life, store.op))

    def _synced(self, life: int, op: int) -> None:
        if self.life != life:
            return
        if self.disk_full:
            self.disk.refuse()
            self.world.deliver(self, life, StoreFailed(op, "no space left on the disk"))
            return
        self.disk.finish()
        self.world.deliver(self, life, Stored(op))

    def _keep(self, keep: Keep) -> None:
        fault = self.disk.keep(keep)
        answer = Kept(keep.op) if fault is None else KeepFailed(keep.op, fault)
        self.world.happen(self, answer, FSYNC_US * self.slow // 8)

    def _fetch(self, fetch: Fetch) -> None:
        read = partial(self.disk.chunk, fetch.digest, fetch.chunk, fetch.base)
        self.world.happen(self, _fetched(fetch.op, read), FETCH_US)

    def _fetch_table(self, fetch: FetchTable) -> None:
        answer = _fetched(fetch.op, lambda: (0, self.disk.table(fetch.digest)))
        self.world.happen(self, answer, FETCH_US)

    def _learn(self, learn: Learn) -> None:
        if self.learner is None:
            self.world.happen(self, LearnFailed(learn.job, "this host has no learner"))
            return
        try:
            result = self.learner.perform(learn.task, self.disk.read, self.disk.add)
        except (ValueError, KeyError) as error:
            self.world.happen(self, LearnFailed(learn.job, str(error)), 1_000)
            return
        seconds = float(result.claims.get("seconds", 1.0)) * self.slow
        self.world.happen(self, Learned(learn.job, result), int(seconds * 1e6))

    def _cancel(self, cancel: CancelLearn) -> None:
        self.world.happen(self, LearnFailed(cancel.job, "cancelled"))

    def _report(self, report: Report) -> None:
        self.reports.append((self.world.now_us, report))

    def _dial(self, dial: Dial) -> None:
        self.world.wires.dial(self, dial.address)

    def _close(self, close: Close) -> None:
        self.world.wires.close(self, close.link)

    def _remember(self, remember: Remember) -> None:
        self.disk.remembered = remember.peers

    def _discard(self, discard: Discard) -> None:
        self.disk.discard(discard.digest)


def _fetched(op: int, read: Callable[[], tuple[int, Buffer]]) -> Event:
    try:
        encoding, body = read()
    except KeyError:
        return FetchFailed(op, "the object is not on this disk, or damaged")
    return Fetched(op, encoding, body)


# how each kind of effect is carried out
PERFORM: dict[type[Any], Callable[[Host, Any], None]] = {
    Send: Host._send,
    Store: Host._store,
    Keep: Host._keep,
    Fetch: Host._fetch,
    FetchTable: Host._fetch_table,
    Learn: Host._learn,
    CancelLearn: Host._cancel,
    Remember: Host._remember,
    Report: Host._report,
    Dial: Host._dial,
    Close: Host._close,
    Discard: Host._discard,
}
