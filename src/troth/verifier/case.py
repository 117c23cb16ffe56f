# SPDX-License-Identifier: Apache-2.0
"""What an appraiser concluded about one claims set, on its way to the Appraisal Policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from troth.evidence.evidence import ClaimsSet, NonceMatched, Unchecked
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.verifier.finding import Finding

__all__ = ["AppraisalCase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisalCase:
    """One claims set, the conclusion so far, and all that a policy may want to know besides.

    Attributes:
        scheme: the scheme's one word.
        claims_set: what is being appraised.
        evidence: the claims of every claims set of this Evidence, by label, this one included.
        vector: the appraiser's conclusion.
        findings: what led to it.
        matched: ids of the Reference Values that matched.
        freshness: what `verify()` established.
        insecure: reasons why the Evidence must not count in production.
        implementation_id, instance_id, signer, boot_session: as in VerifiedEvidence.
        reference_epoch: of the Reference Values in force.
        now: the one clock reading of this appraisal.
    """

    scheme: str
    claims_set: ClaimsSet
    evidence: Mapping[str, Mapping[str, object]]
    vector: TrustworthinessVector
    findings: Sequence[Finding]
    matched: Sequence[str]
    freshness: NonceMatched | Unchecked
    insecure: Sequence[str]
    implementation_id: bytes
    instance_id: bytes
    signer: str
    boot_session: bytes
    reference_epoch: str
    now: datetime

    @property
    def status(self) -> TrustTier:
        """The tier that follows from the vector."""
        return self.vector.worst
