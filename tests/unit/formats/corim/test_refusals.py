# SPDX-License-Identifier: Apache-2.0
"""Malformed CoRIMs are refused with the place, one change at a time from a good one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from troth.errors import DecodeError, LimitExceededError
from troth.formats import cbor
from troth.formats.cbor import Tag
from troth.formats.corim import Corim, OpaqueTag
from troth.formats.corim.corim import MAX_TAGS
from troth.formats.corim.node import MAX_ENTRIES
from troth.formats.limits import RIM_LIMITS, Limits

GOOD_COMID: dict[Any, Any] = {
    0: "en",
    1: {0: "tag", 1: 2},
    2: [{0: "ACME", 1: Tag(32, "https://acme.example"), 2: [0]}],
    3: [{0: "other", 1: 0}],
    4: {
        0: [
            [
                {0: {0: Tag(560, b"class"), 1: "ACME", 2: "R", 3: 0, 4: 1}, 1: Tag(550, bytes(33))},
                [
                    {
                        0: "k",
                        1: {
                            0: {0: "1.0", 1: 16384},
                            1: Tag(552, 1),
                            2: [[1, bytes(32)]],
                            3: {3: False},
                            4: Tag(563, [b"ab", b"\xff\xff"]),
                            6: bytes(6),
                            7: bytes(4),
                            8: "serial",
                            9: bytes(7),
                            10: bytes(16),
                            11: "name",
                            13: [Tag(560, b"signer")],
                            14: {0: [[1, bytes(32)]]},
                            15: Tag(564, [1, 2]),
                        },
                        2: [Tag(554, "key")],
                    }
                ],
            ]
        ],
        3: [[{1: Tag(37, bytes(16))}, [Tag(554, "key")]]],
    },
}
GOOD: dict[Any, Any] = {
    0: "id",
    2: [{0: Tag(32, "https://acme.example"), 1: [1, bytes(32)]}],
    3: Tag(32, "tag:acme.example,2026:p"),
    4: {0: Tag(1, 1), 1: Tag(1, 2)},
    5: [{0: "ACME", 2: [1]}],
}


def encode(comid: object, corim: dict[Any, Any] | None = None) -> bytes:
    tags = [Tag(506, cbor.encode(comid))]
    return cbor.encode(Tag(501, {1: tags, **(GOOD if corim is None else corim)}))


def test_the_example_with_every_member_is_good() -> None:
    data = encode(GOOD_COMID)
    assert Corim.decode(data).encode() == data


# (path to change, new value or DELETE, place in the message, reason)
DELETE = object()
TRIPLE = (4, 0, 0)
ENVIRONMENT = (*TRIPLE, 0)
MVAL = (*TRIPLE, 1, 0, 1)
IN_TRIPLE = "comid.triples.reference[0]"
IN_MVAL = f"{IN_TRIPLE}.measurements[0].mval"

CHANGES: list[tuple[tuple[Any, ...], object, str, str]] = [
    ((1,), DELETE, "comid", "tag-identity (key 1) is missing"),
    ((4,), DELETE, "comid", "triples (key 4) is missing"),
    ((4,), {}, "comid.triples", "an empty map"),
    ((4, 0), [], "comid.triples.reference", "an empty array"),
    ((1, 0), b"short", "tag-identity.tag-id", "expected at least 16"),
    ((1, 0), bytes(17), "tag-identity.tag-id", "expected at most 16"),
    ((1, 0), 1, "tag-identity.tag-id", "expected a byte string, found an integer"),
    ((1, 1), -1, "tag-identity.tag-version", "expected an unsigned integer"),
    ((1, 2), 1, "tag-identity", "unknown key 2"),
    ((0,), "", "comid.language", "empty text"),
    ((2, 0, 2), [], "entities[0].role", "an empty array"),
    ((2, 0, 1), "https://acme.example", "entities[0].reg-id", "expected a tagged item"),
    ((3, 0, 1), True, "linked-tags[0].tag-rel", "expected an integer, found true"),
    (TRIPLE, [{}], IN_TRIPLE, "expected [environment, measurements]"),
    (ENVIRONMENT, {}, f"{IN_TRIPLE}.environment", "an empty map"),
    ((*ENVIRONMENT, 3), 1, f"{IN_TRIPLE}.environment", "unknown key 3"),
    ((*ENVIRONMENT, 0), {}, f"{IN_TRIPLE}.environment.class", "an empty map"),
    ((*ENVIRONMENT, 0, 0), b"class", "environment.class.class-id", "expected a tagged item"),
    ((*ENVIRONMENT, 0, 0), Tag(37, b"x"), "environment.class.class-id", "at least 16"),
    ((*ENVIRONMENT, 0, 0), Tag(560, b""), "environment.class.class-id", "at least 1"),
    ((*ENVIRONMENT, 0, 0), Tag(560, "x"), "environment.class.class-id", "found text"),
    ((*ENVIRONMENT, 0, 1), DELETE, "environment.class.model", "a model without a vendor"),
    ((*ENVIRONMENT, 0, 3), -1, "environment.class.layer", "expected an unsigned integer"),
    ((*ENVIRONMENT, 1), Tag(550, bytes(6)), "environment.instance", "expected at least 7"),
    ((*ENVIRONMENT, 1), Tag(550, bytes(34)), "environment.instance", "expected at most 33"),
    ((*TRIPLE, 1), [], f"{IN_TRIPLE}.measurements", "an empty array"),
    ((*TRIPLE, 1, 0, 1), DELETE, "measurements[0]", "mval (key 1) is missing"),
    ((*TRIPLE, 1, 0, 3), 1, "measurements[0]", "unknown key 3"),
    ((*TRIPLE, 1, 0, 0), -1, "measurements[0].mkey", "expected an unsigned integer"),
    ((*TRIPLE, 1, 0, 2), [], "measurements[0].authorized-by", "an empty array"),
    (MVAL, {}, IN_MVAL, "an empty map"),
    ((*MVAL, 0, 0), DELETE, f"{IN_MVAL}.version", "version (key 0) is missing"),
    ((*MVAL, 0, 2), 1, f"{IN_MVAL}.version", "unknown key 2"),
    ((*MVAL, 1), Tag(554, 1), f"{IN_MVAL}.svn", "expected tag 552 or 553"),
    ((*MVAL, 1), -1, f"{IN_MVAL}.svn", "expected an unsigned integer"),
    ((*MVAL, 2), [], f"{IN_MVAL}.digests", "an empty array"),
    ((*MVAL, 2), [1, bytes(32)], f"{IN_MVAL}.digests[0]", "expected an array"),
    ((*MVAL, 2, 0), [1], f"{IN_MVAL}.digests[0]", "expected [algorithm, value]"),
    ((*MVAL, 2, 0, 1), b"", f"{IN_MVAL}.digests[0].value", "expected at least 1"),
    ((*MVAL, 2, 0, 0), 1.5, f"{IN_MVAL}.digests[0].algorithm", "found a float"),
    ((*MVAL, 2), [[1, bytes(32)], [1, bytes(32)]], "digests[1]", "a second digest by sha-256"),
    ((*MVAL, 2), [[1, bytes(32)], ["SHA256", bytes(32)]], "digests[1]", "a second digest by"),
    ((*MVAL, 3), {}, f"{IN_MVAL}.flags", "an empty map"),
    ((*MVAL, 3, 3), 0, f"{IN_MVAL}.flags.is-debug", "expected true or false"),
    ((*MVAL, 4), Tag(563, [b"a"]), f"{IN_MVAL}.raw-value", "expected [value, mask]"),
    ((*MVAL, 4), b"raw", f"{IN_MVAL}.raw-value", "expected a tagged item"),
    ((*MVAL, 5), b"\xff\xff", f"{IN_MVAL}.raw-value-mask", "a second mask"),
    ((*MVAL, 6), bytes(7), f"{IN_MVAL}.mac-addr", "7 octets; expected 6 or 8"),
    ((*MVAL, 7), bytes(5), f"{IN_MVAL}.ip-addr", "5 octets; expected 4 or 16"),
    ((*MVAL, 9), bytes(6), f"{IN_MVAL}.ueid", "6 octets; expected 7 to 33"),
    ((*MVAL, 10), bytes(15), f"{IN_MVAL}.uuid", "15 octets; expected 16"),
    ((*MVAL, 11), 5, f"{IN_MVAL}.name", "expected text"),
    ((*MVAL, 13), [], f"{IN_MVAL}.cryptokeys", "an empty array"),
    ((*MVAL, 13, 0), Tag(557, [1]), f"{IN_MVAL}.cryptokeys[0]", "expected [algorithm, value]"),
    ((*MVAL, 14), {}, f"{IN_MVAL}.integrity-registers", "an empty map"),
    ((*MVAL, 14), {-1: [[1, b"x"]]}, "integrity-registers", "register -1"),
    ((*MVAL, 14, 0), [], "integrity-registers.register 0", "an empty array"),
    ((*MVAL, 15), Tag(564, [2, 1]), f"{IN_MVAL}.int-range", "an empty range"),
    ((*MVAL, 15), Tag(564, ["a", 1]), f"{IN_MVAL}.int-range.min", "expected an integer"),
    ((*MVAL, 15), True, f"{IN_MVAL}.int-range", "found true"),
    ((*MVAL, b"key"), 1, IN_MVAL, "a map key that is a byte string"),
    ((4, 3, 0), [{}], "triples.attest-key[0]", "fewer than 2 members"),
    ((4, 3, 0, 1), [], "triples.attest-key[0].keys", "an empty array"),
    ((4, 3, 0, 1, 0), "key", "triples.attest-key[0].keys[0]", "expected a tagged item"),
]


def changed(path: tuple[Any, ...], value: object, base: object) -> object:
    made = copy.deepcopy(base)
    at: Any = made
    for step in path[:-1]:
        at = at[step]
    if value is DELETE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return made


@pytest.mark.parametrize(("path", "value", "place", "reason"), CHANGES)
def test_one_defect_in_a_comid_is_named_with_its_place(
    path: tuple[Any, ...], value: object, place: str, reason: str
) -> None:
    with pytest.raises(DecodeError) as refusal:
        Corim.decode(encode(changed(path, value, GOOD_COMID)))
    text = str(refusal.value)
    assert text.startswith("CoRIM: tags[0].comid")
    assert f"{place}: " in text
    assert reason in text


@pytest.mark.parametrize(
    ("path", "value", "place", "reason"),
    [
        ((0,), DELETE, "CoRIM", "id (key 0) is missing"),
        ((0,), b"short", "id", "expected at least 16"),
        ((0,), "x" * 513, "id", "more than max_text=512"),
        ((2,), [], "dependent-rims", "an empty array"),
        ((2, 0, 0), "https://acme.example", "dependent-rims[0].href", "expected an array"),
        ((2, 0, 2), 1, "dependent-rims[0]", "unknown key 2"),
        ((3,), "tag:acme.example,2026:p", "profile", "expected a tagged item"),
        ((3,), Tag(33, "x"), "profile", "expected tag 111"),
        ((4,), {0: Tag(1, 1)}, "rim-validity", "not-after (key 1) is missing"),
        ((4, 1), 2, "rim-validity.not-after", "expected a tagged item"),
        ((4, 1), Tag(1, 0), "rim-validity", "is after not-after"),
        ((4, 1), Tag(1, -1), "rim-validity.not-after", "not between the years"),
        ((4, 1), Tag(1, 10**12), "rim-validity.not-after", "not between the years"),
        ((4, 1), Tag(1, "now"), "rim-validity.not-after", "expected seconds"),
        ((5, 0, 0), DELETE, "entities[0]", "entity-name (key 0) is missing"),
    ],
)
def test_one_defect_in_a_corim_is_named_with_its_place(
    path: tuple[Any, ...], value: object, place: str, reason: str
) -> None:
    corim = changed(path, value, GOOD)
    assert isinstance(corim, dict)
    with pytest.raises(DecodeError) as refusal:
        Corim.decode(encode(GOOD_COMID, corim))
    assert f"{place}: " in str(refusal.value)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (b"\xa0", r"tags\[0\]: expected a tagged item"),
        (Tag(506, {}), r"tags\[0\]: expected a byte string"),
        (Tag(506, b"\xa1"), r"CoMID in tags\[0\] at byte 0"),
        (Tag(506, b"\x80"), r"tags\[0\].comid: expected a map"),
    ],
)
def test_a_tag_that_is_no_comid_is_refused(tag: object, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        Corim.decode(cbor.encode(Tag(501, {0: "id", 1: [tag]})))


def test_tags_of_other_kinds_are_kept_as_they_came() -> None:
    tags = [Tag(505, b"swid"), Tag(508, b"cotl"), Tag(507, {1: [2]})]
    data = cbor.encode(Tag(501, {0: "id", 1: tags}))
    found = Corim.decode(data)
    assert found.tags == (
        OpaqueTag(505, b"swid"),
        OpaqueTag(508, b"cotl"),
        OpaqueTag(507, {1: [2]}),
    )
    assert [tag.kind for tag in found.tags if isinstance(tag, OpaqueTag)] == [
        "CoSWID",
        "CoTL",
        "tag 507",
    ]
    assert found.encode() == data


@pytest.mark.parametrize("data", [b"", b"\xd9\x01\xf5", b"\xa0", b"\xd9\x01\xf6\xa0", b"\x01"])
def test_what_is_no_corim_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Corim.decode(data)


class TestLimits:
    def test_too_many_tags(self) -> None:
        tag = Tag(505, b"x")
        Corim.decode(cbor.encode(Tag(501, {0: "id", 1: [tag] * MAX_TAGS})))
        with pytest.raises(LimitExceededError, match="max_entries=256"):
            Corim.decode(cbor.encode(Tag(501, {0: "id", 1: [tag] * (MAX_TAGS + 1)})))

    def test_all_tags_draw_on_one_budget_of_items(self) -> None:
        # Each of them alone is within the limit; together they would cost many times as much.
        environment = {1: Tag(560, b"x")}
        triple = [environment, [{1: {11: "n"}}]]
        comid = cbor.encode({1: {0: "t"}, 4: {0: [triple] * 700}})
        limits = Limits(max_bytes=RIM_LIMITS.max_bytes, max_items=10_000, max_depth=24)

        def corim(count: int) -> bytes:
            return cbor.encode(Tag(501, {0: "id", 1: [Tag(506, comid)] * count}))

        Corim.decode(corim(1), limits=limits)
        with pytest.raises(LimitExceededError, match="max_items"):
            Corim.decode(corim(2), limits=limits)

    def test_too_many_triples(self) -> None:
        triple = [{1: Tag(560, b"x")}, [{1: {11: "n"}}]]
        limits = Limits(max_bytes=2**20, max_items=2**20, max_depth=24)

        def corim(count: int) -> bytes:
            comid = cbor.encode({1: {0: "t"}, 4: {0: [triple] * count}})
            return cbor.encode(Tag(501, {0: "id", 1: [Tag(506, comid)]}))

        Corim.decode(corim(MAX_ENTRIES), limits=limits)
        with pytest.raises(LimitExceededError, match=r"reference.*max_entries=8192"):
            Corim.decode(corim(MAX_ENTRIES + 1), limits=limits)

    def test_too_deep(self) -> None:
        nested: object = 1
        for _ in range(30):
            nested = [nested]
        with pytest.raises(LimitExceededError, match="max_depth"):
            Corim.decode(encode({**GOOD_COMID, -1: nested}))

    def test_too_long_a_text_and_too_long_octets(self) -> None:
        for path, value in (
            ((*MVAL, 11), "x" * 1025),
            ((*ENVIRONMENT, 0, 0), Tag(560, bytes(16_385))),
        ):
            with pytest.raises(LimitExceededError):
                Corim.decode(encode(changed(path, value, GOOD_COMID)))
