r"""One after another or side by side: what extreme label skew does to either.

    python benchmarks/learning_skew.py                          everything
    python benchmarks/learning_skew.py --row c1-k5 --seed 1     one row, one seed

Ten holders with one or two classes each; rows with a small CNN on Fashion-MNIST, with VGG-11 of a
quarter of its width on the CIFAR-10 subset (cifar-...), and with an MLP on digits (digits-...).
Sequential: the model walks from holder to holder. Parallel: all train the same model, which is
averaged. Both do K local steps a holder and round, as many rounds; each at the best of several
learning rates, chosen by the mean accuracy on held-out pictures, which flatters both. After the
table of Li and Lyu (NeurIPS 2023, arXiv 2311.03154), far smaller: there, 500 holders and 4,000
rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mfd.cli.comparing import Order, Study, open_study, parse_seeds, resolve
from mfd.cli.contest import complete, summary

ROUNDS = {5: 40, 20: 20}  # by local steps
DATA = {
    "": ("idx:{root}/fashion-mnist", "cnn:width=8"),
    "cifar-": ("jpeg:{root}/cifar10-jpeg-12k/cifar10_jpeg_12k.npz", "vgg11:width=16"),
    "digits-": ("sklearn:digits", "mlp"),
}
ROWS = [f"{data}c{classes}-k{steps}" for data in DATA for classes in (1, 2) for steps in ROUNDS]
RATES = {"sequential": (0.001, 0.003, 0.01), "parallel": (0.01, 0.03, 0.1)}
DIGITS_RATES = {"sequential": (0.003, 0.01, 0.03), "parallel": (0.03, 0.1, 0.3)}
MODES = {"sequential": "walk", "parallel": "fedavg"}
HOLDERS, PICTURES, HELD_OUT, BATCH = 10, 2_000, 1_000, 20
COUNTS = {"digits-": 1_437}
DIGITS_LONGER = 2  # times as many rounds: they cost little
LEARN = "distill=0,logit_adjustment=0,anchor=0,warmup=0,clip=10,optimizer=sgd"


def study_of(row: str, args: argparse.Namespace) -> Study:
    """The comparison of a row, begun or gone on with."""
    data = next((data for data in DATA if data and row.startswith(data)), "")
    address, recipe = DATA[data]
    address = address.replace("{root}", args.root)
    classes, steps = (int(part[1:]) for part in row.removeprefix(data).split("-"))
    epochs = steps * BATCH / (COUNTS.get(data, PICTURES) / HOLDERS)
    rounds = args.rounds or ROUNDS[steps] * (DIGITS_LONGER if data == "digits-" else 1)
    plans = [
        f"{side}-{rate:g}={MODES[side]}:laps={rounds},epochs={epochs},lr={rate},{LEARN}"
        for side, rates in (DIGITS_RATES if data == "digits-" else RATES).items()
        for rate in rates
    ]
    order = Order(
        plans,
        f"{address}?split=train&limit={PICTURES}",
        test=f"{address}?split=test&limit={HELD_OUT}",
        topology=f"ring:{HOLDERS}",
        partition=f"shard={classes}",
        recipe=recipe,
        sets=[f"batch={BATCH}"],
        seeds=args.seeds,
    )
    config, graph = resolve(order)
    name = f"skew-{args.rounds}-{row}" if args.rounds else f"skew-{row}"
    return open_study(args.folder / name, config, graph)


def best(study: Study, side: str) -> dict[str, Any] | None:
    """The learning rate of a side with the highest mean accuracy."""
    found = [row for row in summary(study) if row["plan"].startswith(side)]
    return max(found, key=lambda row: row["accuracy"], default=None)


def line_of(row: str, study: Study) -> str:
    """One line of Markdown."""
    sides = [best(study, side) for side in RATES]
    cells = []
    for found in sides:
        if found is None:
            cells += ["-", "-", "-"]
            continue
        rate = found["plan"].partition("-")[2]
        accuracy = f"{100 * found['accuracy']:.2f} +- {100 * found['accuracy_sd']:.2f}"
        cells += [accuracy, rate, f"{found['links_bytes'] / 1e6:.1f}"]
    gain = "-"
    if sides[0] and sides[1]:
        gain = f"{100 * (sides[0]['accuracy'] - sides[1]['accuracy']):+.2f}"
    seeds = min((found["seeds"] for found in sides if found), default=0)
    data, classes, steps = "Fashion, CNN", *(part[1:] for part in row.split("-")[-2:])
    if row.startswith("cifar-"):
        data = "CIFAR-10, VGG-11"
    elif row.startswith("digits-"):
        data = "digits, MLP"
    return f"| {data} | {classes} | {steps} | {' | '.join(cells)} | {gain} | {seeds} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and print the table; 1 where a run has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--row", nargs="*", choices=ROWS, default=ROWS)
    parser.add_argument("--plan", nargs="*", help="labels, as sequential-0.003; default: all")
    parser.add_argument("--seed", default="1-3", help="1-3 or 1,2")
    parser.add_argument("--rounds", type=int, default=0, help="other than usual, for a trial")
    parser.add_argument("--root", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    args.seeds = parse_seeds(args.seed)
    lines = [
        "    python benchmarks/learning_skew.py",
        "",
        f"CNN of width 8, VGG-11 of width 16; {PICTURES:,} pictures, {HOLDERS} holders, batch "
        f"{BATCH}, SGD with momentum; rounds by K: "
        + ", ".join(f"{k}: {args.rounds or r}" for k, r in ROUNDS.items()),
        "",
        "| data, model | classes a holder | K | sequential % | rate | MB | parallel % | rate "
        "| MB | gain | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    failed = 0
    for row in args.row:
        study = study_of(row, args)
        wanted = [c for c in study.cells if not args.plan or c.label in args.plan]
        wanted = [c for c in wanted if c.seed in args.seeds and not args.table]
        for cell, outcome, _ in complete(study, jobs=args.jobs, cells=wanted):
            failed += outcome["kind"] != "end"
            told = outcome.get("accuracy", outcome.get("reason"))
            print(f"{row} {cell}: {told}", file=sys.stderr, flush=True)
        if wanted:
            from mfd.cli import reporting

            reporting.write(study)
        lines.append(line_of(row, study))
    print("\n".join(lines))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
