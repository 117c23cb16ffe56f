# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from support.ears import NOW, plain_ear
from troth.errors import (
    BindingError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.ear import PROFILE_IETF_03, PROFILES, Dialect, Ear, EarSubmod, encode_ear
from troth.formats.ear import sign_ear as sign
from troth.formats.ear import verify_ear as verify
from troth.formats.jose import MAX_KEYS_TRIED, sign_jwt
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner

SIGNER = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "verifier-1")
KEYS = [VerificationKey(SIGNER.public_key, "verifier-1")]
SUBJECT = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
EAR = plain_ear(SUBJECT, nonce=b"12345678")
WIRES = pytest.mark.parametrize("wire", ["jwt", "cwt"])


def token_of(ear: Ear = EAR, wire: str = "jwt", dialect: Dialect = Dialect.IETF_03) -> bytes:
    return sign(ear, SIGNER, dialect, wire=wire)


def accept(token: str | bytes, **changes: object) -> Ear:
    values = {
        "now": NOW + timedelta(minutes=1),
        "max_age": timedelta(minutes=30),
        "leeway": timedelta(0),
        "profiles": PROFILES,
        "require_key": True,
        "require_exp": True,
    }
    keys = changes.pop("keys", KEYS)
    return verify(token, keys, **(values | changes))


@WIRES
@pytest.mark.parametrize("dialect", Dialect)
def test_a_signed_result_comes_back_as_it_was(wire: str, dialect: Dialect) -> None:
    token = token_of(wire=wire, dialect=dialect)
    assert accept(token, nonce=b"12345678") == replace(EAR, profile=dialect.value)


def test_a_jwt_may_be_text_or_octets() -> None:
    assert accept(token_of().decode()) == accept(token_of()) == EAR


@WIRES
@pytest.mark.parametrize("private", [ec.generate_private_key(ec.SECP384R1()), None])
def test_other_kinds_of_keys_sign_too(wire: str, private: object) -> None:
    signer = LocalSigner(private or ed25519.Ed25519PrivateKey.generate())
    token = sign(EAR, signer, Dialect.IETF_03, wire=wire)
    assert accept(token, keys=[VerificationKey(signer.public_key)]) == EAR


@WIRES
def test_another_verifiers_signature_is_refused(wire: str) -> None:
    other = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "verifier-1")
    token = sign(EAR, other, Dialect.IETF_03, wire=wire)
    with pytest.raises(SignatureError, match="does not verify"):
        accept(token)
    with pytest.raises(SignatureError, match="none of the 0 keys"):
        accept(token_of(wire=wire), keys=[])
    with pytest.raises(SignatureError, match="kid 'verifier-1'"):
        accept(token_of(wire=wire), keys=[VerificationKey(SIGNER.public_key, "verifier-2")])


@WIRES
def test_the_callers_algorithms_are_final(wire: str) -> None:
    with pytest.raises(SignatureError, match="not allowed"):
        accept(token_of(wire=wire), algorithms={"ES384"})


@WIRES
def test_one_changed_octet_is_refused(wire: str) -> None:
    token = token_of(wire=wire)
    for at in range(0, len(token), 17):
        damaged = bytearray(token)
        damaged[at] ^= 0x01
        with pytest.raises((SignatureError, DecodeError)):
            accept(bytes(damaged))


@pytest.mark.parametrize("tags", ["none", "18", "61(18)"])
def test_a_cwt_is_taken_with_and_without_its_tags(tags: str) -> None:
    message = cbor.decode(token_of(wire="cwt"), format="test")
    assert isinstance(message, cbor.Tag)
    token = {
        "none": cbor.encode(message.value),
        "18": cbor.encode(message),
        "61(18)": cbor.encode(cbor.Tag(61, message)),
    }[tags]
    assert accept(token) == EAR


def test_a_cwt_tag_around_anything_but_a_tagged_signature_is_refused() -> None:
    message = cbor.decode(token_of(wire="cwt"), format="test")
    for wrapped in (cbor.Tag(61, message.value), cbor.Tag(61, cbor.Tag(61, message))):
        with pytest.raises(DecodeError):
            accept(cbor.encode(wrapped))


def test_a_cwt_without_key_id_does_not_make_us_try_many_keys() -> None:
    signer = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
    token = sign(EAR, signer, Dialect.IETF_03, wire="cwt")
    others = [
        VerificationKey(ec.generate_private_key(ec.SECP256R1()).public_key())
        for _ in range(MAX_KEYS_TRIED)
    ]
    assert accept(token, keys=[*others[1:], VerificationKey(signer.public_key)]) == EAR
    with pytest.raises(LimitExceededError):
        accept(token, keys=[*others, VerificationKey(signer.public_key)])


def test_a_key_id_that_is_not_text_compares_as_hex() -> None:
    payload = encode_ear(EAR, Dialect.IETF_03, wire="cbor")
    token = sign1(payload, SIGNER, protected={4: b"\xff\x00"})
    assert accept(token, keys=[VerificationKey(SIGNER.public_key, "ff00")]) == EAR


