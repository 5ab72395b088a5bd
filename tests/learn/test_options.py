"""What a stop's options do, each against torch alone or against a stop without it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name

from mfd.learn import Holding, LearnError, zoo
from mfd.learn.layers import find_layers
from mfd.learn.options import Options, rate
from mfd.learn.stepping import Stepper
from mfd.learn.training import train, train_blocks
from tests.learn.conftest import fresh, state_bytes

PLAIN: dict[str, Any] = {
    "epochs": 2,
    "distill": 0.0,
    "warmup": 0,
    "clip": 0.0,
    "logit_adjustment": 0.0,
    "schedule": "constant",
}
ALL = ((0, 6),)


def of(**learn: Any) -> Options:
    return Options.of({**PLAIN, **learn})


def reference(pictures: Holding, optimizer: Any, steps: int, seed: int) -> torch.nn.Module:
    """The bare loop: torch and nothing else."""
    module = fresh()
    x, y = torch.from_numpy(pictures.x), torch.from_numpy(pictures.y)
    dice = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(200, generator=dice) for _ in range(2 + steps * 32 // 200)])
    stepper = optimizer(module.parameters())
    module.train()
    for step in range(steps):
        rows = order[step * 32 : step * 32 + 32]
        stepper.zero_grad()
        F.cross_entropy(module(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        stepper.step()
    return module


@pytest.mark.parametrize(
    ("learn", "optimizer"),
    [
        ({"optimizer": "sgd", "momentum": 0.0}, lambda p: torch.optim.SGD(p, 0.01)),
        ({"optimizer": "sgd"}, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
        (
            {"optimizer": "sgd-nesterov", "momentum": 0.8, "weight_decay": 0.1},
            lambda p: torch.optim.SGD(p, 0.01, momentum=0.8, nesterov=True, weight_decay=0.1),
        ),
        (
            {"optimizer": "adam", "weight_decay": 0.1},
            lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
        ),
        (
            {"optimizer": "adamw", "weight_decay": 0.1},
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
        ),
    ],
)
def test_optimisers_are_torch_own_bit_for_bit(
    pictures: Holding, learn: dict[str, Any], optimizer: Any
) -> None:
    module = fresh()
    claims = train(module, pictures, trained=ALL, options=of(lr=0.01, steps=9, **learn), seed=5)
    assert claims["steps"] == 9
    assert state_bytes(module) == state_bytes(reference(pictures, optimizer, 9, 5))


def test_schedules() -> None:
    at = [0.0, 0.25, 0.5, 1.0]
    for schedule, wanted in [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0]),
        ("cosine", [1, 0.5 + math.sqrt(0.125), 0.5, 0]),
    ]:
        options = Options(lr=1.0, warmup=0, schedule=schedule)
        assert [rate(options, (0, 1), 9, part) for part in at] == pytest.approx(wanted)
        assert rate(options, (0.5, 1), 0, 0) == pytest.approx(rate(options, (0, 1), 0, 0.5))


def test_micro_batches_add_up_to_the_batch(pictures: Holding) -> None:
    """Rounding apart, and with all that stands in the loss."""
    whole, parts = fresh(), fresh()
    learn = {"epochs": 1.0, "batch": 30, "optimizer": "sgd", "lr": 0.01}
    train(whole, pictures, trained=((2, 6),), options=Options.of(learn), seed=2)
    train(parts, pictures, trained=((2, 6),), options=Options.of({**learn, "micro": 7}), seed=2)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-4, atol=1e-6)
    assert state_bytes(whole) != state_bytes(parts) or learn["batch"] <= 7


def test_the_average_is_committed_in_place_of_the_last_weights(pictures: Holding) -> None:
    """e(0) = received, e(t+1) = d e(t) + (1 - d) w(t+1): the last one is what stays."""
    learn = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.05, "steps": 1}
    start, module = fresh().state_dict(), fresh()
    train(module, pictures, trained=ALL, options=of(**learn), seed=1)
    stepped = module.state_dict()
    averaged = fresh()
    train(averaged, pictures, trained=ALL, options=of(**learn, ema=0.75), seed=1)
    for key, value in averaged.state_dict().items():
        torch.testing.assert_close(value, 0.75 * start[key] + 0.25 * stepped[key])


def test_carried_state_goes_on_as_if_there_had_been_no_stop(pictures: Holding) -> None:
    for optimizer in ("adam", "sgd"):
        learn = {"optimizer": optimizer, "carry": True, "lr": 0.01, "batch": 200}
        module, once = fresh(), fresh()
        first = train_blocks(module, pictures, trained=ALL, options=of(steps=3, **learn), seed=1)
        names = set(first.carried)
        assert all(name.startswith(f"~{optimizer}.") for name in names)
        kept = {k: v.clone() for k, v in first.carried.items()}
        train_blocks(
            module, pictures, trained=ALL, options=of(steps=2, **learn), seed=1, carried=kept
        )
        train(once, pictures, trained=ALL, options=of(steps=5, **learn), seed=1)
        dropped = fresh()
        for steps in (3, 2):
            train(dropped, pictures, trained=ALL, options=of(steps=steps, **learn), seed=1)
        pairs = [(once, module), (once, dropped)]
        gaps = [
            max(
                float((a - b).detach().abs().max())
                for a, b in zip(one.parameters(), two.parameters(), strict=True)
            )
            for one, two in pairs
        ]
        assert gaps[0] < gaps[1] / 10  # the batch is all samples, in another order


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        ("step", torch.tensor(-1.0)),  # Adam divides by what it makes of it
        ("step", torch.ones(2, 3)),
        ("exp_avg", torch.tensor(0.0)),
        ("exp_avg", torch.ones(2, 3, dtype=torch.int64)),
        ("exp_avg", torch.full((2, 3), float("nan"))),
        ("exp_avg_sq", torch.full((2, 3), -1.0)),
    ],
)
def test_state_that_no_optimiser_has_written_begins_afresh(slot: str, value: torch.Tensor) -> None:
    """Rules: P-06"""
    own = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3), "exp_avg_sq": torch.ones(2, 3)}

    def stepper(state: dict[str, torch.Tensor]) -> Stepper:
        made = Stepper({"w": torch.nn.Parameter(torch.zeros(2, 3))}, Options())
        made.resume({f"~adam.{name}/w": tensor for name, tensor in state.items()})
        return made

    assert set(stepper(own).state()) == {f"~adam.{name}/w" for name in own}
    strange = stepper({**own, slot: value})
    assert not strange.state()
    strange.parameters[0].grad = torch.ones(2, 3)
    strange.step(0.1)
    assert torch.isfinite(strange.parameters[0]).all()


def test_a_sweep_trains_block_after_block(pictures: Holding) -> None:
    swept = fresh()
    done = train_blocks(
        swept,
        pictures,
        trained=ALL,
        body=(0, 5),
        block=2,
        sweep=True,
        options=of(epochs=3.0),
        seed=4,
    )
    assert done.trained == ALL
    assert done.claims["blocks"] == 3
    assert done.claims["samples"] == 3 * 192  # a third of three passes each, in whole batches
    by_hand = fresh()
    for number, ranges in enumerate((((0, 2), (5, 6)), ((2, 4), (5, 6)), ((4, 6),))):
        train(by_hand, pictures, trained=ranges, options=of(epochs=1.0), seed=4 + number)
    assert state_bytes(swept) == state_bytes(by_hand)


def test_seconds_end_a_stop(pictures: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("mfd.learn.training.time.monotonic", lambda: next(clock) / 4)
    seen: list[float] = []
    claims = train(fresh(), pictures, trained=ALL, options=of(seconds=2.0), progress=seen.append)
    assert claims["steps"] == 7  # a tick of a quarter a step, the first one being the start
    assert seen == [(i + 1) / 8 for i in range(7)]


def test_bf16_learns_and_keeps_full_weights(pictures: Holding) -> None:
    module = fresh()
    options = Options(epochs=8, lr=4e-3, precision="bf16")
    claims = train(module, pictures, trained=ALL, options=options)
    assert claims["accuracy"] > 0.9
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    full = fresh()
    train(full, pictures, trained=ALL, options=Options(epochs=8, lr=4e-3))
    assert state_bytes(full) != state_bytes(module)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_learn_by_wide_copies(pictures: Holding, dtype: torch.dtype) -> None:
    """Steps far below what the type resolves add up, as they do in 32 bits."""
    module, wide = fresh().to(dtype), fresh()
    for target, source in zip(wide.parameters(), module.parameters(), strict=True):
        target.data.copy_(source.data)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    options = of(epochs=6, optimizer="sgd", momentum=0.0, lr=2e-3, clip=5.0)
    claims = train(module, pictures, trained=((4, 6),), options=options)
    train(wide, pictures, trained=((4, 6),), options=options)
    assert {p.dtype for p in module.parameters()} == {dtype}
    after = module.state_dict()
    assert {k.split(".")[0] for k in before if not after[k].equal(before[k])} == {"fc", "head"}
    assert math.isfinite(claims["loss"])
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value.float(), wide.state_dict()[key], rtol=2**-7, atol=2e-3)


def test_dead_options_are_refused() -> None:
    for learn, words in [
        ({"schedule": "staircase"}, "schedule is cosine, linear or constant, not 'staircase'"),
        ({"precision": "fp8"}, "precision is full or bf16"),
        ({"device": "tpu"}, "device is auto, cpu or cuda"),
        ({"ema": 1.0}, "ema must be below 1"),
        ({"epochs": 0}, "epochs must be above 0, or steps, or seconds"),
        ({"optimizer": "sgd-nesterov", "momentum": 0.0}, "needs a momentum"),
        ({"steps": 2.5}, "steps is a whole number"),
    ]:
        with pytest.raises(LearnError, match=words):
            Options.of(learn)
    assert Options.of({"epochs": 0, "steps": 3}).steps == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_plan_that_wants_a_gpu_is_told_when_there_is_none(pictures: Holding) -> None:
    with pytest.raises(LearnError, match="wants cuda, and this peer has none"):
        train(fresh(), pictures, trained=ALL, options=of(device="cuda"))
    assert find_layers(fresh())[0].index == 0
    train(
        zoo.init({"zoo": "mlp", "inputs": [1, 8, 8], "classes": 10}, 1),
        pictures,
        trained=((0, 1),),
        options=of(device="auto", steps=1),
    )
