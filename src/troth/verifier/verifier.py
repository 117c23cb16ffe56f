# SPDX-License-Identifier: Apache-2.0
"""The Verifier: from octets of Evidence to an Attestation Result.

The order, whose numbers the code wears:

1. the scheme is found, by name, by media type, or by the first octets;
2. decode: form and limits;
3. verify: authenticity, parts that belong together, freshness;
4. appraise: claims against the Reference Values in force;
5. the Appraisal Policy;
6. status and tier from what is left standing.

Steps 1 to 3 refuse by raising. From 4 on every outcome is a value. Nothing here does I/O; where the
policy's evaluation runs, and for how long it may, is the evaluator's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol

from troth.endorsement.repository import EndorsementSnapshot
from troth.errors import ApiMisuseError, TrothError
from troth.evidence import registry
from troth.evidence.context import Collateral, CollateralSource, VerificationContext
from troth.evidence.evidence import NonceMatched, Scheme, Unchecked, VerifiedEvidence
from troth.formats.ear import Dialect, sign_ear
from troth.formats.signer import Signer
from troth.verifier.appraisers import APPRAISERS, AppraiserLoader
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.case import AppraisalCase
from troth.verifier.conclusion import Judgement, conclude
from troth.verifier.failure import failure_result
from troth.verifier.finding import Finding
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator, RegoEvaluator
from troth.verifier.result import (
    AssuranceTier,
    AttestationResult,
    VerifierIdentity,
)
from troth.verifier.verdict_cache import VerdictCache

__all__ = ["AUTO", "EndorsementSource", "Verifier", "signed"]

AUTO: Final = "auto"
"""Scheme name that asks for recognition by the first octets."""


class EndorsementSource(Protocol):
    """Where the Verifier gets trust anchors and Reference Values: one set for each appraisal."""

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return the set in force at `now`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One appraisal under way: authentic Evidence and what it is compared with."""

    scheme: Scheme[Any]
    verified: VerifiedEvidence[Any]
    snapshot: EndorsementSnapshot
    now: datetime


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """Appraises Evidence under one policy.

    Attributes:
        identity: who appraises; goes into every result.
        endorsements: trust anchors and Reference Values. An empty source refuses everything.
        policy: the Appraisal Policy.
        candidate: a policy that is evaluated beside it and decides nothing.
        mark_candidate: call a result insecure where the candidate concludes worse. For the
            policy that an operator does not enforce yet.
        evaluator: evaluates it. The default has no time limit: give one that has where Evidence
            comes from outside.
        lifetimes: how long a result of each tier lasts; a tier that is not there never gets an
            expiry, and such a result yields no SVID.
        cache: conclusions for equal claims, or None to appraise each time.
        allow_test_keys, allow_simulator: take Evidence that proves nothing. It stays labelled.
        collateral: documents of vendors that the operator has, used beside what comes along.
        vendors: vendors of hardware whose own published roots are believed, such as "amd".
        grace: how long after its next update a document of vendors still serves; results show it.
        schemes: the schemes to take.
        appraisers: an appraiser for each of them.
    """

    identity: VerifierIdentity
    endorsements: EndorsementSource
    policy: AppraisalPolicy = field(default_factory=AppraisalPolicy.default)
    candidate: AppraisalPolicy | None = None
    mark_candidate: bool = False
    evaluator: RegoEvaluator = field(default_factory=DirectEvaluator)
    lifetimes: Mapping[AssuranceTier, timedelta] = field(default_factory=dict)
    cache: VerdictCache | None = None
    allow_test_keys: bool = False
    allow_simulator: bool = False
    collateral: CollateralSource = field(default_factory=Collateral)
    vendors: frozenset[str] = frozenset()
    grace: timedelta = timedelta(0)
    schemes: Mapping[str, registry.Loader] = field(default_factory=lambda: registry.SCHEMES)
    appraisers: Mapping[str, AppraiserLoader] = field(default_factory=lambda: APPRAISERS)

    def appraise(
        self,
        evidence: bytes,
        *,
        now: datetime,
        challenge: bytes | Unchecked,
        scheme: str = AUTO,
        media_type: str = "",
        nonce: bytes | None = None,
        key: bytes | None = None,
        collateral: Collateral | None = None,
        received: datetime | None = None,
        observe: Callable[[Judgement], None] | None = None,
    ) -> AttestationResult:
        """Return what this Evidence is worth.

        Args:
            evidence: as received.
            now: timezone-aware; the one clock reading of this appraisal.
            challenge: what the Evidence must carry, or why that is not checked.
            scheme: the scheme's one word, or AUTO.
            media_type: that the Evidence came under; decides the scheme where it is AUTO.
            nonce: what the requester gave for the result; by default the challenge.
            key: DER SubjectPublicKeyInfo that the challenge was derived from
                (`derive_challenge`). The result vouches for it, so that it must not be given
                where the challenge is not checked or says nothing about a key.
            collateral: documents of vendors that were fetched for this Evidence.
            received: when the Evidence came, if that is not `now`: certificates of hardware may
                last for hours only, and are judged at this time.
            observe: is given what the policies were asked and what they concluded.

        Raises:
            DecodeError, UnsupportedError, LimitExceededError: not Evidence that we take.
            VerificationError: not authentic, not whole, or not fresh.
            UnavailableError: a vendor's document is missing; nothing follows about the Attester.
            ConfigurationError: no scheme is called so.
            ApiMisuseError: `now` has no zone, or a key without a checked challenge.
        """
        if now.tzinfo is None or (received is not None and received.tzinfo is None):
            raise ApiMisuseError("a clock reading without a zone")
        if key is not None and isinstance(challenge, Unchecked):
            raise ApiMisuseError("a result must not vouch for a key whose challenge is unchecked")
        found = self._scheme(evidence, scheme, media_type)  # (1)
        decoded = found.decode(evidence, media_type=media_type)  # (2)
        snapshot = self.endorsements.snapshot(now)
        verified = found.verify(  # (3)
            decoded,
            trust_anchors=snapshot,
            freshness=challenge,
            allow_test_keys=self.allow_test_keys,
            allow_simulator=self.allow_simulator,
            context=self._context(received or now, collateral),
        )
        run = _Run(scheme=found, verified=verified, snapshot=snapshot, now=now)
        judgement = self._judge(run)  # (4), (5), (6)
        if observe is not None:
            observe(judgement)
        return self._result(run, judgement, nonce=nonce, key=key)

    def failure(
        self, error: TrothError, *, scheme: str, now: datetime, nonce: bytes | None = None
    ) -> AttestationResult:
        """Return the result of an appraisal that did not come about; see `failure_result`."""
        return failure_result(
            error, scheme=scheme, now=now, verifier=self.identity, policy=self.policy, nonce=nonce
        )

    def _context(self, now: datetime, fetched: Collateral | None) -> VerificationContext:
        collateral = self.collateral.current()
        if fetched is not None:
            collateral = collateral.with_documents(fetched.documents)
        return VerificationContext(
            now=now, collateral=collateral, vendors=self.vendors, grace=self.grace
        )

    def _scheme(self, evidence: bytes, name: str, media_type: str) -> Scheme[Any]:
        if name == AUTO and media_type:
            name = registry.by_media_type(media_type, schemes=self.schemes)
        elif name == AUTO:
            name = registry.detect(evidence, schemes=self.schemes)
        return registry.scheme(name, schemes=self.schemes)

    def _judge(self, run: _Run) -> Judgement:
        candidate = self.candidate
        repeatable = candidate is None or candidate.repeatable
        if self.cache is None or not self.policy.repeatable or not repeatable:
            return self._judged(run)
        key = self.cache.key(
            run.verified,
            scheme=run.scheme.name,
            policy=self.policy,
            candidate=candidate,
            epoch=run.snapshot.epoch,
        )
        kept = self.cache.get(key)
        if kept is not None:
            return kept.again(
                run.verified.claims_sets, freshness=run.verified.freshness, now=run.now
            )
        fresh = self._judged(run)
        if fresh.repeatable:
            self.cache.put(key, fresh)
        return fresh

    def _judged(self, run: _Run) -> Judgement:
        loader = self.appraisers.get(run.scheme.name)
        if loader is None:
            raise ApiMisuseError(f"no appraiser for scheme {run.scheme.name!r}")
        appraisals = loader()(run.verified, References(run.snapshot, run.now))
        cases = [_case(run, appraisal) for appraisal in appraisals]
        best = AssuranceTier(run.scheme.tier)
        return Judgement(
            cases=cases,
            best=best,
            conclusion=conclude(cases, self.policy, self.evaluator, best=best),
            candidate=None
            if self.candidate is None
            else conclude(cases, self.candidate, self.evaluator, best=best),
        )

    def _insecure(self, run: _Run, judgement: Judgement) -> tuple[str, ...]:
        candidate = judgement.candidate
        if not self.mark_candidate or candidate is None:
            return tuple(run.verified.insecure)
        if not candidate.is_worse_than(judgement.conclusion):
            return tuple(run.verified.insecure)
        label = (
            f"policy {candidate.policy_id} is not enforced (mode audit); it concludes "
            f"{candidate.status.word}, tier {candidate.tier}"
        )
        return (*run.verified.insecure, label)

    def _result(
        self,
        run: _Run,
        judgement: Judgement,
        *,
        nonce: bytes | None,
        key: bytes | None,
    ) -> AttestationResult:
        verified, conclusion = run.verified, judgement.conclusion
        innermost = conclusion.submods[-1]
        insecure = self._insecure(run, judgement)
        issued = run.now.replace(microsecond=0)
        lifetime = self.lifetimes.get(conclusion.tier)
        if nonce is None and isinstance(verified.freshness, NonceMatched):
            nonce = verified.freshness.nonce
        return AttestationResult(
            scheme=run.scheme.name,
            status=conclusion.status,
            submods={submod.label: submod for submod in conclusion.submods},
            tier=conclusion.tier,
            component=innermost.component,
            layer=innermost.layer,
            policy_id=conclusion.policy_id,
            policy_digest=conclusion.policy_digest,
            reference_epoch=run.snapshot.epoch,
            freshness=verified.freshness,
            nonce=nonce,
            key=key,
            issued_at=issued,
            expires_at=issued + lifetime if lifetime is not None else None,
            verifier=self.identity,
            notes=_notes(verified, insecure),
            insecure=insecure,
            boot_session=verified.boot_session,
            instance_id=verified.instance_id,
            implementation_id=verified.implementation_id,
            signer=verified.signer,
            signer_is_device=verified.signer_is_device,
        )


