# SPDX-License-Identifier: Apache-2.0
"""Appraisal of Arm CCA tokens: the platform, and the realm on it.

Platform: as PSA (`appraisers.psa`), and

================= ====== ===============================================================
configuration     2      the platform configuration is that of the same reference state
                  32     it is another one
                  36     no Reference Value speaks about it
================= ====== ===============================================================

Realm, whose Reference Values are found by its initial measurement (RIM):

================= ====== ===============================================================
instance-identity 2      always: the platform vouches for the realm's key
executables       2      RIM, all four REMs and, where given, the RPV are as described
                  3      RIM and RPV are; the values do not speak about every REM, so
                         what was loaded after boot is not known
                  33     the RIM is not described, or a described REM differs
                  96     the RPV is not the described one: it is somebody else's realm
================= ====== ===============================================================

Veraison gives 3 where a described REM differs. A difference from what was described is not
approval, so we give 33.

Source: draft-ffm-rats-cca-token section 7; Arm RMM Specification (DEN0137) section A7.2.3;
draft-ydb-rats-cca-endorsements-04; draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from troth.endorsement.matching import Measured, Mismatch, compare
from troth.endorsement.reference_value import ReferenceValue
from troth.evidence.cca.evidence import CcaEvidence
from troth.evidence.cca.realm_claims import RealmClaims
from troth.evidence.evidence import ClaimsSet, VerifiedEvidence
from troth.evidence.lifecycle import Lifecycle
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.lifecycle import (
    GENUINE_AND_SECURED,
    NOT_SECURED,
    lifecycle_finding,
)
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.appraisers.software_components import (
    APPROVED,
    UNRECOGNISED,
    StateComparison,
    by_state,
    compare_components,
    component_findings,
    measured_components,
    nearest_state,
)
from troth.verifier.finding import Finding

__all__ = ["appraise"]

COMPONENT_KEY: Final = "cca.software-component"
CONFIG_KEY: Final = "cca.platform-config"
RIM_KEY: Final = "cca.rim"
RPV_KEY: Final = "cca.rpv"
REM_KEYS: Final = ("cca.rem0", "cca.rem1", "cca.rem2", "cca.rem3")

_APPROVED_BOOT, _CONTRAINDICATED = 3, 96
_APPROVED_CONFIG, _UNSAFE_CONFIG, _UNSEEN_CONFIG = 2, 32, 36
_RPV_SIZE = 64
_SIZES: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_RULE = "DEN0137 A7.2.3.2.7"


def appraise(
    verified: VerifiedEvidence[CcaEvidence], references: References
) -> Sequence[Appraisal]:
    """Appraise the platform's and the realm's claims."""
    platform, realm = verified.claims_sets
    return (
        _appraise_platform(verified, references, platform),
        _appraise_realm(verified.evidence.realm.claims, references, realm),
    )


def _appraise_platform(
    verified: VerifiedEvidence[CcaEvidence], references: References, claims_set: ClaimsSet
) -> Appraisal:
    claims, label = verified.evidence.platform.claims, claims_set.label
    findings: list[Finding] = []
    state = lifecycle_finding(claims.lifecycle, claims.lifecycle_value, rule=_RULE, submod=label)
    if state is not None:
        findings.append(state)
    vector = GENUINE_AND_SECURED if claims.lifecycle is Lifecycle.SECURED else NOT_SECURED
    in_force, lapsed = references.find(
        "cca", class_id=verified.implementation_id, instance_id=verified.instance_id
    )
    software = _Platform(verified, in_force, lapsed, label)
    findings += software.findings
    return Appraisal(
        claims_set=claims_set,
        vector=replace(
            vector, executables=software.executables, configuration=software.configuration
        ),
        findings=tuple(findings),
        matched=tuple(software.matched),
    )


class _Platform:
    """Firmware and configuration against the platform's Reference Values."""

    def __init__(
        self,
        verified: VerifiedEvidence[CcaEvidence],
        in_force: Sequence[ReferenceValue],
        lapsed: Sequence[ReferenceValue],
        label: str,
    ) -> None:
        self.findings: list[Finding] = []
        self.matched: list[str] = []
        self.executables, self.configuration = UNRECOGNISED, _UNSEEN_CONFIG
        self._label = label
        self._config = Measured(key=CONFIG_KEY, raw_value=verified.evidence.platform.claims.config)
        states = {
            state: own
            for state, own in by_state(in_force).items()
            if any(value.key in (COMPONENT_KEY, CONFIG_KEY) for value in own)
        }
        if states:
            self._compare(verified, states)
            return
        environment = f"implementation id {verified.implementation_id.hex()}"
        for key, claim in (
            (COMPONENT_KEY, "software-components"),
            (CONFIG_KEY, "cca-platform-config"),
        ):
            self.findings.append(
                no_reference_values(
                    key, claim=claim, environment=environment, lapsed=lapsed, submod=label
                )
            )

    def _compare(
        self, verified: VerifiedEvidence[CcaEvidence], states: dict[str, list[ReferenceValue]]
    ) -> None:
        claims = verified.evidence.platform.claims
        measured = measured_components(
            claims.software_components, key=COMPONENT_KEY, algorithm=claims.hash_algorithm
        )
        configs = {state: self._compare_config(own) for state, own in states.items()}
        comparisons: list[StateComparison] = []
        for state, own in states.items():
            components = [value for value in own if value.key == COMPONENT_KEY]
            comparison = compare_components(measured, state, components)
            comparison.other_problems = int(configs[state].value != _APPROVED_CONFIG)
            comparisons.append(comparison)
        nearest = nearest_state(comparisons)
        config = configs[nearest.state]
        self.configuration = config.value
        self.matched = [*nearest.matched, *config.matched]
        if not nearest.unknown and not nearest.missing:
            self.executables = APPROVED
        everything = [value for own in states.values() for value in own]
        self.findings += component_findings(nearest, measured, everything, submod=self._label)
        self.findings += config.findings

    def _compare_config(self, values: Sequence[ReferenceValue]) -> _Config:
        expected = [value for value in values if value.key == CONFIG_KEY]
        if not expected:
            return _Config(
                _UNSEEN_CONFIG,
                findings=[
                    Finding(
                        claim="cca-platform-config",
                        expected=f"a {CONFIG_KEY} value beside those of {values[0].state}",
                        actual="none provisioned",
                        rule="draft-ydb-rats-cca-endorsements-04: one platform configuration "
                        "for each platform",
                        remedy="Have the Endorser add the platform configuration.",
                        submod=self._label,
                        severity="warning",
                    )
                ],
            )
        findings = [
            _differs("cca-platform-config", value, mismatch, self._label)
            for value in expected
            for mismatch in compare(value, self._config)
        ]
        if findings:
            return _Config(_UNSAFE_CONFIG, findings=findings)
        return _Config(_APPROVED_CONFIG, matched=[value.id for value in expected])


