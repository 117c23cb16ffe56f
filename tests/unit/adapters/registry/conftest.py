# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import PostgresServer, Store
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, database_path: Path) -> Store:
    """Return a database of the present schema with nothing in it."""
    if request.param == "sqlite":
        return sqlite_store(database_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.url_of_prepared(lambda url: SqlRegistry(url).close())
    return postgres_store(server, url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_store(request: pytest.FixtureRequest, database_path: Path) -> Store:
    """Return a database without any table."""
    if request.param == "sqlite":
        return sqlite_store(database_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    return postgres_store(server, server.new_url())


def sqlite_store(path: Path) -> Store:
    def tamper(statement: str) -> None:
        raw = sqlite3.connect(path)
        raw.execute(statement)
        raw.commit()
        raw.close()

    return Store(sqlite_url(path), tamper)


def postgres_store(server: PostgresServer, url: str) -> Store:
    def tamper(statement: str) -> None:
        server.execute(url, statement)

    return Store(url, tamper)


@pytest.fixture
def registry(store: Store) -> Iterator[SqlRegistry]:
    opened = SqlRegistry(store.url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_registry(database_path: Path) -> Iterator[SqlRegistry]:
    opened = SqlRegistry(sqlite_url(database_path))
    yield opened
    opened.close()
