# SPDX-License-Identifier: Apache-2.0
"""TPMS_ATTEST: what a TPM signs."""

from __future__ import annotations

import pytest

from support.software_tpm import SHA1, SHA256, SHA384, SoftwareTpm, name_of, sized
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.tpm.attest import Certified, Quoted, decode_attest

CHALLENGE = bytes(range(32))
TPM = SoftwareTpm(banks=(SHA1, SHA256, SHA384), reset_count=5, restart_count=2)


def quote(selection: dict[int, list[int]] | None = None) -> bytes:
    return TPM.quote(CHALLENGE, selection or {SHA256: [0, 4, 9, 23]})


def test_a_quote_says_what_the_tpm_put_into_it() -> None:
    attest = decode_attest(quote())
    assert attest.extra_data == CHALLENGE
    assert attest.raw == quote()
    assert (attest.clock.reset_count, attest.clock.restart_count) == (5, 2)
    assert attest.clock.clock == 123_456
    assert attest.clock.safe
    assert isinstance(attest.attested, Quoted)
    assert attest.attested.selection.to_json() == {"sha-256": [0, 4, 9, 23]}
    assert len(attest.attested.digest) == 32


def test_several_banks_keep_the_order_of_the_wire() -> None:
    attested = decode_attest(quote({SHA384: [7], SHA1: [3, 1]})).attested
    assert isinstance(attested, Quoted)
    assert [(hash_.name, pcr) for hash_, pcr in attested.selection] == [
        ("sha-384", 7),
        ("sha-1", 1),
        ("sha-1", 3),
    ]
    assert attested.selection.octets == 48 + 20 + 20


def test_a_certification_names_the_certified_key() -> None:
    name = name_of(TPM.public)
    attested = decode_attest(TPM.attest(0x8017, b"", sized(name) + sized(b"q" * 34))).attested
    assert attested == Certified(name, b"q" * 34)


def test_octets_that_do_not_start_as_a_tpms_are_refused() -> None:
    with pytest.raises(DecodeError, match="TPM_GENERATED_VALUE"):
        decode_attest(b"\xffTCH" + quote()[4:])


@pytest.mark.parametrize(
    ("kind", "word"), [(0x8014, "NV"), (0x8019, "time"), (0x801A, "creation"), (0x8000, "unknown")]
)
def test_attestations_of_other_things_are_refused_by_name(kind: int, word: str) -> None:
    with pytest.raises(UnsupportedError, match=f"is a {word}"):
        decode_attest(TPM.attest(kind, CHALLENGE, b""))


def test_every_shorter_quote_is_refused() -> None:
    whole = quote()
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_attest(whole[:size])


def test_octets_after_the_end_are_refused() -> None:
    with pytest.raises(DecodeError, match="1 octets follow the end"):
        decode_attest(quote() + b"\0")


def test_a_quote_longer_than_any_tpm_makes_one_is_refused_unread() -> None:
    with pytest.raises(LimitExceededError, match="MAX_ATTEST_BYTES=1024"):
        decode_attest(b"\xffTCG" + bytes(1021))


def selected(*banks: bytes) -> bytes:
    listed = len(banks).to_bytes(4) + b"".join(banks)
    return TPM.attest(0x8018, CHALLENGE, listed + sized(bytes(32)))


@pytest.mark.parametrize(
    ("banks", "reason"),
    [
        ([bytes.fromhex("000b00")], "a PCR bitmap of 0 octets"),
        ([bytes.fromhex("000b05") + bytes(5)], "a PCR bitmap of 5 octets"),
        ([bytes.fromhex("000b0400000001")], "PCR 24 is selected; there are 0 to 23"),
        ([bytes.fromhex("000b03010000")] * 2, "PCR 0 of sha-256 is selected twice"),
        ([bytes.fromhex("000b03000000")] * 17, "17 PCR banks; at most 16"),
    ],
)
def test_an_impossible_selection_is_refused(banks: list[bytes], reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_attest(selected(*banks))


def test_a_bank_whose_hash_nobody_here_computes_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="a PCR bank of SM3"):
        decode_attest(selected(bytes.fromhex("001203010000")))


def test_a_bank_without_registers_is_taken_as_it_is() -> None:
    attested = decode_attest(selected(bytes.fromhex("000b03000000"))).attested
    assert isinstance(attested, Quoted)
    assert attested.selection.octets == 0


def test_a_clock_is_safe_or_not_and_nothing_else() -> None:
    raw = bytearray(quote())
    at = raw.index(CHALLENGE) + 32 + 16
    assert raw[at] == 1
    raw[at] = 2
    with pytest.raises(DecodeError, match="safe is 2"):
        decode_attest(bytes(raw))
