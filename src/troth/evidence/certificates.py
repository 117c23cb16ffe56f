# SPDX-License-Identifier: Apache-2.0
"""Certificates and revocation lists of vendors, read from Evidence and collateral.

Nothing is verified here. Outside bytes are taken apart without letting the library's exceptions
out, and each certificate remembers where it came from, for messages.
"""

from __future__ import annotations

import base64
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.utils import CryptographyDeprecationWarning

from troth.errors import DecodeError, LimitExceededError
from troth.evidence.context import Collateral

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "MAX_POOLED_CERTIFICATES",
    "PooledCertificate",
    "PooledRevocationList",
    "VendorDocuments",
    "load_certificate",
    "serial_number_of",
]

MAX_POOLED_CERTIFICATES: Final = 64
"""Certificates, and revocation lists, that one verification looks at."""

MAX_DOCUMENT_BYTES: Final = 1_048_576
"""Octets of one file of certificates, or of one revocation list."""

_PEM: Final = re.compile(
    rb"-----BEGIN (CERTIFICATE|X509 CRL)-----([^-]*)-----END \1-----",
)
_SEQUENCE: Final = b"\x30"

_one_at_a_time = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep in what the library has to say about certificates that others made.

    AMD gives the keys of its chips the serial number 0, which RFC 5280 forbids; hostile ones have
    names of odd lengths. Neither is looked at by us where it matters, and a warning is no way to
    tell anybody. `catch_warnings` swaps a global list, hence one at a time.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Parsed a serial number", CryptographyDeprecationWarning)
        warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)
        yield


def load_certificate(data: bytes, *, format: str) -> x509.Certificate:
    """Return the DER certificate, whatever its serial number is.

    A test with a real key of AMD's notices when the library makes its threat true and refuses it.

    Raises:
        DecodeError: not a certificate.
    """
    try:
        with _quiet():
            certificate = x509.load_der_x509_certificate(data)
            # The library reads names when they are asked for, and remembers them. From here on,
            # asking for them is safe.
            _ = certificate.subject, certificate.issuer
    except (ValueError, TypeError, x509.InvalidVersion) as exc:
        raise DecodeError(f"not a certificate: {exc}", format=format) from exc
    return certificate


def serial_number_of(certificate: x509.Certificate) -> int:
    """Return the serial number, whatever it is: the library warns about those below 1."""
    with _quiet():
        return certificate.serial_number


@dataclass(frozen=True, slots=True)
class PooledCertificate:
    """A certificate and where it came from.

    Attributes:
        certificate: the certificate.
        source: for messages.
        in_evidence: it came with the Evidence, so that whoever made the Evidence chose it.
    """

    certificate: x509.Certificate = field(repr=False)
    source: str
    in_evidence: bool

    @property
    def digest(self) -> bytes:
        """SHA-256 of the certificate."""
        return self.certificate.fingerprint(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class PooledRevocationList:
    """A revocation list and where it came from.

    Attributes:
        revocation_list: the list.
        issuer: who is said to have made it.
        source: for messages.
    """

    revocation_list: x509.CertificateRevocationList = field(repr=False)
    issuer: x509.Name = field(repr=False)
    source: str


@dataclass(slots=True)
class VendorDocuments:
    """Certificates and revocation lists to build chains from, in the order that they came.

    Attributes:
        certificates: each once.
        revocation_lists: all of them.
        unreadable: sources that look like either and are not, for messages.
    """

    certificates: list[PooledCertificate] = field(default_factory=list)
    revocation_lists: list[PooledRevocationList] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    _known: set[bytes] = field(default_factory=set)

    def add_collateral(self, collateral: Collateral) -> None:
        """Add what the documents hold; one that is neither is another scheme's.

        Raises:
            LimitExceededError: more than `MAX_POOLED_CERTIFICATES` of either.
        """
        for name, data in collateral.documents.items():
            if len(data) > MAX_DOCUMENT_BYTES:
                continue
            try:
                self.add(data, source=f"collateral {name}", in_evidence=False)
            except LimitExceededError:
                raise
            except DecodeError:
                if data.startswith((_SEQUENCE, b"-----BEGIN")):
                    self.unreadable.append(name)

    def add(self, data: bytes, *, source: str, in_evidence: bool) -> None:
        """Add the certificates and lists in `data`: PEM blocks, or one in DER.

        Raises:
            DecodeError: there is neither, or it cannot be read.
            LimitExceededError: more than `MAX_POOLED_CERTIFICATES` of either, or too long.
        """
        if len(data) > MAX_DOCUMENT_BYTES:
            raise LimitExceededError(
                format=source, limit="MAX_DOCUMENT_BYTES", value=MAX_DOCUMENT_BYTES
            )
        found = False
        for kind, der in _blocks(data, source):
            found = True
            if kind == b"X509 CRL":
                self._add_list(der, source)
            else:
                self._add_certificate(der, source, in_evidence=in_evidence)
        if not found:
            raise DecodeError("neither a certificate nor a revocation list", format=source)

    def add_certificate(self, certificate: x509.Certificate, *, source: str) -> None:
        """Add a certificate that is decoded already, such as a trust anchor."""
        self._keep(PooledCertificate(certificate, source, in_evidence=False))

    def _add_certificate(self, der: bytes, source: str, *, in_evidence: bool) -> None:
        certificate = load_certificate(der, format=source)
        self._keep(PooledCertificate(certificate, source, in_evidence))

    def _keep(self, pooled: PooledCertificate) -> None:
        digest = pooled.digest
        if digest in self._known:
            return
        _check_room(len(self.certificates), pooled.source)
        self._known.add(digest)
        self.certificates.append(pooled)

    def _add_list(self, der: bytes, source: str) -> None:
        _check_room(len(self.revocation_lists), source)
        try:
            with _quiet():
                loaded = x509.load_der_x509_crl(der)
                issuer = loaded.issuer
        except (ValueError, TypeError, x509.InvalidVersion) as exc:
            raise DecodeError(f"not a revocation list: {exc}", format=source) from exc
        self.revocation_lists.append(PooledRevocationList(loaded, issuer, source))


def _check_room(held: int, source: str) -> None:
    if held >= MAX_POOLED_CERTIFICATES:
        raise LimitExceededError(
            format=source, limit="MAX_POOLED_CERTIFICATES", value=MAX_POOLED_CERTIFICATES
        )


def _blocks(data: bytes, source: str) -> Iterator[tuple[bytes, bytes]]:
    if not data.startswith(_SEQUENCE):
        for block in _PEM.finditer(data):
            yield block[1], _from_pem(block[2], source)
        return
    # A revocation list and a certificate are told apart by their contents only.
    try:
        x509.load_der_x509_crl(data)
    except (ValueError, x509.InvalidVersion):
        yield b"CERTIFICATE", data
    else:
        yield b"X509 CRL", data


def _from_pem(body: bytes, source: str) -> bytes:
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError as exc:
        raise DecodeError(f"damaged PEM: {exc}", format=source) from exc