@dataclass(slots=True)
class _Config:
    value: int
    matched: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def _appraise_realm(
    claims: RealmClaims, references: References, claims_set: ClaimsSet
) -> Appraisal:
    label = claims_set.label
    in_force, lapsed = references.find("cca", class_id=claims.initial_measurement)
    states = {
        state: own
        for state, own in by_state(in_force).items()
        if any(value.key == RIM_KEY for value in own)
    }
    if states:
        comparisons = [_RealmState(own, claims, label) for own in states.values()]
        nearest = min(comparisons, key=lambda each: (each.executables, len(each.findings)))
        executables, matched = nearest.executables, nearest.matched
        findings = nearest.findings
    else:
        executables, matched = UNRECOGNISED, []
        findings = [
            no_reference_values(
                RIM_KEY,
                claim="cca-realm-initial-measurement",
                environment=f"RIM {claims.initial_measurement.hex()}",
                lapsed=lapsed,
                submod=label,
            )
        ]
    return Appraisal(
        claims_set=claims_set,
        vector=TrustworthinessVector(instance_identity=2, executables=executables),
        findings=tuple(findings),
        matched=tuple(matched),
    )


class _RealmState:
    """One description of a realm against the realm's claims."""

    def __init__(self, values: Sequence[ReferenceValue], claims: RealmClaims, label: str) -> None:
        self.matched: list[str] = []
        self.findings: list[Finding] = []
        self._label = label
        self.executables = APPROVED
        measured = _measured_realm(claims)
        for value in values:
            found = measured.get(value.key)
            if found is None:
                self._unreadable(value)
                continue
            claim, element = found
            mismatches = compare(_padded(value), element)
            if not mismatches:
                self.matched.append(value.id)
            for mismatch in mismatches:
                self._report(claim, value, mismatch)
        described = {value.key for value in values}
        if self.executables == APPROVED and not described.issuperset(REM_KEYS):
            self.executables = _APPROVED_BOOT

    def _report(self, claim: str, value: ReferenceValue, mismatch: Mismatch) -> None:
        owner = value.key == RPV_KEY
        self._worsen(_CONTRAINDICATED if owner else UNRECOGNISED)
        finding = _differs(claim, value, mismatch, self._label)
        self.findings.append(replace(finding, severity="contraindicated") if owner else finding)

    def _unreadable(self, value: ReferenceValue) -> None:
        self._worsen(UNRECOGNISED)
        self.findings.append(
            Finding(
                claim=value.key,
                expected="a measurement key of the CCA realm profile",
                actual=f"Reference Value {value.id} has another",
                rule="a value without a known comparison never matches (CoRIM)",
                remedy="Correct the CoRIM.",
                submod=self._label,
                severity="warning",
            )
        )

    def _worsen(self, value: int) -> None:
        self.executables = max(self.executables, value)


