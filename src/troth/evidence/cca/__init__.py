# SPDX-License-Identifier: Apache-2.0
"""Arm CCA attestation tokens (draft-ffm-rats-cca-token; Arm DEN0137 section A7.2)."""

from __future__ import annotations

from troth.evidence.cca.evidence import (
    CcaEvidence,
    PlatformToken,
    RealmToken,
    decode_platform_token,
)
from troth.evidence.cca.platform_claims import PlatformClaims
from troth.evidence.cca.realm_claims import RealmClaims
from troth.evidence.cca.scheme import CcaScheme
from troth.evidence.evidence import Scheme

__all__ = [
    "SCHEME",
    "CcaEvidence",
    "CcaScheme",
    "PlatformClaims",
    "PlatformToken",
    "RealmClaims",
    "RealmToken",
    "decode_platform_token",
]

SCHEME: Scheme[CcaEvidence] = CcaScheme()
