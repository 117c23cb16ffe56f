# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import timedelta

import pytest

from support.appraisal import GOOD, NOW, UNCHECKED, case
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.verifier.finding import Finding
from troth.verifier.policy import MAX_POLICY_BYTES, AppraisalPolicy, PolicyVerdict
from troth.verifier.rego import DirectEvaluator, Evaluation

EVALUATOR = DirectEvaluator()
WARNED = TrustworthinessVector(instance_identity=2, executables=33, hardware=2)
HEAD = "package troth.appraisal\nimport rego.v1\n"


def policy(text: str, **given: object) -> AppraisalPolicy:
    return AppraisalPolicy.from_text(text, name="site.rego", **given)  # type: ignore[arg-type]


def verdict(text: str, **about: object) -> PolicyVerdict:
    return policy(text).apply(case(**about), EVALUATOR)  # type: ignore[arg-type]


# --- the built-in policy


@pytest.mark.parametrize(
    "vector",
    [
        GOOD,
        WARNED,
        TrustworthinessVector(executables=96),
        TrustworthinessVector(),
        TrustworthinessVector(hardware=-1),
    ],
)
def test_the_default_policy_leaves_the_vectors_status(vector: TrustworthinessVector) -> None:
    found = AppraisalPolicy.default().apply(case(vector=vector), EVALUATOR)
    assert found.status is vector.worst
    assert found.vector == vector
    assert found.findings == ()


def test_the_default_policy_never_overrides_a_contraindicating_finding() -> None:
    finding = Finding(claim="c", expected="e", actual="a", rule="r", remedy="m")
    found = AppraisalPolicy.default().apply(case(findings=(finding,)), EVALUATOR)
    assert found.status is TrustTier.CONTRAINDICATED


def test_the_default_policy_is_clean_and_its_digest_is_that_of_its_text() -> None:
    default = AppraisalPolicy.default()
    assert default.lint() == []
    assert default.id == "default"
    assert len(default.digest) == 64
    assert default.repeatable


# --- what goes wrong is contraindicated, and says why and where


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "no package"),
        ("# nothing here\n", 1, "no package"),
        ("package other\nstatus := 1\n", 1, "package 'other'"),
        ("package troth.appraisal\n", None, "no rule status"),
        ("package policy\n", None, "no rule"),
        ("package policy\nallow := true\n", None, "no rule"),
        (
            HEAD + 'status := "affirming" if input.claims.nothing\n',
            3,
            "undefined for this Evidence",
        ),
        (HEAD + 'status := "affirming" if not debugging\n', 3, "undefined variable 'debugging'"),
        (HEAD + 'status := "affirming" if not f(1)\n', 3, "unknown function 'f'"),
        (HEAD + 'status := "affirming" {{{\n', 3, "does not parse"),
        (HEAD + 'status := "a" if true\nstatus := "b" if true\n', None, "two different values"),
        (HEAD + "status := input.claims\n", 3, "is none of"),
        (HEAD + "status := 2\n", 3, "is none of"),
        (HEAD + 'status := "AFFIRMING"\n', 3, "is none of"),
        (HEAD + "status := null\n", 3, "is none of"),
        (HEAD + 'status := "affirming"\nvector := {"executables": 300}\n', 4, "300"),
        (HEAD + 'status := "affirming"\nvector := {"executables": "sure"}\n', 4, "sure"),
        (HEAD + 'status := "affirming"\nvector := {"executables": true}\n', 4, "true"),
        (HEAD + 'status := "affirming"\nvector := {"trust": 2}\n', 4, "'trust'"),
        (HEAD + 'status := "affirming"\nvector := [2]\n', 4, "not an object"),
        (HEAD + 'status := "affirming"\nfindings := "none"\n', 4, "not a set or array"),
        (HEAD + 'status := "affirming"\nfindings := [{"expected": "x"}]\n', 4, "no claim"),
        (
            HEAD + 'status := "affirming"\nfindings := [{"claim": "x", "severity": "bad"}]\n',
            4,
            "bad",
        ),
        (
            HEAD + 'status := "affirming"\nfindings := numbers.range(1, 65)\n',
            4,
            "MAX_POLICY_FINDINGS",
        ),
        (HEAD + 'status := "affirming"\nadded_claims := 1\n', 4, "not an object"),
        ("package policy\nexecutables = 2 { input.nothing }\n", 2, "undefined for this Evidence"),
        ('package policy\nexecutables = "SURE"\n', 2, "SURE"),
        ("package policy\nstatus = 17\n", 2, "17"),
        ("package policy\ntrust_claims := {}\n", 2, "sets no claim"),
        ('package policy\ntrust_claims := {"executables": 0}\n', 2, "sets no claim"),
        ('package policy\ntrust_claims := {"executables": 2}\nextensions := [1]\n', 3, "no name"),
        (
            'package policy\ntrust_claims := {"executables": 2}\nextensions := 1\n',
            3,
            "not an array",
        ),
        ("#" * (MAX_POLICY_BYTES + 1), None, "MAX_POLICY_BYTES"),
    ],
)
def test_a_policy_that_fails_contraindicates_with_its_place(
    text: str, line: int | None, words: str
) -> None:
    found = verdict(text)
    assert found.status is TrustTier.CONTRAINDICATED
    assert found.vector == GOOD
    (finding,) = found.findings
    assert words in finding.actual
    assert finding.rule == f"policy site (site.rego{f':{line}' if line else ''})"
    assert finding.severity == "contraindicated"
    assert finding.submod == "psa"


