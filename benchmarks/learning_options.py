"""What the plan and its options change: orders, layers that learn beside the block, losses, state.

    python benchmarks/learning_options.py --seeds 1,2,3
    python benchmarks/learning_options.py --seeds 1 --row "order stop"

One walker among five holders of handwritten digits (8x8, 1,437 pictures for training, 360 for the
test, Dirichlet 0.3), six-layer CNN of 50k parameters, 7 laps of 3 passes each: one full lap and two
rounds of the three blocks of two layers. Each row changes one thing against the first. Tasks are
done by mfd.learn.Learner as on a peer; bytes are those of the layer objects that a receiver lacks
since its last visit: to each holder, to one verifier after each lap, and home, as recipe.py counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from recipe import World, routes

from mfd.core.blocks import cursor_of, work_of
from mfd.packet.manifest import Progress

HOLDERS, LAPS = 5, 7
LEARN: dict[str, Any] = {"epochs": 3.0}
Row = tuple[dict[str, Any], dict[str, Any]]  # fields of the plan, options of the learner
ROWS: dict[str, Row] = {
    "as planned: lap, block + head": ({}, {}),
    "order stop": ({"order": "stop"}, {}),
    "order boustrophedon": ({"order": "boustrophedon"}, {}),
    "order sweep": ({"order": "sweep"}, {}),
    "all layers at every stop": ({"mode": "walk"}, {}),
    "block alone": ({"head": False}, {}),
    "first + block + head": ({"first": True}, {}),
    "no distillation": ({}, {"distill": 0.0}),
    "distillation 1": ({}, {"distill": 1.0}),
    "anchor 0.1": ({}, {"anchor": 0.1}),
    "average, decay 0.9": ({}, {"ema": 0.9}),
    "average, decay 0.98": ({}, {"ema": 0.98}),
    "Adam's state carried": ({}, {"carry": True}),
    "AdamW, decay 0.01": ({}, {"optimizer": "adamw", "weight_decay": 0.01}),
    "SGD, Nesterov 0.9, rate 0.02": ({}, {"optimizer": "sgd-nesterov", "lr": 0.02}),
    "rate falls on a line": ({}, {"schedule": "linear"}),
    "rate stays": ({}, {"schedule": "constant"}),
    "no logit adjustment": ({}, {"logit_adjustment": 0.0}),
}


def run(row: Row, seed: int, root: str) -> dict[str, float]:
    """One journey."""
    fields, learn = row
    args = argparse.Namespace(
        data="digits",
        skew=0.3,
        holders=HOLDERS,
        root=root,
        threads=1,
        recipe={},
        mode="snake",
        laps=LAPS,
        order="lap",
        layers_per_stop=2,
        head=True,
        full_laps=1,
        learn={**LEARN, **learn},
    )
    world = World(args, seed)
    world.plan = replace(world.plan, **fields)
    world.hold("home")
    layers, stops = len(world.model), LAPS * HOLDERS
    progress = Progress()
    samples = 0.0
    for lap, order in enumerate(routes(HOLDERS, LAPS, seed)):
        for holder in order:
            progress = replace(progress, lap=lap)
            progress = replace(progress, cursor=cursor_of(world.plan, progress, layers))
            work = work_of(world.plan, progress, layers)
            world.move(f"peer{holder}")
            claims = world.perform(
                "train",
                f"part{holder}",
                trained=work.ranges,
                body=work.body,
                block=work.block,
                sweep=work.sweep,
                journey=(progress.stops / stops, (progress.stops + 1) / stops),
                seed=seed * 1_000_003 + progress.stops,
            )
            samples += claims["samples"]
            world.hold(f"peer{holder}")
            progress = replace(progress, stops=progress.stops + 1)
        world.move("verifier")
    world.move("home")
    accuracy = 100 * world.perform("measure", "test")["accuracy"]
    return {"accuracy": accuracy, "bytes": world.sent, "samples": samples}


def shown(name: str, found: Sequence[Mapping[str, float]]) -> str:
    """One line of the table."""
    accuracy = [f["accuracy"] for f in found]
    return (
        f"| {name} | {np.mean(accuracy):.2f} +- {np.std(accuracy):.2f} | {min(accuracy):.2f} "
        f"| {np.mean([f['bytes'] for f in found]) / 1e6:.2f} "
        f"| {np.mean([f['samples'] for f in found]) / 1e3:.1f} | {HOLDERS} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--row", action="append", choices=list(ROWS))
    parser.add_argument("--root", default="../shared/data", help="folder of the data sets")
    args = parser.parse_args(argv)
    started = time.process_time()
    print("| what is changed | accuracy | worst seed | real MB | thousand samples | peers |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in args.row or ROWS:
        found = [run(ROWS[name], int(seed), args.root) for seed in args.seeds.split(",")]
        print(shown(name, found), flush=True)
    print(f"\n{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
