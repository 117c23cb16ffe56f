# SPDX-License-Identifier: Apache-2.0
"""The software components claim (2399) that PSA and CCA platform tokens share.

Source: RFC 9783 section 4.4.1; Arm RMM Specification (DEN0137) section A7.2.3.2.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from troth.errors import DecodeError, LimitExceededError
from troth.evidence.claim_reader import DIGEST_SIZES, ClaimReader

__all__ = ["MAX_SOFTWARE_COMPONENTS", "SoftwareComponent", "decode_software_components"]

MAX_SOFTWARE_COMPONENTS = 64
"""Components that one token may list; reference firmware lists 13."""

_TYPE, _VALUE, _VERSION, _SIGNER_ID, _DESCRIPTION = 1, 2, 4, 5, 6
_KNOWN = frozenset({_TYPE, _VALUE, _VERSION, _SIGNER_ID, _DESCRIPTION})


@dataclass(frozen=True, slots=True)
class SoftwareComponent:
    """One measured piece of software or configuration.

    Attributes:
        measurement_value: the hash, 32, 48 or 64 octets.
        signer_id: hash of the key that signed it, 32, 48 or 64 octets.
        measurement_type: its role, such as "BL", "PRoT" or "RMM"; "" where not said.
        version: as its manifest says; "" where not said.
        measurement_desc: name of the hash algorithm, such as "sha-256"; "" where not said.
        unrecognised: attributes that Troth does not know, key as text, fit for JSON.
    """

    measurement_value: bytes
    signer_id: bytes
    measurement_type: str = ""
    version: str = ""
    measurement_desc: str = ""
    unrecognised: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the attributes under their names in RFC 9783; absent ones are left out."""
        attributes: dict[str, object] = {
            "measurement-value": self.measurement_value.hex(),
            "signer-id": self.signer_id.hex(),
        }
        if self.measurement_type:
            attributes["measurement-type"] = self.measurement_type
        if self.version:
            attributes["version"] = self.version
        if self.measurement_desc:
            attributes["measurement-desc"] = self.measurement_desc
        if self.unrecognised:
            attributes["unrecognised"] = self.unrecognised
        return attributes


def decode_software_components(
    entries: list[object],
    *,
    format: str,
) -> tuple[SoftwareComponent, ...]:
    """Decode the claim's array, one or more components.

    Raises:
        DecodeError: an attribute is missing or has another type or size; the error names the
            component by its place.
        LimitExceededError: more than MAX_SOFTWARE_COMPONENTS.
    """
    if not entries:
        raise DecodeError("claim 2399 (software components) is an empty array", format=format)
    if len(entries) > MAX_SOFTWARE_COMPONENTS:
        raise LimitExceededError(
            format=format, limit="MAX_SOFTWARE_COMPONENTS", value=MAX_SOFTWARE_COMPONENTS
        )
    return tuple(_component(entry, index, format) for index, entry in enumerate(entries))


def _component(entry: object, index: int, format_: str) -> SoftwareComponent:
    # The usual component is settled here, at a third of the cost: a token has a dozen of them.
    # Whatever is unusual goes the long way, which names what is wrong.
    if type(entry) is dict and entry.keys() <= _KNOWN:
        value, signer = entry.get(_VALUE), entry.get(_SIGNER_ID)
        type_, version = entry.get(_TYPE, ""), entry.get(_VERSION, "")
        description = entry.get(_DESCRIPTION, "")
        if (
            type(value) is type(signer) is bytes
            and len(value) in DIGEST_SIZES
            and len(signer) in DIGEST_SIZES
            and type(type_) is type(version) is type(description) is str
        ):
            return SoftwareComponent(value, signer, type_, version, description)
    reader = ClaimReader(entry, format=f"{format_}, software component {index}")
    return SoftwareComponent(
        measurement_value=reader.octets(_VALUE, "measurement-value", DIGEST_SIZES),
        signer_id=reader.octets(_SIGNER_ID, "signer-id", DIGEST_SIZES),
        measurement_type=reader.text(_TYPE, "measurement-type", required=False),
        version=reader.text(_VERSION, "version", required=False),
        measurement_desc=reader.text(_DESCRIPTION, "measurement-desc", required=False),
        unrecognised=reader.others(_KNOWN),
    )
