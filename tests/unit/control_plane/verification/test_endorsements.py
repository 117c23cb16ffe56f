# SPDX-License-Identifier: Apache-2.0
"""Two processes of one Verifier, in one: what one is told, the other goes by at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from support.appraisal import NOW, corims_of
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.adapters.shared_epoch import SharedEpoch
from troth.control_plane.verification.endorsements import SharedEndorsements
from troth.errors import ConflictError, UnavailableError
from troth.evidence.simulator import PsaOptions, SimulatedPlatform

PSA = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
OTHER = SimulatedPlatform.create(PsaOptions(model="other"), random=os.urandom)


class Process:
    """What one process has."""

    def __init__(self, directory: Path) -> None:
        self.registry = SqlRegistry(f"sqlite:///{directory / 'verifier.db'}")
        self.board = SharedEpoch(directory / "epoch")
        self.endorsements = SharedEndorsements(self.registry, keys=(), board=self.board)
        self.endorsements.load(now=NOW)

    def close(self) -> None:
        self.registry.close()
        self.board.close()

    def provision(self, platform: SimulatedPlatform, name: str) -> None:
        (corim,) = corims_of(platform, corim_id=name)
        self.endorsements.provision(corim.encode(), source="test", actor="test", now=NOW)

    def ids(self) -> list[str]:
        return sorted(each.id for each in self.endorsements.held(now=NOW))


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    made = Process(tmp_path), Process(tmp_path)
    yield made
    for each in made:
        each.close()


def keys(process: Process) -> int:
    process.endorsements.refresh(NOW)
    reference = PSA.reference()
    found = process.endorsements.snapshot(NOW).trust_anchors(
        "psa",
        implementation_id=reference.implementation_id,
        instance_id=reference.instance_id,
    )
    return len(found)


def test_what_one_provisions_the_other_lists_and_appraises_by(
    both: tuple[Process, Process],
) -> None:
    one, other = both
    assert keys(other) == 0
    one.provision(PSA, "maker")
    assert other.ids() == ["maker"]
    assert keys(other) == 1
    assert any(PSA.instance_id.hex() in str(each) for each in other.endorsements.values(now=NOW))


def test_what_one_withdraws_the_other_does_not_appraise_by(both: tuple[Process, Process]) -> None:
    one, other = both
    one.provision(PSA, "maker")
    assert keys(other) == 1
    one.endorsements.withdraw("maker", actor="test", why="", now=NOW)
    assert keys(other) == 0
    with pytest.raises(ConflictError):
        other.endorsements.withdraw("maker", actor="test", why="", now=NOW)


def test_both_provision_in_turn_and_neither_loses_the_others(
    both: tuple[Process, Process],
) -> None:
    one, other = both
    one.provision(PSA, "maker")
    other.provision(OTHER, "other-maker")
    assert one.ids() == other.ids() == ["maker", "other-maker"]


def test_a_change_that_was_never_announced_is_noticed_by_looking(
    both: tuple[Process, Process], tmp_path: Path
) -> None:
    one, other = both
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    board = SharedEpoch(elsewhere / "epoch")  # of another machine: nobody here sees it
    stranger = SharedEndorsements(one.registry, keys=(), board=board)
    stranger.load(now=NOW)
    (corim,) = corims_of(PSA, corim_id="maker")
    stranger.provision(corim.encode(), source="test", actor="test", now=NOW)
    board.close()
    assert keys(other) == 0
    one.endorsements.look(NOW + timedelta(seconds=1))
    assert keys(one) == keys(other) == 1


def test_nothing_is_appraised_by_the_old_set_while_the_new_one_cannot_be_read(
    both: tuple[Process, Process], tmp_path: Path
) -> None:
    one, other = both
    one.provision(PSA, "maker")
    with closing(sqlite3.connect(tmp_path / "verifier.db")) as database:
        database.execute("ALTER TABLE corims RENAME TO gone")
    for read in (other.endorsements.refresh, other.endorsements.current):
        with pytest.raises(UnavailableError):
            read(NOW)