def test_an_evaluator_that_fails_contraindicates() -> None:
    class Broken:
        def evaluate(self, *_: object) -> Evaluation:
            return Evaluation(failure="took longer than 1 s")

    found = AppraisalPolicy.default().apply(case(), Broken())
    assert found.status is TrustTier.CONTRAINDICATED
    assert found.findings[0].actual == "took longer than 1 s"


def test_a_failing_policy_hides_no_finding_of_the_appraiser() -> None:
    finding = Finding(claim="c", expected="e", actual="a", rule="r", remedy="m")
    assert verdict("", findings=(finding,)).findings[0] is finding


def test_lint_reports_every_error_with_its_line() -> None:
    found = policy(HEAD + "status := one\nvector := two\n").lint()
    assert [finding.rule for finding in found] == [
        "policy site (site.rego:3)",
        "policy site (site.rego:4)",
    ]


# --- what a policy may change


def test_a_policy_without_a_status_leaves_it_to_the_claims() -> None:
    text = HEAD + 'vector := {"executables": 3}\n'
    assert verdict(text, vector=WARNED).status is TrustTier.AFFIRMING
    assert verdict(HEAD + "findings := []\n", vector=WARNED).status is TrustTier.WARNING


def test_a_policy_may_lower_the_status() -> None:
    assert verdict(HEAD + 'status := "warning"\n').status is TrustTier.WARNING
    assert verdict(HEAD + 'status := "none"\n').status is TrustTier.NONE


def test_a_policy_cannot_raise_the_status_above_the_worst_claim() -> None:
    found = verdict(HEAD + 'status := "affirming"\n', vector=WARNED)
    assert found.status is TrustTier.WARNING
    assert "asks for affirming" in found.findings[-1].actual
    assert found.findings[-1].rule.startswith("policy site (site.rego:3)")


def test_affirming_nothing_is_no_affirmation() -> None:
    found = verdict(HEAD + 'status := "affirming"\n', vector=TrustworthinessVector())
    assert found.status is TrustTier.NONE


def test_a_policy_may_raise_a_claim_and_the_result_shows_it() -> None:
    text = HEAD + 'status := "affirming"\nvector := {"executables": "approved_boot"}\n'
    found = verdict(text, vector=WARNED)
    assert found.status is TrustTier.AFFIRMING
    assert found.vector.executables == 3
    (finding,) = found.findings
    assert (finding.claim, finding.severity) == ("executables", "note")
    assert finding.expected.startswith("33 ")
    assert finding.actual.startswith("3 ")
    assert finding.rule == "policy site (site.rego:4)"


def test_a_policy_may_lower_a_claim_and_the_status_follows() -> None:
    found = verdict(HEAD + 'status := input.status\nvector := {"hardware": 97}\n')
    assert found.status is TrustTier.CONTRAINDICATED
    assert found.findings[0].severity == "contraindicated"


def test_a_claim_that_is_set_to_what_it_was_is_not_reported() -> None:
    assert verdict(HEAD + 'status := input.status\nvector := {"hardware": 2}\n').findings == ()


