# SPDX-License-Identifier: Apache-2.0
"""The signatures of a quote, verified by ourselves.

dcap-qvl refuses a trust domain in debug mode, or a platform below every TCB level, before it says
whether it is authentic, and without collateral it says nothing at all. In these cases the answer
comes from here: an operator is told what is wrong with an authentic platform, and a forged quote
is called forged even where collateral is missing. An appraisal that rests on this module alone is
never affirming.

The order:

1. the platform's certificates lead to the root (`PckChain.check`);
2. the platform's key signed the report of the quoting enclave;
3. that report names the attestation key;
4. the attestation key signed the quote;
5. the quoting enclave is Intel's, where its identity is at hand.

Source: Intel TDX DCAP Quoting Library API, appendix A; Intel SGX ECDSA Quote Library Reference,
"Quote Verification".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from troth.errors import SignatureError
from troth.evidence.intel.enclave_report import EnclaveReport
from troth.evidence.intel.pck import PckChain
from troth.evidence.intel.quote import Quote
from troth.evidence.intel.tcb import QeIdentity
from troth.formats.signatures import verify_signature
from troth.formats.verification_key import VerificationKey

__all__ = ["check_quoting_enclave", "check_signatures", "verify_es256"]

_FORMAT: Final = "quote"


def check_signatures(
    quote: Quote, chain: PckChain, root: x509.Certificate, *, at: datetime
) -> None:
    """Verify every signature from the root down to the quote, (1) to (4).

    Does NOT check revocation, the quoting enclave or any security version.

    Raises:
        ChainError: the platform's certificates do not lead to the root, or are not valid at `at`.
        SignatureError: a signature does not verify, or belongs to something else.
    """
    chain.check(root, at=at)  # (1)
    signature = quote.signature
    verify_es256(
        chain.leaf,
        signature.qe_report_signature,
        signature.qe_report,
        format="quoting enclave's report",
    )  # (2)
    report = EnclaveReport.decode(signature.qe_report, format="quoting enclave's report")
    digest = hashlib.sha256(signature.attestation_key + signature.qe_authentication).digest()
    if not hmac.compare_digest(report.report_data, digest.ljust(64, b"\0")):  # (3)
        raise SignatureError("the quoting enclave's report names another attestation key")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), b"\x04" + signature.attestation_key
        )
    except ValueError as exc:
        raise SignatureError("the attestation key is no point on P-256") from exc
    verify_signature(  # (4)
        VerificationKey(key, source="the quote"),
        "ES256",
        signature.signature,
        quote.signed,
        format=_FORMAT,
    )


def check_quoting_enclave(quote: Quote, identity: QeIdentity) -> None:
    """Verify that the enclave that signed is the one that Intel describes (5).

    Its security version is not looked at here. `identity` must be authentic.

    Raises:
        SignatureError: it is another one, or runs in debug mode.
    """
    report = EnclaveReport.decode(quote.signature.qe_report, format="quoting enclave's report")
    differs: list[str] = []
    if report.mr_signer.hex() != identity.mr_signer.lower():
        differs.append(f"signer {report.mr_signer.hex()}, expected {identity.mr_signer.lower()}")
    if report.isv_prod_id != identity.isv_prod_id:
        differs.append(f"product {report.isv_prod_id}, expected {identity.isv_prod_id}")
    for name, actual, expected, mask in (
        ("miscselect", report.misc_select, identity.misc_select, identity.misc_select_mask),
        ("attributes", report.attributes, identity.attributes, identity.attributes_mask),
    ):
        if not _equal_under_mask(actual, expected, mask):
            differs.append(f"{name} {actual.hex()}, expected {expected} under {mask}")
    if report.flags["debug"]:
        differs.append("debug mode")
    if differs:
        raise SignatureError(f"the quoting enclave is not Intel's: {'; '.join(differs)}")


def verify_es256(
    certificate: x509.Certificate, signature: bytes, data: bytes, *, format: str
) -> None:
    """Verify r and s over `data` under a certificate's key.

    Raises:
        SignatureError: it does not verify, or the key is not on P-256.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SignatureError(f"{format}: the key is not on P-256")
    verify_signature(VerificationKey(key), "ES256", signature, data, format=format)


def _equal_under_mask(actual: bytes, expected: str, mask: str) -> bool:
    try:
        wanted, bits = bytes.fromhex(expected), bytes.fromhex(mask)
    except ValueError:
        return False
    if not len(actual) == len(wanted) == len(bits):
        return False
    return all(
        (own & bit) == (other & bit) for own, other, bit in zip(actual, wanted, bits, strict=True)
    )
