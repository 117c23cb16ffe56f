# SPDX-License-Identifier: Apache-2.0
"""`troth policy lint`, `show` and `test`: what they say of files, and their exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.appraisal import corims_of
from support.cli import Ran, run_cli
from support.evidence import simulate
from troth.verifier.policy import AppraisalPolicy

HEAD = "package troth.appraisal\nimport rego.v1\n"
PSA = simulate()
CASE: dict[str, Any] = {
    "name": "a device of the lab is a warning",
    "case": {"scheme": "psa", "claims": {"site": "lab"}, "vector": {"hardware": 2}},
    "expect": {"status": "warning"},
}
SITE = HEAD + (
    'findings contains {"claim": "site", "actual": "lab", "severity": "warning"} if {\n'
    '\tinput.claims.site == "lab"\n}\n'
)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "site.rego"
    path.write_text(SITE)
    return path


def cases(folder: Path, *written: dict[str, Any], name: str = "cases.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"cases": written}))
    return path


def outcome_of(
    capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[Ran, dict[str, Any]]:
    ran = run_cli(capsys, "policy", "test", *arguments, "--format", "json")
    return ran, json.loads(ran.out) if ran.out else {}


# --- lint


def test_a_sound_policy_passes(capsys: pytest.CaptureFixture[str], policy: Path) -> None:
    ran = run_cli(capsys, "policy", "lint", policy, "--format", "text")
    assert (ran.status, ran.out) == (0, f"{policy}: nothing is wrong\n")
    assert json.loads(run_cli(capsys, "policy", "lint", policy).out) == {str(policy): []}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (HEAD + "status := no_such_variable\n", 3, "undefined variable 'no_such_variable'"),
        (HEAD + 'status := "none" {{{\n', 3, "does not parse"),
        ("package other\nstatus := 1\n", 1, "package 'other'"),
    ],
)
def test_what_keeps_a_policy_from_any_verdict_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str], policy: Path, text: str, line: int, words: str
) -> None:
    bad = policy.with_name("bad.rego")
    bad.write_text(text)
    ran = run_cli(capsys, "policy", "lint", policy, bad)
    assert ran.status == 1
    report = json.loads(ran.out)
    assert report[str(policy)] == []
    (finding,) = report[str(bad)]
    assert words in finding["actual"]
    assert f"bad.rego:{line}" in finding["rule"]
    assert f"bad.rego:{line}" in run_cli(capsys, "policy", "lint", bad, "--format", "text").out


def test_a_policy_that_cannot_be_read_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(capsys, "policy", "lint", "/nonexistent.rego").status == 3
    assert run_cli(capsys, "policy", "lint").status == 3


# --- show


def test_the_built_in_policy_is_shown_and_its_text_can_be_copied(
    capsys: pytest.CaptureFixture[str],
) -> None:
    default = AppraisalPolicy.default()
    facts = json.loads(run_cli(capsys, "policy", "show").out)
    assert (facts["id"], facts["sha-256"]) == ("default", default.digest)
    assert run_cli(capsys, "policy", "show", "--text").out == default.source.text


def test_what_a_policy_reads_and_sets_is_shown(
    capsys: pytest.CaptureFixture[str], policy: Path
) -> None:
    facts = json.loads(run_cli(capsys, "policy", "show", policy).out)
    assert facts["defines"] == ["findings"]
    assert facts["reads"] == ["claims"]
    assert facts["verdicts may be kept"] is True
    policy.write_text(HEAD + 'status := "none" if input.now_ns > 0\n')
    shown = run_cli(capsys, "policy", "show", policy, "--format", "text").out
    assert "reads the time yes\n" in shown
    assert "verdicts may be kept no\n" in shown


# --- test


def test_cases_that_are_met_pass(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    path = cases(tmp_path, CASE)
    ran, report = outcome_of(capsys, policy, path)
    assert (ran.status, report["passed"], report["failed"]) == (0, 1, 0)
    text = run_cli(capsys, "policy", "test", policy, path, "--format", "text").out
    assert text == "passed   a device of the lab is a warning\n1 case: 1 passed\n"


def test_a_case_that_fails_says_what_was_expected_and_what_was_concluded(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    path = cases(tmp_path, {**CASE, "expect": {"status": "affirming"}}, CASE)
    ran, report = outcome_of(capsys, policy, path)
    assert (ran.status, report["passed"], report["failed"]) == (1, 1, 1)
    failed = report["cases"][0]
    assert failed["mismatches"] == [
        {"what": "status", "expected": "affirming", "actual": "warning"}
    ]
    assert [each["claim"] for each in failed["findings"]] == ["site"]
    text = run_cli(capsys, "policy", "test", policy, path, "--format", "text").out
    assert "expected  affirming" in text
    assert "concluded warning" in text
    assert "rule     policy site (site.rego:3)" in text


def test_yaml_in_folders_and_defaults_are_read(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cases"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "lab.yaml").write_text(
        "defaults:\n  case: {scheme: psa, vector: {hardware: 2}, now: 2026-11-25T12:00:00Z}\n"
        "cases:\n"
        "- name: the lab\n  case: {claims: {site: lab}}\n  expect: {status: warning}\n"
        "- name: elsewhere\n  case: {claims: {site: here}, vector: {hardware: 96}}\n"
        "  expect: {status: contraindicated}\n"
    )
    (folder / "alone.yml").write_text("name: alone\ncase: {scheme: psa}\nexpect: {status: none}\n")
    (folder / "notes.txt").write_text("not a case")
    ran, report = outcome_of(capsys, policy, folder)
    assert ran.status == 0
    assert [each["name"] for each in report["cases"]] == ["alone", "the lab", "elsewhere"]


def test_evidence_is_appraised_and_the_policy_asked_about_it(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_bytes(PSA.attest(b"c" * 64))
    (tmp_path / "corim").write_bytes(corims_of(PSA)[0].encode())
    appraisal = {
        "reference_values": ["corim"],
        "nonce": "63" * 64,
        "allow_simulator": True,
    }
    good = {
        "name": "good",
        "evidence": "token",
        "appraisal": appraisal,
        "expect": {"status": "affirming", "tier": "measured", "no_findings": [{"claim": "site"}]},
    }
    stale = {**good, "name": "stale", "appraisal": {**appraisal, "nonce": "64" * 64}}
    ran, report = outcome_of(capsys, policy, cases(tmp_path, good))
    assert (ran.status, report["passed"]) == (0, 1)
    ran, report = outcome_of(capsys, policy, cases(tmp_path, good, stale))
    assert (ran.status, report["passed"], report["not_run"]) == (2, 1, 1)
    assert "nonce" in report["cases"][1]["error"]


def test_several_claims_sets_are_asked_about_together(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    platform = {"scheme": "cca", "submod": "cca-platform", "vector": {"hardware": 2}}
    realm = {
        "scheme": "cca",
        "submod": "cca-realm",
        "claims": {"site": "lab"},
        "vector": {"executables": 2},
    }
    expect = {
        "status": "warning",
        "submods": {"cca-platform": {"status": "affirming"}, "cca-realm": {"status": "warning"}},
    }
    written = {"name": "both", "case": [platform, realm], "expect": expect}
    assert outcome_of(capsys, policy, cases(tmp_path, written))[0].status == 0


def test_a_broken_policy_does_not_pass_by_contraindicating_everything(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    policy.write_text(HEAD + "status := no_such_variable\n")
    ran, report = outcome_of(
        capsys, policy, cases(tmp_path, {**CASE, "expect": {"status": "contraindicated"}})
    )
    assert (ran.status, report["failed"]) == (1, 1)
    assert "no_such_variable" in report["defects"][0]["actual"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({**CASE, "evidence": "token"}, "exactly one of case and evidence"),
        ({"name": "n", "expect": {"status": "none"}}, "exactly one of case and evidence"),
        ({**CASE, "expect": {}}, "nothing is expected"),
        ({**CASE, "expect": {"status": "good"}}, "good"),
        ({**CASE, "expects": {}}, "expects"),
        ({**CASE, "case": {"claims": {}}}, "scheme"),
        ({**CASE, "case": {"scheme": "psa", "clams": {}}}, "clams"),
    ],
)
def test_a_case_that_is_not_as_described_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
    policy: Path,
    tmp_path: Path,
    written: dict[str, Any],
    words: str,
) -> None:
    ran, _ = outcome_of(capsys, policy, cases(tmp_path, written))
    assert (ran.status, ran.out) == (3, "")
    assert words in ran.err
    assert "cases.json" in ran.err


@pytest.mark.parametrize(
    "content",
    [
        "a: [",
        "cases: 7",
        "- 1",
        "name: twice\nname: twice\ncase: {scheme: psa}\nexpect: {status: none}\n",
        "defaults: {expect: {status: none}}\ncases: []\n",
        "!!python/object/apply:os.getcwd []",
    ],
)
def test_a_file_that_holds_no_cases_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(content)
    assert outcome_of(capsys, policy, path)[0].status == 3


def test_a_test_of_nothing_does_not_pass(
    capsys: pytest.CaptureFixture[str], policy: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert outcome_of(capsys, policy, empty)[0].status == 3
    assert outcome_of(capsys, policy, cases(tmp_path))[0].status == 3
    assert outcome_of(capsys, policy, tmp_path / "nowhere")[0].status == 3
