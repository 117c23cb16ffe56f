# SPDX-License-Identifier: Apache-2.0
"""The IMA log: both encodings, three templates, and the part that a quote vouches for."""

from __future__ import annotations

import hashlib
import struct

import pytest

from support.software_tpm import SHA1, SHA256, FileLog, SoftwareTpm
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.tpm.algorithms import HASHES
from troth.formats.tpm.ima_log import MAX_IMA_ENTRIES, decode_ima_log

H = HASHES[SHA256]


def measured(template: str = "ima-ng") -> tuple[SoftwareTpm, FileLog]:
    tpm = SoftwareTpm(banks=(SHA1, SHA256))
    log = FileLog(tpm=tpm, template=template)
    log.add("boot_aggregate", b"", digest=bytes(20) if template == "ima" else bytes(range(32)))
    log.add("/usr/bin/name with spaces", b"one")
    log.add("/usr/lib/é", b"two", signature=b"\x03\x02signed")
    log.add("/var/log/x", b"three", violation=True, digest=bytes(20 if template == "ima" else 32))
    return tpm, log


@pytest.mark.parametrize("template", ["ima", "ima-ng", "ima-sig"])
@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_replay_gives_the_register_in_every_bank(template: str, encoding: str) -> None:
    tpm, log = measured(template)
    decoded = decode_ima_log(getattr(log, encoding))
    for bank in (SHA1, SHA256):
        attested = decoded.attested(HASHES[bank], tpm.registers[bank][10])
        assert attested is not None
        assert len(attested) == 4


@pytest.mark.parametrize("template", ["ima", "ima-ng", "ima-sig"])
def test_both_encodings_say_the_same(template: str) -> None:
    _, log = measured(template)
    assert decode_ima_log(log.ascii).entries == decode_ima_log(log.binary).entries


def test_an_entry_says_path_digest_signature_and_violation() -> None:
    _, log = measured("ima-sig")
    entries = decode_ima_log(log.ascii).entries
    assert entries[1].path == "/usr/bin/name with spaces"
    assert (entries[1].hash, entries[1].digest) == ("sha-256", hashlib.sha256(b"one").digest())
    assert entries[2].path == "/usr/lib/é"
    assert entries[2].signature == b"\x03\x02signed"
    assert [each.is_violation for each in entries] == [False, False, False, True]


def test_entries_that_came_after_the_quote_are_left_out() -> None:
    tpm, log = measured()
    quoted = tpm.registers[SHA256][10]
    log.add("/opt/later", b"x")
    attested = decode_ima_log(log.ascii).attested(H, quoted)
    assert attested is not None
    assert [each.path for each in attested][-1] == "/var/log/x"


def test_a_log_with_an_entry_left_out_is_vouched_for_by_nothing() -> None:
    tpm, log = measured()
    lines = log.ascii.splitlines(keepends=True)
    for missing in range(len(lines)):
        shorter = b"".join(lines[:missing] + lines[missing + 1 :])
        decoded = decode_ima_log(shorter)
        assert decoded.attested(H, tpm.registers[SHA256][10]) is None


def test_a_changed_path_is_vouched_for_by_nothing() -> None:
    tpm, log = measured()
    forged = decode_ima_log(log.ascii.replace(b"/usr/bin/name", b"/usr/bin/nAme"))
    assert forged.attested(H, tpm.registers[SHA256][10]) is None


def test_a_register_in_which_nothing_was_measured_vouches_for_no_entry() -> None:
    _, log = measured()
    assert decode_ima_log(log.ascii).attested(H, bytes(32)) == ()
    assert decode_ima_log(b"").entries == ()


def test_zero_padded_sha_1_is_recognised_as_what_it_is() -> None:
    _, log = measured()
    decoded = decode_ima_log(log.ascii)
    value = bytes(32)
    for entry in decoded.entries:
        digest = hashlib.sha1(entry.template_data, usedforsecurity=False).digest()
        padded = (b"\xff" * 20 if entry.is_violation else digest).ljust(32, b"\0")
        value = hashlib.sha256(value + padded).digest()
    assert decoded.attested(H, value) is None
    assert decoded.is_padded(H, value)
    assert not decoded.is_padded(H, bytes(32))


LINE = b"10 " + b"ab" * 20 + b" ima-ng sha256:" + b"cd" * 32 + b" /x"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"10 aa", "entry 0: not five fields"),
        (LINE.replace(b"ab" * 20, b"xy" * 20), "template hash .* is not hexadecimal"),
        (LINE.replace(b"cd" * 32, b"cd" * 31), "a sha-256 digest of 31 octets"),
        (LINE.replace(b"sha256:", b""), "does not fit template ima-ng"),
        (LINE.replace(b"ima-ng", b"ima"), "does not fit template ima"),
        (LINE.replace(b"ima-ng", b"ima-sig"), "without a signature field"),
        (LINE.replace(b"10 ", b"1x ", 1), "is no number"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(line: bytes, reason: str) -> None:
    decode_ima_log(LINE)
    with pytest.raises(DecodeError, match=reason):
        decode_ima_log(line)


def test_another_register_and_another_template_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="PCR '11'"):
        decode_ima_log(LINE.replace(b"10 ", b"11 ", 1))
    with pytest.raises(UnsupportedError, match="template 'ima-buf'"):
        decode_ima_log(LINE.replace(b"ima-ng", b"ima-buf"))


@pytest.mark.parametrize("template", ["ima", "ima-ng", "ima-sig"])
def test_every_cut_of_a_binary_log_is_refused_or_is_between_two_entries(template: str) -> None:
    _, log = measured(template)
    between = 0
    for size in range(4, len(log.binary)):
        try:
            decode_ima_log(log.binary[:size])
        except DecodeError:
            continue
        between += 1
    assert between == 3


def test_a_field_longer_than_the_log_is_refused() -> None:
    _, log = measured()
    name = struct.pack("<I", 6) + b"ima-ng"
    with pytest.raises(DecodeError, match="a field of"):
        decode_ima_log(log.binary.replace(name, struct.pack("<I", 2**31) + b"ima-ng", 1))


def test_malformed_template_data_is_refused() -> None:
    _, log = measured()
    with pytest.raises(DecodeError, match="malformed ima-ng template data"):
        decode_ima_log(log.binary.replace(b"sha256:\0", b"sha256;\0", 1))


def test_more_files_than_the_limit_are_refused() -> None:
    line = LINE + b"\n"
    assert len(decode_ima_log(line * MAX_IMA_ENTRIES).entries) == MAX_IMA_ENTRIES
    with pytest.raises(LimitExceededError, match=f"MAX_IMA_ENTRIES={MAX_IMA_ENTRIES}"):
        decode_ima_log(line * (MAX_IMA_ENTRIES + 1))
    with pytest.raises(LimitExceededError, match="MAX_IMA_LOG_BYTES"):
        decode_ima_log(bytes(2_097_153))
