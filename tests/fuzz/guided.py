"""The same targets under atheris: inputs that reach new lines of mfd are kept and changed further.

    python -m tests.fuzz --guided --target chunk --minutes 5

Rules of this file: nothing of mfd is imported before atheris stands ready to instrument it, so
each target runs in a process of its own, whose main function is `fuzz`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.engine import Order

MISSING = (
    "atheris is not installed, so nothing guides the inputs: pip install 'mfd[fuzz]' "
    "(Linux, Python 3.11 to 3.14), or leave out --guided"
)
INPUT_SECONDS_MAX = 5  # wall time, so longer than in campaigns of our own
MEMORY_MIB_MAX = 1024
INPUT_BYTES_MAX = 1 << 16
BY_FORM = 0.5  # share of changes that know the form; the others are libFuzzer's own


def campaign(order: Order) -> int:
    """Run every target for its share of the time. Returns the exit code of the program."""
    if find_spec("atheris") is None:
        print(MISSING, file=sys.stderr)
        return 2
    from tests.fuzz.worker import load_targets

    targets = load_targets(order.registry, order.targets)
    seconds = max(1, round(order.seconds / len(targets)))
    failed = []
    for target in targets:
        print(f"{target.name}: {seconds} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.guided", f"--target={target.name}"]
        command += [f"--registry={order.registry}", f"--seed={order.seed}"]
        command += [f"--seconds={seconds}", f"--inputs={order.inputs}"]
        if order.save is not None:
            command.append(f"--save={order.save}")
        if subprocess.run(command, check=False).returncode:
            failed.append(target.name)
    print(
        f"{len(targets)} targets; ended with a finding or an error: {', '.join(failed) or 'none'}"
    )
    return 1 if failed else 0


def fuzz(arguments: list[str] | None = None) -> None:
    """Fuzz one target; the process ends with 0, or with another code where it found something."""
    parser = argparse.ArgumentParser("python -m tests.fuzz.guided")
    parser.add_argument("--target", required=True)
    parser.add_argument("--registry", default="tests.fuzz.targets")
    for flag in ("--seed", "--seconds", "--inputs"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--save", type=Path, default=Path("runs/fuzz"))
    chosen = parser.parse_args(arguments)
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["mfd"]):
        from tests.fuzz.corpus import take_apart
        from tests.fuzz.draw import alter
        from tests.fuzz.watch import Finding, Watch
        from tests.fuzz.worker import Inputs, load_targets
    (target,) = load_targets(chosen.registry, [chosen.target])
    corpus = Inputs(chosen.seed, [target]).corpus
    watch = Watch()

    def run(data: bytes) -> None:
        result = watch.run(target, data)
        if isinstance(result, Finding):
            raise AssertionError(f"{result.what} at {result.site}: {result.detail}")

    def change(data: bytes, size_max: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() > BY_FORM:
            mutated: bytes = atheris.Mutate(data, size_max)
            return mutated
        made = alter(rng, corpus, target.kind, take_apart(target.kind, bytes(data)))
        return made[:size_max]

    chosen.save.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mfd-guided-") as folder:
        for number, sample in enumerate(corpus.shelf(target.kind)):
            (Path(folder) / str(number)).write_bytes(sample.body)
        flags: dict[str, Any] = {
            "max_total_time": chosen.seconds,
            "runs": chosen.inputs,
            "seed": chosen.seed & 0xFFFFFFFF or 1,
            "timeout": INPUT_SECONDS_MAX,
            "rss_limit_mb": MEMORY_MIB_MAX,
            "max_len": INPUT_BYTES_MAX,
            "artifact_prefix": f"{chosen.save}/{target.name.replace(' ', '-')}-guided-",
            "print_final_stats": 1,
            "verbosity": 0,
        }
        given = [sys.argv[0], *(f"-{name}={value}" for name, value in flags.items()), folder]
        atheris.Setup(given, run, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    fuzz()
