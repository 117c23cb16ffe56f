# SPDX-License-Identifier: Apache-2.0
"""The book of sessions that several processes of one Verifier share: one SQLite file.

What is in it need not outlast a crash of the machine, since the key of the sessions does not
either; so nothing waits for the disk. Entering a session is one INSERT: of two processes that try
it at once, SQLite lets one go first and refuses the other.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from troth.errors import UnavailableError
from troth.verifier.session_book import Outcome, SessionBook, used

__all__ = ["SqliteSessionBook"]

_BUSY_SECONDS = 5.0
_RETRY_SECONDS = 0.01
_BATCH = 5000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
    mark BLOB PRIMARY KEY,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS used_expires ON used (expires);
CREATE TABLE IF NOT EXISTS outcomes (
    number INTEGER PRIMARY KEY,
    mark BLOB NOT NULL UNIQUE,
    media_type TEXT NOT NULL,
    evidence BLOB NOT NULL,
    result TEXT NOT NULL
);
"""


class SqliteSessionBook:
    """The book in one file. May be used from several threads and processes; close it.

    Args:
        path: the file; it and its side files are for their owner only.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            UnavailableError: it cannot be had.
        """
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []
        with _translated(path):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection().executescript(_SCHEMA)

    def close(self) -> None:
        """Close all connections; the file stays."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def enter(self, mark: bytes, outcome: Outcome | None, *, expires: datetime) -> None:
        """Enter a session; see `SessionBook`."""
        with _translated(self._path), self._transaction() as connection:
            entered = connection.execute(
                "INSERT OR IGNORE INTO used VALUES (?, ?)", (mark, int(expires.timestamp()))
            )
            if not entered.rowcount:
                raise used()
            if outcome is not None:
                connection.execute(
                    "INSERT INTO outcomes (mark, media_type, evidence, result) VALUES (?, ?, ?, ?)",
                    (mark, outcome.media_type, outcome.evidence, outcome.result),
                )

    def find(self, mark: bytes) -> Outcome | None:
        """Return an outcome; see `SessionBook`."""
        with _translated(self._path):
            row = (
                self._connection()
                .execute(
                    "SELECT used.mark, media_type, evidence, result FROM used "
                    "LEFT JOIN outcomes ON outcomes.mark = used.mark WHERE used.mark = ?",
                    (mark,),
                )
                .fetchone()
            )
        if row is None:
            return None
        if row[3] is None:
            raise used()
        return Outcome(media_type=row[1], evidence=row[2], result=row[3])

    def forget(self, mark: bytes) -> None:
        """Drop an outcome; see `SessionBook`."""
        with _translated(self._path):
            self._connection().execute("DELETE FROM outcomes WHERE mark = ?", (mark,))

    def prune(self, *, now: datetime, keep: int) -> None:
        """Drop what is over; see `SessionBook`. In steps, so that nobody waits for long."""
        seconds = int(now.timestamp())
        with _translated(self._path):
            connection = self._connection()
            while connection.execute(
                "DELETE FROM used WHERE mark IN (SELECT mark FROM used WHERE expires <= ? LIMIT ?)",
                (seconds, _BATCH),
            ).rowcount:
                pass
            newest = connection.execute("SELECT max(number) FROM outcomes").fetchone()[0] or 0
            while connection.execute(
                "DELETE FROM outcomes WHERE number IN "
                "(SELECT number FROM outcomes WHERE number <= ? OR mark NOT IN "
                "(SELECT mark FROM used) LIMIT ?)",
                (newest - keep, _BATCH),
            ).rowcount:
                pass

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # Closed by another thread than the one that uses it, when nobody uses it any more.
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            _share(connection)
            for pragma in ("synchronous=OFF", "temp_store=MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            self._local.connection = connection
            with self._lock:
                self._open.append(connection)
        return connection


def _share(connection: sqlite3.Connection) -> None:
    # SQLite's own waiting does not cover the change of the journal's mode, which the first of
    # several processes makes while the others open the file.
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise UnavailableError(
            f"the book of sessions {path} cannot be used: {exc}",
            retry_after_seconds=1.0,
            remedy="check free space and permissions",
        ) from exc


_: type[SessionBook] = SqliteSessionBook
