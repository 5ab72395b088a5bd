"""How commands end: one sentence and an exit code, never a stack trace.

0  done    1  the thing asked for failed    2  wrong usage or configuration    70  a bug in MFD
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

__all__ = [
    "EXIT_CODES",
    "HINT",
    "Bug",
    "CommandError",
    "Misuse",
    "guarded",
    "log_plainly",
    "nearest",
    "read_toml",
]

EXIT_CODES = (
    "Exit codes: 0 done, 1 the thing asked for failed, 2 wrong usage or configuration, "
    "70 a bug in MFD, 130 stopped by Ctrl-C."
)
TOML_BYTES_MAX = 1 << 20
FAILED, MISUSED, BUG, INTERRUPTED = 1, 2, 70, 130
WORLD = {  # errors of the machine, whoever meets them first -> what to do
    errno.ENOSPC: "make room on the disk, then run the same again",
    errno.EDQUOT: "make room within the quota, then run the same again",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a file or folder that is yours",
    errno.EPERM: "choose a file or folder that is yours",
    errno.EIO: "look at the disk, then run the same again",
    errno.EMFILE: "allow more open files with `ulimit -n`",
}
HINT = "run with MFD_DEBUG=1 for the traceback"


class CommandError(Exception):
    """What was asked for failed; the sentence says what is wrong and what to do."""

    code = FAILED


class Misuse(CommandError):
    """Flags, files or settings are wrong; nothing has been done."""

    code = MISUSED


class Bug(CommandError):
    """MFD itself is wrong, or the disk below it."""

    code = BUG


class _Plain(logging.Formatter):
    """One line a record, unless the user debugs."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        return super().formatException(ei) if _debugging() else ""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).rstrip("\n")


def log_plainly(program: str) -> None:
    """Send what the libraries log to stderr, without stack traces."""
    if logging.lastResort is not None:  # warnings and worse, where nobody set up another handler
        logging.lastResort.setFormatter(_Plain(f"{program}: %(message)s"))


def _debugging() -> bool:
    return bool(os.environ.get("MFD_DEBUG"))


def guarded(program: str, run: Callable[[], None]) -> int:
    """Run a command; return its exit code. Whatever it raises becomes one line on stderr."""
    try:
        run()
    except SystemExit as exc:  # typer's way to end, with its own message
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except CommandError as exc:
        print(f"{program}: {exc}", file=sys.stderr)
        return exc.code
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001 - task boundary: users get a line, not a traceback
        if _debugging():
            traceback.print_exc()
        if isinstance(exc, OSError) and exc.errno in WORLD:
            print(f"{program}: {_of_the_world(exc)}", file=sys.stderr)
            return FAILED
        print(f"{program}: a bug in MFD: {type(exc).__name__}: {exc}; {HINT}", file=sys.stderr)
        return BUG
    return 0


def _of_the_world(error: OSError) -> str:
    assert error.errno is not None
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror}: {WORLD[error.errno]}"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a small TOML file; `what` names it in the sentence. Raises: Misuse."""
    try:
        with path.open("rb") as file:
            data = file.read(TOML_BYTES_MAX + 1)
        if len(data) > TOML_BYTES_MAX:
            raise Misuse(f"{what} {path} has more than {TOML_BYTES_MAX >> 20} MiB")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as exc:
        raise Misuse(f"{what} {path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise Misuse(f"{what} {path} is not valid TOML: {exc}") from exc


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?`, or the known words where none is near."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
