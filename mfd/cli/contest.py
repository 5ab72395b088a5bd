"""Run what a comparison still lacks, several runs at once where wanted, then report."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mfd.cli.comparing import Cell, Order, Study, open_study, read_config, resolve
from mfd.cli.errors import CommandError, Misuse
from mfd.cli.view import console, data_size, print_json

__all__ = ["complete", "opened", "run", "summary", "uneven_samples"]
UNEVEN = 0.05  # of the samples: below it plans count as having seen equally many
Json = dict[str, Any]


@contextmanager
def opened(
    order: Order, folder: Path, name: str, config: Path | None, *, allow_py: bool = False
) -> Iterator[Study]:
    """The study that was asked for, begun or gone on with, and locked. Raises: Misuse."""
    if name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}", name):
        raise Misuse(f"--name {name}: letters, digits and _.+- only, a letter or digit first")
    if config is not None:
        if order.plans or order.data:
            raise Misuse("--config has plans and data already: leave them out")
        resolved, graph = read_config(config, allow_py=allow_py)
        own = name or config.absolute().parent.name
    else:
        resolved, graph = resolve(order)
        own = name or "compare"
    with _alone(folder / own):
        yield open_study(folder / own, resolved, graph)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder until the end. Raises: Misuse naming who has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        raise Misuse(f"{folder} cannot be written: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise Misuse(
                f"{folder} is in use by another mfd compare (process {owner}): wait until it ends, "
                "or give another --name"
            ) from exc
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def run(
    study: Study, *, jobs: int = 1, cells: Sequence[Cell] | None = None, as_json: bool = False
) -> None:
    """Do what is not done yet, say how it went, write the report.

    Raises: CommandError where a run has failed; the others are done all the same.
    """
    from mfd.cli import reporting

    out = console()
    failed = []
    for cell, outcome, fresh in complete(study, jobs=jobs, cells=cells):
        if outcome["kind"] != "end":
            failed.append(f"{cell}: {outcome['reason']}")
        if not as_json:
            out.print(_line(cell, outcome, fresh=fresh), markup=False, soft_wrap=True)
    page = reporting.write(study)
    rows = summary(study)
    if as_json:
        print_json({"folder": str(study.folder), "report": str(page), "plans": rows})
    else:
        _table(rows)
        if uneven := uneven_samples(rows):
            out.print(f"\n{uneven}", markup=False, soft_wrap=True)
        out.print(f"\n{page}", markup=False, soft_wrap=True)
    if failed:
        raise CommandError(f"{len(failed)} run(s) failed; {failed[0]}")


def complete(
    study: Study, *, jobs: int = 1, cells: Sequence[Cell] | None = None
) -> Iterator[tuple[Cell, Json, bool]]:
    """Every cell with its last line, and whether it was run now."""
    wanted = study.cells if cells is None else list(cells)
    left = []
    for cell in wanted:
        outcome = study.outcome(cell)
        if outcome is None:
            left.append(cell)
        else:
            yield cell, outcome, False
    if jobs == 1 or len(left) < 2:
        from mfd.cli.cells import run_cell

        for cell in left:
            yield cell, run_cell(study, cell), True
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(left)), spawn, _quietly)
    try:
        waiting = {pool.submit(_in_child, study.folder, cell): cell for cell in left}
        for done in as_completed(waiting):
            yield waiting[done], done.result(), True
    finally:
        pool.shutdown(cancel_futures=True)


def _quietly() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _in_child(folder: Path, cell: Cell) -> Json:
    from mfd.cli.cells import run_cell

    return run_cell(open_study(folder), cell)


def _line(cell: Cell, outcome: Json, *, fresh: bool) -> str:
    if outcome["kind"] != "end":
        return f"{cell!s:28} failed: {outcome['reason']}"
    known = "" if fresh else "  (known)"
    if "residents_accuracy" in outcome:
        known = f"  residents {outcome['residents_accuracy']:.2%}{known}"
    return (
        f"{cell!s:28} accuracy {outcome['accuracy']:7.2%}  links "
        f"{data_size(outcome['links_bytes']):>9}  objects "
        f"{data_size(outcome['objects_bytes']):>9}  {outcome['samples']:>9,.0f} samples  "
        f"{outcome['second']:8.1f} s virtual  {outcome['cpu_seconds']:6.1f} s CPU{known}"
    )


def summary(study: Study) -> list[Json]:
    """Mean and spread over the seeds that are done, plan by plan."""
    import numpy as np

    rows = []
    for label in study.config["plans"]:
        ended = [study.outcome(Cell(label, seed)) for seed in study.config["seeds"]]
        done = [end for end in ended if end is not None]
        if not done:
            continue
        row: Json = {"plan": label, "mode": study.config["plans"][label]["mode"]}
        row["seeds"] = len(done)
        for key in (
            "accuracy",
            "loss",
            "links_bytes",
            "objects_bytes",
            "samples",
            "stops",
            "second",
            "cpu_seconds",
        ):
            values = [end[key] for end in done]
            row[key], row[f"{key}_sd"] = float(np.mean(values)), float(np.std(values))
        row["accuracy_least"] = min(end["accuracy"] for end in done)
        if taught := [end["residents_accuracy"] for end in done if "residents_accuracy" in end]:
            row["residents_accuracy"] = float(np.mean(taught))
        rows.append(row)
    return rows


def uneven_samples(rows: Sequence[Json]) -> str:
    """Say so where the plans did not learn from equally many samples; empty where they did."""
    ordered = sorted(rows, key=lambda row: row["samples"])
    if not ordered or ordered[-1]["samples"] <= (1 + UNEVEN) * ordered[0]["samples"]:
        return ""
    few, many = (f"{row['plan']} from {row['samples']:,.0f}" for row in (ordered[0], ordered[-1]))
    return (
        f"the plans did not learn from equally many samples: {few}, {many}; a stop of less than a "
        "batch trains a whole one"
    )


def _table(rows: Sequence[Json]) -> None:
    from mfd.cli.view import print_table

    taught = any("residents_accuracy" in row for row in rows)
    shown = [
        (
            row["plan"],
            f"{100 * row['accuracy']:.2f}"
            + (f" +- {100 * row['accuracy_sd']:.2f}" if row["seeds"] > 1 else ""),
            f"{100 * row['accuracy_least']:.2f}",
            *([_percent(row.get("residents_accuracy"))] if taught else []),
            data_size(row["links_bytes"]),
            data_size(row["objects_bytes"]),
            f"{row['samples']:,.0f}",
            f"{row['second']:.1f} s",
            row["seeds"],
        )
        for row in rows
    ]
    print()
    heads = ["plan", "accuracy %", "least", *(["residents %"] if taught else [])]
    heads += ["on links", "objects", "samples", "virtual time", "seeds"]
    print_table(heads, shown, "no run is finished")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
