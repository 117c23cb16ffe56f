# SPDX-License-Identifier: Apache-2.0
"""The Attestation Result: what the Verifier concluded, before anybody signs it.

Source: RFC 9334 section 8.4; draft-ietf-rats-ear-03; the tiers of docs/explanation/glossary.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from troth import __version__
from troth.evidence.evidence import NonceMatched, Unchecked
from troth.formats.ar4si import TrustTier, TrustworthinessVector, tier_of
from troth.formats.ear import Ear, EarSubmod, TrothClaims, VerifierId
from troth.verifier.finding import Finding

__all__ = [
    "AssuranceTier",
    "AttestationResult",
    "SubmodResult",
    "VerifierIdentity",
    "assurance_tier",
]


class AssuranceTier(Enum):
    """What kind of platform was shown, weakest first: a stronger one compares greater.

    The value is the word on every result.
    """

    REGISTERED = "registered"
    IDENTIFIED = "identified"
    MEASURED = "measured"
    CONFIDENTIAL = "confidential"

    @property
    def rank(self) -> int:
        """Return the position on the ladder, from 0."""
        return list(type(self)).index(self)

    def __lt__(self, other: AssuranceTier) -> bool:
        return self.rank < other.rank

    def __le__(self, other: AssuranceTier) -> bool:
        return self.rank <= other.rank

    def __gt__(self, other: AssuranceTier) -> bool:
        return self.rank > other.rank

    def __ge__(self, other: AssuranceTier) -> bool:
        return self.rank >= other.rank

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierIdentity:
    """Who appraised.

    Attributes:
        developer: who makes the Verifier's software, as a URI or name.
        build: which build of it.
        name: this very Verifier, as its operator calls it; becomes `iss`.
    """

    developer: str
    build: str
    name: str = ""

    @classmethod
    def of_this_build(cls, *, name: str = "") -> VerifierIdentity:
        """Return the identity of this very program, as its operator calls it."""
        return cls(developer="The Troth authors", build=f"troth {__version__}", name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmodResult:
    """The conclusion about one claims set.

    Attributes:
        label: EAR submodule label.
        component, layer: as in ClaimsSet.
        status: final, policy included.
        vector: final, policy included.
        findings: everything held against this claims set, notes included.
        claims: the claims themselves.
        policy_ids: the policies applied, in order.
        matched: ids of the Reference Values that matched.
        added_claims: what the policy adds to the result.
    """

    label: str
    component: str
    layer: str
    status: TrustTier
    vector: TrustworthinessVector
    findings: Sequence[Finding] = ()
    claims: Mapping[str, object] = field(default_factory=dict, repr=False)
    policy_ids: Sequence[str] = ()
    matched: Sequence[str] = ()
    added_claims: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """One appraisal's outcome. Only `status` AFFIRMING means yes; NONE is a no.

    Attributes:
        scheme: the scheme's one word.
        status: the least trusted of all submods'.
        submods: by label, outermost (platform) first.
        tier: what kind of platform was shown; says nothing about `status` being affirming.
        component, layer: of the innermost claims set, the one that carries the challenge.
        policy_id, policy_digest: which Appraisal Policy, and SHA-256 of its text (hex).
        reference_epoch: which set of Reference Values.
        freshness: what was established about it.
        nonce: what the requester gave for this result, or None.
        key: DER SubjectPublicKeyInfo that the challenge was shown to cover, or None.
        issued_at, expires_at: whole seconds, UTC; `expires_at` None for a result that never ends.
        verifier: who appraised.
        notes: findings about the result as a whole; none of them changes the status.
        insecure: reasons why this must not count in production.
        boot_session, instance_id, implementation_id, signer, signer_is_device: as in VerifiedEvidence.
        problem: why there was no appraisal, or "" where there was one.
    """

    scheme: str
    status: TrustTier
    submods: Mapping[str, SubmodResult]
    tier: AssuranceTier
    component: str
    layer: str
    policy_id: str
    policy_digest: str
    reference_epoch: str
    freshness: NonceMatched | Unchecked
    issued_at: datetime
    verifier: VerifierIdentity
    nonce: bytes | None = None
    key: bytes | None = None
    expires_at: datetime | None = None
    notes: Sequence[Finding] = ()
    insecure: Sequence[str] = ()
    boot_session: bytes = b""
    instance_id: bytes = b""
    implementation_id: bytes = b""
    signer: str = ""
    signer_is_device: bool = False
    problem: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every finding: of each submod, then the notes."""
        of_submods = (finding for submod in self.submods.values() for finding in submod.findings)
        return (*of_submods, *self.notes)

    def to_ear(self, *, annotate: bool = False) -> Ear:
        """Return the result as an EAR, ready to be signed.

        The key stands in the submod of the claims set that carries the challenge.

        Args:
            annotate: add the claims themselves, as Veraison's annotated evidence. They identify
                the device; leave them out where the result travels to peers.
        """
        innermost = list(self.submods)[-1]
        return Ear(
            submods={
                label: self._ear_submod(submod, innermost=label == innermost, annotate=annotate)
                for label, submod in self.submods.items()
            },
            issued_at=self.issued_at,
            verifier_id=VerifierId(self.verifier.developer, self.verifier.build),
            status=self.status,
            expires_at=self.expires_at,
            nonce=self.nonce,
            troth=TrothClaims(
                scheme=self.scheme,
                tier=self.tier.value,
                component=self.component,
                layer=self.layer,
                policy_digest=f"sha-256:{self.policy_digest}" if self.policy_digest else "",
                epoch=self.reference_epoch,
                insecure=self.insecure,
                boot_session=self.boot_session,
                findings=[finding.to_json() for finding in self.notes],
            ),
            extensions={"iss": self.verifier.name} if self.verifier.name else {},
        )

    def _ear_submod(self, submod: SubmodResult, *, innermost: bool, annotate: bool) -> EarSubmod:
        extensions: dict[str | int, object] = {}
        if annotate and submod.claims:
            extensions["ear_veraison_annotated_evidence"] = dict(submod.claims)
        added = dict(submod.added_claims)
        if self.problem:
            added["problem"] = self.problem
        if added:
            extensions["ear_veraison_policy_claims"] = added
        challenge = self.freshness.nonce if isinstance(self.freshness, NonceMatched) else None
        return EarSubmod(
            status=submod.status,
            vector=submod.vector,
            policy_ids=submod.policy_ids,
            nonce=challenge if innermost else None,
            key=self.key if innermost else None,
            troth=TrothClaims(
                component=submod.component,
                layer=submod.layer,
                findings=[finding.to_json() for finding in submod.findings],
            ),
            extensions=extensions,
        )


