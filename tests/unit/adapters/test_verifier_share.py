# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from troth.adapters.shared_epoch import SharedEpoch
from troth.adapters.verifier_share import VerifierShare
from troth.errors import ConfigurationError, ConflictError, UnavailableError

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def test_processes_see_each_others_epoch_at_once(tmp_path: Path) -> None:
    one, other = SharedEpoch(tmp_path / "epoch"), SharedEpoch(tmp_path / "epoch")
    assert other.read() == 0
    one.announce(7)
    assert other.read() == 7
    other.announce(5)
    assert one.read() == 7
    one.close()
    other.close()


def test_who_joins_has_the_same_key_book_and_board(tmp_path: Path) -> None:
    with closing(VerifierShare.create(tmp_path)) as made:
        with closing(VerifierShare.join(made.directory)) as joined:
            assert joined.session_key == made.session_key
            made.book.enter(b"m", None, expires=LATER)
            with pytest.raises(ConflictError):
                joined.book.find(b"m")
            made.board.announce(3)
            assert joined.board.read() == 3
        assert stat.S_IMODE((made.directory / "session.key").stat().st_mode) == 0o600
    assert not made.directory.exists()


def test_a_data_directory_belongs_to_one_verifier_at_a_time(tmp_path: Path) -> None:
    with closing(VerifierShare.create(tmp_path)) as first:
        with pytest.raises(ConfigurationError, match="no other Verifier"):
            VerifierShare.create(tmp_path)
        key = first.session_key
    with closing(VerifierShare.create(tmp_path)) as second:
        assert second.session_key != key


def test_what_a_crash_left_behind_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "epoch").write_bytes(b"\xff" * 8)
    with closing(VerifierShare.create(tmp_path)) as made:
        assert made.board.read() == 0


def test_there_is_nothing_to_join_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        VerifierShare.join(tmp_path / "run")
