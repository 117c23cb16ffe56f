# SPDX-License-Identifier: Apache-2.0
"""CoRIM profiles: which URI is read by which rules, for which scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from troth.endorsement.profiles.cca import CCA_PLATFORM, CCA_PLATFORM_LEGACY, CCA_REALM
from troth.endorsement.profiles.generic import GenericProfile
from troth.endorsement.profiles.parsec_tpm import PARSEC_TPM
from troth.endorsement.profiles.profile import Profile
from troth.endorsement.profiles.psa import PSA, PSA_LEGACY
from troth.endorsement.profiles.sev_snp import SEV_SNP_2024, SEV_SNP_2025
from troth.errors import ConfigurationError
from troth.formats.corim.node import Node

__all__ = ["GENERIC_SCHEMES", "PROFILES", "generic_profile", "generic_uri", "profile_named"]

GENERIC_SCHEMES: Final = ("example", "nitro", "sev_snp", "sgx", "tdx", "tpm2")
"""Schemes that the generic rules may speak for. The Arm schemes are not among them: their
profiles demand to be named, and have rules that must not be evaded by leaving the name out."""


def generic_uri(scheme: str) -> str:
    """Return the profile URI that Troth writes for values of `scheme` under the generic rules."""
    return f"tag:troth.example,2026:{scheme}#1.0.0"


_KNOWN: tuple[Profile, ...] = (
    PSA,
    PSA_LEGACY,
    CCA_PLATFORM,
    CCA_PLATFORM_LEGACY,
    CCA_REALM,
    SEV_SNP_2024,
    SEV_SNP_2025,
    PARSEC_TPM,
    GenericProfile("https://enacttrust.com/veraison/1.0.0", "tpm2"),
    *(GenericProfile(generic_uri(scheme), scheme) for scheme in GENERIC_SCHEMES),
)

PROFILES: Final[Mapping[str, Profile]] = {profile.uri: profile for profile in _KNOWN}
"""The profiles that can be provisioned, by URI."""


def profile_named(uri: str, place: Node) -> Profile:
    """Return the rules of a profile.

    Raises:
        UnsupportedError: unknown; the whole CoRIM is rejected.
    """
    profile = PROFILES.get(uri)
    if profile is None:
        raise place.unsupported(
            f"the profile {uri!r} is not known, so the whole CoRIM is rejected",
            remedy=f"Known profiles: {', '.join(sorted(PROFILES))}.",
        )
    return profile


def generic_profile(scheme: str) -> GenericProfile:
    """Return the generic rules on behalf of `scheme`.

    Raises:
        ConfigurationError: not a scheme for which they may speak.
    """
    if scheme not in GENERIC_SCHEMES:
        raise ConfigurationError(
            source="scheme",
            value=scheme,
            accepted=f"one of {', '.join(GENERIC_SCHEMES)}; Arm schemes need their profile",
        )
    return GenericProfile("", scheme)
