# SPDX-License-Identifier: Apache-2.0
"""Claim certificates: a chain to a believed root, and a signature for this join alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from troth.errors import ChainError, DecodeError, LimitExceededError, SignatureError
from troth.formats.keys import spki
from troth.formats.limits import MAX_CERTIFICATES
from troth.mesh.claim_certificate import Claim, sign_claim, verify_claim
from troth.mesh.device import IdentityKind, key_identity

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SVID_KEY, NONCE = b"an encoded public key", bytes(32)
ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
KEYS = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA": rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}
_USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


def certificate(
    key: Any, *usages: str, ca: bool = False, signer: Any = ROOT_KEY, days: int = 1
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    return (
        x509.CertificateBuilder()
        .subject_name(name if ca else x509.Name([]))
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{each: each in usages for each in _USAGES}), critical=True)
        .sign(signer, hashes.SHA256())
    )


ROOT = certificate(ROOT_KEY, "key_cert_sign", ca=True)


def claim(
    key: Any, leaf: x509.Certificate, *, svid_key: bytes = SVID_KEY, nonce: bytes = NONCE
) -> Claim:
    return Claim(
        certificates=(leaf.public_bytes(Encoding.DER),),
        signature=sign_claim(key, svid_key=svid_key, nonce=nonce),
    )


def verify(found: Claim, *, roots: Any = (ROOT,), now: datetime = NOW) -> Any:
    return verify_claim(found, roots=roots, svid_key=SVID_KEY, nonce=NONCE, now=now)


@pytest.mark.parametrize("kind", KEYS)
def test_a_device_proves_by_its_key_who_it_is(kind: str) -> None:
    key: Any = KEYS[kind]
    leaf = certificate(key, "digital_signature")
    expected = key_identity(IdentityKind.CERTIFICATE, spki(key.public_key()))
    assert verify(claim(key, leaf)) == expected
    with pytest.raises(SignatureError):
        verify(claim(key, leaf, nonce=bytes(31) + b"\1"))
    with pytest.raises(SignatureError):
        verify(claim(key, leaf, svid_key=b"another key"))


def test_another_path_is_refused() -> None:
    key, other = KEYS["P-256"], KEYS["P-384"]
    good = claim(key, certificate(key, "digital_signature"))
    with pytest.raises(ChainError, match="no root"):
        verify(good, roots=())
    with pytest.raises(ChainError, match="no valid path"):
        verify(good, now=NOW + timedelta(days=2))
    with pytest.raises(ChainError, match="no valid path"):
        verify(claim(key, certificate(key, "digital_signature", signer=other)))
    with pytest.raises(ChainError, match="no valid path"):
        verify(claim(key, certificate(key, "key_agreement")))
    with pytest.raises(ChainError):
        verify(claim(ROOT_KEY, ROOT))


def test_certificates_of_another_form_are_refused() -> None:
    signature = claim(KEYS["P-256"], ROOT).signature
    with pytest.raises(DecodeError):
        verify(Claim(certificates=(b"none",), signature=signature))
    with pytest.raises(ChainError, match="without a certificate"):
        verify(Claim(certificates=(), signature=signature))
    with pytest.raises(LimitExceededError):
        verify(Claim(certificates=(b"",) * (MAX_CERTIFICATES + 1), signature=signature))
