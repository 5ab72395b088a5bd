"""What a stop costs over the bare training loop, in CPU seconds, and that it gives the same bits.

    python benchmarks/learning_overhead.py --rounds 15

A stop is what a peer's trainer does with a task: read the layers that changed, train, measure
before and after, lay the result out and digest it. The bare loop is torch alone with the same
batches; both end in the same bits, which is checked. What distillation does more is told beside it.
One thread; the least of the rounds, in which stop and loop take turns: what a machine shared with
others adds is no cost of ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name

from mfd.learn import Holding, Learner, layers, zoo
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LayerRef, LearnTask

PLAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "constant",
    "lr": 0.01,
    "distill": 0.0,
    "warmup": 0,
    "clip": 0.0,
    "logit_adjustment": 0.0,
}
CASES: dict[str, tuple[dict[str, Any], int, float, dict[str, Any]]] = {
    "cnn 8x8, 288 samples x 10": ({"inputs": [1, 8, 8], "classes": 10}, 288, 10.0, {}),
    "cnn 28x28, 3000 samples x 1": ({"inputs": [1, 28, 28], "classes": 10}, 3000, 1.0, {}),
    "the same, distilled": ({"inputs": [1, 28, 28], "classes": 10}, 3000, 1.0, {"distill": 0.3}),
}


class Stop:
    """A learner that holds what a walker brings, as after an earlier visit, but for `lacks`."""

    def __init__(self, recipe: Mapping[str, Any], holding: Holding, learn: Mapping[str, Any]):
        self.learner = Learner({"d": holding}, threads=1)
        self.plan = encode_plan(Plan(recipe=recipe, names=("d",), home=bytes(32), learn=learn))
        self.store: dict[bytes, bytes] = {}
        made = layers.pack_model(zoo.init(recipe, 1))
        self.store.update({ref.digest: content.tobytes() for ref, content in made})
        self.model: tuple[LayerRef, ...] = tuple(ref for ref, _ in made)

    def __call__(self, seed: int) -> float:
        """Train all layers; CPU seconds."""
        task = LearnTask(
            "train",
            self.plan,
            self.model,
            name="d",
            trained=((0, len(self.model)),),
            seed=seed,
        )
        started = time.process_time()
        result = self.learner.perform(
            task,
            self.store.__getitem__,
            lambda made: self.store.__setitem__(made.digest, made.tobytes()),
        )
        spent = time.process_time() - started
        changed = {ref.index: ref for ref in result.layers}
        self.model = tuple(changed.get(ref.index, ref) for ref in self.model)
        return spent


class Bare:
    """The loop that anybody would write."""

    def __init__(self, recipe: Mapping[str, Any], holding: Holding, epochs: float):
        self.module = zoo.init(recipe, 1).train()
        self.x, self.y = torch.from_numpy(holding.x), torch.from_numpy(holding.y)
        self.epochs = epochs

    def __call__(self, seed: int) -> float:
        started = time.process_time()
        count = len(self.x)
        optimizer = torch.optim.SGD(self.module.parameters(), 0.01, momentum=0.9)
        dice = torch.Generator().manual_seed(seed)
        order = [torch.randperm(count, generator=dice) for _ in range(int(self.epochs) + 1)]
        rows = torch.cat(order)
        for step in range(round(self.epochs * count / 32)):
            part = rows[step * 32 : step * 32 + 32]
            optimizer.zero_grad()
            loss = F.cross_entropy(self.module(self.x[part]), self.y[part])
            loss.backward()
            optimizer.step()
        return time.process_time() - started


def run(name: str, rounds: int) -> dict[str, Any]:
    shape, count, epochs, extra = CASES[name]
    recipe = {"zoo": "cnn", **shape}
    dice = np.random.default_rng(7)
    x = dice.random((count, *shape["inputs"]), np.float32)
    holding = Holding(x, dice.integers(0, 10, count), 10)
    stop = Stop(recipe, holding, {**PLAIN, "epochs": epochs, **extra})
    bare = Bare(recipe, holding, epochs)
    pairs = [(stop(seed), bare(seed)) for seed in range(rounds + 1)][1:]  # the first one warms up
    made = [layers.pack_model(bare.module)[i][0].digest for i in range(len(stop.model))]
    ours, theirs = (min(p[i] for p in pairs) for i in (0, 1))
    return {
        "case": name,
        "stop": ours,
        "bare": theirs,
        "over": ours / theirs - 1,
        "same": made == [ref.digest for ref in stop.model],
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--case", choices=sorted(CASES), action="append")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| stop | CPU s, stop | CPU s, bare loop | over it | same bits |")
    print("|---|---:|---:|---:|---|")
    for name in args.case or CASES:
        row = run(name, args.rounds)
        same = "yes" if row["same"] else "no"
        print(
            f"| {name} | {row['stop']:.3f} | {row['bare']:.3f} | {row['over']:+.1%} | {same} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
