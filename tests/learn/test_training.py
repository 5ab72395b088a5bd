from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

from mfd.learn import Cancelled, Holding, LearnError, rows, training, zoo
from mfd.learn.layers import find_layers
from mfd.learn.options import DEFAULTS, Options, rate
from mfd.learn.rows import Schedule
from mfd.learn.stop import Stop
from mfd.learn.training import measure, train
from tests.learn.conftest import fresh, state_bytes

PLAIN = Options(epochs=2, distill=0, warmup=0, clip=0, logit_adjustment=0, lr=1e-3)
ALL = ((0, 6),)


def test_all_layers_at_one_peer_is_plain_training_bit_for_bit(pictures: Holding) -> None:
    module, reference = fresh(), fresh()
    train(module, pictures, trained=ALL, options=PLAIN, seed=3)

    x, y = torch.from_numpy(pictures.x), torch.from_numpy(pictures.y)
    dice = torch.Generator().manual_seed(3)
    order = torch.cat([torch.randperm(200, generator=dice) for _ in range(2)])
    steps = 400 // 32
    optimizer = torch.optim.Adam(reference.parameters(), 1e-3)
    reference.train()
    for step in range(round(400 / 32)):
        rows = order[step * 32 : step * 32 + 32]
        optimizer.zero_grad()
        F.cross_entropy(reference(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    assert state_bytes(module) == state_bytes(reference)


@pytest.mark.parametrize("trained", [((2, 3),), ((0, 1), (5, 6)), ((4, 6),)])
def test_only_the_range_changes(pictures: Holding, trained: tuple[tuple[int, int], ...]) -> None:
    module = fresh()
    before = state_bytes(module)
    train(module, pictures, trained=trained, options=Options(epochs=0.5))
    after = state_bytes(module)
    inside = {i for lo, hi in trained for i in range(lo, hi)}
    for layer in find_layers(module):
        for key in layer.tensors:
            assert (before[key] != after[key]) == (layer.index in inside), key


def test_gradients_of_a_range_are_those_of_the_whole_model(pictures: Holding) -> None:
    module, whole = fresh(), fresh()
    x, y = torch.from_numpy(pictures.x[:32]), torch.from_numpy(pictures.y[:32])
    F.cross_entropy(whole(x), y).backward()  # type: ignore[no-untyped-call]
    schedule = Schedule.of(200, PLAIN, 0)
    stop = Stop(module, pictures, schedule, [2, 5], PLAIN)
    stop.step(torch.arange(32), 0.0)
    wanted = dict(whole.named_parameters())
    got = {k: p.grad for k, p in module.named_parameters() if p.grad is not None}
    assert {k.split(".")[0] for k in got} == {"conv3", "head"}
    for key, gradient in got.items():
        torch.testing.assert_close(gradient, wanted[key].grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_kept_front_rows_change_nothing(
    pictures: Holding, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 8, "norm": norm}
    options = Options(epochs=2, anchor=0.1)
    kept, computed = zoo.init(recipe, 1), zoo.init(recipe, 1)
    train(kept, pictures, trained=((3, 6),), options=options, seed=4)
    monkeypatch.setattr(rows, "ROWS_BYTES_MAX", 0)
    train(computed, pictures, trained=((3, 6),), options=options, seed=4)
    assert state_bytes(kept) == state_bytes(computed)


def test_frozen_statistics_stay_and_trained_ones_move(pictures: Holding) -> None:
    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 4, "norm": "batch"}
    module = zoo.init(recipe, 1)
    before = state_bytes(module)
    train(module, pictures, trained=((2, 3),), options=Options(epochs=0.5))
    after = state_bytes(module)
    assert before["conv2.1.running_mean"] == after["conv2.1.running_mean"]
    assert before["conv4.1.running_var"] == after["conv4.1.running_var"]
    assert before["conv3.1.running_mean"] != after["conv3.1.running_mean"]
    assert not any(m.training for m in module.modules())


def test_same_seed_same_bytes_other_seed_other_bytes(pictures: Holding) -> None:
    results = []
    for seed in (1, 1, 2):
        module = fresh()
        train(module, pictures, trained=((1, 3),), options=Options(epochs=0.3), seed=seed)
        results.append(state_bytes(module))
    assert results[0] == results[1] != results[2]


def test_it_learns_and_says_so(pictures: Holding) -> None:
    module = fresh()
    claims = train(module, pictures, trained=ALL, options=Options(epochs=8, lr=4e-3))
    assert claims["loss"] < claims["loss_before"] / 3
    assert claims["accuracy"] > 0.95
    assert claims["steps"] == 50
    assert claims["samples"] == 1600
    seen = 1600 // training.MEASURED_SHARE
    assert seen < training.MEASURED_LEAST == 128
    assert measure(module, pictures, limit=128)["loss"] == pytest.approx(claims["loss"])


def drift(holding: Holding, options: Options) -> float:
    module, origin = fresh(), fresh()
    train(module, holding, trained=ALL, options=options)
    pairs = zip(module.parameters(), origin.parameters(), strict=True)
    return sum(float((a - b).detach().square().sum()) for a, b in pairs)


def test_anchor_clip_and_rate_hold_the_model_back(pictures: Holding) -> None:
    free = drift(pictures, PLAIN)
    assert drift(pictures, Options(**{**vars_of(PLAIN), "anchor": 10.0})) < free * 0.9
    sgd = {**vars_of(PLAIN), "optimizer": "sgd"}
    assert drift(pictures, Options(**{**sgd, "clip": 0.01})) < drift(pictures, Options(**sgd)) / 10


def vars_of(options: Options) -> dict[str, object]:
    return {key: getattr(options, key) for key in DEFAULTS}


def test_distillation_keeps_the_received_opinion(pictures: Holding) -> None:
    origin = fresh()
    x = torch.from_numpy(pictures.x)
    divergences = []
    for distill in (0.0, 5.0):
        module = fresh()
        train(module, pictures, trained=ALL, options=Options(epochs=2, distill=distill))
        with torch.no_grad():
            student, teacher = F.log_softmax(module(x), -1), F.softmax(origin(x), -1)
        divergences.append(float(F.kl_div(student, teacher, reduction="batchmean")))
    assert divergences[1] < divergences[0] / 2


def test_logit_adjustment_spares_labels_that_are_absent(pictures: Holding) -> None:
    rows = np.flatnonzero(pictures.y < 2)
    two = Holding(pictures.x[rows], pictures.y[rows], 10)
    biases = []
    for weight in (0.0, 1.0):
        module = fresh()
        options = Options(epochs=2, distill=0, logit_adjustment=weight, optimizer="sgd", lr=0.1)
        train(module, two, trained=((5, 6),), options=options)
        biases.append(module.get_parameter("head.bias")[2:].mean().item())
    start = fresh().get_parameter("head.bias")[2:].mean().item()
    assert abs(biases[1] - start) < abs(biases[0] - start) / 2


def test_rate_is_one_cosine_over_the_whole_journey() -> None:
    options = Options(lr=1.0, warmup=0)
    whole = [rate(options, (0, 1), step, step / 20) for step in range(20)]
    halves = [
        rate(options, half, step, step / 10) for half in ((0, 0.5), (0.5, 1)) for step in range(10)
    ]
    assert whole == pytest.approx(halves)
    assert whole[0] == 1
    assert whole == sorted(whole, reverse=True)
    warm = [rate(Options(lr=1.0, warmup=3), (0, 0), step, step / 10) for step in range(5)]
    assert warm == [0.25, 0.5, 0.75, 1, 1]


def test_a_language_model_learns(pictures: Holding) -> None:
    tokens = np.tile(np.arange(16, dtype=np.uint8), 41)
    text = Holding(tokens[:640].reshape(40, 16), tokens[1:641].reshape(40, 16), 256)
    module = zoo.init({"zoo": "transformer", "width": 32, "depth": 2, "length": 16}, 1)
    claims = train(module, text, trained=((1, 4),), options=Options(epochs=30, batch=8))
    assert claims["accuracy"] > 0.99
    assert claims["loss"] < 1.0 < claims["loss_before"]


def test_dropout_works_in_the_range_alone(pictures: Holding) -> None:
    seen: list[tuple[str, bool]] = []

    class Probe(nn.Dropout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((self.tag, self.training))
            return super().forward(x)

    def probe(tag: str) -> Probe:
        made = Probe(0.5)
        made.tag = tag  # type: ignore[assignment]
        return made

    front = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), probe("front"))
    module = nn.Sequential(front, nn.Sequential(nn.Linear(8, 10), probe("back")))
    train(module, pictures, trained=((1, 2),), options=Options(epochs=0.3, distill=0))
    assert ("back", True) in seen
    assert ("front", True) not in seen


def test_cancel_is_heard_between_steps(pictures: Holding) -> None:
    done: list[float] = []
    with pytest.raises(Cancelled):
        train(
            fresh(),
            pictures,
            trained=ALL,
            progress=done.append,
            cancelled=lambda: len(done) == 3,
        )
    assert len(done) == 3
    with pytest.raises(Cancelled):
        measure(fresh(), pictures, cancelled=lambda: True)


def test_measure_counts_by_hand(pictures: Holding) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].bias.copy_(torch.arange(10.0))
    claims = measure(module, pictures)
    logits = np.arange(10.0)
    assert claims["accuracy"] == 0.1
    wanted = np.log(np.exp(logits).sum()) - logits.mean()
    assert claims["loss"] == pytest.approx(wanted, rel=1e-5)
    assert claims["samples"] == 200


