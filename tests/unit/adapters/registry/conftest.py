# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def registry(database_path: Path) -> Iterator[SqlRegistry]:
    opened = SqlRegistry(sqlite_url(database_path))
    yield opened
    opened.close()
