# SPDX-License-Identifier: Apache-2.0
"""The three EAR dialects: which profile speaks which, and how each spells the claims.

======================= ============================ ======================= ====================
dialect                 profiles                     names                   appraisal policy
======================= ============================ ======================= ====================
Veraison, Trustee       tag:github.com,2023:         ear.status              ear.appraisal-policy-id,
                        veraison/ear and Trustee's                           one text
                        alias for it
draft-ietf-rats-ear-02  tag:ietf.org,2025-07:ear     as Veraison             as Veraison
and before
draft-ietf-rats-ear-03  tag:ietf.org,2026:           ear_status              ear_appraisal_policy_ids,
                        rats/ear#03                                          array of text
======================= ============================ ======================= ====================

CBOR keys are the same in all of them. A top-level status, `exp`, and nonce and profile of an
appraisal are defined by draft 03 only; others ignore them, so Troth reads and writes them in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from troth.errors import UnsupportedError
from troth.formats.ear.result import PROFILE_IETF_03
from troth.formats.ear.troth_claims import TROTH_CLAIM_KEYS

__all__ = ["PROFILES", "Claim", "Dialect", "dialect_of"]


class Dialect(Enum):
    """A way to spell an EAR. The value is the profile that is written."""

    VERAISON = "tag:github.com,2023:veraison/ear"
    IETF_02 = "tag:ietf.org,2025-07:ear"
    IETF_03 = PROFILE_IETF_03

    @property
    def dotted(self) -> bool:
        """Whether names have dots and hyphens; the appraisal policy is then one text."""
        return self is not Dialect.IETF_03

    @property
    def jwt_type(self) -> str:
        """The `typ` that is written into a JWT's header."""
        # Veraison writes "JWT" and some of its consumers expect it; RFC 8725 section 3.11 wants
        # the kind of token spelled out.
        return "JWT" if self is Dialect.VERAISON else "eat+jwt"


PROFILES: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        **{dialect.value: dialect for dialect in Dialect},
        "tag:github.com,2024:confidential-containers/Trustee": Dialect.VERAISON,
    }
)
"""Every profile that Troth reads, with its dialect."""


def dialect_of(profile: str) -> Dialect:
    """Return the dialect that `profile` speaks.

    Raises:
        UnsupportedError: it is none of `PROFILES`.
    """
    dialect = PROFILES.get(profile)
    if dialect is None:
        raise UnsupportedError(
            f"eat_profile {profile[:96]!r} is not one that Troth reads ({', '.join(PROFILES)})",
            format="EAR",
        )
    return dialect


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim in all its spellings.

    Attributes:
        name: in draft 03.
        dotted: in the other dialects.
        key: in CBOR, or None where nobody gave it one and the name is used.
    """

    name: str
    dotted: str
    key: int | None

    def json_label(self, dialect: Dialect) -> str:
        """Return the claim's name in JSON."""
        return self.dotted if dialect.dotted else self.name

    def cbor_label(self, dialect: Dialect) -> int | str:
        """Return the claim's key in CBOR."""
        return self.json_label(dialect) if self.key is None else self.key


EAT_PROFILE: Final = Claim("eat_profile", "eat_profile", 265)
IAT: Final = Claim("iat", "iat", 6)
EXP: Final = Claim("exp", "exp", 4)
NBF: Final = Claim("nbf", "nbf", 5)
NONCE: Final = Claim("eat_nonce", "eat_nonce", 10)
SUBMODS: Final = Claim("submods", "submods", 266)
STATUS: Final = Claim("ear_status", "ear.status", 1000)
VECTOR: Final = Claim("ear_trustworthiness_vector", "ear.trustworthiness-vector", 1001)
RAW_EVIDENCE: Final = Claim("ear_raw_evidence", "ear.raw-evidence", 1002)
POLICY: Final = Claim("ear_appraisal_policy_ids", "ear.appraisal-policy-id", 1003)
VERIFIER_ID: Final = Claim("ear_verifier_id", "ear.verifier-id", 1004)
KEY_ATTESTATION: Final = Claim(
    "ear_veraison_key_attestation", "ear.veraison.key-attestation", -70002
)

TROTH: Final = tuple(Claim(name, name, key) for name, key in TROTH_CLAIM_KEYS.items())

CORE: Final = (
    EAT_PROFILE,
    IAT,
    EXP,
    NBF,
    NONCE,
    SUBMODS,
    STATUS,
    VECTOR,
    RAW_EVIDENCE,
    POLICY,
    VERIFIER_ID,
    KEY_ATTESTATION,
    *TROTH,
)
"""The claims that have a field of their own."""

EXTENSIONS: Final = (
    Claim("iss", "iss", 1),
    Claim("sub", "sub", 2),
    Claim("aud", "aud", 3),
    Claim("ear_veraison_annotated_evidence", "ear.veraison.annotated-evidence", -70000),
    Claim("ear_veraison_policy_claims", "ear.veraison.policy-claims", -70001),
    Claim("ear_veraison_tee_info", "ear.veraison.tee-info", None),
    Claim("ear_teep_claims", "ear.teep-claims", 65000),
)
"""Claims that are only passed on, but whose spelling in each dialect is known."""
