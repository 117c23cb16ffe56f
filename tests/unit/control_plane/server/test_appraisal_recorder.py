# SPDX-License-Identifier: Apache-2.0
"""What the recorder writes, counts and says; and what it does when it cannot."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.appraisal import NOW, case
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.control_plane.server import appraisal_recorder
from troth.control_plane.server.appraisal_recorder import AppraisalRecorder
from troth.errors import UnavailableError
from troth.mesh.tier import Tier
from troth.verifier import recorded
from troth.verifier.conclusion import Judgement, conclude
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator
from troth.verifier.replay import Change

EVALUATOR = DirectEvaluator()
STRICT = AppraisalPolicy.from_text(
    'package troth.appraisal\nstatus := "contraindicated"\n', name="strict.rego"
)


def judgement(number: int = 0, *, candidate: AppraisalPolicy | None = None) -> Judgement:
    cases = [case({"number": number})]

    def by(policy: AppraisalPolicy) -> Any:
        return conclude(cases, policy, EVALUATOR, best=Tier.MEASURED)

    return Judgement(
        cases=cases,
        best=Tier.MEASURED,
        conclusion=by(AppraisalPolicy.default()),
        candidate=None if candidate is None else by(candidate),
    )


@dataclass
class Setting:
    registry: SqlRegistry
    changes: list[Change] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def recorder(self, *, keep: bool = True) -> AppraisalRecorder:
        return AppraisalRecorder(
            self.registry,
            keep=keep,
            on_difference=self.changes.append,
            on_lost=self.lost.append,
        )

    def counts(self) -> list[int]:
        found = self.registry.appraisals(since=NOW - timedelta(days=1), after="", limit=99)
        return sorted(each.count for each in found)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(SqlRegistry(sqlite_url(tmp_path / "registry.db")))
    yield made
    made.registry.close()


def test_equal_appraisals_are_one_record_over_many_writes(setting: Setting) -> None:
    recorder = setting.recorder()
    for number in (0, 1, 0):
        recorder.note(judgement(number), device="d", at=NOW)
    assert setting.counts() == []
    recorder.write()
    assert setting.counts() == [1, 2]
    recorder.note(judgement(), device="d", at=NOW + timedelta(hours=1))
    recorder.write()
    recorder.write()
    assert setting.counts() == [1, 3]
    assert setting.lost == []


def test_without_records_the_candidates_differences_are_told_all_the_same(
    setting: Setting,
) -> None:
    recorder = setting.recorder(keep=False)
    recorder.note(judgement(), device="d", at=NOW)
    recorder.note(judgement(candidate=STRICT), device="d", at=NOW)
    recorder.note(judgement(candidate=AppraisalPolicy.default()), device="d", at=NOW)
    recorder.write()
    assert setting.changes == [Change.STRICTER, Change.SAME]
    assert setting.counts() == []


def test_a_difference_is_counted_each_time_and_logged_once(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = setting.recorder()
    with caplog.at_level(logging.INFO):
        for device in ("a", "a", "b"):
            recorder.note(judgement(candidate=STRICT), device=device, at=NOW)
            recorder.write()
    assert setting.changes == [Change.STRICTER] * 3
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "policy strict, not enforced, is stricter about a: contraindicated" in told[0]


def test_what_cannot_be_written_is_written_later(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = setting.recorder()
    recorder.note(judgement(), device="d", at=NOW)

    def fail(_: object) -> None:
        raise UnavailableError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(setting.registry, "record_appraisals", fail)
        with pytest.raises(UnavailableError):
            recorder.write()
        recorder.note(judgement(), device="d", at=NOW)
        with pytest.raises(UnavailableError):
            recorder.write()
    recorder.write()
    assert setting.counts() == [2]


def test_what_waits_is_bounded_and_what_is_lost_is_counted(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appraisal_recorder, "MAX_UNWRITTEN", 2)
    recorder = setting.recorder()
    for number in range(3):
        recorder.note(judgement(number), device="d", at=NOW)
    assert setting.lost == [1]

    def fail(_: object) -> None:
        raise UnavailableError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(setting.registry, "record_appraisals", fail)
        for number in (3, 4):
            with pytest.raises(UnavailableError):
                recorder.write()
            recorder.note(judgement(number), device="d", at=NOW)
        with pytest.raises(UnavailableError):
            recorder.write()
    assert sum(setting.lost) == 3
    recorder.write()
    assert len(setting.counts()) == 2


def test_an_appraisal_that_says_too_much_keeps_no_other_off_the_record(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = setting.recorder()
    recorder.note(judgement(), device="d" * 500, at=NOW)
    size = 0

    def encode(record: Any) -> bytes:
        nonlocal size
        size += 1
        if record.device == "big":
            raise recorded.LimitExceededError(format="record", limit="MAX_RECORD_BYTES", value=1)
        return b""

    monkeypatch.setattr(appraisal_recorder, "encode_body", encode)
    recorder.note(judgement(), device="big", at=NOW)
    recorder.write()
    assert setting.lost == [1]
    assert len(setting.counts()) == 1
