# SPDX-License-Identifier: Apache-2.0
"""One database, its transactions, and the translation of its errors.

SQLite runs in WAL mode with synchronous=FULL: what a transaction has acknowledged survives a
power cut. Writers take the lock when they begin, so that no transaction fails half-way for want
of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from troth.adapters.registry.schema import migrate
from troth.errors import ConfigurationError, ConflictError, UnavailableError

__all__ = ["BUSY_TIMEOUT_SECONDS", "Database"]

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a writer waits for another process's lock before it gives up."""


class Database:
    """An open database of the present schema."""

    def __init__(self, url: str) -> None:
        """Open the database at an SQLAlchemy URL and bring its schema up to date.

        Raises:
            ConfigurationError: no usable URL, or the schema is newer than this program.
            UnavailableError: the database cannot be opened or written.
        """
        self._engine = _engine(url)
        with self.write() as connection:
            migrate(connection)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a transaction that is committed at the end, or rolled back on any exception.

        Raises:
            UnavailableError: the database refused; nothing was changed.
            ConflictError: a uniqueness rule was broken; nothing was changed.
        """
        with _translated(), self._engine.connect() as plain:
            connection = plain.execution_options(troth_write=True)
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a transaction that sees one consistent state and writes nothing.

        Raises:
            UnavailableError: the database refused.
        """
        with _translated(), self._engine.connect() as connection, connection.begin():
            yield connection


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigurationError(
            source="database", value=url, accepted="a URL such as sqlite:////var/lib/troth/db"
        ) from exc
    if parsed.get_backend_name() != "sqlite":
        try:
            return sa.create_engine(parsed, isolation_level="READ COMMITTED")
        except (ImportError, SQLAlchemyError) as exc:
            raise ConfigurationError(
                source="database",
                value=parsed.render_as_string(hide_password=True),
                accepted="SQLite, or PostgreSQL with its driver installed (extra: postgres)",
            ) from exc
    path = parsed.database
    if not path or path == ":memory:":
        raise ConfigurationError(
            source="database", value=url, accepted="an SQLite URL with a file: it has to last"
        )
    _create_private(Path(path))
    engine = sa.create_engine(
        parsed, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _create_private(path: Path) -> None:
    # SQLite gives its side files the permissions of the main one.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as exc:
        raise UnavailableError(
            f"the database {path} cannot be opened: {exc.strerror}",
            remedy="check the directory, its owner and the free space",
        ) from exc


def _prepare_sqlite(connection: object, _record: object) -> None:
    # The driver's own transaction handling begins too late; `_begin_sqlite` does it.
    connection.isolation_level = None  # type: ignore[attr-defined]  # sqlite3.Connection, typed as object by the event
    cursor = connection.cursor()  # type: ignore[attr-defined]  # as above
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("troth_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        raise ConflictError(f"the registry already holds something else there: {exc.orig}") from exc
    except DBAPIError as exc:
        raise UnavailableError(
            f"the registry cannot be used: {exc.orig}",
            retry_after_seconds=5.0,
            remedy="check free space, permissions and the health of the database; nothing that "
            "was acknowledged is lost and nothing was admitted meanwhile",
        ) from exc
    except SQLAlchemyError as exc:
        raise UnavailableError(f"the registry cannot be used: {exc}") from exc
