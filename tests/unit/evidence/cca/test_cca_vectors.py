# SPDX-License-Identifier: Apache-2.0
"""The independent CCA vectors, each with what its provenance says a Verifier should conclude."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.evidence import FixedAnchors, verify
from support.vectors import vectors
from troth.errors import (
    BindingError,
    DecodeError,
    FreshnessError,
    SignatureError,
    UnsupportedError,
)
from troth.evidence.anchor import ECDSA
from troth.evidence.cca import SCHEME, CcaEvidence, decode_platform_token
from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.keys import load_keys
from troth.formats.signer import LocalSigner, load_private_key

_CPAK = "iat-verifier/cca_platform.pem"
_VERAISON_KEY = "veraison-services/ec.p256.jwk"
_LEGACY, _CURRENT = "http://arm.com/CCA-SSD/1.0.0", "tag:arm.com,2023:cca_platform#1.0.0"
_REALM_1, _REALM_2 = "tag:arm.com,2023:realm#1.0.0", "tag:arm.com,2024:realm#2.0.0"


@dataclass(frozen=True)
class Vector:
    token: str
    key: str
    wrapper: int
    platform: str
    realm: str
    components: int


_TOKENS = [
    Vector("iat-verifier/cca_example_token.cbor", _CPAK, 907, _CURRENT, _REALM_2, 13),
    Vector("iat-verifier/cca_example_token_legacy.cbor", _CPAK, 907, _LEGACY, "", 13),
    Vector("iat-verifier/cca_token.cbor", _CPAK, 907, _LEGACY, "", 4),
    Vector("ccatoken/cca_token.cbor", "ccatoken/cca_platform.pub", 399, _LEGACY, "", 4),
    Vector("veraison-services/cca-good.cbor", _VERAISON_KEY, 399, _LEGACY, _REALM_1, 4),
]
each_token = pytest.mark.parametrize("vector", _TOKENS, ids=lambda vector: str(vector.token))

_PLATFORM_TOKENS = [
    ("iat-verifier/cca_example_platform_token.cbor", _CURRENT, 13),
    ("iat-verifier/cca_example_platform_token_legacy.cbor", _LEGACY, 13),
    ("iat-verifier/cca_platform_token.cbor", _LEGACY, 4),
    ("tf-a/fvp_sample_platform_token.cbor", _CURRENT, 13),
]


def read(name: str) -> bytes:
    return (vectors("cca") / name).read_bytes()


def anchors(name: str) -> FixedAnchors:
    return FixedAnchors(*load_keys(read(name), source=name))


def decoded(name: str) -> CcaEvidence:
    return SCHEME.decode(read(name))


@each_token
def test_each_token_verifies_in_its_form(vector: Vector) -> None:
    challenge = decoded(vector.token).realm.claims.challenge
    verified = verify(
        read(vector.token),
        "cca",
        anchors=anchors(vector.key),
        challenge=challenge,
        allow_test_keys=True,
    )
    evidence = verified.evidence
    assert evidence.wrapper_tag == vector.wrapper
    assert evidence.platform.claims.profile == vector.platform
    assert evidence.realm.claims.profile == vector.realm
    assert len(evidence.platform.claims.software_components) == vector.components
    assert len(verified.insecure) == 2
    # The current profile alone gives a boot session.
    assert bool(verified.boot_session) == (vector.realm == _REALM_2)


@each_token
def test_their_keys_are_public_and_refused_by_default(vector: Vector) -> None:
    challenge = decoded(vector.token).realm.claims.challenge
    with pytest.raises(SignatureError, match="CPAK is a published test key"):
        verify(read(vector.token), "cca", anchors=anchors(vector.key), challenge=challenge)


@each_token
def test_another_challenge_is_refused(vector: Vector) -> None:
    with pytest.raises(FreshnessError):
        verify(
            read(vector.token),
            "cca",
            anchors=anchors(vector.key),
            challenge=b"\x5a" * 64,
            allow_test_keys=True,
        )


@each_token
def test_the_realms_key_is_no_anchor(vector: Vector) -> None:
    rak = anchors("iat-verifier/cca_realm.pem")
    challenge = decoded(vector.token).realm.claims.challenge
    with pytest.raises(SignatureError):
        verify(read(vector.token), "cca", anchors=rak, challenge=challenge, allow_test_keys=True)


@each_token
def test_one_octet_less_is_refused(vector: Vector) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(read(vector.token)[:-1])


@pytest.mark.parametrize(("token", "profile", "components"), _PLATFORM_TOKENS)
def test_a_platform_token_alone_decodes_for_tools(
    token: str, profile: str, components: int
) -> None:
    platform = decode_platform_token(read(token))
    (key,) = load_keys(read(_CPAK), source=_CPAK)
    platform.envelope.verify(key, algorithms=ECDSA)
    assert platform.claims.profile == profile
    assert len(platform.claims.software_components) == components
    assert platform.claims.lifecycle.value == "secured"


@pytest.mark.parametrize("token", [row[0] for row in _PLATFORM_TOKENS])
def test_a_platform_token_alone_is_no_evidence(token: str) -> None:
    with pytest.raises(UnsupportedError, match="without its realm token"):
        SCHEME.decode(read(token))


def test_trusted_firmwares_platform_token_is_the_one_in_the_current_example() -> None:
    example = decoded("iat-verifier/cca_example_token.cbor").platform
    firmware = decode_platform_token(read("tf-a/fvp_sample_platform_token.cbor"))
    assert example.claims == firmware.claims


def test_the_challenge_of_the_good_token_is_the_one_that_veraison_prints() -> None:
    problem = json.loads(read("veraison-services/result-cca.freshness-fail.json"))["ARM_CCA"][
        "ear.veraison.policy-claims"
    ]["problem"]
    realm = decoded("veraison-services/cca-good.cbor").realm
    assert realm.claims.challenge.hex() in problem


def test_the_good_token_holds_the_claims_that_it_was_made_from() -> None:
    source = json.loads(read("veraison-services/cca-good.json"))
    evidence = decoded("veraison-services/cca-good.cbor")
    platform, realm = source["cca-platform-token"], source["cca-realm-delegated-token"]
    octets = base64.b64decode
    claims = evidence.platform.claims
    assert claims.nonce == octets(platform["cca-platform-challenge"])
    assert claims.instance_id == octets(platform["cca-platform-instance-id"])
    assert claims.config == octets(platform["cca-platform-config"])
    assert [each.measurement_value for each in claims.software_components] == [
        octets(each["measurement-value"]) for each in platform["cca-platform-sw-components"]
    ]
    inside = evidence.realm.claims
    assert inside.initial_measurement == octets(realm["cca-realm-initial-measurement"])
    assert list(inside.extensible_measurements) == [
        octets(each) for each in realm["cca-realm-extensible-measurements"]
    ]
    assert inside.personalization_value == octets(realm["cca-realm-personalization-value"])


def test_the_parts_of_two_tokens_do_not_go_together() -> None:
    def parts(name: str) -> dict[int, Any]:
        item = cbor.decode(read(name), format="token")
        assert isinstance(item, cbor.Tag)
        assert isinstance(item.value, dict)
        return item.value

    first = parts("iat-verifier/cca_example_token.cbor")
    second = parts("iat-verifier/cca_token.cbor")
    mixed = cbor.encode(cbor.Tag(907, {44234: second[44234], 44241: first[44241]}))
    challenge = SCHEME.decode(mixed).realm.claims.challenge
    with pytest.raises(BindingError):
        verify(mixed, "cca", anchors=anchors(_CPAK), challenge=challenge, allow_test_keys=True)


_YAML_KEYS = {
    "cca_attestation_profile": 265,
    "cca_platform_challenge": 10,
    "cca_platform_implementation_id": 2396,
    "cca_platform_instance_id": 256,
    "cca_platform_config": 2401,
    "cca_platform_hash_algo_id": 2402,
    "cca_platform_verification_service": 2400,
    "cca_realm_challenge": 10,
    "cca_realm_instance_id": 256,
    "cca_realm_personalization_value": 44235,
    "cca_realm_hash_algm_id": 44236,
    "cca_realm_hash_algo_id": 44236,
    "cca_realm_public_key_hash_algo_id": 44240,
    "cca_realm_pub_key_hash_algo_id": 44240,
    "cca_realm_pub_key": 44237,
    "cca_realm_initial_measurement": 44238,
    "cca_realm_extensible_measurements": 44239,
    "cca_realm_profile": 265,
    "cca_realm_mec_policy": 44243,
}


def from_yaml(path: Path) -> bytes:
    """Make the token that iat-verifier's source describes, signed with its own test keys."""
    source = yaml.safe_load(path.read_text())
    attributes = {
        "sw_component_type": 1,
        "measurement_value": 2,
        "sw_component_version": 4,
        "signer_id": 5,
        "cca_sw_component_hash_id": 6,
    }
    platform: dict[int, Any] = {}
    for name, value in source["cca_platform_token"].items():
        if name == "cca_platform_sw_components":
            platform[2399] = [
                {attributes[key]: member for key, member in each.items()} for each in value
            ]
        elif name == "cca_platform_lifecycle":
            platform[2395] = int(value.removeprefix("secured_"), 16)
        else:
            platform[_YAML_KEYS[name]] = value
    realm = {_YAML_KEYS[name]: value for name, value in source["cca_realm_delegated_token"].items()}
    if isinstance(realm.get(44243), str):
        realm[44243] = {"shared": 0, "private": 1}[realm[44243]]
    cpak = load_private_key(read(_CPAK), source="CPAK")
    rak = load_private_key(read("iat-verifier/cca_realm.pem"), source="RAK")
    signed = {
        44234: [263, sign1(cbor.encode(platform), LocalSigner(cpak))],
        44241: [263, sign1(cbor.encode(realm), LocalSigner(rak))],
    }
    return cbor.encode(cbor.Tag(907, signed))


def test_the_source_with_the_wrong_platform_challenge_fails_at_the_binding() -> None:
    token = from_yaml(vectors("cca") / "iat-verifier/cca-invalid-plat-challenge.yaml")
    challenge = SCHEME.decode(token).realm.claims.challenge
    with pytest.raises(BindingError, match="not of this platform"):
        verify(token, "cca", anchors=anchors(_CPAK), challenge=challenge, allow_test_keys=True)
