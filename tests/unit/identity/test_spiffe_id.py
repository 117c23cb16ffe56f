# SPDX-License-Identifier: Apache-2.0
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import DecodeError
from troth.identity.spiffe_id import SpiffeId, TrustDomain

DOMAIN_CHARACTERS = set(string.ascii_lowercase + string.digits + ".-_")
PATH_CHARACTERS = set(string.ascii_letters + string.digits + ".-_")


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://example.org",
        "spiffe://example.org/web",
        "spiffe://example.org/ns/prod/sa/Default_1",
        "spiffe://1.2.3.4/a",
        "spiffe://a_b-c.d/...",
        "spiffe://-/..a/a../.a./-",
        "spiffe://.../x",
        "spiffe://example.org/9eebccd2-12bf-40a6-b262-65fe0487d453",
    ],
)
def test_a_valid_id_is_spelt_as_it_was_read(text: str) -> None:
    assert str(SpiffeId.decode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///path",
        "SPIFFE://example.org/web",
        "Spiffe://example.org/web",
        "spiffe:example.org/web",
        "https://example.org/web",
        "spiffes://example.org/web",
        " spiffe://example.org/web",
        "spiffe://Example.org/web",
        "spiffe://example.org:443/web",
        "spiffe://user@example.org/web",
        "spiffe://[::1]/web",
        "spiffe://ex%61mple.org/web",
        "spiffe://example.org/",
        "spiffe://example.org//",
        "spiffe://example.org//web",
        "spiffe://example.org/web/",
        "spiffe://example.org/a//b",
        "spiffe://example.org/.",
        "spiffe://example.org/..",
        "spiffe://example.org/a/./b",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/w%65b",
        "spiffe://example.org/web?x",
        "spiffe://example.org/web#x",
        "spiffe://example.org?x",
        "spiffe://example.org#x",
        "spiffe://example.org\n",
        "spiffe://example.org/web\n",
        "spiffe://example.org/web\r\n",
        "spiffe://example.org/web\x00",
        "spiffe://example.org\\web",
        "spiffe://exämple.org/web",
        "spiffe://example.org/wéb",
        "spiffe://example.org/٣",
        "spiffe://example.org/\u212a",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        SpiffeId.decode(text)


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_in_a_trust_domain_is_taken_or_refused_by_the_letter(octet: int) -> None:
    character = chr(octet)
    for name in (character, f"a{character}", f"{character}a", f"a{character}a"):
        if character in DOMAIN_CHARACTERS:
            assert str(TrustDomain(name)) == name
            assert SpiffeId.decode(f"spiffe://{name}/x").trust_domain == TrustDomain(name)
        else:
            with pytest.raises(DecodeError):
                TrustDomain(name)


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_in_a_path_is_taken_or_refused_by_the_letter(octet: int) -> None:
    character = chr(octet)
    for path in (f"/a{character}", f"/{character}a", f"/a{character}a", f"/b/a{character}/c"):
        if character in PATH_CHARACTERS or (character == "/" and path == "/a/a"):
            assert SpiffeId(TrustDomain("t"), path).path == path
        else:
            with pytest.raises(DecodeError):
                SpiffeId(TrustDomain("t"), path)


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_after_a_whole_id_is_part_of_it_or_refused(octet: int) -> None:
    text = f"spiffe://example.org/web{chr(octet)}"
    if chr(octet) in PATH_CHARACTERS:
        assert SpiffeId.decode(text).path == f"/web{chr(octet)}"
    else:
        with pytest.raises(DecodeError):
            SpiffeId.decode(text)


@given(st.text())
def test_a_text_is_an_id_that_spells_it_or_a_decode_error(rest: str) -> None:
    text = f"spiffe://{rest}"
    try:
        spiffe_id = SpiffeId.decode(text)
    except DecodeError:
        return
    assert str(spiffe_id) == text
    assert text.isascii()


def test_lengths_are_taken_up_to_the_limit_and_not_beyond() -> None:
    longest_name = "a" * 255
    assert TrustDomain(longest_name)
    with pytest.raises(DecodeError, match="255"):
        TrustDomain(longest_name + "a")
    prefix = "spiffe://example.org/"
    longest = prefix + "a" * (2048 - len(prefix))
    assert len(str(SpiffeId.decode(longest))) == 2048
    with pytest.raises(DecodeError, match="2048"):
        SpiffeId.decode(longest + "a")
    with pytest.raises(DecodeError, match="2048"):
        SpiffeId(TrustDomain("example.org"), "/" + "a" * (2049 - len(prefix)))


def test_ids_are_equal_by_value_and_only_among_themselves() -> None:
    one = SpiffeId.decode("spiffe://example.org/web")
    assert one == SpiffeId(TrustDomain("example.org"), "/web")
    assert hash(one) == hash(SpiffeId.decode("spiffe://example.org/web"))
    assert one != "spiffe://example.org/web"
    assert one != SpiffeId.decode("spiffe://example.org/Web")
    assert one != SpiffeId.decode("spiffe://example.com/web")
    assert TrustDomain("example.org") != "example.org"
    assert TrustDomain("example.org").id != TrustDomain("example.org")


def test_the_text_is_the_json_form() -> None:
    spiffe_id = SpiffeId.decode("spiffe://example.org/web")
    assert SpiffeId.decode(json.loads(json.dumps(str(spiffe_id)))) == spiffe_id


def test_a_trust_domain_has_an_id_without_path() -> None:
    assert str(TrustDomain("example.org").id) == "spiffe://example.org"
    assert SpiffeId.decode("spiffe://example.org") == TrustDomain("example.org").id


def test_the_case_of_a_path_is_kept() -> None:
    assert SpiffeId.decode("spiffe://a/B").path == "/B"


def test_a_refusal_does_not_repeat_a_long_text() -> None:
    with pytest.raises(DecodeError) as refusal:
        SpiffeId.decode("spiffe://" + "A" * 2000)
    assert len(str(refusal.value)) < 400
