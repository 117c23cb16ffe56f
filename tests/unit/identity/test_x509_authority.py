# SPDX-License-Identifier: Apache-2.0
import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from support.ears import NOW, plain_ear
from support.x509 import p256, sign, signing, usage
from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    ChainError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    TrothError,
    UnsupportedError,
)
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.ear import Dialect, Ear, EarSubmod, TrothClaims, minimise, sign_ear
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.identity.attestation_result import attestation_result, verify_attestation_result
from troth.identity.certificate_request import CertificateRequest, decode_csr
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.x509_authority import BACKDATE, MAX_RESULT_BYTES, X509Authority
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

DOMAIN = TrustDomain("example.org")
WEB = SpiffeId.decode("spiffe://example.org/web")
SERVER = SpiffeId.decode("spiffe://example.org/troth/server")
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
RANDOM = bytes(range(16))
CA_KEY = p256()
AUTHORITY = X509Authority.self_signed(
    DOMAIN, CA_KEY, now=NOW, lifetime=timedelta(days=30), random=RANDOM
)
VERIFIER = LocalSigner(p256(), "verifier-1")
RESULT_KEYS = [VerificationKey(VERIFIER.public_key, "verifier-1")]
NODE_KEY = p256()


def csr(key: object = NODE_KEY) -> CertificateRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return decode_csr(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


REQUEST = csr()
EAR = minimise(plain_ear(REQUEST.spki, expires_at=NOW + HOUR))


def token(ear: Ear = EAR, signer: LocalSigner = VERIFIER, wire: str = "jwt") -> bytes:
    return sign_ear(ear, signer, Dialect.IETF_03, wire=wire)


def member(authority: X509Authority = AUTHORITY, **changes: object) -> X509Svid:
    values = {
        "spiffe_id": WEB,
        "result": token(),
        "result_keys": RESULT_KEYS,
        "max_result_age": HOUR,
        "node_id": "edge-1",
        "now": NOW,
        "ttl": timedelta(minutes=10),
        "random": RANDOM,
    } | changes
    request = values.pop("request", REQUEST)
    return authority.issue_member_svid(request, values.pop("spiffe_id"), **values)


def extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> x509.Extension:
    return certificate.extensions.get_extension_for_oid(oid)


def test_an_authoritys_certificate_is_a_signing_svid_by_the_letter() -> None:
    certificate = AUTHORITY.certificate
    assert certificate.issuer == certificate.subject
    assert certificate.version is x509.Version.v3
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (
        NOW - BACKDATE,
        NOW + timedelta(days=30),
    )
    constraints = extension(certificate, ExtensionOID.BASIC_CONSTRAINTS)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    key_usage = extension(certificate, ExtensionOID.KEY_USAGE)
    assert key_usage.critical
    assert key_usage.value == usage("key_cert_sign", "crl_sign")
    names = extension(certificate, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert list(names.value) == [x509.UniformResourceIdentifier("spiffe://example.org")]
    certificate.verify_directly_issued_by(certificate)


def test_a_members_certificate_is_a_leaf_svid_by_the_letter() -> None:
    svid = member(dns_names=["web.example.org"])
    leaf = svid.leaf
    assert svid.spiffe_id == WEB
    assert svid.chain == (leaf,)
    assert svid.node_id == "edge-1"
    assert svid.spki == REQUEST.spki
    assert leaf.issuer == AUTHORITY.certificate.subject
    subject = [(attribute.oid, attribute.value) for attribute in leaf.subject]
    assert subject == [
        (NameOID.ORGANIZATION_NAME, "SPIFFE"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "node:edge-1"),
    ]
    expected = {
        ExtensionOID.BASIC_CONSTRAINTS: (True, x509.BasicConstraints(ca=False, path_length=None)),
        ExtensionOID.KEY_USAGE: (True, usage("digital_signature")),
        ExtensionOID.EXTENDED_KEY_USAGE: (
            False,
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
        ),
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: (
            False,
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier("spiffe://example.org/web"),
                    x509.DNSName("web.example.org"),
                ]
            ),
        ),
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: (
            False,
            x509.SubjectKeyIdentifier.from_public_key(NODE_KEY.public_key()),
        ),
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: (
            False,
            x509.AuthorityKeyIdentifier.from_issuer_public_key(CA_KEY.public_key()),
        ),
    }
    found = {e.oid: (e.critical, e.value) for e in leaf.extensions}
    cmw = found.pop(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.35"))
    assert not cmw[0]
    assert found == expected


def test_a_members_result_comes_back_bound_to_its_key() -> None:
    result = token()
    svid = member(result=result)
    assert attestation_result(svid) == result
    verified = verify_x509_svid(svid, TrustBundleSet([AUTHORITY.bundle()]), now=NOW)
    ear = verify_attestation_result(
        verified, RESULT_KEYS, now=NOW, max_age=HOUR, leeway=timedelta(0)
    )
    assert ear == EAR


@pytest.mark.parametrize(
    ("ttl", "exp", "end"),
    [
        (timedelta(minutes=10), HOUR, timedelta(minutes=10)),
        (2 * HOUR, HOUR, HOUR),
        (timedelta(days=60), timedelta(days=50), timedelta(days=30)),
        (timedelta(seconds=10, microseconds=999_999), HOUR, timedelta(seconds=10)),
    ],
    ids=["wanted lifetime", "end of the result", "end of the authority", "whole seconds"],
)
def test_an_svid_ends_with_the_first_of_ttl_result_and_authority(
    ttl: timedelta, exp: timedelta, end: timedelta
) -> None:
    svid = member(ttl=ttl, result=token(replace(EAR, expires_at=NOW + exp)))
    assert svid.not_after == NOW + end
    assert svid.not_before == NOW - BACKDATE


def test_an_svid_does_not_begin_before_its_authority() -> None:
    young = X509Authority.self_signed(
        DOMAIN, CA_KEY, now=NOW + timedelta(seconds=20), lifetime=HOUR, random=RANDOM
    )
    assert member(young).not_before == young.certificate.not_valid_before_utc


def test_fractions_of_a_second_do_not_lengthen_anything() -> None:
    later = NOW + timedelta(milliseconds=999)
    svid = member(now=later, ttl=timedelta(minutes=10))
    assert svid.not_after == NOW + timedelta(minutes=10)


AFFIRMING = EAR.submods["psa"]


@pytest.mark.parametrize("status", [t for t in TrustTier if t is not TrustTier.AFFIRMING])
def test_a_result_that_is_not_affirming_makes_no_member(status: TrustTier) -> None:
    worse = replace(AFFIRMING, status=status, vector=None)
    for ear in (
        replace(EAR, submods={"psa": worse}),
        replace(EAR, submods={"psa": AFFIRMING, "platform": worse}),
        replace(EAR, status=status),
    ):
        if ear.overall_status is TrustTier.AFFIRMING:
            pytest.fail("the test's own result is affirming")
        with pytest.raises(AuthorizationError, match=f"is {status.word}, not affirming") as refusal:
            member(result=token(ear))
        assert refusal.value.result == ear


def test_a_result_without_a_key_makes_no_member() -> None:
    ear = replace(EAR, submods={"psa": replace(AFFIRMING, key=None)})
    with pytest.raises(AuthorizationError, match="no key"):
        member(result=token(ear))


def test_a_result_for_another_key_makes_no_member() -> None:
    with pytest.raises(AuthorizationError, match="not for the request's alone"):
        member(request=csr(p256()))


def test_a_result_for_a_second_key_makes_no_member() -> None:
    other = replace(AFFIRMING, key=spki(p256().public_key()))
    ear = replace(EAR, submods={"psa": AFFIRMING, "other": other})
    with pytest.raises(AuthorizationError, match=r"vouches for 2 key\(s\)"):
        member(result=token(ear))


def test_a_result_without_an_end_makes_no_member() -> None:
    with pytest.raises(AuthorizationError, match="no exp"):
        member(result=token(replace(EAR, expires_at=None)))


def test_a_result_that_must_not_count_in_production_needs_to_be_allowed() -> None:
    claims = TrothClaims(insecure=["platform simulator"])
    ear = replace(EAR, submods={"psa": replace(AFFIRMING, troth=claims)})
    with pytest.raises(AuthorizationError, match="platform simulator"):
        member(result=token(ear))
    marked = member(result=token(ear), allow_insecure=True)
    verified = verify_x509_svid(marked, TrustBundleSet([AUTHORITY.bundle()]), now=NOW)
    found = verify_attestation_result(
        verified, RESULT_KEYS, now=NOW, max_age=HOUR, leeway=timedelta(0)
    )
    assert found.insecure == ("platform simulator",)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"result_keys": []}, SignatureError),
        ({"result": token(signer=LocalSigner(p256(), "verifier-1"))}, SignatureError),
        ({"result": token()[:-4] + b"AAAA"}, SignatureError),
        ({"result": b""}, DecodeError),
        ({"result": b"a.b.c"}, DecodeError),
        ({"now": NOW + HOUR + SECOND, "max_result_age": 2 * HOUR}, FreshnessError),
        ({"now": NOW + timedelta(minutes=31), "max_result_age": HOUR / 2}, FreshnessError),
        ({"now": NOW - timedelta(minutes=1)}, FreshnessError),
        ({"ttl": timedelta(0)}, FreshnessError),
        ({"ttl": -HOUR}, FreshnessError),
        ({"spiffe_id": SpiffeId.decode("spiffe://other.org/web")}, AuthorizationError),
        ({"spiffe_id": DOMAIN.id}, AuthorizationError),
        ({"spiffe_id": SERVER}, AuthorizationError),
        ({"spiffe_id": SpiffeId.decode("spiffe://example.org/troth/x/y")}, AuthorizationError),
        ({"result": token(wire="cwt")}, ApiMisuseError),
        ({"node_id": ""}, ApiMisuseError),
        ({"node_id": "a b"}, ApiMisuseError),
        ({"node_id": "a\n"}, ApiMisuseError),
        ({"node_id": "n" * 60}, ApiMisuseError),
        ({"random": bytes(15)}, ApiMisuseError),
        ({"dns_names": ["*.example.org"]}, ApiMisuseError),
        ({"dns_names": ["Web.example.org"]}, ApiMisuseError),
        ({"dns_names": ["web.example.org\n"]}, ApiMisuseError),
        ({"dns_names": ["-web.example.org"]}, ApiMisuseError),
        ({"dns_names": ["web..org"]}, ApiMisuseError),
        ({"dns_names": ["a" * 64]}, ApiMisuseError),
        ({"dns_names": [".".join(["a" * 60] * 5)]}, ApiMisuseError),
        ({"dns_names": [f"{n}.org" for n in range(17)]}, ApiMisuseError),
    ],
)
def test_what_must_not_make_a_member_raises_and_gives_nothing(
    changes: Mapping[str, object], error: type[TrothError]
) -> None:
    with pytest.raises(error):
        member(**changes)


