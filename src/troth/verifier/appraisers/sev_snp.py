# SPDX-License-Identifier: Apache-2.0
"""Appraisal of SEV-SNP reports.

Reference Values are found by the launch measurement, and may be narrowed to a chip or a provider.
Values of one reference triple belong together; of several triples, the nearest one counts.

================= ====== ================================================================
instance-identity 2      AMD certifies the key: of this chip (VCEK) or of a provider (VLEK)
                  97     the values name another chip
executables       3      measurement, and owner's ids and keys where given, are as described;
                         what is loaded after launch is not measured
                  33     otherwise, also without values
configuration     2      the policy, and whatever else is described, are as described, and
                         the report was asked for at VMPL 0 or a described one
                  32     one of them is not
                  36     no value speaks about the policy, or the revocation list is stale
                  96     the policy allows debugging
hardware          2      the TCB version that the key stands for (REPORTED_TCB) is as described
                  32     it is not, it contradicts itself, or no value speaks about it
runtime-opaque    2      memory is encrypted with a key that only the chip has
                  32     a migration agent may take it along, and no value approves that
                  96     the policy allows debugging: the host can read memory
================= ====== ================================================================

Source: AMD SEV-SNP Firmware ABI Specification (56860) revision 1.58 sections 4.3 and 7.3;
draft-deeglaze-amd-sev-snp-corim-profile; draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from troth.endorsement.matching import Mismatch
from troth.endorsement.reference_value import ReferenceValue
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.sev_snp.evidence import SevSnpEvidence
from troth.evidence.sev_snp.report import (
    NO_MIGRATION_AGENT,
    AttestationReport,
    SigningKey,
)
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.appraisers.sev_snp_fields import NOT_COMPARED, compare_field
from troth.verifier.appraisers.software_components import by_state
from troth.verifier.finding import Finding

__all__ = ["appraise"]

_ABI: Final = "AMD 56860"
_MEASUREMENT, _POLICY, _REPORTED_TCB, _VMPL, _CHIP = (
    "measurement",
    "policy",
    "reported_tcb",
    "vmpl",
    "chip_id",
)
_OF_SOFTWARE: Final = frozenset(
    {_MEASUREMENT, "guest_svn", "family_id", "image_id", "id_key_digest", "author_key_digest"}
)
_OF_CONFIGURATION: Final = frozenset({_POLICY, _VMPL, "platform_info", "host_data", ""})


def appraise(
    verified: VerifiedEvidence[SevSnpEvidence], references: References
) -> Sequence[Appraisal]:
    """Appraise the one claims set of a report."""
    report = verified.evidence.report
    (claims_set,) = verified.claims_sets
    described = _described(report, claims_set.claims.get("csp_id"), references)
    if isinstance(described, Finding):
        state = _State(report, ())
        findings = [described]
    else:
        states = [_State(report, values) for values in by_state(described).values()]
        state = min(states, key=lambda each: each.problems)
        findings = list(state.findings())
    platform = _Platform(report, state, str(claims_set.claims.get("revocation", "")))
    findings += platform.findings
    return (
        Appraisal(
            claims_set=claims_set,
            vector=TrustworthinessVector(
                instance_identity=97 if state.differs(_CHIP) else 2,
                executables=3 if state.meets(_OF_SOFTWARE, including=_MEASUREMENT) else 33,
                configuration=platform.configuration,
                hardware=platform.hardware,
                runtime_opaque=platform.runtime_opaque,
            ),
            findings=tuple(findings),
            matched=tuple(state.matched),
        ),
    )


def _described(
    report: AttestationReport, csp_id: object, references: References
) -> list[ReferenceValue] | Finding:
    """Return the values for this guest, or the finding that there are none."""
    instance = report.chip_id if report.chip_known else str(csp_id or "").encode()
    in_force, lapsed = references.find("sev_snp", class_id=report.measurement, instance_id=instance)
    if in_force:
        return in_force
    return no_reference_values(
        _MEASUREMENT,
        claim=_MEASUREMENT,
        environment=f"launch measurement {report.measurement.hex()}",
        lapsed=lapsed,
        submod="sev_snp",
    )


class _State:
    """One description of a guest against its report."""

    def __init__(self, report: AttestationReport, values: Sequence[ReferenceValue]) -> None:
        self.matched: list[str] = []
        self._mismatches: list[tuple[ReferenceValue, Mismatch]] = []
        self._ignored: list[ReferenceValue] = []
        self._described = {value.key for value in values}
        for value in values:
            if value.key in NOT_COMPARED:
                self._ignored.append(value)
                continue
            found = compare_field(value, report)
            self._mismatches += ((value, mismatch) for mismatch in found)
            if not found:
                self.matched.append(value.id)

    @property
    def problems(self) -> int:
        """How many conditions are not met."""
        return len(self._mismatches)

    def describes(self, key: str) -> bool:
        """Say whether a value speaks about this field."""
        return key in self._described

    def differs(self, *keys: str) -> bool:
        """Say whether one of these fields is not as described."""
        return any(value.key in keys for value, _ in self._mismatches)

    def meets(self, keys: frozenset[str], *, including: str) -> bool:
        """Say whether all of these fields that are described are so, and `including` is."""
        return self.describes(including) and not self.differs(*keys)

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each condition that is not met, then the notes."""
        for value, mismatch in self._mismatches:
            yield _differs(value, mismatch)
        if self._ignored:
            yield _finding(
                claim=", ".join(dict.fromkeys(value.key for value in self._ignored)),
                expected="values that hold for more than one report",
                actual=f"not compared ({self._ignored[0].id} and such)",
                rule="they differ from one report or firmware to the next",
                remedy="Leave them out of the CoRIM.",
                severity="note",
            )


