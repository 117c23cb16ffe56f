# SPDX-License-Identifier: Apache-2.0
"""The kernel's interface, played by a fake that behaves as its documentation says."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from support.evidence import anchors_of, simulate, verify
from support.tsm import GUEST, FakeReports
from support.vendor_evidence import CHALLENGE, verify_with
from troth.adapters.tsm_configfs import (
    ConfigfsReports,
    TsmAttester,
    read_report,
)
from troth.errors import ApiMisuseError, UnavailableError, UnsupportedError
from troth.evidence.simulator import CcaOptions
from troth.evidence.tsm_report import TSM_REPORT_CBOR


def test_an_snp_guests_evidence_carries_the_hosts_certificates() -> None:
    reports = FakeReports()
    attester = TsmAttester(reports)
    assert (attester.scheme, attester.media_type) == ("sev_snp", TSM_REPORT_CBOR)
    evidence = attester.attest(CHALLENGE)
    verify_with(evidence, "sev_snp", GUEST.authority.ark, media_type=attester.media_type)
    assert reports.open_entries == 0


def test_a_realms_evidence_is_its_token_alone() -> None:
    platform = simulate(CcaOptions())
    attester = TsmAttester(FakeReports("arm_cca_guest", lambda c: (platform.attest(c), b"")))
    assert attester.scheme == "cca"
    assert attester.media_type.startswith("application/eat+cwt")
    token = attester.attest(CHALLENGE)
    verify(token, "cca", anchors=anchors_of(platform), challenge=CHALLENGE)


def test_it_says_what_it_is_without_making_a_report() -> None:
    def refuse(challenge: bytes) -> tuple[bytes, bytes]:
        raise AssertionError(challenge)

    description = TsmAttester(FakeReports(make=refuse)).describe()
    assert description.scheme == "sev_snp"
    assert description.challenge_size == 64
    assert description.details == {"kernel provider": "sev_guest"}


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_a_challenge_has_64_octets(size: int) -> None:
    with pytest.raises(ApiMisuseError, match="64 octets"):
        TsmAttester(FakeReports()).attest(bytes(size))


def test_a_report_that_another_process_disturbed_is_asked_for_again() -> None:
    reports = FakeReports(disturbances=2)
    found = read_report(reports, CHALLENGE)
    assert found.outblob[0x50:0x90] == CHALLENGE
    assert reports.entries == 3
    assert reports.open_entries == 0


def test_a_process_that_keeps_disturbing_ends_the_attempt() -> None:
    reports = FakeReports(disturbances=99)
    with pytest.raises(UnavailableError, match="another process keeps writing"):
        read_report(reports, CHALLENGE)
    assert reports.open_entries == 0


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENXIO, errno.EOPNOTSUPP])
def test_a_host_without_certificates_is_no_failure(number: int) -> None:
    report = read_report(FakeReports(failing={"auxblob": number}), CHALLENGE)
    assert report.auxblob == b""
    assert report.outblob


def test_a_kernel_without_a_generation_is_taken() -> None:
    assert read_report(FakeReports(failing={"generation": errno.ENOENT}), CHALLENGE).outblob


@pytest.mark.parametrize(
    ("failing", "remedy", "retry"),
    [
        ({"outblob": errno.EIO}, "kernel's log", None),
        ({"write inblob": errno.EINVAL}, "kernel's log", None),
        ({"outblob": errno.EBUSY}, "less often", 2.0),
        ({"write inblob": errno.EACCES}, "as root", None),
        ({"write inblob": errno.ENOENT}, "Mount configfs", None),
        ({"auxblob": errno.EIO}, "kernel's log", None),
    ],
)
def test_what_the_kernel_refuses_is_told_with_a_remedy(
    failing: dict[str, int], remedy: str, retry: float | None
) -> None:
    reports = FakeReports(failing=failing)
    with pytest.raises(UnavailableError, match="a fake of configfs-tsm") as caught:
        read_report(reports, CHALLENGE)
    assert remedy in caught.value.remedy
    assert caught.value.retry_after_seconds == retry
    assert reports.open_entries == 0


def test_a_machine_without_the_interface_is_told_how_to_get_it() -> None:
    with pytest.raises(UnavailableError) as caught:
        TsmAttester(FakeReports(there=False))
    assert "Mount configfs" in caught.value.remedy


def test_an_unknown_provider_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="'other_guest'; known are sev_guest"):
        TsmAttester(FakeReports("other_guest"))


def test_a_provider_that_changes_under_way_is_not_taken_for_the_first_one() -> None:
    reports = FakeReports()
    attester = TsmAttester(reports)
    reports.provider = "tdx_guest"
    with pytest.raises(UnavailableError, match="answered as 'tdx_guest', before as 'sev_guest'"):
        attester.attest(CHALLENGE)


class TestDirectory:
    """The real adapter, on directories that are not configfs but look a little like it."""

    def test_an_entry_is_a_directory_that_is_removed_in_the_end(self, tmp_path: Path) -> None:
        reports = ConfigfsReports(tmp_path)
        assert reports.available()
        with reports.entry():
            (made,) = tmp_path.iterdir()
            assert made.is_dir()
            with reports.entry():
                assert len(list(tmp_path.iterdir())) == 2
        assert list(tmp_path.iterdir()) == []

    def test_an_entry_is_removed_after_a_failure(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError):
            read_report(ConfigfsReports(tmp_path), CHALLENGE)
        assert list(tmp_path.iterdir()) == []

    def test_attributes_are_never_created(self, tmp_path: Path) -> None:
        with ConfigfsReports(tmp_path).entry() as entry:
            for action in (lambda: entry.write("inblob", b"x"), lambda: entry.read("outblob")):
                with pytest.raises(FileNotFoundError):
                    action()

    def test_attributes_are_read_and_written_whole(self, tmp_path: Path) -> None:
        with ConfigfsReports(tmp_path).entry() as entry:
            (made,) = tmp_path.iterdir()
            (made / "inblob").write_bytes(b"")
            (made / "outblob").write_bytes(b"r" * 20_000)
            entry.write("inblob", CHALLENGE)
            assert (made / "inblob").read_bytes() == CHALLENGE
            assert entry.read("outblob") == b"r" * 20_000
            for attribute in ("inblob", "outblob"):
                (made / attribute).unlink()

    def test_an_attribute_without_end_is_not_read_on(self, tmp_path: Path) -> None:
        with ConfigfsReports(tmp_path).entry() as entry:
            (made,) = tmp_path.iterdir()
            (made / "outblob").symlink_to("/dev/zero")
            with pytest.raises(OSError, match="longer than any report"):
                entry.read("outblob")
            (made / "outblob").unlink()

    def test_a_missing_directory_is_not_available(self, tmp_path: Path) -> None:
        assert not ConfigfsReports(tmp_path / "none").available()
