"""Clients that train a part: in the average only what they trained counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mfd.learn import Holding, Learner, LearnError, zoo
from mfd.learn.axes import axes_of
from mfd.packet.extent import FULL, Scale
from mfd.packet.merging import merge
from mfd.packet.objects import pack_layer, unpack_layer
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.scales import SCALES_KEY, claims_of, plain_scales, scale_told
from mfd.packet.scaling import Axes, scale
from mfd.packet.task import LayerRef, LearnResult, LearnTask, Sibling
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
HALF, SHALLOW, COARSE = Scale(0.5), Scale(1, 2), Scale(0.5, 0, 8)
AXES = Axes.of(axes_of(CNN))
PLAN = Plan(
    recipe=CNN,
    names=("d",),
    home=bytes(32),
    mode="fedavg",
    learn={"epochs": 0.3},
    extra={SCALES_KEY: plain_scales([HALF, SHALLOW, COARSE])},
)
Model = dict[str, dict[str, np.ndarray[Any, Any]]]


class Bench:
    """Objects by digest, and a learner over them."""

    def __init__(self, holding: Holding | None = None, plan: Plan = PLAN) -> None:
        self.plan = plan
        self.learner = Learner({"d": holding} if holding else {})
        self.store: dict[bytes, bytes] = {}
        self.refs = packed(zoo.init(CNN, 1), self.store)

    def put(self, model: Model, refs: tuple[LayerRef, ...] = ()) -> tuple[LayerRef, ...]:
        made = []
        for ref in refs or self.refs:
            layer = pack_layer(model[ref.name])
            self.store[layer.digest] = layer.tobytes()
            made.append(LayerRef(ref.index, ref.name, layer.digest, layer.raw_bytes))
        return tuple(made)

    def model(self, refs: tuple[LayerRef, ...]) -> Model:
        return {
            ref.name: {k: t.array() for k, t in unpack_layer(self.store[ref.digest]).items()}
            for ref in refs
        }

    def perform(self, **fields: Any) -> LearnResult:
        task = LearnTask(plan=encode_plan(self.plan), **{"layers": self.refs, **fields})
        write = lambda made: self.store.update({made.digest: made.tobytes()})  # noqa: E731
        again = LearnTask.from_wire(task.to_wire())
        assert again == task
        return self.learner.perform(again, self.store.__getitem__, write)

    def merged(self, *siblings: Sibling) -> Model:
        result = self.perform(kind="merge", siblings=siblings)
        changed = {ref.index: ref for ref in result.layers}
        return self.model(tuple(changed.get(ref.index, ref) for ref in self.refs))


def moved(model: Model, seed: int) -> Model:
    """Every float of a model somewhere else."""
    rng = np.random.default_rng(seed)
    return {
        layer: {k: (v + rng.normal(size=v.shape)).astype(v.dtype) for k, v in tensors.items()}
        for layer, tensors in model.items()
    }


def inside(name: str, values: np.ndarray[Any, Any], by: Scale) -> np.ndarray[Any, Any]:
    """Which coordinates of a tensor a width keeps."""
    if not AXES.cuts(name):
        return np.ones(values.shape, bool)
    places = np.arange(values.size, dtype=np.int32).reshape(values.shape)
    kept = np.zeros(values.size, bool)
    kept[scale({"x": {name: places}}, Scale(by.width), AXES)["x"][name].array().reshape(-1)] = True
    return kept.reshape(values.shape)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_client_did_not_train_does_not_count(seed: int) -> None:
    """A half client that brings a full model moves the coordinates of its half, and no others.

    Rules: P-408, W-29
    """
    bench = Bench()
    start = bench.model(bench.refs)
    one, other = moved(start, 2 * seed), moved(start, 2 * seed + 1)
    w_one, w_other = 10.0 + seed, 30.0
    alone = bench.merged(Sibling(bench.put(one), w_one, scale=HALF))
    both = bench.merged(
        Sibling(bench.put(one), w_one, scale=HALF), Sibling(bench.put(other), w_other)
    )
    total = w_one + w_other
    for layer, tensors in start.items():
        for name, before in tensors.items():
            held = inside(name, before, HALF)
            mine, theirs = one[layer][name], other[layer][name]
            assert np.array_equal(alone[layer][name], np.where(held, mine, before)), name
            mean = (w_one / total) * mine.astype("<f8") + (w_other / total) * theirs.astype("<f8")
            wanted = np.where(held, mean.astype("<f4"), theirs)
            assert np.array_equal(both[layer][name], wanted), name


@pytest.mark.parametrize("seed", range(5))
def test_full_clients_are_the_plain_mean_bit_for_bit(seed: int) -> None:
    """Rules: P-408"""
    bench = Bench()
    start = bench.model(bench.refs)
    models = [moved(start, 10 * seed + i) for i in range(3)]
    weights = [float(w) for w in np.random.default_rng(seed).integers(1, 500, 3)]
    pairs = list(zip(models, weights, strict=True))
    plain = merge(start, pairs)
    told = {"samples": 3.0}
    by = scale_told(PLAN, told) or FULL
    got = bench.merged(*(Sibling(bench.put(m), w, scale=by) for m, w in pairs))
    for layer, tensors in plain.items():
        for name, tensor in tensors.items():
            assert got[layer][name].tobytes() == bytes(tensor.data), name


def test_dropped_blocks_count_for_nothing() -> None:
    """Rules: P-408"""
    bench = Bench()
    start = bench.model(bench.refs)
    got = bench.merged(Sibling(bench.put(moved(start, 1)), 5.0, scale=SHALLOW))
    still = [name for name in start if all(np.array_equal(got[name][k], start[name][k])
                                           for k in start[name])]  # fmt: skip
    assert still == ["conv3", "conv4"]


@pytest.mark.parametrize("by", [HALF, SHALLOW, COARSE], ids=str)
def test_a_part_is_cut_trained_and_laid_back(pictures: Holding, by: Scale) -> None:
    """Cut here, trained there as a model of its own, merged here: the rest keeps its bits.

    Rules: C-38, P-405, P-408, P-409
    """
    bench = Bench(pictures, replace(PLAN, extra={SCALES_KEY: plain_scales([by])}))
    whole = ((0, 4),)
    cut = bench.perform(kind="cut", trained=whole, most_bytes=1 << 30)
    assert claims_of(by).items() <= cut.claims.items()
    changed = {ref.index: ref for ref in cut.layers}
    kept = [i for low, high in cut.trained for i in range(low, high)]
    assert kept == list(range(by.depth or 4))
    refs = tuple(replace(changed.get(i, bench.refs[i]), index=n) for n, i in enumerate(kept))
    wanted = scale(bench.model(bench.refs), by, AXES)
    for layer, tensors in bench.model(refs).items():
        for name, values in tensors.items():
            assert values.tobytes() == bytes(wanted[layer][name].data), name
    done = bench.perform(
        kind="train", layers=refs, name="d", trained=((0, len(refs)),), scale=by, seed=3
    )
    assert done.claims["loss"] < done.claims["loss_before"]
    learned = {ref.index: ref for ref in done.layers}
    back = tuple(learned.get(ref.index, ref) for ref in refs)
    start, got = bench.model(bench.refs), bench.merged(Sibling(back, 7.0, scale=by, cut=True))
    steps = 0
    for layer, tensors in start.items():
        for name, before in tensors.items():
            held = inside(name, before, by) & (layer in {ref.name for ref in refs})
            assert got[layer][name][~held].tobytes() == before[~held].tobytes(), name
            steps += int((got[layer][name] != before).sum())
            if not by.bits and held.any():
                there = bench.model(back)[layer][name]
                assert got[layer][name][held].tobytes() == there.reshape(-1).tobytes(), name
            assert np.abs(got[layer][name] - before).max() < 0.2
    assert steps > 500


def test_the_first_scale_that_is_small_enough_is_cut() -> None:
    """Rules: W-28"""
    bench = Bench()

    def size(by: Scale) -> int:
        layers = scale(bench.model(bench.refs), by, AXES)
        return sum(pack_layer(tensors).raw_bytes for tensors in layers.values())

    def cut(most_bytes: int, trained: tuple[tuple[int, int], ...] = ((0, 4),)) -> LearnResult:
        return bench.perform(kind="cut", trained=trained, most_bytes=most_bytes)

    assert size(SHALLOW) < size(HALF)
    assert claims_of(HALF).items() <= cut(size(HALF)).claims.items()
    assert claims_of(SHALLOW).items() <= cut(size(HALF) - 1).claims.items()
    with pytest.raises(LearnError, match="no scale of the plan takes at most 99 bytes: the small"):
        cut(99)
    with pytest.raises(LearnError, match="the smallest scale that was tried takes"):
        cut(size(HALF) - 1, ((2, 4),))
    bench.plan = replace(PLAN, extra={})
    with pytest.raises(LearnError, match="the plan has no scales"):
        cut(1 << 30)


def test_a_part_that_does_not_fit_is_one_sentence() -> None:
    """What a stranger sends under a scale is loaded strictly. Rules: P-407"""
    bench = Bench()
    model = bench.model(bench.refs)
    wrong = Sibling(bench.put(moved(model, 1)), 1.0, scale=HALF, cut=True)
    for odd in (
        moved(model, 1),  # the full model, said to be its half
        {layer: {k: v[:1] for k, v in tensors.items()} for layer, tensors in model.items()},
        {layer: {"x": np.ones(3, np.float32)} for layer in model},
    ):
        with pytest.raises(LearnError, match="layer 'conv1' of a part does not fit: its tensors"):
            bench.merged(replace(wrong, layers=bench.put(odd)))
    with pytest.raises(LearnError, match="need weights above 0"):
        bench.merged(replace(wrong, weight=0.0))
