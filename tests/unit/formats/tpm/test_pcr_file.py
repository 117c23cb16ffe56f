# SPDX-License-Identifier: Apache-2.0
"""Register values in files."""

from __future__ import annotations

import hashlib
import json

import pytest

from support.vectors import vectors
from troth.errors import DecodeError
from troth.formats.tpm.attest import Quoted, decode_attest
from troth.formats.tpm.pcr_file import decode_pcr_file

VALUE = "ab" * 32


def test_json_gives_banks_and_registers() -> None:
    data = json.dumps({"sha256": {"0": VALUE, "23": f"0x{VALUE}"}, "sha1": {"7": "cd" * 20}})
    assert decode_pcr_file(data.encode()) == {
        "sha-256": {0: bytes.fromhex(VALUE), 23: bytes.fromhex(VALUE)},
        "sha-1": {7: b"\xcd" * 20},
    }


def test_the_listing_of_tpm2_pcrread_gives_the_same() -> None:
    listing = (
        f"  sha256:\n    0 : 0x{VALUE.upper()}\n    10: 0x{VALUE}\n  sha1:\n    7 : 0x{'cd' * 20}\n"
    )
    assert decode_pcr_file(listing.encode()) == {
        "sha-256": {0: bytes.fromhex(VALUE), 10: bytes.fromhex(VALUE)},
        "sha-1": {7: b"\xcd" * 20},
    }


def test_the_file_of_tpm2_quote_holds_what_its_quote_is_over() -> None:
    base = vectors("keylime")
    values = decode_pcr_file((base / "quotepcr.out").read_bytes())
    assert sorted(values["sha-256"]) == [15, 16, 22]
    attested = decode_attest((base / "quote.out").read_bytes()).attested
    assert isinstance(attested, Quoted)
    joined = attested.selection.join(values)
    assert joined is not None
    assert hashlib.sha256(joined).digest() == attested.digest


def test_every_cut_of_that_file_is_refused() -> None:
    data = (vectors("keylime") / "quotepcr.out").read_bytes()
    for size in range(4, len(data), 7):
        with pytest.raises(DecodeError):
            decode_pcr_file(data[:size])
    with pytest.raises(DecodeError, match="follow the end"):
        decode_pcr_file(data + b"\0")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"md5": {"0": ""}}', "bank 'md5' is not known"),
        ('{"sha256": []}', "is not an object"),
        ('{"sha256": {"0": 1}}', "is not a text"),
        ('{"sha256": {"24": "' + VALUE + '"}}', "register '24'; there are 0 to 23"),
        ('{"sha256": {"-1": "' + VALUE + '"}}', "register '-1'"),
        ('{"sha256": {"0": "' + VALUE[2:] + '"}}', "expected 32 octets"),
        ('{"sha256": {"0": "' + "zz" * 32 + '"}}', "expected 32 octets"),
        ('{"sha256": {"0": "' + VALUE + '", "00": "' + VALUE + '"}}', "stands there twice"),
        (f"0 : 0x{VALUE}", "line 1: neither JSON"),
        (f"    0 : 0x{VALUE}", "line 1: a value before its bank"),
        ("sha256:\n  what\n", "line 2: neither JSON"),
    ],
)
def test_what_is_no_register_value_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_pcr_file(text.encode())


def test_a_file_far_too_long_is_refused() -> None:
    with pytest.raises(DecodeError, match="at most"):
        decode_pcr_file(b" " * 65_537)
