# SPDX-License-Identifier: Apache-2.0
"""From another Verifier's EAR to a result of ours.

The other Verifier compared the challenge that we gave it with the Evidence, and the challenge
commits to the key of the request (`derive_challenge`); its EAR says nothing about that key. So our
result may name the key where the other's could not. It says who appraised, and adds nothing else
to what the EAR says: statuses and values are the EAR's, the claims are those of the Evidence that
was submitted.

Values that mean "not appraised" come back as what they stand for: 99 as a refusal, 1 as Evidence
that was not understood, -1 as a Verifier that could not tell (the table of
`troth.verifier.failure`, backwards).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from troth.errors import (
    TrothError,
    UnavailableError,
    UnsupportedError,
    VerificationError,
)
from troth.evidence.claimed import Claimed
from troth.evidence.evidence import ClaimsSet, NonceMatched, Scheme
from troth.formats.ar4si import TrustTier, TrustworthinessVector, tier_of
from troth.formats.ar4si_values import (
    CRYPTO_VALIDATION_FAILED,
    UNEXPECTED_EVIDENCE,
    VERIFIER_MALFUNCTION,
)
from troth.formats.ear import Ear, EarSubmod
from troth.verifier.finding import Finding
from troth.verifier.result import (
    AssuranceTier,
    AttestationResult,
    SubmodResult,
    VerifierIdentity,
    assurance_tier,
)
from troth.verifier.veraison import annotated_evidence, troth_label

__all__ = ["Answered", "remote_result"]

_PROBLEM: Final = "problem"
_ANNOTATED: Final = "ear_veraison_annotated_evidence"
_IDENTIFYING: Final = frozenset(
    {
        "psa-instance-id",
        "psa-nonce",
        "cca-platform-instance-id",
        "cca-platform-challenge",
        "cca-realm-challenge",
    }
)
_POLICY_CLAIMS: Final = "ear_veraison_policy_claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One piece of Evidence, and what another Verifier said about it.

    Attributes:
        scheme: of the Evidence.
        claimed: what the Evidence says.
        challenge: that it was asked with; the Evidence carries it.
        ear: verified: signed by the other Verifier, and about this submission.
        source: the other Verifier, for messages.
    """

    scheme: Scheme[Any]
    claimed: Claimed
    challenge: bytes
    ear: Ear
    source: str


def remote_result(
    answered: Answered,
    *,
    now: datetime,
    verifier: VerifierIdentity,
    lifetimes: Mapping[AssuranceTier, timedelta],
    lifetime_without_exp: timedelta | None,
    nonce: bytes | None,
    key: bytes | None,
    insecure: Sequence[str] = (),
) -> AttestationResult:
    """Return our result, which vouches for `key`.

    Args:
        answered: what was asked and answered.
        now: timezone-aware.
        verifier: who signs: we.
        lifetimes: how long a result of each tier lasts at most.
        lifetime_without_exp: how long one lasts whose EAR never ends; None: it never ends either,
            and yields no SVID.
        nonce: what the requester gave for the result; by default the challenge.
        key: DER SubjectPublicKeyInfo that the challenge was derived from, or None.
        insecure: reasons of our own why the Evidence must not count.

    Raises:
        VerificationError: the other Verifier did not find the Evidence authentic.
        UnsupportedError: it did not understand the Evidence.
        UnavailableError: it could not tell, or its result is about other Evidence.
    """
    _refuse_what_was_not_appraised(answered)
    _check_identity(answered)
    ear = answered.ear
    submods = _submods(answered)
    tier = assurance_tier(submods.values(), best=AssuranceTier(answered.scheme.tier))
    issued = min(ear.issued_at, now.replace(microsecond=0))
    innermost = answered.claimed.claims_sets[-1]
    return AttestationResult(
        scheme=answered.scheme.name,
        status=ear.overall_status,
        submods=submods,
        tier=tier,
        component=innermost.component,
        layer=innermost.layer,
        policy_id="+".join(sorted({each for s in submods.values() for each in s.policy_ids})),
        policy_digest=ear.troth.policy_digest.removeprefix("sha-256:"),
        reference_epoch=ear.troth.epoch or f"of {answered.source}",
        freshness=NonceMatched(answered.challenge),
        nonce=answered.challenge if nonce is None else nonce,
        key=key,
        issued_at=issued,
        expires_at=_expiry(ear, issued, lifetimes.get(tier), lifetime_without_exp),
        verifier=verifier,
        notes=(_appraised_by(answered),),
        insecure=tuple(dict.fromkeys((*insecure, *ear.insecure))),
        boot_session=answered.claimed.boot_session,
        instance_id=answered.claimed.instance_id,
        implementation_id=answered.claimed.implementation_id,
    )


def _expiry(
    ear: Ear, issued: datetime, lifetime: timedelta | None, without_exp: timedelta | None
) -> datetime | None:
    own = issued + lifetime if lifetime is not None else None
    if ear.expires_at is None:
        if without_exp is None or own is None:
            return None
        return min(own, issued + without_exp)
    return ear.expires_at if own is None else min(own, ear.expires_at)


