# SPDX-License-Identifier: Apache-2.0
"""Step 4 of a scheme: its appraiser (docs/howto/add-a-scheme.md). It is in no registry.

Say in a table what each claim can become and when; nothing else may affirm. Without Reference
Values nothing is affirmed: `no_reference_values` makes the finding that says so.

================= ====== =============================================================
hardware          2      always: the Evidence is authentic
instance-identity 2      always: the key is registered for this serial number
executables       2      the firmware is described by a Reference Value
                  33     otherwise
================= ====== =============================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from troth.endorsement.matching import Measured, closest
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.example.evidence import ExampleEvidence
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.finding import Finding

__all__ = ["appraise"]

FIRMWARE_KEY: Final = "example.firmware"

_APPROVED, _UNRECOGNISED = 2, 33


def appraise(
    verified: VerifiedEvidence[ExampleEvidence], references: References
) -> Sequence[Appraisal]:
    """Compare the firmware with its Reference Values."""
    (claims_set,) = verified.claims_sets
    in_force, lapsed = references.find(
        "example", class_id=verified.implementation_id, instance_id=verified.instance_id
    )
    measured = Measured(key=FIRMWARE_KEY, digests={"sha-256": verified.evidence.claims.firmware})
    nearest = closest(in_force, measured)
    findings: list[Finding] = []
    matched: list[str] = []
    if nearest is None:
        findings.append(
            no_reference_values(
                FIRMWARE_KEY,
                claim="firmware",
                environment=f"serial {verified.evidence.claims.serial!r}",
                lapsed=lapsed,
                submod=claims_set.label,
            )
        )
    else:
        value, mismatches = nearest
        matched += [] if mismatches else [value.id]
        findings += (
            Finding(
                claim="firmware",
                expected=mismatch.expected,
                actual=f"{mismatch.actual}: {mismatch.why}",
                rule=f"Reference Value {value.id}",
                remedy="Install a described release, or provision its Reference Value.",
                submod=claims_set.label,
                severity="warning",
            )
            for mismatch in mismatches
        )
    vector = TrustworthinessVector(
        hardware=2, instance_identity=2, executables=_UNRECOGNISED if findings else _APPROVED
    )
    return (
        Appraisal(
            claims_set=claims_set, vector=vector, findings=tuple(findings), matched=tuple(matched)
        ),
    )