def test_a_result_that_says_more_than_a_certificate_should_is_sent_back() -> None:
    for ear in (
        replace(EAR, raw_evidence=b"evidence"),
        replace(EAR, nonce=b"12345678"),
        replace(EAR, submods={"psa": replace(AFFIRMING, troth=TrothClaims(boot_session=b"1"))}),
    ):
        with pytest.raises(ApiMisuseError, match="minimise"):
            member(result=token(ear))
        assert member(result=token(minimise(ear)))


def test_a_result_has_a_longest_form() -> None:
    many = {
        f"part-{n}": EarSubmod(status=TrustTier.AFFIRMING, vector=TrustworthinessVector(hardware=2))
        for n in range(40)
    }
    ear = replace(EAR, submods={"psa": AFFIRMING, **many})
    assert len(token(ear)) > MAX_RESULT_BYTES
    with pytest.raises(LimitExceededError, match="max_result_bytes"):
        member(result=token(ear))


def test_a_longest_node_id_and_dns_name_fit() -> None:
    assert member(node_id="n" * 59).node_id == "n" * 59
    name = ".".join(["a" * 60] * 4)
    assert member(dns_names=[name, "a", "1.2.3.4", "a-b.c"])


def test_serial_numbers_follow_the_randomness_and_are_positive() -> None:
    zeros, ones = member(random=bytes(16)), member(random=b"\xff" * 20)
    assert zeros.leaf.serial_number == 1 << 126
    assert ones.leaf.serial_number == (1 << 127) - 1
    assert member().leaf.serial_number != zeros.leaf.serial_number


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
)
def test_other_keys_sign_and_are_signed(key: object) -> None:
    authority = X509Authority.self_signed(DOMAIN, key, now=NOW, lifetime=HOUR, random=RANDOM)
    request = csr(key)
    ear = minimise(plain_ear(request.spki, expires_at=NOW + HOUR))
    assert member(authority, request=request, result=token(ear)).spki == request.spki


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())]
)
def test_an_authority_does_not_use_a_key_that_envoy_refuses(key: object) -> None:
    with pytest.raises(TrothError):
        X509Authority.self_signed(DOMAIN, key, now=NOW, lifetime=HOUR, random=RANDOM)


