"""A peer on a real network: the core's effects carried out, what happens told to it as events.

Rules of this file: it decides nothing. Effects run in the order of their list; everything that
takes time runs elsewhere (disk: one thread; training: a child) and comes back as an event.
Source: ARCHITECTURE.md; mfd.core.events and effects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, assert_never

from aiohttp import web

import mfd
from mfd.core.config import Config
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
    Remember,
    Report,
    Send,
    Store,
)
from mfd.core.events import (
    CommandFailed,
    Discovered,
    Event,
    Joined,
    Remembered,
    Restored,
    StopRequested,
    Ticked,
    Unheld,
)
from mfd.net.addresses import Address, join_line, parse_address, parse_listen, why_deaf
from mfd.net.clock import now_us
from mfd.net.cores import Core
from mfd.net.discovery import Discovery, DiscoveryError
from mfd.net.disk import Disk
from mfd.net.dwelling import Dwelling
from mfd.net.emulation import Wire
from mfd.net.handshake import Terms
from mfd.net.injection import InjectionError, pack_model, receive
from mfd.net.jobs import Jobs, describe_holding
from mfd.net.keys import KeyPair
from mfd.net.remembered import read_remembered, write_remembered
from mfd.net.reports import Reports
from mfd.net.store import StoreError
from mfd.net.tls import Tls
from mfd.net.trainerpipe import Trainer, TrainerError, TrainerPipe
from mfd.net.transport import Transport

__all__ = ["Core", "Node", "NodeError"]

log = logging.getLogger("mfd")

DRAIN_SECONDS = 1.0  # for the store at the end; what is not promised by then was never promised
Json = dict[str, Any]


class NodeError(RuntimeError):
    """The peer cannot start or go on; the sentence says why and what to do."""


class Node:
    """A running peer, as an async context manager. Implements `mfd.web.face.Face`.

    `state` is its folder, `listen` the one address for links and HTTP, `holdings` maps data names
    to their addresses for the trainer, `costs` and `emulate` see `Transport`, `on_report` gets each
    new report. `advertise` are the addresses that others dial; not given: the one listened on, or
    those of the machine. `lan`: find peers by multicast, and be found.
    Raises: NodeError on entering.
    """

    def __init__(
        self,
        core: Core,
        keys: KeyPair,
        *,
        state: Path,
        listen: str = "127.0.0.1:0",
        config: Config | None = None,
        terms: Terms | None = None,
        holdings: Mapping[str, str] | None = None,
        trainer: Trainer | None = None,
        routes: Sequence[web.AbstractRouteDef] = (),
        tls: Tls | None = None,
        costs: Mapping[str, int] | None = None,
        emulate: Mapping[str, Wire] | None = None,
        advertise: Sequence[str] = (),
        lan: bool = False,
        on_report: Callable[[Json], None] | None = None,
    ) -> None:
        self._core = core
        self._keys = keys
        self._state = state
        self._listen = listen
        self._config = config or Config()
        self._terms = terms or Terms(network=self._config.network)
        self._holdings = dict(holdings or {})
        self._trainer: Trainer = trainer or TrainerPipe()
        self._routes = list(routes)
        self._tls = tls
        self._costs = costs
        self._emulate = emulate
        self._advertise = tuple(advertise)
        self._lan: Discovery | None = None
        self._dwelling: Dwelling | None = None
        self._wants_lan = lan
        self._reports = Reports(on_report)
        self._events: deque[Event] = deque()
        self._busy = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_us = 0  # when it rings
        self._started = time.monotonic()
        self._address: Address | None = None

    def add_routes(self, routes: Sequence[web.AbstractRouteDef]) -> None:
        """Serve more HTTP routes, made for this node; before it is entered."""
        self._routes += routes

    # life

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[NodeError] = self._loop.create_future()
        self._disk = Disk(self.post, self._fail)
        self._jobs = Jobs(self._trainer, self._disk, self.post)
        self._transport = Transport(
            self._keys,
            self._terms,
            self.post,
            tls=self._tls,
            costs=self._costs,
            emulate=self._emulate,
        )
        try:
            await self._disk.open(self._state)
            await self._reports.open(self._state, self._disk)
        except StoreError as exc:
            raise NodeError(str(exc)) from exc
        app = web.Application()
        app.add_routes([*self._transport.routes(), *self._routes])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        try:
            store = self._disk.store
            self.post(Restored(store.ledger.boot, store.ledger.rows(), dict(store.objects)))
            await self._serve()
            remembered = await self._disk.call(partial(read_remembered, self._state))
            if remembered:
                self.post(Remembered(remembered))
            if self._wants_lan:
                await self._search_lan()
            for name, address in self._holdings.items():
                await self.hold(name, address)
        except (NodeError, DiscoveryError, OSError) as exc:
            await self.stop()
            raise exc if isinstance(exc, NodeError) else NodeError(str(exc)) from exc
        except BaseException:  # a cancelled start too must let go of port and folder
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _serve(self) -> None:
        """Open the one port. Raises: NodeError."""
        try:
            host, port = parse_listen(self._listen)
        except ValueError as exc:
            raise NodeError(str(exc)) from exc
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, host, port, ssl_context=self._tls.server if self._tls else None
        )
        try:
            await site.start()
        except OSError as exc:
            raise NodeError(f"address {self._listen} {why_deaf(exc)}") from exc
        port = self._runner.addresses[0][1]
        self._address = Address(host, port, self._core.id, self._terms.network)
        self._dwelling = Dwelling(self._address, self._advertise, self.post)

    async def _search_lan(self) -> None:
        """Announce this peer, and hear of others. Raises: DiscoveryError."""
        assert self._address is not None
        assert self._dwelling is not None
        peer, found = self._core.id, lambda *told: self.post(Discovered(*told))
        lan = Discovery(
            self._terms.network, peer, self._dwelling.addresses, found, host=self._address.host
        )
        self._lan = await lan.__aenter__()

    async def stop(self) -> None:
        """Say goodbye, close the links, let the store finish; within two seconds."""
        if self._stopped:
            return
        self.post(StopRequested())
        self._stopped = True
        for watch in (self._timer, self._dwelling):
            if watch is not None:
                watch.cancel()
        if self._lan is not None:
            await self._lan.close()
        await asyncio.gather(self._transport.close(), self._jobs.close())
        await self._runner.cleanup()
        await self._disk.close(DRAIN_SECONDS)

    # events in, effects out

    def post(self, event: Event) -> None:
        """Tell the core what happened, after what it was told before."""
        if self._stopped or self.failed.done():
            return
        self._events.append(event)
        if not self._busy:
            self._drain()

    def _drain(self) -> None:
        self._busy = True
        try:
            while self._events:
                event = self._events.popleft()
                self._carry_out(self._core.handle(event, now_us()))
        except Exception as exc:  # noqa: BLE001 - task boundary: the core promises not to raise
            self._fail(exc)
        finally:
            self._busy = False
        self._arm()

    def _fail(self, error: BaseException) -> None:
        """Stop working: the ledger is right, and a restart begins from it."""
        log.error("the peer failed and stops", exc_info=error)
        self._events.clear()
        if not self.failed.done():
            self._ending = self._loop.create_task(self._transport.close())  # neighbours see it
            self.failed.set_result(NodeError(f"the peer failed and stops: {error!r}"))

    def _command(self, event: Event) -> None:
        """Carry out what the owner asked for. Raises: CommandFailed."""
        assert not self._busy, "commands come from outside of the core"
        effects = self._core.handle(event, now_us())
        self._busy = True  # what the effects cause waits for its turn
        self._carry_out(effects)
        self._drain()

    def _arm(self) -> None:
        """Set the one timer to the core's deadline; one that rings early does no harm."""
        deadline = self._core.deadline_us()
        if deadline is None or self._stopped or self.failed.done():
            return
        if self._timer is not None:
            if self._armed_us <= deadline:
                return
            self._timer.cancel()
        self._armed_us = deadline
        self._timer = self._loop.call_later(max(0, deadline - now_us()) / 1e6, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.post(Ticked())

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._transport.send(effect)
                case Dial(address=address):
                    self._transport.dial(address)
                case Close(link=link, reason=reason):
                    self._transport.close_link(link, reason)
                case Store() | Fetch() | FetchTable() | Keep() | Discard():
                    self._disk.put(effect)
                case Learn():
                    self._jobs.start(effect)
                case CancelLearn(job=job):
                    self._jobs.cancel(job)
                case Remember(peers=peers):
                    self._disk.run(partial(write_remembered, self._state, peers))
                case Report():
                    self._reports.add(effect)
                case _:
                    assert_never(effect)

    # what the owner asks for

    async def hold(self, name: str, address: str) -> None:
        """Offer data under a name from now on. Raises: NodeError where it cannot be read."""
        try:
            held = await describe_holding(self._trainer, name, address)
        except TrainerError as exc:
            place = "" if address in str(exc) else f" at {address}"
            raise NodeError(f"data {name!r}{place}: {exc}") from exc
        try:
            self._command(held)
        except CommandFailed as exc:
            raise NodeError(str(exc)) from exc

    def unhold(self, name: str) -> None:
        """Withdraw data. Raises: CommandFailed."""
        self._command(Unheld(name))

    # the owner's view: mfd.web.face.Face

    @property
    def address(self) -> str:
        """Where this peer listens, `host:port`."""
        assert self._address is not None
        return self._address.authority

    @property
    def join_line(self) -> str:
        """What others join with."""
        assert self._address is not None
        return join_line(self._address)

    def status(self) -> Json:
        """The core's status as plain values, plus what only the driver knows."""
        status: Json = asdict(self._core.status())
        return {
            **status,
            "address": self.address,
            "join": self.join_line,
            "version": mfd.__version__,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "bytes": dict(self._transport.counters()),
            "link_bytes": self._transport.link_counters(),
            "training": dict(self._jobs.percent),
            "store": self._disk.store.broken or "ok",
            **self._trainer.told(),
        }

    def reports(self, *, after: int = 0, walker: str = "") -> list[Json]:
        """Reports numbered above `after`, oldest first; of one walker (a prefix) or all."""
        return self._reports.after(after, walker)

    async def wait_reports(self, *, after: int, seconds: float) -> None:
        """Return as soon as a report above `after` exists, or when the time is over."""
        await self._reports.wait(after, seconds)

    def join(self, address: str) -> None:
        """Keep a link to this address from now on. Raises: CommandFailed."""
        try:
            parse_address(address)
        except ValueError as exc:
            raise CommandFailed(str(exc)) from exc
        self._command(Joined(address))

    async def inject(self, body: AsyncIterator[bytes]) -> str:
        """Take a walker from an injection file; return its id. Raises: CommandFailed."""
        try:
            injection = await receive(body, self._disk.store, self._disk.call)
        except InjectionError as exc:
            raise CommandFailed(str(exc)) from exc
        try:
            self._command(injection.event)
        except CommandFailed:
            for digest in injection.fresh:
                self._disk.put(Discard(digest))
            raise
        return injection.walker

    async def model(self, walker: str) -> Sequence[bytes | memoryview]:
        """The newest version of a walker, as the parts of a packet. Raises: CommandFailed."""
        try:
            parts = await self._disk.call(lambda: pack_model(walker, self._disk.store))
        except InjectionError as exc:
            raise CommandFailed(str(exc)) from exc
        return [part if isinstance(part, bytes) else memoryview(part) for part in parts]
