# SPDX-License-Identifier: Apache-2.0
"""Appraisal of PSA attestation tokens.

================= ============================================= =====================================
claim             value                                         when
================= ============================================= =====================================
hardware          2                                             always: the token is authentic
instance-identity 2, else 96                                    lifecycle secured
runtime-opaque    2, else 96                                    lifecycle secured
storage-opaque    2, else 96                                    lifecycle secured
executables       2                                             the software components are those of
                                                                one reference state, no more, no fewer
                  33                                            otherwise, also without values
================= ============================================= =====================================

Nothing is concluded from the client id, the certification reference, the boot seed or the
verification service indicator; a policy may.

Source: RFC 9783 section 6 and its mapping to AR4SI; draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.lifecycle import Lifecycle
from troth.evidence.psa.evidence import PsaEvidence
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.lifecycle import (
    GENUINE_AND_SECURED,
    NOT_SECURED,
    lifecycle_finding,
)
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.appraisers.software_components import (
    APPROVED,
    UNRECOGNISED,
    SoftwareAppraisal,
    by_state,
    compare_components,
    component_findings,
    measured_components,
    nearest_state,
)
from troth.verifier.finding import Finding

__all__ = ["appraise"]

COMPONENT_KEY: Final = "psa.software-component"


def appraise(
    verified: VerifiedEvidence[PsaEvidence], references: References
) -> Sequence[Appraisal]:
    """Appraise the one claims set of a PSA token."""
    claims = verified.evidence.claims
    (claims_set,) = verified.claims_sets
    label = claims_set.label
    findings: list[Finding] = []
    state = lifecycle_finding(
        claims.lifecycle, claims.lifecycle_value, rule="RFC 9783 section 4.3.1", submod=label
    )
    if state is not None:
        findings.append(state)
    vector = GENUINE_AND_SECURED if claims.lifecycle is Lifecycle.SECURED else NOT_SECURED
    software = _appraise_software(verified, references, label)
    findings += software.findings
    return (
        Appraisal(
            claims_set=claims_set,
            vector=replace(vector, executables=software.executables),
            findings=tuple(findings),
            matched=tuple(software.matched),
        ),
    )


def _appraise_software(
    verified: VerifiedEvidence[PsaEvidence], references: References, label: str
) -> SoftwareAppraisal:
    in_force, lapsed = references.find(
        "psa", class_id=verified.implementation_id, instance_id=verified.instance_id
    )
    values = [value for value in in_force if value.key == COMPONENT_KEY]
    if not values:
        missing = no_reference_values(
            COMPONENT_KEY,
            claim="software-components",
            environment=f"implementation id {verified.implementation_id.hex()}",
            lapsed=lapsed,
            submod=label,
        )
        return SoftwareAppraisal(UNRECOGNISED, findings=(missing,))
    measured = measured_components(verified.evidence.claims.software_components, key=COMPONENT_KEY)
    nearest = nearest_state(
        [compare_components(measured, state, own) for state, own in by_state(values).items()]
    )
    return SoftwareAppraisal(
        UNRECOGNISED if nearest.problems else APPROVED,
        findings=tuple(component_findings(nearest, measured, values, submod=label)),
        matched=nearest.matched,
    )
