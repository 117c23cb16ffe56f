# SPDX-License-Identifier: Apache-2.0
"""Appraisal of TPM quotes: registers, the boot log that explains them, and measured files.

Reference Values of one state (one reference triple) describe a whole boot: final values of
registers, or the events that lead to them, or both. A state is met when all of that is. States are
alternatives, and the nearest one is what findings compare with. Values about files are a list of
what may be on a machine of the class, whatever state they come from.

================= ====== ================================================================
hardware          2      always: a known TPM key signed
instance-identity 2      always: the key is registered, or certified under a known root
executables       2      as 3, and every file that the kernel measured is described
                  3      every register with code in it is as described
                  33     otherwise, also without values
configuration     2      the described registers with configuration are so, PCR 7 among them
                  3      those are, or none is described, and Secure Boot is on
                  32     one of them is not, or Secure Boot is off and not described so
                  96     firmware lets a debugger in, and PCR 7 is not described so
                  none   nothing is known about it
file-system       2      every file in the IMA log is described
                  32     some are not, the log is missing although files are described, or it
                         does not belong to the registers of this boot
                  none   no value is about files
================= ====== ================================================================

Source: TCG PC Client Platform Firmware Profile, revision 1.06, section 3.3.4 (PCR usage); Linux TPM
PCR Registry; draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from troth.endorsement.matching import Measured, Mismatch, compare
from troth.endorsement.reference_value import ReferenceValue
from troth.errors import ApiMisuseError
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.tpm2.evidence import Tpm2Evidence
from troth.evidence.tpm2.measurements import Measurements, VerifiedQuote
from troth.formats.ar4si import TrustworthinessVector
from troth.formats.tpm.pcr_selection import PCRS
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.appraisers.software_components import by_state
from troth.verifier.appraisers.tpm2_events import RegisterEvents, event_register, events_of
from troth.verifier.appraisers.tpm2_files import FILE_KEY, appraise_files
from troth.verifier.finding import Finding

__all__ = ["appraise"]

PCR_DIGEST_KEY: Final = "tpm2.pcr-digest"

_APPROVED, _APPROVED_BOOT, _UNRECOGNISED = 2, 3, 33
_APPROVED_CONFIG, _SAFE_CONFIG, _UNSAFE_CONFIG, _UNSUPPORTABLE_CONFIG = 2, 3, 32, 96
_APPROVED_FILES = 2
_SECURE_BOOT_PCR: Final = 7
_CONFIGURATION: Final = frozenset({1, 3, 5, 6, _SECURE_BOOT_PCR, 12, 14})
"""Registers that hold settings; the others hold code, or what decides which code runs."""

_USES: Final = {
    0: "firmware code",
    1: "firmware configuration",
    2: "code of add-in devices",
    3: "configuration of add-in devices",
    4: "boot loader",
    5: "boot configuration and partition table",
    6: "events of the host's maker",
    7: "Secure Boot policy",
    8: "commands of the boot loader",
    9: "files that the boot loader read",
    10: "files that the kernel measured",
    11: "unified kernel image",
    12: "kernel command line and overrides",
    13: "system extensions",
    14: "keys of the machine's owner",
    15: "identity of the system",
}
_PROVISION: Final = (
    "If this is meant to be so, provision its Reference Value; if not, find out what changed."
)


def appraise(
    verified: VerifiedEvidence[Tpm2Evidence], references: References
) -> Sequence[Appraisal]:
    """Compare registers, events and files with their Reference Values."""
    if not isinstance(verified, VerifiedQuote):
        raise ApiMisuseError("not what Tpm2Scheme.verify() returned")
    (claims_set,) = verified.claims_sets
    in_force, lapsed = references.find(
        "tpm2", class_id=verified.implementation_id, instance_id=verified.instance_id
    )
    boot = _appraise_boot(verified, in_force, lapsed, claims_set.label)
    files = appraise_files(
        verified.measured, [value for value in in_force if value.key == FILE_KEY], claims_set.label
    )
    executables = boot.executables
    if executables == _APPROVED_BOOT and files.file_system == _APPROVED_FILES:
        executables = _APPROVED
    findings = [*boot.findings]
    configuration = _configuration(verified.measured, boot, findings, claims_set.label)
    return (
        Appraisal(
            claims_set=claims_set,
            vector=TrustworthinessVector(
                hardware=2,
                instance_identity=2,
                executables=executables,
                configuration=configuration,
                file_system=files.file_system,
            ),
            findings=(*findings, *files.findings),
            matched=(*boot.matched, *files.matched),
        ),
    )


def _appraise_boot(
    verified: VerifiedQuote,
    in_force: Sequence[ReferenceValue],
    lapsed: Sequence[ReferenceValue],
    label: str,
) -> _Boot:
    states = by_state([value for value in in_force if value.key != FILE_KEY])
    if states:
        found = [_Boot(verified, own, label) for own in states.values()]
        nearest = min(found, key=lambda each: each.problems)
        nearest.report()
        return nearest
    boot = _Boot(verified, (), label)
    boot.findings.append(
        no_reference_values(
            "register",
            claim="pcrs",
            environment=f"the class of attestation key {verified.instance_id.hex()}"
            if not verified.implementation_id
            else f"class {verified.implementation_id.hex()}",
            lapsed=lapsed,
            submod=label,
        )
    )
    return boot


class _Boot:
    """One described boot against the quoted registers.

    Attributes:
        problems: how many conditions are not met.
        matched: ids of the values that are.
        findings: filled by `report()`.
    """

    def __init__(
        self, verified: VerifiedQuote, values: Sequence[ReferenceValue], label: str
    ) -> None:
        self._verified, self._values, self._label = verified, values, label
        self._registers = _known_registers(verified, values)
        self._mismatches: list[tuple[ReferenceValue, Mismatch]] = []
        self._events: list[RegisterEvents] = []
        self._described: set[int] = set()
        self._wrong: set[int] = set()
        self._unreadable = 0
        self.matched: list[str] = []
        self.findings: list[Finding] = []
        self._compare()

    @property
    def problems(self) -> int:
        """Conditions that are not met."""
        return len(self._mismatches) + sum(each.problems for each in self._events)

    @property
    def executables(self) -> int:
        """Value of the claim: every described register with code, and at least one, is right."""
        code = self._described - _CONFIGURATION
        if not code or code & self._wrong or self._unreadable:
            return _UNRECOGNISED
        return _APPROVED_BOOT

    @property
    def is_configuration_wrong(self) -> bool:
        """Whether a described register with configuration is not as described."""
        return bool(self._described & self._wrong & _CONFIGURATION)

    @property
    def has_configuration(self) -> bool:
        """Whether a register with configuration is described."""
        return bool(self._described & _CONFIGURATION)

    @property
    def is_policy_described(self) -> bool:
        """Whether PCR 7 is described, and as described."""
        return _SECURE_BOOT_PCR in self._described - self._wrong

    def _compare(self) -> None:
        for value in self._values:
            if event_register(value.key) is None:
                self._compare_value(value)
        self._events = events_of(self._values, self._verified.measured)
        for each in self._events:
            self._described.add(each.register)
            if each.problems:
                self._wrong.add(each.register)
            else:
                self.matched += [value.id for value in each.expected]

    def _compare_value(self, value: ReferenceValue) -> None:
        quoted = self._verified.evidence.quoted
        measured = Measured(
            key=value.key if value.key in ("", PCR_DIGEST_KEY) else "",
            digests={self._verified.evidence.signature.hash.name: quoted.digest},
            registers=self._registers,
        )
        mismatches = compare(value, measured)
        if value.digests:  # of all quoted registers together
            self._described.update(register for _, register in quoted.selection)
        self._described.update(_numbers(value.registers))
        for mismatch in mismatches:
            self._mismatches.append((value, mismatch))
            register = _register(mismatch)
            if register is not None:
                self._wrong.add(register)
            elif mismatch.attribute == "digests":
                self._wrong.update(register for _, register in quoted.selection)
            else:
                self._unreadable += 1
        if not mismatches:
            self.matched.append(value.id)

    def report(self) -> None:
        """Make a finding of each condition that is not met."""
        explained = {each.register: each for each in self._events}
        for value, mismatch in self._mismatches:
            register = _register(mismatch)
            if register is None:
                self.findings.append(self._other_finding(value, mismatch))
                continue
            self.findings.append(
                self._register_finding(value, mismatch, register, explained.get(register))
            )
        for each in self._events:
            self.findings += each.findings(self._label)
        if self._described and not self._described - _CONFIGURATION:
            self.findings.append(self._no_code_finding())

    def _register_finding(
        self,
        value: ReferenceValue,
        mismatch: Mismatch,
        register: int,
        described: RegisterEvents | None,
    ) -> Finding:
        actual = "not quoted" if mismatch.actual == "absent" else mismatch.actual
        remedy = _PROVISION
        if mismatch.actual == "absent":
            remedy = "Have the node quote this register as well."
        else:
            events = described or RegisterEvents(register, (), self._verified.measured)
            why, hint = events.explain(_wanted(value, register, self._verified.measured))
            actual += f": {why}" if why else ""
            remedy = f"{_PROVISION} {hint}".strip()
        use = f" ({_USES[register]})" if register in _USES else ""
        return Finding(
            claim=f"PCR {register}{use}",
            expected=mismatch.expected,
            actual=actual,
            rule=_rule(value),
            remedy=remedy,
            submod=self._label,
            severity="warning",
        )

    def _other_finding(self, value: ReferenceValue, mismatch: Mismatch) -> Finding:
        claim = "pcr-digest" if mismatch.attribute == "digests" else value.key or "pcrs"
        return Finding(
            claim=claim,
            expected=mismatch.expected,
            actual=f"{mismatch.actual}: {mismatch.why}",
            rule=_rule(value),
            remedy=_PROVISION if claim == "pcr-digest" else "Correct the CoRIM.",
            submod=self._label,
            severity="warning",
        )

    def _no_code_finding(self) -> Finding:
        described = ", ".join(map(str, sorted(self._described)))
        return Finding(
            claim="pcrs",
            expected="Reference Values for a register with code, such as PCR 4 or 9",
            actual=f"values for PCR {described} only, which hold configuration",
            rule="no Reference Values, no affirmation (RFC 9334 section 8.3)",
            remedy="Describe the registers that the boot loader and the kernel are measured into.",
            submod=self._label,
            severity="warning",
        )


def _configuration(
    measured: Measurements, boot: _Boot, findings: list[Finding], label: str
) -> int | None:
    """Return the value of the claim, adding what the boot log gives rise to."""
    value: int | None = None
    if boot.is_configuration_wrong:
        value = _UNSAFE_CONFIG
    elif boot.is_policy_described:
        value = _APPROVED_CONFIG
    elif boot.has_configuration or measured.secure_boot:
        value = _SAFE_CONFIG
    if boot.is_policy_described:  # with all that firmware measured there, good or bad
        return value
    if measured.secure_boot is False:
        value = _UNSAFE_CONFIG
        findings.append(
            Finding(
                claim="event-log.secure-boot",
                expected="on, or a Reference Value for PCR 7 that describes it off",
                actual="off",
                rule="firmware measured SecureBoot = 00 into PCR 7",
                remedy="Turn Secure Boot on in the firmware's setup.",
                submod=label,
                severity="warning",
            )
        )
    if measured.is_debugger_allowed:
        value = _UNSUPPORTABLE_CONFIG
        findings.append(
            Finding(
                claim="event-log.debugger-allowed",
                expected="false, or a Reference Value for PCR 7 that describes it",
                actual="true: firmware was started in debug mode",
                rule="firmware measured UEFI Debug Mode into PCR 7",
                remedy="Install production firmware, or turn its debugger off.",
                submod=label,
            )
        )
    return value


def _known_registers(
    verified: VerifiedQuote, values: Sequence[ReferenceValue]
) -> Mapping[int | str, Mapping[str, bytes]]:
    """Return register to digests; from Evidence without values, those that the digest proves."""
    own = verified.measured.values
    if not own:
        own = _proved(verified, values)
    found: dict[int | str, dict[str, bytes]] = {}
    for bank, registers in own.items():
        for register, value in registers.items():
            found.setdefault(register, {})[bank] = value
    # A CoRIM may name a register by a number or by a text.
    return {**found, **{str(register): digests for register, digests in found.items()}}


def _proved(
    verified: VerifiedQuote, values: Sequence[ReferenceValue]
) -> Mapping[str, Mapping[int, bytes]]:
    """Return the described values if they hash to the quoted digest: then they were quoted."""
    described: dict[str, dict[int, bytes]] = {}
    for value in values:
        for name, digests in value.registers.items():
            register = _number(name)
            if register is not None:
                for bank, digest in digests.items():
                    described.setdefault(bank, {})[register] = digest
    evidence = verified.evidence
    joined = evidence.quoted.selection.join(described)
    if joined is None or evidence.signature.hash.digest(joined) != evidence.quoted.digest:
        return {}
    return evidence.quoted.selection.split(joined)


def _wanted(value: ReferenceValue, register: int, measured: Measurements) -> bytes:
    """Return the described value in the bank of the event log, b"" where there is none."""
    if measured.bank is None:
        return b""
    digests = value.registers.get(register) or value.registers.get(str(register)) or {}
    return digests.get(measured.bank.name, b"")


def _register(mismatch: Mismatch) -> int | None:
    kind, _, name = mismatch.attribute.partition(" ")
    return _number(name) if kind == "register" else None


def _numbers(registers: Mapping[int | str, object]) -> set[int]:
    return {number for name in registers if (number := _number(name)) is not None}


def _number(name: int | str) -> int | None:
    if isinstance(name, str):
        if not name.isascii() or not name.isdecimal():
            return None
        name = int(name)
    return name if name in PCRS else None


def _rule(value: ReferenceValue) -> str:
    return f"Reference Value {value.id}" + (f" ({value.source})" if value.source else "")
