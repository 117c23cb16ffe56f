# SPDX-License-Identifier: Apache-2.0
"""`troth server --restored`: said once, and the server starts on a database from a backup."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import run_cli
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.errors import ConfigurationError


def test_a_restored_database_is_opened_once_it_is_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server.toml").write_text(
        f'trust_domain = "mesh.example"\ndata_dir = "{tmp_path}"\n'
    )
    mark = tmp_path / "registry.mark"
    mark.write_text('{"event":70}')
    url = sqlite_url(tmp_path / "registry.db")
    with pytest.raises(ConfigurationError, match="--restored"):
        SqlRegistry(url, mark=mark)
    ran = run_cli(capsys, "server", "-c", tmp_path / "server.toml", "--restored")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "The next event has number 4294967297; every agent begins with a snapshot.\n"
    SqlRegistry(url, mark=mark).close()
