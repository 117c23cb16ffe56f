# SPDX-License-Identifier: Apache-2.0
import hashlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from support.x509 import NOW, Plan, p256, sign, signing, usage
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError
from troth.formats.keys import spki
from troth.identity.certificates import MAX_CHAIN_BYTES
from troth.identity.spiffe_id import SpiffeId
from troth.identity.x509_svid import X509Svid

ROOT = signing()
KEY = p256()
LEAF = Plan(key=KEY)
SHORT_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is to be refused


def svid(**changes: object) -> X509Svid:
    return X509Svid(chain=[sign(replace(LEAF, **changes), ROOT)])


def test_a_plain_leaf_is_an_svid() -> None:
    found = svid()
    assert found.spiffe_id == SpiffeId.decode("spiffe://example.org/web")
    assert found.public_key.public_numbers() == KEY.public_key().public_numbers()
    assert found.spki == spki(KEY.public_key())
    assert found.not_after > NOW > found.not_before
    assert found.node_id == ""
    assert found.private_key is None


@pytest.mark.parametrize(
    "changes",
    [
        {"ca": None},
        {"uses": None},
        {"dns_names": ("web.example.org",)},
        {"usage": usage("digital_signature", "key_encipherment", "key_agreement")},
        {"uses": (*LEAF.uses, ExtendedKeyUsageOID.CODE_SIGNING)},
        {"subject": "", "san_critical": True},
        {"san_critical": True},
        {"key": ec.generate_private_key(ec.SECP384R1())},
        {"key": ed25519.Ed25519PrivateKey.generate()},
        {"key": rsa.generate_private_key(65537, 2048)},
        {"more": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), False)]},
    ],
)
def test_what_the_specification_leaves_open_is_taken(changes: Mapping[str, object]) -> None:
    assert str(svid(**changes).spiffe_id) == "spiffe://example.org/web"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ca": True}, "CA certificate"),
        ({"usage": None}, "no key usage"),
        ({"usage_critical": False}, "not critical"),
        ({"usage": usage("digital_signature", "key_cert_sign")}, "that of a CA"),
        ({"usage": usage("digital_signature", "crl_sign")}, "that of a CA"),
        ({"usage": usage("key_encipherment")}, "lacks digitalSignature"),
        ({"uses": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "lacks serverAuth or clientAuth"),
        ({"uses": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, "lacks serverAuth or clientAuth"),
        ({"uses": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)}, "lacks serverAuth"),
        ({"uris": ()}, "no URI SAN"),
        ({"uris": (), "dns_names": ("web.example.org",)}, "no URI SAN"),
        ({"uris": ("spiffe://example.org/a", "spiffe://example.org/b")}, "2 URI SANs"),
        ({"uris": ("spiffe://example.org/a", "https://example.org")}, "2 URI SANs"),
        ({"uris": ("spiffe://example.org/a", "spiffe://example.org/a")}, "2 URI SANs"),
        ({"uris": ("https://example.org/web",)}, "does not begin with"),
        ({"uris": ("spiffe://example.org",)}, "no path"),
        ({"uris": ("spiffe://example.org/",)}, "empty segment"),
        ({"uris": ("spiffe://Example.org/web",)}, "trust domain"),
        ({"uris": ("spiffe://example.org/web\n",)}, "segment"),
        ({"uris": ("spiffe://example.org/web\x00",)}, "segment"),
        ({"uris": ("spiffe://example.org/web?x",)}, "segment"),
        ({"subject": ""}, "SAN of a leaf without Subject"),
    ],
)
def test_a_leaf_that_breaks_a_rule_is_refused(changes: Mapping[str, object], words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        svid(**changes)


def test_a_leaf_with_a_weak_or_unknown_key_is_refused() -> None:
    for key in (SHORT_RSA, ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(UnsupportedError):
            svid(key=key)


def test_a_malformed_extension_is_refused_wherever_it_is() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.1"), b"\x30\x05")
    with pytest.raises(DecodeError, match="malformed extensions"):
        svid(more=[(broken, False)])


def test_a_subject_that_cannot_be_read_is_refused() -> None:
    der = svid(subject="", san_critical=True, units=("node:x",)).encode_der()
    text = b"\x0c\x06node:x"
    assert der.count(text) == 1
    with pytest.raises(DecodeError, match="Subject"):
        X509Svid.decode(der.replace(text, b"\x8c\x06node:x"))


def test_a_chain_survives_pem_and_der() -> None:
    issuer = signing(subject="issuer")
    chain = [sign(LEAF, issuer), sign(issuer, ROOT)]
    found = X509Svid(chain=chain)
    assert X509Svid.decode(found.encode_pem()) == found
    assert X509Svid.decode(found.encode_der()) == found
    assert X509Svid.decode(b"\n" + found.encode_pem() + b"\n") == found
    assert found.chain == tuple(chain)
    assert found.fingerprint == hashlib.sha256(chain[0].public_bytes(Encoding.DER)).digest()


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 100, -1, -100])
def test_a_cut_chain_is_refused(cut: int) -> None:
    der = svid().encode_der()
    for data in (der[:cut], der + der[:cut]):
        with pytest.raises(DecodeError):
            X509Svid.decode(data)


def test_anything_beside_the_certificates_is_refused() -> None:
    found = svid()
    key = KEY.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data in (
        b"",
        b"x",
        found.encode_der() + b"\x00",
        found.encode_der() + b"\x02\x01\x00",
        found.encode_der() + b"\x30\x80\x00\x00",
        found.encode_der() + b"\x30\x85\x00\x00\x00\x00\x01\x00",
        found.encode_pem() + b"x",
        found.encode_pem() + key,
        key + found.encode_pem(),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        found.encode_pem().replace(b"END CERT", b"END SERT"),
    ):
        with pytest.raises(DecodeError):
            X509Svid.decode(data)


def test_a_chain_has_a_longest_form() -> None:
    leaf = svid().encode_der()
    assert len(X509Svid.decode(leaf * 10).chain) == 10
    for data in (leaf * 11, leaf * 100, svid().encode_pem() * 11):
        with pytest.raises(LimitExceededError, match="max_certificates"):
            X509Svid.decode(data)
    with pytest.raises(LimitExceededError, match="max_chain_bytes"):
        X509Svid.decode(b"\x30" * (MAX_CHAIN_BYTES + 1))
    with pytest.raises(DecodeError, match="no certificate"):
        X509Svid(chain=[])


def test_a_private_key_goes_with_its_own_certificate_only() -> None:
    certificate = sign(LEAF, ROOT)
    own = X509Svid(chain=[certificate], private_key=KEY)
    loaded = serialization.load_der_private_key(own.encode_private_key(Encoding.DER), None)
    assert loaded.private_numbers() == KEY.private_numbers()
    assert own.encode_private_key(Encoding.PEM).startswith(b"-----BEGIN PRIVATE KEY-----")
    with pytest.raises(ApiMisuseError, match="not that of"):
        X509Svid(chain=[certificate], private_key=p256())
    with pytest.raises(ApiMisuseError, match="no private key"):
        svid().encode_private_key(Encoding.DER)


def test_a_private_key_does_not_show() -> None:
    own = X509Svid(chain=[sign(LEAF, ROOT)], private_key=KEY)
    assert "PrivateKey" not in repr(own)


def test_the_subject_may_name_a_node() -> None:
    assert svid(units=("node:edge-1",)).node_id == "edge-1"
    assert svid(units=("team", "node:edge-1")).node_id == "edge-1"
    assert svid(units=("team",)).node_id == ""
    with pytest.raises(DecodeError, match="several nodes"):
        _ = svid(units=("node:a", "node:b")).node_id
