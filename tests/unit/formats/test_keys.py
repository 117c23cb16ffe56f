# SPDX-License-Identifier: Apache-2.0
"""Verification keys: every form that is read, every near miss that is not, thumbprints, signers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from support.certificates import TestAuthority
from support.vectors import vectors
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError
from troth.formats import cbor
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.cose_key import CoseKey
from troth.formats.jwk import decode_jwk, required_members
from troth.formats.keys import VerificationKey, load_keys, spki, thumbprint
from troth.formats.signatures import compute_mac, verify_mac, verify_signature
from troth.formats.signer import LocalSigner, PrivateKey, load_private_key

PRIVATE: dict[str, PrivateKey] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65537, 2048),
}
SECRET = bytes(range(32))


def verification_key(kind: str) -> VerificationKey:
    public = PRIVATE[kind].public_key()
    return VerificationKey(public)


def pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


FORMS: dict[str, Callable[[PrivateKey], bytes]] = {
    "PEM public key": pem,
    "PEM private key": lambda key: key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ),
    "DER SubjectPublicKeyInfo": lambda key: spki(VerificationKey(key.public_key())),
    "DER private key": lambda key: key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    ),
    "JWK": lambda key: json.dumps(required_members(key.public_key())).encode(),
    "JWK with white space": lambda key: json.dumps(
        {"keys": [required_members(key.public_key())]}, indent=2
    ).encode(),
    "JWK Set": lambda key: json.dumps({"keys": [required_members(key.public_key())]}).encode(),
    "COSE_Key": lambda key: CoseKey.encode(VerificationKey(key.public_key())),
    "COSE_KeySet": lambda key: cbor.encode([CoseKey.to_value(VerificationKey(key.public_key()))]),
}


@pytest.mark.parametrize("kind", list(PRIVATE))
@pytest.mark.parametrize("form", list(FORMS))
def test_each_kind_of_key_is_read_from_each_form(form: str, kind: str) -> None:
    (key,) = load_keys(FORMS[form](PRIVATE[kind]), source="iak")
    assert spki(key) == spki(verification_key(kind))
    assert key.source == "iak"


@pytest.mark.parametrize("private_format", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_the_older_private_key_forms_give_their_public_half(private_format: PrivateFormat) -> None:
    for kind in ("P-256", "RSA"):
        encoded = PRIVATE[kind].private_bytes(Encoding.PEM, private_format, NoEncryption())
        (key,) = load_keys(b"# a comment\n" + encoded, source="iak")
        assert spki(key) == spki(verification_key(kind))


def test_a_certificate_gives_its_subjects_key_in_pem_and_der() -> None:
    certificate = TestAuthority().issue("spiffe://example.org/a").certificate
    for encoding in (Encoding.PEM, Encoding.DER):
        (key,) = load_keys(certificate.public_bytes(encoding), source="cert")
        assert thumbprint(key) == thumbprint(certificate.public_key())  # type: ignore[arg-type]


def test_one_pem_file_may_hold_several_keys_in_order() -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    data = b"trust anchors\n" + parameters + pem(PRIVATE["P-384"]) + b"\n" + pem(PRIVATE["RSA"])
    keys = load_keys(data, source="anchors.pem")
    assert [spki(key) for key in keys] == [spki(verification_key(k)) for k in ("P-384", "RSA")]


def test_a_symmetric_key_is_read_from_jwk_and_cose_key() -> None:
    for data in (
        json.dumps({"kty": "oct", "k": encode_base64url(SECRET), "alg": "HS256"}).encode(),
        cbor.encode({1: 4, -1: SECRET, 3: 5}),
    ):
        (key,) = load_keys(data, source="iak")
        assert (key.material, key.algorithm) == (SECRET, "HMAC 256/256")


def test_key_identifiers_and_algorithms_come_along() -> None:
    jwk = {**required_members(PRIVATE["P-256"].public_key()), "kid": "one", "alg": "ES256"}
    (key,) = load_keys(json.dumps(jwk).encode(), source="iak")
    assert (key.key_id, key.algorithm) == ("one", "ES256")
    (again,) = load_keys(CoseKey.encode(key), source="iak")
    assert again == key
    binary = {**CoseKey.to_value(key), 2: b"\xff\xfe"}
    assert CoseKey.from_value(binary).key_id == "fffe"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"hello",
        b"\xff\xfe",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+0",
        b"-----BEGIN PUBLIC KEY-----\nMFkw",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
        b"\x30\x00",
        b"\x30\x03\x02\x01\x00",
        b"{",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": {}}',
        b'{"keys": [1]}',
        b'{"kty": "EC"}',
        b'{"kty": "EC", "kty": "OKP"}',
        b'{"kty": "oct", "k": ""}',
        b'{"kty": "oct", "k": "AA=="}',
        b'{"kty": "oct", "k": "A"}',
        b'{"kty": "oct", "k": 1}',
        b'{"kty": "oct", "k": "AA", "kid": 7}',
        b'{"kty": ["oct"]}',
        b"\xa0",
        b"\x80",
        b"\x81\x00",
        b"\xa1\x01\x02\x00",
    ],
)
def test_what_is_no_key_is_refused_with_a_name(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^iak"):
        load_keys(data, source="iak")


def test_a_file_in_no_known_form_is_told_which_forms_there_are() -> None:
    with pytest.raises(DecodeError) as caught:
        load_keys(b"hello", source="file iak.txt")
    for form in ("PEM", "DER", "JWK", "COSE_Key", "certificate"):
        assert form in caught.value.remedy


def test_an_encrypted_private_key_is_refused_with_what_to_do() -> None:
    password = BestAvailableEncryption(b"secret")
    encoded = PRIVATE["P-256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password)
    old = PRIVATE["P-256"].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, password)
    for data in (encoded, old):
        with pytest.raises(DecodeError, match="encrypted") as caught:
            load_keys(data, source="iak")
        assert "public key" in caught.value.remedy


UNSUPPORTED = [
    ec.generate_private_key(ec.SECP256K1()).public_key(),
    ec.generate_private_key(ec.SECP224R1()).public_key(),
    ed448.Ed448PrivateKey.generate().public_key(),
    x25519.X25519PrivateKey.generate().public_key(),
    rsa.generate_private_key(65537, 1024).public_key(),  # noqa: S505 - it must be refused
    dsa.generate_private_key(2048).public_key(),
]


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("key", UNSUPPORTED, ids=lambda key: type(key).__name__)
def test_keys_that_troth_does_not_verify_with_are_refused(
    key: ec.EllipticCurvePublicKey, encoding: Encoding
) -> None:
    encoded = key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(UnsupportedError):
        load_keys(encoded, source="iak")


def test_an_rsa_exponent_made_to_be_slow_is_refused() -> None:
    public = PRIVATE["RSA"].public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    jwk = required_members(public)
    jwk["e"] = encode_base64url(((1 << 2000) + 1).to_bytes(251))
    with pytest.raises(DecodeError):
        load_keys(json.dumps(jwk).encode(), source="iak")
    jwk["e"] = encode_base64url(((1 << 40) + 1).to_bytes(6))
    with pytest.raises(UnsupportedError, match="exponent"):
        load_keys(json.dumps(jwk).encode(), source="iak")


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521"])
def test_a_compressed_point_is_the_same_key(kind: str) -> None:
    value = CoseKey.to_value(verification_key(kind))
    y = value[-3]
    assert isinstance(y, bytes)
    compressed = {**value, -3: bool(y[-1] & 1)}
    assert spki(CoseKey.from_value(compressed)) == spki(verification_key(kind))
    opposite = {**value, -3: not y[-1] & 1}
    assert spki(CoseKey.from_value(opposite)) != spki(verification_key(kind))


def altered(**changes: object) -> dict[int, object]:
    """Return the P-256 COSE_Key with members replaced, or left out where None."""
    names = {"kty": 1, "kid": 2, "alg": 3, "ops": 4, "crv": -1, "x": -2, "y": -3}
    value = {**CoseKey.to_value(verification_key("P-256"))}
    value.update((names[name], change) for name, change in changes.items())
    return {label: member for label, member in value.items() if member is not None}


@pytest.mark.parametrize(
    "value",
    [
        altered(kty=None),
        altered(kty=True),
        altered(kty="EC2"),
        altered(kty=9),
        altered(kty=1),
        altered(kty=3),
        altered(kty=4),
        altered(crv=None),
        altered(crv=2),
        altered(crv=8),
        altered(crv="P-256"),
        altered(crv=True),
        altered(x=None),
        altered(x=bytes(31)),
        altered(x=bytes(33)),
        altered(x=b"\xff" * 32),
        altered(y=None),
        altered(y=bytes(32)),
        altered(y=bytes(31)),
        altered(y=1),
        altered(x=bytes(31) + b"\1", y=True),
        altered(kid="text"),
        altered(alg=-999),
        altered(alg="ES256"),
        altered(ops=[1]),
        altered(ops=[]),
        altered(ops=2),
        {1: 1, -1: 6, -2: bytes(31)},
        {1: 1, -1: 4, -2: bytes(32)},
        {1: 3, -1: b"\x01", -2: b"\x03"},
        {1: 4, -1: b""},
        {1: 4, -1: b"x" * 32, 4: [9]},
        [],
    ],
)
def test_a_malformed_cose_key_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        CoseKey.from_value(value)


POINT = required_members(PRIVATE["P-256"].public_key())
OTHER = required_members(PRIVATE["P-384"].public_key())
EDWARDS = required_members(PRIVATE["Ed25519"].public_key())
MODULUS = required_members(PRIVATE["RSA"].public_key())


@pytest.mark.parametrize(
    "value",
    [
        {**POINT, "kty": "ec"},
        {**POINT, "kty": None},
        {**POINT, "crv": "P-384"},
        {**POINT, "crv": "secp256k1"},
        {**POINT, "crv": ["P-256"]},
        {**POINT, "x": OTHER["x"]},
        {**POINT, "x": POINT["y"]},
        {**POINT, "y": ""},
        {**POINT, "y": None},
        {**POINT, "x": encode_base64url(bytes(32)), "y": encode_base64url(bytes(32))},
        {**POINT, "x": POINT["x"] + "="},
        {**POINT, "alg": 7},
        {**EDWARDS, "crv": "Ed448"},
        {**EDWARDS, "crv": "X25519"},
        {**EDWARDS, "x": EDWARDS["x"][:-2]},
        {**MODULUS, "e": "AA"},
        {**MODULUS, "e": "AQ"},
        {**MODULUS, "e": "Ag"},
        {**MODULUS, "n": "AQ"},
        {**MODULUS, "n": encode_base64url(b"\xff" * 1025)},
        {**MODULUS, "n": None},
        {**MODULUS, "kty": "EC"},
        [POINT],
        "text",
    ],
)
def test_a_malformed_jwk_is_refused(value: object) -> None:
    decode_jwk(POINT, format="JWK")
    with pytest.raises(DecodeError, match="JWK"):
        decode_jwk(value, format="JWK")


def test_only_known_algorithms_can_be_asked_for() -> None:
    key = VerificationKey(PRIVATE["P-256"].public_key())
    for algorithm in ("none", "", "HS256", "ES257"):
        with pytest.raises(ApiMisuseError, match="unknown"):
            verify_signature(key, algorithm, bytes(64), b"", format="x")
        with pytest.raises(ApiMisuseError, match="unknown"):
            verify_mac(VerificationKey(SECRET), algorithm, bytes(32), b"", format="x")
        with pytest.raises(ApiMisuseError, match="unknown"):
            compute_mac(SECRET, algorithm, b"")


def test_a_key_for_an_algorithm_without_a_cose_number_cannot_be_written() -> None:
    with pytest.raises(ApiMisuseError, match="RS256"):
        CoseKey.encode(VerificationKey(PRIVATE["RSA"].public_key(), algorithm="RS256"))


def test_a_symmetric_cose_key_is_written_back() -> None:
    key = VerificationKey(SECRET, key_id="k", algorithm="HMAC 256/256")
    assert CoseKey.decode(CoseKey.encode(key)) == key


def test_key_ops_that_allow_verifying_are_fine() -> None:
    CoseKey.from_value(altered(ops=[1, 2]))
    CoseKey.from_value({1: 4, -1: SECRET, 4: [9, 10]})


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (  # RFC 7638 section 3.1
            {
                "kty": "RSA",
                "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuh"
                "DR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0"
                "h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91Cb"
                "OpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF"
                "Cur-kEgU8awapJzKnqDKgw",
                "e": "AQAB",
                "alg": "RS256",
                "kid": "2011-04-29",
            },
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        ),
        (  # RFC 8037 appendix A.3
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        ),
    ],
)
def test_thumbprints_are_those_of_the_rfcs(members: Mapping[str, str], expected: str) -> None:
    (key,) = load_keys(json.dumps(members).encode(), source="rfc")
    assert thumbprint(key) == decode_base64url(expected, format="thumbprint").hex()
    assert thumbprint(key.material) == thumbprint(key)


def test_the_thumbprint_of_a_symmetric_key_is_that_of_its_jwk() -> None:
    # SHA-256 of {"k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","kty":"oct"}
    expected = "5aa8cf3d1bc03fca186c0a82c0c12b8734e0f90b9acfebcbc7f71e7f4ef284eb"
    assert thumbprint(SECRET) == expected
    assert thumbprint(SECRET) == thumbprint(VerificationKey(SECRET, key_id="x"))


def test_a_symmetric_key_has_no_public_key_info() -> None:
    with pytest.raises(ApiMisuseError):
        spki(VerificationKey(SECRET))


def test_limits_hold_before_anything_is_parsed() -> None:
    with pytest.raises(LimitExceededError, match="max_bytes"):
        load_keys(b"{" + b" " * 65_536, source="iak")
    one = pem(PRIVATE["P-256"])
    assert len(load_keys(one * 256, source="iak")) == 256
    with pytest.raises(LimitExceededError, match="max_keys"):
        load_keys(one * 257, source="iak")
    jwk = {"kty": "oct", "k": "AA"}
    with pytest.raises(LimitExceededError, match="max_keys"):
        load_keys(json.dumps({"keys": [jwk] * 257}).encode(), source="iak")
    with pytest.raises(LimitExceededError, match="max_keys"):
        load_keys(cbor.encode([{1: 4, -1: b"x"}] * 257), source="iak")


@pytest.mark.parametrize(
    ("kind", "algorithm", "size"),
    [
        ("P-256", "ES256", 64),
        ("P-384", "ES384", 96),
        ("P-521", "ES512", 132),
        ("Ed25519", "EdDSA", 64),
        ("RSA", "PS256", 256),
    ],
)
def test_a_local_signers_signatures_verify(kind: str, algorithm: str, size: int) -> None:
    signer = LocalSigner(PRIVATE[kind], key_id="one")
    assert (signer.algorithm, signer.key_id) == (algorithm, "one")
    for data in (b"", b"data", b"other"):
        signature = signer.sign(data)
        assert len(signature) == size
        verify_signature(VerificationKey(signer.public_key), algorithm, signature, data, format="x")


def test_a_local_signer_takes_no_key_that_would_not_be_verified_with() -> None:
    with pytest.raises(UnsupportedError):
        LocalSigner(ec.generate_private_key(ec.SECP256K1()))


def test_a_local_signer_does_not_show_its_key() -> None:
    key = PRIVATE["P-256"]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value
    shown = repr(LocalSigner(key)) + str(vars(LocalSigner(key)).keys())
    assert str(secret) not in shown
    assert f"{secret:x}" not in shown


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("kind", list(PRIVATE))
def test_a_private_key_is_loaded_from_pem_and_der(kind: str, encoding: Encoding) -> None:
    encoded = PRIVATE[kind].private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())
    key = load_private_key(encoded, source="key")
    assert spki(VerificationKey(key.public_key())) == spki(verification_key(kind))


def test_anything_but_an_unencrypted_private_key_is_refused() -> None:
    encrypted = PRIVATE["P-256"].private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    for data in (b"", b"x", pem(PRIVATE["P-256"]), encrypted):
        with pytest.raises(DecodeError, match="not a private key") as caught:
            load_private_key(data, source="key.pem")
        assert "unencrypted" in caught.value.remedy
    other = x25519.X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(UnsupportedError, match="X25519"):
        load_private_key(other, source="key.pem")


@pytest.mark.parametrize(
    "text", ["AA==", "AA\n", " AA", "A", "AAAAA", "A+A", "A/A", "AB", "AAB", "Ä", "A.A"]
)
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(DecodeError, match=r"^x: "):
        decode_base64url(text, format="x")


def test_base64url_round_trips_every_length() -> None:
    for size in range(67):
        octets = bytes(range(200, 200 + min(size, 55))) + bytes(max(0, size - 55))
        text = encode_base64url(octets)
        assert decode_base64url(text, format="x") == octets
        assert text == base64.urlsafe_b64encode(octets).decode().rstrip("=")


@pytest.mark.parametrize(
    ("scheme", "path", "expected"),
    [
        ("psa", "rfc9783/tfm-es-iak.json", 1),
        ("psa", "veraison-services/ec.p256.jwk", 1),
        ("cca", "ccatoken/cca_platform.pub", 1),
        ("cca", "veraison-services/ec.p384.jwk", 1),
        ("cca", "iat-verifier/cca_realm.pem", 1),
        ("ear", "veraison-ear/pkey.json", 1),
        ("ear", "c-ear/pkey.pem", 1),
        ("tpm", "veraison-services/basic.pem.pub", 1),
        ("keylime", "akpub.pem", 1),
        ("keylime", "iak_idevid_chain.pem", 2),
        ("sev-snp", "go-sev-guest/ask_ark_genoa.pem", 2),
    ],
)
def test_keys_from_elsewhere_are_read(scheme: str, path: str, expected: int) -> None:
    keys = load_keys((vectors(scheme) / path).read_bytes(), source=path)
    assert len(keys) == expected


def test_the_published_cpak_is_one_key_in_two_forms() -> None:
    folder = vectors("cca")
    (pub,) = load_keys((folder / "ccatoken/cca_platform.pub").read_bytes(), source="pub")
    (private,) = load_keys((folder / "iat-verifier/cca_platform.pem").read_bytes(), source="pem")
    assert thumbprint(pub) == thumbprint(private)
