# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.ears import NOW, plain_ear
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError
from troth.formats import cbor
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.base64url import encode_base64url
from troth.formats.ear import Dialect, EarSubmod, TrothClaims, decode_ear, encode_ear
from troth.formats.keys import spki
from troth.formats.limits import Limits

VERAISON = {
    "eat_profile": "tag:github.com,2023:veraison/ear",
    "iat": 1666529184,
    "ear.verifier-id": {"developer": "d", "build": "b"},
    "submods": {"PSA": {"ear.status": "affirming"}},
}
IETF_03 = {
    "eat_profile": "tag:ietf.org,2026:rats/ear#03",
    "iat": 1666529184,
    "ear_verifier_id": {"developer": "d", "build": "b"},
    "submods": {"PSA": {"ear_status": "affirming"}},
}
AKPUB = encode_base64url(spki(ec.generate_private_key(ec.SECP256R1()).public_key()))
IETF_03_CBOR = {
    265: "tag:ietf.org,2026:rats/ear#03",
    6: 1666529184,
    1004: {0: "d", 1: "b"},
    266: {"PSA": {1000: 2}},
}


def decode(claims: object) -> object:
    return decode_ear(json.dumps(claims).encode(), wire="json")


def decode_cbor(claims: object) -> object:
    return decode_ear(cbor.encode(claims), wire="cbor")


def with_submod(claims: Mapping[object, object], **changes: object) -> dict[object, object]:
    label = "submods" if "submods" in claims else 266
    part = {**claims[label]["PSA"], **changes}
    return {**claims, label: {"PSA": part}}


def with_submod_claims(
    claims: Mapping[object, object], changes: Mapping[object, object]
) -> dict[object, object]:
    label = "submods" if "submods" in claims else 266
    return {**claims, label: {"PSA": {**claims[label]["PSA"], **changes}}}


def test_the_three_bases_are_ears() -> None:
    first, second, third = decode(VERAISON), decode(IETF_03), decode_cbor(IETF_03_CBOR)
    assert replace(first, profile=second.profile) == second == third


def test_every_dialect_has_its_own_spelling() -> None:
    ear = plain_ear(status=TrustTier.AFFIRMING, nonce=b"12345678", raw_evidence=b"\xff\xfe")
    assert json.loads(encode_ear(ear, Dialect.IETF_03)) == {
        "eat_profile": "tag:ietf.org,2026:rats/ear#03",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
        "ear_verifier_id": {"developer": "https://troth.example", "build": "troth 0.1"},
        "ear_status": "affirming",
        "ear_raw_evidence": "__4",
        "eat_nonce": "MTIzNDU2Nzg=",
        "submods": {
            "psa": {
                "ear_status": "affirming",
                "ear_trustworthiness_vector": {
                    "instance-identity": 2,
                    "executables": 2,
                    "hardware": 2,
                },
                "ear_appraisal_policy_ids": ["policy:psa"],
                "troth_scheme": "psa",
                "troth_tier": "measured",
            }
        },
    }
    assert json.loads(encode_ear(ear, Dialect.VERAISON)) == {
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
        "ear.verifier-id": {"developer": "https://troth.example", "build": "troth 0.1"},
        "ear.status": "affirming",
        "ear.raw-evidence": "__4",
        "eat_nonce": "MTIzNDU2Nzg=",
        "submods": {
            "psa": {
                "ear.status": "affirming",
                "ear.trustworthiness-vector": {
                    "instance-identity": 2,
                    "executables": 2,
                    "hardware": 2,
                },
                "ear.appraisal-policy-id": "policy:psa",
                "troth_scheme": "psa",
                "troth_tier": "measured",
            }
        },
    }
    assert cbor.decode(encode_ear(ear, Dialect.IETF_03, wire="cbor"), format="test") == {
        265: "tag:ietf.org,2026:rats/ear#03",
        6: int(NOW.timestamp()),
        4: int(NOW.timestamp()) + 3600,
        1004: {0: "https://troth.example", 1: "troth 0.1"},
        1000: 2,
        1002: b"\xff\xfe",
        10: b"12345678",
        266: {
            "psa": {
                1000: 2,
                1001: {0: 2, 2: 2, 4: 2},
                1003: ["policy:psa"],
                -81000: "psa",
                -81001: "measured",
            }
        },
    }


