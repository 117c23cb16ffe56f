# SPDX-License-Identifier: Apache-2.0
"""Policies of Trustee and Veraison, unmodified, from a folder of yours: $TROTH_POLICIES.

Any layout will do, such as checkouts of both projects side by side; files are found by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.appraisal import case
from troth.adapters.rego_worker import WorkerEvaluator
from troth.evidence.evidence import ClaimsSet
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.verifier.policy import AppraisalPolicy, PolicyVerdict

UNKNOWN = TrustworthinessVector(executables=33)
COMPONENT = {
    "measurement-type": "BL",
    "measurement-value": "00" * 32,
    "signer-id": "11" * 32,
    "version": "3.5.1",
}


def found(name: str) -> Path:
    """Return the file called `name`, or skip the test."""
    folder = os.environ.get("TROTH_POLICIES")
    if not folder:
        pytest.skip("TROTH_POLICIES names no folder with policies of Trustee and Veraison")
    for path in sorted(Path(folder).rglob("*.rego")):
        if path.name == name or path.name.endswith(f"_{name}"):
            return path
    pytest.skip(f"there is no {name} in {folder}")


@pytest.fixture(scope="module")
def evaluator() -> Iterator[WorkerEvaluator]:
    with WorkerEvaluator(deadline_seconds=10.0) as given:
        yield given


def load(name: str, reference: dict[str, object] | None = None) -> AppraisalPolicy:
    path = found(name)
    return AppraisalPolicy.from_text(path.read_text("utf-8"), name=name, reference=reference)


def sample(**claims: object) -> dict[str, object]:
    said = {
        "svn": "2",
        "launch_digest": "abc",
        "platform_version": {"major": 1, "minor": 5},
        "debug": False,
        **claims,
    }
    return {
        "scheme": "sample",
        "claims_set": ClaimsSet(label="sample", component="vm", layer="hardware", claims=said),
        "evidence": {"sample": said},
        "vector": UNKNOWN,
    }


REFERENCE: dict[str, object] = {
    "launch_digest": ["abc"],
    "svn": ["1", "2"],
    "major_version": 1,
    "minimum_minor_version": 4,
}


def test_trustees_default_policy_affirms_its_sample(evaluator: WorkerEvaluator) -> None:
    policy = load("ear_default_policy_cpu.rego", REFERENCE)
    assert policy.lint() == []
    verdict = policy.apply(case(**sample()), evaluator)  # type: ignore[arg-type]
    assert (verdict.vector.executables, verdict.vector.hardware) == (3, 2)
    assert verdict.vector.configuration == 2
    assert verdict.status is TrustTier.AFFIRMING
    assert "ear.trustee.identifiers" in verdict.added_claims


@pytest.mark.parametrize(
    ("claims", "claim", "value"),
    [
        ({"launch_digest": "abd"}, "executables", 33),
        ({"svn": "3"}, "hardware", 97),
        ({"platform_version": {"major": 1, "minor": 3}}, "hardware", 97),
        ({"debug": True}, "configuration", 36),
    ],
)
def test_trustees_default_policy_refuses_a_changed_sample(
    evaluator: WorkerEvaluator, claims: dict[str, object], claim: str, value: int
) -> None:
    policy = load("ear_default_policy_cpu.rego", REFERENCE)
    verdict = policy.apply(case(**sample(**claims)), evaluator)  # type: ignore[arg-type]
    assert getattr(verdict.vector, claim) == value
    assert verdict.status is not TrustTier.AFFIRMING


def test_trustees_default_policy_without_reference_values_affirms_nothing(
    evaluator: WorkerEvaluator,
) -> None:
    policy = load("ear_default_policy_cpu.rego")
    verdict = policy.apply(case(**sample()), evaluator)  # type: ignore[arg-type]
    assert verdict.status is TrustTier.CONTRAINDICATED


@pytest.mark.parametrize("kind", ["gpu", "ppcie", "switch"])
def test_trustees_other_default_policies_evaluate(evaluator: WorkerEvaluator, kind: str) -> None:
    policy = load(f"ear_default_policy_{kind}.rego")
    assert policy.lint() == []
    verdict = policy.apply(case(**sample()), evaluator)  # type: ignore[arg-type]
    assert not any(finding.claim == "appraisal-policy" for finding in verdict.findings)
    assert verdict.status is not TrustTier.AFFIRMING


def veraison(evaluator: WorkerEvaluator, name: str, **about: object) -> PolicyVerdict:
    return load(name).apply(case(**about), evaluator)  # type: ignore[arg-type]


def test_veraisons_preamble_by_itself_changes_nothing(evaluator: WorkerEvaluator) -> None:
    verdict = veraison(evaluator, "opa.rego")
    assert verdict.status is TrustTier.AFFIRMING
    assert verdict.findings == ()


@pytest.mark.parametrize(("version", "value"), [("3.5.1", 2), ("3.5", 2), ("3.4.9", 32)])
def test_veraisons_psa_policy_compares_the_boot_loaders_version(
    evaluator: WorkerEvaluator, version: str, value: int
) -> None:
    claims = {"software-components": [{**COMPONENT, "version": version}]}
    verdict = veraison(evaluator, "psa.rego", claims=claims, vector=UNKNOWN)
    assert verdict.vector.executables == value


def test_veraisons_short_policy_approves(evaluator: WorkerEvaluator) -> None:
    assert veraison(evaluator, "psa-short.rego", vector=UNKNOWN).vector.executables == 2


@pytest.mark.parametrize(
    ("challenge", "status"), [(b"n" * 64, "affirming"), (b"m" * 64, "contraindicated")]
)
def test_veraisons_cca_policy_compares_the_challenge(
    evaluator: WorkerEvaluator, challenge: bytes, status: str
) -> None:
    claims = {"cca-realm-challenge": challenge.hex()}
    about = {
        "scheme": "cca",
        "claims_set": ClaimsSet(
            label="cca-realm", component="realm", layer="hardware", claims=claims
        ),
        "evidence": {"cca-realm": claims},
        "nonce": b"n" * 64,
    }
    assert veraison(evaluator, "cca-verify-challenge.rego", **about).status.word == status


@pytest.mark.parametrize(
    "name",
    [
        "bad.rego",
        "empty.rego",
        "incorrect-rule-value.rego",
        "malformed.rego",
        "null.rego",
        "undefined.rego",
    ],
)
def test_what_veraison_refuses_contraindicates(evaluator: WorkerEvaluator, name: str) -> None:
    assert veraison(evaluator, name).status is TrustTier.CONTRAINDICATED
