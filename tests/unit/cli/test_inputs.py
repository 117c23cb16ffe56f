# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from troth.cli.inputs import (
    HexBytes,
    Rfc3339,
    printable,
    read_input,
    read_keys,
    read_operator_file,
)
from troth.errors import ConfigurationError, LimitExceededError


@pytest.mark.parametrize(("text", "octets"), [("00ff", b"\0\xff"), ("0A", b"\n")])
def test_hexadecimal_is_read(text: str, octets: bytes) -> None:
    assert HexBytes().convert(text, None, None) == octets


@pytest.mark.parametrize("text", ["", "0", "0g", " 00", "00 ", "0x00", "00\n", "\u0660\u0660"])
def test_what_is_not_hexadecimal_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        HexBytes().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-25T12:00:00Z", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("2026-11-25t12:00:00z", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("2026-11-25T13:30:00+01:30", datetime(2026, 11, 25, 12, tzinfo=UTC)),
        ("2026-11-25T12:00:00.123456789Z", datetime(2026, 11, 25, 12, 0, 0, 123456, tzinfo=UTC)),
    ],
)
def test_times_are_read_with_their_zone(text: str, time: datetime) -> None:
    assert Rfc3339().convert(text, None, None) == time


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-25", "2026-11-25T12:00:00", "2026-13-25T12:00:00Z", "20261125T120000Z", "now"],
)
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Rfc3339().convert(text, None, None)


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b"x" * 10)
    assert read_input(str(path), limit=10) == b"x" * 10
    with pytest.raises(LimitExceededError):
        read_input(str(path), limit=9)


@pytest.mark.parametrize("name", ["missing", "."])
def test_an_unreadable_file_is_wrong_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="readable"):
        read_operator_file(str(tmp_path / name))


def test_a_file_without_keys_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    path.write_text("no key")
    with pytest.raises(ConfigurationError, match=r"k\.pem"):
        read_keys(str(path))


def test_printable_text_steers_no_terminal() -> None:
    assert printable("a\x1b[2J\nb\u202eé") == "a\\x1b[2J\\nb\\u202eé"
