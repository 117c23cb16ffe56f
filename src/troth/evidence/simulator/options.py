# SPDX-License-Identifier: Apache-2.0
"""What a simulated platform is like: its firmware, its state, and the form of its tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from troth.evidence.cca.evidence import RECORDS_TAG
from troth.evidence.cca.platform_claims import PLATFORM_PROFILES
from troth.evidence.cca.realm_claims import REALM_2_0_0
from troth.evidence.psa.claims import TFM

__all__ = ["CcaOptions", "PsaOptions", "SimulatedComponent", "default_component"]

SECURED = 0x3000


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedComponent:
    """One piece of firmware as the token lists it.

    Attributes:
        name: its measurement type, such as "BL" or "RMM"; "" leaves it out.
        version: "" leaves it out.
        digest: its measurement, 32, 48 or 64 octets.
        signer_id: hash of the key that signed it, 32, 48 or 64 octets.
        hash_algorithm: name of the hash; "" leaves it out.
    """

    name: str
    version: str
    digest: bytes
    signer_id: bytes
    hash_algorithm: str = "sha-256"


def default_component(
    name: str, version: str, *, signer: str = "firmware vendor"
) -> SimulatedComponent:
    """Return a component whose digest follows from name and version: the same in each run."""
    return SimulatedComponent(
        name=name,
        version=version,
        digest=hashlib.sha256(f"{name} {version}".encode()).digest(),
        signer_id=hashlib.sha256(signer.encode()).digest(),
    )


def _psa_components() -> tuple[SimulatedComponent, ...]:
    return (
        default_component("BL", "2.1.0"),
        default_component("PRoT", "2.1.0"),
        default_component("ARoT", "1.0.2"),
        default_component("App", "4.5.1", signer="device owner"),
    )


def _cca_components() -> tuple[SimulatedComponent, ...]:
    # Names as reference firmware gives them, in its order.
    loaded = ("RSE_BL1_2", "RSE_BL2", "RSE_S", "AP_BL1", "AP_BL2", "SCP_BL1", "SCP_BL2")
    running = ("AP_BL31", "RMM", "HW_CONFIG", "FW_CONFIG", "TB_FW_CONFIG", "SOC_FW_CONFIG")
    return tuple(default_component(name, "1.4.0") for name in loaded + running)


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaOptions:
    """A PSA device.

    Attributes:
        model: at most 8 ASCII characters; ends the implementation id, so that two models differ.
        components: the measured firmware; may be empty only for PSA_IOT_PROFILE_1.
        lifecycle: the claim's value; 0x3000 is "secured".
        profile: value of the profile claim.
        algorithm: "ES256", "ES384", "ES512", or for a symmetric key "HMAC 256/256" and so on.
        client_id: who asks; negative for the non-secure side, where an agent runs.
        certification_reference, verification_service_indicator: "" leaves them out.
    """

    model: str = "psa-1"
    components: tuple[SimulatedComponent, ...] = field(default_factory=_psa_components)
    lifecycle: int = SECURED
    profile: str = TFM.name
    algorithm: str = "ES256"
    client_id: int = -1
    certification_reference: str = ""
    verification_service_indicator: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaOptions:
    """A CCA platform with one realm on it.

    Attributes:
        model: at most 8 ASCII characters; ends the implementation id, so that two models differ.
        components: the platform's measured firmware.
        lifecycle: the claim's value; 0x3000 is "secured".
        config: the platform config claim.
        platform_profile: value of the platform's profile claim.
        realm_profile: value of the realm's profile claim; "" for the oldest form.
        wrapper_tag: 907 or 399.
        rim: the realm's initial measurement.
        rems: its four extensible measurements.
        personalization_value: zero-padded to 64 octets (RPV).
        private_memory: whether the realm has a memory encryption context of its own.
        rak_hash: hash that ties the RAK to the platform: "sha-256", "sha-384" or "sha-512".
        verification_service_indicator: "" leaves it out.
    """

    model: str = "cca-1"
    components: tuple[SimulatedComponent, ...] = field(default_factory=_cca_components)
    lifecycle: int = SECURED
    config: bytes = bytes.fromhex("cfcfcfcf")
    platform_profile: str = PLATFORM_PROFILES[0]
    realm_profile: str = REALM_2_0_0
    wrapper_tag: int = RECORDS_TAG
    rim: bytes = hashlib.sha256(b"realm image 1.0.0").digest()
    rems: tuple[bytes, bytes, bytes, bytes] = (bytes(32),) * 4
    personalization_value: bytes = b""
    private_memory: bool = True
    rak_hash: str = "sha-256"
    verification_service_indicator: str = ""
