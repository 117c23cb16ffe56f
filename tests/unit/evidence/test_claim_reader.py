# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from troth.errors import DecodeError
from troth.evidence.claim_reader import DIGEST_SIZES, ClaimReader, jsonable
from troth.formats.cbor import Tag


def reader(**claims: object) -> ClaimReader:
    return ClaimReader({int(key[1:]): value for key, value in claims.items()}, format="claims")


def test_claims_of_the_right_type_and_size_come_out_as_they_are() -> None:
    claims = reader(_1=b"x" * 32, _2="text", _3=-7, _4=[1, 2], _5=b"\x01" + b"u" * 32)
    assert claims.octets(1, "a", DIGEST_SIZES) == b"x" * 32
    assert claims.octets(1, "a", None) == b"x" * 32
    assert claims.text(2, "b") == "text"
    assert claims.integer(3, "c") == -7
    assert claims.array(4, "d") == [1, 2]
    assert claims.ueid(5, "e") == b"\x01" + b"u" * 32


@pytest.mark.parametrize("value", [b"octets", "text", 1, True, None, 1.0, [], {}, Tag(1, 2)])
def test_a_claim_of_another_type_is_refused_by_name_and_key(value: object) -> None:
    claims = reader(_9=value)
    wanted = {bytes: "octets", str: "text", int: "integer", list: "array"}
    for kind, method in wanted.items():
        read = getattr(claims, method)
        arguments = (9, "name", None) if method == "octets" else (9, "name")
        if type(value) is kind:
            assert read(*arguments) == value
        else:
            with pytest.raises(DecodeError, match=r"claims: claim 9 \(name\) is .*; expected a"):
                read(*arguments)


def test_a_missing_claim_is_refused_unless_it_may_be_missing() -> None:
    claims = reader()
    for method, empty in (("text", ""), ("ueid", b"")):
        assert getattr(claims, method)(1, "n", required=False) == empty
        with pytest.raises(DecodeError, match=r"claim 1 \(n\) is missing"):
            getattr(claims, method)(1, "n")
    assert claims.octets(1, "n", (32,), required=False) == b""
    for method in ("integer", "array"):
        with pytest.raises(DecodeError, match="is missing"):
            getattr(claims, method)(1, "n")


def test_null_is_not_taken_for_a_missing_claim() -> None:
    with pytest.raises(DecodeError, match="is the value None; expected a text string"):
        reader(_1=None).text(1, "n", required=False)


@pytest.mark.parametrize("size", [0, 31, 33, 47, 49, 63, 65])
def test_octets_of_a_size_beside_the_allowed_ones_are_refused(size: int) -> None:
    with pytest.raises(DecodeError, match=rf"has {size} octets; expected 32 or 48 or 64"):
        reader(_1=bytes(size)).octets(1, "n", DIGEST_SIZES)


@pytest.mark.parametrize("first", [0x00, 0x02, 0x03, 0xFF])
def test_a_ueid_of_another_type_than_rand_is_refused(first: int) -> None:
    with pytest.raises(DecodeError, match=rf"starts with 0x{first:02x}; expected 0x01"):
        reader(_1=bytes([first]) + bytes(32)).ueid(1, "n")


def test_claims_that_nobody_knows_are_kept_for_people() -> None:
    claims = reader(_1=1, _7=b"\xab", _8=[Tag(1, "x")])
    assert claims.others({1}) == {"7": "ab", "8": [{"tag": 1, "value": "x"}]}
    assert claims.others({1, 7, 8}) == {}


def test_whatever_cbor_holds_can_be_shown_as_json() -> None:
    value = {1: b"\xff", b"\x01": {"a": [Tag(4, [1, b""]), None, True, 1.5]}}
    assert json.loads(json.dumps(jsonable(value))) == {
        "1": "ff",
        "01": {"a": [{"tag": 4, "value": [1, ""]}, None, True, 1.5]},
    }


@pytest.mark.parametrize("claims", [None, [], b"", "text", 1])
def test_claims_that_are_no_map_are_refused(claims: object) -> None:
    with pytest.raises(DecodeError, match="not a map"):
        ClaimReader(claims, format="claims")
