# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from troth.control_plane.collateral_directory import LOOK_AGAIN_SECONDS, CollateralDirectory
from troth.control_plane.configured_files import configured_collateral
from troth.errors import ConfigurationError
from troth.evidence.context import MAX_COLLATERAL_DOCUMENTS, Collateral


class FixedTime:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> FixedTime:
    return FixedTime()


@pytest.fixture
def directory(tmp_path: Path, time: FixedTime) -> CollateralDirectory:
    (tmp_path / "a.crl").write_bytes(b"one")
    (tmp_path / ".partly").write_bytes(b"no")
    (tmp_path / "folder").mkdir()
    return CollateralDirectory(tmp_path, key="verifier.collateral", monotonic=time)


def documents(directory: CollateralDirectory) -> dict[str, bytes]:
    return dict(directory.current().documents)


def test_files_are_documents_by_their_names(directory: CollateralDirectory) -> None:
    assert documents(directory) == {"a.crl": b"one"}


def test_a_change_is_seen_after_a_while_and_not_before(
    directory: CollateralDirectory, tmp_path: Path, time: FixedTime
) -> None:
    first = directory.current()
    (tmp_path / "b.der").write_bytes(b"two")
    time.seconds += LOOK_AGAIN_SECONDS - 1
    assert directory.current() is first
    time.seconds += 1
    assert documents(directory) == {"a.crl": b"one", "b.der": b"two"}
    (tmp_path / "a.crl").unlink()
    time.seconds += LOOK_AGAIN_SECONDS
    assert documents(directory) == {"b.der": b"two"}


def test_a_file_of_the_same_length_that_was_written_anew_is_read_anew(
    directory: CollateralDirectory, tmp_path: Path, time: FixedTime
) -> None:
    (tmp_path / "a.crl").write_bytes(b"two")
    os.utime(tmp_path / "a.crl", (1, 1))
    time.seconds += LOOK_AGAIN_SECONDS
    assert documents(directory) == {"a.crl": b"two"}


def test_without_a_change_nothing_is_read_again(
    directory: CollateralDirectory, time: FixedTime
) -> None:
    first = directory.current()
    time.seconds += LOOK_AGAIN_SECONDS
    assert directory.current() is first


def test_a_directory_that_vanishes_leaves_what_was_read_in_force(
    directory: CollateralDirectory,
    tmp_path: Path,
    time: FixedTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    time.seconds += LOOK_AGAIN_SECONDS
    assert documents(directory) == {"a.crl": b"one"}
    assert "stays in force" in caplog.text
    tmp_path.with_name("elsewhere").rename(tmp_path)
    (tmp_path / "b").write_bytes(b"two")
    time.seconds += LOOK_AGAIN_SECONDS
    assert "b" in documents(directory)


def test_far_too_much_leaves_what_was_read_in_force(
    directory: CollateralDirectory,
    tmp_path: Path,
    time: FixedTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    for index in range(MAX_COLLATERAL_DOCUMENTS):
        (tmp_path / str(index)).write_bytes(b"")
    time.seconds += LOOK_AGAIN_SECONDS
    assert documents(directory) == {"a.crl": b"one"}
    assert "MAX_COLLATERAL_DOCUMENTS" in caplog.text
    (tmp_path / "0").unlink()
    time.seconds += LOOK_AGAIN_SECONDS
    assert len(documents(directory)) == MAX_COLLATERAL_DOCUMENTS


def test_at_the_start_a_directory_has_to_be_right(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"verifier\.collateral.*a readable directory"):
        configured_collateral(str(tmp_path / "none"), key="verifier.collateral")
    for index in range(MAX_COLLATERAL_DOCUMENTS + 1):
        (tmp_path / str(index)).write_bytes(b"")
    with pytest.raises(ConfigurationError, match="MAX_COLLATERAL_DOCUMENTS"):
        configured_collateral(str(tmp_path), key="verifier.collateral")


def test_no_directory_is_no_document() -> None:
    assert configured_collateral("", key="verifier.collateral").current() == Collateral()
