# SPDX-License-Identifier: Apache-2.0
"""The boot log: decoding, replay, and what is read out of it."""

from __future__ import annotations

import hashlib
import struct

import pytest

from support.software_tpm import SHA1, SHA256, SHA384, BootLog, SoftwareTpm, image_load
from support.vectors import vectors
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.tpm.algorithms import HASHES
from troth.formats.tpm.event_log import MAX_EVENTS, decode_event_log, initial_value
from troth.formats.tpm.event_text import (
    describe_event,
    is_debugger_allowed,
    name_event,
    secure_boot,
)

H = HASHES[SHA256]


def booted(**options: object) -> tuple[SoftwareTpm, BootLog]:
    tpm = SoftwareTpm(banks=(SHA1, SHA256, SHA384))
    log = BootLog(banks=(SHA1, SHA256, SHA384), tpm=tpm)
    log.boot(**options)
    return tpm, log


def test_replaying_the_log_gives_the_registers_in_every_bank() -> None:
    tpm, log = booted()
    decoded = decode_event_log(log.data)
    assert decoded.banks == (SHA1, SHA256, SHA384)
    for bank in decoded.banks:
        replayed = decoded.replay(HASHES[bank])
        assert replayed == {pcr: tpm.registers[bank][pcr] for pcr in replayed}
        assert sorted(replayed) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_an_event_left_out_gives_other_registers() -> None:
    tpm, _ = booted()
    other = BootLog(banks=(SHA1, SHA256, SHA384))
    other.boot(kernel=b"another kernel")
    replayed = decode_event_log(other.data).replay(H)
    differing = [pcr for pcr, value in replayed.items() if value != tpm.registers[SHA256][pcr]]
    assert differing == [9]


def test_an_old_log_has_sha_1_digests_only() -> None:
    data = b"".join(
        struct.pack("<II20sI", pcr, 4, hashlib.sha1(bytes(4)).digest(), 4) + bytes(4)  # noqa: S324 - the old form
        for pcr in range(8)
    )
    decoded = decode_event_log(data)
    assert decoded.banks == (SHA1,)
    assert len(decoded.events) == 8
    assert decoded.replay(HASHES[SHA1])[0].hex() == "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236"


def test_a_published_old_log_replays() -> None:
    decoded = decode_event_log((vectors("tpm") / "go-tpm-tools" / "debian-10.bin").read_bytes())
    replayed = decoded.replay(HASHES[decoded.banks[0]])
    assert replayed[0].hex() == "0f2d3a2a1adaa479aeeca8f5df76aadc41b862ea"
    assert replayed[7].hex() == "9e6c57e850f371c2a7fe02bca552149363952318"
    assert secure_boot(decoded, HASHES[SHA1]) is True


def test_remarks_extend_nothing() -> None:
    log = BootLog()
    log.add(0, 3, b"a remark")
    assert decode_event_log(log.data).replay(H) == {}


def test_the_startup_locality_is_what_pcr_0_begins_with() -> None:
    log = BootLog()
    log.add(0, 3, b"StartupLocality\0\x03")
    log.add(0, 8, b"firmware")
    start = bytes(31) + b"\x03"
    expected = hashlib.sha256(start + hashlib.sha256(b"firmware").digest()).digest()
    assert decode_event_log(log.data).replay(H)[0] == expected


def test_a_startup_locality_after_the_first_measurement_counts_for_nothing() -> None:
    log = BootLog()
    log.add(0, 8, b"firmware")
    log.add(0, 3, b"StartupLocality\0\x03")
    assert decode_event_log(log.data).startup_locality == 0


def test_registers_of_a_dynamic_launch_begin_with_ones() -> None:
    assert initial_value(17, H) == b"\xff" * 32
    assert initial_value(16, H) == bytes(32)


def test_every_cut_of_a_log_is_refused_or_is_between_two_events() -> None:
    _, log = booted()
    whole = decode_event_log(log.data)
    between = 0
    for size in range(32, len(log.data)):
        try:
            cut = decode_event_log(log.data[:size])
        except DecodeError:
            continue
        between += 1
        assert cut.events == whole.events[: len(cut.events)]
    assert between == len(whole.events) - 1


