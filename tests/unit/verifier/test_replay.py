# SPDX-License-Identifier: Apache-2.0
"""Appraisals on record, and what another policy would have made of them."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from support.appraisal import NOW, corims_of, verifier_of
from support.evidence import simulate
from troth.errors import DecodeError, LimitExceededError
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.verifier import recorded
from troth.verifier.conclusion import Judgement
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.recorded import (
    RecordedAppraisal,
    RecordedConclusion,
    RecordedNode,
    decode_body,
    encode_body,
)
from troth.verifier.rego import DirectEvaluator
from troth.verifier.replay import Change, Difference, difference, replay, summarise
from troth.verifier.result import AssuranceTier

PSA = simulate()
CCA = simulate(CcaOptions())
EVALUATOR = DirectEvaluator()
HEAD = "package troth.appraisal\nimport rego.v1\n"
NODE = RecordedNode(
    node_id="n1", name="edge", spiffe_id="spiffe://d/edge", min_tier=AssuranceTier.MEASURED
)


def policy(text: str, name: str = "new.rego") -> AppraisalPolicy:
    return AppraisalPolicy.from_text(HEAD + text, name=name)


STRICT = policy('status := "contraindicated"\n')


def judged(
    platform: SimulatedPlatform = PSA,
    *,
    measured: SimulatedPlatform | None = None,
    challenge: bytes = b"c" * 64,
    **verifier: Any,
) -> Judgement:
    seen: list[Judgement] = []
    verifier_of(*corims_of(platform), **verifier).appraise(
        (measured or platform).attest(challenge), now=NOW, challenge=challenge, observe=seen.append
    )
    return seen[0]


def record(
    judgement: Judgement | None = None, *, device: str = "psa:1", **changes: Any
) -> RecordedAppraisal:
    made = RecordedAppraisal.of(judgement or judged(), device=device, now=NOW)
    return msgspec.structs.replace(made, **changes)


def stored(original: RecordedAppraisal) -> RecordedAppraisal:
    return decode_body(
        encode_body(original),
        record_id=original.id,
        first=original.first,
        last=original.last,
        count=original.count,
        device=original.device,
        spiffe_id=original.spiffe_id,
    )


# --- records


@pytest.mark.parametrize("platform", [PSA, CCA], ids=["psa", "cca"])
@pytest.mark.parametrize("candidate", [None, STRICT])
def test_a_record_comes_back_as_it_was_and_asks_the_same(
    platform: SimulatedPlatform, candidate: AppraisalPolicy | None
) -> None:
    changed = platform.with_measurement(0, b"\xee" * 32)
    judgement = judged(platform, measured=changed, candidate=candidate)
    made = record(judgement)
    assert stored(made) == made
    assert list(stored(made).appraisal_cases()) == list(judgement.cases)
    assert (made.candidate is None) is (candidate is None)


@pytest.mark.parametrize("platform", [PSA, CCA], ids=["psa", "cca"])
def test_the_same_policy_concludes_the_same_again(platform: SimulatedPlatform) -> None:
    default = AppraisalPolicy.default()
    again = replay(stored(record(judged(platform))), default, EVALUATOR)
    assert again.before == again.after
    assert msgspec.json.decode(msgspec.json.encode(again), type=Difference) == again
    assert (again.change, again.claims) == (Change.SAME, {})


def test_records_differ_by_everything_but_nonces_and_times() -> None:
    first = record()
    later = RecordedAppraisal.of(
        judged(challenge=b"d" * 64), device="psa:1", now=NOW + timedelta(hours=1)
    )
    assert later.id == first.id
    others = [
        record(device="psa:2"),
        RecordedAppraisal.of(judged(), device="psa:1", spiffe_id="spiffe://d/e", now=NOW),
        record(judged(measured=PSA.with_measurement(0, b"\xee" * 32))),
        record(judged(policy=STRICT)),
        record(judged(candidate=STRICT)),
        record(judged(CCA)),
    ]
    ids = {each.id for each in (first, *others)}
    assert len(ids) == 1 + len(others)


def test_a_record_holds_no_evidence_and_no_signature() -> None:
    token = PSA.attest(b"c" * 64)
    text = zlib.decompress(encode_body(record()))
    assert token[-64:].hex().encode() not in text
    assert token.hex().encode() not in text


@pytest.mark.parametrize("stored_body", [b"", b"x", zlib.compress(b"{}"), zlib.compress(b"[")])
def test_a_damaged_record_is_refused(stored_body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_body(
            stored_body, record_id="a", first=NOW, last=NOW, count=1, device="", spiffe_id=""
        )


def test_an_appraisal_that_says_too_much_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(zlib.decompress(encode_body(record())))
    monkeypatch.setattr(recorded, "MAX_RECORD_BYTES", size)
    encode_body(record())
    monkeypatch.setattr(recorded, "MAX_RECORD_BYTES", size - 1)
    with pytest.raises(LimitExceededError):
        encode_body(record())


def test_a_record_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body = encode_body(record())
    monkeypatch.setattr(recorded, "MAX_RECORD_BYTES", 64)
    with pytest.raises(DecodeError):
        decode_body(body, record_id="a", first=NOW, last=NOW, count=1, device="", spiffe_id="")


# --- replay


def test_a_stricter_policy_says_what_it_adds_and_whom_it_shuts_out() -> None:
    new = policy('findings contains {"claim": "vendor", "actual": "none", "expected": "one"}\n')
    found = replay(record(nodes=[NODE]), new, EVALUATOR)
    assert found.change is Change.STRICTER
    assert (found.before.status, found.after.status) == ("affirming", "contraindicated")
    assert [finding.claim for finding in found.findings_added] == ["vendor"]
    assert found.findings_added[0].rule == "policy new (new.rego:3)"
    assert found.findings_gone == []
    (effect,) = found.nodes
    assert (effect.before, effect.after) == (True, False)


def test_a_looser_policy_shows_the_claims_that_it_sets() -> None:
    warned = judged(measured=PSA.with_measurement(0, b"\xee" * 32))
    new = policy('vector := {"executables": "approved_rt", "hardware": 2}\n')
    found = replay(record(warned, nodes=[NODE]), new, EVALUATOR)
    assert found.change is Change.LOOSER
    assert found.claims == {"psa/executables": (33, 2)}
    (effect,) = found.nodes
    assert (effect.before, effect.after) == (False, True)


def test_a_tier_that_falls_is_stricter_although_the_status_stays() -> None:
    new = policy('vector := {"executables": 0, "hardware": 0}\n')
    found = replay(record(nodes=[NODE]), new, EVALUATOR)
    assert (found.before.status, found.after.status) == ("affirming", "affirming")
    assert (found.before.tier, found.after.tier) == (
        AssuranceTier.MEASURED,
        AssuranceTier.IDENTIFIED,
    )
    assert found.change is Change.STRICTER
    assert [effect.after for effect in found.nodes] == [False]


@pytest.mark.parametrize(
    "text",
    [
        'findings contains {"claim": "c", "severity": "note"}\n',
        'added_claims := {"site": "lab"}\n',
    ],
)
def test_what_only_adds_words_is_neither(text: str) -> None:
    found = replay(record(), policy(text), EVALUATOR)
    assert found.change is Change.FINDINGS


def test_findings_are_the_same_whatever_policy_and_line_report_them() -> None:
    text = 'findings contains {"claim": "c", "severity": "note", "remedy": "m"}\n'
    judgement = judged(policy=policy(text, "old.rego"))
    assert replay(record(judgement), policy("\n\n" + text), EVALUATOR).change is Change.SAME


def test_a_policy_that_fails_is_contraindicated_in_a_replay_too() -> None:
    found = replay(record(), policy("status := 7\n"), EVALUATOR)
    assert found.after.failed
    assert found.after.status == "contraindicated"
    assert found.change is Change.STRICTER


def test_the_candidate_on_record_can_be_compared_without_being_asked_again() -> None:
    made = record(judged(candidate=STRICT))
    assert made.candidate is not None
    assert difference(made, made.candidate).change is Change.STRICTER


def test_a_summary_counts_records_appraisals_and_each_node_once_by_its_last_record() -> None:
    good, bad = record(nodes=[NODE]), record(nodes=[NODE])
    later = NOW + timedelta(hours=1)
    strict = _contraindicated(bad)
    summary = summarise(
        [
            difference(msgspec.structs.replace(bad, last=later, count=4), strict),
            difference(good, good.outcome),
        ]
    )
    assert (summary.records, summary.appraisals) == (2, 5)
    assert summary.changes == {Change.STRICTER: 1, Change.SAME: 1}
    assert summary.statuses[("affirming", "contraindicated")] == 1
    assert (summary.shut_out, summary.let_in) == ([NODE], [])
    recovered = summarise(
        [
            difference(bad, strict),
            difference(msgspec.structs.replace(good, last=later), good.outcome),
        ]
    )
    assert recovered.shut_out == []


def test_nothing_recorded_is_a_summary_of_nothing() -> None:
    nothing: list[Difference] = []
    assert summarise(nothing).records == 0


def _contraindicated(made: RecordedAppraisal) -> RecordedConclusion:
    return msgspec.structs.replace(made.outcome, status="contraindicated")