def test_troths_own_claims_are_spelt_as_documented() -> None:
    claims = TrothClaims(
        component="node",
        layer="node_agent",
        policy_digest="sha-256:00",
        epoch="7",
        insecure=["simulator"],
        boot_session=b"\x01\xff",
        findings=[{"claim": "pcr9", "expected": "a", "actual": "b"}],
    )
    ear = plain_ear(submods={"tpm2": EarSubmod(status=TrustTier.NONE, troth=claims)})
    expected = {
        "ear_status": "none",
        "troth_component": "node",
        "troth_layer": "node_agent",
        "troth_policy_digest": "sha-256:00",
        "troth_epoch": "7",
        "troth_insecure": ["simulator"],
        "troth_boot_session": "01ff",
        "troth_findings": [{"claim": "pcr9", "expected": "a", "actual": "b"}],
    }
    assert json.loads(encode_ear(ear, Dialect.IETF_03))["submods"]["tpm2"] == expected
    binary = cbor.decode(encode_ear(ear, Dialect.IETF_03, wire="cbor"), format="test")
    assert binary[266]["tpm2"][-81007] == b"\x01\xff"


@pytest.mark.parametrize(
    "changes",
    [
        {"troth_scheme": 1},
        {"troth_tier": None},
        {"troth_insecure": "simulator"},
        {"troth_insecure": [1]},
        {"troth_boot_session": "0g"},
        {"troth_boot_session": "0A"},
        {"troth_boot_session": "01 02"},
        {"troth_boot_session": 1},
        {"troth_findings": [{"claim": 1}]},
        {"troth_findings": ["x"]},
        {"troth_findings": {}},
    ],
)
def test_troths_own_claims_have_the_documented_types(changes: Mapping[str, object]) -> None:
    with pytest.raises(DecodeError, match="troth_"):
        decode(with_submod(IETF_03, **changes))


@pytest.mark.parametrize("name", ["eat_profile", "iat", "ear_verifier_id", "submods"])
def test_a_mandatory_claim_is_missed_by_name(name: str) -> None:
    with pytest.raises(DecodeError, match=name):
        decode({key: value for key, value in IETF_03.items() if key != name})


