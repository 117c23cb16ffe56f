# SPDX-License-Identifier: Apache-2.0
"""The Nitro scheme: from octets to the authentic claims of an enclave.

The order of `verify()`, whose numbers the code wears; structure was checked by `decode()`:

1. the document's certificate leads to AWS's root, and is valid at the time;
2. the envelope's signature, under that certificate's key;
3. the document was made while the certificate was valid;
4. a simulated root is recognised;
5. the nonce is compared.

Step 1 is remembered for the same certificates, but for the time: an enclave keeps its own for up to
three hours.

Source: AWS Nitro Enclaves User Guide, "Verifying the root of trust".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from troth.errors import ChainError
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
from troth.evidence.nitro.chain import CertifiedDocumentKey, certify
from troth.evidence.nitro.document import MEDIA_TYPE, NitroDocument, NitroEvidence, decode
from troth.evidence.vendors import is_vendor_root

__all__ = ["CHALLENGE_SIZE", "NitroScheme"]

CHALLENGE_SIZE: Final = 64
"""Octets of the nonce that Troth asks with; the field takes up to 512."""

VENDOR: Final = "aws"

# COSE_Sign1 with {1: -35} protected and an empty unprotected header, with its tag or without, and
# a payload that begins with a map whose first key is one of the document's.
_START: Final = re.compile(
    rb"\xd2?\x84\x44\xa1\x01\x38\x22\xa0(?:\x58.|\x59..)[\xa6-\xa9][\x64-\x6b]"
    rb"(?:module_id|digest|timestamp|pcrs|certificate|cabundle|public_key|user_data|nonce)",
    re.DOTALL,
)


class NitroScheme:
    """AWS Nitro Enclaves attestation documents. See docs/reference/schemes/nitro.md."""

    name: str = "nitro"
    media_types: Sequence[str] = (MEDIA_TYPE,)
    challenge_size: int = CHALLENGE_SIZE
    tier: str = "confidential"

    def __init__(self) -> None:
        self._certified: ChainCache[CertifiedDocumentKey] = ChainCache()
        self._issued: ChainCache[bool] = ChainCache()

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` starts like a COSE_Sign1 with ES384 whose first claim is ours."""
        return _START.match(data) is not None

    def decode(self, data: bytes, *, media_type: str = "") -> NitroEvidence:
        """Decode one document; see `troth.evidence.nitro.document.decode`."""
        return decode(data, media_type=media_type)

    def verify(
        self,
        evidence: NitroEvidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedEvidence[NitroEvidence]:
        """Establish that the Nitro Hypervisor made the document, for this challenge.

        Says nothing about whether the PCRs are acceptable, nor that the enclave is not in debug
        mode.

        Raises:
            ChainError: the certificate does not lead to a believed root, or is not valid.
            SignatureError: the signature does not verify.
            FreshnessError: another nonce, or none.
        """
        del allow_test_keys  # no key of AWS's is published
        document = evidence.document
        certified = self._certify(document, trust_anchors, context)  # (1)
        evidence.envelope.verify(certified.key, algorithms={"ES384"})  # (2)
        _check_made(document, certified)  # (3)
        insecure = refuse_simulator(_simulator_mark(certified), allowed=allow_simulator)  # (4)
        matched = check_freshness(document.nonce or b"", freshness, claim="nonce")  # (5)
        module = document.module_id.encode()
        return VerifiedEvidence(
            evidence=evidence,
            claims_sets=(
                ClaimsSet(
                    label="nitro", component="enclave", layer="hardware", claims=document.to_json()
                ),
            ),
            freshness=matched,
            implementation_id=document.pcrs.get(0, b""),
            instance_id=module,
            signer=certified.root,
            boot_session=module,
            insecure=insecure,
        )

    def _certify(
        self,
        document: NitroDocument,
        trust_anchors: TrustAnchorSource,
        context: VerificationContext,
    ) -> CertifiedDocumentKey:
        now = context.time
        believed = {root.fingerprint(SHA256()) for root in trust_anchors.certificates(self.name)}
        known_by = ChainCache.key(
            sorted(believed),
            sorted(vendor.encode() for vendor in context.vendors),
            (*document.cabundle, document.certificate),
        )
        kept = self._certified.get(known_by)
        if kept is not None:
            kept.check_time(now)
            return kept

        def is_anchor(root: x509.Certificate) -> bool:
            return root.fingerprint(SHA256()) in believed or is_vendor_root(
                root, VENDOR, believed=context.vendors
            )

        certified = certify(
            document.cabundle,
            document.certificate,
            now=now,
            is_anchor=is_anchor,
            issued=self._issued,
        )
        self._certified.put(known_by, certified)
        return certified


def _check_made(document: NitroDocument, certified: CertifiedDocumentKey) -> None:
    if not certified.not_before <= document.time <= certified.not_after:
        raise ChainError(
            f"the Nitro document says that it was made at {document.time:%Y-%m-%dT%H:%M:%SZ}, "
            "when its certificates were not valid"
        )


def _simulator_mark(certified: CertifiedDocumentKey) -> bytes:
    values = [str(attribute.value).encode() for attribute in certified.root_name]
    return next((value for value in values if value.startswith(SIMULATOR_MARK)), b"")
