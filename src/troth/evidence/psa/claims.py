# SPDX-License-Identifier: Apache-2.0
"""The claims of a PSA attestation token, in the three profiles that are in the field.

=====================================  ============  ========================  =================
claim                                  psa#tfm       http://arm.com/psa/2.0.0  PSA_IOT_PROFILE_1
=====================================  ============  ========================  =================
nonce                                  10            10                        -75008
instance-id                            256           256                       -75009
profile                                265           265                       -75000
client-id                              2394          2394                      -75001
security-lifecycle                     2395          2395                      -75002
implementation-id                      2396          2396                      -75003
boot-seed                              268, may be   268 or 2397, may be       -75004, must be
certification-reference, may be        2398          2398                      -75005
software-components                    2399          2399                      -75006 or -75007
verification-service-indicator, may be 2400          2400                      -75010
=====================================  ============  ========================  =================

Source: RFC 9783 sections 4 and 4.6 (the old profile), and the tokens of reference firmware.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from troth.errors import DecodeError, UnsupportedError
from troth.evidence.claim_reader import DIGEST_SIZES, ClaimReader
from troth.evidence.lifecycle import Lifecycle
from troth.evidence.software_component import SoftwareComponent, decode_software_components
from troth.formats.eat import eat_media_type
from troth.formats.quoting import shown

__all__ = ["PROFILES", "PsaClaims", "PsaProfile", "decode_claims"]

_FORMAT = "PSA claims"
_CCA_REMEDY = (
    "This is a CCA platform token. Alone it is no Evidence: ask inside a realm for the whole token."
)
_EAN_13 = re.compile(r"[0-9]{13}")
_EAN_13_5 = re.compile(r"[0-9]{13}-[0-9]{5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaProfile:
    """Where one profile keeps its claims, and what it asks of them.

    Attributes:
        name: value of the profile claim.
        media_type_profile: `eat_profile` of the media type that tokens of this profile travel
            under.
        boot_seeds: keys that may hold the boot seed; a token uses one of them at most.
        boot_seed_sizes: octets that a boot seed may have.
        boot_seed_required: whether it must be there.
        no_software_measurements: key of the claim that excuses a missing list, or None.
        certification_reference_form: what the certification reference must match.
        known: all of these keys.
        media_type: the media type with `media_type_profile`.
    """

    name: str
    media_type_profile: str
    nonce: int
    instance_id: int
    profile: int
    client_id: int
    security_lifecycle: int
    implementation_id: int
    boot_seeds: tuple[int, ...]
    boot_seed_sizes: Collection[int]
    boot_seed_required: bool
    certification_reference: int
    certification_reference_form: re.Pattern[str]
    software_components: int
    no_software_measurements: int | None
    verification_service_indicator: int
    known: frozenset[int] = field(init=False)
    media_type: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "media_type", eat_media_type(self.media_type_profile))
        keys = {
            self.nonce,
            self.instance_id,
            self.profile,
            self.client_id,
            self.security_lifecycle,
            self.implementation_id,
            *self.boot_seeds,
            self.certification_reference,
            self.software_components,
            self.verification_service_indicator,
        }
        if self.no_software_measurements is not None:
            keys.add(self.no_software_measurements)
        object.__setattr__(self, "known", frozenset(keys))


TFM = PsaProfile(
    name="tag:psacertified.org,2023:psa#tfm",
    media_type_profile="tag:psacertified.org,2023:psa#tfm",
    nonce=10,
    instance_id=256,
    profile=265,
    client_id=2394,
    security_lifecycle=2395,
    implementation_id=2396,
    boot_seeds=(268,),
    boot_seed_sizes=range(8, 33),
    boot_seed_required=False,
    certification_reference=2398,
    certification_reference_form=_EAN_13_5,
    software_components=2399,
    no_software_measurements=None,
    verification_service_indicator=2400,
)

# The draft that RFC 9783 grew out of. Tokens put the boot seed in 2397 before EAT had a key for it.
PSA_2_0_0 = replace(
    TFM,
    name="http://arm.com/psa/2.0.0",
    media_type_profile="http://arm.com/psa/2.0.0",
    boot_seeds=(268, 2397),
)

PSA_IOT_1 = PsaProfile(
    name="PSA_IOT_PROFILE_1",
    media_type_profile="tag:psacertified.org,2019:psa#legacy",
    nonce=-75008,
    instance_id=-75009,
    profile=-75000,
    client_id=-75001,
    security_lifecycle=-75002,
    implementation_id=-75003,
    boot_seeds=(-75004,),
    boot_seed_sizes=(32,),
    boot_seed_required=True,
    certification_reference=-75005,
    certification_reference_form=_EAN_13,
    software_components=-75006,
    no_software_measurements=-75007,
    verification_service_indicator=-75010,
)

PROFILES: Mapping[str, PsaProfile] = {
    profile.name: profile for profile in (TFM, PSA_2_0_0, PSA_IOT_1)
}
"""The profiles by the value of their profile claim; the first is the one to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaClaims:
    """The claims of one token. None of them is to be believed before `verify()`.

    Attributes:
        profile: the profile's name.
        nonce: the challenge, 32, 48 or 64 octets.
        instance_id: UEID that identifies the Initial Attestation Key, 33 octets.
        implementation_id: identifies the immutable PSA root of trust, 32 octets.
        client_id: who asked for the token: below 0 the non-secure side, above 0 the secure side.
        lifecycle: state of the PSA root of trust.
        lifecycle_value: the claim's value, whose lower octet belongs to the implementation.
        software_components: what was measured; empty only with `no_software_measurements`.
        no_software_measurements: the token says that nothing was measured (old profile only).
        boot_seed: differs from one boot to the next; b"" where not said.
        certification_reference: entry in the PSA Certified list; "" where not said.
        verification_service_indicator: where the device thinks its Verifier is; "" where not
            said. Attacker-controlled until verified, and never a reason to contact anybody.
        unrecognised: claims that Troth does not know, key as text, fit for JSON.
    """

    profile: str
    nonce: bytes
    instance_id: bytes
    implementation_id: bytes
    client_id: int
    lifecycle: Lifecycle
    lifecycle_value: int
    software_components: tuple[SoftwareComponent, ...]
    no_software_measurements: bool = False
    boot_seed: bytes = b""
    certification_reference: str = ""
    verification_service_indicator: str = ""
    unrecognised: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the claims as JSON, Rego and people see them (docs/reference/schemes/psa.md)."""
        claims: dict[str, object] = {
            "profile": self.profile,
            "nonce": self.nonce.hex(),
            "instance-id": self.instance_id.hex(),
            "implementation-id": self.implementation_id.hex(),
            "client-id": self.client_id,
            "security-lifecycle": self.lifecycle.value,
            "security-lifecycle-value": self.lifecycle_value,
            "software-components": [each.to_json() for each in self.software_components],
        }
        if self.no_software_measurements:
            claims["no-software-measurements"] = True
        if self.boot_seed:
            claims["boot-seed"] = self.boot_seed.hex()
        if self.certification_reference:
            claims["certification-reference"] = self.certification_reference
        if self.verification_service_indicator:
            claims["verification-service-indicator"] = self.verification_service_indicator
        if self.unrecognised:
            claims["unrecognised"] = self.unrecognised
        return claims


def decode_claims(claims: object) -> PsaClaims:
    """Check every claim of a decoded claims map against its profile.

    Says nothing about who made the claims, nor whether they are good ones.

    Raises:
        DecodeError: a claim is missing, or has another type, size or form; the error names it.
        UnsupportedError: a profile that Troth does not know.
        LimitExceededError: too many software components.
    """
    reader = ClaimReader(claims, format=_FORMAT)
    profile = _profile(reader)
    lifecycle_value = reader.integer(profile.security_lifecycle, "security-lifecycle")
    components, no_measurements = _software(reader, profile)
    return PsaClaims(
        profile=profile.name,
        nonce=reader.octets(profile.nonce, "nonce", DIGEST_SIZES),
        instance_id=reader.ueid(profile.instance_id, "instance-id"),
        implementation_id=reader.octets(profile.implementation_id, "implementation-id", (32,)),
        client_id=_client_id(reader, profile),
        lifecycle=_lifecycle(reader, profile, lifecycle_value),
        lifecycle_value=lifecycle_value,
        software_components=components,
        no_software_measurements=no_measurements,
        boot_seed=_boot_seed(reader, profile),
        certification_reference=_certification_reference(reader, profile),
        verification_service_indicator=reader.text(
            profile.verification_service_indicator,
            "verification-service-indicator",
            required=False,
        ),
        unrecognised=reader.others(profile.known),
    )


def _profile(reader: ClaimReader) -> PsaProfile:
    current, old = reader.has(TFM.profile), reader.has(PSA_IOT_1.profile)
    if current and old:
        raise DecodeError(
            f"two profile claims, {TFM.profile} and {PSA_IOT_1.profile}", format=_FORMAT
        )
    key = PSA_IOT_1.profile if old else TFM.profile
    name = reader.text(key, "profile")
    profile = PROFILES.get(name)
    if profile is None or profile.profile != key:
        raise UnsupportedError(
            f"claim {key} (profile) is {shown(name)}; known are {', '.join(PROFILES)}",
            format=_FORMAT,
            remedy=_CCA_REMEDY if "cca" in name.lower() else "",
        )
    return profile


def _lifecycle(reader: ClaimReader, profile: PsaProfile, value: int) -> Lifecycle:
    lifecycle = Lifecycle.from_claim(value)
    if lifecycle is None:
        raise reader.error(
            profile.security_lifecycle,
            "security-lifecycle",
            f"is {value:#06x}; expected a state of RFC 9783 section 4.3.1, 0x00.. to 0x60..",
        )
    return lifecycle


def _client_id(reader: ClaimReader, profile: PsaProfile) -> int:
    value = reader.integer(profile.client_id, "client-id")
    # "The value 0 is not permitted" (RFC 9783 section 4.1.2); the CDDL bounds it to 32 bits.
    if value == 0 or not -(2**31) <= value < 2**31:
        raise reader.error(
            profile.client_id, "client-id", f"is {value}; expected 32 bits, not zero"
        )
    return value


def _boot_seed(reader: ClaimReader, profile: PsaProfile) -> bytes:
    present = [key for key in profile.boot_seeds if reader.has(key)]
    if len(present) > 1:
        raise reader.error(present[1], "boot-seed", f"is there beside claim {present[0]}")
    key = present[0] if present else profile.boot_seeds[0]
    return reader.octets(
        key, "boot-seed", profile.boot_seed_sizes, required=profile.boot_seed_required
    )


def _certification_reference(reader: ClaimReader, profile: PsaProfile) -> str:
    key = profile.certification_reference
    if not reader.has(key):
        return ""
    value = reader.text(key, "certification-reference")
    if profile.certification_reference_form.fullmatch(value) is None:
        raise reader.error(
            key,
            "certification-reference",
            f"is {shown(value)}; expected {profile.certification_reference_form.pattern}",
        )
    return value


def _software(
    reader: ClaimReader, profile: PsaProfile
) -> tuple[tuple[SoftwareComponent, ...], bool]:
    excuse = profile.no_software_measurements
    if excuse is None or not reader.has(excuse):
        entries = reader.array(profile.software_components, "software-components")
        return decode_software_components(entries, format=_FORMAT), False
    if reader.has(profile.software_components):
        raise reader.error(
            excuse, "no-software-measurements", "is there beside software components"
        )
    if reader.integer(excuse, "no-software-measurements") != 1:
        raise reader.error(excuse, "no-software-measurements", "is not 1")
    return (), True
