# SPDX-License-Identifier: Apache-2.0
"""CCA tokens from decoding to proof, and what must not get there."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.evidence import FixedAnchors, anchors_of, simulate, verify
from troth.errors import (
    BindingError,
    ChainError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.evidence.cca import SCHEME, decode_platform_token
from troth.evidence.cca.evidence import EAT_CWT, LIMITS, PLATFORM_LABEL, REALM_LABEL
from troth.evidence.cca.platform_claims import PLATFORM_PROFILES
from troth.evidence.cca.realm_claims import REALM_PROFILES
from troth.evidence.evidence import NonceMatched, Unchecked
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.formats import cbor
from troth.formats.cose import CoseKey, Sign1, sign1
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.signer import LocalSigner

_CHALLENGE = bytes(range(1, 65))
_A, _B = simulate(CcaOptions(), seed="a"), simulate(CcaOptions(), seed="b")
_TOKEN, _OTHER = _A.attest(_CHALLENGE), _B.attest(_CHALLENGE)
_ANCHORS = anchors_of(_A)

Claims = dict[Any, Any]


def entries(token: bytes) -> dict[Any, Any]:
    """Return the wrapper's map."""
    item = cbor.decode(token, format="token")
    assert isinstance(item, cbor.Tag)
    assert isinstance(item.value, dict)
    return item.value


def part(token: bytes, label: int) -> bytes:
    """Return one of the two tokens in a token of tag 907."""
    octets = entries(token)[label][1]
    assert isinstance(octets, bytes)
    return octets


def claims_of(token: bytes, label: int) -> Claims:
    envelope = Sign1.decode(part(token, label), format="part")
    claims = cbor.decode(envelope.payload, format="claims")
    assert isinstance(claims, dict)
    return claims


def join(platform: bytes, realm: bytes, *, tag: int = 907) -> bytes:
    return cbor.encode(
        cbor.Tag(tag, {PLATFORM_LABEL: [EAT_CWT, platform], REALM_LABEL: [EAT_CWT, realm]})
    )


def resigned(
    *,
    platform: Claims | None = None,
    realm: Claims | None = None,
    rak: ec.EllipticCurvePrivateKey | None = None,
    **headers: Any,
) -> bytes:
    """Return the first platform's token with other claims, signed by its own keys."""
    cpak, own_rak = _A.keys.attestation, _A.keys.realm
    assert not isinstance(cpak, bytes)
    assert own_rak is not None
    platform = claims_of(_TOKEN, PLATFORM_LABEL) if platform is None else platform
    realm = claims_of(_TOKEN, REALM_LABEL) if realm is None else realm
    return join(
        sign1(cbor.encode(platform), LocalSigner(cpak), **headers.get("platform_headers", {})),
        sign1(cbor.encode(realm), LocalSigner(rak or own_rak), **headers.get("realm_headers", {})),
    )


def vouched(realm: Claims, *, algorithm: str = "sha256") -> Claims:
    """Return platform claims that vouch for the key in these realm claims."""
    digest = hashlib.new(algorithm, realm[44237]).digest()
    return {**claims_of(_TOKEN, PLATFORM_LABEL), 10: digest}


_FORMS = list(itertools.product((907, 399), PLATFORM_PROFILES, REALM_PROFILES))


@pytest.mark.parametrize(("wrapper_tag", "platform_profile", "realm_profile"), _FORMS)
def test_wrapper_and_profiles_vary_independently(
    wrapper_tag: int, platform_profile: str, realm_profile: str
) -> None:
    platform = simulate(
        CcaOptions(
            wrapper_tag=wrapper_tag, platform_profile=platform_profile, realm_profile=realm_profile
        )
    )
    verified = verify(
        platform.attest(_CHALLENGE), "cca", anchors=anchors_of(platform), challenge=_CHALLENGE
    )
    assert verified.evidence.wrapper_tag == wrapper_tag
    assert verified.evidence.platform.claims.profile == platform_profile
    assert verified.evidence.realm.claims.profile == realm_profile
    assert verified.instance_id == platform.instance_id
    assert verified.implementation_id == platform.implementation_id


