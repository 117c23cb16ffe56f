# SPDX-License-Identifier: Apache-2.0
"""A database that comes back from a backup: no number stands for two things."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.members import NOW, join, new_node, svid_for
from support.postgres import Store
from troth.adapters.registry.restoring import LEAP
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.errors import ConfigurationError, ConflictError, FreshnessError
from troth.mesh.registry import JoinSession


def admit(registry: SqlRegistry, *names: str) -> None:
    for name in names:
        registry.apply(join(new_node(name)), issue=svid_for)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup with one node, and beside it a mark of a server that has seen two."""
    path, mark = tmp_path / "registry.db", tmp_path / "registry.mark"
    registry = SqlRegistry(sqlite_url(path))
    admit(registry, "n1")
    registry.close()
    shutil.copy(path, tmp_path / "backup.db")
    registry = SqlRegistry(sqlite_url(path), mark=mark)
    admit(registry, "n2")
    registry.close()
    return tmp_path / "backup.db"


def test_a_database_that_went_back_is_not_opened_and_the_error_says_what_to_do(
    backup: Path,
) -> None:
    mark = backup.with_name("registry.mark")
    with pytest.raises(ConfigurationError, match="troth server --restored"):
        SqlRegistry(sqlite_url(backup), mark=mark)
    SqlRegistry(sqlite_url(backup.with_name("registry.db")), mark=mark).close()


def test_a_database_that_is_said_to_be_restored_is_opened_and_goes_on_ahead(backup: Path) -> None:
    registry = SqlRegistry(sqlite_url(backup))
    registry.mark_restored(actor="operator 0", at=NOW)
    registry.close()
    registry = SqlRegistry(sqlite_url(backup), mark=backup.with_name("registry.mark"))
    admit(registry, "n3")
    assert registry.snapshot().sequence > LEAP
    registry.verify_log()
    registry.close()


def test_a_housekeeping_sweep_keeps_the_numbers_too(tmp_path: Path) -> None:
    mark = tmp_path / "registry.mark"
    registry = SqlRegistry(sqlite_url(tmp_path / "registry.db"), mark=mark)
    admit(registry, "n1")
    registry.prune(now=NOW, keep_events=10, keep_refusals=10)
    assert b'"event":3' in mark.read_bytes()
    registry.close()


def test_a_mark_that_cannot_be_read_is_an_error_and_not_no_mark(tmp_path: Path) -> None:
    mark = tmp_path / "registry.mark"
    mark.write_text("{")
    with pytest.raises(ConfigurationError, match=r"registry\.mark"):
        SqlRegistry(sqlite_url(tmp_path / "registry.db"), mark=mark)


@pytest.mark.parametrize("known", [0, 2, 3, 4, 6, LEAP - 1])
def test_whoever_knows_an_old_number_gets_a_snapshot(store: Store, known: int) -> None:
    """The backup ends with event 3; readers know that one, earlier ones, or later ones."""
    registry = SqlRegistry(store.url)
    admit(registry, "n1")
    registry.mark_restored(actor="operator 0", at=NOW)
    with pytest.raises(ConflictError):
        registry.events(after=known, limit=10)
    present = registry.snapshot().sequence
    assert registry.events(after=present, limit=10) == ()
    admit(registry, "n2")
    assert [each.sequence for each in registry.events(after=present, limit=10)] == [
        present + 1,
        present + 2,
        present + 3,
    ]
    with pytest.raises(ConflictError):
        registry.events(after=known, limit=10)
    registry.close()


def test_a_nonce_from_before_the_backup_is_good_no_more(store: Store) -> None:
    registry = SqlRegistry(store.url)
    session = JoinSession(
        id="s1",
        nonce=b"n" * 32,
        node_name="",
        address="",
        created=NOW,
        expires=NOW.replace(year=NOW.year + 1),
    )
    registry.open_session(session, max_open=10)
    epoch = registry.epoch
    registry.mark_restored(actor="operator 0", at=NOW)
    with pytest.raises(FreshnessError):
        registry.take_session("s1", now=NOW)
    assert registry.epoch == epoch + LEAP
    assert registry.log_rows(after=0, limit=10)[-1].entry.count("restored") >= 1
    registry.close()
