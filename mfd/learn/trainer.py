"""The trainer process: `python -m mfd.learn.trainer`, spoken to by its parent over pipes.

    | u32 LE body bytes | body: one MessagePack map |      both ways, on stdin and stdout

    request                                                  answer
    {id, op: "hello", holdings, allow_py, threads,
     memory, resident, folder}                               {id, ok: true, resident}
    {id, op: "describe", name}                               {id, ok: true, samples, labels, form}
    {id, op: "perform", task, objects, out}                  {id, progress}*,
                                                             {id, ok: true, result, resident}
    {id, op: "cancel", target}                               {id, ok: true}; the target fails
    {id, op: "stop"}                                         {id, ok: true}, then the end
    anything that fails                                      {id, ok: false, error: one sentence}

`objects` maps digests to paths of whole layer objects, read by mmap; results are written to
`out`/HEX.part, for the parent to check and adopt. "cancel" and "stop" are heard while a task runs.
Rules of this file: the end of stdin ends the process at once, so no trainer outlives its parent;
nothing but answers reaches stdout, whatever the owner's code prints.
"""

from __future__ import annotations

import mmap
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgpack

from mfd.learn.errors import Cancelled, HoldingError, LearnError
from mfd.learn.learner import Learner
from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.task import LearnTask

__all__ = ["main", "read_message", "write_message"]

MESSAGE_BYTES_MAX = 64 << 20  # a task with 256 layers and 64 siblings is below 2 MiB
MEMORY_SLACK = 1.25  # of the budget: what was reckoned is not all that is taken
MEMORY_OWN = 256 << 20  # for threads and what the allocator holds back
PROGRESS_S = 0.2  # between two reports of one task


def read_message(source: IO[bytes]) -> dict[str, Any] | None:
    """Read one message; None at the end of the stream. Raises: ValueError for a broken one."""
    head = source.read(4)
    if len(head) < 4:
        return None
    size = int.from_bytes(head, "little")
    if size > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {size} bytes; the limit is {MESSAGE_BYTES_MAX}")
    body = source.read(size)
    if len(body) < size:
        return None
    message = msgpack.unpackb(body, strict_map_key=False)
    if not isinstance(message, dict):
        raise ValueError("a message is not a map")
    return message


def write_message(target: IO[bytes], message: Mapping[str, Any]) -> None:
    """Write one message and flush it."""
    body = msgpack.packb(dict(message))
    target.write(len(body).to_bytes(4, "little") + body)
    target.flush()


