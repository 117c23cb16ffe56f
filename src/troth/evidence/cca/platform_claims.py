# SPDX-License-Identifier: Apache-2.0
"""The claims of a CCA platform token, signed by the CCA Platform Attestation Key (CPAK).

Source: Arm RMM Specification (DEN0137) section A7.2.3.2; draft-ffm-rats-cca-token section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from troth.errors import UnsupportedError
from troth.evidence.claim_reader import DIGEST_SIZES, ClaimReader
from troth.evidence.lifecycle import Lifecycle
from troth.evidence.software_component import SoftwareComponent, decode_software_components
from troth.formats.quoting import shown

__all__ = ["PLATFORM_PROFILES", "PlatformClaims", "decode_platform_claims"]

_FORMAT = "CCA platform claims"

PLATFORM_PROFILES = ("tag:arm.com,2023:cca_platform#1.0.0", "http://arm.com/CCA-SSD/1.0.0")
"""Values of the profile claim that Troth knows; the first is the one to write."""

_NONCE, _INSTANCE_ID, _PROFILE = 10, 256, 265
_LIFECYCLE, _IMPLEMENTATION_ID = 2395, 2396
_SOFTWARE_COMPONENTS, _VERIFICATION_SERVICE, _CONFIG, _HASH_ALGORITHM = 2399, 2400, 2401, 2402
_KNOWN = frozenset(
    {
        _NONCE,
        _INSTANCE_ID,
        _PROFILE,
        _LIFECYCLE,
        _IMPLEMENTATION_ID,
        _SOFTWARE_COMPONENTS,
        _VERIFICATION_SERVICE,
        _CONFIG,
        _HASH_ALGORITHM,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformClaims:
    """What the CCA platform says of itself. Not to be believed before `verify()`.

    Attributes:
        profile: one of PLATFORM_PROFILES.
        nonce: hash of the realm public key claim: it binds the realm token to this one. It is
            not the caller's challenge.
        instance_id: UEID that identifies the CPAK, 33 octets.
        implementation_id: identifies the platform's implementation, 32 octets.
        lifecycle: state of the platform.
        lifecycle_value: the claim's value, whose lower octet belongs to the implementation.
        config: implementation-defined properties, such as how memory is protected.
        software_components: the firmware and its configuration.
        hash_algorithm: what the measurements are made with where a component does not say.
        verification_service_indicator: where the platform thinks its Verifier is, else "".
        unrecognised: claims that Troth does not know, key as text, fit for JSON.
    """

    profile: str
    nonce: bytes
    instance_id: bytes
    implementation_id: bytes
    lifecycle: Lifecycle
    lifecycle_value: int
    config: bytes
    software_components: tuple[SoftwareComponent, ...]
    hash_algorithm: str
    verification_service_indicator: str = ""
    unrecognised: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the claims as JSON, Rego and people see them (docs/reference/schemes/cca.md)."""
        claims: dict[str, object] = {
            "profile": self.profile,
            "nonce": self.nonce.hex(),
            "instance-id": self.instance_id.hex(),
            "implementation-id": self.implementation_id.hex(),
            "security-lifecycle": self.lifecycle.value,
            "security-lifecycle-value": self.lifecycle_value,
            "cca-platform-config": self.config.hex(),
            "software-components": [each.to_json() for each in self.software_components],
            "cca-platform-hash-algo-id": self.hash_algorithm,
        }
        if self.verification_service_indicator:
            claims["verification-service-indicator"] = self.verification_service_indicator
        if self.unrecognised:
            claims["unrecognised"] = self.unrecognised
        return claims


def decode_platform_claims(claims: object) -> PlatformClaims:
    """Check every claim of a decoded platform claims map.

    Raises:
        DecodeError: a claim is missing, or has another type, size or form; the error names it.
        UnsupportedError: a profile that Troth does not know.
        LimitExceededError: too many software components.
    """
    reader = ClaimReader(claims, format=_FORMAT)
    profile = reader.text(_PROFILE, "profile")
    if profile not in PLATFORM_PROFILES:
        raise UnsupportedError(
            f"claim {_PROFILE} (profile) is {shown(profile)}; known are {', '.join(PLATFORM_PROFILES)}",
            format=_FORMAT,
        )
    lifecycle_value = reader.integer(_LIFECYCLE, "security-lifecycle")
    lifecycle = Lifecycle.from_claim(lifecycle_value)
    if lifecycle is None:
        raise reader.error(
            _LIFECYCLE,
            "security-lifecycle",
            f"is {lifecycle_value:#06x}; expected a state of DEN0137 A7.2.3.2.7, 0x00.. to 0x60..",
        )
    return PlatformClaims(
        profile=profile,
        nonce=reader.octets(_NONCE, "nonce", DIGEST_SIZES),
        instance_id=reader.ueid(_INSTANCE_ID, "instance-id"),
        implementation_id=reader.octets(_IMPLEMENTATION_ID, "implementation-id", (32,)),
        lifecycle=lifecycle,
        lifecycle_value=lifecycle_value,
        config=reader.octets(_CONFIG, "cca-platform-config", None),
        software_components=decode_software_components(
            reader.array(_SOFTWARE_COMPONENTS, "software-components"), format=_FORMAT
        ),
        hash_algorithm=reader.text(_HASH_ALGORITHM, "cca-platform-hash-algo-id"),
        verification_service_indicator=reader.text(
            _VERIFICATION_SERVICE, "verification-service-indicator", required=False
        ),
        unrecognised=reader.others(_KNOWN),
    )
