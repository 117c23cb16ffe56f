# SPDX-License-Identifier: Apache-2.0
"""Every rule of RFC 9783 section 4, with a neighbour that breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from support.diag import read_diag
from support.vectors import vectors
from troth.errors import DecodeError, UnsupportedError
from troth.evidence.lifecycle import Lifecycle
from troth.evidence.psa.claims import PROFILES, PSA_IOT_1, TFM, PsaClaims, decode_claims

_INSTANCE_ID = b"\x01" + b"i" * 32
_COMPONENT = {1: "BL", 2: b"m" * 32, 4: "1.0", 5: b"s" * 32}

_TFM: dict[int, Any] = {
    10: b"n" * 32,
    256: _INSTANCE_ID,
    265: "tag:psacertified.org,2023:psa#tfm",
    268: b"b" * 8,
    2394: -1,
    2395: 0x3001,
    2396: b"c" * 32,
    2398: "1234567890123-12345",
    2399: [_COMPONENT],
    2400: "https://verifier.example",
}
_PSA_2 = {**_TFM, 265: "http://arm.com/psa/2.0.0"}
_IOT_1: dict[int, Any] = {
    -75008: b"n" * 32,
    -75009: _INSTANCE_ID,
    -75000: "PSA_IOT_PROFILE_1",
    -75004: b"b" * 32,
    -75001: -1,
    -75002: 0x3001,
    -75003: b"c" * 32,
    -75005: "1234567890123",
    -75006: [_COMPONENT],
    -75010: "https://verifier.example",
}
_ALL = {"tfm": _TFM, "psa/2.0.0": _PSA_2, "iot-1": _IOT_1}


def without(claims: dict[int, Any], *keys: int) -> dict[int, Any]:
    return {key: value for key, value in claims.items() if key not in keys}


@pytest.mark.parametrize("name", _ALL)
def test_the_same_claims_come_out_of_each_profile(name: str) -> None:
    claims = decode_claims(_ALL[name])
    assert claims.nonce == b"n" * 32
    assert claims.instance_id == _INSTANCE_ID
    assert claims.implementation_id == b"c" * 32
    assert claims.client_id == -1
    assert claims.lifecycle is Lifecycle.SECURED
    assert claims.lifecycle_value == 0x3001
    assert claims.boot_seed == (b"b" * 32 if name == "iot-1" else b"b" * 8)
    assert claims.certification_reference.startswith("1234567890123")
    assert claims.verification_service_indicator == "https://verifier.example"
    assert [each.measurement_type for each in claims.software_components] == ["BL"]
    assert not claims.unrecognised


def test_json_names_are_the_documented_ones() -> None:
    assert decode_claims(_TFM).to_json() == {
        "profile": "tag:psacertified.org,2023:psa#tfm",
        "nonce": "6e" * 32,
        "instance-id": "01" + "69" * 32,
        "implementation-id": "63" * 32,
        "client-id": -1,
        "security-lifecycle": "secured",
        "security-lifecycle-value": 0x3001,
        "boot-seed": "62" * 8,
        "certification-reference": "1234567890123-12345",
        "software-components": [
            {
                "measurement-type": "BL",
                "measurement-value": "6d" * 32,
                "version": "1.0",
                "signer-id": "73" * 32,
            }
        ],
        "verification-service-indicator": "https://verifier.example",
    }


@pytest.mark.parametrize("name", _ALL)
def test_each_mandatory_claim_must_be_there(name: str) -> None:
    claims, profile = _ALL[name], PROFILES[decode_claims(_ALL[name]).profile]
    for key in (
        profile.nonce,
        profile.instance_id,
        profile.profile,
        profile.client_id,
        profile.security_lifecycle,
        profile.implementation_id,
        profile.software_components,
    ):
        with pytest.raises(DecodeError, match="is missing"):
            decode_claims(without(claims, key))


@pytest.mark.parametrize("name", _ALL)
def test_each_optional_claim_may_be_missing(name: str) -> None:
    profile = PROFILES[decode_claims(_ALL[name]).profile]
    optional = [profile.certification_reference, profile.verification_service_indicator]
    if not profile.boot_seed_required:
        optional += profile.boot_seeds
    claims = decode_claims(without(_ALL[name], *optional))
    assert not claims.certification_reference
    assert not claims.verification_service_indicator
    absent = {"certification-reference", "verification-service-indicator"}
    assert not absent & claims.to_json().keys()


@pytest.mark.parametrize("name", _ALL)
@pytest.mark.parametrize("value", [None, True, 1.5, b"", "", 0, [], {}])
def test_no_claim_is_taken_in_another_type(name: str, value: object) -> None:
    claims = _ALL[name]
    for key, right in claims.items():
        if type(value) is not type(right):
            with pytest.raises(DecodeError):
                decode_claims({**claims, key: value})


@pytest.mark.parametrize("size", range(70))
def test_nonces_have_one_of_three_sizes(size: int) -> None:
    claims = {**_TFM, 10: bytes(size)}
    if size in {32, 48, 64}:
        assert decode_claims(claims).nonce == bytes(size)
    else:
        with pytest.raises(DecodeError, match="claim 10 "):
            decode_claims(claims)


def test_an_array_of_nonces_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"claim 10 \(nonce\) is the array"):
        decode_claims({**_TFM, 10: [b"n" * 32, b"m" * 32]})
    with pytest.raises(DecodeError, match=r"claim 10 \(nonce\) is the array"):
        decode_claims({**_TFM, 10: [b"n" * 32]})


@pytest.mark.parametrize("size", [0, 31, 33])
def test_implementation_ids_have_32_octets(size: int) -> None:
    with pytest.raises(DecodeError, match=r"claim 2396 .*implementation-id"):
        decode_claims({**_TFM, 2396: bytes(size)})


@pytest.mark.parametrize("value", [b"\x01" * 32, b"\x01" * 34, b"\x00" + b"i" * 32, b"\x02" * 33])
def test_instance_ids_are_rand_ueids(value: bytes) -> None:
    with pytest.raises(DecodeError, match=r"claim 256 .*instance-id"):
        decode_claims({**_TFM, 256: value})


@pytest.mark.parametrize("value", [-(2**31), -1, 1, 2**31 - 1])
def test_client_ids_have_32_bits(value: int) -> None:
    assert decode_claims({**_TFM, 2394: value}).client_id == value


@pytest.mark.parametrize("value", [0, 2**31, -(2**31) - 1, 2**64 - 1, -(2**64)])
def test_client_id_zero_and_beyond_32_bits_are_refused(value: int) -> None:
    with pytest.raises(DecodeError, match=r"claim 2394 .*32 bits, not zero"):
        decode_claims({**_TFM, 2394: value})


@pytest.mark.parametrize("value", [0x0100, 0x2F00, 0x3100, 0x7000, 0x13000, -1, 32565, 2**63])
def test_a_lifecycle_outside_the_ranges_is_refused(value: int) -> None:
    with pytest.raises(DecodeError, match=r"claim 2395 .*security-lifecycle"):
        decode_claims({**_TFM, 2395: value})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0x00FF, "unknown"),
        (0x30FF, "secured"),
        (0x4000, "non-rot-debug"),
        (0x60FF, "decommissioned"),
    ],
)
def test_every_state_decodes_whether_it_is_a_good_one_or_not(value: int, name: str) -> None:
    assert decode_claims({**_TFM, 2395: value}).to_json()["security-lifecycle"] == name


@pytest.mark.parametrize("size", range(40))
def test_boot_seeds_have_8_to_32_octets_or_32_in_the_oldest_profile(size: int) -> None:
    for claims, key, sizes in ((_TFM, 268, range(8, 33)), (_IOT_1, -75004, range(32, 33))):
        if size in sizes:
            assert decode_claims({**claims, key: bytes(size)}).boot_seed == bytes(size)
        else:
            with pytest.raises(DecodeError, match="boot-seed"):
                decode_claims({**claims, key: bytes(size)})


def test_the_oldest_profile_must_have_a_boot_seed() -> None:
    with pytest.raises(DecodeError, match=r"claim -75004 \(boot-seed\) is missing"):
        decode_claims(without(_IOT_1, -75004))


def test_the_middle_profile_takes_the_boot_seed_under_either_key_but_not_both() -> None:
    old = {**without(_PSA_2, 268), 2397: b"o" * 32}
    assert decode_claims(old).boot_seed == b"o" * 32
    with pytest.raises(DecodeError, match=r"claim 2397 .*beside claim 268"):
        decode_claims({**old, 268: b"n" * 32})


def test_the_current_profile_ignores_the_old_boot_seed_key() -> None:
    claims = decode_claims({**without(_TFM, 268), 2397: b"o" * 32})
    assert claims.boot_seed == b""
    assert claims.unrecognised == {"2397": "6f" * 32}


@pytest.mark.parametrize(
    "value",
    ["", "1234567890123", "123456789012-12345", "1234567890123-1234", "1234567890123-12345\n",
     "1234567890123-1234x", "١٢٣٤٥٦٧٨٩٠١٢٣-12345", " 1234567890123-12345"],
)  # fmt: skip
def test_certification_references_follow_their_form(value: str) -> None:
    with pytest.raises(DecodeError, match=r"claim 2398 .*certification-reference"):
        decode_claims({**_TFM, 2398: value})


def test_the_oldest_profile_has_the_shorter_certification_reference() -> None:
    with pytest.raises(DecodeError, match="certification-reference"):
        decode_claims({**_IOT_1, -75005: "1234567890123-12345"})


def test_only_the_oldest_profile_may_excuse_missing_measurements() -> None:
    excused = {**without(_IOT_1, -75006), -75007: 1}
    claims = decode_claims(excused)
    assert claims.no_software_measurements
    assert claims.to_json()["software-components"] == []
    assert claims.to_json()["no-software-measurements"] is True
    with pytest.raises(DecodeError, match="is missing"):
        decode_claims({**without(_TFM, 2399), -75007: 1})


@pytest.mark.parametrize("value", [0, 2, -1])
def test_the_excuse_is_one_and_nothing_else(value: int) -> None:
    with pytest.raises(DecodeError, match=r"claim -75007 .*is not 1"):
        decode_claims({**without(_IOT_1, -75006), -75007: value})


def test_the_excuse_beside_measurements_is_refused() -> None:
    with pytest.raises(DecodeError, match="beside software components"):
        decode_claims({**_IOT_1, -75007: 1})


def test_an_empty_list_of_components_is_refused() -> None:
    with pytest.raises(DecodeError, match="empty array"):
        decode_claims({**_TFM, 2399: []})


@pytest.mark.parametrize(
    "name",
    ["", "tag:psacertified.org,2023:psa#aes-mac", "TAG:psacertified.org,2023:psa#tfm",
     "tag:psacertified.org,2019:psa#legacy", "PSA_IOT_PROFILE_1"],
)  # fmt: skip
def test_a_profile_that_is_not_known_is_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"known are tag:psacertified.org"):
        decode_claims({**_TFM, 265: name})


def test_a_profile_under_another_profiles_key_is_unsupported() -> None:
    with pytest.raises(UnsupportedError):
        decode_claims({**_IOT_1, -75000: TFM.name})


def test_two_profile_claims_are_refused() -> None:
    with pytest.raises(DecodeError, match="two profile claims, 265 and -75000"):
        decode_claims({**_TFM, -75000: PSA_IOT_1.name})


def test_a_cca_platform_token_is_called_by_its_name() -> None:
    with pytest.raises(UnsupportedError) as e:
        decode_claims({**_TFM, 265: "tag:arm.com,2023:cca_platform#1.0.0"})
    assert "CCA platform token" in e.value.remedy


def test_unknown_claims_are_ignored_but_shown() -> None:
    claims = decode_claims({**_TFM, 999: b"\x01", "vendor": {"a": 1}})
    assert claims.unrecognised == {"999": "01", "vendor": {"a": 1}}
    assert claims.to_json()["unrecognised"] == claims.unrecognised


def test_claims_of_one_profile_do_not_count_in_another() -> None:
    claims = decode_claims({**_TFM, -75010: "https://elsewhere.example"})
    assert claims.verification_service_indicator == "https://verifier.example"
    assert claims.unrecognised == {"-75010": "https://elsewhere.example"}


@pytest.mark.parametrize("claims", [[], b"", None, "text"])
def test_a_payload_that_is_no_map_is_refused(claims: object) -> None:
    with pytest.raises(DecodeError, match="not a map"):
        decode_claims(claims)


def test_claims_are_immutable() -> None:
    claims = decode_claims(_TFM)
    assert isinstance(claims, PsaClaims)
    with pytest.raises(AttributeError):
        claims.nonce = b""  # type: ignore[misc] # that it cannot be written is the point


_REASONS = {
    "BootSeed_too_big": "boot-seed",
    "BootSeed_too_small": "boot-seed",
    "ImplementationID_missing": "implementation-id",
    "ImplementationID_wrong_format": "implementation-id",
    "InstanceID_missing": "instance-id",
    "InstanceID_wrong_format": "instance-id",
    "SoftwareComponent_Measurement_missing": "measurement-value",
}


@pytest.mark.parametrize("reason", _REASONS)
def test_a_published_claims_set_fails_for_the_reason_in_its_name(reason: str) -> None:
    text = (vectors("psa") / f"rfc9783-claims/FAIL_{reason}.diag").read_text()
    with pytest.raises(DecodeError, match=_REASONS[reason]):
        decode_claims(read_diag(text))


@pytest.mark.parametrize("name", ["full", "mandatory_only"])
def test_a_published_good_claims_set_passes(name: str) -> None:
    text = (vectors("psa") / f"rfc9783-claims/GOOD_{name}.diag").read_text()
    claims = decode_claims(read_diag(text))
    assert claims.profile == TFM.name
    assert len(claims.software_components) == 4


def test_every_published_claims_set_is_one_of_the_above() -> None:
    names = {file.stem for file in (vectors("psa") / "rfc9783-claims").glob("*.diag")}
    expected = {f"FAIL_{reason}" for reason in _REASONS} | {"GOOD_full", "GOOD_mandatory_only"}
    assert names == expected


@pytest.mark.parametrize("key", [265, 2398, 10, 2395])
def test_messages_about_hostile_claims_are_short_and_on_one_line(key: int) -> None:
    with pytest.raises(DecodeError) as e:
        decode_claims({**_TFM, key: "x\n" * 5000})
    assert len(str(e.value)) < 400
    assert "\n" not in str(e.value)
