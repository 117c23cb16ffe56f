# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.control_plane.verification.session import NONCE_SIZES, SessionTokens
from troth.errors import ApiMisuseError, DecodeError, FreshnessError
from troth.formats.base64url import decode_base64url, encode_base64url

NOW = datetime(2026, 11, 25, 12, 0, 0, 500_000, tzinfo=UTC)
LIFE = timedelta(seconds=150)
TOKENS = SessionTokens(b"k" * 32, lifetime=LIFE, random=os.urandom)


def test_a_session_says_again_what_it_was_opened_with() -> None:
    opened = TOKENS.open(nonce=b"n" * 32, now=NOW)
    assert TOKENS.recognise(opened.id, now=NOW) == opened
    assert opened.nonce == b"n" * 32
    assert opened.expires == datetime(2026, 11, 25, 12, 2, 30, tzinfo=UTC)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_random_nonces_have_the_size_that_is_asked_for(size: int) -> None:
    one, other = (TOKENS.open(size=size, now=NOW) for _ in range(2))
    assert len(one.nonce) == size
    assert one.nonce != other.nonce
    assert TOKENS.recognise(one.id, now=NOW) == one


def test_sessions_with_one_nonce_are_still_two() -> None:
    one, other = (TOKENS.open(nonce=b"n" * 32, now=NOW) for _ in range(2))
    assert one.mark != other.mark
    assert one.id != other.id


@pytest.mark.parametrize("size", [0, 7, 65])
def test_no_session_is_opened_for_a_nonce_of_another_size(size: int) -> None:
    with pytest.raises(ApiMisuseError):
        TOKENS.open(nonce=bytes(size), now=NOW)


def test_a_session_ends_at_its_time() -> None:
    opened = TOKENS.open(now=NOW)
    assert TOKENS.recognise(opened.id, now=opened.expires - timedelta(microseconds=1))
    with pytest.raises(FreshnessError, match="over"):
        TOKENS.recognise(opened.id, now=opened.expires)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), size=st.sampled_from(NONCE_SIZES))
def test_every_changed_bit_makes_another_session_that_nobody_opened(
    place: int, bit: int, size: int
) -> None:
    octets = bytearray(decode_base64url(TOKENS.open(size=size, now=NOW).id, format="id"))
    octets[place % len(octets)] ^= 1 << bit
    with pytest.raises((FreshnessError, DecodeError)):
        TOKENS.recognise(encode_base64url(bytes(octets)), now=NOW)


def test_a_key_recognises_its_own_sessions_only() -> None:
    other = SessionTokens(b"o" * 32, lifetime=LIFE, random=os.urandom)
    with pytest.raises(FreshnessError, match="no session"):
        other.recognise(TOKENS.open(now=NOW).id, now=NOW)
    with pytest.raises(ApiMisuseError):
        SessionTokens(b"short", lifetime=LIFE, random=os.urandom)


@given(st.text(max_size=300))
def test_no_text_at_all_crashes_the_recognition(text: str) -> None:
    with pytest.raises((DecodeError, FreshnessError)):
        TOKENS.recognise(text, now=NOW)


def test_a_very_long_id_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match="longer"):
        TOKENS.recognise("A" * 100_000, now=NOW)
