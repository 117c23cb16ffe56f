# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib

import pytest

from troth.errors import ApiMisuseError
from troth.evidence.challenge import derive_challenge


def test_it_is_the_start_of_a_hash_over_the_parts_with_their_lengths() -> None:
    parts = b"\0\0\0\x05label" + b"\0\0\0\x04spki" + b"\0\0\0\x05nonce"
    expected = hashlib.sha512(parts).digest()
    assert derive_challenge(b"label", b"spki", b"nonce", 64) == expected
    assert derive_challenge(b"label", b"spki", b"nonce", 20) == expected[:20]


def test_each_part_changes_it() -> None:
    parts = [b"label", b"spki", b"nonce"]
    challenges = {derive_challenge(*parts, 64)}
    for index in range(3):
        changed = list(parts)
        changed[index] += b"x"
        challenges.add(derive_challenge(*changed, 64))
    assert len(challenges) == 4


def test_octets_moved_from_one_part_to_the_next_change_it() -> None:
    assert derive_challenge(b"ab", b"c", b"n", 64) != derive_challenge(b"a", b"bc", b"n", 64)


@pytest.mark.parametrize("size", [0, 19, 65, -1])
def test_a_size_that_no_scheme_has_is_refused(size: int) -> None:
    with pytest.raises(ApiMisuseError, match="20 to 64"):
        derive_challenge(b"label", b"spki", b"nonce", size)


@pytest.mark.parametrize("missing", range(3))
def test_an_empty_part_is_refused(missing: int) -> None:
    parts = [b"label", b"spki", b"nonce"]
    parts[missing] = b""
    with pytest.raises(ApiMisuseError, match="needs a label, a public key and a nonce"):
        derive_challenge(*parts, 64)
