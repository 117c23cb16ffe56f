# SPDX-License-Identifier: Apache-2.0
"""Reading certificates without letting the library's exceptions out.

Everything here takes outside bytes apart; nothing here trusts.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.keys import PublicKey
from troth.formats.limits import MAX_CERTIFICATES
from troth.formats.verification_key import supported_public_key
from troth.identity.spiffe_id import SpiffeId

__all__ = [
    "FORMAT",
    "MAX_CHAIN_BYTES",
    "decode_chain",
    "extensions_of",
    "key_of",
    "key_usage_of",
    "spiffe_id_of",
    "subject_alternative_names",
    "subject_of",
]

FORMAT: Final = "X.509-SVID"

MAX_CHAIN_BYTES: Final = 65_536
"""Octets of a whole chain, PEM or DER."""

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_SEQUENCE: Final = 0x30


def decode_chain(data: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates in `data`: PEM blocks, or DER one after the other.

    Raises:
        DecodeError: something else in between, or a certificate that cannot be read.
        LimitExceededError: more than `MAX_CHAIN_BYTES` or `MAX_CERTIFICATES`.
    """
    if len(data) > MAX_CHAIN_BYTES:
        raise LimitExceededError(format=FORMAT, limit="max_chain_bytes", value=MAX_CHAIN_BYTES)
    pem = data.lstrip().startswith(b"-----BEGIN ")
    parts = _split_pem(data) if pem else _split_der(data)
    if not parts:
        raise DecodeError("there is no certificate", format=FORMAT)
    if len(parts) > MAX_CERTIFICATES:
        raise LimitExceededError(format=FORMAT, limit="max_certificates", value=MAX_CERTIFICATES)
    load = x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate
    try:
        return tuple(map(load, parts))
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("a certificate cannot be read", format=FORMAT) from exc


def _split_pem(data: bytes) -> list[bytes]:
    parts: list[bytes] = _PEM.findall(data)
    if _PEM.sub(b"", data).strip():  # a private key, or damage; not ours to skip over
        raise DecodeError("there is more than PEM certificates", format=FORMAT)
    return parts


def _split_der(data: bytes) -> list[bytes]:
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        if len(parts) > MAX_CERTIFICATES:
            break
        size = _der_size(data, at)
        parts.append(data[at : at + size])
        at += size
    return parts


def _der_size(data: bytes, at: int) -> int:
    """Return the size of the SEQUENCE that begins at `at`, header included."""
    header = data[at : at + 2]
    if len(header) < 2 or header[0] != _SEQUENCE:
        raise DecodeError("not a DER sequence", format=FORMAT, offset=at)
    if header[1] < 0x80:
        return 2 + header[1]
    octets = header[1] & 0x7F
    if not 1 <= octets <= 4 or len(data) < at + 2 + octets:
        raise DecodeError("not a DER length", format=FORMAT, offset=at + 1)
    return 2 + octets + int.from_bytes(data[at + 2 : at + 2 + octets])


def extensions_of(
    certificate: x509.Certificate | x509.CertificateSigningRequest, *, format: str = FORMAT
) -> x509.Extensions:
    """Return the extensions, all of them well-formed.

    Raises:
        DecodeError: one is malformed or repeated.
    """
    try:
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise DecodeError(f"malformed extensions: {exc}", format=format) from exc


def subject_of(certificate: x509.Certificate) -> x509.Name:
    """Return the Subject.

    Raises:
        DecodeError: it cannot be read: the library parses names when they are asked for.
    """
    try:
        return certificate.subject
    except ValueError as exc:
        raise DecodeError("the Subject cannot be read", format=FORMAT) from exc


def subject_alternative_names(
    certificate: x509.Certificate,
) -> x509.Extension[x509.SubjectAlternativeName] | None:
    """Return the SAN extension, or None.

    Raises:
        DecodeError: an extension is malformed.
    """
    try:
        return extensions_of(certificate).get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None


def spiffe_id_of(names: x509.Extension[x509.SubjectAlternativeName] | None) -> SpiffeId | None:
    """Return the SPIFFE ID in the URI SAN, or None where there is no URI SAN.

    Raises:
        DecodeError: several URI SANs, or one that is not a SPIFFE ID.
    """
    if names is None:
        return None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1:
        raise DecodeError(f"there are {len(uris)} URI SANs, not one", format=FORMAT)
    return SpiffeId.decode(uris[0]) if uris else None


def key_usage_of(certificate: x509.Certificate) -> x509.Extension[x509.KeyUsage]:
    """Return the key usage extension.

    Raises:
        DecodeError: there is none, or an extension is malformed.
    """
    try:
        return extensions_of(certificate).get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound as exc:
        raise DecodeError("there is no key usage", format=FORMAT) from exc


def key_of(
    certificate: x509.Certificate | x509.CertificateSigningRequest, *, format: str = FORMAT
) -> PublicKey:
    """Return the public key.

    Raises:
        UnsupportedError: of a type or size that Troth does not verify with.
        DecodeError: it cannot be read.
    """
    try:
        return supported_public_key(certificate.public_key(), format=format)
    except UnsupportedAlgorithm as exc:
        raise UnsupportedError("the key is of an unknown type", format=format) from exc
    except ValueError as exc:
        raise DecodeError("the key cannot be read", format=format) from exc
