# SPDX-License-Identifier: Apache-2.0
"""What many tests share, started once and only where a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server
