# SPDX-License-Identifier: Apache-2.0
"""The simulator: genuine in form, marked in content, repeatable, and refused where it is wrong."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.evidence import anchors_of, seeded, simulate, verify
from troth.errors import ApiMisuseError, DecodeError, UnsupportedError
from troth.evidence.attester import Attester
from troth.evidence.insecure import SIMULATOR_MARK
from troth.evidence.psa import SCHEME
from troth.evidence.psa.claims import PROFILES
from troth.evidence.simulator import (
    CcaOptions,
    PsaOptions,
    SimulatedKeys,
    SimulatedPlatform,
    default_component,
    from_json,
    to_json,
)
from troth.formats import cbor
from troth.formats.cose import Sign1

_CHALLENGE = bytes(range(64))
_KINDS = {
    "psa": PsaOptions(),
    "psa mac": PsaOptions(algorithm="HMAC 512/512"),
    "psa old": PsaOptions(profile="PSA_IOT_PROFILE_1", certification_reference="1234567890123"),
    "cca": CcaOptions(),
    "cca old": CcaOptions(
        realm_profile="", wrapper_tag=399, platform_profile="http://arm.com/CCA-SSD/1.0.0"
    ),
}
each_kind = pytest.mark.parametrize("options", _KINDS.values(), ids=_KINDS)


@each_kind
def test_it_is_an_attester(options: PsaOptions | CcaOptions) -> None:
    platform: Attester = simulate(options)
    description = platform.describe()
    assert description.scheme == platform.scheme
    assert description.media_type == platform.media_type
    assert description.challenge_size == platform.challenge_size == 64
    assert description.insecure == ("platform simulator",)
    assert "simulator" in description.source


@each_kind
def test_its_mark_opens_the_implementation_id(options: PsaOptions | CcaOptions) -> None:
    platform = simulate(options)
    assert platform.implementation_id.startswith(b"TROTH-INSECURE-SIMULATOR")
    assert platform.implementation_id.startswith(SIMULATOR_MARK)
    assert len(platform.implementation_id) == 32
    assert replace(options, model="other") != options
    other = replace(platform, options=replace(options, model="other"))
    assert other.implementation_id != platform.implementation_id


@each_kind
def test_the_same_randomness_gives_the_same_platform(options: PsaOptions | CcaOptions) -> None:
    assert to_json(simulate(options)) == to_json(simulate(options))
    assert simulate(options, seed="b").instance_id != simulate(options).instance_id


@each_kind
def test_rebooting_keeps_everything_but_the_boot_session(
    options: PsaOptions | CcaOptions,
) -> None:
    platform = simulate(options)
    rebooted = platform.reboot(random=seeded("reboot"))
    assert rebooted.boot_session != platform.boot_session
    assert replace(rebooted, boot_session=platform.boot_session) == platform


@each_kind
def test_changing_one_measurement_changes_that_one(options: PsaOptions | CcaOptions) -> None:
    platform = simulate(options)
    changed = platform.with_measurement(1, b"\xee" * 48)
    before, after = platform.options.components, changed.options.components
    assert after[1].digest == b"\xee" * 48
    assert [a == b for a, b in zip(after, before, strict=True)].count(False) == 1
    assert platform.options.components is before


@pytest.mark.parametrize("index", [-1, 4, 100])
def test_a_component_that_is_not_there_cannot_change(index: int) -> None:
    with pytest.raises(ApiMisuseError, match=f"component {index}, but there are 4"):
        simulate().with_measurement(index, bytes(32))


@pytest.mark.parametrize("size", [0, 31, 33, 65])
def test_a_psa_device_signs_three_sizes_of_challenge(size: int) -> None:
    with pytest.raises(ApiMisuseError, match="32, 48 or 64"):
        simulate().attest(bytes(size))


@pytest.mark.parametrize("size", [0, 65])
def test_a_realm_signs_up_to_64_octets(size: int) -> None:
    platform = simulate(CcaOptions())
    assert platform.attest(b"x")
    with pytest.raises(ApiMisuseError, match="1 to 64"):
        platform.attest(bytes(size))


def test_tokens_are_in_deterministic_encoding() -> None:
    for options in _KINDS.values():
        token = simulate(options).attest(_CHALLENGE)
        assert cbor.is_deterministic(token)


def test_headers_are_the_ones_that_firmware_writes() -> None:
    envelope = Sign1.decode(simulate().attest(_CHALLENGE), format="token")
    assert dict(envelope.protected) == {1: -7}
    assert not envelope.unprotected
    assert cbor.is_deterministic(envelope.payload)


@pytest.mark.parametrize("profile", PROFILES)
def test_keys_that_the_device_is_given_are_used(profile: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    platform = SimulatedPlatform.create(
        PsaOptions(profile=profile),
        random=seeded("x"),
        keys=SimulatedKeys(attestation=key),
    )
    assert platform.keys.attestation is key
    assert platform.attest(_CHALLENGE)


def test_the_instance_id_is_the_hash_of_the_key_as_in_rfc_9783_appendix_a() -> None:
    key = bytes(range(64))
    keys = SimulatedKeys(attestation=key)
    assert keys.instance_id[0] == 1
    assert keys.instance_id != SimulatedKeys(attestation=key[1:]).instance_id
    assert len(keys.instance_id) == 33


@pytest.mark.parametrize(
    "options",
    [
        PsaOptions(profile="other"),
        CcaOptions(wrapper_tag=18),
        CcaOptions(rak_hash="sha-1"),
        PsaOptions(lifecycle=0x7000),
        PsaOptions(components=()),
        PsaOptions(client_id=0),
        PsaOptions(certification_reference="x"),
        PsaOptions(components=(replace(default_component("a", "1"), digest=b"short"),)),
        CcaOptions(lifecycle=0x3100),
        CcaOptions(platform_profile="other"),
        CcaOptions(realm_profile="other"),
        CcaOptions(rim=b""),
        CcaOptions(personalization_value=bytes(65)),
    ],
)
def test_a_platform_whose_tokens_we_would_refuse_cannot_be_made(
    options: PsaOptions | CcaOptions,
) -> None:
    with pytest.raises((DecodeError, ApiMisuseError)):
        simulate(options)


@pytest.mark.parametrize("model", ["", "too long a", "ä", "a\n"])
def test_a_model_has_up_to_eight_printable_characters(model: str) -> None:
    with pytest.raises(ApiMisuseError, match="1 to 8 ASCII"):
        simulate(PsaOptions(model=model))


@pytest.mark.parametrize("algorithm", ["", "none", "RS256", "HMAC 256/64", "EdDSA"])
def test_an_algorithm_that_it_does_not_have_is_refused(algorithm: str) -> None:
    with pytest.raises(ApiMisuseError):
        simulate(PsaOptions(algorithm=algorithm))


def test_a_cca_platform_needs_two_keys() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    for keys in (SimulatedKeys(attestation=key), SimulatedKeys(attestation=b"k" * 48, realm=key)):
        with pytest.raises(ApiMisuseError, match="CPAK and RAK"):
            SimulatedPlatform.create(CcaOptions(), random=seeded("x"), keys=keys)


@each_kind
def test_the_reference_is_what_a_verifier_needs(options: PsaOptions | CcaOptions) -> None:
    platform = simulate(options)
    reference = platform.reference()
    assert reference.scheme == platform.scheme
    assert bool(reference.public_key_pem) != bool(reference.symmetric_key)
    assert reference.components == options.components
    verified = verify(
        platform.attest(_CHALLENGE),
        platform.scheme,
        anchors=anchors_of(platform),
        challenge=_CHALLENGE,
    )
    assert verified.implementation_id == reference.implementation_id
    assert verified.instance_id == reference.instance_id
    if isinstance(options, CcaOptions):
        claims = verified.evidence.realm.claims
        assert claims.initial_measurement == reference.rim
        assert claims.extensible_measurements == reference.rems
        assert claims.personalization_value == reference.personalization_value
        assert verified.evidence.platform.claims.config == reference.config


@each_kind
def test_private_keys_do_not_show(options: PsaOptions | CcaOptions) -> None:
    platform = simulate(options)
    shown = repr(platform) + repr(platform.reference())
    assert "PrivateKey" not in shown
    if isinstance(platform.keys.attestation, bytes):
        assert repr(platform.keys.attestation) not in shown


@each_kind
def test_a_device_file_brings_the_same_device_back(options: PsaOptions | CcaOptions) -> None:
    platform = simulate(options)
    text = to_json(platform)
    again = from_json(text, source="device.json")
    assert again.source == "device.json"
    assert again.options == platform.options
    assert again.boot_session == platform.boot_session
    assert again.instance_id == platform.instance_id
    assert to_json(again) == text
    verify(
        again.attest(_CHALLENGE),
        platform.scheme,
        anchors=anchors_of(platform),
        challenge=_CHALLENGE,
    )


def test_a_device_file_says_that_it_is_insecure() -> None:
    assert "INSECURE" in json.loads(to_json(simulate()))["warning"]


def test_options_that_a_device_file_leaves_out_have_their_defaults() -> None:
    file = json.loads(to_json(simulate()))
    file["options"] = {"model": "short"}
    del file["warning"]
    assert from_json(json.dumps(file), source="f").options == PsaOptions(model="short")


def _edited(path: str, value: Any, *, kind: str = "psa") -> str:
    file = json.loads(to_json(simulate(_KINDS[kind])))
    place = file
    *parents, last = path.split("/")
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(file)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("scheme", ..., '"scheme" is missing'),
        ("boot-session", ..., '"boot-session" is missing'),
        ("boot-session", "00", "32 octets"),
        ("boot-session", "ZZ", '"boot-session" is not lower-case hex'),
        ("boot-session", 5, '"boot-session" is not a text'),
        ("boot-session", "AA" * 32, "lower-case hex"),
        ("attestation-key", "not a key", "attestation-key: not a private key"),
        ("options", [], '"options" is not an object'),
        ("options/colour", "red", '"options.colour" is not known; known are'),
        ("options/lifecycle", "secured", '"options.lifecycle" is not an integer'),
        ("options/lifecycle", True, '"options.lifecycle" is not an integer'),
        ("options/lifecycle", 0x7000, "security-lifecycle"),
        ("options/model", "much too long", "1 to 8 ASCII"),
        ("options/components", {}, '"options.components" is not a list'),
        ("options/components", [5], "entry 0 is not an object"),
        ("options/components/0/digest", "xx", '"options.components[0].digest" is not'),
        ("options/components/2/size", 5, r'"options.components\[2\].size" is not known'),
        ("options/profile", "other", "profile 'other': expected one of tag:psacertified"),
        ("options/algorithm", "ES384", "attestation key is not one for ES384"),
        ("surprise", 1, '"surprise" is not known'),
    ],
)
def test_a_spoilt_device_file_is_refused_by_the_place(path: str, value: Any, problem: str) -> None:
    problem = problem.replace("[0]", r"\[0\]")
    with pytest.raises(DecodeError, match=f"device.json.*{problem}"):
        from_json(_edited(path, value), source="device.json")


def test_a_cca_device_file_needs_its_realm_key() -> None:
    with pytest.raises(DecodeError, match='"realm-key" is missing'):
        from_json(_edited("realm-key", ..., kind="cca"), source="f")
    with pytest.raises(DecodeError, match=r'options.private_memory" is not true or false'):
        from_json(_edited("options/private_memory", 1, kind="cca"), source="f")
    with pytest.raises(DecodeError, match=r'"options.rems" is not a list of lower-case hex'):
        from_json(_edited("options/rems", [5], kind="cca"), source="f")


@pytest.mark.parametrize("value", ["troth-simulated-platform/2", "", "other"])
def test_another_format_of_device_file_is_unsupported(value: str) -> None:
    with pytest.raises(UnsupportedError, match="expected 'troth-simulated-platform/1'"):
        from_json(_edited("format", value), source="f")


def test_a_scheme_that_cannot_be_simulated_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match='expected "psa" or "cca"'):
        from_json(_edited("scheme", "tpm2"), source="f")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}'])
def test_what_is_no_device_file_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        from_json(text, source="f")


def test_every_option_is_in_the_device_file() -> None:
    for options in (PsaOptions(), CcaOptions()):
        written = json.loads(to_json(simulate(options)))["options"]
        assert written.keys() == {field.name for field in fields(options)}


def test_the_default_devices_look_like_the_ones_in_the_field() -> None:
    evidence = SCHEME.decode(simulate().attest(_CHALLENGE))
    assert [each.measurement_type for each in evidence.claims.software_components] == [
        "BL",
        "PRoT",
        "ARoT",
        "App",
    ]
    assert all(each.measurement_desc == "sha-256" for each in evidence.claims.software_components)
