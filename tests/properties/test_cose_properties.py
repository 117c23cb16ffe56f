# SPDX-License-Identifier: Apache-2.0
"""COSE: whatever is signed verifies, and no changed bit does."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import cbor_values
from troth.errors import DecodeError, SignatureError
from troth.formats.cose import Mac0, Sign1, mac0, sign1
from troth.formats.cose_key import CoseKey
from troth.formats.jwk import decode_jwk, required_members
from troth.formats.keys import load_keys, spki, thumbprint
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import CURVES, VerificationKey

SIGNER = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
KEY = VerificationKey(SIGNER.public_key)
SECRET = VerificationKey(bytes(range(64)))

# Labels from 1000 on, and text: none of those that mean something to us.
HEADERS = st.dictionaries(
    st.one_of(st.integers(1000, 2**32), st.integers(-(2**32), -1), st.text(max_size=8)),
    cbor_values(tags=False),
    max_size=3,
)


@given(st.binary(max_size=300), st.binary(max_size=40), HEADERS, st.booleans())
def test_whatever_is_signed_verifies_with_what_it_was_bound_to(
    payload: bytes,
    aad: bytes,
    header: dict[int | str, object],
    tagged: bool,  # noqa: FBT001 - Hypothesis passes by position
) -> None:
    encoded = sign1(payload, SIGNER, protected=header, external_aad=aad, tagged=tagged)
    message = Sign1.decode(encoded, format="x", tagging="either")
    assert message.verify(KEY, algorithms=["ES256"], external_aad=aad) == payload
    assert {label: message.protected[label] for label in header} == header
    with pytest.raises(SignatureError):
        message.verify(KEY, algorithms=["ES256"], external_aad=aad + b"\0")


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_boundary_moved_between_two_covered_parts_is_seen(one: bytes, other: bytes) -> None:
    encoded = mac0(one + other, bytes(64), external_aad=b"")
    message = Mac0.decode(encoded, format="x")
    if not one:
        return
    with pytest.raises(SignatureError):
        message.verify(SECRET, algorithms=["HMAC 256/256"], external_aad=one)


@pytest.mark.parametrize(
    ("encoded", "kind", "key", "algorithm"),
    [
        (sign1(b"payload", SIGNER), Sign1, KEY, "ES256"),
        (mac0(b"payload", bytes(range(64))), Mac0, SECRET, "HMAC 256/256"),
    ],
    ids=["sign1", "mac0"],
)
def test_no_message_with_one_bit_changed_verifies(
    encoded: bytes, kind: type[Sign1 | Mac0], key: VerificationKey, algorithm: str
) -> None:
    assert kind.decode(encoded, format="x").verify(key, algorithms=[algorithm]) == b"payload"
    for bit in range(8 * len(encoded)):
        changed = bytearray(encoded)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((DecodeError, SignatureError)):
            kind.decode(bytes(changed), format="x").verify(key, algorithms=[algorithm])


@given(st.integers(1, 2**200), st.sampled_from(list(CURVES)))
def test_a_key_is_the_same_through_every_form(number: int, curve: str) -> None:
    public = ec.derive_private_key(number, CURVES[curve]).public_key()
    key = VerificationKey(public)
    again = [
        CoseKey.decode(CoseKey.encode(key)),
        decode_jwk(required_members(public), format="x"),
        *load_keys(spki(key), source="x"),
    ]
    assert {thumbprint(other) for other in again} == {thumbprint(key)}


@given(st.binary(min_size=32, max_size=32))
def test_any_ed25519_key_is_the_same_through_every_form(seed: bytes) -> None:
    public = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    key = VerificationKey(public)
    assert thumbprint(CoseKey.decode(CoseKey.encode(key))) == thumbprint(key)
    assert thumbprint(decode_jwk(required_members(public), format="x")) == thumbprint(key)
