# SPDX-License-Identifier: Apache-2.0
"""From a document's certificate to AWS's root, along the bundle that the document brings.

The bundle is the path itself, root first, so nothing has to be searched for. For each certificate,
from the root down:

1. the first is a trust anchor of the operator, or the root that AWS publishes, if AWS is believed;
2. it is issued by the one before, with ECDSA on P-384 and SHA-384, the first by itself;
3. it is valid at the time in question;
4. all but the last may sign certificates, and as many below them as there are; the last may not;
5. it has no critical extension but those that were looked at.

Revocation is not checked: AWS's lists are behind URLs of its own, and what is below the root lives
for days or hours.

Source: AWS Nitro Enclaves User Guide, "Verifying the root of trust"; RFC 5280 section 6.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import SignatureAlgorithmOID

from troth.errors import ChainError, DecodeError
from troth.evidence.certificates import load_certificate
from troth.evidence.chain_cache import ChainCache
from troth.formats.verification_key import VerificationKey
from troth.identity.certificates import extensions_of

__all__ = ["CertifiedDocumentKey", "certify"]

_CHECKED_EXTENSIONS: Final = x509.BasicConstraints | x509.KeyUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedDocumentKey:
    """The key of an enclave's certificate, with the path that vouches for it.

    Attributes:
        key: verifies the document.
        root: SHA-256 of the root certificate, lower-case hex.
        root_name: the root's subject.
        not_before, not_after: when all certificates of the path are valid.
    """

    key: VerificationKey = field(repr=False)
    root: str
    root_name: x509.Name = field(repr=False)
    not_before: datetime
    not_after: datetime

    def check_time(self, now: datetime) -> None:
        """Refuse a path that is not valid now.

        Raises:
            ChainError: too early or too late.
        """
        if not self.not_before <= now <= self.not_after:
            raise ChainError(
                f"the certificates of the Nitro document are valid from "
                f"{self.not_before:%Y-%m-%dT%H:%M:%SZ} to {self.not_after:%Y-%m-%dT%H:%M:%SZ}, "
                f"not at {now:%Y-%m-%dT%H:%M:%SZ}",
                remedy="A document lives for three hours at most: ask for a new one. For a "
                "recorded one, give the time that it is from.",
            )


def certify(
    bundle: Sequence[bytes],
    certificate: bytes,
    *,
    now: datetime,
    is_anchor: Callable[[x509.Certificate], bool],
    issued: ChainCache[bool],
) -> CertifiedDocumentKey:
    """Return the key of `certificate`, vouched for by the path that `bundle` is.

    Args:
        bundle: DER certificates, the root first.
        certificate: of the enclave, DER.
        now: when the path has to be valid.
        is_anchor: says whether a root certificate is one that the operator believes.
        issued: pairs of issuer and certificate that were found right before: a fleet has its
            upper certificates in common.

    Raises:
        ChainError: the path does not hold, or its root is not believed.
    """
    names = [f"cabundle[{index}]" for index in range(len(bundle))] + ["certificate"]
    try:
        path = [
            load_certificate(der, format=name)
            for name, der in zip(names, (*bundle, certificate), strict=True)
        ]
    except DecodeError as exc:
        raise ChainError(f"Nitro document: {exc}") from exc
    root = path[0]
    if not is_anchor(root):  # (1)
        raise ChainError(
            f"the root that the Nitro document brings is no trust anchor (SHA-256 "
            f"{root.fingerprint(SHA256()).hex()})",
            remedy="Provision the AWS Nitro Enclaves root as a trust anchor, or say that AWS's "
            "published root is believed (--trust-vendor aws).",
        )
    encoded = (*bundle, certificate)
    for index, (name, each) in enumerate(zip(names, path, strict=True)):
        issuer = max(index - 1, 0)
        pair = ChainCache.key((encoded[issuer], encoded[index]))
        if issued.get(pair) is None:
            _check_issued(each, path[issuer], name)  # (2)
            issued.put(pair, True)  # noqa: FBT003 - that it is there is what counts
        _check_extensions(each, name, below=len(path) - 1 - index)  # (4), (5)
    key = path[-1].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):  # pragma: no cover - (2) has seen to it
        raise ChainError("the certificate's key is not on P-384")
    certified = CertifiedDocumentKey(
        key=VerificationKey(key, source="the Nitro document's certificate"),
        root=root.fingerprint(SHA256()).hex(),
        root_name=root.subject,
        not_before=max(each.not_valid_before_utc for each in path),
        not_after=min(each.not_valid_after_utc for each in path),
    )
    certified.check_time(now)  # (3)
    return certified


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate, name: str) -> None:
    try:
        keys = certificate.public_key(), issuer.public_key()
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ChainError(
            f"Nitro document: {name} is not issued by the certificate before it: "
            f"{str(exc) or 'the signature does not verify'}"
        ) from exc
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384 or not all(
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
        for key in keys
    ):
        raise ChainError(f"Nitro document: {name} is not ECDSA on P-384 with SHA-384")


def _check_extensions(certificate: x509.Certificate, name: str, *, below: int) -> None:
    """Check what a certificate may do, that has `below` certificates below it."""
    try:
        extensions = list(extensions_of(certificate, format=name))
    except DecodeError as exc:
        raise ChainError(f"Nitro document: {exc}") from exc
    for extension in extensions:
        if extension.critical and not isinstance(extension.value, _CHECKED_EXTENSIONS):
            raise ChainError(
                f"Nitro document: {name}: critical extension {extension.oid.dotted_string} is not "
                "known"
            )
    values = [extension.value for extension in extensions]
    basic = next((each for each in values if isinstance(each, x509.BasicConstraints)), None)
    usage = next((each for each in values if isinstance(each, x509.KeyUsage)), None)
    if usage is None:
        raise ChainError(f"Nitro document: {name} has no key usage")
    signs = basic is not None and basic.ca
    if below == 0:
        if signs or not usage.digital_signature:
            raise ChainError(f"Nitro document: {name} is for other things than signing documents")
        return
    if not signs or not usage.key_cert_sign:
        raise ChainError(f"Nitro document: {name} may not sign certificates")
    length = basic.path_length if basic is not None else None
    if length is not None and length < below - 1:
        raise ChainError(
            f"Nitro document: {name} allows {length} certificates between it and the last, there "
            f"are {below - 1}"
        )
