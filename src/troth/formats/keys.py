# SPDX-License-Identifier: Apache-2.0
"""Verification keys in whatever form an operator or an Endorser hands them over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from troth.errors import ApiMisuseError, DecodeError, LimitExceededError
from troth.formats import cbor
from troth.formats.cose_key import CoseKey
from troth.formats.jwk import MAX_KEYS, decode_jwk, decode_jwks, thumbprint
from troth.formats.limits import DEFAULT_LIMITS, Limits
from troth.formats.strict_json import decode_json_object
from troth.formats.tpm.public import decode_public, looks_like_public
from troth.formats.verification_key import (
    PublicKey,
    VerificationKey,
    supported_public_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

__all__ = [
    "ACCEPTED_FORMS",
    "PublicKey",
    "VerificationKey",
    "load_keys",
    "spki",
    "thumbprint",
]

ACCEPTED_FORMS = (
    "PEM (one or more public keys, unencrypted private keys or certificates), "
    "DER (SubjectPublicKeyInfo, certificate, PKCS#8), JWK, JWK Set, COSE_Key or TPM2B_PUBLIC"
)

_PEM_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,40})-----(?:(?!-----)[\s\S])*+-----END \1-----", re.ASCII
)
_PEM_IGNORED = {b"EC PARAMETERS"}
_PEM_PRIVATE = {
    b"PRIVATE KEY",
    b"EC PRIVATE KEY",
    b"RSA PRIVATE KEY",
    b"ENCRYPTED PRIVATE KEY",
}
_PEM_CERTIFICATE = {b"CERTIFICATE", b"X509 CERTIFICATE"}


def load_keys(
    data: bytes, *, source: str, limits: Limits = DEFAULT_LIMITS
) -> list[VerificationKey]:
    """Read the verification keys in `data`, whose form is recognised from its first octets.

    A private key gives its public half, a certificate its subject's key. Nothing is checked of a
    certificate: neither its signature nor its dates. Give it to a path validator for that.

    Args:
        data: the content of the file or field.
        source: where it came from, for messages and for `VerificationKey.source`.
        limits: what reading may cost.

    Returns:
        One key or more, in the order of the source.

    Raises:
        DecodeError: none of `ACCEPTED_FORMS`, or damaged.
        UnsupportedError: a key that Troth does not verify with.
        LimitExceededError: too large, or too many keys.
    """
    if len(data) > limits.max_bytes:
        raise LimitExceededError(format=source, limit="max_bytes", value=limits.max_bytes)
    start = data.lstrip()[:1]
    if b"-----BEGIN " in data:
        keys = _pem(data, source)
    elif start in {b"{", b"["}:
        keys = _json(data, source, limits)
    elif data[:1] == b"\x30":
        keys = [_der(data, source)]
    elif data[:1] and 0x80 <= data[0] <= 0xBB:
        keys = _cose(data, source, limits)
    elif looks_like_public(data):
        keys = [VerificationKey(decode_public(data).public_key())]
    else:
        raise _unrecognised(source, "empty" if not data else "not a key in any form Troth reads")
    if not keys:
        raise _unrecognised(source, "no key in it")
    return [
        VerificationKey(key.material, key_id=key.key_id, source=source, algorithm=key.algorithm)
        for key in keys
    ]


def spki(key: VerificationKey | PublicKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo.

    Raises:
        ApiMisuseError: a symmetric key has none.
    """
    material = key.material if isinstance(key, VerificationKey) else key
    if isinstance(material, bytes):
        raise ApiMisuseError("a symmetric key has no SubjectPublicKeyInfo")
    return material.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _pem(data: bytes, source: str) -> list[VerificationKey]:
    keys: list[VerificationKey] = []
    for block in _PEM_BLOCK.finditer(data):
        label = block[1]
        if label in _PEM_IGNORED:
            continue
        if len(keys) >= MAX_KEYS:
            raise LimitExceededError(format=source, limit="max_keys", value=MAX_KEYS)
        key: object
        if label == b"PUBLIC KEY":
            key = _parsed(serialization.load_pem_public_key, block[0], source)
        elif label in _PEM_CERTIFICATE:
            key = _certificate_key(
                _parsed(x509.load_pem_x509_certificate, block[0], source), source
            )
        elif label in _PEM_PRIVATE:
            key = _parsed(
                lambda pem: serialization.load_pem_private_key(pem, None).public_key(),
                block[0],
                source,
            )
        else:
            raise _unrecognised(source, f"a PEM block of the kind {label.decode()}")
        keys.append(VerificationKey(supported_public_key(key, format=source)))
    if not keys:
        raise _unrecognised(source, "no complete PEM block with a key in it")
    return keys


def _der(data: bytes, source: str) -> VerificationKey:
    readers: tuple[Callable[[bytes], object], ...] = (
        serialization.load_der_public_key,
        lambda der: _certificate_key(x509.load_der_x509_certificate(der), source),
        lambda der: serialization.load_der_private_key(der, None).public_key(),
    )
    for reader in readers:
        try:
            key = reader(data)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            continue
        return VerificationKey(supported_public_key(key, format=source))
    raise _unrecognised(source, "DER, but neither a public key, a certificate nor a private key")


def _json(data: bytes, source: str, limits: Limits) -> list[VerificationKey]:
    value = decode_json_object(data, format=source, limits=limits)
    if "keys" in value and "kty" not in value:
        return decode_jwks(value, format=source)
    return [decode_jwk(value, format=source)]


def _cose(data: bytes, source: str, limits: Limits) -> list[VerificationKey]:
    value = cbor.decode(data, format=source, limits=limits)
    # An array is a COSE_KeySet (RFC 9052 section 7).
    members = value if isinstance(value, list) else [value]
    if len(members) > MAX_KEYS:
        raise LimitExceededError(format=source, limit="max_keys", value=MAX_KEYS)
    return [CoseKey.from_value(member, format=source) for member in members]


def _parsed(reader: Callable[[bytes], T], data: bytes, source: str) -> T:
    try:
        return reader(data)
    except TypeError as exc:  # how cryptography says that a password is needed
        raise DecodeError(
            "the private key is encrypted", format=source, remedy="Give the public key instead."
        ) from exc
    except UnsupportedAlgorithm as exc:
        raise DecodeError(f"unsupported key: {exc}", format=source, remedy=_REMEDY) from exc
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError(f"damaged: {exc}", format=source, remedy=_REMEDY) from exc


def _certificate_key(certificate: x509.Certificate, source: str) -> object:
    return _parsed(lambda _: certificate.public_key(), b"", source)


_REMEDY = f"Give one of: {ACCEPTED_FORMS}."


def _unrecognised(source: str, found: str) -> DecodeError:
    return DecodeError(found, format=source, remedy=_REMEDY)
