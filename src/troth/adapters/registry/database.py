# SPDX-License-Identifier: Apache-2.0
"""One database, its transactions, and the translation of its errors.

On both databases one writer goes ahead at a time, and takes the lock for it when it begins: no
transaction fails half-way for want of it, none meets another one's half, and the order of commits
is the order in which numbers are given out. A reader sees one state and waits for nobody.

SQLite runs in WAL mode with synchronous=FULL: what a transaction has acknowledged survives a
power cut. PostgreSQL does the same by its own defaults; an operator who turns `fsync` or
`synchronous_commit` off there has given that up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from troth.adapters.registry.schema import migrate
from troth.adapters.registry.signal import SignalListener
from troth.errors import ConfigurationError, ConflictError, UnavailableError

__all__ = ["BUSY_TIMEOUT_SECONDS", "POSTGRES_DRIVER", "SILENT_WRITER_SECONDS", "Database"]

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a writer waits for another process's lock before it gives up."""

SILENT_WRITER_SECONDS = 2.0
"""How long PostgreSQL waits for the next statement of a writer before it rolls it back; less than
`BUSY_TIMEOUT_SECONDS`, so that those who wait for it go ahead."""

POSTGRES_DRIVER = "postgresql+psycopg"
"""Scheme of the URLs of PostgreSQL databases."""

# An arbitrary number, the same for every Troth server: "troth" in ASCII. Registries in different
# databases do not meet: such locks are a database's own.
_WRITER_LOCK = int.from_bytes(b"troth", "big")
# How long a database behind a network that is cut is waited for; libpq's names. The operator's own
# come in the URL and win.
_ENDS_OF_SILENCE: dict[str, object] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_READING = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


class Database:
    """An open database of the present schema."""

    def __init__(self, url: str) -> None:
        """Open the database at an SQLAlchemy URL and bring its schema up to date.

        Raises:
            ConfigurationError: no usable URL, or the schema is newer than this program.
            UnavailableError: the database cannot be opened or written.
        """
        self._engine = _engine(url)
        self._listeners: list[SignalListener] = []
        self._is_postgres = self._engine.dialect.name == "postgresql"
        try:
            with self.write() as connection:
                migrate(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close all connections."""
        for listener in self._listeners:
            listener.stop()
        self._engine.dispose()

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard`, in another thread, whenever another server may have committed something."""
        if self._is_postgres:
            self._listeners.append(SignalListener(self._engine, heard))

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
                if self._is_postgres:
                    _lock_postgres(connection)
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a transaction that sees one consistent state and writes nothing.

        Raises:
            UnavailableError: the database refused.
        """
        with _translated(), self._engine.connect() as plain:
            connection = plain.execution_options(**_READING) if self._is_postgres else plain
            with connection.begin():
                yield connection


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigurationError(
            source="database", value=url, accepted="a URL such as sqlite:////var/lib/troth/db"
        ) from exc
    if parsed.get_backend_name() == "postgresql":
        return _postgres_engine(parsed)
    if parsed.get_backend_name() != "sqlite":
        raise _not_a_database(parsed)
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


def _postgres_engine(url: URL) -> Engine:
    if url.drivername != POSTGRES_DRIVER:
        raise _not_a_database(url)
    try:
        # Pings: a server that was restarted has ended our idle connections.
        return sa.create_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            connect_args=_ENDS_OF_SILENCE | dict(url.query),
        )
    except (ImportError, SQLAlchemyError) as exc:
        raise ConfigurationError(
            source="database",
            value=url.render_as_string(hide_password=True),
            accepted=f"{POSTGRES_DRIVER}:// with its driver installed (extra: postgres)",
        ) from exc


def _not_a_database(url: URL) -> ConfigurationError:
    return ConfigurationError(
        source="database",
        value=url.render_as_string(hide_password=True),
        accepted=f"sqlite:/// with a file, or {POSTGRES_DRIVER}://",
    )


def _lock_postgres(connection: Connection) -> None:
    # A server that is cut off in the middle of a transaction must not keep all others from writing.
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)};"
        f"SET LOCAL idle_in_transaction_session_timeout = {int(SILENT_WRITER_SECONDS * 1000)}"
    )
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER_LOCK)))


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
