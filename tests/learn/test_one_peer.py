"""A snake with one holder of everything is the bare training loop, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name

from mfd.core.birth import bear
from mfd.learn import Holding, Learner, layers, zoo
from mfd.packet.plan import Plan
from mfd.sim.keys import SimKey
from mfd.sim.world import World
from tests.learn.conftest import state_bytes
from tests.sim.worlds import arrived

RECIPE = {"zoo": "mlp", "inputs": [4], "classes": 3, "hidden": [8]}
SGD = {
    "optimizer": "sgd",
    "momentum": 0.0,
    "lr": 0.1,
    "schedule": "constant",
    "epochs": 2.0,
    "batch": 16,
    "distill": 0.0,
    "warmup": 0,
    "clip": 0.0,
    "logit_adjustment": 0.0,
}


class Noting:
    """A learner that notes the seeds it was given and what it read."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.seeds: list[int] = []
        self.reads: list[int] = []

    def perform(self, task: Any, read: Any, write: Any) -> Any:
        count = 0

        def counted(digest: bytes) -> Any:
            nonlocal count
            count += 1
            return read(digest)

        result = self._learner.perform(task, counted, write)
        self.seeds.append(task.seed)
        self.reads.append(count)
        return result


@pytest.mark.parametrize(("order", "per_stop"), [("lap", 2), ("stop", 9), ("sweep", 0), ("lap", 0)])
def test_a_snake_of_one_peer_is_plain_sgd(order: str, per_stop: int) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random((48, 4), np.float32), rng.integers(0, 3, 48)
    world = World(1)
    learner = Noting(Learner({"d": Holding(x, y, 3)}, threads=1))
    home = world.add("one", learner=learner)
    home.hold("d", 48)
    plan = Plan(
        recipe=RECIPE,
        names=("d",),
        home=home.key.public_key,
        laps=3,
        order=order,
        layers_per_stop=per_stop,
        head=False,
        full_laps=0,
        learn=SGD,
    )
    reference = zoo.init(RECIPE, 1)
    parts = [(a.name, layers.pack(reference, a)) for a in layers.find_layers(reference)]
    birth = bear(plan, parts, SimKey(b"user"), nonce=bytes(16))
    for made in birth.objects:
        home.disk.add(made)
    world.happen(home, birth.event)
    assert world.run(until=arrived(home), seconds=600)
    assert home.peer is not None
    version = home.peer.version(birth.walker)
    assert version is not None
    came = zoo.init(RECIPE, 2)
    layers.load_model(came, version.manifest.layers, home.disk.read)

    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    assert len(learner.seeds) == 3
    for seed in learner.seeds:
        dice = torch.Generator().manual_seed(seed)
        order_of = torch.cat([torch.randperm(48, generator=dice) for _ in range(2)])
        for step in range(6):
            rows = order_of[step * 16 : step * 16 + 16]
            optimizer.zero_grad()
            loss = F.cross_entropy(reference(inputs[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert state_bytes(came) == state_bytes(reference)
    assert learner.reads == [2, 0, 0]  # what the learner has made is not loaded again
