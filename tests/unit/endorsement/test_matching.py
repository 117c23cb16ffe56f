# SPDX-License-Identifier: Apache-2.0
"""The comparison rules of CoRIM: for each match a mismatch that changes one thing."""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha256, sha384

import pytest

from troth.endorsement.matching import (
    Measured,
    closest,
    compare,
    compare_digests,
    compare_flags,
    compare_integer,
    compare_raw_value,
    compare_registers,
    compare_signer,
    compare_svn,
    compare_text,
)
from troth.endorsement.reference_value import Environment, ReferenceValue

GOOD, BAD = sha256(b"good").digest(), sha256(b"bad").digest()
GOOD_384 = sha384(b"good").digest()
ENVIRONMENT = Environment(class_id=bytes(32))

FULL = ReferenceValue(
    id="c/t#0",
    scheme="psa",
    environment=ENVIRONMENT,
    key="psa.software-component",
    digests={"sha-256": GOOD},
    name="BL",
    version="1.2.3",
    signer_ids=(bytes(32), bytes([1]) * 32),
    raw_value=b"\xf0\x0f",
    raw_mask=b"\xff\x00",
    min_svn=3,
    registers={0: {"sha-256": GOOD}, "rtmr": {"sha-384": GOOD_384}},
    flags={"is-debug": False},
    int_range=(None, 7),
)
MATCHING = Measured(
    key="psa.software-component",
    digests={"sha-256": GOOD},
    name="BL",
    version="1.2.3",
    signer_id=bytes(32),
    raw_value=b"\xf0\xff",
    svn=4,
    registers={0: {"sha-256": GOOD}, 1: {"sha-256": BAD}, "rtmr": {"sha-384": GOOD_384}},
    flags={"is-debug": False, "is-secure": True},
    integer=7,
)


def test_an_element_that_meets_every_condition_matches() -> None:
    assert compare(FULL, MATCHING) == ()


@pytest.mark.parametrize(
    ("change", "attribute"),
    [
        ({"key": "psa.other"}, "key"),
        ({"digests": {"sha-256": BAD}}, "digests"),
        ({"name": "PRoT"}, "name"),
        ({"version": "1.2.4"}, "version"),
        ({"signer_id": bytes([2]) * 32}, "signer-id"),
        ({"raw_value": b"\xf1\xff"}, "raw-value"),
        ({"svn": 2}, "svn"),
        ({"registers": {0: {"sha-256": GOOD}}}, "register rtmr"),
        ({"flags": {"is-debug": True}}, "is-debug"),
        ({"integer": 8}, "integer"),
    ],
)
def test_one_condition_that_is_not_met_is_named(change: dict[str, object], attribute: str) -> None:
    (mismatch,) = compare(FULL, replace(MATCHING, **change))  # type: ignore[arg-type]
    assert mismatch.attribute == attribute
    assert mismatch.expected
    assert mismatch.actual
    assert mismatch.why


def test_what_was_not_measured_meets_no_condition() -> None:
    found = {mismatch.attribute: mismatch.actual for mismatch in compare(FULL, Measured())}
    assert set(found) == {
        "key",
        "digests",
        "name",
        "version",
        "signer-id",
        "raw-value",
        "svn",
        "register 0",
        "register rtmr",
        "is-debug",
        "integer",
    }
    assert set(found.values()) == {"absent"}


def test_every_mismatch_is_reported_and_not_only_the_first() -> None:
    assert len(compare(FULL, replace(MATCHING, name="x", version="y", svn=0))) == 3


def test_a_reference_that_states_nothing_matches_nothing() -> None:
    empty = ReferenceValue(id="c/t#0", scheme="psa", environment=ENVIRONMENT)
    assert [each.why for each in compare(empty, Measured())] == ["the reference states nothing"]
    named = replace(empty, key="k", name="BL", signer_ids=(bytes(32),))
    same = Measured(key="k", name="BL", signer_id=bytes(32))
    assert [each.why for each in compare(named, same)] == ["the reference states nothing"]


def test_a_member_without_a_comparison_is_a_mismatch() -> None:
    unknown = replace(FULL, uncomparable=("member -1",))
    (mismatch,) = compare(unknown, MATCHING)
    assert mismatch.attribute == "member -1"
    assert mismatch.why == "no comparison is known for this member"


def test_no_member_of_a_reference_value_goes_uncompared() -> None:
    # A member that is added to the noun and forgotten in `compare` would be a condition that
    # everything meets.
    not_conditions = {"id", "scheme", "environment", "state", "source", "not_before", "not_after"}
    compared = {
        "key", "digests", "name", "version", "signer_ids", "raw_value", "raw_mask", "svn",
        "min_svn", "registers", "flags", "int_range", "uncomparable",
    }  # fmt: skip
    assert {each.name for each in fields(ReferenceValue)} == not_conditions | compared


