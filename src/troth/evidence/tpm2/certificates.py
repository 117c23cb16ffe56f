# SPDX-License-Identifier: Apache-2.0
"""Certificates of attestation keys (AK) and endorsement keys (EK).

Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, section 3; TCG "TPM 2.0 Keys for
Device Identity and Attestation", version 1.0, section 8; RFC 5280 section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Final

from cryptography import x509
from cryptography.x509 import verification

from troth.errors import ChainError
from troth.evidence.certificates import VendorDocuments
from troth.evidence.context import VerificationContext

__all__ = ["verify_attestation_certificate", "verify_endorsement_certificate"]

_MAX_INTERMEDIATES: Final = 4
_EK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.1")
_AK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.3")


def verify_attestation_certificate(
    chain: Sequence[x509.Certificate],
    roots: Iterable[x509.Certificate],
    *,
    context: VerificationContext,
) -> x509.Certificate:
    """Verify that one of `roots` vouches for the attestation key of `chain[0]`; return that root.

    That the certified key is a restricted one in a TPM is what a certification authority for
    attestation keys checks before it issues; a root that issues other certificates as well
    vouches for nothing. Does NOT check revocation.

    Args:
        chain: leaf first, then intermediates in any order.
        roots: certification authorities for attestation keys.
        context: when the certificates must be valid, and collateral with more intermediates.

    Raises:
        ChainError: no valid path, or the leaf is not for an attestation key.
    """
    root = _verify(chain, roots, context, "attestation key")
    # Google names attestation keys by the purpose of endorsement keys; the usage tells them apart.
    purposes = (_AK_CERTIFICATE, _EK_CERTIFICATE)
    _check_leaf(chain[0], purposes, "attestation key", ("digital_signature",))
    return root


def verify_endorsement_certificate(
    chain: Sequence[x509.Certificate],
    roots: Iterable[x509.Certificate],
    *,
    context: VerificationContext,
) -> x509.Certificate:
    """Verify that one of `roots` vouches for the endorsement key of `chain[0]`; return that root.

    Does NOT show that anybody holds the key: credential activation does. Nor revocation.

    Raises:
        ChainError: no valid path, or the leaf is not for an endorsement key.
    """
    root = _verify(chain, roots, context, "endorsement key")
    _check_leaf(
        chain[0], (_EK_CERTIFICATE,), "endorsement key", ("key_encipherment", "key_agreement")
    )
    return root


def _verify(
    chain: Sequence[x509.Certificate],
    roots: Iterable[x509.Certificate],
    context: VerificationContext,
    what: str,
) -> x509.Certificate:
    anchors = list(roots)
    if not anchors:
        raise ChainError(
            f"the {what} comes with a certificate, but no root certificate for scheme tpm2 is "
            "trusted",
            remedy="Provision the certification authority's root, or the key itself.",
        )
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(anchors))
        .time(context.time.astimezone(UTC))
        .max_chain_depth(_MAX_INTERMEDIATES)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    documents = VendorDocuments()
    documents.add_collateral(context.collateral)
    more = [each.certificate for each in documents.certificates]
    try:
        path = verifier.verify(chain[0], [*chain[1:], *more]).chain
    except (verification.VerificationError, ValueError, x509.DuplicateExtension) as exc:
        raise ChainError(
            f"no valid path from the {what}'s certificate to a trusted root: {exc}",
            remedy="Compare the certificate's issuer and dates with the roots that are trusted, "
            "and send the intermediates along.",
        ) from exc
    if len(path) < 2:
        raise ChainError(f"the {what}'s certificate is itself among the roots")
    return path[-1]


def _require_cert_sign(
    policy: verification.Policy, certificate: x509.Certificate, usage: x509.KeyUsage
) -> None:
    del policy, certificate
    if not usage.key_cert_sign:
        raise ValueError("a signing certificate lacks keyCertSign")


# An EK's certificate has an empty subject and what it knows in a critical subject alternative name
# of a kind of its own, so the rules for names of servers do not fit the leaf.
_LEAF_POLICY: Final = verification.ExtensionPolicy.permit_all()
_CA_POLICY: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .require_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _require_cert_sign)
)


def _check_leaf(
    certificate: x509.Certificate,
    purposes: tuple[x509.ObjectIdentifier, ...],
    what: str,
    usages: tuple[str, ...],
) -> None:
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension) as exc:
        raise ChainError(f"the {what}'s certificate has malformed extensions: {exc}") from exc
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise ChainError(f"the {what}'s certificate is a certification authority's")
        if isinstance(value, x509.KeyUsage) and not any(getattr(value, each) for each in usages):
            raise ChainError(f"the {what}'s certificate allows none of {', '.join(usages)}")
        # Without this extension a certificate is for whatever its issuer issues for.
        if isinstance(value, x509.ExtendedKeyUsage) and not set(purposes) & set(value):
            stated = ", ".join(each.dotted_string for each in value)
            raise ChainError(
                f"the {what}'s certificate is for {stated}, not for {purposes[0].dotted_string} "
                f"({what})"
            )
