# SPDX-License-Identifier: Apache-2.0
"""The registry of standard trustworthiness claim values: tag, short and long description.

One table serves policies (tags), messages (short) and documentation (long). Tags are those that
Rego policies written for Veraison use; the words are ours.

Source: draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from troth.formats.ar4si import TrustTier, tier_of

__all__ = [
    "CLAIM_VALUES",
    "COMMON_VALUES",
    "CRYPTO_VALIDATION_FAILED",
    "NO_CLAIM",
    "UNEXPECTED_EVIDENCE",
    "VERIFIER_MALFUNCTION",
    "ClaimValue",
    "describe",
    "value_of_tag",
]

VERIFIER_MALFUNCTION: Final = -1
NO_CLAIM: Final = 0
UNEXPECTED_EVIDENCE: Final = 1
CRYPTO_VALIDATION_FAILED: Final = 99


@dataclass(frozen=True, slots=True)
class ClaimValue:
    """One value that one claim may take.

    Attributes:
        value: the number on the wire.
        tag: the name for it in policies.
        short: a phrase for lists and messages.
        long: a sentence for people who have to act on it.
    """

    value: int
    tag: str
    short: str
    long: str

    @property
    def tier(self) -> TrustTier:
        """The tier that the value lies in."""
        return tier_of(self.value)


def _values(*values: ClaimValue) -> Mapping[int, ClaimValue]:
    return MappingProxyType({value.value: value for value in values})


COMMON_VALUES: Final = _values(
    ClaimValue(
        VERIFIER_MALFUNCTION,
        "verifier_malfunction",
        "the Verifier failed",
        "Something went wrong inside the Verifier; nothing follows about the Attester.",
    ),
    ClaimValue(
        NO_CLAIM,
        "no_claim",
        "no claim",
        "The Evidence was not enough for a conclusion; the same as leaving the claim out.",
    ),
    ClaimValue(
        UNEXPECTED_EVIDENCE,
        "unexpected_evidence",
        "Evidence not understood",
        "The Evidence holds parts that this Verifier cannot evaluate, or is of the wrong kind.",
    ),
    ClaimValue(
        CRYPTO_VALIDATION_FAILED,
        "crypto_failed",
        "cryptographic validation failed",
        "A signature, MAC or certificate path in the Evidence does not hold.",
    ),
)
"""Values that mean the same in every claim."""

CLAIM_VALUES: Final[Mapping[str, Mapping[int, ClaimValue]]] = MappingProxyType(
    {
        "instance-identity": _values(
            ClaimValue(
                2,
                "recognized_instance",
                "known instance",
                "This very Attester is known, and nothing is known against it.",
            ),
            ClaimValue(
                96,
                "untrustworthy_instance",
                "known, not trustworthy",
                "This very Attester is known, and its key marks a device not to be trusted.",
            ),
            ClaimValue(
                97,
                "unrecognized_instance",
                "unknown instance",
                "This Attester is not known, although the Verifier should know it.",
            ),
        ),
        "configuration": _values(
            ClaimValue(
                2,
                "approved_config",
                "approved configuration",
                "The configuration is one that was approved.",
            ),
            ClaimValue(
                3,
                "safe_config",
                "no known vulnerability",
                "The configuration opens no vulnerability that is known.",
            ),
            ClaimValue(
                32,
                "unsafe_config",
                "known vulnerability",
                "The configuration opens a known vulnerability.",
            ),
            ClaimValue(
                36,
                "unavail_config_elems",
                "configuration partly unseen",
                "Parts of the configuration that matter for security were not shown.",
            ),
            ClaimValue(
                96,
                "unsupportable_config",
                "unacceptable configuration",
                "The configuration opens a vulnerability that cannot be accepted.",
            ),
        ),
        "executables": _values(
            ClaimValue(
                2,
                "approved_rt",
                "approved at boot and run time",
                "Only approved code was loaded, during boot and after it.",
            ),
            ClaimValue(
                3,
                "approved_boot",
                "approved at boot",
                "Only approved code was loaded during boot; nothing is said about later.",
            ),
            ClaimValue(
                32,
                "unsafe_rt",
                "genuine, with known bugs",
                "Only genuine code was loaded, but some of it has known bugs.",
            ),
            ClaimValue(
                33,
                "unrecognized_rt",
                "unknown code",
                "Code was loaded that no Reference Value describes.",
            ),
            ClaimValue(
                96,
                "contraindicated_rt",
                "forbidden code",
                "Code was loaded that must not run.",
            ),
        ),
        "file-system": _values(
            ClaimValue(
                2,
                "approved_fs",
                "approved files",
                "Only approved files were found in the places looked at.",
            ),
            ClaimValue(
                32,
                "unrecognized_fs",
                "unknown files",
                "Files were found that no Reference Value describes.",
            ),
            ClaimValue(
                96,
                "contraindicated_fs",
                "forbidden files",
                "Files were found that must not be there.",
            ),
        ),
        "hardware": _values(
            ClaimValue(
                2,
                "genuine_hw",
                "genuine hardware",
                "Hardware and firmware are genuine and supported.",
            ),
            ClaimValue(
                32,
                "unsafe_hw",
                "genuine, with known vulnerabilities",
                "Hardware and firmware are genuine, but have known vulnerabilities.",
            ),
            ClaimValue(
                96,
                "contraindicated_hw",
                "known, not trustworthy",
                "Hardware or firmware is known, and is not to be trusted.",
            ),
            ClaimValue(
                97,
                "unrecognized_hw",
                "unknown hardware",
                "Hardware or firmware is not known, although the Verifier should know it.",
            ),
        ),
        "runtime-opaque": _values(
            ClaimValue(
                2,
                "encrypted_rt",
                "encrypted memory",
                "The Attester runs in encrypted memory, closed to host and hypervisor.",
            ),
            ClaimValue(
                32,
                "isolated_rt",
                "isolated memory",
                "The Attester is isolated from other guests, but the host's operator can see in.",
            ),
            ClaimValue(
                96,
                "visible_rt",
                "visible memory",
                "The Attester's memory can be read from outside, which is not acceptable.",
            ),
        ),
        "storage-opaque": _values(
            ClaimValue(
                2,
                "hw_encrypted_secrets",
                "secrets under hardware keys",
                "Stored secrets are encrypted with keys that never leave the hardware.",
            ),
            ClaimValue(
                32,
                "sw_encrypted_secrets",
                "secrets under software keys",
                "Stored secrets are encrypted, but not with keys held by hardware.",
            ),
            ClaimValue(
                96,
                "unencrypted_secrets",
                "secrets in the clear",
                "Secrets are stored without encryption.",
            ),
        ),
        "sourced-data": _values(
            ClaimValue(
                2,
                "trusted_sources",
                "trusted sources",
                "The data that matters came from Attesters whose results are affirming.",
            ),
            ClaimValue(
                32,
                "untrusted_sources",
                "unattested sources",
                "Data came from sources without a result, or with a warning.",
            ),
            ClaimValue(
                96,
                "contraindicated_sources",
                "forbidden sources",
                "Data came from sources that must not be trusted.",
            ),
        ),
    }
)
"""Claim name to its own values; `COMMON_VALUES` apply to every claim besides."""


def describe(claim: str, value: int) -> ClaimValue:
    """Return the description of a claim's value; one that the draft does not define gets its tier.

    Args:
        claim: JSON name of the claim, known or not.
        value: -128 … 127.
    """
    known = CLAIM_VALUES.get(claim, {}).get(value) or COMMON_VALUES.get(value)
    if known is not None:
        return known
    tier = tier_of(value).word
    return ClaimValue(
        value,
        "",
        f"{tier}, reason {value}",
        f"A reason that the standard does not define, in the tier {tier}.",
    )


def value_of_tag(claim: str, tag: str) -> int | None:
    """Return the value of a claim that has this tag, or None where none has.

    Args:
        claim: JSON name of a standard claim.
        tag: such as "approved_boot".
    """
    for known in (CLAIM_VALUES[claim], COMMON_VALUES):
        for number, described in known.items():
            if described.tag == tag:
                return number
    return None
