r"""The recipe: how near snake and walk come to centralised training, and for how many bytes.

    python benchmarks/learning_recipe.py --seeds 1-3 --passes 1 --out recipe.jsonl
    python benchmarks/learning_recipe.py --rows snake --seeds 2 --passes 1 --out recipe.jsonl

Fashion-MNIST, Dirichlet 0.3 over 5 holders, the small CNN of the zoo. Every row sees the same
number of samples, `--passes` times the training data in all. A row and seed that stands in `--out`
is not run again, so one can run alone; the table is of all that stands there with these passes.
`--set KEY=VALUE` changes the learning of the chosen rows, which then go by another name.
Bytes: those of the layer objects that a receiver lacks (see recipe.py). Ratio: how many times those
of `fedavg`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import recipe

AIDED = {"batch": 64, "lr": 2e-3}  # with the default logit adjustment 1 and distillation 0.3
PLAIN = {"batch": 64, "distill": 0.0, "logit_adjustment": 0.0}
ADJUSTED = {"batch": 64, "lr": 2e-3, "distill": 0.0}
ROWS: dict[str, dict[str, Any]] = {
    "centralised": {"mode": "centralised", "learn": PLAIN | {"lr": 2e-3}},
    "walk": {"mode": "walk", "laps": 4, "learn": AIDED},
    "snake, full_laps 2": {
        "mode": "snake",
        "laps": 4,
        "full_laps": 2,
        "layers_per_stop": 3,
        "learn": AIDED,
    },
    "snake, full_laps 1": {
        "mode": "snake",
        "laps": 4,
        "full_laps": 1,
        "layers_per_stop": 3,
        "learn": AIDED,
    },
    "snake, full_laps 2, replay": {
        "mode": "snake",
        "laps": 4,
        "full_laps": 2,
        "layers_per_stop": 3,
        "learn": AIDED | {"replay": 0.5},  # holders tell of their classes
    },
    "fedavg": {"mode": "fedavg", "rounds": 20, "learn": ADJUSTED},
    "fedavg, 60 rounds": {"mode": "fedavg", "rounds": 60, "learn": ADJUSTED},
}


def run(row: str, fields: dict[str, Any], args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One row for one seed: what the table needs, and the learning options that made it."""
    laps, rounds = fields.get("laps", 1), fields.get("rounds", 1)
    shares = {"fedavg": rounds, "centralised": 1}.get(fields["mode"], laps)
    learn = {**fields["learn"], **args.set, "epochs": args.passes / shares}
    given = argparse.Namespace(
        mode=fields["mode"],
        data="fashion",
        root=args.root,
        holders=5,
        skew=0.3,
        laps=laps,
        rounds=rounds,
        order="lap",
        layers_per_stop=fields.get("layers_per_stop", 1),
        full_laps=fields.get("full_laps", 0),
        head=True,
        threads=1,
        learn=learn,
        recipe={},
    )
    found = recipe.journey(given, seed)
    return {"row": row, "passes": args.passes, "learn": learn, **found}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean and sample spread over the seeds of each row."""
    names = list(dict.fromkeys(entry["row"] for entry in found))
    sent = {
        n: float(np.mean([entry["sent_bytes"] for entry in found if entry["row"] == n]))
        for n in names
    }
    lines = [
        "| row | accuracy (%) | of each seed | below centralised | sent (MB) | fedavg's / these |",
        "|---|---|---|---|---|---|",
    ]
    top = {e["seed"]: e["accuracy"] for e in found if e["row"] == "centralised"}
    for name in names:
        entries = sorted((e for e in found if e["row"] == name), key=lambda e: e["seed"])
        marks = [e["accuracy"] for e in entries]
        below = [top[e["seed"]] - e["accuracy"] for e in entries if e["seed"] in top]
        spread = f" +- {np.std(marks, ddof=1):.2f}" if len(marks) > 1 else ""
        ratio = f"{sent['fedavg'] / sent[name]:.1f}" if sent[name] and "fedavg" in sent else "-"
        lines.append(
            f"| {name} | {np.mean(marks):.2f}{spread} | {', '.join(f'{m:.2f}' for m in marks)} "
            f"| {f'{np.mean(below):.2f}' if below else '-'} | {sent[name] / 1e6:.1f} | {ratio} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", default="", help="names with ; between them; all without it")
    parser.add_argument("--seeds", default="1-3", help="1-3 or 1,2")
    parser.add_argument("--passes", type=float, default=1.0, help="over the training data in all")
    parser.add_argument("--root", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--out", default="recipe.jsonl", help="results, one a line; added to")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    args.set = recipe.pairs(args.set)
    path = Path(args.out)
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    changed = "".join(f", {key}={value}" for key, value in args.set.items())
    for seed in recipe.numbers(args.seeds):
        for name in args.rows.split(";") if args.rows else ROWS:
            row = name + changed
            key = (row, seed, args.passes)
            if key in [(e["row"], e["seed"], e["passes"]) for e in found]:
                continue
            found.append(run(row, ROWS[name], args, seed))
            with path.open("a") as file:
                print(json.dumps(found[-1]), file=file)
    print(table([e for e in found if e["passes"] == args.passes]))


if __name__ == "__main__":
    main()
