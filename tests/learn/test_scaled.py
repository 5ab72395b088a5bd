"""Weak peers train versions inside the model; the rest of it keeps every bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mfd.learn import Holding, Learner, LearnError, layers, zoo
from mfd.learn.axes import axes_of
from mfd.learn.exits import joint_loss
from mfd.learn.memory import need_of
from mfd.learn.scaled import Part, nested
from mfd.learn.training import Options, train_blocks
from mfd.packet.manifest import Scale
from mfd.packet.objects import unpack_layer
from mfd.packet.plan import Plan, decode_plan, encode_plan
from mfd.packet.scales import SCALES_KEY, parse_scale, plain_scales, scales_of
from mfd.packet.scaling import Axes, scale
from mfd.packet.task import LayerRef, LearnResult, LearnTask
from tests.learn.conftest import packed

CNN: dict[str, Any] = {
    "zoo": "cnn",
    "inputs": [1, 8, 8],
    "classes": 10,
    "width": 8,
    "hidden": 16,
    "norm": "fours",
    "exits": True,
}
HALF = Scale(0.5)
PLAN = Plan(
    recipe=CNN,
    names=("d",),
    home=bytes(32),
    learn={"epochs": 0.3},
    extra={SCALES_KEY: plain_scales([HALF, Scale(1, 2), Scale(0.5, 2, 8)])},
)


class Weak:
    """A learner whose memory holds what `memory` says."""

    def __init__(self, holding: Holding, memory: int, plan: Plan = PLAN) -> None:
        self.plan = plan
        self.learner = Learner({"d": holding}, memory=memory)
        self.store: dict[bytes, bytes] = {}
        self.model = packed(zoo.init(plan.recipe, 1), self.store)

    def train(self, trained: tuple[tuple[int, int], ...] = ((0, 4),)) -> LearnResult:
        task = LearnTask(
            "train", encode_plan(self.plan), self.model, name="d", trained=trained, seed=4
        )
        return self.learner.perform(
            task,
            self.store.__getitem__,
            lambda made: self.store.update({made.digest: made.tobytes()}),
        )

    def tensors(self, result: LearnResult | None = None) -> dict[str, np.ndarray[Any, Any]]:
        changed = {ref.index: ref for ref in result.layers} if result else {}
        refs = [changed.get(ref.index, ref) for ref in self.model]
        return {
            key: tensor.array()
            for ref in refs
            for key, tensor in unpack_layer(self.store[ref.digest]).items()
        }


def renewed(model: tuple[LayerRef, ...], result: LearnResult) -> tuple[LayerRef, ...]:
    changed = {ref.index: ref for ref in result.layers}
    return tuple(changed.get(ref.index, ref) for ref in model)


def needs(holding: Holding, by: Scale) -> int:
    """Bytes for one sample at a time."""
    module = zoo.build(Part.of(CNN, by).recipe if by != Scale() else CNN)
    options = Options.of(PLAN.learn)
    inside = nested(CNN, scales_of(PLAN), module) if by == Scale() else None
    return need_of(module, holding, range(by.depth or 4), options, inside).total(1)


def kept(name: str, values: np.ndarray[Any, Any], by: Scale) -> np.ndarray[Any, Any]:
    """Which coordinates of a tensor a version holds."""
    axes = Axes.of(axes_of(CNN))
    places = np.arange(values.size, dtype=np.int32).reshape(values.shape)
    cut = scale({"x": {name: places}}, Scale(by.width), axes) if axes.cuts(name) else None
    inside = np.zeros(values.size, bool)
    inside[cut["x"][name].array().reshape(-1) if cut else places.reshape(-1)] = True
    return inside.reshape(values.shape)


def test_a_weak_peer_trains_what_fits_and_the_rest_keeps_its_bits(pictures: Holding) -> None:
    """Rules: P-33, P-405, W-21"""
    weak = Weak(pictures, needs(pictures, HALF))
    result = weak.train()
    assert (result.claims["width"], result.claims["depth"], result.claims["bits"]) == (0.5, 0, 0)
    before, after = weak.tensors(), weak.tensors(result)
    moved = 0
    for name, values in before.items():
        inside = kept(name, values, HALF)
        assert after[name][~inside].tobytes() == values[~inside].tobytes(), name
        moved += int((after[name] != values).sum())
    assert moved > 1000
    assert result.claims["loss"] < result.claims["loss_before"]


def test_a_weak_peer_draws_classes_too_and_hands_on_what_is_told(pictures: Holding) -> None:
    """Rules: P-07"""
    many = Holding(np.repeat(pictures.x, 3, 0), np.repeat(pictures.y, 3), 10, tells=True)
    plan = replace(PLAN, learn={**PLAN.learn, "replay": 0.5})
    weak = Weak(many, needs(pictures, HALF), plan)
    result = weak.train()
    assert result.claims["width"] == 0.5
    assert result.claims["replayed"] == 10
    told = {n: t for n, t in weak.tensors(result).items() if n.startswith("~classes.")}
    assert [t.shape for n, t in told.items() if n.startswith("~classes.mean/")] == [(10, 64)]
    later = Weak(replace(many, tells=False), needs(pictures, HALF), plan)
    later.store, later.model = weak.store, renewed(weak.model, result)
    again = later.train()
    assert again.claims["replayed"] == 10
    kept_on = later.tensors(again)
    assert all(np.array_equal(kept_on[name], tensor) for name, tensor in told.items())


def test_the_part_is_the_slices_and_learns_as_a_model_of_its_own(pictures: Holding) -> None:
    """Rules: W-21"""
    weak = Weak(pictures, needs(pictures, HALF))
    result = weak.train()
    part = Part.of(CNN, HALF)
    alone = zoo.build(part.recipe)
    full = {ref.name: unpack_layer(weak.store[ref.digest]) for ref in weak.model}
    cut = scale(full, HALF, part.axes)
    alone.load_state_dict(
        {k: t.torch().clone() for layer in cut.values() for k, t in layer.items()}
    )
    options, budget = Options.of(PLAN.learn), needs(pictures, HALF)
    train_blocks(alone, pictures, trained=((0, 4),), options=options, seed=4, budget=budget)
    after = weak.tensors(result)
    for name, value in alone.state_dict().items():
        inside = kept(name, after[name], HALF)
        assert after[name][inside].tobytes() == value.numpy().tobytes(), name


def test_early_exits_follow_the_full_answer_and_not_it_them() -> None:
    full = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    early = torch.zeros(1, 3, requires_grad=True)
    total = joint_loss(lambda said: 0.0 * said.sum(), full, [early], 2.0)
    p, q = torch.softmax(full.detach() / 2, -1), torch.full((1, 3), 1 / 3)
    kl = float((p * (p / q).log()).sum())
    assert float(total.detach()) == pytest.approx(4 * kl / 2)  # temperature squared, two answers
    total.backward()
    assert early.grad is not None
    assert early.grad[0, 0] < 0 < early.grad[0, 2]
    assert full.grad is not None
    assert not full.grad.any()


def test_depth_trains_the_first_blocks_and_their_exits_alone(pictures: Holding) -> None:
    """Rules: P-402, W-21"""
    plan = replace(PLAN, extra={SCALES_KEY: plain_scales([Scale(1, 2)])})
    weak = Weak(pictures, needs(pictures, Scale(1, 2)), plan)
    result = weak.train()
    assert [ref.name for ref in result.layers] == ["conv1", "conv2"]
    assert result.claims["depth"] == 2
    before, after = weak.tensors(), weak.tensors(result)
    assert (before["conv2.exit.2.weight"] != after["conv2.exit.2.weight"]).any()
    part = Part.of(CNN, Scale(1, 2))
    names = ["conv1", "conv2", "conv3", "conv4"]
    assert part.ranges(names, ((1, 4),)) == ((1, 2),)
    with pytest.raises(LearnError, match="depth 2 has none of the layers conv3, conv4"):
        part.ranges(names, ((2, 4),))


def test_coarse_weights_add_what_they_have_learned(pictures: Holding) -> None:
    """A weight that did not move keeps the bits that 8 bits could not hold. Rules: W-21"""
    plan = replace(
        PLAN, extra={SCALES_KEY: plain_scales([Scale(0.5, 0, 8)])}, learn={"epochs": 0.1}
    )
    weak = Weak(pictures, needs(pictures, HALF), plan)
    result = weak.train()
    assert result.claims["bits"] == 8
    before, after = weak.tensors(), weak.tensors(result)
    name = "conv3.body.0.weight"
    inside = kept(name, before[name], HALF)
    step = np.abs(after[name] - before[name])[inside]
    assert step.max() < 0.02, "the rounding to 8 bits is no part of the update"
    assert (step > 0).any()


def test_what_fits_is_not_cut_and_what_fits_nowhere_is_one_sentence(pictures: Holding) -> None:
    """Rules: W-21"""
    whole = needs(pictures, Scale())
    assert "width" not in Weak(pictures, whole).train().claims
    assert Weak(pictures, whole - 1).train().claims["width"] == 0.5
    with pytest.raises(LearnError, match=r"the weights alone take \d+ bytes.*nor does a scale"):
        Weak(pictures, 1000).train()


def test_narrower_versions_learn_inside_the_full_one(pictures: Holding) -> None:
    """With the scales in the plan the half answers as well as the full model; without it cannot."""

    def half_after(extra: dict[int, Any]) -> float:
        plan = replace(PLAN, learn={"epochs": 6, "distill": 0.0}, extra=extra)
        strong = Weak(pictures, 0, plan)
        values = strong.tensors(strong.train())
        part = Part.of(CNN, HALF)
        cut = scale({"x": values}, HALF, part.axes)["x"]
        small = zoo.build(part.recipe)
        small.load_state_dict({k: t.torch().clone() for k, t in cut.items()})
        y = small.eval()(torch.from_numpy(pictures.x)).argmax(-1).numpy()
        return float((y == pictures.y).mean())

    assert half_after({SCALES_KEY: plain_scales([HALF])}) > half_after({}) + 0.2


def test_nested_versions_are_the_slices(pictures: Holding) -> None:
    module = zoo.init(CNN, 1)
    answers = nested(CNN, [Scale(1, 2), HALF], module)
    assert answers is not None
    part = Part.of(CNN, HALF)
    state = {k: v.numpy() for k, v in module.state_dict().items()}
    cut = scale({"x": state}, HALF, part.axes)["x"]
    small = zoo.build(part.recipe).eval()
    small.load_state_dict({k: t.torch().clone() for k, t in cut.items()})
    x = torch.from_numpy(pictures.x[:8])
    with torch.no_grad():
        torch.testing.assert_close(answers(x)[0], small(x))
    assert nested(CNN, [Scale(1, 2)], module) is None


def test_scales_of_a_plan() -> None:
    """Rules: P-33"""
    scales = (parse_scale("0.5"), parse_scale("1/2:3"), parse_scale("1:0:8"))
    plan = replace(PLAN, extra={SCALES_KEY: plain_scales(scales)})
    assert scales_of(decode_plan(encode_plan(plan))) == scales
    for odd in (
        7,
        [[1, 2, 0]],
        [[2, 4, 0, 0]],
        [[1, 2, 0, -1]],
        [["x", 2, 0, 0]],
        [[1, 2, 0, 0]] * 17,
    ):
        assert scales_of(replace(PLAN, extra={SCALES_KEY: odd})) == ()
    assert scales_of(replace(PLAN, extra={})) == ()
    with pytest.raises(ValueError, match="scale 'wide' is not WIDTH:DEPTH:BITS"):
        parse_scale("wide")
    with pytest.raises(ValueError, match="at most 16 scales, not 17"):
        plain_scales([HALF] * 17)


def test_a_model_that_cannot_be_cut_so_is_one_sentence(pictures: Holding) -> None:
    for recipe, words in (
        ({"zoo": "moe"}, "no axes are known of 'moe'"),
        ({**CNN, "axes": {"blocks": 3}}, "blocks"),
        ({"zoo": "cnn", "inputs": 3}, "width 1/2 of this model cannot be trained"),
    ):
        with pytest.raises(LearnError, match=words):
            Part.of(recipe, HALF)
    bare = {**CNN, "exits": False}
    task_layers = packed(zoo.init(bare, 1), store := {})
    plan = replace(PLAN, recipe=bare, extra={SCALES_KEY: plain_scales([Scale(1, 2)])})
    task = LearnTask("train", encode_plan(plan), task_layers, name="d", trained=((0, 6),))
    with pytest.raises(
        LearnError, match=r"nor does a scale of the plan fit: recipe .cnn. cannot be built: depth"
    ):
        Learner({"d": pictures}, memory=1000).perform(task, store.__getitem__, pytest.fail)
    assert layers.find_layers(zoo.build(bare))[-1].name == "head"
