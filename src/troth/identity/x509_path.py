# SPDX-License-Identifier: Apache-2.0
"""From a presented X.509-SVID to an authority of its trust domain.

The path is built by pyca/cryptography's verifier; the rules that are SPIFFE's own, and those that
this verifier leaves to its caller, are ours. Two things are refused that the specification allows:
URI name constraints (the verifier knows none, and an unprocessed constraint must fail), and
authorities with Ed25519 keys.

Source: X509-SVID section 5; RFC 5280 section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from troth.errors import ChainError, DecodeError
from troth.identity.certificates import (
    extensions_of,
    key_of,
    key_usage_of,
    subject_alternative_names,
)
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundleSource
from troth.identity.x509_svid import X509Svid

__all__ = ["MAX_INTERMEDIATES", "VerifiedX509Svid", "verify_x509_svid"]

MAX_INTERMEDIATES: Final = 4
"""Signing certificates between a leaf and its authority."""

_TLS_USES: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedX509Svid:
    """An SVID that an authority of its trust domain vouches for. Only `verify_x509_svid` makes one.

    Attributes:
        svid: the SVID.
        path: leaf, signing certificates, authority: those that were used, and no others.
    """

    svid: X509Svid
    path: tuple[x509.Certificate, ...]

    @property
    def authority(self) -> x509.Certificate:
        """The CA certificate from the bundle that the path ends at."""
        return self.path[-1]

    @property
    def not_after(self) -> datetime:
        """When the first certificate of the path ends, UTC."""
        return min(certificate.not_valid_after_utc for certificate in self.path)


def verify_x509_svid(
    svid: X509Svid, bundles: TrustBundleSource, *, now: datetime
) -> VerifiedX509Svid:
    """Verify that an authority of exactly the SVID's own trust domain vouches for it at `now`.

    Does NOT check that the peer holds the private key (TLS does), that this SPIFFE ID may do
    anything (policy does), or revocation (lifetimes are short, and the feed tells).

    Args:
        svid: as presented.
        bundles: one bundle for each trust domain that is trusted.
        now: timezone-aware.

    Raises:
        ChainError: no bundle for the trust domain, or no valid path to one of its authorities.
    """
    domain = svid.spiffe_id.trust_domain
    bundle = bundles.bundle(domain)
    if bundle is None or bundle.trust_domain != domain or not bundle.x509_authorities:
        raise ChainError(
            f"{svid.spiffe_id}: there are no authorities for trust domain {domain}",
            remedy=f"federate with {domain}, or refresh its bundle",
        )
    if len(svid.chain) - 1 > MAX_INTERMEDIATES:
        raise ChainError(f"{svid.spiffe_id}: more than {MAX_INTERMEDIATES} signing certificates")
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(bundle.x509_authorities)))
        .time(now.astimezone(UTC))
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        verified = verifier.verify(svid.leaf, list(svid.chain[1:]))
    except (verification.VerificationError, ValueError, x509.DuplicateExtension) as exc:
        raise ChainError(
            f"{svid.spiffe_id}: no valid path to an authority of {domain}: {exc}",
            remedy="compare the certificate's issuer and dates with the bundle in use",
        ) from exc
    path = tuple(verified.chain)
    # A leaf that stands in the bundle itself was issued by nobody.
    if len(path) < 2:
        raise ChainError(f"{svid.spiffe_id}: the leaf is no authority, though the bundle has it")
    for certificate in path[1:]:
        _check_signing_certificate(certificate, svid)
    for certificate in path[1:-1]:
        _check_intermediate_uses(certificate, svid)
    return VerifiedX509Svid(svid=svid, path=path)


def _require_cert_sign(
    policy: verification.Policy, certificate: x509.Certificate, usage: x509.KeyUsage
) -> None:
    del policy, certificate
    if not usage.key_cert_sign:
        raise ValueError("a signing certificate lacks keyCertSign")


# What the verifier checks under these policies, extensions apart: signatures and their algorithms,
# names, dates, cA and path length of every issuer, and that no critical extension is unknown to it.
# It does not check extended key usage, nor what the leaf's basic constraints say: X509Svid did.
_LEAF_POLICY: Final = verification.ExtensionPolicy.permit_all()
_CA_POLICY: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .require_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _require_cert_sign)
)


def _check_signing_certificate(certificate: x509.Certificate, svid: X509Svid) -> None:
    """X509-SVID sections 3.2 and 4.3; one that is no SVID itself need not keep them."""
    try:
        names = subject_alternative_names(certificate)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []
        ids = [SpiffeId.decode(uri) for uri in uris if uri.startswith("spiffe:")]
        usage = key_usage_of(certificate)
        key_of(certificate)
    except DecodeError as exc:
        raise ChainError(f"{svid.spiffe_id}: a signing certificate: {exc}") from exc
    if len(ids) > 1 or any(spiffe_id.path for spiffe_id in ids):
        raise ChainError(
            f"{svid.spiffe_id}: signed by {', '.join(map(str, ids))}, which is no authority"
        )
    if ids and not usage.critical:
        raise ChainError(f"{svid.spiffe_id}: a signing certificate's key usage is not critical")


def _check_intermediate_uses(certificate: x509.Certificate, svid: X509Svid) -> None:
    """Extended key usage of an intermediate limits what is below it, as TLS stacks have it."""
    for extension in extensions_of(certificate):
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            uses = set(extension.value)
            if not (uses >= _TLS_USES or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in uses):
                raise ChainError(
                    f"{svid.spiffe_id}: a signing certificate is not for TLS servers and clients"
                )
