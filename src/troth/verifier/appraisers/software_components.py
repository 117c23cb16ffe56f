# SPDX-License-Identifier: Apache-2.0
"""Measured software components against Reference Values, as PSA and CCA platforms have them.

Reference Values of one state (one reference triple) describe a whole platform: a state is met when
every measured component matches one of its values and every one of its values is matched. Values
of different states are alternatives and are not mixed: nobody vouched for the mixture. Where no
state is met, the nearest one is what the findings compare with.

This is stricter than Veraison, which asks only that each measured component be known.

A component whose digest, and name and version where the value has them, are as described, but
that another key signed, is the described software all the same: the digest says so. That is a
note, and a policy may make more of it. Published endorsements depend on this.

Source: RFC 9783 section 4.4.1; draft-fdb-rats-psa-endorsements-10 section 3.2;
draft-ydb-rats-cca-endorsements-04 section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from troth.endorsement.matching import Measured, Mismatch, closest, compare
from troth.endorsement.reference_value import ReferenceValue
from troth.evidence.software_component import SoftwareComponent
from troth.verifier.finding import Finding

__all__ = [
    "APPROVED",
    "UNRECOGNISED",
    "SoftwareAppraisal",
    "StateComparison",
    "by_state",
    "compare_components",
    "component_findings",
    "measured_components",
    "nearest_state",
]

APPROVED: Final = 2
UNRECOGNISED: Final = 33

_ALGORITHM_BY_SIZE = {32: "sha-256", 48: "sha-384", 64: "sha-512"}

_UPDATE_OR_PROVISION = (
    "If this software is meant to run, provision its Reference Value; if not, install a release "
    "that has one."
)
_CLAIM_NAMES = {
    "digests": "measurement-value",
    "name": "measurement-type",
    "version": "version",
    "signer-id": "signer-id",
}


@dataclass(frozen=True, slots=True)
class SoftwareAppraisal:
    """The conclusion about a platform's software.

    Attributes:
        executables: value of the claim.
        findings: what led to it.
        matched: ids of the values that matched.
    """

    executables: int
    findings: Sequence[Finding] = ()
    matched: Sequence[str] = ()


@dataclass(slots=True)
class StateComparison:
    """How the measured components compare with one state.

    Attributes:
        state: the state's id.
        values: its component values.
        matched: ids of the values that a component matches.
        unknown: indices of the components that match none.
        missing: values that no component matches.
        resigned: components that match but for their signer: index, value, mismatches.
        other_problems: further conditions of the state that are not met; counts in choosing.
    """

    state: str
    values: Sequence[ReferenceValue]
    matched: list[str] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    missing: list[ReferenceValue] = field(default_factory=list)
    resigned: list[tuple[int, ReferenceValue, tuple[Mismatch, ...]]] = field(default_factory=list)
    other_problems: int = 0

    @property
    def problems(self) -> int:
        """How many conditions are not met."""
        return len(self.unknown) + len(self.missing) + self.other_problems


def by_state(values: Sequence[ReferenceValue]) -> dict[str, list[ReferenceValue]]:
    """Group values that belong together."""
    states: dict[str, list[ReferenceValue]] = {}
    for value in values:
        states.setdefault(value.state, []).append(value)
    return states


def measured_components(
    components: Sequence[SoftwareComponent], *, key: str, algorithm: str = ""
) -> list[Measured]:
    """Return the components as `matching.compare` takes them.

    Args:
        components: as decoded.
        key: the scheme's measurement key for components.
        algorithm: hash algorithm where a component does not name one; "" takes it from the size.
    """
    return [
        Measured(
            key=key,
            digests={_algorithm(each, algorithm): each.measurement_value},
            name=each.measurement_type,
            version=each.version,
            signer_id=each.signer_id,
        )
        for each in components
    ]


def compare_components(
    measured: Sequence[Measured], state: str, values: Sequence[ReferenceValue]
) -> StateComparison:
    """Compare all components with the component values of one state."""
    comparison = StateComparison(state, values)
    used: set[str] = set()
    by_digest: dict[bytes, list[ReferenceValue]] = {}
    for value in values:
        for octets in set(value.digests.values()):
            by_digest.setdefault(octets, []).append(value)
    for index, component in enumerate(measured):
        found = [
            (value, mismatches)
            for value in by_digest.get(_digest(component), ())
            if (mismatches := _compared(value, component)) is not None
        ]
        used.update(value.id for value, _ in found)
        comparison.matched.extend(value.id for value, _ in found)
        if not found:
            comparison.unknown.append(index)
        elif all(mismatches for _, mismatches in found):
            comparison.resigned.append((index, *found[0]))
    comparison.missing = [value for value in values if value.id not in used]
    return comparison


def nearest_state(comparisons: Sequence[StateComparison]) -> StateComparison:
    """Return the comparison with the fewest problems, the first of several."""
    return min(comparisons, key=lambda comparison: comparison.problems)


def component_findings(
    comparison: StateComparison,
    measured: Sequence[Measured],
    values: Sequence[ReferenceValue],
    *,
    submod: str,
) -> Iterator[Finding]:
    """Yield a finding for each condition of the nearest state that is not met, then the notes.

    Args:
        comparison: with the nearest state.
        measured: all measured components.
        values: the component values of all states, for hints.
        submod: label of the claims set.
    """
    explained: set[str] = set()
    for index in comparison.unknown:
        component = measured[index]
        candidates = _candidates(comparison, component)
        found = closest(candidates, component)
        if found is None:
            yield _unknown_component(index, component, comparison, values, submod)
            continue
        value, mismatches = found
        explained.add(value.id)
        for mismatch in mismatches:
            yield _differing_component(index, component, value, mismatch, submod)
    for value in comparison.missing:
        if value.id not in explained:
            yield _missing_component(value, submod)
    for index, value, mismatches in comparison.resigned:
        for mismatch in mismatches:
            yield _resigned_component(index, measured[index], value, mismatch, submod)


def _candidates(comparison: StateComparison, component: Measured) -> list[ReferenceValue]:
    """Return the unmatched values that are about the same component, by name or by signer."""
    named = [value for value in comparison.missing if value.name and value.name == component.name]
    if named:
        return named
    return [value for value in comparison.missing if not value.name or not component.name]


def _compared(value: ReferenceValue, component: Measured) -> tuple[Mismatch, ...] | None:
    """Return the mismatches that do not matter, or None where there is one that does."""
    # Equality of one digest is cheap to see and necessary; only then are all rules applied.
    if _digest(component) not in value.digests.values():
        return None
    mismatches = compare(value, component)
    return mismatches if all(each.attribute == "signer-id" for each in mismatches) else None


def _digest(component: Measured) -> bytes:
    (octets,) = component.digests.values()
    return octets


def _algorithm(component: SoftwareComponent, default: str) -> str:
    if component.measurement_desc or default:
        return component.measurement_desc or default
    return _ALGORITHM_BY_SIZE[len(component.measurement_value)]


def _place(index: int, component: Measured) -> str:
    return f"software-components[{index}]" + (f" ({component.name})" if component.name else "")


def _source(value: ReferenceValue) -> str:
    return f"Reference Value {value.id}" + (f" ({value.source})" if value.source else "")


def _shown(component: Measured) -> str:
    digests = ", ".join(f"{name}:{octets.hex()}" for name, octets in component.digests.items())
    return f"{digests}, version {component.version}" if component.version else digests


def _differing_component(
    index: int, component: Measured, value: ReferenceValue, mismatch: Mismatch, submod: str
) -> Finding:
    attribute = _CLAIM_NAMES.get(mismatch.attribute, mismatch.attribute)
    wanted = f" (version {value.version})" if value.version and attribute != "version" else ""
    return Finding(
        claim=f"{_place(index, component)}.{attribute}",
        expected=f"{mismatch.expected}{wanted}",
        actual=f"{mismatch.actual}: {mismatch.why}",
        rule=_source(value),
        remedy=_UPDATE_OR_PROVISION,
        submod=submod,
        severity="warning",
    )


def _resigned_component(
    index: int, component: Measured, value: ReferenceValue, mismatch: Mismatch, submod: str
) -> Finding:
    return Finding(
        claim=f"{_place(index, component)}.signer-id",
        expected=mismatch.expected,
        actual=f"{mismatch.actual}: {mismatch.why}; the digest is the described one",
        rule=_source(value),
        remedy="Nothing, if this signer is known; else ask the Endorser which key signs it.",
        submod=submod,
        severity="note",
    )


def _unknown_component(
    index: int,
    component: Measured,
    comparison: StateComparison,
    values: Sequence[ReferenceValue],
    submod: str,
) -> Finding:
    elsewhere = [value for value in values if _compared(value, component) is not None]
    hint = (
        f" It matches {elsewhere[0].id}, but values of one triple belong together."
        if elsewhere
        else ""
    )
    return Finding(
        claim=_place(index, component),
        expected=f"one of the {len(comparison.values)} components of {comparison.state}",
        actual=_shown(component),
        rule=f"Reference Values {comparison.state}: every measured component must be described",
        remedy=f"{_UPDATE_OR_PROVISION}{hint}",
        submod=submod,
        severity="warning",
    )


def _missing_component(value: ReferenceValue, submod: str) -> Finding:
    digests = " or ".join(f"{name}:{octets.hex()}" for name, octets in value.digests.items())
    version = f" version {value.version}" if value.version else ""
    return Finding(
        claim="software-components",
        expected=f"a component {value.name or 'without a name'}{version} with {digests}",
        actual="not measured",
        rule=f"{_source(value)}: every described component must be measured",
        remedy="Find out why the device left it out. Alternatives belong into reference triples "
        "of their own.",
        submod=submod,
        severity="warning",
    )
