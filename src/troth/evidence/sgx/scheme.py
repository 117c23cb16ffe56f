# SPDX-License-Identifier: Apache-2.0
"""The SGX scheme: from octets to the authentic claims of an enclave.

The platform behind the quote is verified as TDX's is (`intel.verification`), then the challenge
is compared: all 64 octets of report_data, which only the enclave itself can choose.

Source: Intel SGX ECDSA Quote Library Reference, appendix A.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from troth.evidence.context import NO_CONTEXT, VerificationContext
from troth.evidence.evidence import ClaimsSet, TrustAnchorSource, Unchecked
from troth.evidence.freshness import check_freshness
from troth.evidence.intel.enclave_report import EnclaveReport
from troth.evidence.intel.verification import Platform, VerifiedQuote, verify_platform
from troth.evidence.sgx.evidence import MEDIA_TYPES, SgxEvidence, decode

__all__ = ["CHALLENGE_SIZE", "SgxScheme"]

CHALLENGE_SIZE: Final = 64

_START: Final = b"\3\0\2\0\0\0\0\0"
"""Version 3, ECDSA on P-256, TEE type 0."""


class SgxScheme:
    """Quotes of Intel SGX enclaves. See docs/reference/schemes/sgx.md."""

    name: str = "sgx"
    media_types: Sequence[str] = MEDIA_TYPES
    challenge_size: int = CHALLENGE_SIZE
    tier: str = "confidential"

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` starts like a quote of an enclave."""
        return data.startswith(_START)

    def decode(self, data: bytes, *, media_type: str = "") -> SgxEvidence:
        """Decode one quote; see `troth.evidence.sgx.evidence.decode`."""
        return decode(data, media_type=media_type)

    def verify(
        self,
        evidence: SgxEvidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedQuote[SgxEvidence]:
        """Establish that an enclave on a platform of Intel's made the quote, for this challenge.

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
            trust_anchors=trust_anchors,
            context=context,
            allow_simulator=allow_simulator,
        )
        matched = check_freshness(report.report_data, freshness, claim="report_data")
        return VerifiedQuote(
            evidence=evidence,
            claims_sets=(_claims_set(evidence, platform),),
            freshness=matched,
            implementation_id=report.mr_enclave,
            instance_id=platform.ppid + report.product_identity,
            signer=platform.root,
            insecure=platform.insecure,
            platform=platform,
        )


def _to_compare(report: EnclaveReport) -> tuple[str | int, ...]:
    return (
        report.attributes.hex(),
        report.mr_enclave.hex(),
        report.mr_signer.hex(),
        report.isv_prod_id,
        report.isv_svn,
        report.report_data.hex(),
    )


def _claims_set(evidence: SgxEvidence, platform: Platform) -> ClaimsSet:
    return ClaimsSet(
        label="sgx",
        component="enclave",
        layer="hardware",
        claims={
            "tee_type": "sgx",
            "quote_version": evidence.quote.header.version,
            **evidence.report.to_json(),
            **platform.to_json(),
        },
    )
