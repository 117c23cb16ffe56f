# SPDX-License-Identifier: Apache-2.0
"""Laws of the comparison rules: what may widen a match, and what never does."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from troth.endorsement.matching import (
    Measured,
    compare,
    compare_digests,
    compare_integer,
    compare_raw_value,
    compare_registers,
    compare_svn,
)
from troth.endorsement.reference_value import Environment, ReferenceValue

NAMES = st.sampled_from(["sha-256", "sha-384", "sha-512"])
SIZES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}


@st.composite
def _digests(draw: st.DrawFn) -> dict[str, bytes]:
    names = draw(st.lists(NAMES, unique=True))
    return {name: bytes([draw(st.integers(0, 1))]) * SIZES[name] for name in names}


DIGESTS = _digests()
REGISTERS = st.dictionaries(st.integers(0, 3), DIGESTS, max_size=3)
OCTETS = st.binary(max_size=6)


@given(DIGESTS, DIGESTS)
def test_digests_match_both_ways_or_neither(
    ours: dict[str, bytes], theirs: dict[str, bytes]
) -> None:
    if ours and theirs:
        forth, back = compare_digests(ours, theirs), compare_digests(theirs, ours)
        assert (forth is None) is (back is None)


@given(DIGESTS, DIGESTS)
def test_digests_match_if_and_only_if_all_common_ones_agree(
    ours: dict[str, bytes], theirs: dict[str, bytes]
) -> None:
    common = ours.keys() & theirs.keys()
    agree = bool(common) and all(ours[name] == theirs[name] for name in common)
    assert (compare_digests(ours, theirs) is None) is agree


@given(DIGESTS, DIGESTS, NAMES, st.integers(0, 1))
def test_a_further_measured_digest_never_turns_a_mismatch_of_common_ones_into_a_match(
    ours: dict[str, bytes], theirs: dict[str, bytes], name: str, octet: int
) -> None:
    common = ours.keys() & theirs.keys()
    if not common or compare_digests(ours, theirs) is None or name in theirs:
        return
    more = {**theirs, name: bytes([octet]) * SIZES[name]}
    assert compare_digests(ours, more) is not None


@given(OCTETS, OCTETS, OCTETS)
def test_clearing_bits_of_a_mask_only_widens(value: bytes, mask: bytes, measured: bytes) -> None:
    if compare_raw_value(value, mask, measured) is None:
        wider = bytes(octet & 0x0F for octet in mask)
        assert compare_raw_value(value, wider, measured) is None


@given(OCTETS, OCTETS, OCTETS)
def test_bits_outside_the_mask_of_either_side_do_not_matter(
    value: bytes, mask: bytes, measured: bytes
) -> None:
    if len(mask) != len(value) or len(measured) != len(value):
        assert compare_raw_value(value, mask, measured) is not None
        return

    def noisy(octets: bytes) -> bytes:
        return bytes(octet | (~bit & 0xFF) for octet, bit in zip(octets, mask, strict=True))

    plain = compare_raw_value(value, mask, measured) is None
    assert (compare_raw_value(noisy(value), mask, measured) is None) is plain
    assert (compare_raw_value(value, mask, noisy(measured)) is None) is plain


@given(OCTETS, OCTETS)
def test_no_mask_is_a_mask_of_ones(value: bytes, measured: bytes) -> None:
    ones = b"\xff" * len(value)
    without = compare_raw_value(value, None, measured) is None
    assert (compare_raw_value(value, ones, measured) is None) is without is (value == measured)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_higher_number_never_fails_a_minimum_that_a_lower_one_met(
    minimum: int, lower: int, more: int
) -> None:
    if compare_svn(None, minimum, lower) is None:
        assert compare_svn(None, minimum, lower + more) is None
        assert compare_svn(minimum, None, lower) is None or lower > minimum


@given(REGISTERS, REGISTERS)
def test_measuring_more_registers_never_breaks_a_match(
    reference: dict[int | str, dict[str, bytes]], more: dict[int | str, dict[str, bytes]]
) -> None:
    stated = {register: digests for register, digests in reference.items() if digests}
    assert compare_registers(stated, {**more, **stated}) == ()


@given(REGISTERS, REGISTERS)
def test_each_register_is_judged_by_itself(
    reference: dict[int | str, dict[str, bytes]], measured: dict[int | str, dict[str, bytes]]
) -> None:
    together = {mismatch.attribute for mismatch in compare_registers(reference, measured)}
    alone = {
        mismatch.attribute
        for register, digests in reference.items()
        for mismatch in compare_registers({register: digests}, measured)
    }
    assert together == alone


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_a_range_is_the_conjunction_of_its_bounds(low: int, high: int, value: int) -> None:
    both = compare_integer((low, high), value) is None
    each = [compare_integer(bounds, value) is None for bounds in ((low, None), (None, high))]
    assert both is all(each) is (low <= value <= high)


CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b"]),
        "version": st.sampled_from(["1", "2"]),
        "digests": DIGESTS,
        "min_svn": st.integers(0, 3),
        "raw_value": OCTETS,
        "registers": REGISTERS,
        "flags": st.dictionaries(st.just("is-debug"), st.booleans()),
        "uncomparable": st.sampled_from([(), ("member -1",)]),
    },
)
MEASURED = st.builds(
    Measured,
    name=st.sampled_from(["", "a"]),
    version=st.sampled_from(["", "1"]),
    digests=DIGESTS,
    svn=st.none() | st.integers(0, 3),
    raw_value=st.none() | OCTETS,
    registers=REGISTERS,
    flags=st.dictionaries(st.just("is-debug"), st.booleans()),
)


@given(CONDITIONS, CONDITIONS, MEASURED)
def test_a_further_condition_never_removes_a_mismatch(
    conditions: dict[str, object], more: dict[str, object], measured: Measured
) -> None:
    weak = ReferenceValue(
        id="c/t#0", scheme="tdx", environment=Environment(class_id=b"x"), svn=None
    )
    weak = replace(weak, **conditions)  # type: ignore[arg-type]
    added = {name: value for name, value in more.items() if name not in conditions}
    strong = replace(weak, **added)  # type: ignore[arg-type]
    before = {m for m in compare(weak, measured) if m.why != "the reference states nothing"}
    assert before <= set(compare(strong, measured))
