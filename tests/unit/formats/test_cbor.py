# SPDX-License-Identifier: Apache-2.0
"""CBOR: what is taken, what is refused and where, and the one encoding that is written."""

from __future__ import annotations

import tracemalloc

import pytest

from support.diag import encode_diag, read_diag
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError
from troth.formats import cbor
from troth.formats.cbor import Tag
from troth.formats.limits import DEFAULT_LIMITS, RIM_LIMITS, Limits

# RFC 8949 appendix A, the examples that lie inside our profile and are in preferred encoding.
EXAMPLES = [
    ("00", 0),
    ("01", 1),
    ("0a", 10),
    ("17", 23),
    ("1818", 24),
    ("1864", 100),
    ("1903e8", 1000),
    ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("3bffffffffffffffff", -18446744073709551616),
    ("20", -1),
    ("3863", -100),
    ("3903e7", -1000),
    ("c249010000000000000000", Tag(2, bytes.fromhex("010000000000000000"))),
    ("f90000", 0.0),
    ("f93c00", 1.0),
    ("fb3ff199999999999a", 1.1),
    ("f97bff", 65504.0),
    ("fa47c35000", 100000.0),
    ("fa7f7fffff", 3.4028234663852886e38),
    ("fb7e37e43c8800759c", 1.0e300),
    ("f90001", 5.960464477539063e-8),
    ("f9c400", -4.0),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("c074323031332d30332d32315432303a30343a30305a", Tag(0, "2013-03-21T20:04:00Z")),
    ("c11a514b67b0", Tag(1, 1363896240)),
    ("d74401020304", Tag(23, b"\1\2\3\4")),
    ("d818456449455446", Tag(24, b"dIETF")),
    ("40", b""),
    ("4401020304", b"\1\2\3\4"),
    ("60", ""),
    ("62225c", '"\\'),
    ("62c3bc", "ü"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {}),
    ("a201020304", {1: 2, 3: 4}),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
]


@pytest.mark.parametrize(("encoded", "value"), EXAMPLES)
def test_the_examples_of_the_rfc_decode_to_their_values(encoded: str, value: object) -> None:
    decoded = cbor.decode(bytes.fromhex(encoded), format="example")
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(("encoded", "value"), EXAMPLES)
def test_the_examples_of_the_rfc_encode_to_their_octets(encoded: str, value: object) -> None:
    assert cbor.encode(value).hex() == encoded


@pytest.mark.parametrize(
    ("encoded", "value"),
    [("1817", 23), ("190000", 0), ("1b0000000000000001", 1), ("580101", b"\1")],
)
def test_longer_forms_than_needed_are_tolerated(encoded: str, value: object) -> None:
    assert cbor.decode(bytes.fromhex(encoded), format="example") == value


REFUSALS = [
    ("", DecodeError, "ends in the middle", 0),
    ("18", DecodeError, "ends in the middle", 1),
    ("1901", DecodeError, "ends in the middle", 2),
    ("1b00000000000000", DecodeError, "ends in the middle", 8),
    ("fb3ff1", DecodeError, "ends in the middle", 3),
    ("8201", DecodeError, "a length of 2 where 1 bytes are left", 0),
    ("820102ff", DecodeError, "1 bytes after", 3),
    ("0000", DecodeError, "1 bytes after", 1),
    ("4401", DecodeError, "a length of 4 where 1 bytes are left", 0),
    ("6261", DecodeError, "a length of 2 where 1 bytes are left", 0),
    ("5bffffffffffffffff00", DecodeError, "a length of 18446744073709551615", 0),
    ("9bffffffffffffffff00", DecodeError, "a length of 18446744073709551615", 0),
    ("bbffffffffffffffff00", DecodeError, "a length of 18446744073709551615", 0),
    ("62c328", DecodeError, "not UTF-8", 1),
    ("63eda080", DecodeError, "not UTF-8", 1),
    ("a201000100", DecodeError, "map key 1 occurs twice", 3),
    ("a20100180100", DecodeError, "map key 1 occurs twice", 3),
    ("a2616100616100", DecodeError, "map key 'a' occurs twice", 4),
    ("a1f500", UnsupportedError, "map key", 1),
    ("a1f600", UnsupportedError, "map key", 1),
    ("a1f93c0000", UnsupportedError, "map key", 1),
    ("a18000", UnsupportedError, "map key", 1),
    ("a1a000", UnsupportedError, "map key", 1),
    ("a1c24101 00", UnsupportedError, "map key", 1),
    ("f7", UnsupportedError, "undefined", 0),
    ("e0", UnsupportedError, "simple value 0", 0),
    ("f3", UnsupportedError, "simple value 19", 0),
    ("f8ff", UnsupportedError, "simple value 255", 0),
    ("f818", DecodeError, "simple value 24 in two bytes", 0),
    ("f814", DecodeError, "simple value 20 in two bytes", 0),
    ("f97e00", UnsupportedError, "not finite", 0),
    ("fa7f800000", UnsupportedError, "not finite", 0),
    ("fbfff0000000000000", UnsupportedError, "not finite", 0),
    ("1c", DecodeError, "reserved additional information 28", 0),
    ("5e", DecodeError, "reserved additional information 30", 0),
    ("fc", DecodeError, "reserved additional information 28", 0),
    ("1f", DecodeError, "reserved additional information 31", 0),
    ("df00", DecodeError, "reserved additional information 31", 0),
    ("ff", DecodeError, "break", 0),
    ("81ff", DecodeError, "break", 1),
    ("9f01ff", UnsupportedError, "indefinite", 0),
    ("bf0102ff", UnsupportedError, "indefinite", 0),
    ("5f4101ff", UnsupportedError, "indefinite", 0),
    ("7f6161ff", UnsupportedError, "indefinite", 0),
]


