# SPDX-License-Identifier: Apache-2.0
"""EAT claim names and media types, and media types in general."""

from __future__ import annotations

import pytest

from troth.errors import DecodeError, LimitExceededError
from troth.formats.eat import (
    CONTENT_FORMATS,
    ClaimKey,
    DebugStatus,
    claim_key,
    claim_name,
    content_format,
    eat_media_type,
    normalise_media_type,
)
from troth.formats.media_type import CONTENT_FORMAT_NUMBERS, MediaType, parse_media_type

TFM = "tag:psacertified.org,2023:psa#tfm"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (6, "iat"),
        (7, "jti"),
        (8, "cnf"),
        (10, "eat_nonce"),
        (256, "ueid"),
        (263, "dbgstat"),
        (265, "eat_profile"),
        (266, "submods"),
        (273, "measurements"),
        (275, "intuse"),
    ],
)
def test_a_claim_has_one_key_and_one_name(key: int, name: str) -> None:
    assert claim_name(key) == name
    assert claim_key(name) == key


def test_every_claim_translates_there_and_back_and_others_do_not() -> None:
    for key in ClaimKey:
        assert claim_key(claim_name(key)) == key
    assert claim_name(9999) == ""
    assert claim_key("cti") is None
    assert claim_key("") is None


def test_debug_states_are_numbered_as_in_the_rfc() -> None:
    assert [int(state) for state in DebugStatus] == [0, 1, 2, 3, 4]
    assert DebugStatus(3) is DebugStatus.DISABLED_PERMANENTLY


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("application/eat+cwt", "application/eat+cwt"),
        (f'application/eat+cwt; eat_profile="{TFM}"', f'application/eat+cwt; eat_profile="{TFM}"'),
        (f'Application/EAT+CWT;Eat_Profile="{TFM}"', f'application/eat+cwt; eat_profile="{TFM}"'),
        (
            'application/eat-cwt; profile="http://arm.com/psa/2.0.0"',
            'application/eat+cwt; eat_profile="http://arm.com/psa/2.0.0"',
        ),
        (
            'application/eat_cwt;profile="PSA_IOT_PROFILE_1"',
            "application/eat+cwt; eat_profile=PSA_IOT_PROFILE_1",
        ),
        ('application/eat-jwt; profile="x:y"', 'application/eat+jwt; eat_profile="x:y"'),
        ('application/eat+cwt; profile="x:y"', 'application/eat+cwt; eat_profile="x:y"'),
        ('application/eat+cwt; eat_profile="2.999.1"', "application/eat+cwt; eat_profile=2.999.1"),
        (
            'application/eat-ucs+cbor; profile="x:y"',
            'application/eat-ucs+cbor; eat_profile="x:y"',
        ),
        (  # not one of RFC 9782's types: its parameter keeps its own name
            'application/eat-collection; profile="http://arm.com/CCA-SSD/1.0.0"',
            'application/eat-collection; profile="http://arm.com/CCA-SSD/1.0.0"',
        ),
        ("application/psa-attestation-token", "application/psa-attestation-token"),
    ],
)
def test_media_types_of_older_drafts_become_the_ones_of_the_rfc(given: str, expected: str) -> None:
    assert normalise_media_type(given) == expected
    assert normalise_media_type(expected) == expected


def test_a_profile_that_is_given_twice_is_refused() -> None:
    with pytest.raises(DecodeError, match="both"):
        normalise_media_type('application/eat+cwt; profile="a:b"; eat_profile="a:b"')


def test_the_media_type_of_a_profile_is_in_the_one_spelling() -> None:
    assert eat_media_type(TFM) == normalise_media_type(f'application/eat-cwt; profile="{TFM}"')
    assert eat_media_type() == "application/eat+cwt"
    assert eat_media_type("2.999", name="application/eat+jwt").endswith("; eat_profile=2.999")


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("a/b", "a/b"),
        (" A/B ", "a/b"),
        ("text/plain;charset=utf-8", "text/plain; charset=utf-8"),
        ("text/plain ; charset=UTF-8 ;", "text/plain; charset=UTF-8"),
        ("a/b;; ;c=d", "a/b; c=d"),
        ('a/b; c="d e"', 'a/b; c="d e"'),
        (r'a/b; c="\"\\"', r'a/b; c="\"\\"'),
        (r'a/b; c="\d"', "a/b; c=d"),
        ('a/b; c=""', 'a/b; c=""'),
        ('a/b; c=";"; d=e', 'a/b; c=";"; d=e'),
        ("application/vnd.veraison.tsm-report+cbor", "application/vnd.veraison.tsm-report+cbor"),
    ],
)
def test_media_types_are_parsed_and_spelled_one_way(given: str, spelled: str) -> None:
    parsed = parse_media_type(given)
    assert str(parsed) == spelled
    assert parse_media_type(spelled) == parsed
    assert hash(parse_media_type(spelled)) == hash(parsed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "/b",
        "a/",
        "a/b/c",
        "a /b",
        "a/b c",
        "a/b\n",
        "a/b\n; c=d",
        "ä/b",
        "*/*",
        "a/b; c",
        "a/b; c=",
        "a/b; =d",
        "a/b; c =d",
        "a/b; c= d",
        "a/b; c=d e",
        'a/b; c="d',
        'a/b; c="d"e',
        'a/b; c="d" e=f',
        'a/b; c="\n"',
        "a/b; c=d; C=e",
        "a/b; c=tag:x",
        "a/b, c/d",
    ],
)
def test_what_is_no_media_type_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="media type"):
        parse_media_type(text)


def test_an_overlong_media_type_is_refused() -> None:
    longest = "a/b; c=" + "d" * 1017
    assert parse_media_type(longest).parameters["c"] == "d" * 1017
    with pytest.raises(LimitExceededError, match="max_media_type_characters"):
        parse_media_type(longest + "d")


def test_content_formats_are_in_the_one_spelling_and_unambiguous() -> None:
    for number, text in CONTENT_FORMATS.items():
        assert str(parse_media_type(text)) == text
        assert content_format(parse_media_type(text)) == number
    assert len(CONTENT_FORMAT_NUMBERS) == len(CONTENT_FORMATS)
    assert content_format(MediaType("application/unheard-of")) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (263, "application/eat+cwt"),
        (268, "application/eat-ucs+json"),
        (10003, f'application/eat+cwt; eat_profile="{TFM}"'),
        (10004, 'application/eat+cwt; eat_profile="tag:psacertified.org,2019:psa#legacy"'),
        (10005, "application/eat+cwt; eat_profile=2.16.840.1.113741.1.16.1"),
    ],
)
def test_the_registered_eat_content_formats_are_known(number: int, text: str) -> None:
    assert CONTENT_FORMATS[number] == text
