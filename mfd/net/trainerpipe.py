"""The parent's end of the trainer: a child process that may eat memory, crash or be killed.

    | u32 LE body bytes | body: one MessagePack map |   both ways, on the child's stdin and stdout

Rules of this file: the child starts on first use and again after a crash; what it says is checked
like a stranger's words, since a task may have run it over. One task runs at a time.
Source: mfd.learn.trainer has the messages.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgpack

from mfd.packet.task import LearnResult, LearnTask

__all__ = ["Trainer", "TrainerError", "TrainerPipe"]

MESSAGE_BYTES_MAX = 64 << 20
CANCEL_SECONDS = 5.0  # a task that does not stop by then is killed with its process
STOP_SECONDS = 0.3
# Threads that wait by spinning slow down every other trainer on the machine many times over.
PATIENCE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
Told = Mapping[str, Any]
COMMAND = (sys.executable, "-m", "mfd.learn.trainer")


class TrainerError(RuntimeError):
    """A task came to nothing; the sentence says why."""


class Trainer(Protocol):
    """Whoever can train: the child process below, or a thread in the same process."""

    async def describe(self, name: str) -> Mapping[str, Any]:
        """Count what is held under a data name: {"samples": ...}. Raises: TrainerError."""
        ...

    async def perform(
        self,
        task: LearnTask,
        objects: Mapping[bytes, Path],
        out: Path,
        *,
        progress: Callable[[float], None],
    ) -> LearnResult:
        """Run a task; results lie in `out` as HEX.part. Cancel by cancelling the caller.

        Raises: TrainerError.
        """
        ...

    def hold(self, name: str, address: str) -> None:
        """Offer data under a name from the next request on."""
        ...

    def told(self) -> Told:
        """What is known of the data and of the peer's own model: {"forms": ..., "resident": ...}.

        A form says what samples are like (mfd.learn.samples), by data name.
        """
        ...

    async def close(self) -> None:
        """End it, whatever it does."""
        ...


class TrainerPipe:
    """A `Trainer` in a child process of its own group.

    A task that takes too long is given up: a plan is a stranger's, and says how long it learns.
    """

    def __init__(
        self,
        *,
        allow_py: bool = False,
        threads: int = 0,
        memory: int = 0,  # bytes for a model and its training; 0: no limit
        resident: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        task_seconds: float = 0.0,  # after which a task is given up; 0: no limit
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._hello: dict[str, Any] = {"allow_py": allow_py, "threads": threads, "memory": memory}
        if resident is not None:
            self._hello |= {"resident": dict(resident), "folder": str(folder) if folder else None}
        self._holdings: dict[str, str] = {}
        self._resident: Told | None = None  # what the child told of it last
        self._forms: dict[str, Any] = {}
        self._task_seconds = task_seconds
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._stale = False  # the child runs with other holdings than these
        self._next = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._progress: dict[int, Callable[[float], None]] = {}

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def hold(self, name: str, address: str) -> None:
        """Offer data under a name from the next request on."""
        self._holdings[name] = address
        self._stale = True

    async def describe(self, name: str) -> Mapping[str, Any]:
        """Count what is held under a data name: {"samples": ...}. Raises: TrainerError."""
        async with self._turn:
            told = await self._request({"op": "describe", "name": name})
        self._forms[name] = _json_only(told.get("form"))
        return told

    def told(self) -> Told:
        """What the child has told of the data and of the peer's own model; see `Trainer`."""
        return {"forms": dict(self._forms), "resident": self._resident}

    async def perform(
        self,
        task: LearnTask,
        objects: Mapping[bytes, Path],
        out: Path,
        *,
        progress: Callable[[float], None],
    ) -> LearnResult:
        """Run a task once those before it are done; see `Trainer`. Raises: TrainerError."""
        request = {
            "op": "perform",
            "task": task.to_wire(),
            "objects": {digest: str(path) for digest, path in objects.items()},
            "out": str(out),
        }
        async with self._turn:
            try:
                answer = await self._request(
                    request, progress=progress, seconds=self._task_seconds or None
                )
            except TimeoutError as exc:
                raise TrainerError(
                    f"the task took more than the {self._task_seconds:g} s that this peer gives "
                    "one: let the plan have fewer epochs or steps, or raise task_seconds here"
                ) from exc
        try:
            return LearnResult.from_wire(answer["result"])
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise TrainerError("the trainer answered with something that is no result") from exc

    async def close(self) -> None:
        """End the child: kindly for a moment, then not."""
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._kill()
            await process.wait()
        await reading

    async def _request(
        self,
        request: dict[str, Any],
        *,
        progress: Callable[[float], None] | None = None,
        seconds: float | None = None,  # for the answer of a child that runs; None: no limit
    ) -> dict[str, Any]:
        async with self._starting:
            if self.pid is None:
                await self._start()
            if self._stale:
                self._stale = False
                await self._ask({"op": "hello", "holdings": self._holdings, **self._hello})
        async with asyncio.timeout(seconds):
            return await self._ask(request, progress=progress)

    async def _start(self) -> None:
        if self._reading is not None:
            await self._reading
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # ^C in the terminal is the parent's business
                env={**PATIENCE, **os.environ},
            )
        except OSError as exc:
            raise TrainerError(f"the trainer did not start: {exc}") from exc
        self._reading = asyncio.get_running_loop().create_task(self._read(self._process))
        self._stale = True

    async def _ask(
        self, request: dict[str, Any], *, progress: Callable[[float], None] | None = None
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; a cancelled wait cancels the task over there."""
        self._next += 1
        number = self._next
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        if progress is not None:
            self._progress[number] = progress
        try:
            await self._write({"id": number, **request})
            if self._reading is None or self._reading.done():  # nobody is left to answer
                raise TrainerError("the trainer ended before it could take the task")
            message: dict[str, Any]
            try:
                message = await asyncio.shield(answer)
            except asyncio.CancelledError:
                await self._cancel(number, answer)
                raise
        finally:
            self._answers.pop(number, None)
            self._progress.pop(number, None)
        self._resident = _json_only(message.get("resident")) or self._resident
        if not message.get("ok"):
            raise TrainerError(str(message.get("error", "the trainer gave no reason"))[:1000])
        return message

    async def _cancel(self, number: int, answer: asyncio.Future[dict[str, Any]]) -> None:
        with suppress(TrainerError):
            self._next += 1
            await self._write({"id": self._next, "op": "cancel", "target": number})
        done, _ = await asyncio.wait((answer,), timeout=CANCEL_SECONDS)
        if not done:
            self._kill()
            await asyncio.wait((answer,))

    async def _write(self, message: dict[str, Any]) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        body = msgpack.packb(message)
        try:
            process.stdin.write(len(body).to_bytes(4, "little") + body)
            await process.stdin.drain()
        except (ConnectionError, RuntimeError) as exc:
            raise TrainerError("the trainer ended before it could take the task") from exc

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take messages until the child ends; then whoever waits learns how it ended."""
        assert process.stdout is not None
        reason = ""
        try:
            while True:
                size = int.from_bytes(await process.stdout.readexactly(4), "little")
                if size > MESSAGE_BYTES_MAX:
                    raise ValueError(f"a message of {size} bytes")
                self._take(msgpack.unpackb(await process.stdout.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (ValueError, TypeError, msgpack.UnpackException) as exc:
            reason = f"the trainer wrote what is no answer ({exc}) and was ended"
            self._kill()
        code = await process.wait()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result({"ok": False, "error": reason or _describe_end(code)})

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise ValueError("not a map")
        number = message.get("id")
        if "progress" in message:
            report = self._progress.get(number) if isinstance(number, int) else None
            if report is not None:
                report(min(max(float(message["progress"]), 0.0), 1.0))
            return
        answer = self._answers.get(number) if isinstance(number, int) else None
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _kill(self) -> None:
        """Kill the child and what it started."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _json_only(told: object) -> Told | None:
    """A map that can be shown to the owner; None for anything else."""
    try:
        json.dumps(told)
    except (TypeError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _describe_end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the trainer was killed (signal 9, SIGKILL): most often for want of memory"
    if code < 0:
        return f"the trainer was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"the trainer ended by itself with exit code {code}: its last words are in the log"
