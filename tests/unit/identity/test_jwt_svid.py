# SPDX-License-Identifier: Apache-2.0
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from support.x509 import NOW, p256
from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    BindingError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    TrothError,
    UnsupportedError,
)
from troth.formats.base64url import encode_base64url
from troth.formats.jose import sign_jwt
from troth.formats.keys import VerificationKey
from troth.formats.signer import LocalSigner
from troth.formats.strict_json import encode_json
from troth.identity.jwt_svid import (
    JWT_SVID_ALGORITHMS,
    MAX_AUDIENCES,
    JwtAuthority,
    JwtSvid,
    check_audience,
    read_jwt_svid,
    verify_jwt_svid,
)
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet

DOMAIN = TrustDomain("example.org")
OTHER = TrustDomain("other.example")
WEB = SpiffeId.decode("spiffe://example.org/web")
SIGNER = LocalSigner(p256(), "key-1")
AUTHORITY = JwtAuthority(DOMAIN, SIGNER)
MINUTE = timedelta(minutes=1)


def bundle(*signers: LocalSigner, domain: TrustDomain = DOMAIN) -> TrustBundle:
    keys = [VerificationKey(signer.public_key, signer.key_id) for signer in signers]
    return TrustBundle(trust_domain=domain, jwt_authorities=keys)


BUNDLES = TrustBundleSet([bundle(SIGNER)])
CLAIMS: dict[str, object] = {
    "sub": str(WEB),
    "aud": ["reports"],
    "exp": int(NOW.timestamp()) + 60,
}


def token(signer: LocalSigner = SIGNER, header: Any = None, **claims: object) -> str:
    values = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return sign_jwt(values, signer, header=header)


def verify(text: str, bundles: TrustBundleSet = BUNDLES, **options: Any) -> JwtSvid:
    values = {"audience": "reports", "now": NOW} | options
    return verify_jwt_svid(text, bundles, **values)


def test_an_issued_token_is_verified() -> None:
    issued = AUTHORITY.issue(WEB, ["reports"], now=NOW, ttl=MINUTE)
    assert verify(issued.token) == issued
    assert issued.expires_at == NOW + MINUTE
    assert issued.audience == ("reports",)


def test_a_token_does_not_outlive_what_it_stands_on() -> None:
    end = NOW + timedelta(seconds=7)
    issued = AUTHORITY.issue(WEB, ["reports"], now=NOW, ttl=MINUTE, not_after=end)
    assert issued.expires_at == end
    with pytest.raises(FreshnessError):
        AUTHORITY.issue(WEB, ["reports"], now=NOW, ttl=MINUTE, not_after=NOW)


@pytest.mark.parametrize(
    "subject", ["spiffe://other.example/web", "spiffe://example.org"], ids=["foreign", "domain"]
)
def test_an_authority_issues_for_workloads_of_its_own_domain_only(subject: str) -> None:
    with pytest.raises(AuthorizationError):
        AUTHORITY.issue(SpiffeId.decode(subject), ["reports"], now=NOW, ttl=MINUTE)


def test_an_authority_has_a_name_and_an_algorithm_that_the_specification_knows() -> None:
    with pytest.raises(ApiMisuseError, match="kid"):
        JwtAuthority(DOMAIN, LocalSigner(p256()))
    with pytest.raises(ApiMisuseError, match="EdDSA"):
        JwtAuthority(DOMAIN, LocalSigner(ed25519.Ed25519PrivateKey.generate(), "k"))


@pytest.mark.parametrize(
    "audience",
    [[], [""], ["reports", ""], ["a\nb"], ["a"] * (MAX_AUDIENCES + 1), ["a" * 1025]],
)
def test_a_useless_audience_is_not_issued_for(audience: list[str]) -> None:
    with pytest.raises(DecodeError):
        AUTHORITY.issue(WEB, audience, now=NOW, ttl=MINUTE)


def test_an_audience_counts_once() -> None:
    assert check_audience(["b", "a", "b"]) == ("b", "a")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (rsa.generate_private_key(65537, 2048), "PS256"),
    ],
)
def test_every_algorithm_of_the_specification_verifies(key: Any, algorithm: str) -> None:
    signer = LocalSigner(key, "k")
    assert signer.algorithm == algorithm
    assert algorithm in JWT_SVID_ALGORITHMS
    assert verify(token(signer), TrustBundleSet([bundle(signer)])).spiffe_id == WEB


def test_an_algorithm_that_the_specification_does_not_list_is_refused() -> None:
    signer = LocalSigner(ed25519.Ed25519PrivateKey.generate(), "k")
    with pytest.raises(SignatureError, match="EdDSA"):
        verify(token(signer), TrustBundleSet([bundle(signer)]))


