"""How commands end."""

from __future__ import annotations

import errno
import logging

import pytest

from mfd.cli.errors import CommandError, Misuse, guarded, log_plainly, nearest


def _raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("it failed"), 1, "x: it failed\n"),
        (Misuse("it is wrong"), 2, "x: it is wrong\n"),
        (KeyboardInterrupt(), 130, "x: stopped\n"),
        (OSError(errno.ENOSPC, "No room", "a/b"), 1, "x: a/b: No room: make room on the disk"),
        (OSError(errno.EROFS, "Fixed"), 1, "x: Fixed: choose a folder that can be written\n"),
        (OSError(errno.EBADF, "Odd"), 70, "x: a bug in MFD: OSError: "),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_each_end_has_its_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded("x", lambda: _raises(error)) == code
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.count("\n") == bool(said)


def test_the_log_shows_no_traceback_unless_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.delenv("MFD_DEBUG", raising=False)
    log_plainly("x")
    logging.getLogger("y").error("broke", exc_info=ValueError("why"))
    assert capsys.readouterr().err == "x: broke\n"
    monkeypatch.setenv("MFD_DEBUG", "1")
    logging.getLogger("y").error("broke", exc_info=ValueError("why"))
    assert "ValueError: why" in capsys.readouterr().err


def test_the_nearest_word_or_all() -> None:
    assert nearest("liste", ["listen", "state"]) == "did you mean 'listen'?"
    assert nearest("zzz", ["b", "a"]) == "known are a, b"