def assurance_tier(submods: Iterable[SubmodResult], *, best: AssuranceTier) -> AssuranceTier:
    """Return what kind of platform the final vectors show.

    =============== =================================================================
    identified      the instance is affirmed, by every claims set that speaks of it
    measured        + executables by every claims set; + hardware; configuration is
                    not warned about
    confidential    + runtime memory is opaque, and the scheme can show it (`best`)
    =============== =================================================================

    A contraindicated claims set leaves nothing but `registered`.

    Args:
        submods: all claims sets of one Evidence.
        best: the highest tier that the scheme can reach.
    """
    results = list(submods)
    if not results or any(each.status is TrustTier.CONTRAINDICATED for each in results):
        return AssuranceTier.REGISTERED
    vectors = [each.vector for each in results]
    reached = AssuranceTier.REGISTERED
    if _affirmed(each.instance_identity for each in vectors):
        reached = AssuranceTier.IDENTIFIED
        measured = (
            all(_is_affirming(each.executables) for each in vectors)
            and _affirmed(each.hardware for each in vectors)
            and all(tier_of(each.configuration or 0) <= TrustTier.AFFIRMING for each in vectors)
        )
        if measured:
            reached = AssuranceTier.MEASURED
            if _affirmed(each.runtime_opaque for each in vectors):
                reached = AssuranceTier.CONFIDENTIAL
    return min(reached, best, key=lambda tier: tier.rank)


def _affirmed(values: Iterable[int | None]) -> bool:
    """Say whether some affirm and none does otherwise; who makes no claim does not count."""
    made = [tier_of(value) for value in values if value is not None]
    spoken = [tier for tier in made if tier is not TrustTier.NONE]
    return bool(spoken) and all(tier is TrustTier.AFFIRMING for tier in spoken)


def _is_affirming(value: int | None) -> bool:
    return value is not None and tier_of(value) is TrustTier.AFFIRMING
