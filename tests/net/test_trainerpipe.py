from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mfd.net.trainerpipe import TrainerError, TrainerPipe
from mfd.packet.task import LearnTask

# A child that does what the task's name says.
CHILD = """
import os, signal, sys
import msgpack

source, target = sys.stdin.buffer, sys.stdout.buffer

def say(message):
    body = msgpack.packb(message)
    target.write(len(body).to_bytes(4, "little") + body)
    target.flush()

def hear():
    head = source.read(4)
    if len(head) < 4:
        sys.exit(0)
    return msgpack.unpackb(source.read(int.from_bytes(head, "little")))

hello = {}
while True:
    request = hear()
    number, name = request["id"], request.get("name") or request.get("task", {}).get("name")
    match request["op"], name:
        case "hello", _:
            hello = request
            say({"id": number, "ok": True})
        case "describe", "who":
            say({"id": number, "ok": True, "pid": os.getpid(), **hello["holdings"]})
        case _, "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case _, "exits":
            sys.exit(3)
        case _, "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case _, "garbage":
            target.write(b"\\xff" * 64)
            target.flush()
            signal.pause()
        case _, "noise":
            say({"id": 999, "ok": True})
            say({"id": None, "progress": 1.0})
            say({"id": number, "ok": True, "result": {"layers": 5}})
        case _, "waits":
            say({"id": number, "progress": 0.5})
            cancel = hear()
            assert (cancel["op"], cancel["target"]) == ("cancel", number)
            say({"id": cancel["id"], "ok": True})
            say({"id": number, "ok": False, "error": "the task was cancelled"})
        case _, "deaf":
            say({"id": number, "progress": 0.5})
            signal.pause()
        case "perform", "echo":
            result = {"layers": [[0, "l", b"d" * 32, 7]], "claims": {"samples": 3}}
            objects = sorted(request["objects"].values())
            result["claims"]["objects"] = len(objects)
            say({"id": number, "progress": 7})
            say({"id": number, "ok": True, "result": result})
        case _:
            say({"id": number, "ok": False, "error": f"no data named {name!r}"})
"""


@pytest.fixture
async def pipe() -> AsyncIterator[TrainerPipe]:
    made = TrainerPipe(command=[sys.executable, "-c", CHILD])
    yield made
    await made.close()


def task(name: str) -> LearnTask:
    return LearnTask("train", b"plan", (), name)


async def perform(pipe: TrainerPipe, name: str, **options: Any) -> Any:
    options.setdefault("progress", lambda done: None)
    return await pipe.perform(task(name), {b"d": Path("/x")}, Path("/out"), **options)


async def test_a_task_there_and_its_result_back(pipe: TrainerPipe) -> None:
    done: list[float] = []
    result = await perform(pipe, "echo", progress=done.append)
    assert result.claims == {"samples": 3.0, "objects": 1.0}
    assert [(ref.name, ref.raw_bytes) for ref in result.layers] == [("l", 7)]
    assert done == [1.0]


async def test_the_child_starts_on_first_use_and_stays(pipe: TrainerPipe) -> None:
    pipe.hold("a", "npz:1")
    assert pipe.pid is None
    first = await pipe.describe("who")
    pipe.hold("b", "npz:2")
    second = await pipe.describe("who")
    assert (first["a"], second["b"]) == ("npz:1", "npz:2")
    assert first["pid"] == second["pid"] == pipe.pid


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("killed", r"killed \(signal 9, SIGKILL\): most often for want of memory"),
        ("crashes", r"signal 11 \(SIGSEGV\)"),
        ("exits", "exit code 3"),
        ("garbage", "no answer"),
        ("noise", "no result"),
        ("other", "no data named 'other'"),
    ],
)
async def test_a_child_that_fails_fails_its_task_alone(
    pipe: TrainerPipe, name: str, sentence: str
) -> None:
    with pytest.raises(TrainerError, match=sentence):
        await perform(pipe, name)
    assert (await perform(pipe, "echo")).claims["samples"] == 3


async def test_tasks_wait_for_their_turn(pipe: TrainerPipe) -> None:
    names = ["echo", "killed", "echo", "other", "echo"]
    results = await asyncio.gather(*(perform(pipe, name) for name in names), return_exceptions=True)
    assert [isinstance(result, TrainerError) for result in results] == [
        name != "echo" for name in names
    ]


async def started(pipe: TrainerPipe, name: str) -> asyncio.Task[Any]:
    """A task that has said that it runs."""
    runs = asyncio.get_running_loop().create_future()
    job = asyncio.ensure_future(perform(pipe, name, progress=lambda _: runs.set_result(None)))
    await runs
    return job


async def test_cancel_reaches_the_child_and_leaves_it_alive(pipe: TrainerPipe) -> None:
    job = await started(pipe, "waits")
    pid = pipe.pid
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    await perform(pipe, "echo")
    assert pipe.pid == pid


async def test_a_child_that_does_not_hear_cancel_is_killed(
    pipe: TrainerPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfd.net.trainerpipe.CANCEL_SECONDS", 0.05)
    job = await started(pipe, "deaf")
    pid = pipe.pid
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    await perform(pipe, "echo")
    assert pipe.pid != pid


async def test_a_task_without_end_is_given_up_and_the_next_one_runs(pipe: TrainerPipe) -> None:
    """What a plan asks for is a stranger's wish: the peer's trainer must not be lost to it."""
    await perform(pipe, "echo")
    pid, pipe._task_seconds = pipe.pid, 0.01
    with pytest.raises(TrainerError, match=r"took more than the 0\.01 s that this peer gives one"):
        await perform(pipe, "waits")
    pipe._task_seconds = 0.0
    assert (await perform(pipe, "echo")).claims["samples"] == 3
    assert pipe.pid == pid


async def test_close_ends_a_busy_child_and_its_task(pipe: TrainerPipe) -> None:
    job = await started(pipe, "deaf")
    pid = pipe.pid
    assert pid is not None
    await pipe.close()
    with pytest.raises(TrainerError, match="killed"):
        await job
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_that_does_not_exist() -> None:
    pipe = TrainerPipe(command=["/nonexistent/python"])
    with pytest.raises(TrainerError, match="did not start"):
        await pipe.describe("who")
    await pipe.close()


PARENT = """
import asyncio, sys
from mfd.net.trainerpipe import TrainerPipe

async def main():
    pipe = TrainerPipe()
    pipe.hold("digits/train", "sklearn:digits")
    await pipe.describe("digits/train")
    print(pipe.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_real_trainer_does_not_outlive_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        handle = os.pidfd_open(child)
        os.kill(parent.pid, signal.SIGKILL)
    try:
        ended, _, _ = select.select([handle], [], [], 10)
        assert ended, "the trainer lives on without its parent"
    finally:
        os.close(handle)
