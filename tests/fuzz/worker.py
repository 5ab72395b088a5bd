"""One worker process of a campaign: makes inputs by number, runs them, tells what came of them.

    stdout: one JSON object a line: a batch that is done, a finding, and at last that all is done
    the file --at: u64, the number of the input in work and 1 more, or 0 before the first, for
    whoever has to explain a death

Rules of this file: input N of a seed is the same in every process, so a number reproduces it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from itertools import accumulate
from mmap import mmap
from pathlib import Path
from random import Random
from typing import IO

from tests.fuzz.corpus import Corpus, make_corpus
from tests.fuzz.draw import draw
from tests.fuzz.targets import Target
from tests.fuzz.watch import Finding, Watch, limit_address_space, peak, rest_peak

BATCH = 512
LEAK_BYTES = 256 << 20  # what a worker may grow by over its life
LEAK_CODE = 3  # how a worker ends that has told of a leak
SAME_MAX = 3  # findings of one kind that are told

__all__ = ["BATCH", "LEAK_CODE", "Inputs", "load_targets", "main"]


def load_targets(module: str, names: Sequence[str] = ()) -> tuple[Target, ...]:
    """Return the targets of a registry, or those of these names. Raises: SystemExit."""
    found: tuple[Target, ...] = import_module(module).TARGETS
    known = {target.name for target in found}
    if strangers := set(names) - known:
        raise SystemExit(
            f"no target {sorted(strangers)[0]!r}; there are: {', '.join(sorted(known))}"
        )
    return tuple(target for target in found if not names or target.name in names)


class Inputs:
    """All inputs of a seed, by number."""

    def __init__(self, seed: int, targets: Sequence[Target]) -> None:
        self._seed = seed
        self._targets = targets
        self._weights = list(accumulate(target.weight for target in targets))
        self.corpus: Corpus = make_corpus(seed)

    def make(self, number: int) -> tuple[Target, bytes]:
        """Return the target and the bytes that have this number."""
        rng = Random(self._seed << 48 | number)
        target = rng.choices(self._targets, cum_weights=self._weights)[0]
        return target, draw(rng, self.corpus, target.kind)


class Campaign:
    """What one worker does."""

    def __init__(
        self,
        inputs: Inputs,
        out: IO[str],
        at: mmap | None = None,
        save: Path | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self._inputs = inputs
        self._without = set(without)
        self._out = out
        self._at = at
        self._save = save
        self._watch = Watch()
        self._told: Counter[tuple[str, str, str]] = Counter()

    def run(self, job: int, jobs: int, start: int, end: int) -> None:
        """Run every batch that is this worker's, from input `start` to `end`."""
        with self._watch.armed():
            began = rest_peak()
            for batch in range(job * BATCH, end, jobs * BATCH):
                if batch + BATCH > start:
                    self._batch(max(batch, start), min(batch + BATCH, end), began)

    def _batch(self, first: int, last: int, began: int) -> None:
        outcomes: Counter[str] = Counter()
        base = rest_peak()
        if base - began > LEAK_BYTES:
            told = f"{base - began >> 20} MiB more than at the start, after input {first}"
            self._tell(Finding("all", "leak", "", told), first, b"")
            raise SystemExit(LEAK_CODE)
        for number in range(first, last):
            if self._at is not None:
                self._at[:8] = (number + 1).to_bytes(8, "little")
            target, data = self._inputs.make(number)
            if target.name in self._without:
                continue
            result: str | Finding | None = self._watch.run(target, data)
            if isinstance(result, Finding):
                self._tell(result, number, data)
                outcomes[f"{target.name}\tFOUND {result.what}"] += 1
            else:
                outcomes[f"{target.name}\t{result}"] += 1
            if peak() - base > target.memory:
                if (found := self._watch.memory(target, data)) is not None:
                    self._tell(found, number, data)
                base = rest_peak()
        print(
            json.dumps({"batch": [first, last], "outcomes": outcomes}), file=self._out, flush=True
        )

    def _tell(self, found: Finding, number: int, data: bytes) -> None:
        self._told[found.signature] += 1
        if self._told[found.signature] > SAME_MAX:
            return
        file = None
        if self._save is not None:
            self._save.mkdir(parents=True, exist_ok=True)
            file = self._save / f"{found.target.replace(' ', '-')}-{found.what}-{number}.bin"
            file.write_bytes(data)
        told = {
            "finding": [found.target, found.what, found.site, found.detail],
            "number": number,
            "file": None if file is None else str(file),
        }
        print(json.dumps(told), file=self._out, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the part of a campaign that is this worker's."""
    parser = argparse.ArgumentParser("python -m tests.fuzz.worker")
    for flag in ("--seed", "--job", "--jobs", "--start", "--end"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--registry", default="tests.fuzz.targets")
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--at", type=Path, required=True)
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args(arguments)
    with os.fdopen(os.dup(1), "w") as out, chosen.at.open("r+b") as file:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)  # what targets print goes nowhere
        os.close(null)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
        warnings.simplefilter("error")  # nobody reads warnings: what warns is a finding
        inputs = Inputs(chosen.seed, load_targets(chosen.registry, chosen.target))
        limit_address_space()
        with mmap(file.fileno(), 8) as at:
            campaign = Campaign(inputs, out, at, chosen.save, chosen.without)
            campaign.run(chosen.job, chosen.jobs, chosen.start, chosen.end)
        print(json.dumps({"done": True}), file=out)


if __name__ == "__main__":
    main()
