# SPDX-License-Identifier: Apache-2.0
"""The certificate request of a node: proof that it holds a key, and nothing more.

Source: RFC 2986 section 4.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from troth.errors import DecodeError, LimitExceededError, SignatureError, UnsupportedError

__all__ = ["MAX_CSR_BYTES", "NodeKey", "decode_csr"]

MAX_CSR_BYTES = 16 * 1024
_FORMAT = "PKCS #10 request"

NodeKey = ec.EllipticCurvePublicKey


def decode_csr(data: bytes) -> tuple[NodeKey, bytes]:
    """Return the key of a request, and its DER SubjectPublicKeyInfo, after verifying possession.

    Names and extensions in the request are ignored: the server gives the names.

    Raises:
        LimitExceededError: longer than `MAX_CSR_BYTES`.
        DecodeError: not a request.
        UnsupportedError: a key that Troth's proxies do not use.
        SignatureError: the sender does not hold the key.
    """
    if len(data) > MAX_CSR_BYTES:
        raise LimitExceededError(format=_FORMAT, limit="max_csr_bytes", value=MAX_CSR_BYTES)
    try:
        request = x509.load_der_x509_csr(data)
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise DecodeError(f"not a certificate request ({exc})", format=_FORMAT) from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in (
        "secp256r1",
        "secp384r1",
    ):
        raise UnsupportedError("the key is not on P-256 or P-384", format=_FORMAT)
    try:
        possessed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as exc:
        raise SignatureError(f"{_FORMAT}: the signature cannot be checked") from exc
    if not possessed:
        raise SignatureError(f"{_FORMAT}: not signed with the key that it asks a certificate for")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key, spki
