# SPDX-License-Identifier: Apache-2.0
"""`verify_x509_svid`, remembered: a peer that comes back shows the same chain.

What is kept is that a path exists under one bundle. Dates are looked at each time, and another
bundle for the trust domain, such as one without an authority that was lost, forgets everything
that the old one said.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from troth.identity.trust_bundle import TrustBundle, TrustBundleSource
from troth.identity.x509_path import VerifiedX509Svid, verify_x509_svid
from troth.identity.x509_svid import X509Svid

__all__ = ["MAX_KEPT_SVIDS", "SvidVerifier"]

MAX_KEPT_SVIDS: Final = 1024
"""Verified chains kept, least recently used first to go; one takes about 5 KB."""


class SvidVerifier:
    """Verifies SVIDs under one source of bundles. Not for several threads at once."""

    def __init__(self, bundles: TrustBundleSource, size: int = MAX_KEPT_SVIDS) -> None:
        self._bundles = bundles
        self._size = size
        self._kept: OrderedDict[tuple[bytes, ...], tuple[TrustBundle, VerifiedX509Svid]] = (
            OrderedDict()
        )

    def __len__(self) -> int:
        return len(self._kept)

    def verify(self, chain: Sequence[x509.Certificate], *, now: datetime) -> VerifiedX509Svid:
        """Verify a chain as `verify_x509_svid` does.

        Raises:
            DecodeError: the leaf is no SVID.
            ChainError: no authority of its trust domain vouches for it.
        """
        key = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
        kept = self._kept.get(key)
        if kept is not None:
            bundle, verified = kept
            same = self._bundles.bundle(verified.svid.spiffe_id.trust_domain) is bundle
            if same and _valid(verified, now):
                self._kept.move_to_end(key)
                return verified
            del self._kept[key]
        svid = X509Svid(chain=chain)
        domain = svid.spiffe_id.trust_domain
        before = self._bundles.bundle(domain)
        verified = verify_x509_svid(svid, self._bundles, now=now)
        # A source that changes while we look must not have the old path kept under the new bundle.
        if before is not None and self._bundles.bundle(domain) is before:
            self._kept[key] = (before, verified)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return verified


def _valid(verified: VerifiedX509Svid, now: datetime) -> bool:
    begin = max(certificate.not_valid_before_utc for certificate in verified.path)
    return begin <= now <= verified.not_after