def test_there_are_two_claims_sets_platform_first() -> None:
    verified = verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    assert [(each.label, each.component, each.layer) for each in verified.claims_sets] == [
        ("cca-platform", "platform", "hardware"),
        ("cca-realm", "realm", "hardware"),
    ]
    platform, realm = verified.claims_sets
    assert platform.claims["security-lifecycle"] == "secured"
    assert realm.claims["cca-realm-challenge"] == _CHALLENGE.hex()


def test_the_signer_is_the_platforms_key_not_the_realms() -> None:
    verified = verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    cpak = _A.keys.attestation
    assert not isinstance(cpak, bytes)
    assert verified.signer == thumbprint(cpak.public_key())
    assert verified.signer_is_device


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
def test_each_binding_hash_verifies(algorithm: str) -> None:
    platform = simulate(CcaOptions(rak_hash=algorithm))
    verify(platform.attest(_CHALLENGE), "cca", anchors=anchors_of(platform), challenge=_CHALLENGE)


def test_a_realm_token_of_another_platform_is_refused() -> None:
    mixed = join(part(_TOKEN, PLATFORM_LABEL), part(_OTHER, REALM_LABEL))
    with pytest.raises(BindingError, match="not of this platform"):
        verify(mixed, "cca", anchors=anchors_of(_A, _B), challenge=_CHALLENGE)


def test_a_platform_token_of_another_platform_is_refused() -> None:
    mixed = join(part(_OTHER, PLATFORM_LABEL), part(_TOKEN, REALM_LABEL))
    with pytest.raises(BindingError, match="not of this platform"):
        verify(mixed, "cca", anchors=anchors_of(_A, _B), challenge=_CHALLENGE)