class _Platform:
    """What follows from the report itself, and from what the nearest description approves."""

    def __init__(self, report: AttestationReport, state: _State, revocation: str) -> None:
        self.findings: list[Finding] = []
        self._report, self._state = report, state
        self.hardware = (
            2 if state.meets(frozenset({_REPORTED_TCB}), including=_REPORTED_TCB) else 32
        )
        self.configuration = self._configuration()
        self.runtime_opaque = 2
        self._policy()
        self._vmpl()
        self._tcb()
        self._revocation(revocation)
        self._notes()

    def _configuration(self) -> int:
        if self._state.differs(*_OF_CONFIGURATION):
            return 32
        if self._state.describes(_POLICY):
            return 2
        if self._state.matched or self._state.problems:
            self._add(
                claim=_POLICY,
                expected="a Reference Value for the guest policy",
                actual="none provisioned",
                rule="no Reference Values, no affirmation (RFC 9334 section 8.3)",
                remedy="Have the Endorser add the policy (2) to the reference triple.",
            )
        return 36

    def _policy(self) -> None:
        policy = self._report.policy
        approved = self._state.describes(_POLICY) and not self._state.differs(_POLICY)
        if policy.debug_allowed:
            self.runtime_opaque = self.configuration = 96
            self._add(
                claim="policy_debug_allowed",
                expected="false",
                actual="true: the host can read and change the guest's memory",
                rule=f"{_ABI} section 4.3, DEBUG",
                remedy="Launch the guest with a policy whose bit 19 is 0.",
                severity="contraindicated",
            )
        if policy.migrate_ma and not approved:
            self.runtime_opaque = max(self.runtime_opaque, 32)
            agent = self._report.report_id_ma
            bound = "" if agent == NO_MIGRATION_AGENT else f" (bound to {agent.hex()})"
            self._add(
                claim="policy_migrate_ma",
                expected="false, or a policy that a Reference Value approves",
                actual=f"true{bound}: a migration agent can take the guest's memory along",
                rule=f"{_ABI} section 4.3, MIGRATE_MA",
                remedy="Launch the guest with a policy whose bit 18 is 0, or provision the policy.",
            )
        if policy.unknown_bits and not approved:
            self._doubt(36)
            self._add(
                claim=_POLICY,
                expected="the bits that the specification knows",
                actual=f"{policy.value:#x}: {policy.unknown_bits:#x} are not known to Troth",
                rule=f"{_ABI} section 4.3",
                remedy="Provision this policy as a Reference Value if it is meant.",
            )

    def _vmpl(self) -> None:
        if self._report.vmpl == 0 or self._state.describes(_VMPL):
            return
        self._doubt(32)
        self._add(
            claim=_VMPL,
            expected="0, or a level that a Reference Value describes",
            actual=f"{self._report.vmpl}: code of lower privilege may have asked for the report",
            rule=f"{_ABI} section 7.3, VMPL",
            remedy="Ask for the report at VMPL 0; under an SVSM or a paravisor, provision the "
            "level that your system attests at.",
        )

    def _tcb(self) -> None:
        report = self._report
        if not self._state.describes(_REPORTED_TCB):
            self._add(
                claim=_REPORTED_TCB,
                expected="a lowest TCB version, as a Reference Value",
                actual=f"none provisioned; the report says {report.reported_tcb}",
                rule="no Reference Values, no affirmation (RFC 9334 section 8.3)",
                remedy="Have the Endorser add REPORTED_TCB (647) to the reference triple.",
            )
        for name, higher in (
            ("committed_tcb", report.committed_tcb),
            ("current_tcb", report.current_tcb),
        ):
            for part, (lower, reported) in higher.behind(report.reported_tcb).items():
                self.hardware = max(self.hardware, 32)
                self._add(
                    claim=f"{name}_{part}",
                    expected=f"at least {reported}, as reported_tcb_{part}",
                    actual=str(lower),
                    rule=f"{_ABI} section 2.2: what is reported is not above what is committed",
                    remedy="Update the host's firmware and commit it.",
                )

    def _revocation(self, state: str) -> None:
        if state == "current":
            return
        if state == "stale":
            self._doubt(36)
        self._add(
            claim="revocation",
            expected="a revocation list of AMD's that is not due for renewal",
            actual=_REVOCATION.get(state, "no list at hand"),
            rule="RFC 5280 section 6.3.3; AMD 57230 section 4",
            remedy="Fetch AMD's revocation list (KDS path /vcek/v1/PRODUCT/crl) into the collateral.",
            severity="warning" if state == "stale" else "note",
        )

    def _notes(self) -> None:
        report = self._report
        if report.signing_key is SigningKey.VCEK and not report.chip_known:
            self._note(_CHIP, "the chip's id", "masked by the host (MASK_CHIP_ID)", "CHIP_ID")
        if report.version >= 3 and not report.platform_info.alias_check_complete:
            self._note(
                "platform_alias_check_complete",
                "true",
                "false: memory modules that lie about their size were not looked for",
                "PLATFORM_INFO; AMD-SB-3015",
            )

    def _note(self, claim: str, expected: str, actual: str, field: str) -> None:
        self._add(
            claim=claim,
            expected=expected,
            actual=actual,
            rule=f"{_ABI} section 7.3, {field}",
            remedy="A matter of the host's firmware settings; a policy may insist.",
            severity="note",
        )

    def _doubt(self, value: int) -> None:
        if self.configuration == 2:
            self.configuration = value

    def _add(self, *, severity: str = "warning", **parts: str) -> None:
        self.findings.append(_finding(severity=severity, **parts))