def _submods(answered: Answered) -> dict[str, SubmodResult]:
    """Return a submod for each claims set, and for what else the EAR speaks of.

    Some Verifiers give one verdict about a composite ("cpu0"); it is then the verdict about each
    of its parts.
    """
    theirs = {troth_label(label): submod for label, submod in answered.ear.submods.items()}
    found: dict[str, SubmodResult] = {}
    covered: set[str] = set()
    for claims_set in answered.claimed.claims_sets:
        label = claims_set.label
        if label not in theirs and len(theirs) != 1:
            raise UnavailableError(
                f"{answered.source} says nothing about {label}, which the Evidence has"
            )
        source = label if label in theirs else next(iter(theirs))
        covered.add(source)
        found[label] = _submod(answered, claims_set, theirs[source])
    for label, submod in theirs.items():
        if label not in covered:
            claims_set = ClaimsSet(label=label, component="", layer="", claims={})
            # Outermost first: what the Evidence itself does not name stands before it.
            found = {label: _submod(answered, claims_set, submod), **found}
    return found


def _submod(answered: Answered, claims_set: ClaimsSet, theirs: EarSubmod) -> SubmodResult:
    vector = theirs.vector or TrustworthinessVector()
    return SubmodResult(
        label=claims_set.label,
        component=claims_set.component,
        layer=claims_set.layer,
        status=theirs.status,
        vector=vector,
        findings=_findings(answered, claims_set.label, theirs, vector),
        claims=claims_set.claims,
        policy_ids=tuple(theirs.policy_ids) or (f"of {answered.source}",),
    )


def _findings(
    answered: Answered, label: str, theirs: EarSubmod, vector: TrustworthinessVector
) -> tuple[Finding, ...]:
    if theirs.troth.findings:
        members = {"claim", "expected", "actual", "rule", "remedy", "severity"}
        return tuple(
            Finding(
                **{name: text for name, text in each.items() if name in members},
                submod=label,
            )
            for each in theirs.troth.findings
            if members - {"severity"} <= each.keys()
        )
    return tuple(
        Finding(
            claim=str(name),
            expected="a value that affirms",
            actual=f"{value} ({tier.word})",
            rule=f"appraised by {answered.source}",
            remedy="Look at that Verifier's policy and Reference Values.",
            submod=label,
            severity=tier.word,
        )
        for name, value in vector.items()
        if (tier := tier_of(value)) in {TrustTier.WARNING, TrustTier.CONTRAINDICATED}
    )


def _refuse_what_was_not_appraised(answered: Answered) -> None:
    values = {
        value
        for submod in answered.ear.submods.values()
        for _, value in (submod.vector or TrustworthinessVector()).items()
    }
    problem = next(
        (
            str(claims[_PROBLEM])
            for submod in answered.ear.submods.values()
            if isinstance(claims := submod.extensions.get(_POLICY_CLAIMS), Mapping)
            and _PROBLEM in claims
        ),
        "",
    )
    said = f"{answered.source}: {problem or 'it does not say why'}"
    if CRYPTO_VALIDATION_FAILED in values:
        raise VerificationError(f"the Evidence is not authentic to {said}")
    for value, error in _NOT_APPRAISED.items():
        if value in values and values <= {value, 0}:
            raise error(said)


def _check_identity(answered: Answered) -> None:
    """Refuse a result whose annotated claims are of another device or challenge.

    The channel and the nonce say so already; what is there to compare is compared.
    """
    for label, submod in answered.ear.submods.items():
        theirs = submod.extensions.get(_ANNOTATED)
        ours = {each.label: each.claims for each in answered.claimed.claims_sets}
        claims = ours.get(troth_label(label))
        if not isinstance(theirs, Mapping) or claims is None:
            continue
        annotated = annotated_evidence(troth_label(label), claims)
        for name in _IDENTIFYING & annotated.keys() & theirs.keys():
            if theirs[name] != annotated[name]:
                raise UnavailableError(
                    f"{answered.source}: {name} in the result is not that of the Evidence"
                )


def _unavailable(message: str) -> TrothError:
    return UnavailableError(f"it could not be told by {message}")


def _unsupported(message: str) -> TrothError:
    return UnsupportedError(f"not understood by {message}", format="Evidence")


_NOT_APPRAISED: Final = {
    VERIFIER_MALFUNCTION: _unavailable,
    UNEXPECTED_EVIDENCE: _unsupported,
}


def _appraised_by(answered: Answered) -> Finding:
    identity = answered.ear.verifier_id
    return Finding(
        claim="verifier",
        expected="an appraisal by this server, or by the one that it is told to ask",
        actual=f"appraised by {answered.source} ({identity.developer}, {identity.build})",
        rule="verifier.remote",
        remedy="Nothing: this says who appraised.",
        severity="note",
    )
