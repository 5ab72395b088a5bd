"""Learning jobs on their way from the core to the trainer and back.

Rules of this file: a job ends with exactly one Learned or LearnFailed, whatever happens to it; what
the trainer made is hashed again before it is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from mfd.core.effects import Learn
from mfd.core.events import Event, Held, Learned, LearnFailed
from mfd.core.sources import label_shares
from mfd.net.disk import Disk
from mfd.net.store import StoreError
from mfd.net.trainerpipe import Trainer, TrainerError
from mfd.packet.task import LearnTask

__all__ = ["Jobs", "describe_holding"]


class Jobs:
    """The learning jobs under way."""

    def __init__(self, trainer: Trainer, disk: Disk, post: Callable[[Event], None]) -> None:
        self.percent: dict[int, int] = {}  # job -> how far it is
        self._trainer = trainer
        self._disk = disk
        self._post = post
        self._tasks: dict[int, asyncio.Task[Event]] = {}

    def start(self, learn: Learn) -> None:
        """Queue a job."""
        task = asyncio.get_running_loop().create_task(self._run(learn))
        self._tasks[learn.job] = task
        task.add_done_callback(partial(self._ended, learn.job))

    def cancel(self, job: int) -> None:
        """Stop a job; its LearnFailed still comes. A job that has ended is left alone."""
        if job in self._tasks:
            self._tasks[job].cancel()

    async def close(self) -> None:
        """Stop every job and the trainer."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await self._trainer.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, learn: Learn) -> Event:
        digests = _digests_of(learn.task)
        store = self._disk.store
        self.percent[learn.job] = 0
        try:
            objects = await self._disk.call(lambda: store.paths(digests))
            result = await self._trainer.perform(
                learn.task,
                objects,
                store.incoming,
                progress=lambda done: self.percent.update({learn.job: round(100 * done)}),
            )
            await self._disk.call(lambda: store.adopt(result.layers))
        except (TrainerError, StoreError) as exc:
            return LearnFailed(learn.job, str(exc))
        return Learned(learn.job, result)

    def _ended(self, job: int, task: asyncio.Task[Event]) -> None:
        del self._tasks[job]
        self.percent.pop(job, None)
        if task.cancelled():  # also where it had not yet begun
            self._post(LearnFailed(job, "the task was cancelled"))
        elif (error := task.exception()) is not None:
            self._post(LearnFailed(job, f"the task failed: {error!r}"))
        else:
            self._post(task.result())


def _digests_of(task: LearnTask) -> set[bytes]:
    layers = [*task.layers, *(ref for sibling in task.siblings for ref in sibling.layers)]
    return {ref.digest for ref in layers}


async def describe_holding(trainer: Trainer, name: str, address: str) -> Held:
    """Let the trainer look at data that is offered under a name. Raises: TrainerError."""
    trainer.hold(name, address)
    try:
        told = await trainer.describe(name)
        return Held(name, int(told["samples"]), _labels(address, told))
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainerError(str(exc)) from exc


def _labels(address: str, told: Mapping[str, Any]) -> bytes:
    """The rounded histogram of a holding, if its owner lets the network know it."""
    if ("announce", "labels") not in parse_qsl(address.partition("?")[2]):
        return b""
    return label_shares({int(label): int(count) for label, count in told["labels"].items()})
