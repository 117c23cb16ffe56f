# SPDX-License-Identifier: Apache-2.0
"""The SEV-SNP scheme: from octets to the authentic claims of a confidential VM.

The order of `verify()`, whose numbers the code wears; structure was checked by `decode()`:

1. the report is signed at all;
2. the certificate of the key that signed it is found: in the Evidence, else in the collateral. Its
   chip and TCB version must be those that the report claims;
3. the certificate leads to AMD's root, is valid at the time, and is not revoked;
4. the signature over the first 0x2A0 octets;
5. the product of the certificates is that of the report;
6. the simulator is recognised;
7. the challenge is compared.

Steps 2 and 3 are remembered for the same certificates, but for the time.

Source: AMD SEV-SNP Firmware ABI Specification (56860) revision 1.58 section 7.3 and chapter 10;
AMD document 57230 section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from troth.errors import BindingError, CollateralError, DecodeError, SignatureError
from troth.evidence.certificates import VendorDocuments
from troth.evidence.chain_cache import ChainCache
from troth.evidence.context import NO_CONTEXT, VerificationContext
from troth.evidence.evidence import (
    ClaimsSet,
    TrustAnchorSource,
    Unchecked,
    VerifiedEvidence,
)
from troth.evidence.freshness import check_freshness
from troth.evidence.insecure import SIMULATOR_MARK, refuse_simulator
from troth.evidence.sev_snp.chain import CertifiedKey, certify
from troth.evidence.sev_snp.endorsement_key import (
    COMMON_NAMES,
    EndorsementKey,
    common_name,
    decode_endorsement_key,
)
from troth.evidence.sev_snp.evidence import MEDIA_TYPES, SevSnpEvidence, decode
from troth.evidence.sev_snp.report import (
    REPORT_SIZE,
    SIGNED_SIZE,
    AttestationReport,
    SigningKey,
)
from troth.evidence.tsm_report import TsmReport
from troth.evidence.vendors import is_vendor_root

__all__ = ["CHALLENGE_SIZE", "SevSnpScheme", "VerifiedSevSnp"]

CHALLENGE_SIZE: Final = 64

VENDOR: Final = "amd"

_ECDSA: Final = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSevSnp(VerifiedEvidence[SevSnpEvidence]):
    """Authentic SNP Evidence.

    Attributes:
        certified: the key that signed the report, and what vouches for it.
    """

    certified: CertifiedKey


class SevSnpScheme:
    """AMD SEV-SNP attestation reports. See docs/reference/schemes/sev_snp.md."""

    name: str = "sev_snp"
    media_types: Sequence[str] = MEDIA_TYPES
    challenge_size: int = CHALLENGE_SIZE
    tier: str = "confidential"

    def __init__(self) -> None:
        self._certified: ChainCache[CertifiedKey] = ChainCache()

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` starts with a report's version, or like a TSM report."""
        reported = len(data) >= REPORT_SIZE and data[1:4] == bytes(3) and data[0] in range(2, 6)
        return reported or TsmReport.recognises(data)

    def decode(self, data: bytes, *, media_type: str = "") -> SevSnpEvidence:
        """Decode Evidence; see `troth.evidence.sev_snp.evidence.decode`."""
        return decode(data, media_type=media_type)

    def verify(
        self,
        evidence: SevSnpEvidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedSevSnp:
        """Establish that a chip of AMD's made the report, for this challenge.

        Says nothing about whether measurement, policy and TCB version are acceptable, nor how old
        a revocation list may be.

        Raises:
            SignatureError: not signed, or the signature does not verify.
            ChainError: the key's certificate does not lead to a believed root, has run out, or
                what vouches for it is revoked.
            BindingError: the certificate that came along is of another chip or TCB version.
            FreshnessError: another challenge.
            CollateralError: a certificate is missing.
        """
        del allow_test_keys  # no key of AMD's is published
        report = evidence.report
        if report.signing_key is SigningKey.NONE:  # (1)
            raise SignatureError(
                "SNP report: the host has switched signing off (SIGNING_KEY 7)",
                remedy="The host's operator has to let the firmware sign (MASK_CHIP_KEY 0), or "
                "load a VLEK.",
            )
        certified = self._certify(evidence, trust_anchors, context)  # (2), (3)
        _check_signature(evidence, certified.key)  # (4)
        _check_product(report, certified.key)  # (5)
        insecure = refuse_simulator(_simulator_mark(certified), allowed=allow_simulator)  # (6)
        matched = check_freshness(report.report_data, freshness, claim="REPORT_DATA")  # (7)
        return VerifiedSevSnp(
            evidence=evidence,
            claims_sets=(_claims_set(report, certified, context),),
            freshness=matched,
            implementation_id=report.measurement,
            instance_id=report.report_id,
            signer=certified.root,
            boot_session=report.report_id,
            insecure=insecure,
            certified=certified,
        )

    def _certify(
        self,
        evidence: SevSnpEvidence,
        trust_anchors: TrustAnchorSource,
        context: VerificationContext,
    ) -> CertifiedKey:
        now = context.time
        anchors = trust_anchors.certificates(self.name)
        known_by = _what_decides(evidence, anchors, context)
        kept = self._certified.get(known_by)
        if kept is not None and kept.holds_for(now):
            kept.check_time(now)
            return kept
        certified = _certified(evidence, anchors, context, now)
        self._certified.put(known_by, certified)
        return certified


def _what_decides(
    evidence: SevSnpEvidence, anchors: Sequence[x509.Certificate], context: VerificationContext
) -> bytes:
    """Return what decides which chain is found, and whether it holds, but for the time."""
    report, table = evidence.report, evidence.certificates
    tcb = report.reported_tcb
    return ChainCache.key(
        (report.signing_key.value.encode(), report.chip_id, repr(tcb).encode()),
        sorted(anchor.fingerprint(hashes.SHA256()) for anchor in anchors),
        sorted(vendor.encode() for vendor in context.vendors),
        (context.collateral.digest,),
        [name.encode() for name in table],
        list(table.values()),
    )


def _certified(
    evidence: SevSnpEvidence,
    anchors: Sequence[x509.Certificate],
    context: VerificationContext,
    now: datetime,
) -> CertifiedKey:
    documents = VendorDocuments()
    for anchor in anchors:
        documents.add_certificate(anchor, source="trust anchor")
    # What the host sent comes first: a report that does not name its chip may fit several keys.
    for name, certificate in evidence.certificates.items():
        documents.add(certificate, source=f"{name} in the Evidence", in_evidence=True)
    documents.add_collateral(context.collateral)
    key = _find_key(evidence.report, documents)
    believed = {anchor.fingerprint(hashes.SHA256()) for anchor in anchors}

    def is_anchor(root: x509.Certificate) -> bool:
        return root.fingerprint(hashes.SHA256()) in believed or is_vendor_root(
            root, VENDOR, believed=context.vendors
        )

    return certify(key, documents, now=now, is_anchor=is_anchor)


def _find_key(report: AttestationReport, documents: VendorDocuments) -> EndorsementKey:
    """Return the first endorsement key that the report's claims fit."""
    others: list[tuple[EndorsementKey, str]] = []
    damaged: list[DecodeError] = []
    for pooled in documents.certificates:
        if COMMON_NAMES.get(common_name(pooled.certificate)) is not report.signing_key:
            continue
        try:
            key = decode_endorsement_key(pooled)
        except DecodeError as exc:
            if pooled.in_evidence:
                raise
            damaged.append(exc)
            continue
        difference = _difference(report, key)
        if not difference:
            return key
        others.append((key, difference))
    sent = [difference for key, difference in others if key.pooled.in_evidence]
    if sent:
        raise BindingError(
            f"the certificate that came with the SNP report is not of its key: {'; '.join(sent)}",
            remedy="The host's table of certificates is older than its firmware, or of another "
            "host: have the host refresh it.",
        )
    raise _no_key(report, [difference for _, difference in others], damaged, documents)


def _difference(report: AttestationReport, key: EndorsementKey) -> str:
    """Say in words what of the report does not fit the key's certificate; "" where all does."""
    if key.kind is SigningKey.VCEK and report.chip_known and key.chip_id != report.chip_id:
        return (
            f"{key.pooled.source} is of chip {key.hwid.hex()}, the report is from "
            f"{report.chip_id.hex()}"
        )
    if key.tcb != report.reported_tcb:
        return f"{key.pooled.source} is for TCB {key.tcb}, the report says {report.reported_tcb}"
    return ""


def _no_key(
    report: AttestationReport,
    others: Sequence[str],
    damaged: Sequence[DecodeError],
    documents: VendorDocuments,
) -> CollateralError:
    kind = report.signing_key.name
    of = f"chip {report.chip_id.hex()} " if report.signing_key is SigningKey.VCEK else ""
    reasons = [*others, *map(str, damaged)]
    reasons += [f"{name} cannot be read" for name in documents.unreadable]
    detail = f" ({'; '.join(reasons)})" if reasons else ""
    return CollateralError(
        f"no {kind} certificate of {of}at TCB {report.reported_tcb} to check the SNP report "
        f"with{detail}",
        remedy="Have the guest send the host's certificates (an extended report), or put the "
        "certificate from AMD's Key Distribution Service into the collateral.",
        vendor="amd",
    )


def _check_signature(evidence: SevSnpEvidence, key: EndorsementKey) -> None:
    report = evidence.report
    signature = encode_dss_signature(report.signature_r, report.signature_s)
    try:
        key.public_key.verify(signature, evidence.report_bytes[:SIGNED_SIZE], _ECDSA)
    except InvalidSignature as exc:
        raise SignatureError(
            f"SNP report: the signature does not verify under the {key}",
            remedy="The report was changed, or is not from this chip.",
        ) from exc


def _check_product(report: AttestationReport, key: EndorsementKey) -> None:
    if report.product and report.product != key.product:
        raise BindingError(
            f"the SNP report is from a {report.product} by its CPUID, the {key} is for "
            f"{key.product}"
        )


def _simulator_mark(certified: CertifiedKey) -> bytes:
    values = [str(attribute.value).encode() for attribute in certified.root_name]
    return next((value for value in values if value.startswith(SIMULATOR_MARK)), b"")


def _claims_set(
    report: AttestationReport, certified: CertifiedKey, context: VerificationContext
) -> ClaimsSet:
    claims = report.to_json()
    claims["product"] = certified.key.product
    if certified.key.csp_id:
        claims["csp_id"] = certified.key.csp_id
    revocation = certified.revocation
    claims["revocation"] = (
        revocation.state(context.time, context.grace) if revocation is not None else "unchecked"
    )
    if revocation is not None and revocation.next_update is not None:
        # For people, and, as `input.now_ns`, for policies that grant some time.
        claims["revocation_next_update"] = f"{revocation.next_update:%Y-%m-%dT%H:%M:%SZ}"
        claims["revocation_next_update_ns"] = int(revocation.next_update.timestamp()) * 10**9
    return ClaimsSet(label="sev_snp", component="vm", layer="hardware", claims=claims)
