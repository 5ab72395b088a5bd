r"""Pictures: accuracy against bytes and samples for snake, walk, FedAvg, gossip, centralised.

    python benchmarks/learning_cv.py                                everything, small
    python benchmarks/learning_cv.py --row fashion-skew --seed 1 --plan snake fedavg
    python benchmarks/learning_cv.py --size full --row cifar-iid    hours
    python benchmarks/learning_cv.py --table                        what is finished so far

Each row is a comparison of `mfd compare` in runs/cv-SIZE-ROW, with its report; what is finished is
not run again, so rows, plans and seeds can be run in pieces. Five holders on a ring, all of one
speed. Every plan sees as many samples in all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mfd.cli.comparing import Cell, Order, Study, open_study, parse_seeds, read_lines, resolve
from mfd.cli.contest import complete, summary
from mfd.packet.plan import MODES

DATA = {
    "fashion": ("idx:{root}/fashion-mnist", "cnn"),
    "cifar": ("jpeg:{root}/cifar10-jpeg-12k/cifar10_jpeg_12k.npz", "vgg11:width=16"),
}
PARTITIONS = {"iid": "", "skew": "skew=0.3"}
ROWS = [f"{data}-{cut}" for data in DATA for cut in PARTITIONS]
SIZES = {  # pictures, held-out pictures, laps, passes over the local data at a stop
    "small": (4_000, 2_000, 6, 2),
    "full": (30_000, 10_000, 6, 1),
}
SNAKE = "layers_per_stop=3,full_laps=1,anchor=0.1,lr=0.001"
ADJUSTED = "distill=0,anchor=0,lr=0.002,logit_adjustment=1"
PLAIN = "distill=0,logit_adjustment=0,anchor=0,lr=0.002"
ROUNDS = 12  # of FedAvg


def plans_of(laps: int, epochs: int) -> dict[str, str]:
    """Plans by label, as `mfd compare` takes them."""
    plans = {
        "snake": f"snake:{SNAKE}",
        "snake-nokd": f"snake:{SNAKE},distill=0",
        "walk": "walk:anchor=0.1,lr=0.001",
        "fedavg": f"fedavg:laps={ROUNDS},epochs={epochs * laps / ROUNDS},{PLAIN}",
        "fedavg-la": f"fedavg:laps={ROUNDS},epochs={epochs * laps / ROUNDS},{ADJUSTED}",
        "centralised": f"centralised:{PLAIN}",
    }
    if "gossip" in MODES:
        plans["gossip"] = "gossip:lr=0.001"
    return plans


def study_of(row: str, args: argparse.Namespace) -> Study:
    """The comparison of a row, begun or gone on with."""
    data, _, cut = row.partition("-")
    address, recipe = DATA[data]
    address = address.replace("{root}", args.root)
    count, held_out, laps, epochs = SIZES[args.size]
    if args.limit:
        count = held_out = args.limit
    order = Order(
        [f"{label}={plan}" for label, plan in plans_of(laps, epochs).items()],
        f"{address}?split=train&limit={count}",
        test=f"{address}?split=test&limit={held_out}",
        topology="ring:5",
        partition=PARTITIONS[cut],
        recipe=recipe,
        laps=laps,
        sets=[f"epochs={epochs}", "batch=32"],
        seeds=args.seeds,
    )
    config, graph = resolve(order)
    limit = f"-{args.limit}" if args.limit else ""
    return open_study(args.folder / f"cv-{args.size}{limit}-{row}", config, graph)


def bytes_to_reach(study: Study, cell: Cell, accuracy: float) -> float | None:
    """Bytes on links when a run was first measured at this accuracy."""
    for line in read_lines(study.metrics(cell)):
        if line["kind"] == "measured" and line["accuracy"] >= accuracy:
            return float(line["links_bytes"])
    return None


def share_of_fedavg(study: Study, label: str) -> str:
    """Which part of FedAvg's bytes a plan needed for FedAvg's final accuracy, seed by seed.

    Of FedAvg with and without logit adjustment the better one counts.
    """
    shares, missed = [], 0
    for seed in study.config["seeds"]:
        tried = [study.outcome(Cell(name, seed)) for name in ("fedavg", "fedavg-la")]
        best = max((end for end in tried if end), key=lambda end: end["accuracy"], default=None)
        if best is None or study.outcome(Cell(label, seed)) is None:
            continue
        found = bytes_to_reach(study, Cell(label, seed), best["accuracy"])
        if found is None:
            missed += 1
        else:
            shares.append(found / best["links_bytes"])
    told = f"1/{1 / np.mean(shares):.1f}" if shares and np.mean(shares) else "-"
    return told + (f" ({missed} missed)" if missed else "")


def table(row: str, study: Study) -> list[str]:
    """Markdown, of what is finished."""
    lines = [
        f"### {row}",
        "",
        f"`{study.config['data']}`, dealt out {study.config['partition'] or 'evenly'} to 5 holders",
        "",
        "| plan | accuracy % | worst seed | MB on links | MB of objects | bytes to FedAvg's "
        "accuracy, of FedAvg's | samples | seeds | CPU s a seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for found in summary(study):
        accuracy = f"{100 * found['accuracy']:.2f} +- {100 * found['accuracy_sd']:.2f}"
        travels = found["mode"] not in ("centralised", "local", "fedavg")
        share = share_of_fedavg(study, found["plan"]) if travels else "-"
        lines.append(
            f"| {found['plan']} | {accuracy} | {100 * found['accuracy_least']:.2f} "
            f"| {found['links_bytes'] / 1e6:.2f} | {found['objects_bytes'] / 1e6:.2f} | {share} "
            f"| {found['samples']:,.0f} | {found['seeds']} | {found['cpu_seconds']:.0f} |"
        )
    return [*lines, ""]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and print the tables; 1 where a run has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--row", nargs="*", choices=ROWS, default=ROWS)
    parser.add_argument("--plan", nargs="*", help="labels; default: all")
    parser.add_argument("--seed", default="1-3", help="1-3 or 1,2")
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--limit", type=int, default=0, help="so few pictures, for a trial")
    parser.add_argument("--root", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    args.seeds = parse_seeds(args.seed)
    failed, lines = 0, [f"    python benchmarks/learning_cv.py --size {args.size}", ""]
    for row in args.row:
        study = study_of(row, args)
        wanted = [c for c in study.cells if not args.plan or c.label in args.plan]
        wanted = [c for c in wanted if c.seed in args.seeds and not args.table]
        for cell, outcome, _ in complete(study, jobs=args.jobs, cells=wanted):
            failed += outcome["kind"] != "end"
            print(_told(row, cell, outcome), file=sys.stderr, flush=True)
        if wanted:
            from mfd.cli import reporting

            reporting.write(study)
        lines += table(row, study)
    if "gossip" not in MODES:
        lines.append("This version has no mode gossip.")
    print("\n".join(lines))
    return 1 if failed else 0


def _told(row: str, cell: Cell, outcome: dict[str, Any]) -> str:
    if outcome["kind"] != "end":
        return f"{row} {cell}: failed: {outcome['reason']}"
    return f"{row} {cell}: {outcome['accuracy']:.4f}, {outcome['cpu_seconds']:.0f} s CPU"


if __name__ == "__main__":
    sys.exit(main())
