from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mfd.learn import Cancelled, Holding, HoldingError, Learner, LearnError
from mfd.learn.layers import find_layers, load
from mfd.learn.training import Options, train
from mfd.packet.objects import pack_layer
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LayerRef, LearnResult, LearnTask, Sibling
from tests.learn.conftest import CNN, fresh, packed, plan_of, state_bytes


class Desk:
    """A learner with its objects."""

    def __init__(self, holding: Holding, **options: Any) -> None:
        self.learner = Learner({"d": holding}, **options)
        self.store: dict[bytes, bytes] = {}
        self.model = packed(fresh(), self.store)
        self.reads: list[bytes] = []

    def read(self, digest: bytes) -> bytes:
        self.reads.append(digest)
        return self.store[digest]

    def perform(self, kind: Any = "train", **fields: Any) -> LearnResult:
        fields = {"plan": plan_of(epochs=0.3), "layers": self.model, "name": "d", **fields}
        return self.learner.perform(
            LearnTask(kind, **fields),
            self.read,
            lambda made: self.store.update({made.digest: made.tobytes()}),
        )


def renew(model: tuple[LayerRef, ...], result: LearnResult) -> tuple[LayerRef, ...]:
    changed = {ref.index: ref for ref in result.layers}
    return tuple(changed.get(ref.index, ref) for ref in model)


def test_train_returns_the_trained_layers_alone_and_they_are_right(pictures: Holding) -> None:
    desk = Desk(pictures)
    result = desk.perform(trained=((1, 2), (5, 6)), seed=9, journey=(0.2, 0.3))
    assert [(ref.index, ref.name) for ref in result.layers] == [(1, "conv2"), (5, "head")]
    reference = fresh()
    train(
        reference,
        pictures,
        trained=((1, 2), (5, 6)),
        options=Options(epochs=0.3),
        seed=9,
        journey=(0.2, 0.3),
    )
    assert renew(desk.model, result) == packed(reference, {})
    claims = result.claims
    assert claims["samples"] == 64
    assert claims["labels"] == 10
    assert claims["peak_bytes"] > 50e6
    assert set(claims) >= {"loss_before", "loss", "accuracy", "seconds", "steps"}
    assert all(type(v) is float for v in claims.values())


def test_result_survives_the_wire(pictures: Holding) -> None:
    result = Desk(pictures).perform(trained=((5, 6),))
    assert LearnResult.from_wire(result.to_wire()) == result


def test_only_layers_that_differ_are_read_again(pictures: Holding) -> None:
    desk = Desk(pictures)
    result = desk.perform(trained=((5, 6),))
    assert len(desk.reads) == 6
    desk.model = renew(desk.model, result)
    desk.perform("measure")
    assert len(desk.reads) == 6
    desk.model = packed(fresh(2), desk.store)
    desk.perform("measure")
    assert len(desk.reads) > 6


def test_a_failed_task_leaves_nothing_behind(pictures: Holding) -> None:
    desk = Desk(pictures)
    task = LearnTask("train", plan_of(), desk.model, name="d", trained=((0, 6),))
    steps = iter([False, False, True])
    with pytest.raises(Cancelled):
        desk.learner.perform(task, desk.read, pytest.fail, cancelled=lambda: next(steps))
    clean = Desk(pictures).perform("measure")
    assert desk.perform("measure").claims["loss"] == clean.claims["loss"]


def test_measure_changes_nothing(pictures: Holding) -> None:
    result = Desk(pictures).perform("measure")
    assert result.layers == ()
    assert result.claims["samples"] == 200
    assert result.claims["loss"] == pytest.approx(2.3, abs=0.3)


def test_merge_averages_versions(pictures: Holding) -> None:
    desk = Desk(pictures)
    one = renew(desk.model, desk.perform(trained=((2, 4),), seed=1))
    two = renew(desk.model, desk.perform(trained=((2, 4),), seed=2))
    result = desk.perform("merge", siblings=(Sibling(one, 1.0), Sibling(two, 3.0)))
    assert [ref.index for ref in result.layers] == [2, 3]
    modules = [fresh() for _ in range(3)]
    for module, model in zip(modules, (one, two, renew(desk.model, result)), strict=True):
        for layer, ref in zip(find_layers(module), model, strict=True):
            load(module, layer, desk.store[ref.digest])
    a, b, c = (dict(m.named_parameters()) for m in modules)
    for key, value in c.items():
        torch.testing.assert_close(value, 0.25 * a[key] + 0.75 * b[key])
    assert state_bytes(modules[2])["fc.1.bias"] == state_bytes(fresh())["fc.1.bias"]


