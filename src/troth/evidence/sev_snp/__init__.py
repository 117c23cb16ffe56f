# SPDX-License-Identifier: Apache-2.0
"""AMD SEV-SNP attestation reports (AMD document 56860)."""

from __future__ import annotations

from troth.evidence.evidence import Scheme
from troth.evidence.sev_snp.evidence import SevSnpEvidence
from troth.evidence.sev_snp.fields import GuestPolicy, PlatformInfo, TcbVersion
from troth.evidence.sev_snp.report import AttestationReport, SigningKey, decode_report
from troth.evidence.sev_snp.scheme import SevSnpScheme, VerifiedSevSnp

__all__ = [
    "SCHEME",
    "AttestationReport",
    "GuestPolicy",
    "PlatformInfo",
    "SevSnpEvidence",
    "SevSnpScheme",
    "SigningKey",
    "TcbVersion",
    "VerifiedSevSnp",
    "decode_report",
]

SCHEME: Scheme[SevSnpEvidence] = SevSnpScheme()
