# SPDX-License-Identifier: Apache-2.0
"""A CoRIM says the same after it was encoded, and its encoding is unique."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.corims import CORIMS
from troth.endorsement.endorsements import endorsements_of
from troth.endorsement.profiles import generic_uri
from troth.errors import DecodeError, TrothError
from troth.formats import cbor
from troth.formats.corim import Corim

RICH = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@RICH
@given(CORIMS)
def test_decoding_gives_back_what_was_encoded(corim: Corim) -> None:
    encoded = corim.encode()
    assert Corim.decode(encoded) == corim
    assert Corim.decode(encoded).encode() == encoded
    assert cbor.is_deterministic(encoded)


@RICH
@given(CORIMS, st.data())
def test_a_damaged_corim_is_another_corim_or_a_decode_error(
    corim: Corim, data: st.DataObject
) -> None:
    encoded = bytearray(corim.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        found = Corim.decode(bytes(encoded))
    except DecodeError:
        return
    assert Corim.decode(found.encode()) == found


@RICH
@given(CORIMS, st.sampled_from(["", "tdx"]))
def test_any_corim_is_taken_or_refused_with_an_error_of_ours(corim: Corim, scheme: str) -> None:
    for profile in (corim.profile, generic_uri("tdx"), "tag:arm.com,2025:psa#1.0.0"):
        candidate = Corim(corim_id=corim.corim_id, tags=corim.tags, profile=profile)
        try:
            found = endorsements_of(candidate, source="test", scheme=scheme)
        except TrothError:
            continue
        identifiers = [each.id for each in found.reference_values]
        identifiers += [each.id for each in found.trust_anchors]
        assert len(set(identifiers)) == len(identifiers) > 0
