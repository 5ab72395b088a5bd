"""A peer that exists only for the HTTP side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mfd.core.events import CommandFailed

WALKER = "ab" * 32


class FakeFace:
    """Keeps what it is given; reports are numbered from 1."""

    def __init__(self) -> None:
        self.injected = b""
        self.joined: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.parts: list[bytes | memoryview] = [b"one", memoryview(b"two")]
        self.waiting = asyncio.Event()
        self._news = asyncio.Event()

    def report(self, kind: str, **fields: Any) -> None:
        self.told.append({"n": len(self.told) + 1, "at": 0.0, "kind": kind, **fields})
        self._news.set()

    def status(self) -> dict[str, Any]:
        return {
            "peer": "cd" * 32,
            "links": [{"link": 1}],
            "members": {"known": []},
            "routes": [{"name": "digits/train"}],
            "walkers": [{"walker": WALKER}],
        }

    def reports(self, *, after: int, walker: str) -> list[dict[str, Any]]:
        newer = (r for r in self.told if r["n"] > after)
        return [r for r in newer if str(r.get("walker", "")).startswith(walker)]

    async def wait_reports(self, *, after: int, seconds: float) -> None:
        self.waiting.set()
        self._news.clear()
        if not any(r["n"] > after for r in self.told):
            await asyncio.wait_for(self._news.wait(), seconds)

    async def inject(self, body: AsyncIterator[bytes]) -> str:
        async for data in body:
            self.injected += data
        if self.injected == b"bad":
            raise CommandFailed("this is not an injection file")
        return WALKER

    async def model(self, walker: str) -> Sequence[bytes | memoryview]:
        if not WALKER.startswith(walker):
            raise CommandFailed("no walker with an id that begins so is held here")
        return self.parts

    def join(self, address: str) -> None:
        if ":" not in address:
            raise CommandFailed(f"{address!r} is not an address")
        self.joined.append(address)
