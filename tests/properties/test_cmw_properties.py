# SPDX-License-Identifier: Apache-2.0
"""CMW: every wrapper that can be made survives every way of writing it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from troth.formats import cmw
from troth.formats.cmw import CmwCollection, CmwRecord, Indicator

NAMES = st.sampled_from(["application/eat+cwt", 'x/y; p="a b"', "application/vnd.a+cbor"])
VALUES = st.binary(min_size=1, max_size=200)
INDICATORS = st.integers(0, 31).map(Indicator)
TAGS = st.builds(CmwRecord, st.integers(0, 65024), VALUES, tagged=st.just(value=True))
NAMED = st.builds(CmwRecord, NAMES, VALUES, INDICATORS)
NUMBERED = st.builds(CmwRecord, st.integers(0, 65535), VALUES, INDICATORS)
TYPES = st.sampled_from(["", "tag:example.com,2024:x", "https://example.com/a?b=c", "1.2.840"])
WORDS = st.text(max_size=12).filter(lambda text: text != "__cmwc_t")


def wrappers(
    records: st.SearchStrategy[cmw.Cmw], labels: st.SearchStrategy[str | int]
) -> st.SearchStrategy[cmw.Cmw]:
    """Return wrappers of three levels at most."""
    once = st.builds(CmwCollection, st.dictionaries(labels, records, min_size=1, max_size=3), TYPES)
    members = st.one_of(records, once)
    twice = st.builds(
        CmwCollection, st.dictionaries(labels, members, min_size=1, max_size=3), TYPES
    )
    return st.one_of(records, once, twice)


CBOR = wrappers(st.one_of(TAGS, NAMED, NUMBERED), st.one_of(WORDS, st.integers(-(2**63), 2**63)))
JSON = wrappers(NAMED, WORDS)


@given(CBOR)
def test_cbor_gives_back_what_was_wrapped(wrapper: cmw.Cmw) -> None:
    assert cmw.decode(cmw.encode_cbor(wrapper)) == wrapper


@given(JSON)
def test_json_gives_back_what_was_wrapped(wrapper: cmw.Cmw) -> None:
    assert cmw.decode(cmw.encode_json(wrapper)) == wrapper
    assert cmw.decode(cmw.encode_cbor(wrapper)) == wrapper


@given(JSON)
def test_the_x509_extension_gives_back_what_was_wrapped(wrapper: cmw.Cmw) -> None:
    assert cmw.decode_extension(cmw.encode_extension(wrapper)) == wrapper
    assert cmw.decode_extension(cmw.encode_extension(wrapper, json=True)) == wrapper


def test_every_content_format_has_a_tag_of_its_own_without_a_zero_octet() -> None:
    numbers = {cmw._tag_number(content_format) for content_format in range(65025)}
    assert len(numbers) == 65025
    assert (min(numbers), max(numbers)) == (1668546817, 1668612095)
    assert not any(0 in number.to_bytes(4) for number in numbers)
    for content_format in (0, 254, 255, 263, 29884, 64999, 65024):
        assert cmw._content_format(cmw._tag_number(content_format)) == content_format