@pytest.mark.parametrize(
    ("learn", "words"),
    [
        ({"epoch": 1}, "no 'epoch'; did you mean 'epochs'? It has epochs, steps"),
        ({"epochs": "2"}, "epochs is a number, not '2'"),
        ({"batch": 3.5}, "batch is a whole number"),
        ({"batch": 0}, "batch must be above 0"),
        ({"lr": -1.0}, "lr is out of range"),
        ({"lr": float("nan")}, "lr is out of range"),
        ({"optimizer": "lion"}, "sgd or sgd-nesterov, not 'lion'"),
    ],
)
def test_wrong_options_are_one_sentence(learn: dict[str, object], words: str) -> None:
    with pytest.raises(LearnError) as caught:
        Options.of(learn)
    assert words in str(caught.value)


def test_options_of_nothing_are_the_defaults() -> None:
    assert Options.of({}) == Options(**DEFAULTS)
    assert Options.of({"epochs": 3, "logit_adjustment": True}).logit_adjustment == 1.0


def test_models_and_data_that_do_not_fit_are_one_sentence(pictures: Holding) -> None:
    with pytest.raises(LearnError, match="do not lie in a model of 6 layers"):
        train(fresh(), pictures, trained=((5, 7),))
    for wrong in ((), ((2, 2),), ((-1, 1),), ((0, 1 << 60),)):
        with pytest.raises(LearnError, match="do not lie"):
            train(fresh(), pictures, trained=wrong)
    odd = Holding(pictures.x.reshape(200, 8, 8), pictures.y, 10)
    with pytest.raises(LearnError, match=r"does not take samples of shape \[8, 8\]"):
        measure(fresh(), odd)
    many = Holding(pictures.x, pictures.y, 11)
    with pytest.raises(LearnError, match=r"answers \[10\] a sample, .* 11 classes"):
        measure(fresh(), many)
    options = Options(lr=1e6, clip=0, distill=0, optimizer="sgd", epochs=2)
    with pytest.raises(LearnError, match=r"the loss is \S+ at step \d+; lower plan.learn lr"):
        train(fresh(), pictures, trained=ALL, options=options)