def test_a_sibling_that_does_not_pass_the_gate_is_left_out(pictures: Holding) -> None:
    """Rules: W-48"""
    desk = Desk(pictures)
    own = desk.model
    good = renew(own, desk.perform(trained=((0, 6),), seed=1, plan=plan_of(epochs=3.0)))
    broken = fresh()
    with torch.no_grad():
        broken.get_parameter("fc.1.bias").fill_(float("nan"))
    unsound = packed(broken, desk.store)
    desk.model = good
    three = (Sibling(good, 1.0), Sibling(own, 1.0), Sibling(unsound, 1.0))
    told = desk.perform("merge", siblings=three, gate=0.0)
    assert {k: v for k, v in told.claims.items() if k.startswith("out")} == {"out1": 3.0, "out2": 1}
    assert told.layers == ()
    assert told.claims["samples"] == 1.0
    kinder = desk.perform("merge", siblings=three, gate=100.0)
    assert [k for k in kinder.claims if k.startswith("out")] == ["out2"]
    assert len(kinder.layers) == 6
    near = desk.perform("merge", siblings=three, rule="near", radius=1e-6)
    assert {k: v for k, v in near.claims.items() if k.startswith("out")} == {"out1": 2.0, "out2": 1}
    alone = desk.perform("merge", siblings=(Sibling(unsound, 1.0),))
    assert alone.layers == ()


def test_a_sibling_of_another_form_is_left_out_and_the_others_are_merged(
    pictures: Holding,
) -> None:
    """Rules: W-48"""
    desk = Desk(pictures)
    good = packed(fresh(2), desk.store)
    first = {"conv1.0.weight": torch.zeros(16, 1, 3, 3), "conv1.0.bias": torch.zeros(17)}
    other = pack_layer(first)
    broken = b"no layer at all" * 8
    desk.store |= {other.digest: other.tobytes(), bytes(32): broken}
    misshapen = (replace(good[0], digest=other.digest), *good[1:])
    no_layer = (replace(good[0], digest=bytes(32)), *good[1:])
    shares = (0.25,) * 6
    versions = (desk.model, misshapen, no_layer, good)
    siblings = tuple(Sibling(layers, 0.25, shares) for layers in versions)
    told = desk.perform("merge", siblings=siblings, gate=100.0)
    assert {k: v for k, v in told.claims.items() if k.startswith("out")} == {"out1": 4, "out2": 4}
    pair = (Sibling(desk.model, 0.25, shares), Sibling(good, 0.25, shares))
    assert told.layers == desk.perform("merge", siblings=pair, gate=100.0).layers


