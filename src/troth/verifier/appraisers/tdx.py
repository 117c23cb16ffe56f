# SPDX-License-Identifier: Apache-2.0
"""Appraisal of TDX quotes.

Reference Values are found by MRTD, and may be narrowed to an instance. Values of one reference
triple belong together; of several triples, the nearest one counts.

================= ====== =================================================================
instance-identity 2      Intel certifies the platform's key
                  96     Intel has revoked the platform
executables       2      MRTD and all four RTMRs are as described
                  3      MRTD and RTMR 0 to 2 are: what runs after boot is not known
                  33     otherwise, also without values
configuration     2      attributes, XFAM and the owner's fields are as described, where
                         they are described, and one of them is
                  32     one of them is not; or the platform's settings are not as advised
                  36     the owner's fields are set, or attributes that Troth does not know,
                         and no value speaks about them
                  96     the owner is another one; a service TD is bound; migration is on;
                         SEPT_VE_DISABLE is off
hardware          2-96   the TCB status (`intel_platform`)
runtime-opaque    2      memory is encrypted with a key that only the processor has
                  96     the TD is debugged or profiled: the host can read it; or the TDX
                         module is not Intel's
================= ====== =================================================================

Source: Intel TDX Module Base Architecture Specification, "TD ATTRIBUTES" and "Measurement";
draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from troth.endorsement.matching import Measured
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.intel.verification import VerifiedQuote
from troth.evidence.tdx.evidence import TdxEvidence
from troth.evidence.tdx.report import KNOWN_ATTRIBUTES, UNDER_DEBUG, TdReport
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.described_state import DescribedState, nearest
from troth.verifier.appraisers.intel_platform import appraise_platform
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.finding import Finding

__all__ = ["appraise"]

_MRTD: Final = "mr_td"
_RTMRS: Final = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
_BOOT: Final = (_MRTD, "rtmr0", "rtmr1", "rtmr2")
_MODULE: Final = ("mr_seam",)
_OWNER: Final = ("mr_owner", "mr_owner_config")
_OWNERS_FIELDS: Final = ("mr_config_id", *_OWNER)
_SETTINGS: Final = ("td_attributes", "xfam", *_OWNERS_FIELDS)
_SPECIFICATION: Final = "Intel TDX Module Base Architecture Specification"

_ATTRIBUTES: Final = f'{_SPECIFICATION}, "TD ATTRIBUTES"'

_EVENT_LOG: Final = (
    "Compare the guest's event log (CCEL) with a good node's to see what changed; if it is meant "
    "to be so, provision the new value."
)
_REMEDIES: Final = {
    **dict.fromkeys(_RTMRS, _EVENT_LOG),
    "mr_owner": "The trust domain was launched for somebody else: find out by whom.",
    "mr_owner_config": "The trust domain was launched for somebody else: find out by whom.",
}


def appraise(
    verified: VerifiedEvidence[TdxEvidence], references: References
) -> Sequence[Appraisal]:
    """Appraise the one claims set of a quote."""
    if not isinstance(verified, VerifiedQuote):
        raise TypeError("TDX Evidence that TdxScheme.verify() did not make")
    report = verified.evidence.report
    (claims_set,) = verified.claims_sets
    in_force, lapsed = references.find(
        "tdx", class_id=report.mr_td, instance_id=verified.instance_id
    )
    state = nearest(in_force, _measured(report), registers=_RTMRS)
    label = claims_set.label
    findings: list[Finding] = []
    if not in_force:
        missing = no_reference_values(
            _MRTD,
            claim=_MRTD,
            environment=f"MRTD {report.mr_td.hex()}",
            lapsed=lapsed,
            submod=label,
        )
        findings.append(missing)
    findings += state.findings(submod=label, remedies=_REMEDIES, contraindicated=_OWNER)
    findings += _not_described(state, label) if in_force else ()
    domain = _Domain(report, state, label)
    platform = appraise_platform(
        verified.platform, submod=label, report_contraindicated=domain.contraindicated
    )
    findings += (*domain.findings, *platform.findings)
    return (
        Appraisal(
            claims_set=claims_set,
            vector=TrustworthinessVector(
                instance_identity=platform.instance_identity,
                executables=_executables(state),
                configuration=_worst(domain.configuration, platform.configuration),
                hardware=platform.hardware,
                runtime_opaque=domain.runtime_opaque,
            ),
            findings=tuple(findings),
            matched=tuple(state.matched),
        ),
    )


def _executables(state: DescribedState) -> int:
    if not state.meets(_BOOT) or state.differs((*_RTMRS, *_MODULE)) or state.unreadable():
        return 33
    return 2 if state.meets(_RTMRS) else 3


def _measured(report: TdReport) -> dict[str, Measured]:
    """Return the fields that values may speak about, in any form that suits them."""
    fields: dict[str, Measured] = {}
    for name in (_MRTD, *_RTMRS, *_MODULE, *_SETTINGS, "mr_service_td"):
        octets: bytes = getattr(report, name)
        digests = {"sha-384": octets} if len(octets) == 48 else {}
        fields[name] = Measured(key=name, digests=digests, raw_value=octets or None)
    return fields


def _not_described(state: DescribedState, submod: str) -> list[Finding]:
    """Report the registers that nobody speaks about: what they stand for is not known."""
    missing = [name for name in (*_BOOT, "rtmr3") if not state.describes(name)]
    boot = [name for name in missing if name in _BOOT]
    if not missing:
        return []
    return [
        Finding(
            claim=", ".join(missing),
            expected="Reference Values for MRTD and all four RTMRs",
            actual="none provisioned",
            rule="no Reference Values, no affirmation (RFC 9334 section 8.3)"
            if boot
            else "RTMR 3 is for what runs after boot; without a value that is not known",
            remedy=f"Have the Endorser add {', '.join(missing)} to the reference triple.",
            submod=submod,
            severity="warning" if boot else "note",
        )
    ]


class _Domain:
    """What follows from how the trust domain runs."""

    def __init__(self, report: TdReport, state: DescribedState, submod: str) -> None:
        self.findings: list[Finding] = []
        self.runtime_opaque = 2
        self.configuration: int | None = None
        self._submod = submod
        self._approved = state.meets(("td_attributes",))
        if state.differs(_SETTINGS):
            self.configuration = 96 if state.differs(_OWNER) else 32
        elif any(state.describes(name) for name in _SETTINGS):
            self.configuration = 2
        self._module(report)
        self._owners_fields(report, state)
        self._attributes(report)
        self._service_td(report)

    @property
    def contraindicated(self) -> bool:
        """Whether the report itself shows something that must not be."""
        return any(finding.severity == "contraindicated" for finding in self.findings)

    def _module(self, report: TdReport) -> None:
        for name in ("mr_signer_seam", "seam_attributes"):
            value: bytes = getattr(report, name)
            if any(value):
                self.runtime_opaque = 96
                self._add(
                    claim=name,
                    expected="zero, as in every TDX module of Intel's for production",
                    actual=value.hex(),
                    rule="Intel PCS API v4, tdxModule",
                    remedy="The machine runs another TDX module: ask who runs the machine.",
                )

    def _owners_fields(self, report: TdReport, state: DescribedState) -> None:
        for name in _OWNERS_FIELDS:
            value: bytes = getattr(report, name)
            if any(value) and not state.describes(name):
                self._doubt(36)
                self._add(
                    claim=name,
                    expected="zero, or a Reference Value",
                    actual=value.hex(),
                    rule="the launcher's choice, on which software in the trust domain may act",
                    remedy=f"Provision a value for {name}, or launch without it.",
                    severity="warning",
                )

    def _attributes(self, report: TdReport) -> None:
        attributes, flags = report.attributes, report.flags
        if attributes & UNDER_DEBUG:
            self.runtime_opaque = 96
            how = "debugged" if flags["debug"] else "profiled"
            self._attribute(
                "debug",
                "false",
                f"true ({attributes & UNDER_DEBUG:#04x}): the trust domain can be {how}; the host "
                "can read and change its memory",
                "Launch the trust domain without debugging or profiling.",
            )
        if not flags["sept_ve_disable"]:
            self._doubt(96)
            self._attribute(
                "sept_ve_disable",
                "true",
                "false: the host can surprise the guest with #VE where it expects none",
                "Launch the trust domain with SEPT_VE_DISABLE.",
            )
        if flags["migratable"]:
            self._doubt(96)
            self._attribute(
                "migratable",
                "false",
                "true: the trust domain can be taken to another machine",
                "Launch the trust domain without migration.",
            )
        unknown = attributes & ~(KNOWN_ATTRIBUTES | UNDER_DEBUG)
        if unknown and not self._approved:
            self._doubt(36)
            self._add(
                claim="td_attributes",
                expected="attributes that Troth knows, or a Reference Value",
                actual=f"{unknown:#x} besides",
                rule=_ATTRIBUTES,
                remedy="Provision td_attributes if they are meant to be so.",
                severity="warning",
            )

    def _attribute(self, name: str, expected: str, actual: str, remedy: str) -> None:
        self._add(
            claim=f"td_attribute_flags.{name}",
            expected=expected,
            actual=actual,
            rule=_ATTRIBUTES,
            remedy=remedy,
        )

    def _service_td(self, report: TdReport) -> None:
        if any(report.mr_service_td):
            self._doubt(96)
            self._add(
                claim="mr_service_td",
                expected="zero: no service trust domain",
                actual=f"{report.mr_service_td.hex()}: another trust domain can act on this one",
                rule=f'{_SPECIFICATION}, "Service TDs"',
                remedy="Launch the trust domain without a service (migration) TD.",
            )

    def _doubt(self, value: int) -> None:
        self.configuration = _worst(self.configuration, value)

    def _add(self, *, severity: str = "contraindicated", **parts: str) -> None:
        self.findings.append(Finding(submod=self._submod, severity=severity, **parts))


def _worst(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)
