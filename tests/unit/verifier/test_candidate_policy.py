# SPDX-License-Identifier: Apache-2.0
"""A policy beside the enforced one: it decides nothing, and what it says is told."""

from __future__ import annotations

from typing import Any

import pytest

from support.appraisal import NOW, corims_of, verifier_of
from support.evidence import simulate
from troth.evidence.simulator import CcaOptions
from troth.formats.ar4si import TrustTier
from troth.verifier.conclusion import Judgement
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator, Evaluation
from troth.verifier.result import AssuranceTier, AttestationResult
from troth.verifier.verdict_cache import VerdictCache

PSA = simulate()
CCA = simulate(CcaOptions())
HEAD = "package troth.appraisal\nimport rego.v1\n"
STRICT = AppraisalPolicy.from_text(HEAD + 'status := "contraindicated"\n', name="strict.rego")
LOOSE = AppraisalPolicy.from_text(
    HEAD + 'vector := {"executables": 2, "hardware": 2}\n', name="loose.rego"
)
WEAKER = AppraisalPolicy.from_text(
    HEAD + 'vector := {"runtime-opaque": 32}\nstatus := "warning"\n', name="weaker.rego"
)
CHALLENGE = b"c" * 64


def appraise(platform: Any = PSA, **verifier: Any) -> tuple[AttestationResult, Judgement]:
    seen: list[Judgement] = []
    result = verifier_of(*corims_of(platform), **verifier).appraise(
        platform.attest(CHALLENGE), now=NOW, challenge=CHALLENGE, observe=seen.append
    )
    (judgement,) = seen
    return result, judgement


@pytest.mark.parametrize("candidate", [STRICT, LOOSE])
@pytest.mark.parametrize("policy", [STRICT, AppraisalPolicy.default()])
def test_a_candidate_decides_nothing(policy: AppraisalPolicy, candidate: AppraisalPolicy) -> None:
    alone, _ = appraise(policy=policy)
    beside, judgement = appraise(policy=policy, candidate=candidate)
    assert beside == alone
    assert judgement.candidate is not None
    assert judgement.candidate.policy_digest == candidate.digest


def test_what_the_candidate_concludes_is_told() -> None:
    result, judgement = appraise(CCA, candidate=STRICT)
    assert result.status is TrustTier.AFFIRMING
    candidate = judgement.candidate
    assert candidate is not None
    assert candidate.status is TrustTier.CONTRAINDICATED
    assert candidate.is_worse_than(judgement.conclusion)
    assert not judgement.conclusion.is_worse_than(candidate)
    assert [case.claims_set.label for case in judgement.cases] == ["cca-platform", "cca-realm"]


def test_a_result_is_marked_only_where_the_candidate_concludes_worse() -> None:
    for candidate, marked in ((STRICT, True), (WEAKER, True), (AppraisalPolicy.default(), False)):
        result, _ = appraise(candidate=candidate, mark_candidate=True)
        assert result.status is TrustTier.AFFIRMING
        assert any("is not enforced (mode audit)" in reason for reason in result.insecure) is marked
        assert any("mode audit" in note.actual for note in result.notes) is marked
        ear = result.to_ear()
        assert any("mode audit" in reason for reason in ear.insecure) is marked


def test_a_candidate_that_concludes_better_makes_nothing_better() -> None:
    changed = PSA.with_measurement(0, b"\xee" * 32)
    seen: list[Judgement] = []
    result = verifier_of(*corims_of(PSA), candidate=LOOSE, mark_candidate=True).appraise(
        changed.attest(CHALLENGE), now=NOW, challenge=CHALLENGE, observe=seen.append
    )
    assert result.status is TrustTier.WARNING
    assert result.tier is AssuranceTier.IDENTIFIED
    assert result.insecure == ("platform simulator",)
    assert seen[0].candidate is not None
    assert seen[0].candidate.status is TrustTier.AFFIRMING


def test_both_conclusions_are_kept_and_told_with_the_new_nonce() -> None:
    cache = VerdictCache()
    verifier = verifier_of(*corims_of(CCA), cache=cache, candidate=STRICT)
    seen: list[Judgement] = []
    for octet in b"ab":
        challenge = bytes([octet]) * 64
        verifier.appraise(CCA.attest(challenge), now=NOW, challenge=challenge, observe=seen.append)
    assert (cache.misses, cache.hits) == (1, 1)
    first, second = seen
    assert second.candidate is not None
    assert second.candidate.status is TrustTier.CONTRAINDICATED
    realm = second.cases[-1]
    assert realm.claims_set.claims["cca-realm-challenge"] == "62" * 64
    assert realm.evidence["cca-realm"] == realm.claims_set.claims
    assert second.candidate.submods[-1].claims == realm.claims_set.claims
    assert first.cases[-1].claims_set.claims["cca-realm-challenge"] == "61" * 64


def test_a_kept_judgement_of_another_candidate_is_not_taken() -> None:
    cache = VerdictCache()
    for candidate in (STRICT, LOOSE, None):
        appraise(cache=cache, candidate=candidate)
    assert (cache.misses, cache.hits) == (3, 0)


def test_a_candidate_that_fails_takes_nothing_along_and_is_not_kept() -> None:
    class Failing(DirectEvaluator):
        def evaluate(self, program: Any, document: Any) -> Evaluation:
            if program is STRICT.program:
                return Evaluation(failure="took longer than 1 s")
            return super().evaluate(program, document)

    cache = VerdictCache()
    result, judgement = appraise(cache=cache, candidate=STRICT, evaluator=Failing())
    assert result.status is TrustTier.AFFIRMING
    assert judgement.candidate is not None
    assert judgement.candidate.failed
    assert len(cache) == 0
