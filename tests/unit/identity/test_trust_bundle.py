# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc.jwk import KeySet

from support.x509 import p256, sign, signing
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError
from troth.formats.keys import VerificationKey
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import (
    MAX_AUTHORITIES,
    TrustBundle,
    TrustBundleSet,
    decode_bundle_map,
    encode_bundle_map,
)

DOMAIN = TrustDomain("example.org")
ROOT = sign(signing())
RSA_ROOT = sign(signing(key=rsa.generate_private_key(65537, 2048)))
JWT_KEY = VerificationKey(p256().public_key(), "jwt-1")
BUNDLE = TrustBundle(
    trust_domain=DOMAIN,
    x509_authorities=[ROOT, RSA_ROOT],
    jwt_authorities=[JWT_KEY],
    sequence=7,
    refresh_hint_seconds=60,
)


def decode(value: object) -> TrustBundle:
    return TrustBundle.decode(json.dumps(value).encode(), trust_domain=DOMAIN)


def encoded() -> dict[str, object]:
    return json.loads(BUNDLE.encode())


def same_keys(one: TrustBundle, other: TrustBundle) -> bool:
    return [k.material.public_numbers() for k in one.jwt_authorities] == [
        k.material.public_numbers() for k in other.jwt_authorities
    ]


def test_a_bundle_comes_back_as_it_was() -> None:
    again = TrustBundle.decode(BUNDLE.encode(), trust_domain=DOMAIN)
    assert again.x509_authorities == BUNDLE.x509_authorities
    assert same_keys(again, BUNDLE)
    assert [key.key_id for key in again.jwt_authorities] == ["jwt-1"]
    assert (again.sequence, again.refresh_hint_seconds) == (7, 60)
    assert again.encode() == BUNDLE.encode()


def test_elements_have_the_members_that_the_specification_names() -> None:
    first, second, third = encoded()["keys"]
    assert set(first) == {"use", "kty", "crv", "x", "y", "x5c"}
    assert set(second) == {"use", "kty", "n", "e", "x5c"}
    assert set(third) == {"use", "kty", "crv", "x", "y", "kid"}
    assert [element["use"] for element in encoded()["keys"]] == [
        "x509-svid",
        "x509-svid",
        "jwt-svid",
    ]
    assert first["x5c"] == [base64.b64encode(ROOT.public_bytes(Encoding.DER)).decode()]
    assert (encoded()["spiffe_sequence"], encoded()["spiffe_refresh_hint"]) == (7, 60)


def test_another_implementation_reads_the_set() -> None:
    # Generic JOSE libraries know no SPIFFE uses.
    elements = [{n: v for n, v in e.items() if n != "use"} for e in encoded()["keys"]]
    keys = KeySet.import_key_set({"keys": elements}).keys
    assert [key.key_type for key in keys] == ["EC", "RSA", "EC"]
    assert keys[2].public_key.public_numbers() == JWT_KEY.material.public_numbers()


def test_pem_is_the_x509_authorities_and_nothing_else() -> None:
    assert x509.load_pem_x509_certificates(BUNDLE.encode_pem()) == [ROOT, RSA_ROOT]
    assert TrustBundle(trust_domain=DOMAIN).encode_pem() == b""


def test_elements_that_are_not_understood_are_left_out() -> None:
    value = encoded()
    value["keys"] += [
        {"kty": "EC", "use": "sig"},
        {"kty": "EC"},
        {"kty": "AKP", "use": "x509-svid", "x5c": value["keys"][0]["x5c"]},
        {"kty": "AKP", "use": "jwt-svid", "kid": "x"},
        {"kty": "EC", "crv": "secp256k1", "use": "jwt-svid", "kid": "y"},
        {"kty": "EC", "use": "X509-SVID", "x5c": value["keys"][0]["x5c"]},
        {"kty": "EC", "use": "x509-svid"},
        {"kty": "EC", "use": "x509-svid", "x5c": []},
        {"kty": "EC", "use": "wit-svid", "kid": "z"},
    ]
    again = decode(value | {"private_parameter": 1})
    assert again.x509_authorities == BUNDLE.x509_authorities
    assert [key.key_id for key in again.jwt_authorities] == ["jwt-1"]


def test_only_the_first_certificate_of_an_element_counts() -> None:
    value = encoded()
    value["keys"][0]["x5c"].append("not base64")
    assert decode(value).x509_authorities == BUNDLE.x509_authorities


def test_no_keys_mean_that_all_are_revoked() -> None:
    bundle = decode({"keys": []})
    assert bundle.x509_authorities == bundle.jwt_authorities == ()
    assert (bundle.sequence, bundle.refresh_hint_seconds) == (None, None)