@pytest.mark.parametrize(("encoded", "error", "says", "offset"), REFUSALS)
def test_what_is_refused_is_named_with_its_place(
    encoded: str, error: type[DecodeError], says: str, offset: int
) -> None:
    with pytest.raises(error, match=says) as caught:
        cbor.decode(bytes.fromhex(encoded), format="PSA token")
    assert type(caught.value) is error
    assert caught.value.offset == offset
    assert str(caught.value).startswith(f"PSA token at byte {offset}: ")


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 256, 258, 55799])
def test_no_tag_is_interpreted_whatever_it_holds(number: int) -> None:
    encoded = encode_diag(f"{number}([h'01', {{1: \"(a+)+$\"}}])")
    assert cbor.decode(encoded, format="x") == Tag(number, [b"\1", {1: "(a+)+$"}])


@pytest.mark.parametrize(
    ("notation", "value"),
    [
        ("[_ 1, [_ ], [2]]", [1, [], [2]]),
        ('{_ 1: {_ }, "a": 2}', {1: {}, "a": 2}),
    ],
)
def test_indefinite_containers_are_taken_where_the_caller_allows_them(
    notation: str, value: object
) -> None:
    decoded = cbor.decode(encode_diag(notation), format="x", allow_indefinite=True)
    assert decoded == value


@pytest.mark.parametrize(
    ("encoded", "value"), [("5f41014202 03ff", b"\1\2\3"), ("5fff", b""), ("7f6161617aff", "az")]
)
def test_indefinite_strings_are_joined_where_the_caller_allows_them(
    encoded: str, value: object
) -> None:
    assert cbor.decode(bytes.fromhex(encoded), format="x", allow_indefinite=True) == value


@pytest.mark.parametrize(
    ("encoded", "says"),
    [
        ("5f6161ff", "chunk"),
        ("5f5f4101ffff", "chunk"),
        ("7f4101ff", "chunk"),
        ("5f00ff", "chunk"),
        ("7f61c361bcff", "not UTF-8"),
        ("9f01", "ends in the middle"),
        ("bf01ff", "break"),
        ("bf0100 0100ff", "occurs twice"),
        ("ff", "break"),
        ("1f", "reserved"),
    ],
)
def test_malformed_indefinite_items_are_refused_even_where_they_are_allowed(
    encoded: str, says: str
) -> None:
    with pytest.raises(DecodeError, match=says):
        cbor.decode(bytes.fromhex(encoded), format="x", allow_indefinite=True)


SMALL = Limits(max_bytes=100, max_items=10, max_depth=3)


