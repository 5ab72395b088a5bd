"""The story of the walkers, in a file beside the ledger, so that it outlives a restart.

    history.jsonl    one report a line, as mfd.net.reports makes them, the oldest first

Rules of this file: it is a help, not a promise. A line is written at once or is not there; what
cannot be written or read is logged and forgotten. The file is bounded: when it is full, the newer
half stays, and takes the place of the old file in one step.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

__all__ = ["HISTORY_BYTES_MAX", "History"]

log = logging.getLogger("mfd")

NAME = "history.jsonl"
HISTORY_BYTES_MAX = 4 << 20  # some 10,000 reports
LINE_BYTES_MAX = 64 << 10

Json = dict[str, Any]


class History:
    """Reports of walkers in one file of at most `bytes_max` bytes. Blocks; never raises."""

    def __init__(self, state: Path, bytes_max: int = HISTORY_BYTES_MAX) -> None:
        self._path = state / NAME
        self._bytes_max = bytes_max
        self._size = 0
        self._silent = False  # the last write failed, and that has been logged

    def read(self) -> list[Json]:
        """Return what was kept, the oldest first; lines that are cut short or strange are left out.

        What is left out is taken out of the file too, so that the next line begins anew.
        """
        try:
            raw = self._path.read_bytes()[-self._bytes_max :]
        except FileNotFoundError:
            return []
        except OSError as exc:
            log.warning("the walkers' history %s cannot be read: %s", self._path, exc)
            return []
        found: list[Json] = []
        kept: list[bytes] = []
        for line in raw.splitlines(keepends=True):
            report = _report(line)
            if report is not None and (not found or report["n"] > found[-1]["n"]):
                found.append(report)
                kept.append(line)
        self._size = len(raw)
        if sum(map(len, kept)) < len(raw):
            log.warning("the walkers' history %s has lines that cannot be read", self._path)
            self._replace(kept)
        return found

    def append(self, report: Json) -> None:
        """Keep one report more."""
        line = json.dumps(report, separators=(",", ":")).encode() + b"\n"
        if len(line) > LINE_BYTES_MAX:
            return
        if self._size + len(line) > self._bytes_max:
            self._halve()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                written = os.write(descriptor, line)
                if written < len(line):  # the disk is full: no half of a line stays
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                    raise OSError("the disk is full")
            finally:
                os.close(descriptor)
        except OSError as exc:
            self._failed(exc)
            return
        self._size += len(line)
        self._silent = False

    def _halve(self) -> None:
        """Let go of the older half."""
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError as exc:
            self._failed(exc)
            return
        kept, size = [], 0
        for line in reversed(lines):
            size += len(line)
            if size > self._bytes_max // 2:
                break
            kept.append(line)
        self._replace(kept[::-1])

    def _replace(self, lines: list[bytes]) -> None:
        """Write the whole file anew, in one step."""
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
        except OSError as exc:
            self._failed(exc)
            return
        self._size = sum(map(len, lines))

    def _failed(self, error: OSError) -> None:
        if not self._silent:
            log.warning("the walkers' history %s cannot be written: %s", self._path, error)
        self._silent = True


def _report(line: bytes) -> Json | None:
    """Read one line; None where it is no report of a walker."""
    try:
        report = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict):
        return None
    right = type(report.get("n")) is int and 0 < report["n"] < 1 << 53
    right = right and type(report.get("at")) in (int, float)
    right = right and all(isinstance(report.get(key), str) for key in ("kind", "walker"))
    return report if right else None
