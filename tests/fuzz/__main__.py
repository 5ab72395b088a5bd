"""Fuzz the packet codec.

python -m tests.fuzz                             ten million inputs or half an hour
python -m tests.fuzz --seed 1 --only 4711        one input again, by its number
python -m tests.fuzz --file x.bin --target plan  any bytes on one target
python -m tests.fuzz --guided --target chunk     the same targets under atheris

Exit codes: 0 nothing found, 1 something found, 2 wrong usage or atheris is not installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.engine import Engine, Order, once, summary
from tests.fuzz.watch import ROOT, limit_address_space

WANTED = Order()
SAVED = ROOT / "runs" / "fuzz"


def main() -> int:
    """Read the flags and run."""
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=WANTED.inputs, help="stop after so many")
    parser.add_argument(
        "--minutes", type=float, default=WANTED.seconds / 60, help="stop after these"
    )
    parser.add_argument("--seed", type=int, default=WANTED.seed)
    parser.add_argument("--jobs", type=int, default=WANTED.jobs, help="worker processes")
    parser.add_argument("--target", action="append", default=[], help="this one alone; repeat it")
    parser.add_argument("--registry", default=WANTED.registry, help="module that holds TARGETS")
    parser.add_argument("--only", type=int, metavar="N", help="run input number N alone")
    parser.add_argument("--file", type=Path, help="run the bytes of a file")
    parser.add_argument("--guided", action="store_true", help="guided by coverage, under atheris")
    chosen = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        print("python -m tests.fuzz reads memory from /proc: it needs Linux", file=sys.stderr)
        return 2
    order = Order(
        chosen.seed, chosen.inputs, 60 * chosen.minutes, chosen.jobs, chosen.registry,
        tuple(chosen.target), SAVED,
    )  # fmt: skip
    if chosen.guided:
        from tests.fuzz.guided import campaign

        return campaign(order)
    if chosen.only is not None or chosen.file is not None:
        limit_address_space()
        body = None if chosen.file is None else chosen.file.read_bytes()
        return 1 if once(order, chosen.only, body) else 0
    result = Engine(order, lambda line: print(line, flush=True)).run()
    print(f"\n{summary(result, order)}")
    return 1 if result.found else 0


if __name__ == "__main__":
    sys.exit(main())
