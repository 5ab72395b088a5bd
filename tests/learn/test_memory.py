"""Blocks and micro-batches that a budget allows, and what was taken in the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mfd.learn import Holding, LearnError, training, zoo
from mfd.learn.memory import Meter, Need, fit, is_want_of_memory, need_of, state_bytes
from mfd.learn.options import Options
from mfd.learn.rows import Schedule
from mfd.learn.scaled import nested
from mfd.learn.stop import Stop
from mfd.learn.training import train_blocks
from mfd.packet.extent import Scale
from tests.learn.conftest import fresh
from tests.learn.conftest import state_bytes as content

PLAIN = Options(epochs=0.5, distill=0.0, clip=0.0, logit_adjustment=0.0, optimizer="sgd")
KIB = 1 << 10


def test_the_reckoning_by_hand() -> None:
    """Two linear layers, the second one trained: every byte is accounted for."""
    module = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    holding = Holding(np.zeros((6, 8), np.float32), np.arange(6) % 4, 4)
    weights = 4 * (8 * 16 + 16 + 16 * 4 + 4)
    assert state_bytes(module) == weights
    trained, step = 4 * 68, 2 * 4 * 64
    need = need_of(module, holding, [1], Options(distill=0.0))
    assert need.weights == weights
    assert need.trained == 3 * trained + step  # gradient and two slots of Adam
    assert need.opinion == 0
    plain = need_of(module, holding, [1], Options(distill=0.3, optimizer="sgd", momentum=0.0))
    assert plain.trained == trained + step
    assert plain.opinion == 6 * 4 * 4
    extras = need_of(module, holding, [1], Options(distill=0.0, anchor=0.1, ema=0.5))
    assert extras.trained == 5 * trained + step
    # autograd keeps the input of the trained layer and the log-softmax of the loss
    assert 4 * (16 + 4) <= need.sample - 3 * 4 * 16 <= 4 * (16 + 4) + 16
    half = need_of(module.to(torch.bfloat16), holding, [1], Options(distill=0.0))
    assert half.weights == weights // 2
    assert half.slack == 1.2
    assert need.slack == 1
    assert half.trained == 68 * (2 + 4 + 8) + step
    assert Need(1, 2, 10, 4).total(3) == 37
    assert Need(1, 2, 10, 4, slack=1.2).total(3) == 45


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("exits", [False, True])
def test_early_exits_and_versions_inside_are_counted(
    pictures: Holding,
    exits: bool,
    inside: bool,
) -> None:
    """What autograd really keeps of a batch, to the tenth; without them it is far less."""
    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 16, "norm": "fours"}
    recipe["exits"] = exits
    module = zoo.init(recipe, 1)
    layers = range(4 if exits else 6)
    smaller = nested(recipe, [Scale(0.5)], module) if inside else None
    need = need_of(module, pictures, layers, PLAIN, smaller)
    bare = need_of(module, pictures, layers, PLAIN)
    stop = Stop(module, pictures, Schedule.of(200, PLAIN, 1, 1.0), list(layers), PLAIN)
    stop.smaller = smaller
    own = {t.untyped_storage().data_ptr() for t in module.state_dict(keep_vars=True).values()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = stop.loss(torch.arange(16))
    real = sum(size for place, size in kept.items() if place not in own)
    del loss
    widest = 3 * 4 * 32 * 64  # of the second convolution: 32 channels of 8 x 8
    reckoned = 16 * (need.sample - widest) + need.trained - bare.trained
    assert reckoned == pytest.approx(real, rel=0.1)
    if inside:
        assert 16 * (bare.sample - widest) < 0.8 * real


def test_the_reckoning_changes_nothing(pictures: Holding) -> None:
    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 4, "norm": "batch"}
    module = zoo.init(recipe, 1)
    before = content(module)
    need_of(module, pictures, [0, 3], Options())
    assert content(module) == before
    assert not any(p.requires_grad for p in module.parameters())


def blocks(pictures: Holding, budget: int, **more: object) -> tuple[tuple[int, ...], ...]:
    wanted = {"trained": [0, 1, 2, 3, 5], "body": (0, 4), **more}
    return fit(fresh(), pictures, PLAIN, budget=budget, **wanted).blocks  # type: ignore[arg-type]


def test_a_larger_budget_takes_more_layers_from_the_cursor_on(pictures: Holding) -> None:
    assert blocks(pictures, 0) == ((0, 1, 2, 3, 5),)
    assert blocks(pictures, 1 << 40) == ((0, 1, 2, 3, 5),)
    sizes = []
    for budget in range(40 * KIB, 2000 * KIB, 40 * KIB):
        try:
            (block,) = blocks(pictures, budget)
        except LearnError:
            sizes.append(0)
            continue
        assert block[-1] == 5  # the head always learns
        assert block[:-1] == tuple(range(len(block) - 1))
        sizes.append(len(block) - 1)
    assert sizes == sorted(sizes)
    assert {0, 1, 4} <= set(sizes)


def test_sweeps_are_cut_by_the_budget_and_by_size(pictures: Holding) -> None:
    assert blocks(pictures, 0, block=3, sweep=True) == ((0, 1, 2, 5), (3, 5))
    assert blocks(pictures, 0, sweep=True) == ((0, 1, 2, 3, 5),)
    least = next(b for b in range(KIB, 4000 * KIB, KIB) if _fits(pictures, b))
    cut = blocks(pictures, least, sweep=True)
    assert len(cut) > 1
    assert [i for block in cut for i in block if i != 5] == [0, 1, 2, 3]


def _fits(pictures: Holding, budget: int) -> bool:
    try:
        blocks(pictures, budget, sweep=True)
    except LearnError:
        return False
    return True


def test_a_small_budget_trains_in_micro_batches_to_the_same_end(pictures: Holding) -> None:
    whole, parts = fresh(), fresh()
    need = need_of(whole, pictures, range(6), PLAIN)
    done = train_blocks(
        parts, pictures, trained=((0, 6),), budget=need.total(9), options=PLAIN, seed=3
    )
    assert done.claims["micro"] == 8
    assert done.claims["estimate_bytes"] == need.total(8) <= need.total(9)
    train_blocks(whole, pictures, trained=((0, 6),), options=PLAIN, seed=3)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-3, atol=1e-5)


def test_what_cannot_fit_is_one_sentence_and_nothing_changes(pictures: Holding) -> None:
    module = fresh()
    before = content(module)
    with pytest.raises(
        LearnError,
        match=r"training conv1, head takes \d+\.\d KiB with one sample at a time, and this peer "
        r"allows 1\.0 KiB: raise its memory, or plan smaller blocks",
    ):
        train_blocks(module, pictures, trained=((0, 6),), body=(0, 5), budget=KIB, options=PLAIN)
    assert content(module) == before


def test_batch_norms_that_learn_see_whole_batches(pictures: Holding) -> None:
    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 4, "norm": "batch"}
    module = zoo.init(recipe, 1)
    budget = need_of(module, pictures, range(6), PLAIN).total(8)
    with pytest.raises(LearnError, match="raise its memory"):
        fit(module, pictures, PLAIN, trained=range(6), budget=budget)
    assert fit(module, pictures, PLAIN, trained=[5], budget=budget).micro > 0


def test_the_meter_sees_what_is_taken_and_given_back() -> None:
    meter = Meter()
    block = torch.ones(24 << 18)  # 24 MiB
    del block
    assert 20 << 20 < meter.taken() < 200 << 20
    assert Meter().taken() < 16 << 20


def test_want_of_memory_ends_the_stop_in_one_sentence(
    pictures: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: object, **__: object) -> None:
        torch.empty(1 << 50, dtype=torch.uint8)  # the allocator refuses

    monkeypatch.setattr(training, "Stop", greedy)
    with pytest.raises(LearnError, match="too little memory to train layers 2:4"):
        train_blocks(fresh(), pictures, trained=((2, 4),), options=PLAIN)
    assert is_want_of_memory(MemoryError())
    assert not is_want_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
