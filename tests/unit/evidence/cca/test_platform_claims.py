# SPDX-License-Identifier: Apache-2.0
"""Every rule for CCA platform claims, with a neighbour that breaks it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from support.vectors import vectors
from troth.errors import DecodeError, UnsupportedError
from troth.evidence.cca.platform_claims import (
    PLATFORM_PROFILES,
    PlatformClaims,
    decode_platform_claims,
)

_COMPONENT = {1: "RMM", 2: b"m" * 32, 5: b"s" * 32, 6: "sha-256"}
_CLAIMS: dict[int, Any] = {
    10: b"n" * 48,
    256: b"\x01" + b"i" * 32,
    265: "tag:arm.com,2023:cca_platform#1.0.0",
    2395: 0x3003,
    2396: b"c" * 32,
    2399: [_COMPONENT],
    2400: "https://verifier.example",
    2401: b"\xcf\xcf",
    2402: "sha-256",
}
_MANDATORY = [10, 256, 265, 2395, 2396, 2399, 2401, 2402]


def decode(**changes: object) -> PlatformClaims:
    return decode_platform_claims(
        {**_CLAIMS, **{int(key[1:]): value for key, value in changes.items()}}
    )


def test_json_names_are_the_documented_ones() -> None:
    assert decode().to_json() == {
        "profile": "tag:arm.com,2023:cca_platform#1.0.0",
        "nonce": "6e" * 48,
        "instance-id": "01" + "69" * 32,
        "implementation-id": "63" * 32,
        "security-lifecycle": "secured",
        "security-lifecycle-value": 0x3003,
        "cca-platform-config": "cfcf",
        "software-components": [
            {
                "measurement-type": "RMM",
                "measurement-value": "6d" * 32,
                "signer-id": "73" * 32,
                "measurement-desc": "sha-256",
            }
        ],
        "cca-platform-hash-algo-id": "sha-256",
        "verification-service-indicator": "https://verifier.example",
    }


@pytest.mark.parametrize("profile", PLATFORM_PROFILES)
def test_both_profiles_hold_the_same_claims(profile: str) -> None:
    assert decode(_265=profile).profile == profile


@pytest.mark.parametrize(
    "profile", ["", "http://arm.com/PSA-SSD/1.0.0", "tag:arm.com,2024:cca_platform#2.0.0"]
)
def test_a_profile_that_is_not_known_is_unsupported(profile: str) -> None:
    with pytest.raises(UnsupportedError, match=r"known are tag:arm.com"):
        decode(_265=profile)


@pytest.mark.parametrize("missing", _MANDATORY)
def test_each_mandatory_claim_must_be_there(missing: int) -> None:
    claims = {key: value for key, value in _CLAIMS.items() if key != missing}
    with pytest.raises(DecodeError, match=rf"claim {missing} \(.*\) is missing"):
        decode_platform_claims(claims)


def test_the_verification_service_may_be_missing() -> None:
    claims = {key: value for key, value in _CLAIMS.items() if key != 2400}
    assert "verification-service-indicator" not in decode_platform_claims(claims).to_json()


@pytest.mark.parametrize("value", [None, True, 1.5, b"", "", 0, [], {}])
@pytest.mark.parametrize("key", _CLAIMS)
def test_no_claim_is_taken_in_another_type(key: int, value: object) -> None:
    if type(value) is type(_CLAIMS[key]):
        return
    with pytest.raises(DecodeError):
        decode_platform_claims({**_CLAIMS, key: value})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"_10": bytes(31)}, "claim 10 .*31 octets"),
        ({"_10": bytes(65)}, "claim 10 .*65 octets"),
        ({"_256": bytes(33)}, "claim 256 .*0x00"),
        ({"_256": b"\x01" * 32}, "claim 256 .*32 octets"),
        ({"_2395": 0x3100}, "claim 2395 .*security-lifecycle"),
        ({"_2395": -1}, "claim 2395"),
        ({"_2396": bytes(31)}, "claim 2396 .*31 octets"),
        ({"_2399": []}, "empty array"),
        ({"_2399": [{2: bytes(32)}]}, "component 0: claim 5 .*signer-id.* is missing"),
    ],
)
def test_sizes_and_ranges_are_checked(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        decode(**changes)


def test_an_empty_config_is_one() -> None:
    assert decode(_2401=b"").to_json()["cca-platform-config"] == ""


def test_claims_of_later_profiles_are_ignored_but_shown() -> None:
    claims = decode(_2394=1, _2403=b"\xab")
    assert claims.unrecognised == {"2394": 1, "2403": "ab"}


_VERAISON = {
    "cca-platform-profile": 265,
    "cca-platform-challenge": 10,
    "cca-platform-implementation-id": 2396,
    "cca-platform-instance-id": 256,
    "cca-platform-config": 2401,
    "cca-platform-lifecycle": 2395,
    "cca-platform-sw-components": 2399,
    "cca-platform-service-indicator": 2400,
    "cca-platform-hash-algo-id": 2402,
}


def from_json(name: str) -> dict[int, Any]:
    """Return the CBOR claims map that Veraison's JSON claims stand for."""
    source = json.loads((vectors("cca") / "ccatoken" / name).read_text())
    claims: dict[int, Any] = {_VERAISON[key]: value for key, value in source.items()}
    for key in (10, 256, 2396, 2401):
        claims[key] = base64.b64decode(claims[key])
    if 2399 in claims:
        claims[2399] = [
            {
                2: base64.b64decode(each["measurement-value"]),
                5: base64.b64decode(each["signer-id"]),
            }
            for each in claims[2399]
        ]
    return claims


def test_the_valid_claims_of_veraison_pass() -> None:
    claims = decode_platform_claims(from_json("test-token-valid-full.json"))
    assert claims.profile == "http://arm.com/CCA-SSD/1.0.0"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("test-lifecycle-invalid.json", "claim 2395"),
        ("test-no-sw-components.json", "claim 2399 .* is missing"),
        ("test-invalid-profile.json", "claim 265 .*PSA-SSD"),
    ],
)
def test_the_invalid_claims_of_veraison_fail_for_their_reason(name: str, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        decode_platform_claims(from_json(name))
