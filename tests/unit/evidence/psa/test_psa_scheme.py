# SPDX-License-Identifier: Apache-2.0
"""PSA tokens from decoding to proof, and what must not get there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.evidence import FixedAnchors, anchors_of, simulate, verify
from troth.errors import (
    ChainError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.evidence.evidence import NonceMatched, Unchecked
from troth.evidence.psa import SCHEME
from troth.evidence.psa.evidence import LIMITS
from troth.evidence.simulator import PsaOptions, default_component
from troth.formats import cbor
from troth.formats.base64url import decode_base64url
from troth.formats.cose import CoseKey, Mac0, Sign1, mac0, sign1
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.signer import LocalSigner

_CHALLENGE = bytes(range(64))
_PROFILES = [
    "tag:psacertified.org,2023:psa#tfm",
    "http://arm.com/psa/2.0.0",
    "PSA_IOT_PROFILE_1",
]
_ALGORITHMS = ["ES256", "ES384", "ES512", "HMAC 256/256", "HMAC 384/384", "HMAC 512/512"]

_DEVICE = simulate()
_TOKEN = _DEVICE.attest(_CHALLENGE)
_ANCHORS = anchors_of(_DEVICE)


def resigned(payload: object, **headers: dict[int | str, object]) -> bytes:
    """Return a token of the device with this payload."""
    key = _DEVICE.keys.attestation
    assert not isinstance(key, bytes)
    return sign1(cbor.encode(payload), LocalSigner(key), **headers)


def payload_of(token: bytes) -> dict[int | str, object]:
    envelope = Sign1.decode(token, format="token")
    claims = cbor.decode(envelope.payload, format="claims")
    assert isinstance(claims, dict)
    return claims


@pytest.mark.parametrize("profile", _PROFILES)
@pytest.mark.parametrize("algorithm", _ALGORITHMS)
def test_each_profile_and_algorithm_verifies(profile: str, algorithm: str) -> None:
    device = simulate(PsaOptions(profile=profile, algorithm=algorithm))
    verified = verify(
        device.attest(_CHALLENGE), "psa", anchors=anchors_of(device), challenge=_CHALLENGE
    )
    assert verified.freshness == NonceMatched(_CHALLENGE)
    assert verified.instance_id == device.instance_id
    assert verified.implementation_id == device.implementation_id
    assert verified.boot_session == device.boot_session
    assert verified.insecure == ("platform simulator",)
    assert verified.evidence.claims.profile == profile


def test_there_is_one_claims_set_about_the_node_by_the_hardware() -> None:
    verified = verify(_TOKEN, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)
    (claims_set,) = verified.claims_sets
    assert (claims_set.label, claims_set.component, claims_set.layer) == ("psa", "node", "hardware")
    assert claims_set.claims["nonce"] == _CHALLENGE.hex()
    assert claims_set.claims["security-lifecycle"] == "secured"


def test_the_signer_is_the_thumbprint_of_the_registered_key() -> None:
    verified = verify(_TOKEN, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)
    key = _DEVICE.keys.attestation
    assert not isinstance(key, bytes)
    assert verified.signer == thumbprint(key.public_key())
    assert verified.signer_is_device


@pytest.mark.parametrize("size", [32, 48])
def test_shorter_challenges_verify_whole(size: int) -> None:
    challenge = _CHALLENGE[:size]
    token = _DEVICE.attest(challenge)
    verify(token, "psa", anchors=_ANCHORS, challenge=challenge)
    for other in (challenge[:-1], challenge + b"\0", challenge.ljust(64, b"\0")):
        with pytest.raises(FreshnessError):
            verify(token, "psa", anchors=_ANCHORS, challenge=other)


def test_another_challenge_is_refused() -> None:
    with pytest.raises(FreshnessError, match="nonce is not the challenge"):
        verify(_TOKEN, "psa", anchors=_ANCHORS, challenge=bytes(64))


def test_leaving_the_challenge_unchecked_shows_in_the_result() -> None:
    verified = verify(_TOKEN, "psa", anchors=_ANCHORS, challenge=Unchecked("a stored token"))
    assert verified.freshness == Unchecked("a stored token")


def test_a_device_without_an_anchor_is_refused_by_its_instance_id() -> None:
    with pytest.raises(SignatureError, match=f"no trust anchor .*{_DEVICE.instance_id.hex()}"):
        verify(_TOKEN, "psa", anchors=FixedAnchors(), challenge=_CHALLENGE)


def test_anchors_are_looked_up_by_what_the_token_says_of_itself() -> None:
    anchors = anchors_of(_DEVICE)
    verify(_TOKEN, "psa", anchors=anchors, challenge=_CHALLENGE)
    assert anchors.asked == [("psa", _DEVICE.implementation_id, _DEVICE.instance_id)]


def test_another_devices_key_does_not_verify() -> None:
    other = anchors_of(simulate(seed="other"))
    with pytest.raises(SignatureError, match="does not verify"):
        verify(_TOKEN, "psa", anchors=other, challenge=_CHALLENGE)


def test_the_bad_signature_is_found_before_the_bad_challenge() -> None:
    other = anchors_of(simulate(seed="other"))
    with pytest.raises(SignatureError):
        verify(_TOKEN, "psa", anchors=other, challenge=bytes(64))


def test_the_simulator_is_refused_unless_allowed() -> None:
    with pytest.raises(SignatureError, match="simulator"):
        verify(_TOKEN, "psa", anchors=_ANCHORS, challenge=_CHALLENGE, allow_simulator=False)


def test_a_mac_under_the_public_keys_octets_is_refused() -> None:
    """The classic swap: the verifier's public key taken for a shared secret."""
    public = _DEVICE.reference().public_key_pem.encode()
    token = mac0(Sign1.decode(_TOKEN, format="t").payload, public)
    with pytest.raises(SignatureError, match="symmetric"):
        verify(token, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_an_algorithm_of_another_curve_is_refused() -> None:
    envelope = Sign1.decode(_TOKEN, format="t")
    swapped = cbor.encode(
        cbor.Tag(18, [cbor.encode({1: -35}), {}, envelope.payload, envelope.signature + bytes(32)])
    )
    with pytest.raises(SignatureError, match="secp384r1"):
        verify(swapped, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)


@pytest.mark.parametrize("header", [{}, {1: -8}, {1: -37}, {1: 5}, {1: 0}, {1: "ES256"}])
def test_algorithms_outside_the_profile_are_refused(header: dict[int, object]) -> None:
    envelope = Sign1.decode(_TOKEN, format="t")
    protected = cbor.encode(header) if header else b""
    token = cbor.encode(cbor.Tag(18, [protected, {}, envelope.payload, envelope.signature]))
    with pytest.raises((SignatureError, DecodeError)):
        verify(token, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_an_unprotected_algorithm_is_refused() -> None:
    envelope = Sign1.decode(_TOKEN, format="t")
    token = cbor.encode(cbor.Tag(18, [b"", {1: -7}, envelope.payload, envelope.signature]))
    with pytest.raises(SignatureError, match="absent"):
        verify(token, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)


@pytest.mark.parametrize("where", ["protected", "unprotected"])
def test_a_certificate_chain_is_refused_with_its_own_reason(where: str) -> None:
    token = resigned(payload_of(_TOKEN), **{where: {33: b"certificate"}})
    with pytest.raises(ChainError, match="x5chain"):
        verify(token, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_a_device_that_takes_anothers_identity_has_not_its_key() -> None:
    victim = simulate(seed="victim")
    claims = payload_of(_TOKEN)
    claims[256] = victim.instance_id
    with pytest.raises(SignatureError, match="does not verify"):
        verify(resigned(claims), "psa", anchors=anchors_of(victim), challenge=_CHALLENGE)


def test_changed_firmware_still_verifies_and_shows_what_changed() -> None:
    changed = _DEVICE.with_measurement(1, b"\xee" * 32)
    verified = verify(changed.attest(_CHALLENGE), "psa", anchors=_ANCHORS, challenge=_CHALLENGE)
    components = verified.evidence.claims.software_components
    assert components[1].measurement_value == b"\xee" * 32
    assert components[0].measurement_value == _DEVICE.options.components[0].digest


def test_a_reboot_changes_the_boot_session_and_nothing_else() -> None:
    rebooted = _DEVICE.reboot(random=lambda size: b"r" * size)
    before = verify(_TOKEN, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)
    after = verify(rebooted.attest(_CHALLENGE), "psa", anchors=_ANCHORS, challenge=_CHALLENGE)
    assert before.boot_session != after.boot_session == b"r" * 32
    assert replace(before.evidence.claims, boot_seed=b"") == replace(
        after.evidence.claims, boot_seed=b""
    )


def test_a_token_without_a_boot_seed_has_no_boot_session() -> None:
    claims = payload_of(_TOKEN)
    del claims[268]
    verified = verify(resigned(claims), "psa", anchors=_ANCHORS, challenge=_CHALLENGE)
    assert verified.boot_session == b""


def test_a_published_key_is_refused_unless_allowed_and_then_labelled() -> None:
    printed = "Q__-y5X4CFp8QOHT6nkL7063jN131YUDpkwWAPkbM-c"  # RFC 9783 appendix A.1, member "d"
    private = int.from_bytes(decode_base64url(printed, format="JWK"))
    published = ec.derive_private_key(private, ec.SECP256R1())
    anchors = FixedAnchors(VerificationKey(published.public_key()))
    claims = {**payload_of(_TOKEN), 2396: b"a real product, it seems, v1 ...".ljust(32)[:32]}
    token = sign1(cbor.encode(claims), LocalSigner(published))
    with pytest.raises(SignatureError, match=r"IAK is a published test key \(IAK of RFC 9783"):
        verify(token, "psa", anchors=anchors, challenge=_CHALLENGE)
    verified = verify(token, "psa", anchors=anchors, challenge=_CHALLENGE, allow_test_keys=True)
    assert not verified.signer_is_device
    assert [reason[:27] for reason in verified.insecure] == ["published test key as IAK: "]


@pytest.mark.parametrize("size", range(0, 600, 7))
def test_a_truncated_token_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(_TOKEN[:size])


@pytest.mark.parametrize("tail", [b"\0", b"\xf6", _TOKEN])
def test_octets_after_the_token_are_refused(tail: bytes) -> None:
    with pytest.raises(DecodeError, match="after the data item"):
        SCHEME.decode(_TOKEN + tail)


def test_octets_after_the_claims_are_refused() -> None:
    key = _DEVICE.keys.attestation
    assert not isinstance(key, bytes)
    token = sign1(cbor.encode(payload_of(_TOKEN)) + b"\0", LocalSigner(key))
    with pytest.raises(DecodeError, match=r"PSA claims at byte .* after the data item"):
        SCHEME.decode(token)


@pytest.mark.parametrize(
    "wrapped",
    [
        cbor.encode(["token", _TOKEN]),
        cbor.encode(_TOKEN),
        b"\xd8\x3d" + _TOKEN,  # tag 61, CWT: RFC 9783 section 5.1.1 leaves it out
        b"\xd2" + _TOKEN,
        _TOKEN[1:],
        cbor.encode(cbor.Tag(98, [])),
    ],
)
def test_a_token_inside_something_else_is_refused(wrapped: bytes) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(wrapped)


def test_indefinite_lengths_are_refused_in_each_layer() -> None:
    envelope = Sign1.decode(_TOKEN, format="t")
    parts = [envelope.protected_bytes, {}, envelope.payload, envelope.signature]
    outer = b"\xd2\x9f" + b"".join(cbor.encode(part) for part in parts) + b"\xff"
    with pytest.raises(DecodeError, match="indefinite"):
        SCHEME.decode(outer)
    claims = payload_of(_TOKEN)
    members = b"".join(cbor.encode(key) + cbor.encode(value) for key, value in claims.items())
    inner = cbor.encode(
        cbor.Tag(18, [envelope.protected_bytes, {}, b"\xbf" + members + b"\xff", bytes(64)])
    )
    with pytest.raises(DecodeError, match=r"PSA claims .*indefinite"):
        SCHEME.decode(inner)


def test_a_repeated_claim_is_refused() -> None:
    claims = payload_of(_TOKEN)
    encoded = cbor.encode(claims)
    doubled = bytes([encoded[0] + 1]) + encoded[1:] + cbor.encode(10) + cbor.encode(bytes(64))
    key = _DEVICE.keys.attestation
    assert not isinstance(key, bytes)
    with pytest.raises(DecodeError, match="map key 10 occurs twice"):
        SCHEME.decode(sign1(doubled, LocalSigner(key)))


def test_longer_encodings_than_needed_are_tolerated() -> None:
    """RFC 9783 section 5.1.1: "the Verifier MUST be a variation-tolerant CBOR decoder"."""
    claims = payload_of(_TOKEN)
    encoded = cbor.encode(claims)
    stretched = b"\xb8" + bytes([len(claims)]) + encoded[1:]
    key = _DEVICE.keys.attestation
    assert not isinstance(key, bytes)
    token = sign1(stretched, LocalSigner(key))
    verify(token, "psa", anchors=_ANCHORS, challenge=_CHALLENGE)
    verify(b"\xd8\x12" + token[1:], "psa", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_a_detached_payload_is_refused() -> None:
    envelope = Sign1.decode(_TOKEN, format="t")
    token = cbor.encode(cbor.Tag(18, [envelope.protected_bytes, {}, None, envelope.signature]))
    with pytest.raises(DecodeError, match="payload"):
        SCHEME.decode(token)


def test_a_token_beyond_the_size_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError, match=f"max_bytes={LIMITS.max_bytes}"):
        SCHEME.decode(_TOKEN + bytes(LIMITS.max_bytes))


def test_deep_nesting_in_an_unknown_claim_is_refused() -> None:
    nested: object = 0
    for _ in range(LIMITS.max_depth + 1):
        nested = [nested]
    with pytest.raises(LimitExceededError, match="max_depth"):
        SCHEME.decode(resigned({**payload_of(_TOKEN), 999: nested}))


def test_a_media_type_of_another_profile_is_refused() -> None:
    right = 'application/eat+cwt; eat_profile="tag:psacertified.org,2023:psa#tfm"'
    assert SCHEME.decode(_TOKEN, media_type=right).media_type == right
    with pytest.raises(DecodeError, match="came as"):
        SCHEME.decode(
            _TOKEN, media_type='application/eat+cwt; eat_profile="http://arm.com/psa/2.0.0"'
        )


def test_the_legacy_media_type_is_the_oldest_profiles() -> None:
    old = simulate(PsaOptions(profile="PSA_IOT_PROFILE_1")).attest(_CHALLENGE)
    legacy = 'application/eat+cwt; eat_profile="tag:psacertified.org,2019:psa#legacy"'
    assert SCHEME.decode(old, media_type=legacy).claims.profile == "PSA_IOT_PROFILE_1"
    assert SCHEME.decode(old).media_type == legacy
    with pytest.raises(DecodeError, match="came as"):
        SCHEME.decode(_TOKEN, media_type=legacy)


def test_a_token_that_measures_nothing_verifies_and_says_so() -> None:
    device = simulate(PsaOptions(profile="PSA_IOT_PROFILE_1", components=()))
    verified = verify(
        device.attest(_CHALLENGE), "psa", anchors=anchors_of(device), challenge=_CHALLENGE
    )
    assert verified.claims_sets[0].claims["no-software-measurements"] is True


def test_a_cca_platform_token_is_not_taken_for_psa() -> None:
    claims = {**payload_of(_TOKEN), 265: "http://arm.com/CCA-SSD/1.0.0"}
    with pytest.raises(UnsupportedError) as e:
        SCHEME.decode(resigned(claims))
    assert "CCA platform token" in e.value.remedy


def test_components_keep_their_order() -> None:
    names = [f"C{index}" for index in range(20)]
    device = simulate(PsaOptions(components=tuple(default_component(n, "1") for n in names)))
    evidence = SCHEME.decode(device.attest(_CHALLENGE))
    assert [each.measurement_type for each in evidence.claims.software_components] == names


def test_envelopes_keep_what_was_received() -> None:
    evidence = SCHEME.decode(_TOKEN)
    assert evidence.raw == _TOKEN
    assert isinstance(evidence.envelope, Sign1)
    macd = simulate(PsaOptions(algorithm="HMAC 256/256")).attest(_CHALLENGE)
    assert isinstance(SCHEME.decode(macd).envelope, Mac0)


def test_a_cose_key_does_as_an_anchor_too() -> None:
    key = _DEVICE.keys.attestation
    assert not isinstance(key, bytes)
    encoded = CoseKey.encode(VerificationKey(key.public_key()))
    anchors = FixedAnchors(CoseKey.decode(encoded))
    verify(_TOKEN, "psa", anchors=anchors, challenge=_CHALLENGE)
