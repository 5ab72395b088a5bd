from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mfd.learn import Holding, Learner, LearnError, layers, training, zoo
from mfd.learn.options import Options
from mfd.learn.prototypes import SAMPLES_MIN, Prototypes, head_of, inputs_of
from mfd.learn.stop import Stop
from mfd.learn.training import train_blocks
from mfd.packet.objects import unpack_layer
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LearnTask
from tests.learn.conftest import fresh, state_bytes

ON = Options(epochs=1, prototypes=1.0)
SLOTS = [f"~prototypes.{slot}/head.weight" for slot in ("count", "mean", "variance")]


def of_labels(pictures: Holding, *labels: int) -> Holding:
    kept = np.isin(pictures.y, labels)
    return Holding(pictures.x[kept], pictures.y[kept], pictures.classes)


def test_statistics_are_those_of_the_head_s_inputs(pictures: Holding) -> None:
    module = fresh()
    every = Options(epochs=2, prototypes=1.0)  # in less than a pass some samples are not seen
    done = train_blocks(module, pictures, trained=((0, 6),), options=every)
    body = nn.Sequential(*list(module.children())[:-1])
    with torch.no_grad():
        inputs = body(torch.from_numpy(pictures.x))
    count, mean, variance = (done.carried[slot] for slot in SLOTS)
    labels = torch.from_numpy(pictures.y)
    for label in range(pictures.classes):
        own = inputs[labels == label]
        if len(own) < SAMPLES_MIN:
            assert count[label] == 0
            assert not mean[label].any()
            continue
        assert count[label] == len(own)
        torch.testing.assert_close(mean[label], own.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(variance[label], own.var(0), rtol=1e-4, atol=1e-5)
    assert (count > 0).any()


def test_few_samples_of_a_label_leave_no_trace() -> None:
    """Rules: P-06"""
    head = nn.Linear(3, 2)
    found = Prototypes.of("head", head, {})
    labels = torch.tensor([0] * SAMPLES_MIN + [1] * (SAMPLES_MIN - 1))
    found.learn(torch.rand(len(labels), 3), labels)
    assert found.known.tolist() == [0]
    assert not found.mean[1].any()
    assert not found.variance[1].any()


def test_new_samples_weigh_more_than_old_ones() -> None:
    found = Prototypes.of("head", nn.Linear(2, 1), {})
    labels = torch.zeros(100, dtype=torch.int64)
    found.learn(torch.zeros(100, 2), labels)
    found.learn(torch.ones(100, 2), labels)
    torch.testing.assert_close(found.mean[0], torch.full((2,), 2 / 3))  # 50 old ones, 100 new
    assert found.count[0] == 150


def test_draws_have_the_mean_and_the_spread() -> None:
    torch.manual_seed(0)
    found = Prototypes.of("head", nn.Linear(2, 3), {})
    found.count[1], found.count[2] = 40, 40
    found.mean[1], found.variance[1] = torch.tensor([-1.0, 5.0]), torch.tensor([4.0, 1.0])
    inputs, labels = found.draw(4000)
    assert sorted(set(labels.tolist())) == [1, 2]
    own = inputs[labels == 1]
    torch.testing.assert_close(own.mean(0), found.mean[1], rtol=0, atol=0.15)
    torch.testing.assert_close(own.var(0), found.variance[1], rtol=0.1, atol=0)
    found.mean[1, 0] = 1.0
    assert found.draw(100)[0].min() >= 0  # as after a ReLU


@pytest.mark.parametrize("slot", range(3))
@pytest.mark.parametrize("wrong", ["shape", "nan", "below 0", "type", "lacking"])
def test_what_does_not_fit_begins_afresh(slot: int, wrong: str) -> None:
    head = nn.Linear(4, 3)
    good = Prototypes.of("head", head, {})
    good.learn(torch.rand(60, 4), torch.arange(60) % 3)
    state = {key: value.clone() for key, value in good.state().items()}
    assert Prototypes.of("head", head, state).known.tolist() == [0, 1, 2]
    value = state[SLOTS[slot]]
    if wrong == "below 0":
        value[0] = -1.0
    changed = {"shape": value[:2], "nan": value * torch.nan, "type": value.double()}
    state[SLOTS[slot]] = changed.get(wrong, value)
    if wrong == "lacking":
        del state[SLOTS[slot]]
    kept = wrong == "below 0" and slot == 1  # a mean may be
    assert len(Prototypes.of("head", head, state).known) == (3 if kept else 0)


def test_a_label_that_is_absent_here_is_remembered(pictures: Holding) -> None:
    """Without other aids, a holder of few labels teaches the head to forget the others; draws of
    what the packet knows hold against it."""
    module = fresh()
    options = Options(epochs=30, distill=0, logit_adjustment=0, warmup=0, lr=2e-3, prototypes=1.0)
    first = train_blocks(module, pictures, trained=((0, 6),), options=options)
    known = [int(label) for label in torch.nonzero(first.carried[SLOTS[0]]).flatten()]
    here, absent = known[:2], known[2:]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    loss = {}
    for weight in (0.0, 1.0):
        module.load_state_dict(before)
        short = Options(
            epochs=20, distill=0, logit_adjustment=0, warmup=0, lr=2e-3, prototypes=weight
        )
        train_blocks(
            module,
            of_labels(pictures, *here),
            trained=((5, 6),),
            options=short,
            carried=dict(first.carried),
        )
        loss[weight] = training.measure(module, of_labels(pictures, *absent))["loss"]
    assert loss[1.0] < 0.5 * loss[0.0]


def test_a_stop_that_knows_nothing_yet_trains_as_without(pictures: Holding) -> None:
    plain, with_them = fresh(), fresh()
    train_blocks(plain, pictures, trained=((0, 6),), options=Options(epochs=1))
    train_blocks(with_them, pictures, trained=((0, 6),), options=ON)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(with_them.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_same_seed_same_bytes(pictures: Holding) -> None:
    carried = dict(train_blocks(fresh(), pictures, trained=((0, 6),), options=ON).carried)
    made = []
    for _ in range(2):
        module = fresh()
        held = {key: value.clone() for key, value in carried.items()}
        train_blocks(module, pictures, trained=((4, 6),), options=ON, seed=3, carried=held)
        made.append(state_bytes(module))
    assert made[0] == made[1]


def test_they_travel_with_the_head_and_stay_out_of_the_model(pictures: Holding) -> None:
    """Rules: P-06"""
    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10}
    learn = {"epochs": 1.0, "prototypes": 1.0}
    plan = Plan(recipe=recipe, names=("a",), home=bytes(32), mode="snake", laps=2, learn=learn)
    store: dict[bytes, bytes] = {}
    packed = layers.pack_model(zoo.init(recipe, 1))
    store.update({ref.digest: made.tobytes() for ref, made in packed})
    model = tuple(ref for ref, _ in packed)
    learner = Learner({"a": pictures})
    for trained in (((0, 6),), ((0, 2), (5, 6)), ((0, 2),)):
        task = LearnTask("train", encode_plan(plan), model, name="a", trained=trained)
        result = learner.perform(
            task, store.__getitem__, lambda o: store.update({o.digest: o.tobytes()})
        )
        changed = {ref.index: ref for ref in result.layers}
        model = tuple(changed.get(ref.index, ref) for ref in model)
        carrying = [r.name for r in model if set(SLOTS) <= set(unpack_layer(store[r.digest]))]
        assert carrying == [
            "head"
        ]  # also where the head was not trained: its object is the old one
    module = zoo.build(recipe)
    layers.load_model(module, model, store.__getitem__)
    assert not [key for key in module.state_dict() if key.startswith("~")]


def test_models_without_a_linear_head_and_texts_are_refused(pictures: Holding) -> None:
    with pytest.raises(LearnError, match="linear head"):
        head_of(nn.Sequential(nn.Linear(4, 4), nn.Conv2d(1, 1, 1)))
    tokens = np.zeros((70, 8), np.int64)
    texts = Holding(tokens, tokens, 16)
    module = zoo.init({"zoo": "transformer", "vocabulary": 16, "length": 8, "width": 8}, 0)
    with pytest.raises(LearnError, match="one label a sample"):
        train_blocks(module, texts, trained=((0, 1),), options=ON)


def test_inputs_are_those_of_a_head_within_its_layer() -> None:
    recipe = {"zoo": "vgg11", "inputs": [3, 32, 32], "classes": 4, "width": 4}
    module = zoo.init(recipe, 0).eval()
    name, head = head_of(module)
    assert name == "head.3"
    inputs = inputs_of(module, head, torch.rand(2, 3, 32, 32))
    assert inputs.shape == (2, head.in_features)
    assert not head._forward_pre_hooks


def test_without_them_nothing_is_drawn(pictures: Holding) -> None:
    schedule = training.Schedule.of(len(pictures.x), Options(), 0)
    assert Stop(fresh(), pictures, schedule, [5], Options()).prototypes is None
