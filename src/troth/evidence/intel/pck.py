# SPDX-License-Identifier: Apache-2.0
"""The certificates of a platform: its key (PCK), the CA that certified it, and the root.

The chain stands in the quote, so whoever made the quote chose it; which root it may end at is
decided by the trust anchors alone.

Source: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from troth.errors import ChainError, DecodeError
from troth.evidence.certificates import load_certificate, serial_number_of
from troth.evidence.intel.library import PckFields, pck_fields
from troth.evidence.vendors import is_vendor_root

__all__ = ["VENDOR", "PckChain", "find_root", "is_issued_by", "load_pem", "read_pck_chain"]

VENDOR: Final = "intel"

_FORMAT: Final = "PCK certificate chain"
_MAX_CERTIFICATES: Final = 3
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\r\n]*)-----END CERTIFICATE-----"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PckChain:
    """The certificates of a platform, decoded. Nothing in them is believed.

    Attributes:
        leaf: certifies the key that signs for the platform's quoting enclave.
        authority: Intel's PCK Platform CA or PCK Processor CA.
        root: the root that came along, or None.
        fields: what Intel wrote into the leaf.
        authority_name: the authority's encoded Subject.
        authority_word: what Intel's service calls the authority: "platform" or "processor".
    """

    leaf: x509.Certificate
    authority: x509.Certificate
    root: x509.Certificate | None
    fields: PckFields
    authority_name: bytes = field(init=False, repr=False)
    authority_word: str = field(init=False)

    def __post_init__(self) -> None:
        subject = self.authority.subject
        word = "platform" if "Platform" in subject.rfc4514_string() else "processor"
        object.__setattr__(self, "authority_name", subject.public_bytes())
        object.__setattr__(self, "authority_word", word)

    def check(self, root: x509.Certificate, *, at: datetime) -> None:
        """Verify that `root` vouches for the authority and that for the leaf, revocation apart.

        Raises:
            ChainError: it does not, or a certificate is not valid at that time.
        """
        for certificate, issuer in ((self.leaf, self.authority), (self.authority, root)):
            if not is_issued_by(certificate, issuer):
                raise ChainError(f"{_named(certificate)} is not issued by {_named(issuer)}")
        for certificate in (self.leaf, self.authority, root):
            if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
                raise ChainError(
                    f"{_named(certificate)} is valid from {certificate.not_valid_before_utc:%F} to "
                    f"{certificate.not_valid_after_utc:%F}, not at {at:%F}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """A root certificate that is believed.

    Attributes:
        certificate: the root.
        vendors: it is the one that Intel publishes, and dcap-qvl has built in.
        digest: SHA-256 of the certificate, lower-case hex.
        name: its encoded Subject.
        organization: of the Subject, "" where there is none.
    """

    certificate: x509.Certificate = field(repr=False)
    vendors: bool
    digest: str = field(init=False)
    name: bytes = field(init=False, repr=False)
    organization: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        digest = self.certificate.fingerprint(hashes.SHA256()).hex()
        object.__setattr__(self, "digest", digest)
        subject = self.certificate.subject
        names = subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        object.__setattr__(self, "name", subject.public_bytes())
        object.__setattr__(self, "organization", str(names[0].value) if names else "")

    @property
    def der(self) -> bytes:
        """The certificate as the library wants it: b"" for the one that it has built in."""
        return b"" if self.vendors else self.certificate.public_bytes(Encoding.DER)


@lru_cache(maxsize=1024)
def read_pck_chain(data: bytes) -> PckChain:
    """Decode the certificates of a quote: leaf, authority, and the root where it is there.

    A platform sends the same ones with each quote, so the last ones are remembered.

    Raises:
        DecodeError: fewer or more certificates, or one that cannot be read.
        ConfigurationError: dcap-qvl is not installed.
    """
    blocks = [match[0] for match in _PEM.finditer(data)]
    if not 2 <= len(blocks) <= _MAX_CERTIFICATES or _PEM.sub(b"", data).strip(b"\0\r\n "):
        raise DecodeError(
            f"{len(blocks)} certificates in PEM and perhaps more; expected the platform's, its "
            "CA's and the root's, and nothing else",
            format=_FORMAT,
        )
    certificates = load_pem(data, format=_FORMAT)
    return PckChain(
        leaf=certificates[0],
        authority=certificates[1],
        root=certificates[2] if len(certificates) == _MAX_CERTIFICATES else None,
        fields=pck_fields(blocks[0]),
    )


def load_pem(data: bytes, *, format: str) -> list[x509.Certificate]:
    """Return the PEM certificates in `data`, each of them readable in all that we look at.

    Raises:
        DecodeError: one is not.
    """
    certificates: list[x509.Certificate] = []
    for match in _PEM.finditer(data):
        try:
            der = binascii.a2b_base64(match[1])
        except binascii.Error as exc:
            raise DecodeError(f"damaged PEM: {exc}", format=format) from exc
        certificate = load_certificate(der, format=format)
        try:
            # The library reads these when asked for, and fails only then.
            _ = (certificate.subject, certificate.issuer)
            _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
            key = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise DecodeError(f"a certificate cannot be read: {exc}", format=format) from exc
        if serial_number_of(certificate) < 1:
            raise DecodeError("a certificate's serial number is not positive", format=format)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise DecodeError("a certificate has no key on an elliptic curve", format=format)
        certificates.append(certificate)
    return certificates


@lru_cache(maxsize=1024)
def find_root(
    chain: PckChain,
    *,
    anchors: tuple[x509.Certificate, ...],
    vendors: frozenset[str],
    others: tuple[x509.Certificate, ...] = (),
) -> Root:
    """Return the trust anchor that issued the chain's authority; the answer is remembered.

    Args:
        chain: a platform's certificates.
        anchors: roots that are believed.
        vendors: vendors whose published roots are believed.
        others: certificates of the collateral, among which the vendor's root may be.

    Raises:
        ChainError: there is none.
    """
    authority = chain.authority
    for anchor in anchors:
        if is_issued_by(authority, anchor):
            return Root(anchor, is_vendor_root(anchor, VENDOR, believed={VENDOR}))
    for candidate in (*((chain.root,) if chain.root is not None else ()), *others):
        # Known by its key; that it signed itself shows that the rest of it is genuine too.
        if (
            is_vendor_root(candidate, VENDOR, believed=vendors)
            and is_issued_by(candidate, candidate)
            and is_issued_by(authority, candidate)
        ):
            return Root(candidate, vendors=True)
    if VENDOR in vendors:
        remedy = "If this platform is one of your tests, give its root as a trust anchor."
    else:
        remedy = (
            f"To believe the root that Intel publishes, trust the vendor {VENDOR!r} "
            f"(--trust-vendor {VENDOR}); another root has to be given as a trust anchor."
        )
    raise ChainError(
        f"the platform's certificates end at {_named(authority, issuer=True)}, which is no trust "
        "anchor",
        remedy=remedy,
    )


@lru_cache(maxsize=1024)
def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Say whether `issuer` is a CA, is named as issuer, and its signature verifies.

    Time and revocation are not looked at, so that the answer can be remembered.
    """
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (
        InvalidSignature,
        UnsupportedAlgorithm,
        ValueError,
        TypeError,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        return False
    return True


def _named(certificate: x509.Certificate, *, issuer: bool = False) -> str:
    name = certificate.issuer if issuer else certificate.subject
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return repr(str(common[0].value)) if common else "a certificate without a name"