@pytest.mark.parametrize(
    ("within", "beyond", "limit"),
    [
        (b"\x58\x62" + bytes(98), b"\x58\x63" + bytes(99), "max_bytes"),
        (b"\x89" + bytes(9), b"\x8a" + bytes(10), "max_items"),
        (b"\xa4" + bytes.fromhex("0000 0100 0200 0300"), b"\xa5" + bytes(10), "max_items"),
        (
            b"\x82\x84" + bytes(4) + b"\x83" + bytes(3),
            b"\x82\x84" + bytes(4) + b"\x84" + bytes(4),
            "max_items",
        ),
        (b"\x81\x81\x81\x00", b"\x81\x81\x81\x81\x00", "max_depth"),
        (b"\xc1\xa1\x00\x81\x00", b"\xc1\xa1\x00\xc1\x81\x00", "max_depth"),
        (b"\x9f" + bytes(9) + b"\xff", b"\x9f" + bytes(10) + b"\xff", "max_items"),
        (b"\x5f" + b"\x40" * 9 + b"\xff", b"\x5f" + b"\x40" * 10 + b"\xff", "max_items"),
        (b"\x9f\x9f\x9f\xff\xff\xff", b"\x9f\x9f\x9f\x9f\xff\xff\xff\xff", "max_depth"),
    ],
)
def test_each_limit_admits_its_value_and_refuses_one_more(
    within: bytes, beyond: bytes, limit: str
) -> None:
    cbor.decode(within, format="x", limits=SMALL, allow_indefinite=True)
    with pytest.raises(LimitExceededError, match=limit) as caught:
        cbor.decode(beyond, format="x", limits=SMALL, allow_indefinite=True)
    assert (caught.value.limit, caught.value.value) == (limit, getattr(SMALL, limit))


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, RIM_LIMITS])
@pytest.mark.parametrize(
    "member", [b"\x80", b"\xa0", b"\xc0\x00", b"\xf9\x3c\x01", b"\x61a", b"\x1b" + bytes(8)]
)
def test_the_costliest_input_within_the_limits_takes_less_than_20_mb(
    limits: Limits, member: bytes
) -> None:
    count = min(limits.max_items - 1, (limits.max_bytes - 5) // len(member))
    count = count // 2 if member[0] == 0xC0 else count
    hostile = b"\x9a" + count.to_bytes(4) + member * count
    tracemalloc.start()
    cbor.decode(hostile, format="x", limits=limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_declared_length_takes_no_memory_before_its_members_are_there() -> None:
    hostile = b"\x9b\x00\x00\x00\x00\x00\x00\xff\xff" + b"\x00" * 60_000
    tracemalloc.start()
    with pytest.raises(DecodeError):
        cbor.decode(hostile, format="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_limits_that_would_exhaust_the_stack_cannot_be_asked_for() -> None:
    Limits(max_bytes=1, max_items=1, max_depth=64)
    with pytest.raises(ApiMisuseError, match="max_depth"):
        Limits(max_bytes=1, max_items=1, max_depth=65)
    with pytest.raises(ApiMisuseError, match="at least 1"):
        Limits(max_bytes=1, max_items=0, max_depth=1)


def test_the_deepest_nesting_that_can_be_asked_for_decodes_and_encodes() -> None:
    deepest = Limits(max_bytes=1000, max_items=1000, max_depth=64)
    encoded = b"\x81" * 64 + b"\x00"
    assert cbor.encode(cbor.decode(encoded, format="x", limits=deepest)) == encoded


def test_map_keys_are_written_in_bytewise_order_of_their_encoding() -> None:
    # RFC 8949 section 4.2.1 lists this very order; RFC 7049's would put -1 before 100.
    value = {"aa": 0, b"": 0, -1: 0, 100: 0, "z": 0, 10: 0}
    assert cbor.encode(value) == encode_diag('{10: 0, 100: 0, -1: 0, h\'\': 0, "z": 0, "aa": 0}')


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**64) - 1,
        float("nan"),
        float("inf"),
        object(),
        {True: 0},
        {None: 0},
        {1.0: 0},
        {(1,): 0},
        {1, 2},
        "\ud800",
        Tag(-1, 0),
        Tag(2**64, 0),
        [bytearray(b"x")],
    ],
)
def test_what_cannot_be_decoded_again_cannot_be_encoded(value: object) -> None:
    with pytest.raises(ApiMisuseError, match="CBOR"):
        cbor.encode(value)


def test_a_value_inside_itself_cannot_be_encoded() -> None:
    value: list[object] = []
    value.append({1: value})
    with pytest.raises(ApiMisuseError, match="inside itself"):
        cbor.encode(value)


@pytest.mark.parametrize(
    ("deterministic", "other", "offset"),
    [
        ("17", "1817", 0),
        ("190100", "1a00000100", 0),
        ("a201000200", "a202000100", 1),
        ("f93c00", "fa3f800000", 0),
        ("4101", "580101", 0),
        ("820001", "98020001", 0),
    ],
)
def test_deterministic_input_is_told_from_another_encoding_of_the_same(
    deterministic: str, other: str, offset: int
) -> None:
    good, bad = bytes.fromhex(deterministic), bytes.fromhex(other)
    value = cbor.decode_deterministic(good, format="CoRIM")
    assert value == cbor.decode(bad, format="CoRIM")
    assert cbor.is_deterministic(good)
    assert not cbor.is_deterministic(bad)
    with pytest.raises(DecodeError, match="deterministic") as caught:
        cbor.decode_deterministic(bad, format="CoRIM")
    assert caught.value.offset == offset


def test_garbage_is_not_deterministic() -> None:
    assert not cbor.is_deterministic(b"\xff")


def test_diagnostic_notation_reads_what_the_vectors_use() -> None:
    text = """
    18([ # a tag
      / protected / h'A1 01
         26', {}, << {1: -7, "x": [true, false, null]} >>,
      'raw', b64'AQI', -1.5, 1(0x10), simple(99) / refused by the decoder /
    ])
    """
    with pytest.raises(UnsupportedError, match="simple value 99"):
        read_diag(text)
    value = read_diag(text.replace("simple(99)", '"\\u00fc"'))
    embedded = bytes.fromhex("a2 01 26 61 78 83 f5 f4 f6")
    members = [b"\xa1\x01\x26", {}, embedded, b"raw", b"\1\2", -1.5, Tag(1, 16), "ü"]
    assert value == Tag(18, members)