def test_a_finding_of_the_policy_counts_by_its_severity() -> None:
    text = HEAD + (
        "status := input.status\n"
        'findings contains {"claim": "version", "severity": "%s", "remedy": "Update."} if true\n'
    )
    assert verdict(text % "note").status is TrustTier.AFFIRMING
    assert verdict(text % "warning").status is TrustTier.WARNING
    found = verdict(text % "contraindicated")
    assert found.status is TrustTier.CONTRAINDICATED
    assert found.findings[0].rule == "policy site (site.rego:4)"
    assert found.findings[0].submod == "psa"


def test_a_finding_carries_the_line_of_its_own_words() -> None:
    text = HEAD + (
        "status := input.status\n"
        'findings contains {"claim": "one", "severity": "note"} if true\n'
        'findings contains {"claim": "two", "severity": "note", "rule": "site rule 7"} if true\n'
    )
    found = {finding.claim: finding.rule for finding in verdict(text).findings}
    assert found == {
        "one": "policy site (site.rego:4)",
        "two": "site rule 7; policy site (site.rego:5)",
    }


def test_added_claims_are_passed_on() -> None:
    found = verdict(HEAD + 'status := input.status\nadded_claims := {"site": [1, 2]}\n')
    assert found.added_claims == {"site": [1, 2]}


def test_the_policy_finds_its_reference_data() -> None:
    text = HEAD + (
        'status := "affirming" if input.claims["security-lifecycle"] in data.reference.lifecycles\n'
    )
    given = policy(text, reference={"lifecycles": ["secured"]})
    assert given.apply(case(), EVALUATOR).status is TrustTier.AFFIRMING
    other = policy(text, reference={"lifecycles": ["unknown"]})
    assert other.apply(case(), EVALUATOR).status is TrustTier.CONTRAINDICATED
    assert given.digest == other.digest
    assert given.program.digest != other.program.digest


# --- what a policy sees


def seen(text: str, **about: object) -> dict[str, object]:
    return policy(text).document(case(**about))  # type: ignore[arg-type]


def test_a_policy_sees_only_the_members_that_it_names() -> None:
    text = HEAD + 'status := input.status if input["scheme"] == "psa"\n'
    assert seen(text) == {"status": "affirming", "scheme": "psa"}


def test_a_policy_that_uses_the_input_as_a_whole_sees_all_of_it() -> None:
    found = seen(HEAD + "status := object.get(input, [input.key], {})\n")
    assert {"claims", "vector", "findings", "now", "now_ns", "evidence"} <= found.keys()


def test_a_policy_that_does_not_speak_of_nonces_sees_none() -> None:
    silent = seen(HEAD + "status := input.claims\nvector := input.evidence\n")
    assert silent["claims"] == {"security-lifecycle": "secured"}
    assert silent["evidence"] == {"psa": {"security-lifecycle": "secured"}}
    speaking = seen(HEAD + "status := input.claims.nonce\n")
    assert speaking["claims"] == {"security-lifecycle": "secured", "nonce": (b"n" * 32).hex()}


def test_freshness_says_what_was_checked() -> None:
    text = HEAD + "status := input.freshness\n"
    assert seen(text) == {"freshness": {"checked": True}}
    assert seen(text, freshness=UNCHECKED) == {
        "freshness": {"checked": False, "why": UNCHECKED.why}
    }
    named = HEAD + "status := input.freshness.nonce\n"
    assert seen(named) == {"freshness": {"checked": True, "nonce": (b"n" * 32).hex()}}


def test_the_time_is_the_appraisals_one_clock_reading() -> None:
    found = seen(HEAD + "status := input.now\nvector := input.now_ns\n")
    assert found == {
        "now": "2026-11-25T12:00:00Z",
        "now_ns": int(NOW.timestamp()) * 1_000_000_000,
    }
    later = seen(HEAD + "status := input.now_ns\n", now=NOW + timedelta(microseconds=1))
    assert later == {"now_ns": int(NOW.timestamp()) * 1_000_000_000 + 1000}


@pytest.mark.parametrize(
    ("rule", "repeatable"),
    [
        ("status := input.status", True),
        ("status := input.now", False),
        ("status := input.claims.nonce", False),
        ('status := input.claims["cca-realm-challenge"]', False),
        ("status := input", False),
        ("status := input.claims[input.key]", True),
    ],
)
def test_a_policy_is_repeatable_unless_it_looks_at_time_or_nonces(
    rule: str, *, repeatable: bool
) -> None:
    assert policy(HEAD + rule + "\n").repeatable is repeatable


