# SPDX-License-Identifier: Apache-2.0
"""PSA attestation tokens (RFC 9783)."""

from __future__ import annotations

from troth.evidence.evidence import Scheme
from troth.evidence.psa.claims import PsaClaims, decode_claims
from troth.evidence.psa.evidence import PsaEvidence
from troth.evidence.psa.scheme import PsaScheme

__all__ = ["SCHEME", "PsaClaims", "PsaEvidence", "PsaScheme", "decode_claims"]

SCHEME: Scheme[PsaEvidence] = PsaScheme()
