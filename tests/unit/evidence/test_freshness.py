# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from troth.errors import ApiMisuseError, FreshnessError
from troth.evidence.evidence import NonceMatched, Unchecked
from troth.evidence.freshness import check_freshness

_NONCE = bytes(range(1, 33))


def test_the_whole_challenge_matches() -> None:
    assert check_freshness(_NONCE, _NONCE, claim="nonce") == NonceMatched(_NONCE)


def test_leaving_it_unchecked_is_recorded() -> None:
    why = Unchecked("stored Evidence")
    assert check_freshness(_NONCE, why, claim="nonce") is why


@pytest.mark.parametrize("at", range(32))
def test_one_changed_octet_is_refused(at: int) -> None:
    other = bytearray(_NONCE)
    other[at] ^= 1
    with pytest.raises(FreshnessError, match="nonce is not the challenge of this request"):
        check_freshness(_NONCE, bytes(other), claim="nonce")


@pytest.mark.parametrize("expected", [_NONCE[:31], _NONCE[:8], _NONCE + b"\0", _NONCE * 2])
def test_a_prefix_or_a_longer_one_is_refused_and_named_as_such(expected: bytes) -> None:
    with pytest.raises(FreshnessError, match="compared whole"):
        check_freshness(_NONCE, expected, claim="nonce")


def test_a_padded_challenge_matches_its_unpadded_expectation_only_when_padding_is_the_rule() -> (
    None
):
    padded = _NONCE + bytes(32)
    assert check_freshness(padded, _NONCE, claim="c", zero_pad_to=64) == NonceMatched(_NONCE)
    with pytest.raises(FreshnessError):
        check_freshness(padded, _NONCE, claim="c")
    with pytest.raises(FreshnessError):
        check_freshness(_NONCE + b"\x01" * 32, _NONCE, claim="c", zero_pad_to=64)
    with pytest.raises(FreshnessError):
        check_freshness(padded, _NONCE[:31], claim="c", zero_pad_to=64)


@pytest.mark.parametrize("size", [0, 7, 65, 1000])
def test_an_expectation_that_padding_alone_could_meet_is_the_callers_mistake(size: int) -> None:
    with pytest.raises(ApiMisuseError, match="expected 8 to 64"):
        check_freshness(bytes(64), bytes(size), claim="c", zero_pad_to=64)
