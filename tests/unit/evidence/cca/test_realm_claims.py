# SPDX-License-Identifier: Apache-2.0
"""Every rule for CCA realm claims in three generations, with a neighbour that breaks it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from support.vectors import vectors
from troth.errors import DecodeError, UnsupportedError
from troth.evidence.cca.realm_claims import RealmClaims, decode_realm_claims

_COMMON: dict[int, Any] = {
    10: b"c" * 64,
    44235: b"p" * 64,
    44236: "sha-256",
    44238: b"r" * 32,
    44239: [b"0" * 32, b"1" * 32, b"2" * 32, b"3" * 32],
    44240: "sha-256",
}
_LEGACY = {**_COMMON, 44237: b"\x04" + bytes(96)}
_V1 = {**_COMMON, 265: "tag:arm.com,2023:realm#1.0.0", 44237: b"\xa1\x01\x02", 44241: "shared"}
_V2 = {
    **_COMMON,
    265: "tag:arm.com,2024:realm#2.0.0",
    44237: b"\xa1\x01\x02",
    256: b"\x01" + b"i" * 32,
    44243: 1,
}
_ALL = {"legacy": _LEGACY, "1.0.0": _V1, "2.0.0": _V2}


def without(claims: dict[int, Any], key: int) -> dict[int, Any]:
    return {other: value for other, value in claims.items() if other != key}


def test_json_names_are_the_documented_ones() -> None:
    assert decode_realm_claims({**_V2, 44244: 0, 44257: b"d" * 32}).to_json() == {
        "profile": "tag:arm.com,2024:realm#2.0.0",
        "cca-realm-challenge": "63" * 64,
        "cca-realm-personalization-value": "70" * 64,
        "cca-realm-hash-algo-id": "sha-256",
        "cca-realm-public-key": "a10102",
        "cca-realm-public-key-hash-algo-id": "sha-256",
        "cca-realm-initial-measurement": "72" * 32,
        "cca-realm-extensible-measurements": ["30" * 32, "31" * 32, "32" * 32, "33" * 32],
        "cca-realm-instance-id": "01" + "69" * 32,
        "cca-realm-mec-policy": "private",
        "cca-realm-lfa-policy": "disallow",
        "cca-realm-devices-token-hash": "64" * 32,
    }


def test_a_realm_without_a_profile_has_no_such_name() -> None:
    assert "profile" not in decode_realm_claims(_LEGACY).to_json()


@pytest.mark.parametrize("name", _ALL)
@pytest.mark.parametrize("missing", [*_COMMON, 44237])
def test_each_mandatory_claim_must_be_there(name: str, missing: int) -> None:
    with pytest.raises(DecodeError, match=rf"claim {missing} \(cca-realm-.*\) is missing"):
        decode_realm_claims(without(_ALL[name], missing))


@pytest.mark.parametrize("missing", [256, 44243])
def test_the_current_profile_asks_for_more(missing: int) -> None:
    with pytest.raises(DecodeError, match=rf"claim {missing} "):
        decode_realm_claims(without(_V2, missing))


def test_older_profiles_may_have_it_or_not() -> None:
    early = decode_realm_claims({**_LEGACY, 256: b"\x01" + bytes(32), 44243: 0})
    assert early.instance_id == b"\x01" + bytes(32)
    assert early.mec_policy == "shared"
    assert decode_realm_claims(_LEGACY).mec_policy == ""
    assert decode_realm_claims(without(_V1, 44241)).mec_policy == ""


@pytest.mark.parametrize("name", _ALL)
@pytest.mark.parametrize("value", [None, True, 1.5, b"", "", 7, [], {}])
def test_no_claim_is_taken_in_another_type(name: str, value: object) -> None:
    for key, right in _ALL[name].items():
        if type(value) is not type(right):
            with pytest.raises(DecodeError):
                decode_realm_claims({**_ALL[name], key: value})


@pytest.mark.parametrize("key", [10, 44235])
@pytest.mark.parametrize("size", [0, 32, 48, 63, 65])
def test_challenge_and_personalization_have_64_octets(key: int, size: int) -> None:
    with pytest.raises(DecodeError, match=rf"claim {key} .*{size} octets; expected 64"):
        decode_realm_claims({**_V2, key: bytes(size)})


@pytest.mark.parametrize("size", [0, 20, 31, 33, 65])
def test_measurements_have_one_of_three_sizes(size: int) -> None:
    with pytest.raises(DecodeError, match="claim 44238"):
        decode_realm_claims({**_V2, 44238: bytes(size)})
    with pytest.raises(DecodeError, match=r"claim 44239 .*entry 2 is not"):
        decode_realm_claims({**_V2, 44239: [bytes(32), bytes(32), bytes(size), bytes(32)]})


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_there_are_four_extensible_measurements(count: int) -> None:
    with pytest.raises(DecodeError, match=f"has {count} entries; expected 4"):
        decode_realm_claims({**_V2, 44239: [bytes(32)] * count})


@pytest.mark.parametrize("size", [65, 96, 98, 133])
def test_a_raw_key_is_a_point_on_p_384(size: int) -> None:
    with pytest.raises(DecodeError, match=r"claim 44237 .*expected 97"):
        decode_realm_claims({**_LEGACY, 44237: bytes(size)})


@pytest.mark.parametrize("algorithm", ["sha-384", "sha-512"])
def test_stronger_binding_hashes_are_known(algorithm: str) -> None:
    claims = decode_realm_claims({**_V2, 44240: algorithm})
    assert claims.public_key_hash_algorithm == algorithm


@pytest.mark.parametrize("algorithm", ["", "sha-1", "md5", "SHA-256", "sha256", "sha3-256"])
def test_other_binding_hashes_are_unsupported(algorithm: str) -> None:
    with pytest.raises(UnsupportedError, match="known are sha-256, sha-384, sha-512"):
        decode_realm_claims({**_V2, 44240: algorithm})


@pytest.mark.parametrize(
    "profile", ["", "tag:arm.com,2023:realm#1.0.1", "tag:arm.com,2024:realm#3.0.0", "realm"]
)
def test_a_profile_that_is_not_known_is_unsupported(profile: str) -> None:
    with pytest.raises(UnsupportedError, match="or no such claim"):
        decode_realm_claims({**_V2, 265: profile})


@pytest.mark.parametrize("value", [-1, 2, 255])
@pytest.mark.parametrize("key", [44243, 44244])
def test_policies_are_zero_or_one(key: int, value: int) -> None:
    with pytest.raises(DecodeError, match=rf"claim {key} .* is {value}; expected 0"):
        decode_realm_claims({**_V2, key: value})


@pytest.mark.parametrize("policy", ["", "Shared", "none"])
def test_the_older_policy_is_one_of_two_words(policy: str) -> None:
    with pytest.raises(DecodeError, match=r"claim 44241 .*expected"):
        decode_realm_claims({**_V1, 44241: policy})


@pytest.mark.parametrize("policy", ["shared", "private"])
def test_the_older_policy_reads_as_the_current_one(policy: str) -> None:
    assert decode_realm_claims({**_V1, 44241: policy}).to_json()["cca-realm-mec-policy"] == policy


def test_a_policy_under_another_profiles_key_is_shown_but_means_nothing() -> None:
    assert decode_realm_claims({**_V2, 44241: "shared"}).mec_policy == "private"
    assert decode_realm_claims({**_V2, 44241: "shared"}).unrecognised == {"44241": "shared"}
    assert decode_realm_claims({**_V1, 44243: 1}).unrecognised == {"44243": 1}


@pytest.mark.parametrize("value", [b"\x02" + bytes(32), bytes(32), b"\x01" + bytes(31)])
def test_a_realm_instance_id_is_a_rand_ueid(value: bytes) -> None:
    with pytest.raises(DecodeError, match=r"claim 256 .*cca-realm-instance-id"):
        decode_realm_claims({**_V2, 256: value})


_VERAISON = {
    "cca-realm-challenge": 10,
    "cca-realm-personalization-value": 44235,
    "cca-realm-initial-measurement": 44238,
    "cca-realm-extensible-measurements": 44239,
    "cca-realm-hash-algo-id": 44236,
    "cca-realm-public-key": 44237,
    "cca-realm-public-key-hash-algo-id": 44240,
}


def from_json(name: str) -> dict[int, Any]:
    """Return the CBOR claims map that Veraison's JSON claims stand for."""
    source = json.loads((vectors("cca") / "ccatoken" / name).read_text())
    claims: dict[int, Any] = {_VERAISON[key]: value for key, value in source.items()}
    for key in (10, 44235, 44237, 44238):
        claims[key] = base64.b64decode(claims[key])
    if 44239 in claims:
        claims[44239] = [base64.b64decode(each) for each in claims[44239]]
    return claims


def test_the_valid_claims_of_veraison_pass() -> None:
    claims = decode_realm_claims(from_json("test-cca-claims-all-valid.json"))
    assert isinstance(claims, RealmClaims)
    assert claims.profile == ""


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("test-invalid-nonce.json", "claim 10 .*expected 64"),
        ("test-invalid-public-key.json", "claim 44237 .*expected 97"),
        ("test-missing-extended-meas.json", "claim 44239 .* is missing"),
    ],
)
def test_the_invalid_claims_of_veraison_fail_for_their_reason(name: str, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        decode_realm_claims(from_json(name))
