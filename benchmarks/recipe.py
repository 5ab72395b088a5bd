r"""How well each mode learns and what it sends: snake, walk, FedAvg, centralised; no network.

    python benchmarks/recipe.py all --seeds 1-5
    python benchmarks/recipe.py snake --data fashion --skew 0.5 --seeds 1,2 \
        --layers-per-stop 3 --learn epochs=1 batch=64

Every stop is a task for mfd.learn.Learner, as on a peer. Bytes are those of the layer objects that
a receiver lacks since its last visit: to each holder, to one verifier after each lap, and home.
FedAvg's are the objects to and from each holder in each round. One JSON line per run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mfd.core.walk import ranges_of
from mfd.learn import Learner, layers, zoo
from mfd.learn.training import DEFAULTS
from mfd.packet.manifest import Progress
from mfd.packet.plan import ORDERS, Plan, encode_plan
from mfd.packet.task import LearnTask, Sibling

SETS = {
    "digits": ("sklearn:digits?{}", [1, 8, 8]),
    "fashion": ("idx:{root}/fashion-mnist?{}", [1, 28, 28]),
}


class World:
    """The holders, their content, and a count of what goes between them."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        address, inputs = SETS[args.data]
        address = address.replace("{root}", args.root)
        skew = "&tell=classes" + (f"&skew={args.skew}" if args.skew else "")
        parts = {
            f"part{i}": address.format(f"part={i + 1}/{args.holders}&seed={seed}{skew}")
            for i in range(args.holders)
        }
        whole = {"train": address.format("split=train"), "test": address.format("split=test")}
        self.learner = Learner(parts | whole, threads=args.threads)
        recipe = {"zoo": "cnn", "inputs": inputs, "classes": 10, **args.recipe}
        self.plan = Plan(
            recipe=recipe,
            names=("train",),
            home=bytes(32),
            mode="snake" if args.mode == "snake" else "walk",
            laps=args.laps,
            order=args.order,
            layers_per_stop=args.layers_per_stop,
            head=args.head,
            full_laps=args.full_laps,
            learn=args.learn,
            seed=seed,
        )
        self.seed = seed
        self.store: dict[bytes, bytes] = {}
        self.has: dict[str, set[bytes]] = {}  # digests at a peer since its last visit
        self.sent = 0
        made = layers.pack_model(zoo.init(recipe, seed))
        self.store.update({ref.digest: content.tobytes() for ref, content in made})
        self.model = tuple(ref for ref, _ in made)

    def perform(self, kind: Any, name: str = "", **fields: Any) -> dict[str, float]:
        task = LearnTask(kind, encode_plan(self.plan), self.model, name=name, **fields)
        result = self.learner.perform(
            task, self.store.__getitem__, lambda o: self.store.update({o.digest: o.tobytes()})
        )
        changed = {ref.index: ref for ref in result.layers}
        self.model = tuple(changed.get(ref.index, ref) for ref in self.model)
        return dict(result.claims)

    def move(self, peer: str) -> None:
        """Send what the peer lacks; it keeps this version until it sees the next."""
        lacked = self.has.get(peer, set())
        self.sent += sum(ref.raw_bytes for ref in self.model if ref.digest not in lacked)
        self.has[peer] = {ref.digest for ref in self.model}

    def hold(self, peer: str) -> None:
        """The peer made the newest version itself."""
        self.has[peer] = {ref.digest for ref in self.model}


def routes(holders: int, laps: int, seed: int) -> Iterator[list[int]]:
    """Holders at random places; the next one is the nearest unvisited, never the last one again."""
    places = np.random.default_rng(seed).random((holders, 2))
    at = 0
    for lap in range(laps):
        left, order = set(range(holders)), []
        while left:
            free = left - {at} if not order and lap and holders > 1 else left
            at = min(free, key=lambda h: (float(np.hypot(*(places[h] - places[at]))), h))
            left.discard(at)
            order.append(at)
        yield order


def snake(world: World, args: argparse.Namespace) -> None:
    world.hold("home")
    stops, stop = args.laps * args.holders, 0
    for lap, order in enumerate(routes(args.holders, args.laps, world.seed)):
        for holder in order:
            world.move(f"peer{holder}")
            world.perform(
                "train",
                f"part{holder}",
                trained=ranges_of(world.plan, Progress(lap=lap, stops=stop), len(world.model)),
                journey=(stop / stops, (stop + 1) / stops),
                seed=world.seed * 1_000_003 + stop,
            )
            world.hold(f"peer{holder}")
            stop += 1
        world.move("verifier")
    world.move("home")


