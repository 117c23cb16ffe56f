# SPDX-License-Identifier: Apache-2.0
"""TPMT_SIGNATURE."""

from __future__ import annotations

from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.software_tpm import (
    ECDSA,
    RSAPSS,
    RSASSA,
    SHA256,
    SHA384,
    SHA512,
    SoftwareTpm,
    p256,
    sized,
    u16,
)
from troth.errors import DecodeError, LimitExceededError, SignatureError, UnsupportedError
from troth.formats.tpm.signature import decode_signature
from troth.formats.verification_key import VerificationKey

DATA = b"\xffTCG and what a TPM says"


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


TPMS = [
    pytest.param(SoftwareTpm, id="ecdsa-p256"),
    pytest.param(
        lambda: SoftwareTpm(key=ec.generate_private_key(ec.SECP384R1()), hash=SHA384),
        id="ecdsa-p384",
    ),
    pytest.param(
        lambda: SoftwareTpm(key=ec.generate_private_key(ec.SECP384R1()), hash=SHA256),
        id="ecdsa-p384-sha256",
    ),
    pytest.param(lambda: SoftwareTpm(key=rsa_key(), scheme=RSASSA), id="rsassa"),
    pytest.param(lambda: SoftwareTpm(key=rsa_key(), scheme=RSASSA, hash=SHA512), id="rsassa-512"),
    pytest.param(lambda: SoftwareTpm(key=rsa_key(), scheme=RSAPSS), id="rsapss"),
]


def public(tpm: SoftwareTpm, **attributes: str) -> VerificationKey:
    return VerificationKey(tpm.key.public_key(), source="ak.pem", **attributes)


@pytest.mark.parametrize("make", TPMS)
def test_a_signature_verifies_under_its_key_and_over_its_data_only(make: object) -> None:
    tpm = make()
    signature = decode_signature(tpm.sign(DATA))
    signature.verify(public(tpm), DATA, format="quote")
    with pytest.raises(SignatureError, match=r"does not verify under the key from ak\.pem"):
        signature.verify(public(tpm), DATA + b"\0", format="quote")


def test_another_key_of_the_same_kind_does_not_verify() -> None:
    signature = decode_signature(SoftwareTpm().sign(DATA))
    with pytest.raises(SignatureError, match="ECDSA signature does not verify"):
        signature.verify(public(SoftwareTpm(key=p256("other"))), DATA, format="quote")


def test_a_key_of_another_kind_is_refused_with_what_is_wanted() -> None:
    ecdsa, rsassa = SoftwareTpm(), SoftwareTpm(key=rsa_key())
    with pytest.raises(SignatureError, match="ECDSA needs an elliptic-curve key"):
        decode_signature(ecdsa.sign(DATA)).verify(public(rsassa), DATA, format="quote")
    with pytest.raises(SignatureError, match="RSASSA needs an RSA key"):
        decode_signature(rsassa.sign(DATA)).verify(public(ecdsa), DATA, format="quote")


def test_numbers_too_large_for_the_curve_are_refused() -> None:
    data = u16(ECDSA) + u16(SHA256) + sized(b"\x01" + bytes(32)) + sized(b"\x01")
    with pytest.raises(SignatureError, match="a key on a larger curve"):
        decode_signature(data).verify(public(SoftwareTpm()), DATA, format="quote")


def test_numbers_without_their_leading_zeros_are_taken() -> None:
    tpm = SoftwareTpm()
    # About one in 128 signatures has a number that begins with a zero octet.
    for attempt in range(5000):
        data = DATA + attempt.to_bytes(2)
        signature = tpm.sign(data)
        r, s = signature[6:38], signature[40:72]
        if r[0] == 0 or s[0] == 0:
            short = signature[:4] + sized(r.lstrip(b"\0")) + sized(s.lstrip(b"\0"))
            decode_signature(short).verify(public(tpm), data, format="quote")
            return
    pytest.fail("no such signature in 5000")


def test_a_key_that_its_source_restricts_to_another_algorithm_is_refused() -> None:
    tpm = SoftwareTpm()
    signature = decode_signature(tpm.sign(DATA))
    signature.verify(public(tpm, algorithm="ES256"), DATA, format="quote")
    with pytest.raises(SignatureError, match="is for ES384 only"):
        signature.verify(public(tpm, algorithm="ES384"), DATA, format="quote")


def test_a_signature_over_sha_1_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="signed over sha-1"):
        decode_signature(u16(RSASSA) + u16(4) + sized(bytes(256)))


@pytest.mark.parametrize(("scheme", "name"), [(0x1A, "ECDAA"), (0x1B, "SM2"), (5, "0x0005")])
def test_other_schemes_are_refused_by_name(scheme: int, name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{name} signatures"):
        decode_signature(u16(scheme) + u16(SHA256) + sized(b"x"))


def test_every_shorter_signature_and_every_longer_one_is_refused() -> None:
    whole = SoftwareTpm().sign(DATA)
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_signature(whole[:size])
    with pytest.raises(DecodeError, match="follow the end"):
        decode_signature(whole + b"\0")


def test_a_signature_longer_than_any_key_makes_one_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="octets of sig=1024"):
        decode_signature(u16(RSASSA) + u16(SHA256) + sized(bytes(1025)))
