# SPDX-License-Identifier: Apache-2.0
"""`verify_x509_svid`, remembered: a peer that comes back shows the same chain.

What is kept is that a path exists under one bundle, and what the leaf says. Dates are looked at
each time, and another bundle for the trust domain, such as one without an authority that was lost,
forgets everything that the old one said.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from troth.errors import DecodeError
from troth.identity.attestation_result import attestation_result
from troth.identity.certificates import FORMAT
from troth.identity.hardware_key import has_hardware_key
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle, TrustBundleSource
from troth.identity.x509_path import VerifiedX509Svid, verify_x509_svid
from troth.identity.x509_svid import X509Svid

__all__ = ["MAX_KEPT_SVIDS", "RecognisedSvid", "SvidVerifier"]

MAX_KEPT_SVIDS: Final = 1024
"""Verified chains kept, least recently used first to go; one takes about 8 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognisedSvid:
    """A verified SVID, and what its leaf says, read once.

    Attributes:
        spiffe_id: whose it is.
        verified: the SVID with its path.
        spki: the leaf's key as DER SubjectPublicKeyInfo.
        key_digest: SHA-256 of it; what an Attestation Result's key is compared with.
        node_id: the node that the Subject names, or "".
        hardware_key: whether the authority calls the key one in hardware.
        token: the Attestation Result inside, unverified, or None where there is none to be read.
        not_before, not_after: when the whole path is valid, UTC.
    """

    spiffe_id: SpiffeId
    verified: VerifiedX509Svid = field(repr=False)
    spki: bytes = field(repr=False)
    key_digest: bytes = field(repr=False)
    node_id: str
    hardware_key: bool
    token: bytes | None = field(repr=False)
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, verified: VerifiedX509Svid) -> RecognisedSvid:
        """Read the leaf.

        Raises:
            DecodeError: it names several nodes, or its extensions cannot be read.
        """
        svid = verified.svid
        return cls(
            spiffe_id=svid.spiffe_id,
            verified=verified,
            spki=svid.spki,
            key_digest=hashlib.sha256(svid.spki).digest(),
            node_id=svid.node_id,
            hardware_key=has_hardware_key(svid),
            token=_token(svid),
            not_before=max(each.not_valid_before_utc for each in verified.path),
            not_after=verified.not_after,
        )


class SvidVerifier:
    """Verifies SVIDs under one source of bundles. Not for several threads at once."""

    def __init__(self, bundles: TrustBundleSource, size: int = MAX_KEPT_SVIDS) -> None:
        self._bundles = bundles
        self._size = size
        self._kept: OrderedDict[tuple[bytes, ...], tuple[TrustBundle, RecognisedSvid]] = (
            OrderedDict()
        )

    def __len__(self) -> int:
        return len(self._kept)

    def verify(self, chain: Sequence[bytes], *, now: datetime) -> RecognisedSvid:
        """Verify a chain, DER and leaf first, as `verify_x509_svid` does.

        Raises:
            DecodeError: not certificates, or the leaf is no SVID.
            ChainError: no authority of its trust domain vouches for it.
        """
        key = tuple(chain)
        kept = self._kept.get(key)
        if kept is not None:
            bundle, known = kept
            same = self._bundles.bundle(known.spiffe_id.trust_domain) is bundle
            if same and known.not_before <= now <= known.not_after:
                self._kept.move_to_end(key)
                return known
            del self._kept[key]
        svid = X509Svid(chain=[_certificate(der) for der in chain])
        domain = svid.spiffe_id.trust_domain
        before = self._bundles.bundle(domain)
        known = RecognisedSvid.of(verify_x509_svid(svid, self._bundles, now=now))
        # A source that changes while we look must not have the old path kept under the new bundle.
        if before is not None and self._bundles.bundle(domain) is before:
            self._kept[key] = (before, known)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return known

    def forget(self) -> None:
        """Verify everybody anew."""
        self._kept.clear()


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("not an X.509 certificate", format=FORMAT) from exc


def _token(svid: X509Svid) -> bytes | None:
    try:
        return attestation_result(svid)
    except DecodeError:
        # The identity does not depend on it; whoever needs a result finds that there is none.
        return None