def changed(at: int, **changes: object) -> dict[str, object]:
    value = encoded()
    value["keys"][at].update(changes)
    return value


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"keys": {}},
        {"keys": [1]},
        {"keys": [{"use": "x509-svid"}]},
        {"keys": [], "spiffe_sequence": "1"},
        {"keys": [], "spiffe_sequence": -1},
        {"keys": [], "spiffe_sequence": 1.0},
        {"keys": [], "spiffe_sequence": True},
        {"keys": [], "spiffe_sequence": 1 << 63},
        {"keys": [], "spiffe_refresh_hint": None, "spiffe_sequence": {}},
        changed(0, x5c="x"),
        changed(0, x5c=[1]),
        changed(0, x5c=["AAAA"]),
        changed(0, x5c=["not base64"]),
        changed(0, x="AA"),
        changed(2, kid=""),
        changed(2, x="AA"),
    ],
)
def test_a_malformed_bundle_is_refused_whole(value: object) -> None:
    with pytest.raises(DecodeError):
        decode(value)


def test_a_name_that_occurs_twice_is_refused() -> None:
    with pytest.raises(DecodeError, match="twice"):
        TrustBundle.decode(b'{"keys":[],"keys":[]}', trust_domain=DOMAIN)


def test_a_certificate_with_another_key_than_its_element_is_refused() -> None:
    value = encoded()
    value["keys"][0].update({k: v for k, v in value["keys"][2].items() if k in {"x", "y"}})
    with pytest.raises(DecodeError, match="not the one in the certificate"):
        decode(value)
    with pytest.raises(DecodeError, match="not the one in the certificate"):
        decode(changed(0, kty="oct", k="AAAA"))


def test_a_symmetric_key_is_no_authority() -> None:
    with pytest.raises(DecodeError, match="symmetric"):
        decode({"keys": [{"kty": "oct", "k": "AAAA", "use": "jwt-svid", "kid": "k"}]})


def test_jwt_keys_are_named_and_named_apart() -> None:
    for keys in ([VerificationKey(JWT_KEY.material)], [JWT_KEY, JWT_KEY]):
        with pytest.raises(DecodeError, match="kid"):
            TrustBundle(trust_domain=DOMAIN, jwt_authorities=keys)


def test_an_authority_counts_once() -> None:
    bundle = TrustBundle(trust_domain=DOMAIN, x509_authorities=[ROOT, RSA_ROOT, ROOT])
    assert bundle.x509_authorities == (ROOT, RSA_ROOT)


def test_a_bundle_has_a_limit_of_authorities() -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    keys = [VerificationKey(key, str(n)) for n in range(MAX_AUTHORITIES + 1)]
    assert TrustBundle(trust_domain=DOMAIN, jwt_authorities=keys[1:])
    with pytest.raises(LimitExceededError):
        TrustBundle(trust_domain=DOMAIN, jwt_authorities=keys)


def test_an_authority_of_an_unsupported_key_is_left_out_on_decoding() -> None:
    root = sign(signing(key=ec.generate_private_key(ec.SECP256K1())))
    value = encoded()
    value["keys"][0]["x5c"] = [base64.b64encode(root.public_bytes(Encoding.DER)).decode()]
    assert decode(value).x509_authorities == (RSA_ROOT,)


def test_bundles_of_a_set_are_found_by_exactly_their_trust_domain() -> None:
    other = TrustBundle(trust_domain=TrustDomain("other.org"))
    bundles = TrustBundleSet([BUNDLE, other])
    assert bundles.bundle(DOMAIN) is BUNDLE
    assert bundles.bundle(TrustDomain("example.or")) is None
    assert bundles.bundle(TrustDomain("sub.example.org")) is None
    assert set(bundles) == {DOMAIN, TrustDomain("other.org")}
    assert len(bundles) == 2
    assert bundles[DOMAIN] is BUNDLE


def test_two_bundles_of_one_trust_domain_are_not_merged() -> None:
    with pytest.raises(ApiMisuseError, match="two bundles"):
        TrustBundleSet([BUNDLE, TrustBundle(trust_domain=DOMAIN)])


def test_a_map_of_bundles_comes_back_without_refresh_hints() -> None:
    other = TrustBundle(trust_domain=TrustDomain("other.org"), x509_authorities=[ROOT])
    again = decode_bundle_map(encode_bundle_map([BUNDLE, other]))
    assert again[DOMAIN].x509_authorities == BUNDLE.x509_authorities
    assert again[DOMAIN].refresh_hint_seconds is None
    assert again[DOMAIN].sequence == 7
    assert again[TrustDomain("other.org")].x509_authorities == (ROOT,)
    assert len(decode_bundle_map(b'{"trust_domains":{}}')) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"trust_domains":[]}',
        b'{"trust_domains":{"Example.org":{"keys":[]}}}',
        b'{"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}}',
        b'{"trust_domains":{"a":{}}}',
    ],
)
def test_a_malformed_map_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_bundle_map(data)
