# SPDX-License-Identifier: Apache-2.0
"""Certificate requests: only a key, and proof that the requester holds it.

What a request asks to be called is not looked at. Subject, SANs and any other extension in it are
ignored: names come from registration, never from the one who wants them.

Source: RFC 2986 section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from troth.errors import DecodeError, LimitExceededError, SignatureError, UnsupportedError
from troth.formats.keys import spki
from troth.identity.certificates import key_of

__all__ = [
    "MAX_REQUEST_BYTES",
    "CertificateRequest",
    "SvidKey",
    "check_svid_key",
    "decode_csr",
]

MAX_REQUEST_BYTES: Final = 8192

SvidKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_FORMAT: Final = "certificate request"
_CURVES: Final = frozenset({"secp256r1", "secp384r1"})
_MAX_RSA_BITS: Final = 4096
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A key whose holder asked for a certificate. Only `decode_csr` makes one.

    Attributes:
        public_key: the key; its private half signed the request.
        spki: the same as DER SubjectPublicKeyInfo.
    """

    public_key: SvidKey
    spki: bytes


def check_svid_key(key: object, *, format: str = _FORMAT) -> SvidKey:
    """Return `key` if every TLS stack of the mesh takes it: P-256, P-384, or RSA of 2048 to 4096.

    Ed25519 and P-521 are left out because stock Envoy refuses certificates with the one and, in
    some builds, with the other.

    Raises:
        UnsupportedError: another key.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size <= _MAX_RSA_BITS:
        return key
    raise UnsupportedError(
        "the key is not P-256, P-384, nor RSA of 2048 to 4096 bits",
        format=format,
        remedy="make a P-256 key",
    )


def decode_csr(data: bytes) -> CertificateRequest:
    """Decode a PKCS#10 request, PEM or DER, and check that the requester holds the key.

    Does NOT show that the request is fresh or comes from the one who sent it: the exchange that it
    travels in does.

    Raises:
        DecodeError: not a request; UnsupportedError: a key that is not taken.
        SignatureError: the requester does not hold the key, or signed with a weak hash.
        LimitExceededError: more than `MAX_REQUEST_BYTES`.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise LimitExceededError(format=_FORMAT, limit="max_request_bytes", value=MAX_REQUEST_BYTES)
    pem = data.lstrip().startswith(b"-----BEGIN ")
    try:
        request = x509.load_pem_x509_csr(data) if pem else x509.load_der_x509_csr(data)
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("is not PKCS#10, PEM or DER", format=_FORMAT) from exc
    key = check_svid_key(key_of(request, format=_FORMAT))
    try:
        algorithm = request.signature_hash_algorithm
        held = isinstance(algorithm, _HASHES) and request.is_signature_valid
    except (UnsupportedAlgorithm, ValueError) as exc:
        raise SignatureError(f"{_FORMAT}: signed with an unknown algorithm") from exc
    if not held:
        raise SignatureError(
            f"{_FORMAT}: the signature does not show that the requester holds the key",
            remedy="sign the request with its own key and SHA-256, SHA-384 or SHA-512",
        )
    return CertificateRequest(key, spki(key))