@pytest.mark.parametrize("typ", ["JWT", "eat+jwt", "application/eat+jwt", "EAT+JWT", "eat-jwt"])
def test_the_kinds_that_verifiers_write_are_taken(typ: str) -> None:
    claims = json.loads(encode_ear(EAR, Dialect.IETF_03))
    assert accept(sign_jwt(claims, SIGNER, header={"typ": typ})) == EAR


@pytest.mark.parametrize("typ", ["wit+jwt", "wpt+jwt", "", 1])
def test_another_kind_of_token_by_the_same_signer_is_refused(typ: object) -> None:
    claims = json.loads(encode_ear(EAR, Dialect.IETF_03))
    with pytest.raises(UnsupportedError, match="not an EAR"):
        accept(sign_jwt(claims, SIGNER, header={"typ": typ}))


def test_a_profile_outside_the_callers_list_is_refused() -> None:
    assert accept(token_of(), profiles=[PROFILE_IETF_03]) == EAR
    with pytest.raises(UnsupportedError, match="not accepted here"):
        accept(token_of(dialect=Dialect.VERAISON), profiles=[PROFILE_IETF_03])
    with pytest.raises(UnsupportedError, match="accepted: none"):
        accept(token_of(), profiles=[])


@WIRES
@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (timedelta(seconds=-1), "in the future"),
        (timedelta(minutes=30, seconds=1), "more than the 1800 s"),
    ],
)
def test_a_result_is_recent(wire: str, offset: timedelta, words: str) -> None:
    token = token_of(wire=wire)
    for at in (timedelta(0), timedelta(minutes=30)):
        assert accept(token, now=NOW + at) == EAR
    with pytest.raises(FreshnessError, match=words):
        accept(token, now=NOW + offset)
    assert accept(token, now=NOW + offset, leeway=timedelta(seconds=1)) == EAR


def test_an_expired_result_is_refused_even_if_it_is_recent() -> None:
    token = token_of(replace(EAR, expires_at=NOW + timedelta(minutes=5)))
    assert accept(token, now=NOW + timedelta(minutes=5, seconds=-1))
    with pytest.raises(FreshnessError, match="expired"):
        accept(token, now=NOW + timedelta(minutes=5))
    assert accept(token, now=NOW + timedelta(minutes=5), leeway=timedelta(seconds=1))


def test_a_result_is_not_used_before_its_time() -> None:
    token = token_of(replace(EAR, not_before=NOW + timedelta(minutes=5)))
    assert accept(token, now=NOW + timedelta(minutes=5))
    with pytest.raises(FreshnessError, match="not valid before"):
        accept(token, now=NOW + timedelta(minutes=4))


def test_a_result_that_never_ends_is_refused_where_an_end_is_required() -> None:
    token = token_of(replace(EAR, expires_at=None))
    assert accept(token, require_exp=False).expires_at is None
    with pytest.raises(DecodeError, match="no exp"):
        accept(token)


@WIRES
def test_the_nonce_is_ours(wire: str) -> None:
    assert accept(token_of(wire=wire), nonce=b"12345678")
    with pytest.raises(FreshnessError, match="nonce"):
        accept(token_of(wire=wire), nonce=b"87654321")
    with pytest.raises(FreshnessError, match="nonce"):
        accept(token_of(replace(EAR, nonce=None), wire=wire), nonce=b"12345678")
    with pytest.raises(FreshnessError, match="nonce"):
        accept(token_of(wire=wire), nonce=b"")


def test_exactly_one_key_is_vouched_for_where_one_is_required() -> None:
    no_key = plain_ear()
    assert accept(token_of(no_key), require_key=False).keys == ()
    with pytest.raises(BindingError, match="0 keys"):
        accept(token_of(no_key))
    other = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
    part = EAR.submods["psa"]
    two = replace(EAR, submods={"a": part, "b": replace(part, key=other)})
    with pytest.raises(BindingError, match="2 keys"):
        accept(token_of(two))
    same = replace(EAR, submods={"a": part, "b": part, "c": EarSubmod(status=part.status)})
    assert accept(token_of(same)).keys == (SUBJECT,)


@WIRES
def test_a_result_made_out_to_others_is_refused(wire: str) -> None:
    for audience in ("spiffe://a/b", ["x", "spiffe://a/b"]):
        token = token_of(replace(EAR, extensions={"aud": audience}), wire=wire)
        assert accept(token, audience="spiffe://a/b")
        with pytest.raises(BindingError, match="another audience"):
            accept(token, audience="spiffe://a/c")
        with pytest.raises(BindingError, match="another audience"):
            accept(token)
    assert accept(token_of(wire=wire), audience="spiffe://a/b")


def test_a_forged_claims_set_is_not_looked_at() -> None:
    other = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(SignatureError):
        accept(sign_jwt({"eat_profile": 1}, other), keys=[VerificationKey(SIGNER.public_key)])


@pytest.mark.parametrize("token", [b"", "", b"\x80", b"\xff", b"\xd2\x80", "a.b.c", b"a.b.c"])
def test_what_is_no_token_is_a_decode_error(token: str | bytes) -> None:
    with pytest.raises(DecodeError):
        accept(token)
