# SPDX-License-Identifier: Apache-2.0
"""What many tests share, started once and only where a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from support.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _logs_of_its_own() -> Iterator[None]:
    """Undo what a command that a test ran in this process has set up for logs."""
    yield
    structlog.reset_defaults()