def test_a_submod_without_status_is_missed_by_label() -> None:
    with pytest.raises(DecodeError, match="EAR submod 'PSA': has no ear_status"):
        decode({**IETF_03, "submods": {"PSA": {}}})
    with pytest.raises(DecodeError, match=r"EAR submod 'PSA': has no ear\.status"):
        decode({**VERAISON, "submods": {"PSA": {}}})


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ([], "not a map"),
        ("x", "not a map"),
        ({**IETF_03, "submods": {}}, "nothing was appraised"),
        ({**IETF_03, "submods": []}, "submods is not a map"),
        ({**IETF_03, "submods": {"PSA": []}}, "'PSA': is not a map"),
        ({**IETF_03, "eat_profile": ["x"]}, "eat_profile"),
        ({**IETF_03, "iat": "1666529184"}, "not a time"),
        ({**IETF_03, "iat": True}, "not a time"),
        ({**IETF_03, "iat": -1}, "not a time"),
        ({**IETF_03, "iat": 1 << 60}, "not a time"),
        ({**IETF_03, "iat": 1666529184.0}, "not a time"),
        ({**IETF_03, "exp": 1666529184.0}, "not a time"),
        ({**VERAISON, "iat": 1666529184.5}, "not a time"),
        ({**IETF_03, "ear_verifier_id": {"developer": "d"}}, "developer and a build"),
        ({**IETF_03, "ear_verifier_id": {"developer": "d", "build": 1}}, "not text"),
        ({**IETF_03, "ear_verifier_id": {"developer": "d", "build": "", "x": ""}}, "a build"),
        ({**IETF_03, "ear_raw_evidence": "a b"}, "base64url"),
        ({**IETF_03, "ear_raw_evidence": "__4="}, "base64url"),
        ({**IETF_03, "ear_raw_evidence": 1}, "base64url"),
        ({**IETF_03, "eat_nonce": "MTIzNA=="}, "a nonce of 4 octets"),
        ({**IETF_03, "eat_nonce": "MTIzNDU2Nzg=="}, "base64url"),
        ({**IETF_03, "eat_nonce": "MTIzNDU2Nzg=\n"}, "base64url"),
        ({**IETF_03, "eat_nonce": ["MTIzNDU2Nzg="]}, "nonce"),
        ({**IETF_03, "ear_status": 2}, "tier"),
        ({**IETF_03, "ear_status": "Affirming"}, "tier"),
        (with_submod(IETF_03, ear_status="good"), "'PSA'.*tier"),
        (with_submod(IETF_03, ear_trustworthiness_vector={"hardware": 128}), "'PSA'.*128"),
        (with_submod(IETF_03, ear_trustworthiness_vector={"hardware": 96}), "'PSA'.*better"),
        (with_submod(IETF_03, ear_trustworthiness_vector=[]), "'PSA'.*not a map"),
        (with_submod(IETF_03, ear_appraisal_policy_ids="p"), "'PSA'.*not an array"),
        (with_submod(IETF_03, ear_appraisal_policy_ids=[]), "'PSA'.*one or more"),
        (with_submod(IETF_03, ear_appraisal_policy_ids=[1]), "'PSA'.*not text"),
        (with_submod_claims(VERAISON, {"ear.appraisal-policy-id": ["p"]}), "not text"),
        (with_submod(IETF_03, ear_veraison_key_attestation={}), "akpub"),
        (with_submod(IETF_03, ear_veraison_key_attestation={"akpub": "AAAA"}), "akpub"),
        (with_submod(IETF_03, ear_veraison_key_attestation={"akpub": 1}), "base64url"),
        (with_submod(IETF_03, ear_veraison_key_attestation={"akpub": AKPUB, "x": 1}), "akpub"),
        (with_submod(IETF_03, eat_profile=1), "not text"),
    ],
)
def test_a_claims_set_that_breaks_a_rule_is_refused(claims: object, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(claims)


@pytest.mark.parametrize(
    "claims",
    [
        {**IETF_03_CBOR, 6: cbor.Tag(1, 1666529184)},
        {**IETF_03_CBOR, 6: 1666529184.0},
        {**IETF_03_CBOR, 1000: "affirming"},
        {**IETF_03_CBOR, 1002: "text"},
        {**IETF_03_CBOR, 10: "MTIzNDU2Nzg="},
        {**IETF_03_CBOR, 266: {1: {1000: 2}}},
        {**IETF_03_CBOR, b"x": 1},
        {**IETF_03_CBOR, 1004: {"developer": "d", "build": "b"}},
        with_submod_claims(IETF_03_CBOR, {1001: {"hardware": 2}}),
        with_submod_claims(IETF_03_CBOR, {-70002: {"akpub": "AAAA"}}),
        {**IETF_03_CBOR, "ear_status": 96},
        {**IETF_03_CBOR, "iat": 5},
    ],
)
def test_cbor_has_its_own_spellings_only(claims: object) -> None:
    with pytest.raises(DecodeError):
        decode_cbor(claims)


@pytest.mark.parametrize("profile", ["", "tag:ietf.org,2026:rats/ear#04", "test_profile"])
def test_an_unknown_profile_is_refused_with_the_known_ones(profile: str) -> None:
    with pytest.raises(UnsupportedError, match=r"tag:ietf\.org,2025-07:ear"):
        decode({**IETF_03, "eat_profile": profile})


def test_one_token_does_not_speak_two_dialects() -> None:
    for claims in (
        {**IETF_03, "ear.status": "affirming"},
        {**VERAISON, "ear_status": "affirming"},
        with_submod_claims(IETF_03, {"ear.status": "contraindicated"}),
        with_submod_claims(VERAISON, {"ear_trustworthiness_vector": {"hardware": 96}}),
        {**IETF_03, "eat_profile": VERAISON["eat_profile"]},
    ):
        with pytest.raises(DecodeError, match=r"another dialect|has no ear\.verifier-id"):
            decode(claims)


def test_a_go_writers_exponent_is_an_integer_in_the_older_dialects() -> None:
    text = json.dumps(VERAISON).replace("1666529184", "1.666529184e+09")
    assert decode_ear(text.encode(), wire="json") == decode(VERAISON)


def test_a_nonce_may_come_with_or_without_padding() -> None:
    for text in ("MTIzNDU2Nzg=", "MTIzNDU2Nzg"):
        assert decode({**IETF_03, "eat_nonce": text}).nonce == b"12345678"


def test_a_written_nonce_has_the_length_that_the_draft_counts() -> None:
    for size, length in ((8, 12), (64, 88)):
        claims = json.loads(encode_ear(plain_ear(nonce=b"n" * size), Dialect.IETF_03))
        assert len(claims["eat_nonce"]) == length


def test_a_null_vector_is_no_vector() -> None:
    ear = decode(with_submod(IETF_03, ear_trustworthiness_vector={}))
    assert ear.submods["PSA"].vector is None
    assert EarSubmod(status=TrustTier.NONE, vector=TrustworthinessVector()).vector is None
    assert b"vector" not in encode_ear(ear, Dialect.IETF_03)


def test_unknown_claims_come_through_unchanged() -> None:
    extra = {"jti": "1", "x": {"a": [1, None, 2.5]}}
    ear = decode({**with_submod(IETF_03, y=[]), **extra})
    assert dict(ear.extensions) == extra
    assert ear.submods["PSA"].extensions == {"y": []}
    assert json.loads(encode_ear(ear, Dialect.IETF_03)) == {**with_submod(IETF_03, y=[]), **extra}


def test_known_extensions_change_their_spelling_with_the_dialect() -> None:
    claims = with_submod(
        IETF_03,
        ear_veraison_annotated_evidence={"a": "b"},
        ear_veraison_policy_claims={"c": 1},
        ear_teep_claims={"ueid": "AQ"},
    )
    ear = decode({**claims, "ear_veraison_tee_info": {"tee-name": "t"}})
    other = json.loads(encode_ear(ear, Dialect.VERAISON))
    assert other["ear.veraison.tee-info"] == {"tee-name": "t"}
    assert other["submods"]["PSA"]["ear.veraison.annotated-evidence"] == {"a": "b"}
    assert other["submods"]["PSA"]["ear.veraison.policy-claims"] == {"c": 1}
    assert other["submods"]["PSA"]["ear.teep-claims"] == {"ueid": "AQ"}
    binary = cbor.decode(encode_ear(ear, Dialect.IETF_03, wire="cbor"), format="test")
    assert binary["ear_veraison_tee_info"] == {"tee-name": "t"}
    assert binary[266]["PSA"][-70000] == {"a": "b"}
    assert binary[266]["PSA"][-70001] == {"c": 1}
    assert binary[266]["PSA"][65000] == {"ueid": "AQ"}


def test_a_claim_in_a_place_without_meaning_is_kept_there() -> None:
    claims = {**VERAISON, "ear.appraisal-policy-id": "p"}
    ear = decode(claims)
    assert json.loads(encode_ear(ear, Dialect.VERAISON)) == claims
    assert json.loads(encode_ear(ear, Dialect.IETF_03))["ear_appraisal_policy_ids"] == "p"


def test_what_has_no_json_form_is_refused_by_name_rather_than_bent() -> None:
    for extra in ({7: b"cti"}, {-99999: 1}, {"x": b"octets"}, {"x": {1: 2}}):
        ear = decode_cbor({**IETF_03_CBOR, **extra})
        assert encode_ear(ear, Dialect.IETF_03, wire="cbor")
        with pytest.raises(UnsupportedError):
            encode_ear(ear, Dialect.IETF_03, wire="json")


def test_several_policies_need_the_dialect_that_carries_them() -> None:
    part = EarSubmod(status=TrustTier.NONE, policy_ids=["first", "second"])
    ear = plain_ear(submods={"x": part})
    assert decode_ear(encode_ear(ear, Dialect.IETF_03), wire="json") == ear
    with pytest.raises(UnsupportedError, match="carries one"):
        encode_ear(ear, Dialect.VERAISON)


def test_an_extension_cannot_stand_in_for_a_claim_of_its_own() -> None:
    for name in ("ear_status", "exp", "ear.status", "troth_tier"):
        with pytest.raises(ApiMisuseError, match="field of its own"):
            encode_ear(plain_ear(extensions={name: "affirming"}), Dialect.IETF_03)
    with pytest.raises(ApiMisuseError):
        encode_ear(plain_ear(extensions={1000: 2}), Dialect.IETF_03, wire="cbor")


def test_an_alias_of_the_dialect_stays_as_it_is() -> None:
    trustee = "tag:github.com,2024:confidential-containers/Trustee"
    ear = decode({**VERAISON, "eat_profile": trustee})
    assert json.loads(encode_ear(ear, Dialect.VERAISON))["eat_profile"] == trustee
    assert json.loads(encode_ear(ear, Dialect.IETF_03))["eat_profile"] == IETF_03["eat_profile"]


def test_a_key_attestation_is_read_from_both_encodings() -> None:
    one = decode(with_submod(IETF_03, ear_veraison_key_attestation={"akpub": AKPUB}))
    other = decode_ear(encode_ear(one, Dialect.IETF_03, wire="cbor"), wire="cbor")
    assert one.keys == other.keys
    assert len(one.keys) == 1


def test_limits_hold_for_both_encodings() -> None:
    limits = Limits(max_bytes=64, max_items=64, max_depth=8)
    ear = plain_ear(expires_at=NOW + timedelta(hours=1))
    for wire in ("json", "cbor"):
        with pytest.raises(LimitExceededError, match="max_bytes"):
            decode_ear(encode_ear(ear, Dialect.IETF_03, wire=wire), wire=wire, limits=limits)
