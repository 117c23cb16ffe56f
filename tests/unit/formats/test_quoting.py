# SPDX-License-Identifier: Apache-2.0
"""Nothing that a peer sends can flood a log or forge a line of it."""

from __future__ import annotations

import pytest

from troth.errors import DecodeError
from troth.formats import cbor
from troth.formats.cose import Sign1
from troth.formats.quoting import shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), ("a\nb", r"'a\nb'"), (b"\0", r"b'\x00'"), ("x" * 78, repr("x" * 78))],
)
def test_a_short_value_is_shown_whole_on_one_line(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("value", ["x" * 79, "\n" * 10**6, b"\0" * 10**6, [[1] * 100] * 100])
def test_a_long_value_is_cut_at_80_characters(value: object) -> None:
    assert len(shown(value)) == 80
    assert shown(value).endswith("...")


@pytest.mark.parametrize(
    "hostile",
    [
        cbor.encode({"\n" * 9000: 1})[:-1] + b"\x01\x00",
        b"\xa2" + 2 * (cbor.encode("\n" * 9000) + b"\x00"),
        cbor.encode(cbor.Tag(18, [cbor.encode({"\n" * 9000: 1}), {"\n" * 9000: 1}, b"", b""])),
        cbor.encode(cbor.Tag(18, [cbor.encode({2: ["\n" * 9000]}), {}, b"", b""])),
    ],
)
def test_a_message_about_hostile_bytes_stays_short_and_on_one_line(hostile: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        Sign1.decode(hostile, format="COSE_Sign1")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
