# SPDX-License-Identifier: Apache-2.0
"""Documents that a policy is tested with, and what it means to pass."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from support.appraisal import GOOD, NOW, UNCHECKED, case, corims_of, verifier_of
from support.evidence import simulate
from troth.errors import DecodeError
from troth.evidence.evidence import NonceMatched, Unchecked
from troth.evidence.simulator import CcaOptions
from troth.verifier.case_document import CaseDocument, vector_of
from troth.verifier.conclusion import Conclusion, Judgement, conclude
from troth.verifier.finding import Finding
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.policy_case import Expectation, Mismatch, mismatches
from troth.verifier.rego import DirectEvaluator
from troth.verifier.result import AssuranceTier

FINDING = Finding(claim="c", expected="e", actual="a", rule="r", remedy="m", severity="warning")


def document(**members: Any) -> CaseDocument:
    return msgspec.convert({"scheme": "psa", **members}, CaseDocument)


def expectation(**members: Any) -> Expectation:
    return msgspec.convert(members, Expectation)


def concluded(text: str = "", **members: Any) -> Conclusion:
    policy = AppraisalPolicy.default()
    if text:
        policy = AppraisalPolicy.from_text(
            f"package troth.appraisal\nimport rego.v1\n{text}", name="p.rego"
        )
    asked = document(**{"vector": GOOD.to_json(), **members}).case(now=NOW)
    return conclude([asked], policy, DirectEvaluator(), best=AssuranceTier.MEASURED)


def whats(found: list[Mismatch]) -> list[str]:
    return [each.what for each in found]


# --- documents


@pytest.mark.parametrize(
    "original",
    [
        case(),
        case(nonce=None),
        case(findings=(FINDING,), boot_session=b"b", insecure=("simulator",)),
        case(freshness=UNCHECKED),
    ],
)
def test_a_case_comes_back_from_its_document_as_it_was(original: Any) -> None:
    written = msgspec.json.encode(CaseDocument.of(original))
    assert msgspec.json.decode(written, type=CaseDocument).case(now=NOW) == original


def test_a_short_document_asks_about_a_fresh_device_of_which_nothing_is_known() -> None:
    asked = document().case(now=NOW)
    assert isinstance(asked.freshness, NonceMatched)
    assert asked.claims_set.label == "psa"
    assert asked.now == NOW
    assert not list(asked.vector.items())
    assert document(unchecked="a test").case(now=NOW).freshness == Unchecked("a test")


def test_tags_and_numbers_are_values_of_a_vector() -> None:
    assert vector_of({"executables": "approved_rt", "hardware": 2}).to_json() == {
        "executables": 2,
        "hardware": 2,
    }


@pytest.mark.parametrize(
    "members",
    [
        {"vector": {"executable": 2}},
        {"vector": {"executables": "approved"}},
        {"vector": {"executables": 128}},
        {"nonce": "0"},
        {"instance_id": "zz"},
        {"boot_session": "0x00"},
        {"now": datetime(2026, 1, 1)},  # noqa: DTZ001 - the mistake
    ],
)
def test_a_document_that_says_what_cannot_be_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        document(**members).case(now=NOW)


# --- expectations


def test_what_is_as_expected_has_no_mismatch() -> None:
    conclusion = concluded(
        'findings contains {"claim": "c", "severity": "warning", "remedy": "m"}\n'
        'added_claims := {"site": "lab"}\n'
    )
    expected = expectation(
        status="warning",
        tier="measured",
        vector={"executables": "approved_rt", "configuration": 0},
        findings=[{"claim": "c"}, {"severity": "warning", "remedy": "m"}],
        no_findings=[{"claim": "d"}, {"claim": "c", "severity": "note"}],
        added_claims={"site": "lab"},
        submods={"psa": {"status": "warning", "findings": [{"claim": "c"}]}},
    )
    expected.check()
    assert mismatches(conclusion, expected) == []


@pytest.mark.parametrize(
    ("expected", "what"),
    [
        ({"status": "affirming"}, "status"),
        ({"tier": "confidential"}, "tier"),
        ({"vector": {"executables": 3}}, "executables"),
        ({"vector": {"configuration": 2}}, "configuration"),
        ({"findings": [{"claim": "d"}]}, "finding"),
        ({"findings": [{"claim": "c", "severity": "note"}]}, "finding"),
        ({"no_findings": [{"severity": "warning"}]}, "finding"),
        ({"added_claims": {"site": "lab"}}, "added claim site"),
        ({"submods": {"psa": {"status": "none"}}}, "psa: status"),
    ],
)
def test_one_difference_is_one_mismatch(expected: dict[str, Any], what: str) -> None:
    conclusion = concluded('findings contains {"claim": "c", "severity": "warning"}\n')
    assert whats(mismatches(conclusion, expectation(**expected))) == [what]


def test_a_policy_that_fails_meets_no_expectation_but_that_it_fails() -> None:
    conclusion = concluded("status := 7\n")
    assert whats(mismatches(conclusion, expectation(status="contraindicated"))) == [
        "the policy's verdict"
    ]
    assert mismatches(conclusion, expectation(status="contraindicated", failed=True)) == []
    assert whats(mismatches(concluded(), expectation(failed=True))) == ["the policy's verdict"]


def test_every_difference_is_reported() -> None:
    expected = expectation(
        status="none",
        tier="registered",
        vector={"executables": 96, "hardware": 96},
        findings=[{"claim": "a"}, {"claim": "b"}],
    )
    assert len(mismatches(concluded(), expected)) == 6


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"status": "good"},
        {"tier": "gold"},
        {"vector": {"executables": "unheard_of"}},
        {"findings": [{}]},
        {"findings": [{"text": "c"}]},
        {"submods": {"psa": {"status": "good"}}},
    ],
)
def test_an_expectation_that_cannot_be_met_is_refused(expected: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        expectation(**expected).check()


def test_claims_of_several_claims_sets_are_expected_of_one_by_its_name() -> None:
    platform = simulate(CcaOptions())
    seen: list[Judgement] = []
    verifier_of(*corims_of(platform)).appraise(
        platform.attest(b"c" * 64), now=NOW, challenge=b"c" * 64, observe=seen.append
    )
    conclusion = seen[0].conclusion
    with pytest.raises(DecodeError, match="cca-platform, cca-realm"):
        mismatches(conclusion, expectation(vector={"executables": 2}))
    named = expectation(submods={"cca-realm": {"vector": {"executables": 2}}})
    assert mismatches(conclusion, named) == []
    with pytest.raises(DecodeError, match="'psa'"):
        mismatches(conclusion, expectation(submods={"psa": {"status": "none"}}))
