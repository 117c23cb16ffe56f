# SPDX-License-Identifier: Apache-2.0
"""A workload's SVID says what was appraised of its node, and by whose word its own key stands."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from support.ears import NOW, plain_ear
from support.x509 import p256
from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    BindingError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
)
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.ear import Dialect, Ear, TrothClaims, minimise, sign_ear
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.identity.attestation_result import verify_attestation_result
from troth.identity.certificate_request import CertificateRequest, decode_csr
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.workload_result import NodeResult, workload_result
from troth.identity.x509_authority import X509Authority
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid
from troth.mesh.passport import TrustedVerifier, read_passport

DOMAIN = TrustDomain("example.org")
WEB = SpiffeId.decode("spiffe://example.org/web")
HOUR = timedelta(hours=1)
RANDOM = bytes(range(16))
AUTHORITY = X509Authority.self_signed(
    DOMAIN, p256(), now=NOW, lifetime=timedelta(days=30), random=RANDOM
)
BUNDLES = TrustBundleSet([AUTHORITY.bundle()])
VERIFIER = LocalSigner(p256(), "verifier-1")
RESULT_KEYS = [VerificationKey(VERIFIER.public_key, "verifier-1")]
NODE_KEY = spki(p256().public_key())
TROTH = TrothClaims(scheme="psa", tier="measured", component="platform", layer="hardware")
NODE_EAR = minimise(replace(plain_ear(NODE_KEY, expires_at=NOW + HOUR), troth=TROTH))


def csr() -> CertificateRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return decode_csr(builder.sign(p256(), hashes.SHA256()).public_bytes(Encoding.DER))


REQUEST = csr()


def node(ear: Ear = NODE_EAR, signer: LocalSigner = VERIFIER, **changes: Any) -> NodeResult:
    values = {
        "node_id": "n1",
        "signer": VERIFIER,
        "now": NOW,
        "max_age": HOUR,
    } | changes
    token = sign_ear(ear, signer, Dialect.IETF_03, wire="jwt").decode()
    return NodeResult.verify(token, RESULT_KEYS, **values)


def workload(**changes: Any) -> X509Svid:
    values = {
        "node": node(),
        "now": NOW,
        "ttl": timedelta(minutes=10),
        "random": RANDOM,
    } | changes
    request = values.pop("request", REQUEST)
    return AUTHORITY.issue_workload_svid(request, values.pop("spiffe_id", WEB), **values)


def result_in(svid: X509Svid, **changes: Any) -> Ear:
    verified = verify_x509_svid(svid, BUNDLES, now=NOW)
    values = {"now": NOW, "max_age": HOUR, "leeway": timedelta(0)} | changes
    return verify_attestation_result(verified, RESULT_KEYS, **values)


def test_a_workloads_svid_is_an_svid_and_names_its_node() -> None:
    svid = workload(dns_names=["web.example.org"])
    assert svid.spiffe_id == WEB
    assert svid.node_id == "n1"
    assert svid.spki == REQUEST.spki
    assert svid.not_after == NOW + timedelta(minutes=10)
    verify_x509_svid(svid, BUNDLES, now=NOW)


def test_its_result_is_the_nodes_with_the_agents_word_for_the_key() -> None:
    ear = result_in(workload())
    assert ear == workload_result(NODE_EAR, key=REQUEST.spki)
    assert ear.keys == (REQUEST.spki,)
    assert (ear.troth.component, ear.troth.layer) == ("workload", "node_agent")
    assert ear.submods["workload"].key == REQUEST.spki
    assert ear.submods["workload"].troth.layer == "node_agent"
    for label, submod in NODE_EAR.submods.items():
        assert ear.submods[label] == replace(submod, key=None)


def test_age_end_tier_and_verifier_are_the_nodes() -> None:
    old = replace(NODE_EAR, issued_at=NOW - timedelta(minutes=30))
    ear = result_in(workload(node=node(old)))
    assert ear.issued_at == NOW - timedelta(minutes=30)
    assert ear.expires_at == NODE_EAR.expires_at
    assert ear.troth.tier == "measured"
    assert ear.extensions.get("iss") == NODE_EAR.extensions.get("iss")
    with pytest.raises(FreshnessError):
        result_in(workload(node=node(old)), max_age=timedelta(minutes=29))


def test_each_workloads_result_is_about_its_own_key() -> None:
    about = node()
    other = csr()
    assert result_in(workload(node=about)).keys == (REQUEST.spki,)
    assert result_in(workload(node=about, request=other)).keys == (other.spki,)


def test_a_peer_reads_it_as_a_passport_of_that_layer() -> None:
    token = node().sign_for(REQUEST.spki)
    believed = [TrustedVerifier(name="site", keys=RESULT_KEYS)]
    digest = hashlib.sha256(REQUEST.spki).digest()
    passport = read_passport(token, key_digest=digest, verifiers=believed, now=NOW)
    assert (passport.component, passport.layer) == ("workload", "node_agent")
    assert passport.result.status == "affirming"
    with pytest.raises(BindingError):
        read_passport(
            token,
            key_digest=hashlib.sha256(NODE_KEY).digest(),
            verifiers=believed,
            now=NOW,
        )


def test_an_svid_never_outlives_the_nodes_result() -> None:
    short = replace(NODE_EAR, expires_at=NOW + timedelta(seconds=40))
    svid = workload(node=node(short))
    assert svid.not_after == NOW + timedelta(seconds=40)
    with pytest.raises(FreshnessError):
        workload(node=node(short), now=NOW + timedelta(seconds=40))


def submod(**changes: Any) -> Ear:
    label, only = next(iter(NODE_EAR.submods.items()))
    return replace(NODE_EAR, submods={label: replace(only, **changes)}, status=None)


WARNING = submod(status=TrustTier.WARNING, vector=TrustworthinessVector(executables=33))


@pytest.mark.parametrize(
    ("ear", "error"),
    [
        (WARNING, AuthorizationError),
        (submod(status=TrustTier.NONE), AuthorizationError),
        (replace(NODE_EAR, troth=replace(TROTH, insecure=("simulator",))), AuthorizationError),
        (submod(key=None), BindingError),
        (replace(NODE_EAR, expires_at=NOW), FreshnessError),
        (replace(NODE_EAR, issued_at=NOW - HOUR - timedelta(seconds=31)), FreshnessError),
    ],
    ids=["warning", "none", "insecure", "no key", "ended", "old"],
)
def test_a_result_that_makes_no_member_makes_no_workload(ear: Ear, error: type[Exception]) -> None:
    with pytest.raises(error):
        node(ear)


def test_insecure_results_count_where_that_is_chosen_and_stay_marked() -> None:
    insecure = replace(NODE_EAR, troth=replace(TROTH, insecure=("simulator",)))
    ear = result_in(workload(node=node(insecure, allow_insecure=True)))
    assert ear.insecure == ("simulator",)


def test_a_stranger_is_no_verifier() -> None:
    with pytest.raises(SignatureError):
        node(signer=LocalSigner(p256(), "verifier-1"))


def test_a_workloads_result_does_not_make_another_workload() -> None:
    with pytest.raises(BindingError, match="workload already"):
        node(workload_result(NODE_EAR, key=REQUEST.spki))


@pytest.mark.parametrize("name", ["spiffe://example.org/troth/server", "spiffe://other.example/w"])
def test_a_workload_is_neither_troths_own_nor_foreign(name: str) -> None:
    with pytest.raises(AuthorizationError):
        workload(spiffe_id=SpiffeId.decode(name))


def test_names_have_their_form() -> None:
    with pytest.raises(ApiMisuseError):
        workload(dns_names=["*.example.org"])
    with pytest.raises(ApiMisuseError):
        workload(node=node(node_id="a b"))


def test_a_result_that_is_too_long_for_a_certificate_is_not_put_into_one() -> None:
    long = submod(policy_ids=["p" * 4000])
    with pytest.raises(LimitExceededError):
        workload(node=node(long))
