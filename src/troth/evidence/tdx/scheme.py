# SPDX-License-Identifier: Apache-2.0
"""The TDX scheme: from octets to the authentic claims of a trust domain.

The platform behind the quote is verified as SGX's is (`intel.verification`), then the challenge
is compared: all 64 octets of report_data, which only the trust domain itself can choose.

Source: Intel TDX DCAP Quoting Library API; Intel TDX Module Base Architecture Specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from troth.evidence.context import NO_CONTEXT, VerificationContext
from troth.evidence.evidence import ClaimsSet, TrustAnchorSource, Unchecked
from troth.evidence.freshness import check_freshness
from troth.evidence.intel.verification import Platform, VerifiedQuote, verify_platform
from troth.evidence.tdx.evidence import MEDIA_TYPES, PROVIDER, TdxEvidence, decode
from troth.evidence.tdx.report import TdReport
from troth.evidence.tsm_report import TsmReport

__all__ = ["CHALLENGE_SIZE", "TdxScheme"]

CHALLENGE_SIZE: Final = 64

# Version 4 or 5, ECDSA on P-256, TEE type 0x81.
_STARTS: Final = (b"\4\0\2\0\x81\0\0\0", b"\5\0\2\0\x81\0\0\0")


class TdxScheme:
    """Quotes of Intel TDX trust domains. See docs/reference/schemes/tdx.md."""

    name: str = "tdx"
    media_types: Sequence[str] = MEDIA_TYPES
    challenge_size: int = CHALLENGE_SIZE
    tier: str = "confidential"

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` starts like a quote, or is a TSM report of TDX's driver."""
        return data.startswith(_STARTS) or (
            TsmReport.recognises(data) and PROVIDER.encode() in data
        )

    def decode(self, data: bytes, *, media_type: str = "") -> TdxEvidence:
        """Decode Evidence; see `troth.evidence.tdx.evidence.decode`."""
        return decode(data, media_type=media_type)

    def verify(
        self,
        evidence: TdxEvidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedQuote[TdxEvidence]:
        """Establish that a trust domain on a platform of Intel's made the quote, for this challenge.

        Says nothing about whether its measurements, its attributes or the platform's TCB are
        acceptable.

        Raises:
            SignatureError, ChainError: not authentic.
            CollateralError: nothing can be said, for want of Intel's documents.
            FreshnessError: another challenge.
            ConfigurationError: dcap-qvl is not installed.
        """
        del allow_test_keys  # no key of Intel's is published
        report = evidence.report
        platform = verify_platform(
            evidence.quote,
            scheme=self.name,
            report=_to_compare(report),
            tdx_svns=(report.tee_tcb_svn, report.tee_tcb_svn2),
            trust_anchors=trust_anchors,
            context=context,
            allow_simulator=allow_simulator,
        )
        matched = check_freshness(report.report_data, freshness, claim="report_data")
        return VerifiedQuote(
            evidence=evidence,
            claims_sets=(_claims_set(evidence, platform),),
            freshness=matched,
            implementation_id=report.mr_td,
            instance_id=platform.ppid + report.launch_identity,
            signer=platform.root,
            insecure=platform.insecure,
            platform=platform,
        )


def _to_compare(report: TdReport) -> tuple[str | int, ...]:
    fields = (
        report.td_attributes,
        report.mr_td,
        report.rtmr0,
        report.rtmr1,
        report.rtmr2,
        report.rtmr3,
        report.report_data,
    )
    return tuple(each.hex() for each in fields)


def _claims_set(evidence: TdxEvidence, platform: Platform) -> ClaimsSet:
    header = evidence.quote.header
    return ClaimsSet(
        label="tdx",
        component="vm",
        layer="hardware",
        claims={
            "tee_type": "tdx",
            "quote_version": header.version,
            **evidence.report.to_json(),
            **platform.to_json(),
        },
    )
