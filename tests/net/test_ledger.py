from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mfd.net.ledger import Ledger, LedgerError


def test_rows_outlive_the_ledger_and_each_start_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    first = Ledger(path)
    assert (first.boot, first.rows()) == (1, {})
    first.write([("walker/b", b"2"), ("walker/a", b"1"), ("other", b"\0")], [])
    first.close()
    again = Ledger(path)
    assert again.boot == 2
    assert list(again.rows().items()) == [("other", b"\0"), ("walker/a", b"1"), ("walker/b", b"2")]
    assert again.rows("walker/") == {"walker/a": b"1", "walker/b": b"2"}
    again.write([("walker/a", b"3")], ["other", "never there"])
    assert again.rows() == {"walker/a": b"3", "walker/b": b"2"}
    again.close()


def test_it_is_written_through_to_the_disk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ledger.close()


def test_a_failed_change_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.write([("a", b"1")], [])
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.write([("b", b"2"), ("c", None)], ["a"])  # type: ignore[list-item]
    assert ledger.rows() == {"a": b"1"}
    ledger.write([("b", b"2")], [])
    ledger.close()


def test_another_file_or_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(path)
    path.unlink()
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(LedgerError, match="has format 9, this program knows 1"):
        Ledger(path)