def test_a_local_recipe_is_built_by_the_owner(pictures: Holding) -> None:
    plan = encode_plan(Plan(recipe={"local": "mine"}, names=("d",), home=bytes(32)))
    asked = []

    def build(recipe: Any) -> torch.nn.Module:
        asked.append(dict(recipe))
        return fresh(3)

    result = Desk(pictures, build=build).perform(plan=plan, trained=((5, 6),))
    assert [ref.name for ref in result.layers] == ["head"]
    assert asked == [{"local": "mine"}]
    with pytest.raises(LearnError, match=r"{'local': 'mine'} cannot be built: integer division"):
        Desk(pictures, build=lambda recipe: 1 // 0).perform(plan=plan, trained=((5, 6),))
    with pytest.raises(
        LearnError, match=r"cannot build the recipe {'local': 'mine'}; it knows cnn"
    ):
        Desk(pictures).perform(plan=plan, trained=((5, 6),))


def test_a_model_without_layers_does_not_take_the_place_of_the_last_one(pictures: Holding) -> None:
    desk = Desk(pictures, build=lambda recipe: torch.nn.Flatten())
    before = desk.perform("measure").claims["loss"]
    bare = encode_plan(Plan(recipe={"local": "bare"}, names=("d",), home=bytes(32)))
    with pytest.raises(LearnError, match="Flatten has no parameters, so there is nothing to learn"):
        desk.perform("measure", plan=bare)
    assert desk.perform("measure").claims["loss"] == before


def test_describe(pictures: Holding) -> None:
    learner = Learner({"a": pictures, "b": "sklearn:iris", "c": "sklearn:iriss"})
    form = {"shape": [1, 8, 8], "classes": 10, "text": False, "whole": False}
    labels = {str(i): 20 for i in range(10)}
    assert learner.describe("a") == {"samples": 200, "labels": labels, "form": form}
    assert learner.describe("b")["samples"] == 120
    with pytest.raises(HoldingError, match="no set 'iriss'"):
        learner.describe("c")
    with pytest.raises(LearnError, match="does not hold 'x'; it holds a, b, c"):
        learner.describe("x")


def test_a_recipe_larger_than_its_packet_is_not_built(pictures: Holding) -> None:
    huge = {"zoo": "mlp", "inputs": [65536], "classes": 10, "hidden": [65536, 65536]}
    with pytest.raises(LearnError, match=r"needs 3.* bytes, the packet's layers have"):
        Desk(pictures).perform("measure", plan=plan_of(huge))


def test_tasks_that_do_not_fit_are_one_sentence(pictures: Holding) -> None:
    desk = Desk(pictures)
    with pytest.raises(LearnError, match="no recipe 'gnn' in the zoo"):
        desk.perform("measure", plan=plan_of({"zoo": "gnn"}))
    with pytest.raises(LearnError, match=r"the packet has 5 layers .*, this model 6"):
        desk.perform("measure", layers=desk.model[:5])
    with pytest.raises(LearnError, match=r"plan.learn has no 'epoch'"):
        desk.perform(plan=plan_of(epoch=1), trained=((5, 6),))
    language = Plan(recipe=CNN, names=("d",), home=bytes(32), task="language")
    with pytest.raises(LearnError, match="task is language, but 'd' holds labelled samples"):
        desk.perform("measure", plan=encode_plan(language))
    with pytest.raises(LearnError, match="there is no task 'dream'"):
        desk.perform("dream")
    wrong = (LayerRef(0, "conv1", desk.model[1].digest, desk.model[1].raw_bytes), *desk.model[1:])
    with pytest.raises(LearnError, match=r"layer 'conv1' does not have the tensors of this model"):
        desk.perform("measure", layers=wrong)


def test_a_plan_gets_no_more_threads_than_the_owner_allows(pictures: Holding) -> None:
    desk = Desk(pictures, threads=2)
    desk.perform("measure", plan=plan_of(threads=64))
    assert torch.get_num_threads() == 2
    desk.perform("measure", plan=plan_of(threads=1))
    assert torch.get_num_threads() == 1
    desk.perform("measure")
    assert torch.get_num_threads() == 2


def test_the_optimiser_travels_with_its_layers(pictures: Holding) -> None:
    """Rules: P-06"""
    desk, plan = Desk(pictures), plan_of(steps=3, carry=True)
    bare = {ref.index: ref.raw_bytes for ref in desk.model}
    first = desk.perform(plan=plan, trained=((4, 6),), seed=1)
    desk.model = renew(desk.model, first)
    carried = {ref.index: ref.raw_bytes for ref in desk.model}
    assert all(carried[i] == bare[i] for i in range(4))
    assert all(2.5 < carried[i] / bare[i] < 4 for i in (4, 5))  # two slots of Adam, and its steps
    moved = Desk(pictures)  # another peer, which never saw the walker
    moved.store, moved.model = desk.store, desk.model
    here = desk.perform(plan=plan, trained=((4, 6),), seed=2)
    assert moved.perform(plan=plan, trained=((4, 6),), seed=2).layers == here.layers
    afresh = desk.perform(plan=plan_of(steps=3), trained=((4, 6),), seed=2)
    assert [ref.raw_bytes for ref in afresh.layers] == [bare[4], bare[5]]
    assert desk.perform("measure").claims["loss"] > 0
    merged = desk.perform("merge", siblings=(Sibling(renew(desk.model, here), 1.0),))
    assert [ref.raw_bytes for ref in merged.layers] == [bare[4], bare[5]]


def test_a_learner_says_which_layers_its_memory_allowed(pictures: Holding) -> None:
    """Rules: W-26"""
    fields = {"plan": plan_of(epochs=0.3, distill=0.0), "trained": ((0, 6),), "body": (0, 5)}
    free = Desk(pictures).perform(**fields)
    assert free.trained == ((0, 6),)
    assert "micro" not in free.claims
    tight = Desk(pictures, memory=130 << 10).perform(**fields)
    (low, high), head = tight.trained
    assert (low, head) == (0, (5, 6))
    assert high < 5
    assert {ref.index for ref in tight.layers} == {*range(high), 5}
    assert tight.claims["estimate_bytes"] <= 130 << 10
    assert LearnResult.from_wire(tight.to_wire()) == tight
    with pytest.raises(LearnError, match="raise its memory"):
        Desk(pictures, memory=1000).perform(**fields)
