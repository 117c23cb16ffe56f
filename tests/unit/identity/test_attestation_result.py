# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from support.ears import NOW, plain_ear
from support.x509 import Plan, p256, sign, signing
from troth.errors import BindingError, DecodeError, FreshnessError, SignatureError, UnsupportedError
from troth.formats.cmw import (
    CMW_OID,
    Cmw,
    CmwCollection,
    CmwRecord,
    Indicator,
    encode_extension,
)
from troth.formats.ear import Dialect, Ear, sign_ear
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.identity.attestation_result import (
    attestation_result,
    result_extension,
    verify_attestation_result,
)
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

ROOT = signing()
LEAF = Plan()
BUNDLES = TrustBundleSet(
    [TrustBundle(trust_domain=TrustDomain("example.org"), x509_authorities=[sign(ROOT)])]
)
VERIFIER = LocalSigner(p256(), "verifier-1")
RESULT_KEYS = [VerificationKey(VERIFIER.public_key, "verifier-1")]
EAR = plain_ear(spki(LEAF.key.public_key()))
TOKEN = sign_ear(EAR, VERIFIER, Dialect.IETF_03, wire="jwt")
RESULT = CmwRecord("application/eat+jwt", TOKEN, Indicator.ATTESTATION_RESULTS)


def svid(*extensions: x509.ExtensionType, critical: bool = False) -> X509Svid:
    return X509Svid(chain=[sign(replace(LEAF, more=[(e, critical) for e in extensions]), ROOT)])


def carrying(cmw: Cmw, *, json: bool = False) -> X509Svid:
    return svid(x509.UnrecognizedExtension(CMW_OID, encode_extension(cmw, json=json)))


def accept(svid: X509Svid, **changes: object) -> Ear:
    values = {
        "now": NOW,
        "max_age": timedelta(hours=1),
        "leeway": timedelta(0),
    }
    keys = changes.pop("keys", RESULT_KEYS)
    return verify_attestation_result(
        verify_x509_svid(svid, BUNDLES, now=NOW), keys, **(values | changes)
    )


def test_a_result_is_found_in_the_certificate_and_verified() -> None:
    assert attestation_result(svid(result_extension(TOKEN))) == TOKEN
    assert accept(svid(result_extension(TOKEN))) == EAR


def test_the_written_extension_is_a_cbor_record_of_attestation_results() -> None:
    assert result_extension(TOKEN).oid.dotted_string == "1.3.6.1.5.5.7.1.35"
    assert result_extension(TOKEN).value == encode_extension(RESULT)


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"indicator": Indicator.UNSTATED},
        {"indicator": Indicator.ATTESTATION_RESULTS | Indicator.EVIDENCE},
        {"type": 'application/eat+jwt; eat_profile="tag:ietf.org,2026:rats/ear#03"'},
        {"type": "application/EAT+JWT"},
        {"type": 264},
    ],
)
def test_other_ways_to_wrap_the_same_result_are_read(
    changes: Mapping[str, object],
    json: bool,  # noqa: FBT001 - pytest's
) -> None:
    assert accept(carrying(replace(RESULT, **changes), json=json)) == EAR


def test_a_cwt_is_read_too() -> None:
    token = sign_ear(EAR, VERIFIER, Dialect.IETF_03, wire="cwt")
    assert accept(carrying(CmwRecord("application/eat+cwt", token))) == EAR


def test_no_result_is_none_and_never_verified() -> None:
    for bare in (svid(), carrying(replace(RESULT, indicator=Indicator.EVIDENCE))):
        assert attestation_result(bare) is None
        with pytest.raises(BindingError, match="carries no Attestation Result"):
            accept(bare)


def test_what_is_not_a_result_in_a_known_form_is_refused() -> None:
    for cmw in (
        CmwCollection({"ear": RESULT}),
        replace(RESULT, type="application/eat-ucs+json"),
        replace(RESULT, type="text/plain"),
        replace(RESULT, type=65000),
    ):
        with pytest.raises(UnsupportedError):
            attestation_result(carrying(cmw))


@pytest.mark.parametrize("value", [b"", b"\x04\x00", b"\x30\x00", b"\x0c\x02{}", b"\x04\x02\x80x"])
def test_a_malformed_wrapper_is_a_decode_error(value: bytes) -> None:
    with pytest.raises(DecodeError):
        attestation_result(svid(x509.UnrecognizedExtension(CMW_OID, value)))


def test_a_result_for_another_key_is_not_this_certificates() -> None:
    stolen = sign_ear(plain_ear(spki(p256().public_key())), VERIFIER, Dialect.IETF_03, wire="jwt")
    with pytest.raises(BindingError, match="another key"):
        accept(svid(result_extension(stolen)))


def test_a_result_without_a_key_is_nobodys() -> None:
    token = sign_ear(plain_ear(), VERIFIER, Dialect.IETF_03, wire="jwt")
    with pytest.raises(BindingError, match="0 keys"):
        accept(svid(result_extension(token)))


def test_the_authority_does_not_vouch_for_the_result() -> None:
    stranger = LocalSigner(p256(), "verifier-1")
    forged = sign_ear(EAR, stranger, Dialect.IETF_03, wire="jwt")
    with pytest.raises(SignatureError):
        accept(svid(result_extension(forged)))
    with pytest.raises(SignatureError):
        accept(svid(result_extension(TOKEN)), keys=[])


def test_a_result_ends_before_its_certificate_does() -> None:
    short = replace(EAR, expires_at=NOW + timedelta(minutes=1))
    token = sign_ear(short, VERIFIER, Dialect.IETF_03, wire="jwt")
    assert accept(svid(result_extension(token)))
    with pytest.raises(FreshnessError, match="expired"):
        accept(svid(result_extension(token)), now=NOW + timedelta(minutes=1))
    endless = sign_ear(replace(EAR, expires_at=None), VERIFIER, Dialect.IETF_03, wire="jwt")
    with pytest.raises(DecodeError, match="no exp"):
        accept(svid(result_extension(endless)))
