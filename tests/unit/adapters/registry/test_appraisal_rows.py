# SPDX-License-Identifier: Apache-2.0
"""Recorded appraisals: counted together where they are equal, found by time, forgotten in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from support.appraisal import case
from support.members import NOW, SPIFFE_ID, join, new_node, svid_for
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.errors import LimitExceededError
from troth.mesh.registration_entry import RegistrationEntry, node_selector
from troth.mesh.tier import Tier
from troth.verifier import recorded
from troth.verifier.conclusion import Judgement, conclude
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.recorded import RecordedAppraisal, RecordedNode
from troth.verifier.rego import DirectEvaluator

DEFAULT = AppraisalPolicy.default()
LATER = NOW + timedelta(hours=1)
MEMBER = {"device": "psa:signer:n1", "spiffe_id": SPIFFE_ID}


def record(number: int = 0, **changes: Any) -> RecordedAppraisal:
    cases = [case({"number": number})]
    judgement = Judgement(
        cases=cases,
        best=Tier.MEASURED,
        conclusion=conclude(cases, DEFAULT, DirectEvaluator(), best=Tier.MEASURED),
    )
    now = changes.pop("now", NOW)
    given = {"device": "psa:signer:unknown", "spiffe_id": "", **changes}
    return RecordedAppraisal.of(judgement, now=now, **given)


def all_of(registry: SqlRegistry, **query: Any) -> list[RecordedAppraisal]:
    return list(registry.appraisals(**{"since": NOW, "after": "", "limit": 99, **query}))


def test_a_record_is_read_as_it_was_written(registry: SqlRegistry) -> None:
    registry.record_appraisals([record()])
    assert all_of(registry) == [record()]


def test_equal_appraisals_are_counted_together(registry: SqlRegistry) -> None:
    registry.record_appraisals([record(), record(1)])
    registry.record_appraisals([msgspec.structs.replace(record(now=LATER), count=4)])
    counts = {each.id: (each.count, each.first, each.last) for each in all_of(registry)}
    assert counts == {record().id: (5, NOW, LATER), record(1).id: (1, NOW, NOW)}


def test_records_are_read_since_a_time_and_in_pages(registry: SqlRegistry) -> None:
    registry.record_appraisals([record(number) for number in range(5)] + [record(5, now=LATER)])
    assert [each.id for each in all_of(registry, since=LATER)] == [record(5).id]
    read: list[str] = []
    while page := all_of(registry, after=read[-1] if read else "", limit=2):
        read += [each.id for each in page]
    assert read == sorted(record(number).id for number in range(6))


def test_a_record_names_the_nodes_of_its_device_in_its_role(registry: SqlRegistry) -> None:
    entry = RegistrationEntry(
        id="e1",
        spiffe_id=SPIFFE_ID,
        selectors=(node_selector("instance:01"),),
        min_tier=Tier.IDENTIFIED,
    )
    registry.create_entry(entry, actor="operator 0", at=NOW)
    registry.apply(join(new_node()), issue=svid_for)
    registry.record_appraisals(
        [
            record(**MEMBER),
            record(1, device=MEMBER["device"]),
            record(2, device=MEMBER["device"], spiffe_id="spiffe://example.org/other"),
        ]
    )
    known = {each.id: each.nodes for each in all_of(registry)}
    node = RecordedNode(node_id="n1", name="n1", spiffe_id=SPIFFE_ID, min_tier=Tier.IDENTIFIED)
    assert known.pop(record(**MEMBER).id) == [node]
    assert list(known.values()) == [[], []]
    registry.delete_entry("e1", actor="operator 0", at=NOW)
    assert all(each.nodes == [] for each in all_of(registry))


def test_records_are_forgotten_by_age_and_by_number(registry: SqlRegistry) -> None:
    times = [NOW + timedelta(minutes=number) for number in range(6)]
    registry.record_appraisals([record(n, now=time) for n, time in enumerate(times)])
    registry.prune_appraisals(before=times[2], keep=99)
    assert {each.last for each in all_of(registry)} == set(times[2:])
    registry.prune_appraisals(before=NOW, keep=3)
    assert {each.last for each in all_of(registry)} == set(times[3:])
    registry.prune_appraisals(before=NOW, keep=0)
    assert all_of(registry) == []


def test_a_record_that_is_too_long_is_not_written(
    registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MAX_RECORD_BYTES", 10)
    with pytest.raises(LimitExceededError):
        registry.record_appraisals([record()])
    assert all_of(registry) == []
