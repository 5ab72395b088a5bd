"""One input at a time, watched: what it raised, how long it took, how much memory it touched.

Rules of this file: time is that of the process, so that a busy machine makes no finding; memory is
the peak of what was resident, and what is only reserved meets the limit of the address space.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mfd.packet import Fault, PacketError
from tests.fuzz.targets import Target

SECONDS_MAX = 1.0  # of one input
TICK = SECONDS_MAX / 4
TICKS_MAX = 4  # after that many whole ticks within one input it has taken too long
RESERVED_MAX = 1 << 30  # bytes of address space above what the process has at the start
PAGE = os.sysconf("SC_PAGE_SIZE")
PEAK = b"VmHWM:"
STATUS_BYTES = 4096
WORDS = re.compile(r"(?:[a-z]+(?:[ ,]|$))*")  # the beginning of a place: no digest, no name
ROOT = Path(__file__).parents[2]


class Hang(BaseException):
    """Raised inside an input that takes too long; no decoder may catch it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an input did that it must not."""

    target: str
    what: str  # the name of an error, or: hang, memory, leak, crash
    site: str  # file:line of the decoder, where that is known
    detail: str

    @property
    def signature(self) -> tuple[str, str, str]:
        """What makes two findings the same bug."""
        return self.target, self.what, self.site


class Watch:
    """Runs inputs under a deadline and a limit of memory."""

    def __init__(self) -> None:
        self._number = 0
        self._seen = -1
        self._ticks = 0
        self._running = False

    def tick(self, _signal: int, _frame: object) -> None:
        """Count the ticks that fall into one input."""
        if not self._running or self._number != self._seen:
            self._seen, self._ticks = self._number, 0
            return
        self._ticks += 1
        if self._ticks >= TICKS_MAX:
            self._ticks = 0
            raise Hang

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Keep the clock ticking, and the address space small."""
        before = signal.signal(signal.SIGPROF, self.tick)
        signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    def run(self, target: Target, data: bytes) -> str | Finding:
        """Return how the input ended, as `ok` or `FAULT place`, or what it did wrong."""
        self._number += 1
        self._running = True
        try:
            target.run(data)
        except target.errors as exc:
            if isinstance(exc, PacketError) and not isinstance(exc.fault, Fault):
                return Finding(target.name, "no fault", _site(exc), f"a PacketError: {exc}")
            return ended(exc)
        except Hang as exc:
            return Finding(target.name, "hang", _site(exc), f"more than {SECONDS_MAX} s")
        except Exception as exc:  # noqa: BLE001 - whatever else leaves a decoder is the finding
            return Finding(target.name, type(exc).__name__, _site(exc), str(exc)[:200])
        finally:
            self._running = False
        return "ok"

    def memory(self, target: Target, data: bytes) -> Finding | None:
        """Run the input once more and hold its peak of memory against the target's limit."""
        before = rest_peak()
        self.run(target, data)
        grown = peak() - before
        limit = target.memory + target.per_byte * len(data)
        if grown <= limit:
            return None
        told = f"{grown >> 10} KiB for {len(data)} bytes of input, at most {limit >> 10} KiB"
        return Finding(target.name, "memory", "", told)


def ended(exc: Exception) -> str:
    """Name an expected error and its place without numbers."""
    if not isinstance(exc, PacketError):
        return f"{type(exc).__name__}{' of the form' if 'is not a packet' in str(exc) else ''}"
    place = WORDS.match(exc.where)
    return f"{exc.fault.name} {'' if place is None else place[0]}".rstrip(" ,")


def limit_address_space() -> None:
    """Let a reservation of far too much fail; for the whole process, and for good."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + RESERVED_MAX, used + RESERVED_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@cache
def _status(process: int) -> int:
    """The open file in which the kernel tells of the memory of this process."""
    return os.open(f"/proc/{process}/status", os.O_RDONLY)


def peak() -> int:
    """Return the largest number of bytes that were resident since `rest_peak`.

    Not that of getrusage, which begins with the peak of the process that started this one.
    """
    text = os.pread(_status(os.getpid()), STATUS_BYTES, 0)
    at = text.index(PEAK)
    return int(text[at + len(PEAK) : text.index(b"kB", at)]) << 10


def rest_peak() -> int:
    """Begin to measure the peak anew; return what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _site(exc: BaseException) -> str:
    """The innermost line of this project that is no part of the harness."""
    frames = [
        f for f in traceback.extract_tb(exc.__traceback__) if f.filename.startswith(str(ROOT))
    ]
    inner = [f for f in frames if "/tests/fuzz/" not in f.filename] or frames
    if not inner:
        return ""
    return f"{Path(inner[-1].filename).relative_to(ROOT)}:{inner[-1].lineno}"
