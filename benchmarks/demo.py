"""The demo's claim over several seeds: near centralised, at a fifth of FedAvg's bytes.

    python benchmarks/demo.py --seeds 1-5

Runs `mfd demo` (real processes, real sockets) once a seed and prints, beside centralised training
on the pooled data and FedAvg on the same network, how far the snake is below and which share of
the bytes it sent. Exit code 1 where a seed misses a bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

POINTS_MAX = 2.5
SHARE_MAX = 1 / 5


def outcomes(seed: int, folder: Path, flags: list[str]) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "mfd.cli.main", "demo", "--seed", str(seed)]
    subprocess.run(
        [*command, "--folder", str(folder), *flags], check=True, stdout=subprocess.DEVNULL
    )
    return {row["mode"]: row for row in json.loads((folder / "outcomes.json").read_text())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="1-5")
    args, flags = parser.parse_known_args()
    first, dash, last = args.seeds.partition("-")
    seeds = range(int(first), int(last) + 1) if dash else [int(s) for s in args.seeds.split(",")]
    print("seed  centralised   snake    walk  FedAvg   below  sent once  on links")
    missed = 0
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows = outcomes(seed, Path(folder), flags)
        percent = {mode: 100 * row["accuracy"] for mode, row in rows.items()}
        below = percent["centralised"] - percent["snake"]
        once, links = (
            rows["snake"][key] / rows["fedavg"][key] for key in ("once_bytes", "links_bytes")
        )
        good = below <= POINTS_MAX and max(once, links) <= SHARE_MAX
        missed += not good
        print(
            f"{seed:4}  {percent['centralised']:10.2f}  {percent['snake']:6.2f}  "
            f"{percent['walk']:6.2f}  {percent['fedavg']:6.2f}  {below:6.2f}    "
            f"1/{1 / once:.1f}      1/{1 / links:.1f}  {'' if good else 'MISSED'}",
            flush=True,
        )
    print(f"bounds: at most {POINTS_MAX} points below, at most 1/{1 / SHARE_MAX:.0f} of the bytes")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
