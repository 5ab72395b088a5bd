"""The ledger: what a peer must not forget, as rows in one SQLite file.

Rules of this file: a change is on disk when the call returns, or it did not happen. The meaning of
rows is the core's business.
SQLite in WAL mode with synchronous=FULL: a row that was acknowledged survives a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Ledger", "LedgerError"]

SCHEMA = 1
BUSY_SECONDS = 5.0
_CREATE = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('boot', 0);
"""


class LedgerError(OSError):
    """The ledger cannot be opened or written; the sentence says why."""


class Ledger:
    """Rows by key. Every opening raises `boot` durably by one.

    Raises: LedgerError, from every method.
    """

    def __init__(self, path: Path) -> None:
        try:
            # One thread at a time uses it, but not the one that opened it.
            self._db = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._prepare(path)
            self.boot = self._raise_boot()
        except sqlite3.Error as exc:
            raise LedgerError(f"the ledger {path} cannot be used: {exc}") from exc

    def _prepare(self, path: Path) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._db.executescript(f"BEGIN;{_CREATE}PRAGMA user_version={SCHEMA};COMMIT;")
        elif found != SCHEMA:
            raise LedgerError(
                f"the ledger {path} has format {found}, this program knows {SCHEMA}: "
                "use the program that wrote it"
            )

    def _raise_boot(self) -> int:
        query = "UPDATE meta SET value = value + 1 WHERE key = 'boot' RETURNING value"
        return int(self._db.execute(query).fetchall()[0][0])

    def rows(self, prefix: str = "") -> dict[str, bytes]:
        """Return the rows whose keys begin with `prefix`, by key in ascending order."""
        query = "SELECT key, value FROM rows WHERE substr(key, 1, ?) = ? ORDER BY key"
        try:
            return dict(self._db.execute(query, (len(prefix), prefix)))
        except sqlite3.Error as exc:
            raise LedgerError(f"the ledger cannot be read: {exc}") from exc

    def write(self, put: Iterable[tuple[str, bytes]], delete: Iterable[str]) -> None:
        """Change rows in one transaction that survives a power cut."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM rows WHERE key = ?", ((key,) for key in delete))
            self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", put)
            self._db.execute("COMMIT")
        except sqlite3.Error as exc:
            if self._db.in_transaction:
                self._db.rollback()
            raise LedgerError(f"the ledger cannot be written: {exc}") from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()
