# SPDX-License-Identifier: Apache-2.0
"""Whatever dialect and encoding an EAR goes through, it says the same afterwards."""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ears import ears
from troth.errors import DecodeError
from troth.formats.ear import PROFILES, Dialect, Ear, decode_ear, encode_ear, minimise

DIALECTS = st.sampled_from(Dialect)
WIRES = st.sampled_from(["json", "cbor"])


@given(ears(), DIALECTS, WIRES)
def test_an_ear_survives_any_dialect_and_encoding(ear: Ear, dialect: Dialect, wire: str) -> None:
    encoded = encode_ear(ear, dialect, wire=wire)
    decoded = decode_ear(encoded, wire=wire)
    profile = ear.profile if PROFILES[ear.profile] is dialect else dialect.value
    assert decoded == replace(ear, profile=profile)
    assert encode_ear(decoded, dialect, wire=wire) == encoded


@given(ears(), st.lists(st.tuples(DIALECTS, WIRES), min_size=2, max_size=4))
def test_an_ear_survives_any_journey(ear: Ear, journey: list[tuple[Dialect, str]]) -> None:
    travelled = ear
    for dialect, wire in journey:
        travelled = decode_ear(encode_ear(travelled, dialect, wire=wire), wire=wire)
    assert replace(travelled, profile=ear.profile) == ear


@given(ears())
def test_minimising_twice_is_minimising_once_and_keeps_the_verdict(ear: Ear) -> None:
    small = minimise(ear)
    assert minimise(small) == small
    assert small.overall_status is ear.overall_status
    assert small.keys == ear.keys
    assert small.insecure == ear.insecure
    assert small.expires_at == ear.expires_at
    assert len(encode_ear(small, Dialect.IETF_03)) <= len(encode_ear(ear, Dialect.IETF_03)) + 8


@given(st.binary(max_size=120), WIRES)
def test_octets_are_an_ear_or_a_decode_error(data: bytes, wire: str) -> None:
    with pytest.raises(DecodeError):
        decode_ear(data, wire=wire)


@given(ears(), DIALECTS, WIRES, st.data())
def test_a_damaged_ear_is_another_ear_or_a_decode_error(
    ear: Ear, dialect: Dialect, wire: str, data: st.DataObject
) -> None:
    encoded = bytearray(encode_ear(ear, dialect, wire=wire))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.sampled_from(string.printable.encode() + bytes(range(128, 256))))
    try:
        decoded = decode_ear(bytes(encoded), wire=wire)
    except DecodeError:
        return
    assert decode_ear(encode_ear(decoded, dialect, wire=wire), wire=wire).submods == decoded.submods
