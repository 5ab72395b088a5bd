"""A core that does what a test tells it, and nodes around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mfd.core.config import Config
from mfd.core.effects import Effect, Send
from mfd.core.events import (
    DialFailed,
    Event,
    LinkDown,
    LinkUp,
    Received,
    Unheld,
)
from mfd.core.status import Status
from mfd.net.driver import Node
from mfd.net.keys import KeyPair

Script = Callable[[Event], list[Effect]]


class FakeCore:
    """Remembers events, copies frames, and answers with what `script` returns."""

    def __init__(self, keys: KeyPair, script: Script | None = None) -> None:
        self.keys = keys
        self.events: list[Event] = []
        self.frames: list[bytes] = []
        self.links: dict[int, LinkUp] = {}
        self.script = script or (lambda event: [])
        self.deadline: int | None = None
        self._changed: list[asyncio.Future[None]] = []

    @property
    def id(self) -> bytes:
        return self.keys.public_key

    def handle(self, event: Event, now_us: int) -> list[Effect]:
        match event:
            case Received(frame=frame):
                self.frames.append(bytes(frame))
            case LinkUp(link=link):
                self.links[link] = event
            case LinkDown(link=link):
                del self.links[link]
        self.events.append(event)
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)
        return self.script(event)

    def deadline_us(self) -> int | None:
        return self.deadline

    def status(self) -> Status:
        return Status(self.id.hex(), "mfd", (), (), (), {}, 0, 0)

    async def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Wait until the condition holds after some event."""
        async with asyncio.timeout(10):
            while not (value := condition()):
                waiter = asyncio.get_running_loop().create_future()
                self._changed.append(waiter)
                await waiter
                self._changed.remove(waiter)
            return value

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def keys(number: int) -> KeyPair:
    return KeyPair.from_seed(bytes([number]) * 32)


def node(folder: Path, number: int, script: Script | None = None, **options: Any) -> Node:
    core = FakeCore(keys(number), script)
    made = Node(core, core.keys, state=folder / f"state{number}", config=Config(), **options)
    made.core = core  # type: ignore[attr-defined]
    return made


def core_of(made: Node) -> FakeCore:
    core: FakeCore = made.core  # type: ignore[attr-defined]
    return core


def perform(made: Node, *effects: Effect) -> None:
    """Have the core ask for effects, as if an event had led to them."""
    core = core_of(made)
    usual, core.script = core.script, lambda event: list(effects)
    try:
        made.post(Unheld("cue"))
    finally:
        core.script = usual


def send(made: Node, link: int, frame: bytes, channel: Any = "control") -> None:
    perform(made, Send(link, channel, (frame,)))


def reason_of(core: FakeCore) -> str:
    return str(core.of(DialFailed)[-1].reason)
