# SPDX-License-Identifier: Apache-2.0
"""Parsec TPM endorsements: one measurement for each PCR, its index as the measurement key.

Source: the published example of the profile; there is no specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.endorsement.profiles.generic import read_environment, read_keys
from troth.endorsement.profiles.profile import Drafts, checked_digests, only_members
from troth.endorsement.reference_value import ReferenceValue
from troth.formats.corim.node import Node
from troth.formats.corim.triples import KeyTriple, MeasurementTriple

__all__ = ["PARSEC_TPM", "ParsecTpmProfile"]

_PCRS: Final = range(24)


@dataclass(frozen=True, slots=True)
class ParsecTpmProfile:
    """Rules of the Parsec TPM profile."""

    uri: str = "tag:github.com/parallaxsecond,2023-03-03:tpm"
    scheme: str = "tpm2"

    def read_reference(self, triple: MeasurementTriple, place: Node, drafts: Drafts) -> None:
        """Take the PCRs of one triple as one value: together they are one state."""
        environment = read_environment(triple.environment, place)
        if not environment.class_id:
            raise place.child("environment", None).child("class", None).error("class-id is missing")
        registers: dict[int | str, dict[str, bytes]] = {}
        for index, measurement in enumerate(triple.measurements):
            at = place.child("measurements", None).element(index, None)
            key = measurement.key
            if not isinstance(key, int) or key not in _PCRS:
                raise at.child("mkey", None).error(f"{key!r}; expected a PCR index, 0 to 23")
            if key in registers:
                raise at.child("mkey", None).error(f"PCR {key} for the second time")
            only_members(measurement.values, frozenset({"digests"}), at.child("mval", None))
            digests_at = at.child("mval", None).child("digests", None)
            registers[key] = checked_digests(measurement.values.digests, digests_at)
        drafts.add(
            ReferenceValue(
                id="",
                scheme=drafts.scheme,
                environment=environment,
                state=drafts.state,
                registers=registers,
                source=drafts.source,
            )
        )

    def read_attest_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:
        """Take attestation keys."""
        read_keys(triple, place, drafts)


PARSEC_TPM: Final = ParsecTpmProfile()