def signed(
    result: AttestationResult,
    signer: Signer,
    *,
    dialect: Dialect = Dialect.IETF_03,
    wire: Literal["jwt", "cwt"] = "jwt",
    annotate: bool = False,
) -> bytes:
    """Return the result as an EAR, signed: a JWT in ASCII, or a CWT.

    Args:
        result: any result; signing says who concluded it, not that it is good.
        signer: the Verifier's key.
        dialect: how it is spelled.
        wire: JSON or CBOR.
        annotate: add the claims themselves (`AttestationResult.to_ear`).
    """
    return sign_ear(result.to_ear(annotate=annotate), signer, dialect, wire=wire)


def _case(run: _Run, appraisal: Appraisal) -> AppraisalCase:
    verified = run.verified
    return AppraisalCase(
        scheme=run.scheme.name,
        claims_set=appraisal.claims_set,
        evidence={each.label: each.claims for each in verified.claims_sets},
        vector=appraisal.vector,
        findings=appraisal.findings,
        matched=appraisal.matched,
        freshness=verified.freshness,
        insecure=verified.insecure,
        implementation_id=verified.implementation_id,
        instance_id=verified.instance_id,
        signer=verified.signer,
        boot_session=verified.boot_session,
        reference_epoch=run.snapshot.epoch,
        now=run.now,
    )


def _notes(verified: VerifiedEvidence[Any], insecure: Sequence[str]) -> tuple[Finding, ...]:
    notes: list[Finding] = []
    if isinstance(verified.freshness, Unchecked):
        notes.append(
            Finding(
                claim="freshness",
                expected="the challenge of this request",
                actual=f"freshness not checked: {verified.freshness.why}",
                rule="RFC 9334 section 10",
                remedy="Give the nonce that this Evidence was asked for with; without it, it may "
                "be any age.",
                severity="note",
            )
        )
    notes += (
        Finding(
            claim="insecure",
            expected="Evidence that counts in production",
            actual=reason,
            rule="allowed explicitly on this Verifier",
            remedy="Use this for tests only.",
            severity="note",
        )
        for reason in insecure
    )
    return tuple(notes)
