"""Replay: what is told of classes, what travels, what is drawn, and that it helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mfd.learn import Holding, Learner, LearnError, zoo
from mfd.learn.layers import find_layers, load_model
from mfd.learn.options import Options, Sharing
from mfd.learn.replay import LEAST, Classes
from mfd.learn.stepping import CARRIED
from mfd.learn.training import measure, train_blocks
from mfd.packet.objects import unpack_layer
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LayerRef, LearnResult, LearnTask
from tests.learn.conftest import packed

MLP = {"zoo": "mlp", "inputs": [16], "classes": 4, "hidden": [16]}
EACH = 60


def samples(labels: list[int], seed: int, *, tells: bool = True) -> Holding:
    """`EACH` samples of 16 numbers for each label: close means, one long direction each."""
    rng = np.random.default_rng(seed)
    y = np.repeat(labels, EACH)
    x = rng.normal(0, 0.3, (len(y), 16)) + 0.8 * np.eye(4).repeat(4, axis=1)[y]
    x += rng.normal(0, 1, (len(y), 1)) * np.roll(np.eye(16), 3, axis=1)[y]
    return Holding(x.astype(np.float32), y, 4, tells=tells)


def together(*holdings: Holding) -> Holding:
    x, y = (np.concatenate([getattr(h, key) for h in holdings]) for key in ("x", "y"))
    return Holding(x, y, 4)


class Walk:
    """A model that goes from one learner to the next."""

    def __init__(self, *holdings: Holding, **learn: object) -> None:
        self.learners = [Learner({"d": holding}) for holding in holdings]
        self.store: dict[bytes, bytes] = {}
        self.module = zoo.init(MLP, 1)
        self.model: tuple[LayerRef, ...] = packed(self.module, self.store)
        self.plan = Plan(
            recipe=MLP, names=("d",), home=bytes(32), mode="walk", laps=4,
            learn={"batch": 20, "steps": 10, "lr": 0.01, **learn},
        )  # fmt: skip

    def stop(self, at: int, number: int, *, trained: tuple[int, int] = (0, 2)) -> LearnResult:
        task = LearnTask(
            "train",
            encode_plan(self.plan),
            self.model,
            name="d",
            trained=(trained,),
            journey=(number / 8, (number + 1) / 8),
            seed=number,
        )
        result = self.learners[at].perform(
            task,
            self.store.__getitem__,
            lambda made: self.store.update({made.digest: made.tobytes()}),
        )
        changed = {ref.index: ref for ref in result.layers}
        self.model = tuple(changed.get(ref.index, ref) for ref in self.model)
        return result

    def told(self, layer: int = 0) -> dict[str, torch.Tensor]:
        tensors = unpack_layer(self.store[self.model[layer].digest])
        return {n: t.torch().clone() for n, t in tensors.items() if n.startswith(CARRIED)}

    def accuracy(self, held: Holding) -> float:
        load_model(self.module, self.model, self.store.__getitem__)
        return measure(self.module, held)["accuracy"]


@pytest.fixture
def halves() -> tuple[Holding, Holding]:
    """Classes 0 and 2 here, 1 and 3 there."""
    return samples([0, 2], 1), samples([1, 3], 2)


def test_what_two_holders_tell_is_what_one_of_all_their_samples_would() -> None:
    """Rules: P-07"""
    parts = samples([0, 1], 1), samples([0, 1, 2], 2)
    seen = Classes.none(parts[0], 6)
    for part in parts:
        seen = seen.with_those_of(part, 3)
    whole = together(*parts)
    for label, count in ((0, 2 * EACH), (1, 2 * EACH), (2, EACH)):
        x = whole.x[whole.y == label].astype(np.float64)
        assert float(seen.count[label]) == count
        assert np.allclose(seen.mean[label], x.mean(0), atol=1e-5)
        true = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
        told = np.linalg.norm(seen.spread[label].numpy(), axis=1) ** 2
        assert told[0] == pytest.approx(true[0], rel=0.01), "the long direction"
        assert told[:6].sum() == pytest.approx(true[:6].sum(), rel=0.1)
        square = (seen.spread[label] @ seen.spread[label].T).numpy()
        assert np.allclose(square - np.diag(np.diag(square)), 0, atol=1e-4), "at right angles"
    assert seen.known.tolist() == [0, 1, 2]
    assert seen.range.tolist() == [whole.x.min(), whole.x.max()]


def test_draws_are_balanced_and_like_their_class() -> None:
    holding = samples([0, 1, 3], 1)
    seen = Classes.none(holding, 6).with_those_of(holding, 1)
    little = seen.draws(5)
    assert little is not None
    assert little(3000)[0].nbytes <= holding.x.nbytes, "draws take no more than the samples"
    seen = replace(seen, room=1 << 20)
    draws = seen.draws(5)
    assert draws is not None
    x, y = draws(3000)
    assert torch.bincount(y).tolist() == [1000, 1000, 0, 1000]
    assert float(x.min()) >= holding.x.min()
    assert float(x.max()) <= holding.x.max()
    own = torch.from_numpy(holding.x[holding.y == 3])
    assert torch.allclose(x[y == 3].mean(0), own.mean(0), atol=0.12)
    assert float(x[y == 3].std(0).max()) == pytest.approx(float(own.std(0).max()), rel=0.15)
    again = seen.draws(5)
    assert again is not None
    assert torch.equal(again(3000)[0], x)
    assert Classes.none(holding, 6).draws(5) is None


def test_classes_travel_with_the_first_layer_and_are_told_in_the_first_lap(
    halves: tuple[Holding, Holding],
) -> None:
    """Rules: P-07"""
    walk = Walk(*halves, replay=1.0)
    bare = walk.model[0].raw_bytes
    assert walk.stop(0, 0).claims["replayed"] == 2
    count = next(t for n, t in walk.told().items() if n.startswith("~classes.count/"))
    assert count.tolist() == [EACH, 0, EACH, 0]
    assert walk.model[0].raw_bytes > bare
    assert walk.told(1) == {}
    assert walk.stop(1, 1).claims["replayed"] == 4
    first = walk.told()
    assert {n.partition("/")[0] for n in first} == {
        "~classes.count", "~classes.mean", "~classes.spread", "~classes.range"
    }  # fmt: skip
    walk.stop(0, 2, trained=(1, 2))  # the layer that carries them is not trained here
    assert walk.told(1) == {}
    walk.stop(0, 3)
    later = walk.told()
    assert all(torch.equal(later[name], first[name]) for name in first), "told once"
    walk.plan = replace(walk.plan, learn={**walk.plan.learn, "replay": 0.0})
    walk.stop(0, 4)
    assert walk.told() == {}
    assert walk.model[0].raw_bytes == bare


def test_nothing_is_told_without_leave_or_of_few_samples() -> None:
    """Rules: P-07"""
    walk = Walk(samples([0, 1], 1, tells=False), samples([2, 3], 2), replay=1.0)
    bare = walk.model[0].raw_bytes
    assert walk.stop(0, 0).claims["replayed"] == 0
    assert (walk.told(), walk.model[0].raw_bytes) == ({}, bare), "nothing known, nothing carried"
    assert walk.stop(1, 1).claims["replayed"] == 2
    assert walk.stop(0, 0).claims["replayed"] == 2, "it learns of theirs and tells nothing"
    few = samples([0, 1], 1)
    kept = np.r_[0 : LEAST - 1, EACH : EACH + LEAST]
    few = Holding(few.x[kept], few.y[kept], 4, tells=True)
    assert Classes.none(few, 6).with_those_of(few, 1).known.tolist() == [1]


def test_a_class_whose_numbers_cannot_be_told_is_left_out(halves: tuple[Holding, Holding]) -> None:
    """Rules: P-07"""
    here = halves[0]
    for odd in (np.nan, np.inf, 1e30):
        x = here.x.copy()
        x[0, 3] = odd  # of class 0
        seen = Classes.none(here, 6).with_those_of(replace(here, x=x), 1)
        assert seen.known.tolist() == [2]
        assert all(bool(torch.isfinite(t).all()) for t in seen.tensors("w").values())


def test_what_a_stranger_has_made_up_counts_for_nothing(halves: tuple[Holding, Holding]) -> None:
    """Rules: P-07"""
    here = halves[0]
    good = Classes.none(here, 6).with_those_of(here, 1).tensors("w")
    assert Classes.read(good, here, 6).known.tolist() == [0, 2]
    assert Classes.read(good, here, 5).known.tolist() == []
    for slot, value in (
        ("mean", torch.full((4, 16), torch.nan)),
        ("spread", torch.full((4, 6, 16), torch.inf)),
        ("spread", torch.zeros(4, 6, 17)),
        ("count", torch.full((4,), -1.0)),
        ("count", torch.ones(5)),
        ("range", torch.tensor([1.0, 0.0])),
        ("range", torch.tensor([0.0, torch.nan])),
    ):
        bad = {**good, f"~classes.{slot}/w": value}
        assert Classes.read(bad, here, 6).known.tolist() == [], slot
    del good["~classes.mean/w"]
    assert Classes.read(good, here, 6).known.tolist() == []


def test_classes_that_no_holder_has_together_are_told_apart(
    halves: tuple[Holding, Holding],
) -> None:
    """What it is for: two holders, four classes, none of them with its neighbour."""
    held = together(samples([0, 2], 7), samples([1, 3], 8))
    ends = []
    for weight in (0.0, 1.0):
        walk = Walk(*halves, replay=weight, distill=0.0)
        for number in range(8):
            walk.stop(number % 2, number)
        ends.append(walk.accuracy(held))
    assert ends[1] > ends[0] + 0.1
    assert ends[1] > 0.85


def test_small_batches_add_up_with_draws(halves: tuple[Holding, Holding]) -> None:
    """A stop in small batches draws others, and learns as much."""
    seen = Classes.none(halves[0], 6)
    for half in halves:
        seen = seen.with_those_of(half, 1)
    held = together(samples([0, 2], 7), samples([1, 3], 8))
    found = []
    for micro in (0, 5):
        module = zoo.init(MLP, 1)
        options = Options(steps=40, batch=20, micro=micro, lr=0.01, replay=1.0, distill=0.0)
        train_blocks(
            module, halves[0], trained=((0, len(find_layers(module))),), options=options,
            draws=seen.draws(1),
        )  # fmt: skip
        found.append(measure(module, held)["accuracy"])
    assert found == pytest.approx([0.9, 0.9], abs=0.1)


def test_replay_is_of_labelled_numbers_in_one_model() -> None:
    text = Holding(np.zeros((4, 8), np.int64), np.zeros((4, 8), np.int64), 9)
    with pytest.raises(LearnError, match="replay draws samples of numbers, and this data is text"):
        Classes.none(text, 6)
    many = Holding(np.zeros((2, 50_000), np.float32), np.array([0, 99]), 100)
    with pytest.raises(LearnError, match="in 10 directions take 209 MiB > 64; lower replay_dir"):
        Classes.none(many, 10)
    with pytest.raises(LearnError, match="this one is of mode fedavg: leave it out"):
        Options.of({"replay": 0.5}, "fedavg")
    with pytest.raises(LearnError, match="this one is of mode distill: leave it out"):
        Sharing.of({"replay": 0.5}, "distill")
    assert Options.of({"replay": 0.5}, "snake").replay == 0.5
    for odd in ("carry", "micro"):  # of all but distill, wherever its plan is read
        assert Sharing.of({odd: 1 if odd == "micro" else True}, "walk")[1] != Options()
        with pytest.raises(LearnError, match=f"{odd} is not for plans of mode distill"):
            Sharing.of({odd: 1 if odd == "micro" else True}, "distill")
    with pytest.raises(LearnError, match="replay_directions is 64 at most"):
        Options.of({"replay_directions": 65})