def infrastructure(**changes: object) -> X509Svid:
    values = {
        "key": NODE_KEY.public_key(),
        "spiffe_id": SERVER,
        "now": NOW,
        "ttl": HOUR,
        "random": RANDOM,
    } | changes
    return AUTHORITY.issue_infrastructure_svid(values.pop("key"), values.pop("spiffe_id"), **values)


def test_infrastructure_gets_an_svid_that_says_nothing_about_a_machine() -> None:
    svid = infrastructure(dns_names=["troth.example.org"])
    assert svid.spiffe_id == SERVER
    assert svid.node_id == ""
    assert attestation_result(svid) is None
    assert svid.not_after == NOW + HOUR
    assert verify_x509_svid(svid, TrustBundleSet([AUTHORITY.bundle()]), now=NOW)


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://example.org/web",
        "spiffe://example.org",
        "spiffe://example.org/troth",
        "spiffe://example.org/trothx/server",
        "spiffe://other.org/troth/server",
    ],
)
def test_no_members_identity_is_infrastructure(spiffe_id: str) -> None:
    with pytest.raises(AuthorizationError):
        infrastructure(spiffe_id=SpiffeId.decode(spiffe_id))


def test_infrastructure_takes_the_same_keys_as_members() -> None:
    with pytest.raises(UnsupportedError):
        infrastructure(key=ed25519.Ed25519PrivateKey.generate().public_key())


