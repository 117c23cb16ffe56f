# SPDX-License-Identifier: Apache-2.0
"""PSA endorsements.

Source: draft-fdb-rats-psa-endorsements (77206ee).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.endorsement.profiles.arm import ArmPlatform
from troth.endorsement.profiles.profile import Drafts
from troth.formats.corim import tags
from troth.formats.corim.node import Node
from troth.formats.corim.triples import KeyTriple, MeasurementTriple

__all__ = ["PSA", "PSA_LEGACY", "PSA_URI", "PsaProfile"]

PSA_URI: Final = "tag:arm.com,2025:psa#1.0.0"
COMPONENT: Final = "psa.software-component"


@dataclass(frozen=True, slots=True)
class PsaProfile:
    """Rules of the PSA profile."""

    uri: str
    _rules: ArmPlatform
    scheme: str = "psa"

    def read_reference(self, triple: MeasurementTriple, place: Node, drafts: Drafts) -> None:
        """Take software components, and nothing else."""
        environment = self._rules.environment(triple.environment, place, instance=False)
        for index, measurement in enumerate(triple.measurements):
            at = place.child("measurements", None).element(index, None)
            if not self._rules.is_component(measurement):
                raise at.child("mkey", None).error(f"{measurement.key!r}; expected {COMPONENT!r}")
            self._rules.component(measurement, environment, at, drafts)

    def read_attest_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:
        """Take the Initial Attestation Key of one instance."""
        self._rules.attestation_key(triple, place, drafts)


PSA: Final = PsaProfile(PSA_URI, ArmPlatform("psa", COMPONENT))

PSA_LEGACY: Final = PsaProfile(
    "http://arm.com/psa/iot/1",
    ArmPlatform(
        "psa",
        COMPONENT,
        class_tags=frozenset({tags.BYTES, tags.LEGACY_IMPLEMENTATION_ID}),
        legacy_component_tag=tags.LEGACY_SOFTWARE_COMPONENT,
    ),
)
"""The profile before 2025: tag 600 class ids, and components described in their key (tag 601)."""
