"""A TCP proxy that delays, cuts, stalls and forgets: the faults of a network, in one process."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

CHUNK_BYTES = 32 << 10


class Proxy:
    """Stands between a dialler and `target` (host:port). Faults act on what stands at the time."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.address = ""
        self.delay_s = 0.0  # one way, on what is forwarded from now on
        self.forwarded = 0  # bytes, both ways
        self.connections = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: list[asyncio.StreamWriter] = []  # half-open: never read, never closed
        self._marks: list[tuple[int, asyncio.Future[None]]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()
        for writer in self._silent:
            writer.transport.abort()
        self.resume()
        await asyncio.gather(*self._tasks)  # without connections they end

    # faults

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for writer in pair:
                writer.transport.abort()

    def stall(self) -> None:
        """Forward nothing any more, close nothing."""
        self._flowing.clear()

    def resume(self) -> None:
        """Go on forwarding."""
        self._flowing.set()

    def half_open(self) -> None:
        """The listening side sees every connection close, the dialling side sees nothing at all."""
        pairs, self._pairs = self._pairs, []
        for dialler, listener in pairs:
            dialler.transport.pause_reading()
            self._silent.append(dialler)
            listener.transport.abort()

    async def passed(self, size: int) -> None:
        """Wait until `size` bytes more have gone through."""
        mark = asyncio.get_running_loop().create_future()
        self._marks.append((self.forwarded + size, mark))
        await mark

    # forwarding

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        there, back = await asyncio.open_connection(*self._target)
        self._pairs.append((writer, back))
        await asyncio.gather(self._pump(reader, back, writer), self._pump(there, writer, back))

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, own: asyncio.StreamWriter
    ) -> None:
        """Forward until either side ends; `own` is the writer of the side that is read."""
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(CHUNK_BYTES):
                await self._flowing.wait()
                if self.delay_s:
                    loop.call_later(self.delay_s, target.write, data)
                else:
                    target.write(data)
                    await target.drain()
                self._count(len(data))
        except ConnectionError:
            pass
        await self._flowing.wait()  # the end of one side is no news for the other either
        if own not in self._silent and target not in self._silent:
            loop.call_later(self.delay_s, target.close)

    def _count(self, size: int) -> None:
        self.forwarded += size
        for mark in [mark for mark in self._marks if mark[0] <= self.forwarded]:
            self._marks.remove(mark)
            mark[1].set_result(None)