def event(pcr: int, digests: bytes, count: int, size: int = 0) -> bytes:
    return struct.pack("<III", pcr, 4, count) + digests + struct.pack("<I", size)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (event(24, b"\x0b\0" + bytes(32), 1), "event 1: PCR 24; there are 0 to 23"),
        (event(0, b"\x0c\0" + bytes(48), 1), "a digest by 0x000c that the header does not know"),
        (event(0, b"\x0b\0" + bytes(32), 2), "2 digests, the header knows 1"),
        (event(0, b"\x0b\0" + bytes(32), 1, 2**32 - 1), "event 1: the log ends inside it"),
        (b"\0", "event 1: the log ends inside it"),
    ],
)
def test_a_broken_event_is_refused_with_its_number(tail: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_event_log(BootLog().data + tail)


def test_a_second_digest_by_one_hash_is_refused() -> None:
    log = BootLog(banks=(SHA256, SHA384))
    twice = event(0, (b"\x0b\0" + bytes(32)) * 2, 2)
    with pytest.raises(DecodeError, match="for the second time"):
        decode_event_log(log.data + twice)


def test_more_events_than_any_boot_has_are_refused() -> None:
    log = BootLog()
    one = event(0, b"\x0b\0" + bytes(32), 1)
    decode_event_log(log.data + one * (MAX_EVENTS - 1))
    with pytest.raises(LimitExceededError, match=f"MAX_EVENTS={MAX_EVENTS}"):
        decode_event_log(log.data + one * MAX_EVENTS)


def test_a_log_longer_than_firmware_keeps_is_refused_unread() -> None:
    with pytest.raises(LimitExceededError, match="MAX_EVENT_LOG_BYTES"):
        decode_event_log(bytes(1_048_577))


def test_another_version_of_the_form_is_refused() -> None:
    data = BootLog().data.replace(b"Event03", b"Event04")
    with pytest.raises(UnsupportedError, match="Spec ID Event04"):
        decode_event_log(data)


def test_a_header_that_lies_about_a_hash_is_refused() -> None:
    data = BootLog().data
    lie = data.replace(struct.pack("<HH", SHA256, 32), struct.pack("<HH", SHA256, 20))
    with pytest.raises(DecodeError, match="hash algorithm 0x000b with digests of 20 octets"):
        decode_event_log(lie)


class TestText:
    def test_events_are_described_by_number_type_and_text(self) -> None:
        _, log = booted(command="linux /vmlinuz root=/dev/sda1 quiet")
        decoded = decode_event_log(log.data)
        described = [describe_event(each, H) for each in decoded.events]
        assert described[1] == "event 1 EV_S_CRTM_VERSION firmware 1.0"
        assert described[2] == "event 2 EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot = 01"
        assert described[3] == "event 3 EV_EFI_VARIABLE_DRIVER_CONFIG PK = 24 octets"
        assert described[4] == "event 4 EV_SEPARATOR"
        assert described[-3] == "event 14 EV_IPL grub_cmd: linux /vmlinuz root=/dev/sda1 quiet"
        assert described[-1] == "event 16 EV_EFI_ACTION Exit Boot Services Invocation"

    def test_text_that_nothing_vouches_for_is_marked(self) -> None:
        _, log = booted()
        decoded = decode_event_log(log.data)
        # The digest is that of the file and of the image, not that of the name in the log.
        mark = " (its digest does not cover this text)"
        assert describe_event(decoded.events[-2], H) == f"event 15 EV_IPL /vmlinuz{mark}"
        assert describe_event(decoded.events[13], H) == (
            f"event 13 EV_EFI_BOOT_SERVICES_APPLICATION \\EFI\\debian\\grubx64.efi{mark}"
        )

    @pytest.mark.parametrize(
        ("kind", "data", "text"),
        [
            (0x06, struct.pack("<II", 0x8F3B22ED, 6) + b"initrd", "tag 0x8f3b22ed: initrd"),
            (0x06, b"short", "short"),
            (0x8000000A, b"\x04BIOS" + bytes(16), "BIOS"),
            (0x8000000A, b"\xff" + bytes(3), "ff000000"),
            (0x04, b"\xff\xff\xff\xff", "ffffffff"),
            (0x0D, "linux.efi\0".encode("utf-16-le"), "linux.efi"),
            (0x0D, b"\x00\x01\x02", "000102"),
            (0x0D, b"a\x1b[31mred", "611b5b33316d726564"),
            (0x0D, b"two\nlines", "two lines"),
            (0x0D, b"x" * 900, "x" * 397 + "..."),
            (0x80000003, image_load("\\a"), "\\a"),
            (0x80000003, bytes(32), "an image that is no file"),
            (0x80000003, b"abc", "abc"),
            (0x80000001, b"not a variable", "not a variable"),
        ],
    )
    def test_data_of_every_kind_becomes_one_printable_line(
        self, kind: int, data: bytes, text: str
    ) -> None:
        log = BootLog()
        log.add(4, kind, data)
        told = name_event(decode_event_log(log.data).events[1])
        assert told.split(" ", 1)[1] == text
        assert told.isprintable()

    def test_an_unknown_type_is_told_by_its_number(self) -> None:
        log = BootLog()
        log.add(4, 0x12345, b"what")
        assert name_event(decode_event_log(log.data).events[1]) == "event type 0x12345 what"


class TestSecureBoot:
    def test_firmware_says_that_it_is_on_or_off(self) -> None:
        for state in (True, False):
            _, log = booted(secure=state)
            assert secure_boot(decode_event_log(log.data), H) is state

    def test_a_log_without_the_variable_says_nothing(self) -> None:
        assert secure_boot(decode_event_log(BootLog().data), H) is None

    def test_data_that_was_not_measured_says_nothing(self) -> None:
        # The digest is that of "off": the text of the log was changed afterwards.
        _, log = booted(secure=False)
        off = "SecureBoot".encode("utf-16-le") + b"\x00"
        forged = log.data.replace(off, off[:-1] + b"\x01")
        assert forged != log.data
        assert secure_boot(decode_event_log(forged), H) is None

    def test_a_variable_after_the_separator_says_nothing(self) -> None:
        log = BootLog()
        log.add(7, 4, bytes(4))
        log.add_variable("SecureBoot", b"\x01")
        assert secure_boot(decode_event_log(log.data), H) is None

    def test_a_variable_of_that_name_of_somebody_else_says_nothing(self) -> None:
        _, log = booted()
        guid = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
        other = BootLog()
        data = guid[::-1] + struct.pack("<QQ", 10, 1) + "SecureBoot".encode("utf-16-le") + b"\x01"
        other.add(7, 0x80000001, data)
        assert secure_boot(decode_event_log(other.data), H) is None
        assert secure_boot(decode_event_log(log.data), H) is True

    def test_a_debugger_is_seen_in_pcr_7(self) -> None:
        _, log = booted()
        assert not is_debugger_allowed(decode_event_log(log.data), H)
        log.add(7, 0x80000007, b"UEFI Debug Mode")
        assert is_debugger_allowed(decode_event_log(log.data), H)
