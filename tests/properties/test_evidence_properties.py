# SPDX-License-Identifier: Apache-2.0
"""Whatever a simulated platform attests comes out as it went in; whatever is changed does not."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from support.evidence import anchors_of, simulate, verify
from troth.errors import DecodeError, VerificationError
from troth.evidence.cca.platform_claims import PLATFORM_PROFILES
from troth.evidence.cca.realm_claims import REALM_PROFILES
from troth.evidence.evidence import NonceMatched
from troth.evidence.psa.claims import PROFILES
from troth.evidence.registry import detect, scheme
from troth.evidence.simulator import (
    CcaOptions,
    PsaOptions,
    SimulatedComponent,
    SimulatedPlatform,
    from_json,
    to_json,
)
from troth.formats.cose import Sign1

_CHALLENGE = bytes(range(64))

digests = st.sampled_from([32, 48, 64]).flatmap(
    lambda size: st.binary(min_size=size, max_size=size)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
components = st.lists(
    st.builds(
        SimulatedComponent,
        name=texts,
        version=texts,
        digest=digests,
        signer_id=digests,
        hash_algorithm=texts,
    ),
    min_size=1,
    max_size=5,
).map(tuple)
lifecycles = st.builds(
    lambda major, minor: major << 8 | minor,
    st.sampled_from([0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60]),
    st.integers(0, 255),
)
models = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=8)
psa_options = st.builds(
    PsaOptions,
    model=models,
    components=components,
    lifecycle=lifecycles,
    profile=st.sampled_from(sorted(PROFILES)),
    algorithm=st.sampled_from(["ES256", "HMAC 256/256", "HMAC 384/384", "HMAC 512/512"]),
    client_id=st.one_of(st.integers(-(2**31), -1), st.integers(1, 2**31 - 1)),
    verification_service_indicator=texts,
)
cca_options = st.builds(
    CcaOptions,
    model=models,
    components=components,
    lifecycle=lifecycles,
    config=st.binary(max_size=40),
    platform_profile=st.sampled_from(PLATFORM_PROFILES),
    realm_profile=st.sampled_from(REALM_PROFILES),
    wrapper_tag=st.sampled_from([907, 399]),
    rim=digests,
    rems=st.tuples(digests, digests, digests, digests),
    personalization_value=st.binary(max_size=64),
    private_memory=st.booleans(),
    rak_hash=st.sampled_from(["sha-256", "sha-384", "sha-512"]),
    verification_service_indicator=texts,
)


@settings(max_examples=60, deadline=None)
@given(
    psa_options, st.sampled_from([32, 48, 64]).flatmap(lambda n: st.binary(min_size=n, max_size=n))
)
def test_what_a_psa_device_attests_is_what_is_verified(
    options: PsaOptions, challenge: bytes
) -> None:
    device = simulate(options)
    token = device.attest(challenge)
    assert detect(token) == "psa"
    verified = verify(token, "psa", anchors=anchors_of(device), challenge=challenge)
    claims = verified.evidence.claims
    assert verified.freshness == NonceMatched(challenge)
    assert claims.profile == options.profile
    assert claims.lifecycle_value == options.lifecycle
    assert claims.client_id == options.client_id
    assert claims.verification_service_indicator == options.verification_service_indicator
    assert claims.boot_seed == device.boot_session
    assert [
        (c.measurement_type, c.version, c.measurement_value, c.signer_id, c.measurement_desc)
        for c in claims.software_components
    ] == [(c.name, c.version, c.digest, c.signer_id, c.hash_algorithm) for c in options.components]
    assert not claims.unrecognised


@settings(max_examples=40, deadline=None)
@given(cca_options, st.binary(min_size=8, max_size=64))
def test_what_a_cca_platform_attests_is_what_is_verified(
    options: CcaOptions, challenge: bytes
) -> None:
    platform = simulate(options)
    token = platform.attest(challenge)
    assert detect(token) == "cca"
    verified = verify(token, "cca", anchors=anchors_of(platform), challenge=challenge)
    outside, realm = verified.evidence.platform.claims, verified.evidence.realm.claims
    assert outside.profile == options.platform_profile
    assert outside.lifecycle_value == options.lifecycle
    assert outside.config == options.config
    assert len(outside.software_components) == len(options.components)
    assert realm.profile == options.realm_profile
    assert realm.initial_measurement == options.rim
    assert realm.extensible_measurements == options.rems
    assert realm.personalization_value == options.personalization_value.ljust(64, b"\0")
    assert realm.challenge == challenge.ljust(64, b"\0")
    if options.realm_profile:
        assert realm.mec_policy == ("private" if options.private_memory else "shared")
    assert not outside.unrecognised
    assert not realm.unrecognised


@settings(max_examples=30, deadline=None)
@given(st.one_of(psa_options, cca_options))
def test_a_device_file_loses_nothing(options: PsaOptions | CcaOptions) -> None:
    platform = simulate(options)
    again = from_json(to_json(platform), source="file")
    assert again.options == platform.options
    assert to_json(again) == to_json(platform)


@cache
def _platform(name: str) -> tuple[SimulatedPlatform, bytes]:
    options = {
        "psa": PsaOptions(),
        "psa mac": PsaOptions(algorithm="HMAC 256/256"),
        "cca": CcaOptions(),
        "cca old": CcaOptions(wrapper_tag=399, realm_profile=""),
    }[name]
    platform = simulate(options)
    return platform, platform.attest(_CHALLENGE)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["psa", "psa mac", "cca", "cca old"]), st.data())
def test_any_single_changed_octet_is_refused(name: str, data: st.DataObject) -> None:
    """Headers, claims, signatures, wrapper: no octet of a token is without effect."""
    platform, token = _platform(name)
    at = data.draw(st.integers(0, len(token) - 1), label="at")
    flip = data.draw(st.integers(1, 255), label="flip")
    changed = token[:at] + bytes([token[at] ^ flip]) + token[at + 1 :]
    try:
        verify(changed, platform.scheme, anchors=anchors_of(platform), challenge=_CHALLENGE)
    except (DecodeError, VerificationError):
        return
    raise AssertionError(f"octet {at} may be {changed[at]:#04x} as well")


def test_every_octet_of_the_signed_claims_counts() -> None:
    """The same, for each octet of the payload once: a sampled property can miss one."""
    device, token = _platform("psa")
    payload = Sign1.decode(token, format="token").payload
    start = token.index(payload)
    for at in range(start, start + len(payload)):
        changed = token[:at] + bytes([token[at] ^ 0x01]) + token[at + 1 :]
        try:
            verify(changed, "psa", anchors=anchors_of(device), challenge=_CHALLENGE)
        except (DecodeError, VerificationError):
            continue
        raise AssertionError(f"octet {at} is not covered")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["psa", "cca"]), st.binary(max_size=200))
def test_octets_from_nowhere_are_refused_by_documented_errors(name: str, data: bytes) -> None:
    try:
        scheme(name).decode(data)
    except DecodeError:
        return
    raise AssertionError("random octets decoded")


@settings(max_examples=30, deadline=None)
@given(
    st.text(alphabet="ab", min_size=1, max_size=3), st.text(alphabet="cd", min_size=1, max_size=3)
)
def test_no_platform_verifies_as_another(first: str, second: str) -> None:
    one, other = simulate(seed=first), simulate(seed=second)
    try:
        verify(one.attest(_CHALLENGE), "psa", anchors=anchors_of(other), challenge=_CHALLENGE)
    except VerificationError:
        return
    raise AssertionError("verified under another platform's key")