class Trainer:
    """Answers requests one after the other; a second thread listens, so that cancel is heard."""

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self._source = source
        self._target = target
        self._writing = threading.Lock()
        self._requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: set[Any] = set()  # ids of requests not yet answered
        self._cancelled: set[Any] = set()  # a part of them
        self._learner: Learner | None = None
        self._memory = 0  # bytes for a model and its training; 0: no limit

    def run(self) -> None:
        """Serve until the parent goes."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            request = self._requests.get()
            answer = self._answer(request)
            with self._lock:
                self._waiting.discard(request["id"])
                self._cancelled.discard(request["id"])
            self._send({"id": request["id"], **answer})

    def _listen(self) -> None:
        try:
            while (request := read_message(self._source)) is not None:
                self._hear(request)
        except (OSError, ValueError, msgpack.UnpackException) as exc:
            print(f"mfd trainer: {exc}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)  # not sys.exit: a task may be in the middle of a step

    def _hear(self, request: dict[str, Any]) -> None:
        match request.get("op"):
            case "cancel":
                with self._lock:
                    if request.get("target") in self._waiting:
                        self._cancelled.add(request.get("target"))
                self._send({"id": request.get("id"), "ok": True})
            case "stop":
                self._send({"id": request.get("id"), "ok": True})
                os._exit(0)
            case _:
                with self._lock:
                    self._waiting.add(request.get("id"))
                self._requests.put({"id": None, **request})

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            with self._writing:
                write_message(self._target, message)
        except OSError:  # the parent is gone
            os._exit(0)

    def _is_cancelled(self, request_id: object) -> bool:
        with self._lock:
            return request_id in self._cancelled

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": True, **self._serve(request)}
        except (LearnError, HoldingError, PacketError) as exc:
            return {"ok": False, "error": str(exc)}
        except Cancelled:
            return {"ok": False, "error": "the task was cancelled", "cancelled": True}
        except MemoryError:
            return {"ok": False, "error": "this peer has too little memory for the task"}
        except Exception as exc:  # noqa: BLE001 - task boundary: a bad task must not end the trainer
            traceback.print_exc()
            return {"ok": False, "error": f"the trainer failed: {type(exc).__name__}: {exc}"}

    def _serve(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request.get("op")
        if op == "hello":
            self._learner = Learner(
                request["holdings"],
                allow_py=bool(request.get("allow_py", False)),
                threads=int(request.get("threads") or 0),
                memory=int(request.get("memory") or 0),
                resident=request.get("resident"),
                folder=request.get("folder"),
            )
            self._memory = int(request.get("memory") or 0)
            self._learner.check_resident()
            return _resident(self._learner)
        if self._learner is None:
            raise LearnError("the trainer was not told what this peer holds: send hello first")
        if op == "describe":
            return self._learner.describe(request["name"])
        if op == "perform":
            return self._perform(self._learner, request)
        raise LearnError(f"the trainer does not know {op!r}")

    def _perform(self, learner: Learner, request: dict[str, Any]) -> dict[str, Any]:
        request_id, out = request["id"], Path(request["out"])
        if self._is_cancelled(request_id):
            raise Cancelled
        task = LearnTask.from_wire(request["task"])
        if self._memory:
            if task.name:
                learner.describe(task.name)  # the owner's data is loaded; it is not the task's
            _limit_memory(self._memory)
        result = learner.perform(
            task,
            _reader(request["objects"]),
            lambda made: _write_object(out, made),
            progress=self._progress(request_id),
            cancelled=lambda: self._is_cancelled(request_id),
        )
        return {"result": result.to_wire(), **_resident(learner)}

    def _progress(self, request_id: object) -> Callable[[float], None]:
        last = time.monotonic()

        def report(done: float) -> None:
            nonlocal last
            if time.monotonic() - last >= PROGRESS_S:
                last = time.monotonic()
                self._send({"id": request_id, "progress": done})

        return report


def _resident(learner: Learner) -> dict[str, Any]:
    """What the owner is told of the peer's own model; nothing where there is none."""
    return {} if learner.resident is None else {"resident": learner.resident.told()}


def _limit_memory(budget: int) -> None:
    """Let the system refuse what goes far beyond the budget: a task fails, this process does not.

    Counted is private memory (RLIMIT_DATA, Linux) on top of what is held before the task.
    """
    import torch  # noqa: F401 - its own memory is not the task's

    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        held = next(int(x.split()[1]) << 10 for x in lines if x.startswith("VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = held + round(budget * MEMORY_SLACK) + MEMORY_OWN
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _reader(objects: Mapping[bytes, str]) -> Callable[[bytes], Buffer]:
    def read(digest: bytes) -> Buffer:
        path = objects.get(digest)
        if path is None:
            raise LearnError(f"object {digest.hex()[:16]} was not handed over")
        try:
            with open(path, "rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as exc:
            raise LearnError(f"object {digest.hex()[:16]} cannot be read: {exc}") from exc

    return read


def _write_object(out: Path, made: LayerObject) -> None:
    """Write a result; the parent makes it durable, under its digest, after checking it."""
    path = out / f"{made.digest.hex()}.part"
    try:
        with path.open("wb") as file:
            file.writelines(made.parts)
    except OSError as exc:
        raise LearnError(f"a result cannot be written to {path}: {exc.strerror}") from exc


def main() -> None:
    """Take stdin and stdout for the parent alone, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the whole group; the parent decides
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    Trainer(source, target).run()


if __name__ == "__main__":
    main()
