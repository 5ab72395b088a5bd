"""Memory of one stop: full fine-tuning against one block of 24, by formula and measured; a relay.

    python benchmarks/learning_memory.py --only formula
    python benchmarks/learning_memory.py --only measured --width 512
    python benchmarks/learning_memory.py --only relay

Formula: 16-bit weights and gradients, 32-bit master copies
and the two slots of Adam are 16 bytes a parameter where it trains; 2 bytes where it is frozen.
Measured: a transformer of the zoo with 24 blocks and bfloat16 weights on the CPU, each case in a
process of its own: the sum of all tensors alive at the end of a step (weights, copies, optimiser;
the gradients counted as they are dropped one by one), and the peak of resident memory while it
trains, activations included (mfd.learn.memory says how). The relay is a process that passes packets
of 1 MB and 100 MB on and holds nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

GIB = 1 << 30
MIB = 1 << 20
BLOCKS = 24
SHAPES = {"OPT-1.3B": (1.3e9, 24), "OPT-1.3B, exact": (1.3158e9, 24), "Llama-3-8B": (8.03e9, 32)}
CASES = {"full": "all layers", "block": "one block of 24", "budget": "what 2/5 of full allows"}


def formula() -> None:
    print("| model | full, GiB | one block, GiB | part |")
    print("|---|---:|---:|---:|")
    for name, (count, blocks) in SHAPES.items():
        full, one = 16 * count / GIB, (2 * count + 14 * count / blocks) / GIB
        print(f"| {name}, {blocks} blocks | {full:.2f} | {one:.2f} | 1/{full / one:.1f} |")


def one_case(case: str, width: int, length: int, batch: int) -> dict[str, Any]:
    """In this process: train once, count what there is."""
    import gc

    import numpy as np
    import torch

    from mfd.learn import Holding, zoo
    from mfd.learn.memory import need_of, state_bytes
    from mfd.learn.options import Options
    from mfd.learn.stop import Stop
    from mfd.learn.training import train_blocks

    torch.set_num_threads(1)
    recipe = {
        "zoo": "transformer",
        "vocabulary": 256,
        "length": length,
        "width": width,
        "depth": BLOCKS,
        "heads": 8,
    }
    module = zoo.init(recipe, 1).to(torch.bfloat16)
    tokens = np.random.default_rng(1).integers(0, 256, (batch, length + 1)).astype(np.uint8)
    holding = Holding(tokens[:, :-1].copy(), tokens[:, 1:].copy(), 256)
    options = Options(steps=2, batch=batch, distill=0.0, lr=1e-4)
    every = ((0, BLOCKS + 2),)
    middle = ((12, 13),)
    budget = 0
    if case == "budget":
        budget = need_of(module, holding, range(BLOCKS + 2), options).total(batch) * 2 // 5
    ranges = middle if case == "block" else every
    alive: list[int] = []
    plain = Stop.step

    def counted(self: Stop, rows: torch.Tensor, rate: float) -> torch.Tensor:
        out = plain(self, rows, rate)
        gc.collect()
        stepper = self.stepper
        tensors = [*stepper.targets, *module.state_dict(keep_vars=True).values()]
        for optimizer in stepper.optimizers:
            for slots in optimizer.state.values():
                tensors += [t for t in slots.values() if isinstance(t, torch.Tensor)]
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        gradients = sum(p.nbytes for p in stepper.parameters)
        alive.append(sum(held.values()) + gradients)
        return out

    Stop.step = counted  # type: ignore[method-assign]
    done = train_blocks(
        module,
        holding,
        trained=ranges,
        body=(1, BLOCKS + 1) if case == "budget" else None,
        budget=budget,
        options=options,
    )
    chosen = sorted({i for low, high in done.trained for i in range(low, high)})
    micro = int(done.claims.get("micro", batch))
    return {
        "case": case,
        "parameters": sum(p.numel() for p in module.parameters()),
        "weights": state_bytes(module),
        "state": max(alive),
        "estimate": need_of(module, holding, chosen, options).total(micro),
        "peak": done.claims["taken_bytes"],
        "layers": len(chosen),
        "micro": micro,
        "budget": budget,
    }


def measured(args: argparse.Namespace) -> None:
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--width", str(args.width)]
        command += ["--length", str(args.length), "--batch", str(args.batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print("| trained | layers | samples at once | model state, MiB | part of full |", end="")
    print(" reckoned with activations | measured peak |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {CASES[row['case']]} | {row['layers']} | {row['micro']} "
            f"| {row['state'] / MIB:.1f} | {row['state'] / rows[0]['state']:.3f} "
            f"| {row['estimate'] / MIB:.1f} | {row['peak'] / MIB:.1f} |"
        )
    count, budget = rows[0]["parameters"], rows[2]["budget"]
    print()
    print(f"{count / 1e6:.1f} M parameters; the budget of the last row is {budget / MIB:.1f} MiB.")


def relay() -> None:
    """How much the resident memory of a relay grows while it passes packets on."""
    from transfer import run_custody

    print("| packet through one relay | memory of the relay grows by, MiB |")
    print("|---|---:|")
    for size in (1, 100):
        grown = run_custody(size * 10**6, 1)["relays"][0]["grown_kib"]
        print(f"| {size} MB | {grown / 1024:.1f} |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["formula", "measured", "relay"])
    parser.add_argument("--case", choices=sorted(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args(argv)
    if args.case:
        print(json.dumps(one_case(args.case, args.width, args.length, args.batch)))
        return
    if args.only in (None, "formula"):
        formula()
    if args.only in (None, "measured"):
        print()
        measured(args)
    if args.only in (None, "relay"):
        print()
        relay()


if __name__ == "__main__":
    main()
