# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from support.tsm import GUEST, FakeReports
from support.vendor_evidence import CHALLENGE, verify_with
from troth.adapters.hardware_detection import DetectedHardware, detect_hardware


def detect(root: Path, **given: FakeReports) -> dict[str, DetectedHardware]:
    found = detect_hardware(root=root, **given)
    assert len(found) == 3
    return {each.scheme: each for each in found if each.scheme}


def device(root: Path, name: str) -> None:
    path = root / "dev" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")


def test_a_machine_with_nothing_says_what_was_looked_for(tmp_path: Path) -> None:
    found = detect_hardware(root=tmp_path)
    assert not any(each.usable or each.scheme or each.attester for each in found)
    assert [Path(each.source).relative_to(tmp_path).parts[0] for each in found] == [
        "sys",
        "dev",
        "dev",
    ]


@pytest.mark.parametrize(
    ("name", "scheme"), [("sev-guest", "sev_snp"), ("tdx_guest", "tdx"), ("tdx-guest", "tdx")]
)
def test_a_guest_device_without_configfs_says_what_is_missing(
    tmp_path: Path, name: str, scheme: str
) -> None:
    device(tmp_path, name)
    found = detect(tmp_path)[scheme]
    assert not found.usable
    assert "mount -t configfs" in found.remedy


def test_a_confidential_vm_gives_its_attester(tmp_path: Path) -> None:
    found = detect(tmp_path, reports=FakeReports())["sev_snp"]
    assert found.usable
    assert found.detail == "provider sev_guest"
    assert found.attester is not None
    evidence = found.attester().attest(CHALLENGE)
    verify_with(evidence, "sev_snp", GUEST.authority.ark)


def test_a_provider_that_is_not_known_is_told(tmp_path: Path) -> None:
    first = detect_hardware(root=tmp_path, reports=FakeReports("other"))[0]
    assert not first.usable
    assert "'other'" in first.detail


def test_an_enclave_and_a_tpm_are_found_by_their_devices(tmp_path: Path) -> None:
    device(tmp_path, "nsm")
    device(tmp_path, "tpm0")
    found = detect(tmp_path)
    assert found["nitro"].usable
    assert found["nitro"].attester is not None
    assert "without the kernel's resource manager" in found["tpm2"].detail
    device(tmp_path, "tpmrm0")
    assert detect(tmp_path)["tpm2"].source == str(tmp_path / "dev/tpmrm0")
    assert detect(tmp_path)["tpm2"].detail == "TPM"
