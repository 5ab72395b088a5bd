from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mfd.learn import Holding, layers, zoo
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LayerRef

CNN = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 8, "hidden": 16}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Results are promised for one thread count; tests fix it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures() -> Holding:
    """Ten separable classes: a bright row or column each, in noise."""
    rng = np.random.default_rng(5)
    y = np.arange(200) % 10
    x = rng.normal(0, 0.3, (200, 1, 8, 8)).astype(np.float32)
    for i, label in enumerate(y):
        if label < 5:
            x[i, 0, label + 1] += 1
        else:
            x[i, 0, :, label - 4] += 1
    return Holding(x, y, 10)


def plan_of(recipe: dict[str, object] = CNN, **learn: object) -> bytes:
    return encode_plan(Plan(recipe=recipe, names=("d",), home=bytes(32), learn=learn))


def packed(module: torch.nn.Module, store: dict[bytes, bytes]) -> tuple[LayerRef, ...]:
    made = layers.pack_model(module)
    store.update({ref.digest: content.tobytes() for ref, content in made})
    return tuple(ref for ref, _ in made)


def fresh(seed: int = 1) -> torch.nn.Module:
    return zoo.init(CNN, seed)


def state_bytes(module: torch.nn.Module) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in module.state_dict().items()}