class TestDigests:
    def test_one_common_algorithm_is_enough(self) -> None:
        ours = {"sha-256": GOOD, "sha-512": bytes(64)}
        assert compare_digests(ours, {"sha-256": GOOD, "sha-384": GOOD_384}) is None

    def test_every_common_algorithm_must_agree(self) -> None:
        # The downgrade guard: a forged digest beside a right one of a weaker algorithm.
        ours = {"sha-256": GOOD, "sha-384": GOOD_384}
        mismatch = compare_digests(ours, {"sha-256": GOOD, "sha-384": bytes(48)})
        assert mismatch is not None
        assert mismatch.why == "the sha-384 digests differ"

    def test_no_common_algorithm_is_a_mismatch(self) -> None:
        mismatch = compare_digests({"sha-256": GOOD}, {"sha-384": GOOD_384})
        assert mismatch is not None
        assert mismatch.why == "no hash algorithm in common"

    def test_spellings_of_one_algorithm_are_one(self) -> None:
        assert compare_digests({"sha-256": GOOD}, {"SHA256": GOOD}) is None
        mismatch = compare_digests({"sha-256": GOOD}, {"sha-256": GOOD, "SHA-256": BAD})
        assert mismatch is not None
        assert mismatch.why == "two digests by one algorithm"

    def test_an_empty_reference_matches_nothing(self) -> None:
        assert compare_digests({}, {}) is not None
        assert compare_digests({}, {"sha-256": GOOD}) is not None

    def test_a_digest_of_the_wrong_length_is_a_mismatch(self) -> None:
        mismatch = compare_digests({"sha-256": b"x"}, {"sha-256": b"x"})
        assert mismatch is not None
        assert mismatch.why == "a sha-256 digest of 1 octets"


class TestSvn:
    @pytest.mark.parametrize(
        ("exact", "minimum", "measured", "matches"),
        [
            (3, None, 3, True),
            (3, None, 4, False),
            (3, None, 2, False),
            (None, 3, 3, True),
            (None, 3, 4, True),
            (None, 3, 2, False),
            (3, None, None, False),
            (None, 0, None, False),
            (None, 0, 0, True),
        ],
    )
    def test_exact_and_minimal_numbers(
        self, exact: int | None, minimum: int | None, measured: int | None, *, matches: bool
    ) -> None:
        assert (compare_svn(exact, minimum, measured) is None) is matches


class TestRawValue:
    @pytest.mark.parametrize(
        ("value", "mask", "measured", "matches"),
        [
            (b"\x01\x02", None, b"\x01\x02", True),
            (b"\x01\x02", None, b"\x01\x03", False),
            (b"\x01\x02", b"\xff\xfe", b"\x01\x03", True),
            (b"\x01\x03", b"\xff\xfe", b"\x01\x02", True),
            (b"\x01\x02", b"\xff\xff", b"\x01\x03", False),
            (b"\x01\x02", b"\x00\x00", b"\xaa\xbb", True),
            (b"\x01\x02", b"\x00\x00", b"\xaa", False),
            (b"\x01\x02", b"\xff", b"\x01\x02", False),
            (b"\x01\x02", b"\xff\xff\xff", b"\x01\x02", False),
            (b"\x01\x02", None, b"\x01\x02\x00", False),
            (b"\x01\x02", None, None, False),
            (b"", None, b"", True),
        ],
    )
    def test_lengths_and_selected_bits(
        self, value: bytes, mask: bytes | None, measured: bytes | None, *, matches: bool
    ) -> None:
        assert (compare_raw_value(value, mask, measured) is None) is matches


class TestRegisters:
    def test_a_subset_of_the_registers_is_enough(self) -> None:
        measured = {0: {"sha-256": GOOD}, 1: {"sha-256": BAD}}
        assert compare_registers({0: {"sha-256": GOOD}}, measured) == ()

    def test_a_number_and_its_text_are_two_registers(self) -> None:
        (mismatch,) = compare_registers({5: {"sha-256": GOOD}}, {"5": {"sha-256": GOOD}})
        assert mismatch.why == "this register was not measured"

    def test_each_register_that_differs_is_reported(self) -> None:
        reference = {0: {"sha-256": GOOD}, 1: {"sha-256": GOOD}, 2: {"sha-256": GOOD}}
        measured = {0: {"sha-256": GOOD}, 1: {"sha-256": BAD}}
        found = compare_registers(reference, measured)
        assert [mismatch.attribute for mismatch in found] == ["register 1", "register 2"]


def test_an_unknown_flag_is_not_false() -> None:
    (mismatch,) = compare_flags({"is-debug": False}, {})
    assert mismatch.why == "this flag was not measured"
    assert compare_flags({"is-debug": False}, {"is-debug": False}) == ()


@pytest.mark.parametrize(
    ("bounds", "measured", "matches"),
    [
        ((1, 3), 1, True),
        ((1, 3), 3, True),
        ((1, 3), 0, False),
        ((1, 3), 4, False),
        ((None, 3), -100, True),
        ((1, None), 10**6, True),
        ((None, None), 0, True),
        ((None, None), None, False),
        ((5, 5), 5, True),
    ],
)
def test_integer_ranges_include_both_bounds(
    bounds: tuple[int | None, int | None], measured: int | None, *, matches: bool
) -> None:
    assert (compare_integer(bounds, measured) is None) is matches


def test_versions_are_equal_or_not() -> None:
    assert compare_text("version", "1.0", "1.0") is None
    mismatch = compare_text("version", "1.0", "1.0.0")
    assert mismatch is not None
    assert (mismatch.expected, mismatch.actual) == ("1.0", "1.0.0")


def test_any_accepted_signer_will_do_and_no_other() -> None:
    assert compare_signer((GOOD, BAD), BAD) is None
    mismatch = compare_signer((GOOD,), b"")
    assert mismatch is not None
    assert mismatch.actual == "absent"


def test_the_closest_reference_is_the_one_with_the_fewest_mismatches() -> None:
    far = replace(FULL, id="far", name="x", version="y")
    near = replace(FULL, id="near", version="y")
    found = closest([far, near], MATCHING)
    assert found is not None
    assert found[0].id == "near"
    assert [mismatch.attribute for mismatch in found[1]] == ["version"]
    assert closest([far, FULL, near], MATCHING) == (FULL, ())
    assert closest([], MATCHING) is None
