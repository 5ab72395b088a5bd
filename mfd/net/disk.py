"""The one thread that touches the disk: work goes in in order, answers come back as events.

Rules of this file: the loop never waits for a disk, and the store never sees two threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mfd.core.events import Event
from mfd.net.store import DiskStore, StoreWork

__all__ = ["Disk"]

T = TypeVar("T")


class Disk:
    """A `DiskStore` in a thread of its own.

    `failed` is told of an error that is a fault of this program; errors of the disk are answers.
    """

    store: DiskStore

    def __init__(
        self, post: Callable[[Event], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._post = post
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mfd-store")
        self._work: set[Future[Any]] = set()

    async def open(self, folder: Path) -> None:
        """Open the state folder. Raises: StoreError."""
        try:
            self.store = await self.call(lambda: DiskStore(folder))
        except BaseException:  # a cancelled start too must not leave the thread
            self._thread.shutdown()
            raise

    def put(self, work: StoreWork) -> None:
        """Queue an effect; its answer is posted."""
        self.run(lambda: self.store.perform(work))

    def run(self, call: Callable[[], Event | None]) -> None:
        """Queue a call; the event that it returns, if any, is posted."""
        future = self._thread.submit(call)
        self._work.add(future)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._answered, done))

    def _answered(self, done: Future[Event | None]) -> None:
        self._work.discard(done)
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self._failed(error)
        elif (event := done.result()) is not None:
            self._post(event)

    async def call(self, call: Callable[[], T]) -> T:
        """Run a call in the thread, after what was queued before."""
        return await self._loop.run_in_executor(self._thread, call)

    async def close(self, seconds: float) -> None:
        """Finish what is queued for at most `seconds`, drop the rest, let go of the folder.

        What is dropped was never promised to anybody: its Stored was not posted.
        """
        if self._work:
            await asyncio.wait(map(asyncio.wrap_future, self._work), timeout=seconds)
        for work in list(self._work):
            work.cancel()
        await self.call(self.store.close)
        self._thread.shutdown()
