# SPDX-License-Identifier: Apache-2.0
"""What an appraiser takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from troth.endorsement.reference_value import ReferenceValue, ReferenceValueSource
from troth.evidence.evidence import ClaimsSet, VerifiedEvidence
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.finding import Finding

__all__ = ["Appraisal", "Appraiser", "References"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """What the comparison of one claims set with its Reference Values gave.

    Attributes:
        claims_set: what was appraised.
        vector: the conclusion.
        findings: every mismatch and omission behind it.
        matched: ids of the Reference Values that matched.
    """

    claims_set: ClaimsSet
    vector: TrustworthinessVector
    findings: Sequence[Finding] = ()
    matched: Sequence[str] = ()


class Appraiser(Protocol):
    """A scheme's `appraise` function.

    Its answer depends on nothing but the claims in the claims sets (nonces aside), the identities
    in `VerifiedEvidence`, and the references: conclusions are kept under these (`VerdictCache`).
    """

    def __call__(
        self, verified: VerifiedEvidence[Any], references: References
    ) -> Sequence[Appraisal]:
        """Compare every claims set with its Reference Values, reporting all that differs."""
        ...


class References:
    """The Reference Values in force at one moment; one appraisal makes one of these."""

    def __init__(self, source: ReferenceValueSource, now: datetime) -> None:
        self._source = source
        self._now = now

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> tuple[list[ReferenceValue], list[ReferenceValue]]:
        """Return the values in force for this environment, and those that are not yet or no more.

        A source should hand out only what is in force; values that carry a validity are checked.
        """
        in_force: list[ReferenceValue] = []
        others: list[ReferenceValue] = []
        for value in self._source.find(scheme, class_id=class_id, instance_id=instance_id):
            begun = value.not_before is None or value.not_before <= self._now
            ended = value.not_after is not None and value.not_after < self._now
            (in_force if begun and not ended else others).append(value)
        return in_force, others
