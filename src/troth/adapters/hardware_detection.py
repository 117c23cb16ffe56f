# SPDX-License-Identifier: Apache-2.0
"""What this machine can attest with: looked for, not guessed.

`troth attest --explain` shows the list as it is: what was looked for where, what was found, and
what is missing where something is half there. Finding a device does not make Evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from troth.adapters.nsm_device import NSM_DEVICE, NsmAttester, NsmDevice
from troth.adapters.tsm_configfs import (
    PROVIDERS,
    REPORT_DIRECTORY,
    ConfigfsReports,
    TsmAttester,
    TsmReports,
)
from troth.errors import TrothError
from troth.evidence.attester import Attester

__all__ = ["DetectedHardware", "detect_hardware"]

_GUEST_DEVICES: Final = {
    "dev/sev-guest": "sev_snp",
    "dev/tdx_guest": "tdx",
    "dev/tdx-guest": "tdx",
}
_TPM_DEVICES: Final = ("dev/tpmrm0", "dev/tpm0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedHardware:
    """One place that was looked at.

    Attributes:
        source: the device or directory.
        scheme: the scheme's one word, or "" where nothing is there.
        usable: `attester` gives an Attester.
        detail: what was found, or what is missing, in words.
        remedy: what would make it usable, or "".
        attester: makes the Attester; None where it is not usable, or another adapter's business.
    """

    source: str
    scheme: str
    usable: bool
    detail: str
    remedy: str = ""
    attester: Callable[[], Attester] | None = None


def detect_hardware(
    *, root: Path = Path("/"), reports: TsmReports | None = None
) -> Sequence[DetectedHardware]:
    """Look for every kind of hardware that Troth knows, the strongest first.

    Args:
        root: where /dev and /sys are looked for; another one in tests.
        reports: the kernel's configfs-tsm; by default below `root`.
    """
    found = [_confidential_vm(root, reports), _enclave(root)]
    found += [_tpm(root)]
    return found


def _confidential_vm(root: Path, reports: TsmReports | None) -> DetectedHardware:
    reports = reports or ConfigfsReports(root / REPORT_DIRECTORY.relative_to("/"))
    devices = [(path, name) for path, name in _GUEST_DEVICES.items() if (root / path).exists()]
    if not reports.available():
        if not devices:
            return DetectedHardware(
                source=reports.source,
                scheme="",
                usable=False,
                detail=f"no configfs-tsm: not a confidential VM ({', '.join(PROVIDERS.values())}), "
                "or its interface is not mounted",
            )
        path, name = devices[0]
        return DetectedHardware(
            source=str(root / path),
            scheme=name,
            usable=False,
            detail="the guest device is there, configfs-tsm is not",
            remedy="Mount configfs on a kernel of 6.7 or later: mount -t configfs none "
            "/sys/kernel/config",
        )
    try:
        attester = TsmAttester(reports)
    except TrothError as exc:
        return DetectedHardware(
            source=reports.source, scheme="", usable=False, detail=str(exc), remedy=exc.remedy
        )
    return DetectedHardware(
        source=reports.source,
        scheme=attester.scheme,
        usable=True,
        detail=f"provider {attester.describe().details['kernel provider']}",
        attester=lambda: attester,
    )


def _enclave(root: Path) -> DetectedHardware:
    device = root / NSM_DEVICE.relative_to("/")
    if not device.exists():
        return DetectedHardware(
            source=str(device), scheme="", usable=False, detail="not there: no Nitro Enclave"
        )
    return DetectedHardware(
        source=str(device),
        scheme="nitro",
        usable=True,
        detail="Nitro Security Module",
        attester=lambda: NsmAttester(NsmDevice(device)),
    )


def _tpm(root: Path) -> DetectedHardware:
    for path in _TPM_DEVICES:
        device = root / path
        if device.exists():
            return DetectedHardware(
                source=str(device),
                scheme="tpm2",
                usable=True,
                detail="TPM"
                + ("" if path.endswith("rm0") else " without the kernel's resource manager"),
            )
    return DetectedHardware(
        source=str(root / _TPM_DEVICES[0]), scheme="", usable=False, detail="not there: no TPM"
    )
