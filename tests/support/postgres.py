# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the tests' own: a temporary directory, a Unix socket, no network.

PostgreSQL does not run as root. A test run by root starts it as the user that Debian's package
made, or as nobody.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["PostgresServer", "Store", "postgres_server"]

_DEADLINE_SECONDS = 60
_OPTIONS = {
    "listen_addresses": "",
    # Nobody cuts the power of a test.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
}


@dataclass(frozen=True)
class Store:
    """An empty database, and a way to change it beside the registry."""

    url: str
    tamper: Callable[[str], None]


@dataclass(frozen=True)
class PostgresServer:
    """A running server; each database in it is one schema."""

    directory: Path
    _names: Iterator[int]
    _prepared: list[str]

    def new_url(self) -> str:
        """Return the URL of a database that is empty."""
        name = f"s{next(self._names)}"
        with self._connect() as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        options = f"options=-csearch_path%3D{name}"
        return f"postgresql+psycopg://troth@/postgres?host={self.directory}&{options}"

    def url_of_prepared(self, prepare: Callable[[str], None]) -> str:
        """Return the URL of a database as `prepare` leaves it; it is prepared once.

        What a test left in it is taken out again. That is ten times faster than making it anew.
        """
        if not self._prepared:
            url = self.new_url()
            prepare(url)
            self._prepared.append(url)
            tables = self.execute(
                url, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
            )
            for (table,) in tables:
                self.execute(url, f"CREATE TABLE saved.{table} AS TABLE {table}")
            # Without looking at foreign keys; and these tables are too small for TRUNCATE to pay.
            clean = "SET session_replication_role = replica;"
            for (table,) in tables:
                clean += f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved.{table};"  # noqa: S608 - our own names
            self._prepared.append(clean)
            return url
        url, clean = self._prepared
        self.execute(url, clean)
        return url

    def execute(self, url: str, statement: str) -> list[Any]:
        """Execute a statement beside the program that uses the database; return its rows."""
        name = url.rpartition("%3D")[2]
        with self._connect() as connection:
            connection.execute(f"SET search_path = {name}")
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def _connect(self) -> Any:
        import psycopg  # noqa: PLC0415 - an extra

        return psycopg.connect(
            host=str(self.directory), user="troth", dbname="postgres", autocommit=True
        )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Give a server, or skip with the reason why there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra: postgres)")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian package: postgresql)")
    # A short path: it is a Unix socket's. /tmp lets another user in where pytest's does not.
    directory = Path(tempfile.mkdtemp(prefix="trothpg"))
    process: subprocess.Popen[bytes] | None = None
    user = _unprivileged()
    try:
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        data = directory / "data"
        _run(
            [
                *(programs / "initdb", "--no-sync", "--no-instructions", "--auth=trust"),
                *("--username=troth", "--encoding=UTF8", "--locale=C", "--pgdata", data),
            ],
            user,
        )
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", directory, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            **_identity(user),
        )
        _wait_until_ready(programs, directory, process)
        server = PostgresServer(directory, itertools.count(1), [])
        with server._connect() as connection:
            connection.execute("CREATE SCHEMA saved")
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # fast: sessions are ended
            process.wait(timeout=_DEADLINE_SECONDS)
        shutil.rmtree(directory)


def _programs() -> Path | None:
    found = shutil.which("postgres")
    installed = [Path(found)] if found else []
    installed += sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    return installed[-1].parent if installed else None


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no user to run it as")


def _identity(user: pwd.struct_passwd | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _run(command: list[Any], user: pwd.struct_passwd | None) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        timeout=_DEADLINE_SECONDS,
        cwd="/",
        **_identity(user),
    )
    if done.returncode:
        pytest.fail(f"{command[0]} failed: {done.stderr.decode(errors='replace')}")


def _wait_until_ready(programs: Path, directory: Path, process: subprocess.Popen[bytes]) -> None:
    # pg_isready waits by itself where it is told how long; it says at once where nobody listens.
    for _ in range(_DEADLINE_SECONDS * 10):
        if process.poll() is not None:
            pytest.fail(f"postgres ended with status {process.returncode}")
        ready = subprocess.run(
            [programs / "pg_isready", "-q", "-h", directory, "-t", "1"], check=False
        )
        if ready.returncode == 0:
            return
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
    pytest.fail("postgres did not become ready")
