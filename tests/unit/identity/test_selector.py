# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import DecodeError
from troth.identity.selector import MAX_SELECTOR_CHARACTERS, Selector


def test_a_value_may_have_colons() -> None:
    assert Selector.decode("k8s:ns:default") == Selector("k8s", "ns:default")
    assert str(Selector("unix", "uid:0")) == "unix:uid:0"


@pytest.mark.parametrize(
    "text", ["", "k8s", ":x", "k8s:", "k 8s:x", "k8s:a\nb", "k8s:a\x00", "é:x", "a/b:c"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        Selector.decode(text)


def test_a_selector_has_a_longest_form() -> None:
    longest = "a:" + "b" * (MAX_SELECTOR_CHARACTERS - 2)
    assert str(Selector.decode(longest)) == longest
    with pytest.raises(DecodeError):
        Selector.decode(longest + "b")


@given(st.text())
def test_a_text_is_a_selector_that_spells_it_or_a_decode_error(text: str) -> None:
    try:
        selector = Selector.decode(text)
    except DecodeError:
        return
    assert str(selector) == text


def test_selectors_are_equal_only_among_themselves() -> None:
    assert Selector("a", "b") != "a:b"
    assert len({Selector("a", "b"), Selector("a", "b"), Selector("a", "B")}) == 2
