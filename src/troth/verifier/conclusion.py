# SPDX-License-Identifier: Apache-2.0
"""What a policy makes of the cases of one Evidence: the step that a replay does again.

An appraisal, the audit of a candidate policy beside it, and a replay of recorded appraisals all
conclude by this one function, so that what a replay foretells is what enforcement does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from troth.evidence.evidence import ClaimsSet, NonceMatched, Unchecked
from troth.formats.ar4si import TrustTier
from troth.verifier.case import AppraisalCase
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import RegoEvaluator
from troth.verifier.result import AssuranceTier, SubmodResult, assurance_tier

__all__ = ["Conclusion", "Judgement", "conclude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What one policy concluded about one Evidence.

    Attributes:
        policy_id, policy_digest: which policy, and SHA-256 of its text (hex).
        submods: of each claims set.
        tier: of all of them together.
        status: of all of them together.
        failed: the policy gave no verdict on some claims set; another time it may.
    """

    policy_id: str
    policy_digest: str
    submods: Sequence[SubmodResult]
    tier: AssuranceTier
    status: TrustTier
    failed: bool = False

    def is_worse_than(self, other: Conclusion) -> bool:
        """Say whether this asserts less trust than `other`: by its status, or by its tier."""
        return other.status.is_better_than(self.status) or self.tier < other.tier

    def about(self, claims_sets: Sequence[ClaimsSet]) -> Conclusion:
        """Return the same conclusion about claims that differ in nothing but nonces."""
        return replace(
            self,
            submods=[
                replace(submod, claims=each.claims)
                for submod, each in zip(self.submods, claims_sets, strict=True)
            ],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Everything that was concluded from one piece of authentic Evidence.

    Attributes:
        cases: what the policies were asked, one for each claims set.
        best: the highest tier that the scheme can reach.
        conclusion: of the policy that is enforced.
        candidate: of the policy that is only audited, or None where there is none.
    """

    cases: Sequence[AppraisalCase]
    best: AssuranceTier
    conclusion: Conclusion
    candidate: Conclusion | None = None

    @property
    def repeatable(self) -> bool:
        """Say whether the same would come out another time."""
        return not self.conclusion.failed and not (self.candidate and self.candidate.failed)

    def again(
        self,
        claims_sets: Sequence[ClaimsSet],
        *,
        freshness: NonceMatched | Unchecked,
        now: datetime,
    ) -> Judgement:
        """Return the same judgement of claims that differ in nothing but nonces, at `now`."""
        evidence = {each.label: each.claims for each in claims_sets}
        return replace(
            self,
            cases=[
                replace(case, claims_set=each, evidence=evidence, freshness=freshness, now=now)
                for case, each in zip(self.cases, claims_sets, strict=True)
            ],
            conclusion=self.conclusion.about(claims_sets),
            candidate=self.candidate and self.candidate.about(claims_sets),
        )


def conclude(
    cases: Sequence[AppraisalCase],
    policy: AppraisalPolicy,
    evaluator: RegoEvaluator,
    *,
    best: AssuranceTier,
) -> Conclusion:
    """Return what `policy` makes of these claims sets. Never raises for what the policy does.

    Args:
        cases: all claims sets of one Evidence, outermost first.
        policy: decides.
        evaluator: evaluates it.
        best: the highest tier that the scheme can reach.
    """
    submods: list[SubmodResult] = []
    failed = False
    for case in cases:
        verdict = policy.apply(case, evaluator)
        failed = failed or verdict.failed
        submods.append(
            SubmodResult(
                label=case.claims_set.label,
                component=case.claims_set.component,
                layer=case.claims_set.layer,
                status=verdict.status,
                vector=verdict.vector,
                findings=verdict.findings,
                claims=case.claims_set.claims,
                policy_ids=(policy.id,),
                matched=case.matched,
                added_claims=verdict.added_claims,
            )
        )
    return Conclusion(
        policy_id=policy.id,
        policy_digest=policy.digest,
        submods=submods,
        tier=assurance_tier(submods, best=best),
        status=TrustTier.least_trusted(submod.status for submod in submods),
        failed=failed,
    )
