# SPDX-License-Identifier: Apache-2.0
"""The digest of a set depends on its members and on nothing else."""

from __future__ import annotations

import struct
from functools import reduce
from hashlib import sha256, shake_128

from hypothesis import given
from hypothesis import strategies as st

from troth.endorsement.set_digest import EMPTY, SetDigest

MEMBERS = st.lists(st.binary(max_size=8), max_size=12, unique=True)


def of(members: list[bytes]) -> SetDigest:
    return reduce(SetDigest.add, members, EMPTY)


@given(MEMBERS, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(members: list[bytes], random: object) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert of(members).hexdigest() == of(shuffled).hexdigest()


@given(MEMBERS, MEMBERS)
def test_different_sets_have_different_digests(ours: list[bytes], theirs: list[bytes]) -> None:
    assert (of(ours).hexdigest() == of(theirs).hexdigest()) is (set(ours) == set(theirs))


@given(MEMBERS, st.binary(max_size=8))
def test_removing_undoes_adding(members: list[bytes], member: bytes) -> None:
    assert of(members).add(member).remove(member) == of(members)


def test_a_lane_that_overflows_does_not_reach_the_next() -> None:
    digest = EMPTY
    for _ in range(65_536):
        digest = digest.add(b"again and again")
    # Each lane went around exactly once: 65,536 times any 16-bit number is 0.
    assert digest == EMPTY


@given(MEMBERS)
def test_it_is_the_sum_of_1024_numbers_of_16_bits_per_member(members: list[bytes]) -> None:
    sums = [0] * 1024
    for member in members:
        words = struct.unpack(">1024I", shake_128(member).digest(4096))
        sums = [(total + word) % 65_536 for total, word in zip(sums, words, strict=True)]
    assert of(members).hexdigest() == sha256(struct.pack(">1024I", *sums)).hexdigest()
