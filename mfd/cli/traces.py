"""`mfd sim --trace` and `mfd replay`: a run in a file, and whether it runs the same again.

Rules of this file: text lines of sim.record into and out of files; a file that is cut short is said
to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mfd import __version__
from mfd.cli.errors import CommandError, Misuse
from mfd.cli.view import print_json
from mfd.core.events import Event
from mfd.sim.host import Host
from mfd.sim.record import FORMAT, KEY, event_line, from_plain, to_plain
from mfd.sim.running import Outcome, run
from mfd.sim.scenario import Scenario

__all__ = ["Book", "replay", "writing"]


class Book:
    """Writes a trace."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def log(self, now_us: int, host: Host, event: Event, note: bytes) -> None:
        """Write one event."""
        self._file.write(event_line(now_us, host, event, note) + "\n")

    def close(self, outcome: Outcome) -> None:
        """Write how it ended."""
        end = {
            "events": outcome.events,
            "trace": outcome.trace,
            "violation": outcome.violation,
        }
        self._file.write(json.dumps(end) + "\n")


@contextmanager
def writing(path: Path, scenario: Scenario, *, checks: bool) -> Iterator[Book]:
    """Open a trace file and write its head. Raises: Misuse."""
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as exc:
        raise Misuse(f"{path} cannot be written: {exc.strerror}") from exc
    with file:
        head = {
            KEY: FORMAT,
            "software": __version__,
            "checks": checks,
            "scenario": to_plain(scenario),
        }
        file.write(json.dumps(head) + "\n")
        yield Book(file)


class _Parted(Exception):
    """The run does something else than the trace says."""


class _Reader:
    """Compares a run with the lines of a trace."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.count = 0

    def log(self, now_us: int, host: Host, event: Event, note: bytes) -> None:
        """Compare one event. Raises: _Parted."""
        self.count += 1
        line = event_line(now_us, host, event, note)
        told = next(self._lines, "").rstrip("\n")
        if told != line:
            raise _Parted(f"event {self.count} was {_words(told)} and is {_words(line)}")

    def end(self) -> dict[str, Any]:
        """Return the last line. Raises: _Parted where events are left, CommandError for none."""
        line = next(self._lines, "")
        if line[:1] != "{":
            if line:
                raise _Parted(f"the run ends where event {self.count + 1} was {_words(line)}")
            raise CommandError("the trace is cut short: its last line is missing")
        end: dict[str, Any] = json.loads(line)
        return end


def _words(line: str) -> str:
    parts = line.rstrip("\n").split("\t")
    if len(parts) != 5:
        return "the end"
    at, host, kind, what, checksum = parts
    return f"{kind} ({what or '-'}) at {host} at {int(at) / 1e6:.6f} s, checksum {checksum}"


def replay(path: Path, *, as_json: bool) -> None:
    """Run a trace again. Raises: CommandError where it parts, Misuse for what is no trace."""
    try:
        with path.open(encoding="utf-8") as file:
            head, scenario = _head(path, file.readline())
            reader = _Reader(iter(file))
            try:
                outcome = run(scenario, checks=bool(head.get("checks", True)), log=reader.log)
                end = reader.end()
            except _Parted as parted:
                by = head.get("software")
                older = f" (written by version {by})" if by != __version__ else ""
                raise CommandError(f"{path} parts from this run{older}: {parted}") from None
    except OSError as exc:
        raise Misuse(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise Misuse(f"{path} is not a trace of mfd sim: it is no text") from exc
    if outcome.trace != end.get("trace"):
        raise CommandError(f"{path}: every event is the same, the trace's hash is not")
    if as_json:
        print_json({"events": outcome.events, "trace": outcome.trace, "same": True})
        return
    print(f"the same {outcome.events} events, trace {outcome.trace}")
    if outcome.violation:
        print(f"and the same end: {outcome.violation}")


def _head(path: Path, line: str) -> tuple[dict[str, Any], Scenario]:
    try:
        head = json.loads(line)
        if head[KEY] != FORMAT:
            raise Misuse(f"{path} is a trace of format {head[KEY]}; this version reads {FORMAT}")
        return head, from_plain(head["scenario"])
    except (ValueError, KeyError, TypeError) as exc:
        raise Misuse(f"{path} is not a trace of mfd sim") from exc