def fedavg(world: World, args: argparse.Namespace) -> None:
    for turn in range(args.rounds):
        origin, siblings = world.model, []
        for holder in range(args.holders):
            world.model = origin
            world.sent += 2 * sum(ref.raw_bytes for ref in origin)
            world.perform(
                "train",
                f"part{holder}",
                trained=((0, len(origin)),),
                journey=(turn / args.rounds, (turn + 1) / args.rounds),
                seed=world.seed * 1_000_003 + turn * args.holders + holder,
            )
            weight = float(world.learner.describe(f"part{holder}")["samples"])
            siblings.append(Sibling(world.model, weight))
        world.model = origin
        world.perform("merge", siblings=tuple(siblings))


def centralised(world: World, args: argparse.Namespace) -> None:
    world.perform("train", "train", trained=((0, len(world.model)),), seed=world.seed)


def run(mode: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    args = argparse.Namespace(**vars(args))
    args.mode, args.learn = mode, dict(args.learn)
    epochs = float(args.learn.get("epochs", DEFAULTS["epochs"]))
    if mode in ("centralised", "fedavg"):  # as many samples in all
        passes = epochs * args.laps / (args.rounds if mode == "fedavg" else 1)
        plain = {"distill": 0.0, "anchor": 0.0, "replay": 0.0}
        args.learn |= {"epochs": passes, "lr": args.baseline_lr, **plain}
    return {"mode": mode, **journey(args, seed)}


def journey(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Learn as `args` say, measure on the test data: accuracy in percent, bytes, wall seconds."""
    world = World(args, seed)
    started = time.perf_counter()
    modes = {"snake": snake, "walk": snake, "fedavg": fedavg, "centralised": centralised}
    modes[args.mode](world, args)
    seconds = time.perf_counter() - started
    measured = world.perform("measure", "test")
    return {
        "seed": seed,
        "accuracy": round(100 * measured["accuracy"], 2),
        "loss": round(measured["loss"], 4),
        "sent_bytes": world.sent,
        "seconds": round(seconds, 1),
    }


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE, values as JSON where they are that."""
    split = (text.partition("=") for text in texts)
    return {key: _value(value) for key, _, value in split}


def numbers(text: str) -> list[int]:
    """1-3 or 1,2."""
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(n) for n in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mode", choices=["snake", "walk", "fedavg", "centralised", "all"])
    parser.add_argument("--data", choices=sorted(SETS), default="digits")
    parser.add_argument("--root", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--seeds", default="1-5", help="1-5 or 1,2")
    parser.add_argument("--holders", type=int, default=5)
    parser.add_argument("--skew", type=float, default=0.3, help="Dirichlet alpha; 0: even")
    parser.add_argument("--laps", type=int, default=4)
    parser.add_argument("--order", choices=ORDERS, default="lap")
    parser.add_argument("--layers-per-stop", type=int, default=2)
    parser.add_argument("--full-laps", type=int, default=1)
    parser.add_argument("--no-head", dest="head", action="store_false")
    parser.add_argument("--rounds", type=int, default=12, help="of FedAvg")
    parser.add_argument("--baseline-lr", type=float, default=2e-3, help="FedAvg and centralised")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--learn", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--recipe", nargs="*", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    args.learn, args.recipe = pairs(args.learn), pairs(args.recipe)
    modes = ["centralised", "snake", "walk", "fedavg"] if args.mode == "all" else [args.mode]
    rows = []
    for seed in numbers(args.seeds):
        for mode in modes:
            rows.append(run(mode, args, seed))
            print(json.dumps(rows[-1]), flush=True)
    for mode in modes:
        found = [row["accuracy"] for row in rows if row["mode"] == mode]
        sent = [row["sent_bytes"] for row in rows if row["mode"] == mode]
        print(
            f"{mode:12} accuracy {np.mean(found):.2f} +- {np.std(found):.2f} (least {min(found)}), "
            f"{np.mean(sent) / 1e6:.2f} MB sent"
        )


if __name__ == "__main__":
    main()
