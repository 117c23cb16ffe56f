# SPDX-License-Identifier: Apache-2.0
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import ApiMisuseError, DecodeError, LimitExceededError
from troth.formats.limits import Limits
from troth.formats.strict_json import decode_json, decode_json_object, encode_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_is_encoded_decodes_to_the_same_value(value: object) -> None:
    assert decode_json(encode_json(value), format="test") == value


@given(st.binary(max_size=200))
def test_octets_give_a_value_or_a_decode_error_and_agree_with_the_library(data: bytes) -> None:
    try:
        value = decode_json(data, format="test")
    except DecodeError:
        return
    assert value == json.loads(data)


def test_encoding_is_reproducible_and_compact() -> None:
    assert encode_json({"b": 1, "a": ["é", 1.5]}) == '{"a":["é",1.5],"b":1}'.encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":1,"a":1}', "'a' occurs twice"),
        (b'{"a":1,"\\u0061":2}', "'a' occurs twice"),
        (b'[{"x":{"a":1,"b":2,"a":1}}]', "'a' occurs twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "out of range"),
        (b"[-1e999]", "out of range"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\uDFFF":1}', "half of a surrogate pair"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{},", "not JSON"),
        (b"", "not JSON"),
        (b"'a'", "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b"[1,]", "not JSON"),
        (b"01", "not JSON"),
        (b"+1", "not JSON"),
        (b"9" * 5000, "digits"),
    ],
)
def test_a_text_with_more_than_one_reading_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode_json(text, format="test")


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert decode_json(b'"\\ud83d\\ude00"', format="test") == "😀"


def test_the_offset_counts_octets_not_characters() -> None:
    with pytest.raises(DecodeError) as refusal:
        decode_json('["éé", x]'.encode(), format="test")
    assert refusal.value.offset == 9


SMALL = Limits(max_bytes=40, max_items=8, max_depth=3)


@pytest.mark.parametrize(
    "text", [b"[[[1]]]", b'{"a":{"b":{"c":1}}}', b'["[[[[", "{{{{"]', b"[[],[],[]]"]
)
def test_nesting_up_to_the_limit_is_taken(text: bytes) -> None:
    decode_json(text, format="test", limits=SMALL)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (b"[[[[]]]]", "max_depth"),
        (b'[{"a":[{}]}]', "max_depth"),
        (b'["\\"", [[[]]]]', "max_depth"),
        (b"[[[[", "max_depth"),
        (b"[1,2,3,4,5,6,7,8]", "max_items"),
        (b'"' + b"x" * 40 + b'"', "max_bytes"),
    ],
)
def test_what_crosses_a_limit_is_refused_by_the_limits_name(text: bytes, limit: str) -> None:
    with pytest.raises(LimitExceededError) as refusal:
        decode_json(text, format="test", limits=SMALL)
    assert refusal.value.limit == limit


@pytest.mark.parametrize(
    "text",
    [
        b'"' + b'\\"' * 32_000,
        b'{"' + b'\\"' * 32_000,
        b"[" * 65_000,
        b"[]" * 32_000,
        b"{" + b",".join(b'"%d":0' % n for n in range(6000)) + b',"5999":0}',
    ],
    ids=["escaped quotes", "unterminated name", "openers", "siblings", "late repetition"],
)
def test_hostile_texts_cost_no_more_than_their_length(text: bytes) -> None:
    start = time.process_time()
    with pytest.raises(DecodeError):
        decode_json(text, format="test")
    assert time.process_time() - start < 1.0  # quadratic scanning takes many seconds


def test_an_outermost_array_is_not_an_object() -> None:
    with pytest.raises(DecodeError, match="not an object"):
        decode_json_object(b"[]", format="test")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"octets", "\ud800", {"a": object()}])
def test_what_json_cannot_say_is_the_callers_mistake(value: object) -> None:
    with pytest.raises(ApiMisuseError):
        encode_json(value)
