"""A campaign: workers in processes of their own, watched from outside, and what they found.

Rules of this file: a worker that dies or stops moving is a finding with the number of its input,
and the campaign goes on behind it. What is found is told once a bug, with the line that shows it.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mfd.packet import Fault
from tests.fuzz.watch import ROOT, Finding
from tests.fuzz.worker import BATCH, LEAK_CODE, Inputs, load_targets

PROGRESS_S = 10.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DEAF_S = 5.0  # of work in one input: code that lets no signal through
STARTING_S = 300.0  # until a worker comes to its first input
READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Order:
    """What a campaign is to do."""

    seed: int = 1
    inputs: int = 10_000_000
    seconds: float = 30 * 60
    jobs: int = 2
    registry: str = "tests.fuzz.targets"
    targets: tuple[str, ...] = ()
    save: Path | None = None
    stuck_s: float = 20.0  # of wall time asleep in one input
    deaths_max: int = 2  # of workers by one target; behind that its inputs are left out
    findings_max: int = 100  # bugs, not inputs; behind that many nobody reads on


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and the input that shows it."""

    finding: Finding
    number: int
    file: str | None

    def reproduce(self, order: Order) -> str:
        """The line that shows it again."""
        line = f"python -m tests.fuzz --seed {order.seed} --only {self.number}"
        line += "".join(f" --target '{name}'" for name in order.targets)
        if order.registry != Order().registry:
            line += f" --registry {order.registry}"
        return line


@dataclass(slots=True)
class Result:
    """How a campaign went."""

    inputs: int = 0
    seconds: float = 0.0
    worked: float = 0.0  # seconds of processor time of all workers
    outcomes: Counter[str] = field(default_factory=Counter)  # "target \t outcome" -> inputs
    found: list[Found] = field(default_factory=list)
    times: Counter[tuple[str, str, str]] = field(default_factory=Counter)


@dataclass(slots=True)
class _Worker:
    """One process and what is known of it."""

    job: int
    process: subprocess.Popen[bytes]
    at: Path
    errors: IO[str]
    number: int = -1  # of the input in work, when it was last looked at; -1 before the first
    since: float = 0.0  # ... and when it was first seen
    spent_before: float = 0.0
    start: int = 0
    done: bool = False  # the process has ended
    whole: bool = False  # ... and said that it came to the end of its inputs
    killed: bool = False
    rest: bytes = b""  # of a line that is not whole yet

    def now_at(self) -> int:
        """The number of the input in work; -1 before the first."""
        return int.from_bytes(self.at.read_bytes()[:8], "little") - 1

    def spent(self) -> tuple[str, float]:
        """The state of the process, and the seconds that it has worked."""
        try:
            text = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:  # it is gone, or this system has no such files
            return "?", 0.0
        state, *numbers = text.rpartition(")")[2].split()
        return state, (int(numbers[10]) + int(numbers[11])) / TICKS_PER_S


