# SPDX-License-Identifier: Apache-2.0
"""Refusals as Attestation Results, for interfaces that answer bad Evidence with one.

One table, error class to claim value (draft-ietf-rats-ar4si-06 section 2.3.3): 99 for what is not
authentic, 1 for what is not understood, -1 for what we could not find out. Only 99 is
contraindicated; the other two are "none", which denies as well and accuses nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    PeerError,
    TrothError,
    UnavailableError,
    UnsupportedError,
    VerificationError,
)
from troth.evidence.evidence import Unchecked
from troth.formats.ar4si import CLAIM_NAMES, TrustworthinessVector
from troth.formats.ar4si_values import (
    CRYPTO_VALIDATION_FAILED,
    UNEXPECTED_EVIDENCE,
    VERIFIER_MALFUNCTION,
)
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import (
    AssuranceTier,
    AttestationResult,
    SubmodResult,
    VerifierIdentity,
)

__all__ = ["CLAIM_VALUE_BY_ERROR", "claim_value", "failure_result"]

CLAIM_VALUE_BY_ERROR: Final[Mapping[type[TrothError], int]] = {
    VerificationError: CRYPTO_VALIDATION_FAILED,
    UnsupportedError: UNEXPECTED_EVIDENCE,
    # Evidence without a usable identity, or damaged: Veraison calls it a failed validation too.
    DecodeError: CRYPTO_VALIDATION_FAILED,
    PeerError: UNEXPECTED_EVIDENCE,
    ApiMisuseError: VERIFIER_MALFUNCTION,
    AuthorizationError: VERIFIER_MALFUNCTION,
    ConfigurationError: VERIFIER_MALFUNCTION,
    ConflictError: VERIFIER_MALFUNCTION,
    UnavailableError: VERIFIER_MALFUNCTION,
    TrothError: VERIFIER_MALFUNCTION,
}
"""Each error's value, or that of its nearest ancestor."""


def claim_value(error: TrothError) -> int:
    """Return the value that every claim gets after this error."""
    return next(
        CLAIM_VALUE_BY_ERROR[each] for each in type(error).__mro__ if each in CLAIM_VALUE_BY_ERROR
    )


def failure_result(
    error: TrothError,
    *,
    scheme: str,
    now: datetime,
    verifier: VerifierIdentity,
    policy: AppraisalPolicy,
    nonce: bytes | None = None,
    submod: str = "",
) -> AttestationResult:
    """Return the result of an appraisal that did not come about.

    It vouches for no key and never expires into anything: nobody gets an SVID by it.

    Args:
        error: why. Its message goes into the result: it names claims, never secrets.
        scheme: the scheme's one word, or "" where none was found.
        now: timezone-aware.
        verifier: who refuses.
        policy: that would have been applied.
        nonce: what the requester gave for the result.
        submod: label for the one submod; by default the scheme, or "evidence".
    """
    value = claim_value(error)
    vector = TrustworthinessVector.from_json(dict.fromkeys(CLAIM_NAMES, value))
    label = submod or scheme or "evidence"
    result = SubmodResult(
        label=label,
        component="",
        layer="",
        status=vector.worst,
        vector=vector,
        policy_ids=(policy.id,),
    )
    return AttestationResult(
        scheme=scheme,
        status=vector.worst,
        submods={label: result},
        tier=AssuranceTier.REGISTERED,
        component="",
        layer="",
        policy_id=policy.id,
        policy_digest=policy.digest,
        reference_epoch="",
        freshness=Unchecked("there was no appraisal"),
        nonce=nonce,
        issued_at=now.replace(microsecond=0),
        verifier=verifier,
        problem=str(error),
    )
