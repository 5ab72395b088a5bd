r"""Scaling, and sharing between unlike models: the tables of both; no network.

    python benchmarks/learning_unlike.py sharing --seeds 1-3
    python benchmarks/learning_unlike.py width --seeds 1
    python benchmarks/learning_unlike.py depth --seeds 1-3

Every stop is a task for mfd.learn.Learner, as on a peer. `sharing`: MLPs, CNNs and small ViTs on
few, skewed samples each; alone, then taught by a proxy, by logits on a public set, by prototypes;
in every row each resident sees its own samples as often. `width`, `depth`: a model walks over
strong and weak holders in turn, a strong one last; the weak ones train half of it
(mfd.learn.scaled). Measured are the full model and the half inside it. Bytes are those of the layer
objects at each hop.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mfd.learn import Holding, Learner, layers, zoo
from mfd.learn.holdings import load
from mfd.learn.memory import need_of
from mfd.learn.scaled import Part
from mfd.learn.training import Options
from mfd.packet.manifest import Scale
from mfd.packet.objects import unpack_layer
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.scales import SCALES_KEY, plain_scales
from mfd.packet.scaling import scale
from mfd.packet.task import LayerRef, LearnTask

SETS = {
    "digits": ("sklearn:digits?{}", [1, 8, 8]),
    "fashion": ("idx:{root}/fashion-mnist?{}", [1, 28, 28]),
}


class Walk:
    """A walker's objects, and the learners that it visits one after the other."""

    def __init__(self, plan: Plan, learners: Sequence[Learner], seed: int) -> None:
        self.plan, self.learners, self.seed = plan, learners, seed
        self.store: dict[bytes, bytes] = {}
        made = layers.pack_model(zoo.init(plan.recipe, seed))
        self.store.update({ref.digest: content.tobytes() for ref, content in made})
        self.model: tuple[LayerRef, ...] = tuple(ref for ref, _ in made)
        self.sent = 0

    def perform(self, learner: Learner, kind: Any, name: str, **fields: Any) -> dict[str, float]:
        result = learner.perform(
            LearnTask(kind, encode_plan(self.plan), self.model, name=name, **fields),
            self.store.__getitem__,
            lambda o: self.store.update({o.digest: o.tobytes()}),
        )
        changed = {ref.index: ref for ref in result.layers}
        self.model = tuple(changed.get(ref.index, ref) for ref in self.model)
        return dict(result.claims)

    def travel(self) -> float:
        """All laps; returns the samples seen."""
        stops, samples = self.plan.laps * len(self.learners), 0.0
        for stop in range(stops):
            self.sent += sum(ref.raw_bytes for ref in self.model)
            samples += self.perform(
                self.learners[stop % len(self.learners)],
                "train",
                "local",
                trained=((0, len(self.model)),),
                journey=(stop / stops, (stop + 1) / stops),
                seed=self.seed * 1_000_003 + stop,
            )["samples"]
        return samples


def data(args: argparse.Namespace, seed: int) -> tuple[list[Holding], Holding, Holding]:
    """Few samples a holder, a public set of other samples, the test set."""
    address, _ = SETS[args.data]
    address = address.replace("{root}", args.root)
    many = f"skew={args.skew}&seed={seed}&part={{}}/{args.parts}"
    parts = [load(address.format(many.format(i + 1))) for i in range(args.parts)]
    held, rest = parts[: args.holders], parts[args.holders :]
    x = np.concatenate([part.x for part in rest])[: args.public]
    y = np.concatenate([part.y for part in rest])[: args.public]
    return held, Holding(x, y, 10), load(address.format("split=test"))