def _measured_realm(claims: RealmClaims) -> dict[str, tuple[str, Measured]]:
    """Map each measurement key to the claim's name and what it says."""
    measured = {
        RIM_KEY: (
            "cca-realm-initial-measurement",
            _register(RIM_KEY, claims.initial_measurement, claims.hash_algorithm),
        ),
        RPV_KEY: (
            "cca-realm-personalization-value",
            Measured(key=RPV_KEY, raw_value=claims.personalization_value),
        ),
    }
    for index, (key, register) in enumerate(
        zip(REM_KEYS, claims.extensible_measurements, strict=True)
    ):
        name = f"cca-realm-extensible-measurements[{index}]"
        measured[key] = name, _register(key, register, claims.hash_algorithm)
    return measured


def _register(key: str, octets: bytes, algorithm: str) -> Measured:
    # Published tokens name SHA-256 and carry registers of 64 octets. The size tells the truth:
    # a digest of another algorithm cannot match by accident.
    fits = _SIZES.get(algorithm, len(octets)) == len(octets)
    name = algorithm if fits else next(n for n, size in _SIZES.items() if size == len(octets))
    return Measured(key=key, digests={name: octets})


def _padded(value: ReferenceValue) -> ReferenceValue:
    """The RMM fills a shorter personalization value with zeros up to 64 octets."""
    if value.key != RPV_KEY or value.raw_value is None:
        return value
    return replace(value, raw_value=value.raw_value.ljust(_RPV_SIZE, b"\0"))


def _differs(claim: str, value: ReferenceValue, mismatch: Mismatch, submod: str) -> Finding:
    source = f" ({value.source})" if value.source else ""
    return Finding(
        claim=claim,
        expected=mismatch.expected,
        actual=f"{mismatch.actual}: {mismatch.why}",
        rule=f"Reference Value {value.id}{source}",
        remedy="If this is meant to be so, provision its Reference Value; if not, find out what "
        "changed.",
        submod=submod,
        severity="warning",
    )
