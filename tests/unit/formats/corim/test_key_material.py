# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates out of their tags."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.certificates import TestAuthority
from support.signing import p256_signer
from troth.errors import DecodeError, UnsupportedError
from troth.formats.cbor import Tag
from troth.formats.corim.key_material import certificate_of, key_tag, public_key_of
from troth.formats.corim.node import Node
from troth.formats.keys import spki

KEY = p256_signer("key").public_key
PLACE = Node(None, format="CoRIM", name="keys[0]")
PEM = key_tag(KEY).value
CERTIFICATE = x509.load_pem_x509_certificate(TestAuthority().bundle)
DER = CERTIFICATE.public_bytes(serialization.Encoding.DER)


def pem(label: str, content: bytes) -> str:
    return f"-----BEGIN {label}-----\n{b64encode(content).decode()}\n-----END {label}-----"


@pytest.mark.parametrize(
    "text", [PEM, f"\n{PEM}\n\n", b64encode(spki(KEY)).decode(), pem("PUBLIC KEY", spki(KEY))]
)
def test_a_key_is_read_from_pem_and_from_bare_base64(text: str) -> None:
    assert public_key_of(Tag(554, text), PLACE) == KEY


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (Tag(554, b"octets"), "expected text"),
        (Tag(554, "-----BEGIN PUBLIC KEY-----"), "not one complete PEM block"),
        (Tag(554, f"{PEM}{PEM}"), "not one complete PEM block"),
        (Tag(554, f"x{PEM}"), "not base64"),
        (Tag(554, pem("CERTIFICATE", DER)), "a PEM block CERTIFICATE; expected PUBLIC KEY"),
        (Tag(554, pem("PUBLIC KEY", DER)), "not a SubjectPublicKeyInfo"),
        (Tag(554, pem("PUBLIC KEY", spki(KEY)[:-1])), "not a SubjectPublicKeyInfo"),
        (Tag(555, pem("CERTIFICATE", DER)), "where a public key is expected"),
        (Tag(999, "x"), "an unknown kind of key"),
        (Tag(558, {1: 2, -1: 1, -2: bytes(32), -3: bytes(32)}), "not on P-256"),
        (Tag(558, {1: 4, -1: bytes(32)}), "is no secret any more"),
    ],
)
def test_anything_else_is_no_key(tag: Tag, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as refusal:
        public_key_of(tag, PLACE)
    assert "keys[0]: " in str(refusal.value)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        rsa.generate_private_key(65537, 1024).public_key(),  # noqa: S505 - the weak key is the point
    ],
)
def test_a_key_that_is_never_verified_with_is_refused(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
) -> None:
    encoded = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(UnsupportedError, match=r"keys\[0\]: "):
        public_key_of(Tag(554, encoded.decode()), PLACE)


def test_a_certificate_is_read_from_pem_and_from_der() -> None:
    for tag in (Tag(555, pem("CERTIFICATE", DER)), Tag(562, DER)):
        assert certificate_of(tag, PLACE) == CERTIFICATE


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (Tag(554, PEM), "where a certificate is expected"),
        (Tag(555, pem("PUBLIC KEY", spki(KEY))), "expected CERTIFICATE"),
        (Tag(562, DER[:-1]), "not a certificate"),
        (Tag(562, "text"), "where a certificate is expected"),
        (Tag(556, pem("CERTIFICATE", DER)), "PEM certificate path"),
    ],
)
def test_anything_else_is_no_certificate(tag: Tag, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        certificate_of(tag, PLACE)
