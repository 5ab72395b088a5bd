from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfd.core.effects import Keep, Learn
from mfd.core.events import Event, Learned, LearnFailed
from mfd.net.disk import Disk
from mfd.net.jobs import Jobs
from mfd.net.trainerpipe import TrainerError
from mfd.packet.objects import LayerObject, pack_layer
from mfd.packet.task import LayerRef, LearnResult, LearnTask

OLD = pack_layer({"w": np.zeros(10, np.float32)})
NEW = pack_layer({"w": np.ones(10, np.float32)})


def ref(item: LayerObject) -> LayerRef:
    return LayerRef(0, "layer", item.digest, item.raw_bytes)


class FakeTrainer:
    """Writes NEW where OLD came in, unless told otherwise."""

    def __init__(self) -> None:
        self.act: Callable[[Path], Any] = self.write
        self.running = asyncio.Event()
        self.closed = False

    def write(self, out: Path) -> LearnResult:
        (out / f"{NEW.digest.hex()}.part").write_bytes(NEW.tobytes())
        return LearnResult((ref(NEW),), {"samples": 5.0})

    async def perform(
        self,
        task: LearnTask,
        objects: Mapping[bytes, Path],
        out: Path,
        *,
        progress: Callable[[float], None],
    ) -> LearnResult:
        assert objects[OLD.digest].read_bytes() == OLD.tobytes()
        progress(0.5)
        self.running.set()
        result = self.act(out)
        if asyncio.iscoroutine(result):
            result = await result
        assert isinstance(result, LearnResult)
        return result

    async def close(self) -> None:
        self.closed = True


class World:
    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.trainer = FakeTrainer()
        self.disk = Disk(self.events.put_nowait, lambda error: None)
        self.jobs = Jobs(self.trainer, self.disk, self.events.put_nowait)  # type: ignore[arg-type]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World()
    await made.disk.open(tmp_path)
    keep = Keep(1, OLD.digest, OLD.raw_bytes, 0, OLD.chunks, 0, OLD.tobytes())
    await made.disk.call(lambda: made.disk.store.perform(keep))
    yield made
    await made.jobs.close()
    await made.disk.close(1)


def learn(*layers: LayerObject) -> Learn:
    return Learn(7, LearnTask("train", b"", tuple(map(ref, layers))))


async def test_what_the_trainer_made_is_in_the_store_when_learned_comes(world: World) -> None:
    world.jobs.start(learn(OLD))
    assert await world.events.get() == Learned(7, LearnResult((ref(NEW),), {"samples": 5.0}))
    assert NEW.digest in await world.disk.call(lambda: world.disk.store.paths([NEW.digest]))
    await asyncio.sleep(0)
    assert world.jobs.percent == {}


async def failure(world: World, *layers: LayerObject) -> str:
    world.jobs.start(learn(*layers))
    event = await world.events.get()
    assert isinstance(event, LearnFailed)
    assert event.job == 7
    return event.reason


async def test_every_failure_is_one_sentence(world: World) -> None:
    assert "is not here" in await failure(world, NEW)
    world.trainer.act = lambda out: LearnResult((ref(NEW),))
    assert "No such file" in await failure(world, OLD)

    def die(out: Path) -> None:
        raise TrainerError("it was killed")

    world.trainer.act = die
    assert await failure(world, OLD) == "it was killed"

    def lie(out: Path) -> LearnResult:
        (out / f"{NEW.digest.hex()}.part").write_bytes(OLD.tobytes())
        return LearnResult((ref(NEW),))

    world.trainer.act = lie
    assert "does not have the digest" in await failure(world, OLD)
    world.trainer.act = lambda out: None
    assert "AssertionError" in await failure(world, OLD)


async def test_a_cancelled_job_fails_once(world: World) -> None:
    world.trainer.act = lambda out: asyncio.Event().wait()
    world.jobs.start(learn(OLD))
    await world.trainer.running.wait()
    assert world.jobs.percent == {7: 50}
    world.jobs.cancel(7)
    assert await world.events.get() == LearnFailed(7, "the task was cancelled")
    world.jobs.cancel(7)
    world.jobs.start(learn(OLD))
    world.jobs.cancel(7)  # before it has begun
    assert await world.events.get() == LearnFailed(7, "the task was cancelled")
    assert world.events.empty()


async def test_close_ends_jobs_and_trainer(world: World) -> None:
    world.trainer.act = lambda out: asyncio.Event().wait()
    world.jobs.start(learn(OLD))
    await world.trainer.running.wait()
    await world.jobs.close()
    assert world.trainer.closed
    assert world.events.get_nowait() == LearnFailed(7, "the task was cancelled")