class Engine:
    """Runs a campaign to its end."""

    def __init__(self, order: Order, say: Callable[[str], None] = print) -> None:
        self._order = order
        self._say = say
        self._result = Result()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._inputs: Inputs | None = None  # made when a death is to be explained
        self._deaths: Counter[str] = Counter()

    def run(self) -> Result:
        """Run until all inputs are through, the time is over, or there is too much to tell."""
        began = told = time.monotonic()
        before = _worked_by_children()
        with tempfile.TemporaryDirectory(prefix="mfd-fuzz-") as folder:
            for job in range(self._order.jobs):
                self._start(job, 0, Path(folder))
            try:
                while any(not worker.done for worker in self._workers):
                    for key, _ in self._selector.select(0.5):
                        self._read(key.data, Path(folder))
                    now = time.monotonic()
                    self._look_for_stuck(now)
                    if now - told >= PROGRESS_S:
                        told = now
                        self._progress(now - began)
                    if (
                        now - began > self._order.seconds
                        or len(self._result.found) >= self._order.findings_max
                    ):
                        break
            except KeyboardInterrupt:
                self._say("stopped")
            finally:
                for worker in self._workers:
                    worker.process.kill()
                    worker.process.wait()
                    worker.errors.close()
                    if worker.process.stdout is not None:
                        worker.process.stdout.close()
                self._selector.close()
        self._result.seconds = time.monotonic() - began
        self._result.worked = _worked_by_children() - before
        return self._result

    def _start(self, job: int, start: int, folder: Path) -> None:
        order = self._order
        at = folder / f"at-{job}"
        at.write_bytes(bytes(8))
        errors = (folder / f"errors-{job}").open("w+")
        flags = {
            "seed": order.seed, "job": job, "jobs": order.jobs, "start": start,
            "end": order.inputs, "registry": order.registry, "at": at,
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.fuzz.worker"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        command += [f"--target={name}" for name in order.targets]
        command += [
            f"--without={name}" for name, n in self._deaths.items() if n >= order.deaths_max
        ]
        if order.save is not None:
            command.append(f"--save={order.save}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT)
        worker = _Worker(job, process, at, errors, since=time.monotonic(), start=start)
        self._workers = [*(w for w in self._workers if w.job != job), worker]
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)

    def _read(self, worker: _Worker, folder: Path) -> None:
        assert worker.process.stdout is not None
        data = os.read(worker.process.stdout.fileno(), READ_BYTES)
        if data:
            *lines, worker.rest = (worker.rest + data).split(b"\n")
            for line in lines:
                self._take(worker, json.loads(line))
            return
        self._selector.unregister(worker.process.stdout)
        worker.process.stdout.close()
        code = worker.process.wait()
        number = worker.now_at()
        if code != LEAK_CODE and not worker.whole:
            self._died(worker, code, number)
        worker.errors.close()
        worker.done = True
        if not worker.whole and number >= 0:  # else it did not begin: the harness itself is wrong
            self._start(worker.job, number + 1, folder)

    def _take(self, worker: _Worker, told: dict[str, Any]) -> None:
        if "finding" in told:
            self._add(Finding(*told["finding"]), told["number"], told["file"])
            return
        if "done" in told:
            worker.whole = True
            return
        first, last = told["batch"]
        self._result.inputs += last - first
        self._result.outcomes.update(told["outcomes"])

    def _died(self, worker: _Worker, code: int, number: int) -> None:
        worker.errors.seek(0)
        last = worker.errors.read().strip().splitlines()[-1:]  # of a traceback: the error
        if worker.killed:
            what, detail = (
                "hang",
                f"it waited for {self._order.stuck_s:g} s, or let no signal through",
            )
        elif code < 0:
            what, detail = "crash", signal.Signals(-code).name
        else:
            what, detail = "exit", f"code {code}: {' '.join(last)[:300]}"
        name = "the harness" if number < 0 else self._target_of(number)
        self._deaths[name] += 1
        self._add(Finding(name, what, "", detail), number, None)
        if number >= 0:  # the part of its batch that nobody will tell of
            self._result.inputs += number + 1 - max(number - number % BATCH, worker.start)

    def _target_of(self, number: int) -> str:
        if self._inputs is None:
            targets = load_targets(self._order.registry, self._order.targets)
            self._inputs = Inputs(self._order.seed, targets)
        return self._inputs.make(number)[0].name

    def _add(self, finding: Finding, number: int, file: str | None) -> None:
        self._result.times[finding.signature] += 1
        if self._result.times[finding.signature] == 1:
            found = Found(finding, number, file)
            self._result.found.append(found)
            self._say(told(found, self._order))

    def _look_for_stuck(self, now: float) -> None:
        for worker in self._workers:
            if worker.done or worker.killed:
                continue
            number, (state, spent) = worker.now_at(), worker.spent()
            if number != worker.number:
                worker.number, worker.since, worker.spent_before = number, now, spent
                continue
            waited, worked = now - worker.since, spent - worker.spent_before
            if number < 0:
                stuck = waited > STARTING_S
            else:  # a process that is ready to run, and does not, only waits for the machine
                asleep = state in "SD" and worked < waited / 10
                stuck = worked > DEAF_S or (asleep and waited > self._order.stuck_s)
            if stuck:
                worker.killed = True
                worker.process.kill()

    def _progress(self, seconds: float) -> None:
        result = self._result
        speed = result.inputs / max(seconds, 1e-9)
        self._say(
            f"{seconds:6.0f} s  {result.inputs:>9} inputs  {speed:7.0f} inputs/s  "
            f"{len(result.found)} findings"
        )


def _worked_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def told(found: Found, order: Order) -> str:
    """One finding as a person reads it."""
    finding = found.finding
    place = f" at {finding.site}" if finding.site else ""
    lines = [f"FOUND {finding.what} in {finding.target}{place}: {finding.detail}"]
    lines.append(f"  again: {found.reproduce(order)}")
    if found.file is not None:
        lines.append(f"  bytes: {found.file}")
    return "\n".join(lines)


def summary(result: Result, order: Order) -> str:
    """Tables of how far the inputs came, by target and by fault."""
    targets = load_targets(order.registry, order.targets)
    by_target: dict[str, Counter[str]] = {target.name: Counter() for target in targets}
    faults: Counter[str] = Counter()
    for key, count in result.outcomes.items():
        name, _, outcome = key.partition("\t")
        by_target[name][outcome] += count
        faults[outcome.partition(" ")[0]] += count
    lines = [
        f"{'target':<16} {'inputs':>9} {'accepted':>9} {'past the first check':>21}  "
        "most frequent ends"
    ]
    for target in targets:
        ends = by_target[target.name]
        total = sum(ends.values())
        if not total:
            continue
        shallow = sum(n for end, n in ends.items() if end in target.first)
        often = ", ".join(f"{end} {100 * n / total:.0f} %" for end, n in ends.most_common(4))
        lines.append(
            f"{target.name:<16} {total:>9} {100 * ends['ok'] / total:>7.1f} % "
            f"{100 * (total - shallow) / total:>19.1f} %  {often}"
        )
    total = sum(faults.values()) or 1
    lines.append("")
    lines += [
        f"{fault.name:<10} {faults[fault.name]:>9} {100 * faults[fault.name] / total:6.2f} %"
        for fault in Fault
    ]
    if never := [fault.name for fault in Fault if not faults[fault.name]]:
        lines.append(f"never reached: {', '.join(never)}")
    speed = result.inputs / max(result.seconds, 1e-9)
    per_core = result.inputs / max(result.worked, 1e-9)
    lines.append(
        f"\n{result.inputs} inputs in {result.seconds:.0f} s: {speed:.0f} inputs/s with "
        f"{order.jobs} workers, {per_core:.0f} inputs per second of processor time; "
        f"seed {order.seed}: {len(result.found)} findings"
    )
    return "\n".join(lines)


def once(order: Order, number: int | None, body: bytes | None) -> list[Finding]:
    """Run one input in this process: by its number, or its bytes on the targets that are named."""
    from tests.fuzz.watch import Watch

    targets: Sequence[Any] = load_targets(order.registry, order.targets)
    if number is not None:
        target, body = Inputs(order.seed, targets).make(number)
        targets = (target,)
    assert body is not None
    watch = Watch()
    found: list[Finding] = []
    with watch.armed():
        for target in targets:
            result = watch.run(target, body)
            heavy = watch.memory(target, body)
            found += [item for item in (result, heavy) if isinstance(item, Finding)]
            print(f"{target.name}: {len(body)} bytes: {result}")
    return found
