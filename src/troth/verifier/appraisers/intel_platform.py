# SPDX-License-Identifier: Apache-2.0
"""What the TCB status of an Intel platform means, for SGX and TDX alike, and why it is what it is.

================================= ======== ============= ==========================================
status                            hardware configuration
================================= ======== ============= ==========================================
UpToDate                          2        -
SWHardeningNeeded                 32       -             software has to mitigate by itself
ConfigurationNeeded               2        32            the machine's settings are not as advised
ConfigurationAndSWHardeningNeeded 32       32
TDRelaunchAdvised                 32       -             updated since the TD was launched
TDRelaunchAdvisedConfiguration…   32       32
OutOfDate                         96       -             known to be vulnerable
OutOfDateConfigurationNeeded      96       32
Revoked                           96       -             and instance-identity 96
below every level, unknown        96       -
================================= ======== ============= ==========================================

Whatever else dcap-qvl holds against a platform is hardware 96.

Source: Intel PCS API version 4, tcbStatus; draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from troth.evidence.intel.tcb import Shortfall, TcbStatus
from troth.evidence.intel.verification import Platform
from troth.verifier.finding import Finding

__all__ = ["PlatformConclusion", "appraise_platform"]

_CONTRAINDICATED, _WARNING = "contraindicated", "warning"
_RULE: Final = "Intel PCS API v4, tcbStatus"


@dataclass(frozen=True, slots=True)
class PlatformConclusion:
    """What the platform contributes to a vector.

    Attributes:
        hardware, configuration, instance_identity: values of the claims; None for no claim.
        findings: the reasons.
    """

    hardware: int
    configuration: int | None
    instance_identity: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Meaning:
    hardware: int
    configuration: int | None
    what: str
    remedy: str

    @property
    def severity(self) -> str:
        return _CONTRAINDICATED if self.hardware >= 96 else _WARNING


_UPDATE: Final = (
    "Update the machine: BIOS and microcode for components of the BIOS, microcode, SEAM loader and "
    "TDX module for those of the OS or VMM; then fetch its certificates anew."
)
_CONFIGURE: Final = "Change the machine's settings as the advisories say (often hyper-threading)."
_HARDEN: Final = (
    "Have the software mitigate as the advisories say, then let a policy set hardware for it."
)
_RELAUNCH: Final = "Launch the trust domain again: the machine has been updated since."

_MEANINGS: Final = {
    TcbStatus.SW_HARDENING_NEEDED: _Meaning(
        32, None, "software has to mitigate some vulnerabilities by itself", _HARDEN
    ),
    TcbStatus.CONFIGURATION_NEEDED: _Meaning(
        2, 32, "the machine's settings leave it vulnerable", _CONFIGURE
    ),
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: _Meaning(
        32,
        32,
        "the machine's settings leave it vulnerable, and software has to mitigate some by itself",
        f"{_CONFIGURE} {_HARDEN}",
    ),
    TcbStatus.TD_RELAUNCH_ADVISED: _Meaning(
        32, None, "the trust domain was launched before the machine was updated", _RELAUNCH
    ),
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: _Meaning(
        32,
        32,
        "the trust domain was launched before the machine was updated, and the machine's settings "
        "leave it vulnerable",
        f"{_RELAUNCH} {_CONFIGURE}",
    ),
    TcbStatus.OUT_OF_DATE: _Meaning(96, None, "known to be vulnerable", _UPDATE),
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: _Meaning(
        96, 32, "known to be vulnerable, and its settings too", f"{_UPDATE} {_CONFIGURE}"
    ),
    TcbStatus.REVOKED: _Meaning(
        96, None, "Intel has revoked it: it is compromised", "Take the machine out of service."
    ),
    TcbStatus.BELOW_EVERY_LEVEL: _Meaning(
        96, None, "older than any level that Intel describes", _UPDATE
    ),
    TcbStatus.UNRECOGNISED: _Meaning(
        96,
        None,
        "a status that Troth does not know",
        "Update Troth, or ask Intel what the status means.",
    ),
}


def appraise_platform(
    platform: Platform, *, submod: str, report_contraindicated: bool
) -> PlatformConclusion:
    """Return what follows from the platform.

    Args:
        platform: as verified.
        submod: label of the claims set.
        report_contraindicated: findings about the report contraindicate it already.
    """
    findings: list[Finding] = []
    meaning = _MEANINGS.get(platform.status)
    hardware, configuration = 2, None
    if meaning is not None:
        hardware, configuration = meaning.hardware, meaning.configuration
        findings += _status_findings(platform, meaning, submod)
    too_old = meaning is not None and meaning.severity == _CONTRAINDICATED
    if not _explained(platform.objection, too_old=too_old, report=report_contraindicated):
        hardware = 96
        findings.append(
            Finding(
                claim="qvl_objection",
                expected="no objection",
                actual=f"{platform.objection!r}, by dcap-qvl",
                rule=f"Intel's rules for quote verification; {_source(platform)}",
                remedy="Ask who runs the machine: its TDX module is none that Intel describes here.",
                submod=submod,
            )
        )
    findings += _collateral_findings(platform, submod)
    revoked = platform.status is TcbStatus.REVOKED
    return PlatformConclusion(
        hardware=hardware,
        configuration=configuration,
        instance_identity=96 if revoked else 2,
        findings=tuple(findings),
    )


_ABOUT_THE_TCB: Final = (
    "No matching TCB level",
    "TCB status is invalid",
    "TDX module ISVSVN",
    "TDX module TCB level check",
    "QE ISVSVN",
)
_ABOUT_THE_REPORT: Final = (
    "Debug mode",
    "TD profiling",
    "TD migration",
    "SERVTD_EXT",
    "SEPT_VE_DISABLE",
    "Reserved bits",
    "Invalid MR service TD",
    "TDX module identity check",
)


def _explained(objection: str, *, too_old: bool, report: bool) -> bool:
    """Say whether other findings say already what the library objects to."""
    if objection.startswith(_ABOUT_THE_TCB):
        return too_old
    return report if objection.startswith(_ABOUT_THE_REPORT) else not objection


def _status_findings(platform: Platform, meaning: _Meaning, submod: str) -> Iterator[Finding]:
    since = f" by the level of {platform.level_date[:10]}" if platform.level_date else ""
    advisories = f"; advisories {', '.join(platform.advisories)}" if platform.advisories else ""
    remedy = _RELAUNCH if platform.relaunch_helps else meaning.remedy
    yield Finding(
        claim="tcb_status",
        expected="UpToDate",
        actual=f"{platform.status.value}{since}: {meaning.what}{advisories}",
        rule=f"{_RULE}; {_source(platform)}",
        remedy=remedy,
        submod=submod,
        severity=meaning.severity,
    )
    for shortfall in platform.shortfalls:
        yield _behind(shortfall, platform, meaning, submod)


def _behind(shortfall: Shortfall, platform: Platform, meaning: _Meaning, submod: str) -> Finding:
    what = f" ({shortfall.description})" if shortfall.description else ""
    return Finding(
        claim=f"{shortfall.component}{what}",
        expected=f"at least {shortfall.needed}, for the {shortfall.level}",
        actual=str(shortfall.actual),
        rule=_source(platform),
        remedy=_remedy(shortfall),
        submod=submod,
        severity=meaning.severity,
    )


def _remedy(shortfall: Shortfall) -> str:
    """Say who has to update what, from Intel's own words about the component."""
    name, words = shortfall.component, shortfall.description
    if name == "pcesvn":
        return "Update the SGX platform software (PCE), and fetch the platform's certificate anew."
    if name == "qe.isvsvn":
        return "Update the quoting enclave (the DCAP packages of the host)."
    if name == "tdxModule.isvsvn" or "TDX Module" in words:
        return "Have the host load a newer TDX module, and launch the trust domain again."
    if "BIOS" in words:
        return "Update the machine's BIOS, which loads this microcode at boot."
    if "SEAMLDR" in words:
        return "Have the host load a newer SEAM loader."
    if "Microcode" in words:
        return "Have the host's operating system load newer microcode."
    return "Update the machine's firmware, and change its settings as Intel's advisories say."


def _collateral_findings(platform: Platform, submod: str) -> Iterator[Finding]:
    if platform.stale:
        yield Finding(
            claim="collateral_stale",
            expected="collateral that has not run out",
            actual=f"{'; '.join(platform.stale)}: taken within the grace of this Verifier",
            rule="Intel PCS API v4, nextUpdate",
            remedy="Fetch the collateral anew; a TCB recovery since then is not known here.",
            submod=submod,
            severity="note",
        )


def _source(platform: Platform) -> str:
    return f"TCB info of FMSPC {platform.fmspc.hex()}, evaluation {platform.evaluation_number}"
