# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from uuid import UUID

import pytest

from troth.errors import DecodeError, LimitExceededError
from troth.evidence.sev_snp.certificate_table import (
    ARK,
    ASK,
    MAX_TABLE_ENTRIES,
    VCEK,
    decode_table,
    encode_table,
)

END = bytes(24)
OTHER = UUID(int=7)


def entry(guid: UUID, offset: int, length: int) -> bytes:
    return guid.bytes + offset.to_bytes(4, "little") + length.to_bytes(4, "little")


def test_what_is_encoded_is_decoded_by_name() -> None:
    table = encode_table({VCEK: b"leaf", ASK: b"intermediate", ARK: b"root"})
    assert decode_table(table) == {"VCEK": b"leaf", "ASK": b"intermediate", "ARK": b"root"}


@pytest.mark.parametrize("table", [b"", END, bytes(4096)])
def test_a_table_of_zeros_is_empty(table: bytes) -> None:
    assert decode_table(table) == {}


def test_entries_of_other_kinds_are_left_out() -> None:
    assert decode_table(encode_table({OTHER: b"x", ARK: b"root"})) == {"ARK": b"root"}


def test_the_guid_is_in_the_order_of_rfc_4122() -> None:
    assert encode_table({VCEK: b"x"})[:4] == bytes.fromhex("63da758d")


def test_octets_behind_the_last_certificate_do_not_matter() -> None:
    assert decode_table(encode_table({ARK: b"root"}) + bytes(4000)) == {"ARK": b"root"}


@pytest.mark.parametrize(
    ("offset", "length"), [(48, 2), (49, 1), (0, 50), (0xFFFFFFFF, 0xFFFFFFFF)]
)
def test_an_entry_that_points_outside_is_refused(offset: int, length: int) -> None:
    with pytest.raises(DecodeError, match="not inside the table"):
        decode_table(entry(ARK, offset, length) + END + b"x")


def test_two_entries_of_a_kind_are_refused() -> None:
    with pytest.raises(DecodeError, match="two entries for ARK"):
        decode_table(entry(ARK, 72, 1) + entry(ARK, 72, 1) + END + b"x")


def test_a_header_without_end_is_refused() -> None:
    with pytest.raises(DecodeError, match="does not end"):
        decode_table(entry(ARK, 0, 1))


def test_the_number_of_entries_is_limited() -> None:
    most = entry(OTHER, 0, 0) * MAX_TABLE_ENTRIES
    assert decode_table(most + END) == {}
    with pytest.raises(LimitExceededError, match="MAX_TABLE_ENTRIES"):
        decode_table(most + entry(OTHER, 0, 0) + END)