@pytest.mark.parametrize("typ", ["JWT", "JOSE"])
def test_both_types_are_taken(typ: str) -> None:
    assert verify(token(header={"typ": typ})).spiffe_id == WEB


def test_type_and_key_id_are_optional() -> None:
    header = encode_base64url(encode_json({"alg": "ES256"}))
    signed = f"{header}.{encode_base64url(encode_json(CLAIMS))}"
    text = f"{signed}.{encode_base64url(SIGNER.sign(signed.encode()))}"
    assert verify(text).spiffe_id == WEB


@pytest.mark.parametrize("typ", ["jwt", "at+jwt", "wit+jwt", "", 1, None])
def test_another_type_is_refused(typ: object) -> None:
    with pytest.raises(UnsupportedError, match="typ"):
        verify(token(header={"typ": typ}))


@pytest.mark.parametrize("name", ["jku", "x5c", "jwk", "cty", "iss", "private"])
def test_any_other_header_parameter_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        verify(token(header={name: "x"}))


@pytest.mark.parametrize(
    "aud", [None, [], "", [""], 7, {"reports": 1}, ["reports", 7], ["reports", None]]
)
def test_a_token_without_a_proper_audience_is_refused(aud: object) -> None:
    with pytest.raises(DecodeError):
        verify(token(aud=aud))


def test_an_audience_may_be_one_text() -> None:
    assert verify(token(aud="reports")).audience == ("reports",)


@pytest.mark.parametrize("aud", ["report", "reports ", "Reports", ["a", "b"]])
def test_a_token_for_others_is_refused(aud: object) -> None:
    with pytest.raises(BindingError):
        verify(token(aud=aud))


def test_a_validator_has_an_audience_of_its_own() -> None:
    with pytest.raises(ApiMisuseError):
        verify(token(aud=["", "reports"]), audience="")


@pytest.mark.parametrize("exp", [None, "soon", True, [1], 1e300, -1e18])
def test_a_token_without_a_proper_end_is_refused(exp: object) -> None:
    with pytest.raises(DecodeError):
        verify(token(exp=exp))


def test_a_token_that_has_ended_is_refused_at_that_very_second() -> None:
    text = token(exp=int(NOW.timestamp()))
    with pytest.raises(FreshnessError):
        verify(text)
    assert verify(text, leeway=timedelta(seconds=1)).spiffe_id == WEB
    assert verify(text, now=NOW - timedelta(seconds=1)).spiffe_id == WEB


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_from_the_future_is_refused(name: str) -> None:
    with pytest.raises(FreshnessError):
        verify(token(**{name: int(NOW.timestamp()) + 2}))


@pytest.mark.parametrize(
    "sub",
    [None, "", "web", 7, "spiffe://example.org", "spiffe://example.org/", "spiffe://Example.org/a"],
)
def test_a_token_whose_subject_is_no_workload_is_refused(sub: object) -> None:
    with pytest.raises(DecodeError):
        verify(token(sub=sub))


def test_a_trust_domain_vouches_for_its_own_only() -> None:
    other = LocalSigner(p256(), "key-1")
    both = TrustBundleSet([bundle(SIGNER), bundle(other, domain=OTHER)])
    assert verify(token(other, sub="spiffe://other.example/web"), both).spiffe_id.path == "/web"
    with pytest.raises(SignatureError):
        verify(token(other), both)
    with pytest.raises(SignatureError):
        verify(token(sub="spiffe://other.example/web"), both)


def test_without_a_bundle_or_keys_in_it_nothing_verifies() -> None:
    with pytest.raises(SignatureError, match="no JWT authorities"):
        verify(token(), TrustBundleSet())
    with pytest.raises(SignatureError, match="no JWT authorities"):
        verify(token(), TrustBundleSet([TrustBundle(trust_domain=DOMAIN)]))


def test_a_changed_claim_is_noticed() -> None:
    head, _, signature = token().split(".")
    forged = encode_base64url(encode_json(CLAIMS | {"sub": "spiffe://example.org/admin"}))
    with pytest.raises(SignatureError):
        verify(f"{head}.{forged}.{signature}")


def test_a_key_id_that_the_bundle_does_not_have_is_refused() -> None:
    stranger = LocalSigner(p256(), "key-2")
    with pytest.raises(SignatureError):
        verify(token(stranger))


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "..", "a.é.c", ".".join("abc")])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TrothError):
        verify(text)
    with pytest.raises(DecodeError):
        read_jwt_svid(text)


def test_a_token_of_any_length_costs_little() -> None:
    with pytest.raises(LimitExceededError):
        verify("a." + "b" * 20_000 + ".c")


def test_reading_believes_what_it_reads() -> None:
    stranger = LocalSigner(p256(), "key-2")
    assert read_jwt_svid(token(stranger).encode()).spiffe_id == WEB
