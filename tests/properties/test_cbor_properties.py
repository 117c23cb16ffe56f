# SPDX-License-Identifier: Apache-2.0
"""CBOR for all values and all octets, with an independent codec as the oracle."""

from __future__ import annotations

import contextlib
from functools import partial

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import cbor_keys, cbor_values, encoded_items
from troth.errors import DecodeError
from troth.formats import cbor
from troth.formats.cbor import Tag
from troth.formats.limits import Limits

# Deep enough for whatever the strategies build.
LIMITS = Limits(max_bytes=65_536, max_items=16_384, max_depth=64)
decode = partial(cbor.decode, format="x", limits=LIMITS)


@given(cbor_values())
def test_what_is_encoded_decodes_to_itself(value: object) -> None:
    decoded = decode(cbor.encode(value))
    assert same(decoded, value)


@given(cbor_values())
def test_what_is_encoded_is_deterministic(value: object) -> None:
    encoded = cbor.encode(value)
    assert cbor.is_deterministic(encoded, limits=LIMITS)
    assert cbor.encode(decode(encoded)) == encoded


@given(st.dictionaries(cbor_keys(), st.none()), st.randoms())
def test_the_order_in_which_a_map_was_filled_does_not_show(
    value: dict[int | str | bytes, None], random: object
) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    encoded = cbor.encode(dict(items))
    assert encoded == cbor.encode(value)
    decoded = decode(encoded)
    assert isinstance(decoded, dict)
    keys = [cbor.encode(key) for key in decoded]
    assert keys == sorted(keys)


@given(cbor_values(tags=False))
def test_another_codec_reads_the_same_value(value: object) -> None:
    assert same(cbor2.loads(cbor.encode(value)), value)


@given(cbor_values(tags=False))
def test_what_another_codec_writes_is_read_the_same(value: object) -> None:
    assert same(decode(cbor2.dumps(value)), value)


@given(cbor_values(tags=False))
def test_what_another_codec_writes_at_indefinite_length_is_read_where_allowed(
    value: object,
) -> None:
    encoded = cbor2.dumps(value, indefinite_containers=True)
    assert same(decode(encoded, allow_indefinite=True), value)


@given(encoded_items())
def test_octets_that_are_accepted_mean_the_same_to_another_codec(data: bytes) -> None:
    try:
        value = decode(data)
    except DecodeError:
        return
    if not has_tag(value):
        assert same(cbor2.loads(data, max_depth=100), value)


@given(encoded_items())
def test_octets_that_another_codec_refuses_are_refused(data: bytes) -> None:
    try:
        cbor2.loads(data, max_depth=100)
    except Exception:  # noqa: BLE001, S110 - the oracle may refuse in any way it likes
        pass
    else:
        return
    try:
        value = decode(data)
    except DecodeError:
        return
    # The other codec looks into tags, which is what it may have refused.
    assert has_tag(value)


@given(cbor_values(), st.binary(min_size=1, max_size=9))
def test_any_bytes_after_an_item_are_refused(value: object, trailing: bytes) -> None:
    encoded = cbor.encode(value)
    with pytest.raises(DecodeError) as caught:
        decode(encoded + trailing)
    assert caught.value.offset == len(encoded)


@given(cbor_values(), st.data())
def test_every_prefix_of_an_item_is_refused(value: object, data: st.DataObject) -> None:
    encoded = cbor.encode(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DecodeError):
        decode(encoded[:cut])


@given(st.dictionaries(cbor_keys(), st.integers(0, 99), min_size=1, max_size=20), st.data())
def test_any_key_repeated_in_any_place_is_refused(
    value: dict[int | str | bytes, int], data: st.DataObject
) -> None:
    entries = [cbor.encode(key) + cbor.encode(member) for key, member in value.items()]
    again = data.draw(st.sampled_from(list(value)))
    entries.insert(data.draw(st.integers(0, len(entries))), cbor.encode(again) + b"\x00")
    encoded = b"\xb9" + len(entries).to_bytes(2) + b"".join(entries)
    with pytest.raises(DecodeError, match="occurs twice"):
        decode(encoded)


@given(st.integers(0, 2**64 - 1), st.sampled_from(range(7)))
def test_a_declared_length_or_value_never_raises_anything_else(argument: int, major: int) -> None:
    for width, info in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if argument < 1 << (8 * width):
            encoded = bytes([major << 5 | info]) + argument.to_bytes(width)
            with contextlib.suppress(DecodeError):
                decode(encoded)


@pytest.mark.parametrize("initial", range(256))
def test_every_first_octet_alone_and_followed_by_zeros_decodes_or_is_refused(initial: int) -> None:
    for following in range(10):
        for allow_indefinite in (False, True):
            data = bytes([initial]) + bytes(following)
            with contextlib.suppress(DecodeError):
                decode(data, allow_indefinite=allow_indefinite)


def same(left: object, right: object) -> bool:
    """Compare values and types all the way down: 1, 1.0 and True are three values here."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, Tag) and isinstance(right, Tag):
        return left.number == right.number and same(left.value, right.value)
    return left == right


def has_tag(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(has_tag, value.values()))
    if isinstance(value, list):
        return any(map(has_tag, value))
    return isinstance(value, Tag)
