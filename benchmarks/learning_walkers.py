r"""Several walkers of one model: 1, 2, 4 at once, merge rules, gossip, FedAvg; equal samples.

    python benchmarks/learning_walkers.py --data digits --seeds 1,2,3
    python benchmarks/learning_walkers.py --data fashion --rows "4 mean;gossip" --seeds 1
    python benchmarks/learning_walkers.py --join runs/walkers-*.jsonl

The real protocol and its real bytes in the simulator (`mfd.run`), real training; eight holders on a
small world, label skew Dirichlet(0.3). Every row trains on the same number of samples in all: one
walker makes 8 laps, two make 4 each, four 2 each, eight of gossip 1 each; FedAvg has 8 rounds. Time
is virtual: links of 100 Mbit/s and 5 ms, a device of 1,000 samples/s, stops after one another.
Accuracy is that of the model that home hands out, on the test part; bytes are all that crossed a
link. `--out` appends one JSON line a run, so that a run of all rows goes on where it was killed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import mfd
from mfd.learn import holdings, zoo
from mfd.learn.partition import partition
from mfd.learn.training import measure
from mfd.topology import make

HOLDERS, LAPS = 8, 8
SKEW = 0.3
SETS = {  # name -> (address, shape, train samples at most, test samples at most, epochs of a stop)
    "digits": ("sklearn:digits?split={}", [1, 8, 8], 1_440, 360, 2.0),
    "fashion": ("idx:{root}/fashion-mnist?split={}", [1, 28, 28], 2_000, 2_000, 1.0),
}
ROWS: dict[str, dict[str, Any]] = {
    "1 walker": {"mode": "walk", "laps": LAPS},
    "2 mean": {"mode": "walk", "laps": LAPS // 2, "walkers": 2},
    "4 mean": {"mode": "walk", "laps": LAPS // 4, "walkers": 4},
    "4 age": {"mode": "walk", "laps": LAPS // 4, "walkers": 4, "merge": "age"},
    "4 clip": {"mode": "walk", "laps": LAPS // 4, "walkers": 4, "merge": "clip"},
    "4 near": {"mode": "walk", "laps": LAPS // 4, "walkers": 4, "merge": "near"},
    "4 median": {"mode": "walk", "laps": LAPS // 4, "walkers": 4, "merge": "median"},
    "4 trim": {"mode": "walk", "laps": LAPS // 4, "walkers": 4, "merge": "trim"},
    "4 mean, gate 1": {"mode": "walk", "laps": LAPS // 4, "walkers": 4, "gate": 1.0},
    "4 snake": {"mode": "snake", "laps": LAPS // 4, "walkers": 4},
    "gossip": {"mode": "gossip", "laps": 1, "walkers": HOLDERS},
    "fedavg": {"mode": "fedavg", "laps": LAPS},
    "metropolis": {"mode": "walk", "laps": LAPS, "choose": "metropolis"},
}
FIGURES = ("accuracy", "loss", "MB", "seconds", "stops", "merges", "left out")


def one(data: str, root: str, row: str, seed: int) -> dict[str, Any]:
    """Run one row with one seed."""
    address, inputs, train, test, epochs = SETS[data]
    whole = holdings.load(address.format("train", root=root))
    held_out = holdings.load(address.format("test", root=root))
    chosen = np.random.default_rng([seed, 1]).permutation(len(whole.x))[:train]
    x, y = whole.x[chosen], whole.y[chosen]
    parts = partition(y, HOLDERS, skew=SKEW, seed=seed)
    model = zoo.init({"zoo": "cnn", "inputs": inputs, "classes": 10}, seed)
    graph = make("small-world", HOLDERS, seed)
    edges = tuple(replace(e, bandwidth_bps=100e6, latency_us=5_000) for e in graph.edges)
    began = time.process_time()
    made = mfd.run(
        model,
        lambda part, _: (x[parts[part]], y[parts[part]]),
        topology=replace(graph, edges=edges),
        seed=seed,
        samples_per_s=1_000.0,
        epochs=epochs,
        **ROWS[row],
    )
    some = replace(held_out, x=held_out.x[:test], y=held_out.y[:test])
    found = measure(made.model, some)
    merges = [h for h in made.history if h["kind"] == "merged"]
    stops = [h for h in made.history if h["kind"] == "stop"]
    return {
        "data": data,
        "row": row,
        "seed": seed,
        "accuracy": found["accuracy"],
        "loss": found["loss"],
        "MB": made.wire_bytes / 1e6,
        "seconds": made.seconds,
        "samples": sum(float(h["samples"]) for h in stops),
        "stops": float(sum(int(h.get("clients", 1)) for h in stops)),
        "merges": float(sum(bool(h["with"]) for h in merges)),
        "left out": float(
            sum(len(str(h["left_out"]).split(", ")) for h in merges if h["left_out"])
        ),
        "cpu_seconds": time.process_time() - began,
    }


def table(lines: Iterable[dict[str, Any]]) -> str:
    """Mean +- spread over seeds, in Markdown, one table a data set."""
    found = list(lines)
    out = []
    for data in sorted({line["data"] for line in found}):
        out += [f"### {data}, {HOLDERS} holders, Dirichlet({SKEW})", ""]
        out += ["| row | seeds | samples | " + " | ".join(FIGURES) + " |"]
        out += ["|---|---:|---:|" + "---:|" * len(FIGURES)]
        for row in ROWS:
            same = [line for line in found if (line["data"], line["row"]) == (data, row)]
            if same:
                samples = statistics.mean(line["samples"] for line in same)
                cells = [_cell(name, [line[name] for line in same]) for name in FIGURES]
                out.append(f"| {row} | {len(same)} | {samples:,.0f} | " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)


def _cell(name: str, values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    spread = statistics.pstdev(values) if len(values) > 1 else 0.0
    if name == "accuracy":
        return f"{100 * mean:.1f} +- {100 * spread:.1f} %"
    if name == "loss":
        return f"{mean:.3f} +- {spread:.3f}"
    return f"{mean:.1f} +- {spread:.1f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run rows, or join what was run; print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", choices=sorted(SETS), default="digits")
    parser.add_argument("--root", default="../shared/data", help="where fashion-mnist lies")
    parser.add_argument("--rows", default="", help="as '4 mean;gossip'; all if not given")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--out", type=Path, help="append JSON lines; what it has is not run again")
    parser.add_argument("--join", type=Path, nargs="*", help="print the table of such files")
    args = parser.parse_args(argv)
    if args.join:
        print(table(json.loads(line) for path in args.join for line in path.open()))
        return
    have = [json.loads(line) for line in args.out.open()] if args.out and args.out.exists() else []
    done = {(line["data"], line["row"], line["seed"]) for line in have}
    rows = [name.strip() for name in args.rows.split(";")] if args.rows else list(ROWS)
    for seed in map(int, args.seeds.split(",")):
        for row in rows:
            if (args.data, row, seed) in done:
                continue
            have.append(one(args.data, args.root, row, seed))
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(have[-1]) + "\n")
    print(table(have))


if __name__ == "__main__":
    main()