def _differs(value: ReferenceValue, mismatch: Mismatch) -> Finding:
    source = f" ({value.source})" if value.source else ""
    part = f"_{mismatch.attribute}" if value.key.endswith("_tcb") else ""
    return _finding(
        claim=f"{value.key or 'flags'}{part}",
        expected=mismatch.expected,
        actual=f"{mismatch.actual}: {mismatch.why}",
        rule=f"Reference Value {value.id}{source}",
        remedy=_REMEDIES.get(
            value.key, "If this is meant to be so, provision its Reference Value."
        ),
        severity="contraindicated" if value.key == _CHIP else "warning",
    )


_REVOCATION: Final = {
    "stale": "its next update has passed: indeterminate",
    "grace": "its next update has passed: taken within the grace of this Verifier",
}
_UPDATE: Final = "Update the host's firmware and microcode, and have its operator report it."
_REMEDIES: Final = {
    _REPORTED_TCB: _UPDATE,
    "committed_tcb": _UPDATE,
    "current_tcb": _UPDATE,
    "launch_tcb": "Restart the guest on updated firmware.",
    _CHIP: "The guest runs on a machine that it is not described for: find out why.",
    _POLICY: "Launch the guest with the described policy, or provision this one.",
}


def _finding(*, severity: str, **parts: str) -> Finding:
    return Finding(submod="sev_snp", severity=severity, **parts)