def test_an_authority_that_has_ended_issues_nothing() -> None:
    with pytest.raises(FreshnessError):
        infrastructure(now=NOW + timedelta(days=30))
    assert infrastructure(now=NOW + timedelta(days=30) - SECOND)


def test_an_authority_that_has_not_begun_issues_nothing() -> None:
    with pytest.raises((ChainError, FreshnessError)):
        infrastructure(now=NOW - timedelta(minutes=1))


def test_an_authority_is_taken_up_again_with_its_own_key_only() -> None:
    again = X509Authority(DOMAIN, AUTHORITY.certificate, CA_KEY)
    assert member(again).spiffe_id == WEB
    with pytest.raises(DecodeError, match="not the certificate's"):
        X509Authority(DOMAIN, AUTHORITY.certificate, p256())
    with pytest.raises(DecodeError, match=r"not spiffe://other\.org"):
        X509Authority(TrustDomain("other.org"), AUTHORITY.certificate, CA_KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"uris": ()},
        {"uris": ("spiffe://example.org/path",)},
        {"usage": usage("digital_signature")},
        {"usage": None},
        {},
    ],
    ids=["no name", "a path", "no keyCertSign", "no key usage", "no key identifier"],
)
def test_a_certificate_that_is_no_authoritys_is_refused(changes: Mapping[str, object]) -> None:
    plan = signing(**changes)
    with pytest.raises(DecodeError):
        X509Authority(DOMAIN, sign(plan), plan.key)


def test_a_private_key_does_not_show() -> None:
    assert "PrivateKey" not in repr(AUTHORITY)


def test_a_bundle_can_hold_the_authorities_before_and_after() -> None:
    following = X509Authority.self_signed(DOMAIN, p256(), now=NOW, lifetime=HOUR, random=bytes(16))
    bundle = AUTHORITY.bundle(sequence=2, refresh_hint_seconds=60, others=[following.certificate])
    assert bundle.x509_authorities == (AUTHORITY.certificate, following.certificate)
    assert (bundle.sequence, bundle.refresh_hint_seconds) == (2, 60)
    for authority in (AUTHORITY, following):
        assert verify_x509_svid(member(authority), TrustBundleSet([bundle]), now=NOW)


def test_authorities_with_different_keys_have_different_names() -> None:
    names = {
        X509Authority.self_signed(
            DOMAIN, p256(), now=NOW, lifetime=HOUR, random=bytes([n]) * 16
        ).certificate.subject
        for n in range(3)
    }
    assert len(names) == 3


def test_every_pairing_of_wrongs_is_still_refused() -> None:
    wrongs: list[dict[str, object]] = [
        {"result_keys": []},
        {"request": csr(p256())},
        {"spiffe_id": SERVER},
        {"result": token(replace(EAR, expires_at=None))},
        {"now": NOW + 2 * HOUR},
    ]
    for one, other in itertools.combinations(wrongs, 2):
        with pytest.raises(TrothError):
            member(**(one | other))