def test_a_realm_signed_by_a_key_of_ones_own_is_refused() -> None:
    """The attack that the binding is for: any key can sign a realm token about itself."""
    own = ec.generate_private_key(ec.SECP384R1())
    realm = {
        **claims_of(_TOKEN, REALM_LABEL),
        44237: CoseKey.encode(VerificationKey(own.public_key())),
    }
    with pytest.raises(BindingError):
        verify(resigned(realm=realm, rak=own), "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_a_realm_token_signed_by_another_key_than_it_carries_is_refused() -> None:
    own = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(SignatureError, match="CCA realm token"):
        verify(resigned(rak=own), "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_the_binding_is_over_the_octets_of_the_claim_and_nothing_like_them() -> None:
    """The same key in another encoding is another claim."""
    rak = _A.keys.realm
    assert rak is not None
    other_spelling = {**claims_of(_TOKEN, REALM_LABEL)}
    other_spelling[44237] = CoseKey.encode(VerificationKey(rak.public_key(), algorithm="ES384"))
    with pytest.raises(BindingError):
        verify(resigned(realm=other_spelling), "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    bound = resigned(realm=other_spelling, platform=vouched(other_spelling))
    verify(bound, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_the_binding_hash_is_the_one_that_the_realm_names() -> None:
    realm = {**claims_of(_TOKEN, REALM_LABEL), 44240: "sha-384"}
    with pytest.raises(BindingError, match="sha-384 of its public key"):
        verify(resigned(realm=realm), "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    bound = resigned(realm=realm, platform=vouched(realm, algorithm="sha384"))
    verify(bound, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_a_platform_token_under_another_key_is_refused() -> None:
    with pytest.raises(SignatureError, match=r"CCA platform token: .*does not verify"):
        verify(_TOKEN, "cca", anchors=anchors_of(_B), challenge=_CHALLENGE)


def test_the_realms_own_key_is_no_anchor_for_the_platform() -> None:
    """Verifying the platform under what the token brings along would be a circle."""
    rak = _A.keys.realm
    assert rak is not None
    platform = sign1(cbor.encode(claims_of(_TOKEN, PLATFORM_LABEL)), LocalSigner(rak))
    forged = join(platform, part(_TOKEN, REALM_LABEL))
    with pytest.raises(SignatureError, match="CCA platform token"):
        verify(forged, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_a_platform_without_an_anchor_is_refused_by_its_instance_id() -> None:
    with pytest.raises(SignatureError, match=f"no trust anchor .*{_A.instance_id.hex()}"):
        verify(_TOKEN, "cca", anchors=FixedAnchors(), challenge=_CHALLENGE)


def test_the_platform_is_verified_before_anything_of_the_realm_is_looked_at() -> None:
    with pytest.raises(SignatureError, match="CCA platform token"):
        verify(
            resigned(rak=ec.generate_private_key(ec.SECP384R1())),
            "cca",
            anchors=anchors_of(_B),
            challenge=bytes(64),
        )


def test_another_challenge_is_refused() -> None:
    with pytest.raises(FreshnessError, match="cca-realm-challenge"):
        verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=bytes(64))


@pytest.mark.parametrize("size", [8, 32, 48, 63])
def test_a_shorter_challenge_is_padded_with_zeros_and_compared_whole(size: int) -> None:
    challenge = _CHALLENGE[:size]
    token = _A.attest(challenge)
    verified = verify(token, "cca", anchors=_ANCHORS, challenge=challenge)
    assert verified.freshness == NonceMatched(challenge)
    for other in (_CHALLENGE[: size + 1], b"\0" + challenge[1:]):
        with pytest.raises(FreshnessError):
            verify(token, "cca", anchors=_ANCHORS, challenge=other)


def test_a_prefix_of_the_challenge_is_refused() -> None:
    for size in (8, 32, 63):
        with pytest.raises(FreshnessError):
            verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=_CHALLENGE[:size])


def test_the_platforms_nonce_is_never_taken_for_the_challenge() -> None:
    nonce = claims_of(_TOKEN, PLATFORM_LABEL)[10]
    with pytest.raises(FreshnessError):
        verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=nonce)


def test_leaving_the_challenge_unchecked_shows_in_the_result() -> None:
    verified = verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=Unchecked("a stored token"))
    assert verified.freshness == Unchecked("a stored token")


def test_the_simulator_is_refused_unless_allowed() -> None:
    with pytest.raises(SignatureError, match="simulator"):
        verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=_CHALLENGE, allow_simulator=False)


@pytest.mark.parametrize("which", ["platform_headers", "realm_headers"])
@pytest.mark.parametrize("where", ["protected", "unprotected"])
def test_a_certificate_chain_in_either_part_is_refused(which: str, where: str) -> None:
    token = resigned(**{which: {where: {33: b"certificate"}}})
    with pytest.raises(ChainError, match="x5chain"):
        verify(token, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


_NOT_KEYS = {
    "no map": b"\x80",
    "not CBOR": b"\xff",
    "empty": b"",
    "no point of the curve": cbor.encode({1: 2, -1: 2, -2: bytes(48), -3: b"\x01" * 48}),
    "an unknown curve": cbor.encode({1: 2, -1: 8, -2: bytes(32), -3: bytes(32)}),
}


@pytest.mark.parametrize("name", _NOT_KEYS)
def test_a_realm_key_that_is_none_is_refused_when_it_is_needed(name: str) -> None:
    realm = {**claims_of(_TOKEN, REALM_LABEL), 44237: _NOT_KEYS[name]}
    token = resigned(realm=realm, platform=vouched(realm))
    with pytest.raises(SignatureError, match="cca-realm-public-key"):
        verify(token, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_a_raw_realm_key_that_is_no_point_is_refused() -> None:
    realm = {**claims_of(_TOKEN, REALM_LABEL), 44237: b"\x04" + b"\x01" * 96}
    del realm[265]
    token = resigned(realm=realm, platform=vouched(realm))
    with pytest.raises(SignatureError, match="cca-realm-public-key"):
        verify(token, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_a_symmetric_realm_key_is_refused() -> None:
    """A MAC under a key that the token itself prints would prove nothing."""
    realm = {**claims_of(_TOKEN, REALM_LABEL), 44237: cbor.encode({1: 4, -1: b"k" * 48})}
    token = resigned(realm=realm, platform=vouched(realm))
    with pytest.raises(SignatureError):
        verify(token, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)


def test_the_boot_session_is_the_realm_instance_id_of_the_current_profile() -> None:
    verified = verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    assert verified.boot_session == b"\x01" + _A.boot_session
    rebooted = _A.reboot(random=lambda size: b"r" * size).attest(_CHALLENGE)
    after = verify(rebooted, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    assert after.boot_session == b"\x01" + b"r" * 32


@pytest.mark.parametrize("profile", REALM_PROFILES[1:])
def test_older_profiles_have_no_boot_session_even_with_an_instance_id(profile: str) -> None:
    platform = simulate(CcaOptions(realm_profile=profile))
    token = platform.attest(_CHALLENGE)
    verified = verify(token, "cca", anchors=anchors_of(platform), challenge=_CHALLENGE)
    assert verified.boot_session == b""


def test_a_changed_component_still_verifies_and_shows() -> None:
    changed = _A.with_measurement(8, b"\xee" * 32)
    verified = verify(changed.attest(_CHALLENGE), "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    component = verified.evidence.platform.claims.software_components[8]
    assert (component.measurement_type, component.measurement_value) == ("RMM", b"\xee" * 32)


@pytest.mark.parametrize("role", ["CPAK", "RAK"])
def test_a_published_key_in_either_role_is_refused_unless_allowed(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _A.keys.attestation if role == "CPAK" else _A.keys.realm
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    listed = {thumbprint(key.public_key()): "a list for this test"}
    monkeypatch.setattr("troth.evidence.insecure.PUBLISHED_KEYS", listed)
    with pytest.raises(SignatureError, match=rf"the {role} is a published test key"):
        verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=_CHALLENGE)
    verified = verify(_TOKEN, "cca", anchors=_ANCHORS, challenge=_CHALLENGE, allow_test_keys=True)
    assert verified.insecure == (
        "platform simulator",
        f"published test key as {role}: a list for this test",
    )
    assert verified.signer_is_device == (role == "RAK")


def test_a_platform_token_alone_is_no_evidence_and_the_reason_is_given() -> None:
    alone = part(_TOKEN, PLATFORM_LABEL)
    with pytest.raises(UnsupportedError, match="without its realm token"):
        SCHEME.decode(alone)
    assert decode_platform_token(alone).claims.instance_id == _A.instance_id


def test_a_realm_token_alone_is_no_evidence_either() -> None:
    with pytest.raises(UnsupportedError, match="one COSE_Sign1"):
        SCHEME.decode(part(_TOKEN, REALM_LABEL))


@pytest.mark.parametrize("label", [PLATFORM_LABEL, REALM_LABEL])
def test_both_parts_must_be_there(label: int) -> None:
    rest = {key: value for key, value in entries(_TOKEN).items() if key != label}
    with pytest.raises(DecodeError, match=f"entry {label} .* is missing"):
        SCHEME.decode(cbor.encode(cbor.Tag(907, rest)))


def test_further_entries_are_refused_by_their_label() -> None:
    more = {**entries(_TOKEN), 44242: [263, b"log"]}
    with pytest.raises(UnsupportedError, match="44242"):
        SCHEME.decode(cbor.encode(cbor.Tag(907, more)))


def test_parts_in_each_others_place_are_refused() -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(join(part(_TOKEN, REALM_LABEL), part(_TOKEN, PLATFORM_LABEL)))


@pytest.mark.parametrize(
    "entry",
    [
        b"octets",
        [264, b"octets"],
        [263],
        [263, b"octets", 4],
        [263, "text"],
        [True, b"o"],
        {},
        None,
    ],
)
def test_an_entry_of_another_shape_is_refused(entry: object) -> None:
    with pytest.raises(DecodeError, match=f"entry {REALM_LABEL}"):
        SCHEME.decode(cbor.encode(cbor.Tag(907, {**entries(_TOKEN), REALM_LABEL: entry})))


def test_each_wrapper_has_its_own_shape_of_entry() -> None:
    records = entries(_TOKEN)
    with pytest.raises(DecodeError, match="not a byte string, as tag 399"):
        SCHEME.decode(cbor.encode(cbor.Tag(399, records)))
    octets = {label: record[1] for label, record in records.items()}
    assert SCHEME.decode(cbor.encode(cbor.Tag(399, octets))).wrapper_tag == 399
    with pytest.raises(DecodeError, match="as tag 907"):
        SCHEME.decode(cbor.encode(cbor.Tag(907, octets)))


@pytest.mark.parametrize("tag", [0, 18, 61, 398, 400, 906, 908, 55799])
def test_other_tags_are_refused(tag: int) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(cbor.encode(cbor.Tag(tag, entries(_TOKEN))))


@pytest.mark.parametrize("value", [[], b"", None, "x", {}])
def test_a_wrapper_around_something_else_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(cbor.encode(cbor.Tag(907, value)))


def test_an_untagged_part_is_refused() -> None:
    bare = part(_TOKEN, REALM_LABEL)[1:]
    with pytest.raises(DecodeError, match="CCA realm token: no tag, expected tag 18"):
        SCHEME.decode(join(part(_TOKEN, PLATFORM_LABEL), bare))


@pytest.mark.parametrize("label", [PLATFORM_LABEL, REALM_LABEL])
def test_octets_after_a_part_are_refused(label: int) -> None:
    parts = {
        each: part(_TOKEN, each) + (b"\0" if each == label else b"")
        for each in (PLATFORM_LABEL, REALM_LABEL)
    }
    with pytest.raises(DecodeError, match="after the data item"):
        SCHEME.decode(join(parts[PLATFORM_LABEL], parts[REALM_LABEL]))


@pytest.mark.parametrize("size", range(0, 2200, 31))
def test_a_truncated_token_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(_TOKEN[:size])


def test_octets_after_the_token_are_refused() -> None:
    with pytest.raises(DecodeError, match="after the data item"):
        SCHEME.decode(_TOKEN + b"\0")


def test_an_entry_that_occurs_twice_is_refused() -> None:
    inside = cbor.encode(entries(_TOKEN))
    again = cbor.encode(PLATFORM_LABEL) + cbor.encode([263, part(_OTHER, PLATFORM_LABEL)])
    with pytest.raises(DecodeError, match="occurs twice"):
        SCHEME.decode(b"\xd9\x03\x8b\xa3" + inside[1:] + again)


def test_indefinite_lengths_are_refused() -> None:
    inside = cbor.encode(entries(_TOKEN))
    with pytest.raises(DecodeError, match="indefinite"):
        SCHEME.decode(b"\xd9\x03\x8b\xbf" + inside[1:] + b"\xff")


def test_a_token_beyond_the_size_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError, match=f"max_bytes={LIMITS.max_bytes}"):
        SCHEME.decode(_TOKEN + bytes(LIMITS.max_bytes))


def test_a_hash_name_that_is_not_utf_8_is_refused_and_explained() -> None:
    """Firmware of 2025 and 2026 was seen to emit claim 2402 like this."""
    good = cbor.encode(claims_of(_TOKEN, PLATFORM_LABEL))
    text = cbor.encode(2402) + cbor.encode("sha-256")
    assert good.count(text) == 1
    bad = good.replace(text, cbor.encode(2402) + b"\x67sha\xff256")
    cpak = _A.keys.attestation
    assert not isinstance(cpak, bytes)
    token = join(sign1(bad, LocalSigner(cpak)), part(_TOKEN, REALM_LABEL))
    with pytest.raises(DecodeError, match=r"not UTF-8.*claim 2402") as e:
        SCHEME.decode(token)
    assert "firmware" in e.value.remedy


def test_media_types_of_the_same_tokens_pass_and_others_do_not() -> None:
    for media_type in SCHEME.media_types:
        assert SCHEME.decode(_TOKEN, media_type=media_type).media_type == media_type
    realm = 'application/eat+cwt; eat_profile="tag:arm.com,2024:realm#2.0.0"'
    SCHEME.decode(_TOKEN, media_type=realm)
    with pytest.raises(DecodeError, match="came as"):
        SCHEME.decode(
            _TOKEN,
            media_type='application/eat+cwt; eat_profile="tag:psacertified.org,2023:psa#tfm"',
        )


def test_unknown_claims_of_both_parts_are_shown() -> None:
    realm = {**claims_of(_TOKEN, REALM_LABEL), 9999: "r"}
    platform = {**claims_of(_TOKEN, PLATFORM_LABEL), 9998: "p"}
    verified = verify(
        resigned(realm=realm, platform=platform), "cca", anchors=_ANCHORS, challenge=_CHALLENGE
    )
    shown = [each.claims["unrecognised"] for each in verified.claims_sets]
    assert shown == [{"9998": "p"}, {"9999": "r"}]


def test_the_simulated_platforms_of_these_tests_differ() -> None:
    assert isinstance(_A, SimulatedPlatform)
    assert _A.instance_id != _B.instance_id
