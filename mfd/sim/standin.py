"""A learner that costs nothing: it changes exactly the layers it is told to, repeatably.

WARNING: it does not learn. Reason: tests of the overlay want versions that differ, fast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mfd.packet.merging import merge
from mfd.packet.objects import Buffer, LayerObject, pack_layer, unpack_layer
from mfd.packet.task import LayerRef, LearnResult, LearnTask

__all__ = ["StandIn"]


class StandIn:
    """Adds seeded noise where a learner would train; averages where it would merge."""

    def __init__(self, *, samples: int = 100, seconds: float = 1.0) -> None:
        self.samples = samples
        self.seconds = seconds
        self.tasks: list[LearnTask] = []

    def perform(
        self,
        task: LearnTask,
        read: Callable[[bytes], Buffer],
        write: Callable[[LayerObject], None],
    ) -> LearnResult:
        """Carry out a task on float32 layers."""
        self.tasks.append(task)
        claims = {"samples": float(self.samples), "seconds": self.seconds, "loss": 1.0}
        if task.kind == "measure":
            for ref in task.layers:
                read(ref.digest)
            return LearnResult((), {**claims, "accuracy": 0.5})
        chosen = task.layers
        if task.kind == "train":
            inside = {i for low, high in task.trained for i in range(low, high)}
            chosen = tuple(ref for ref in task.layers if ref.index in inside)
        refs = []
        for ref in chosen:
            layer = self._changed(task, ref, read)
            write(layer)
            refs.append(LayerRef(ref.index, ref.name, layer.digest, layer.raw_bytes))
        return LearnResult(tuple(refs), {**claims, "steps": 10.0})

    @staticmethod
    def _changed(task: LearnTask, ref: LayerRef, read: Callable[[bytes], Buffer]) -> LayerObject:
        if task.kind == "train":
            noise = np.random.default_rng([task.seed, ref.index])
            tensors = unpack_layer(read(ref.digest))
            return pack_layer(
                {
                    name: t.array() + noise.standard_normal(t.shape, dtype=np.float32)
                    for name, t in tensors.items()
                }
            )
        parts = [
            ({ref.name: unpack_layer(read(s.layers[ref.index].digest))}, s.share(ref.index))
            for s in sorted(task.siblings, key=lambda s: s.layers[ref.index].digest)
            if s.share(ref.index) > 0
        ]
        own = unpack_layer(read(ref.digest))
        return pack_layer(merge({ref.name: own}, parts)[ref.name] if parts else own)