def architectures(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    inputs = SETS[args.data][1]
    shape = {"inputs": inputs, "classes": 10}
    width = 64 if args.data == "digits" else 128
    return {
        "MLP": {"zoo": "mlp", **shape, "hidden": [2 * width, width]},
        "CNN": {"zoo": "cnn", **shape, "hidden": width},
        "ViT": {"zoo": "vit", **shape, "width": width, "depth": 2, "heads": 4},
    }


PROXY = {"digits": {"width": 8, "hidden": 32}, "fashion": {"width": 8, "hidden": 64}}


def sharing(args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    held, public, test = data(args, seed)
    kinds = architectures(args)
    names = [list(kinds)[i % len(kinds)] for i in range(args.holders)]
    inputs = SETS[args.data][1]
    width = 64 if args.data == "digits" else 128
    recipes: dict[str, dict[str, Any]] = {
        "proxy": {"zoo": "cnn", "inputs": inputs, "classes": 10, **PROXY[args.data]},
        "proxy + public": {"zoo": "cnn", "inputs": inputs, "classes": 10, **PROXY[args.data]},
        "logits": {"zoo": "logits", "samples": len(public.x), "classes": 10},
        "prototypes": {"zoo": "prototypes", "classes": 10, "width": width},
    }
    rows = []
    for row in args.rows:
        started = time.process_time()
        learn: dict[str, Any] = {"epochs": args.epochs, "batch": 16, **args.learn}
        if row == "alone":
            own = [kinds[name] for name in names]
            found, sent = alone(args, seed, held, test=test, recipes=own, learn=learn), 0
            extra: dict[str, float] = {}
        else:
            learn["share"] = row.split()[0]
            if row in ("proxy + public", "logits"):
                learn["public"] = "public"
            plan = Plan(
                recipe=recipes[row],
                names=("local",),
                home=bytes(32),
                mode="distill",
                laps=args.laps,
                learn=learn,
                seed=seed,
            )
            learners = [
                Learner(
                    {"local": one, "public": public, "test": test},
                    resident=zoo.init(kinds[name], seed * 100 + i),
                    threads=1,
                )
                for i, (one, name) in enumerate(zip(held, names, strict=True))
            ]
            walk = Walk(plan, learners, seed)
            walk.travel()
            told = [walk.perform(learner, "measure", "test") for learner in learners]
            found, sent = [one["resident_accuracy"] for one in told], walk.sent
            extra = {"proxy": told[0]["accuracy"]} if row.startswith("proxy") else {}
        by_name = {
            k: float(np.mean([f for f, n in zip(found, names, strict=True) if n == k]))
            for k in kinds
        }
        rows.append(
            {
                "row": row,
                **by_name,
                **extra,
                "least": min(found),
                "sent": sent,
                "seconds": time.process_time() - started,
            }
        )
    return rows


def alone(
    args: argparse.Namespace,
    seed: int,
    held: Sequence[Holding],
    *,
    test: Holding,
    recipes: Sequence[dict[str, Any]],
    learn: dict[str, Any],
) -> list[float]:
    """Each resident on its own samples, as often as it would see them in all laps."""
    found = []
    known = {k: v for k, v in learn.items() if k in Options.__slots__}
    options = {**known, "epochs": args.epochs * args.laps, "distill": 0.0}
    for i, (one, recipe) in enumerate(zip(held, recipes, strict=True)):
        plan = Plan(
            recipe=recipe, names=("local",), home=bytes(32), mode="walk", laps=1, learn=options
        )
        walk = Walk(plan, [Learner({"local": one, "test": test}, threads=1)], seed * 100 + i)
        walk.travel()
        found.append(walk.perform(walk.learners[0], "measure", "test")["accuracy"])
    return found


def scaling(args: argparse.Namespace, seed: int, by: Scale) -> list[dict[str, Any]]:
    """A walk in which every second holder is weak, beside those that it should be held against."""
    held, _, test = data(args, seed)
    width = 8 if args.data == "digits" else 16
    recipe = {"zoo": "cnn", "inputs": SETS[args.data][1], "classes": 10, "width": width}
    recipe |= {"norm": "fours", "exits": True}
    part = Part.of(recipe, by)
    learn = {"batch": 16, "epochs": args.epochs, **args.learn}
    plan = Plan(
        recipe=recipe, names=("local",), home=bytes(32), mode="walk", laps=args.laps, learn=learn
    )
    allowed = replace(plan, extra={SCALES_KEY: plain_scales([by])})
    small = replace(plan, recipe=part.recipe)
    half = zoo.build(part.recipe)
    count = range(len(half))
    room = [need_of(half, one, count, Options.of(learn)).total(4) for one in held]
    every = range(len(held))
    cases: dict[str, tuple[Plan, list[int], list[int]]] = {  # plan, holders visited, weak ones
        "full, all strong": (plan, [*every], []),
        "full, all strong, half learns inside": (allowed, [*every], []),
        "every second holder weak, merged": (allowed, [*every], [*every][::2]),
        "weak holders left out": (plan, [*every][1::2], []),
        "half alone, all holders": (small, [*every], []),
    }
    rows = []
    for row, (chosen, visited, weak) in cases.items():
        started = time.process_time()
        learners = [
            Learner({"local": held[i], "test": test}, threads=1, memory=room[i] if i in weak else 0)
            for i in visited
        ]
        walk = Walk(chosen, learners, seed)
        walk.travel()
        inside = walk if chosen is small else cut(walk, part, small)
        full = walk.perform(Learner({"test": test}, threads=1), "measure", "test")["accuracy"]
        half = inside.perform(Learner({"test": test}, threads=1), "measure", "test")["accuracy"]
        result = {"row": row, "full": None if chosen is small else full, "half": half}
        rows.append({**result, "sent": walk.sent, "seconds": time.process_time() - started})
    return rows


def cut(walk: Walk, part: Part, plan: Plan) -> Walk:
    """The half inside a walker's model, as a walker of its own."""
    full = {ref.name: unpack_layer(walk.store[ref.digest]) for ref in walk.model}
    module = zoo.build(part.recipe)
    values = scale(full, part.by, part.axes)
    module.load_state_dict(
        {k: t.torch().clone() for one in values.values() for k, t in one.items()}
    )
    made = Walk(plan, [], 0)
    packed = layers.pack_model(module)
    made.store.update({ref.digest: content.tobytes() for ref, content in packed})
    made.model = tuple(ref for ref, _ in packed)
    return made


ROWS = ("alone", "proxy", "proxy + public", "logits", "prototypes")
SCALES = {"width": Scale(0.5), "depth": Scale(1, 2), "both": Scale(0.5, 2)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean +- spread over seeds."""
    names = list(dict.fromkeys(row["row"] for row in rows))
    keys = [k for k in dict.fromkeys(k for row in rows for k in row) if k not in ("row", "seed")]
    lines = ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for name in names:
        cells = []
        for key in keys:
            found = [row[key] for row in rows if row["row"] == name and row.get(key) is not None]
            if not found:
                cells.append("-")
            elif key == "sent":
                cells.append(f"{np.mean(found) / 1e6:.2f} MB")
            elif key == "seconds":
                cells.append(f"{np.mean(found):.0f}")
            else:
                cells.append(f"{100 * np.mean(found):.1f} +- {100 * np.std(found):.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    tables = ["sharing", *SCALES, "all"]
    parser.add_argument("what", nargs="?", default="all", choices=tables)
    parser.add_argument("--data", choices=sorted(SETS), default="digits")
    parser.add_argument("--root", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--seeds", default="1-3", help="1-3 or 1,2")
    parser.add_argument("--skew", type=float, default=0.3, help="Dirichlet alpha")
    parser.add_argument("--parts", type=int, default=0, help="of the training set; 0: by data")
    parser.add_argument("--holders", type=int, default=6, help="of one part each")
    parser.add_argument("--public", type=int, default=400, help="samples, of the other parts")
    parser.add_argument("--laps", type=int, default=6)
    parser.add_argument("--epochs", type=float, default=5.0, help="at one stop")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--learn", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="a line a row, for joining runs")
    args = parser.parse_args(argv)
    args.parts = args.parts or {"digits": 12, "fashion": 240}[args.data]
    args.rows = args.rows.split(",")
    pairs = (pair.partition("=") for pair in args.learn)
    args.learn = {key: json.loads(value) for key, _, value in pairs}
    first, dash, last = args.seeds.partition("-")
    seeds = [*range(int(first), int(last) + 1)] if dash else [int(s) for s in args.seeds.split(",")]
    for what in tables[:-1] if args.what == "all" else [args.what]:
        args.what = what
        show(args, seeds)


def show(args: argparse.Namespace, seeds: Sequence[int]) -> None:
    """Run one table and print it."""
    rows = []
    for seed in seeds:
        for row in (
            sharing(args, seed)
            if args.what == "sharing"
            else scaling(args, seed, SCALES[args.what])
        ):
            rows.append({**row, "seed": seed})
            if args.json:
                print(json.dumps(rows[-1]), flush=True)
    if not args.json:
        flags = f"--data {args.data} --skew {args.skew:g} --parts {args.parts}"
        run = f"--laps {args.laps} --epochs {args.epochs:g} --seeds {args.seeds}"
        print(f"`python benchmarks/learning_unlike.py {args.what} {flags} {run}`\n")
        print(table(rows) + "\n")


if __name__ == "__main__":
    main()