# --- the vocabularies of others


def test_veraisons_rules_override_claims_and_leave_the_rest() -> None:
    found = verdict("package policy\nexecutables = UNSAFE_RT\nhardware = 0\n")
    assert found.vector.executables == 32
    assert found.vector.hardware == 2
    assert found.status is TrustTier.WARNING


def test_veraisons_status_may_lower_and_not_raise() -> None:
    assert verdict("package policy\nstatus = CONTRAINDICATED\n").status is TrustTier.CONTRAINDICATED
    assert (
        verdict("package policy\nstatus = AFFIRMING\n", vector=WARNED).status is TrustTier.WARNING
    )
    assert verdict('package policy\nstatus = "warning"\n').status is TrustTier.WARNING
    assert verdict("package policy\nstatus = 0\n").status is TrustTier.AFFIRMING


def test_veraisons_evidence_has_its_names_and_base64() -> None:
    text = """package policy
status = AFFIRMING {
  scheme == "PSA_IOT"
  submod == "PSA_IOT"
  result["ear.status"] == "affirming"
  base64.decode(evidence["psa-software-components"][i]["signer-id"]) == "abcdefghijklmnopabcdefghijklmnop"
  evidence["psa-software-components"][i]["measurement-type"] == "BL"
  semver_cmp(evidence["psa-software-components"][i].version, "3.9") > 0
  evidence["psa-security-lifecycle"] == 12288
  base64url.decode(session["nonce"]) == base64.decode(evidence["psa-nonce"])
} else = CONTRAINDICATED
"""
    component = {
        "measurement-type": "BL",
        "measurement-value": "00" * 32,
        "signer-id": (b"abcdefghijklmnop" * 2).hex(),
        "version": "3.10.1",
    }
    claims = {"software-components": [component], "security-lifecycle-value": 0x3000}
    assert verdict(text, claims=claims).status is TrustTier.AFFIRMING
    other = {**claims, "software-components": [{**component, "version": "3.8"}]}
    assert verdict(text, claims=other).status is TrustTier.CONTRAINDICATED
    assert verdict(text, claims=claims, freshness=UNCHECKED).status is TrustTier.CONTRAINDICATED


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("3.10", "3.9", 1),
        ("10.0", "9.9", 1),
        ("3.5.1", "3.5", 1),
        ("3.5", "3.5", 0),
        ("3.1.7", "3.5", -1),
        ("2", "3", -1),
    ],
)
def test_versions_are_compared_by_number(first: str, second: str, result: int) -> None:
    text = f'package policy\nadded_claims := {{"cmp": semver_cmp("{first}", "{second}")}}\n'
    assert verdict(text).added_claims == {"cmp": result}


def test_what_is_no_version_compares_as_undefined() -> None:
    text = 'package policy\nexecutables := 2 { semver_cmp("1.x", "0") > 0 }\n'
    assert verdict(text).status is TrustTier.CONTRAINDICATED


def test_trustees_claims_replace_ours_and_its_extensions_are_added() -> None:
    text = """package policy
import rego.v1
default executables := 33
executables := 3 if input.psa["psa-security-lifecycle"] in query_reference_value("lifecycles")
trust_claims := {"executables": executables, "configuration": 0}
extensions := [{"name": "site", "key": -1, "value": {"a": 1}}]
"""
    claims = {"security-lifecycle-value": 0x3000}
    about = case(claims, vector=WARNED)
    known = policy(text, reference={"lifecycles": [0x3000]}).apply(about, EVALUATOR)
    assert known.status is TrustTier.AFFIRMING
    assert known.vector.executables == 3
    assert known.vector.configuration is None
    assert known.added_claims == {"site": {"a": 1}}
    unknown = policy(text).apply(about, EVALUATOR)
    assert unknown.status is TrustTier.WARNING


def test_trustees_missing_reference_value_is_null() -> None:
    text = """package policy
trust_claims := {"executables": e}
e := 2 { query_reference_value("nothing") == null }
"""
    assert verdict(text, vector=WARNED).status is TrustTier.AFFIRMING
