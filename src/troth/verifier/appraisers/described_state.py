# SPDX-License-Identifier: Apache-2.0
"""One described state of a report with named fields, compared field by field.

For schemes whose Evidence is a fixed set of registers and settings (SGX, TDX). Values of one
reference triple belong together; of several, the nearest is what the findings compare with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from troth.endorsement.matching import Measured, Mismatch, compare
from troth.endorsement.reference_value import ReferenceValue
from troth.verifier.appraisers.software_components import by_state
from troth.verifier.finding import Finding

__all__ = ["DescribedState", "nearest"]

_REGISTERS: Final = ""
"""Measurement key of values that describe registers by name or number."""

_REMEDY: Final = "If this is meant to be so, provision its Reference Value."


class DescribedState:
    """One description against what was measured.

    Args:
        values: the values of one state.
        measured: field to what the report says of it. A field's name is its measurement key.
        registers: the fields that may be described as integrity registers too.
    """

    def __init__(
        self,
        values: Sequence[ReferenceValue],
        measured: Mapping[str, Measured],
        *,
        registers: Sequence[str] = (),
    ) -> None:
        self.matched: list[str] = []
        self._mismatches: list[tuple[str, ReferenceValue, Mismatch]] = []
        self._described: set[str] = set()
        self._measured = measured
        self._registers = registers
        for value in values:
            self._compare(value)

    @property
    def problems(self) -> int:
        """How many conditions are not met."""
        return len(self._mismatches)

    def describes(self, field: str) -> bool:
        """Say whether a value speaks about this field."""
        return field in self._described

    def meets(self, fields: Collection[str]) -> bool:
        """Say whether all of these are described, and are as described."""
        return self._described.issuperset(fields) and not self.differs(fields)

    def differs(self, fields: Collection[str]) -> bool:
        """Say whether one of these is described, and is not as described."""
        return any(field in fields for field, _, _ in self._mismatches)

    def unreadable(self) -> bool:
        """Say whether a value speaks about something that the report has not."""
        return any(field not in self._measured for field, _, _ in self._mismatches)

    def findings(
        self, *, submod: str, remedies: Mapping[str, str], contraindicated: Collection[str] = ()
    ) -> Iterator[Finding]:
        """Yield a finding for each condition that is not met.

        Args:
            submod: label of the claims set.
            remedies: by field, where there is a better one than to provision the value.
            contraindicated: fields whose difference is one.
        """
        for field, value, mismatch in self._mismatches:
            source = f" ({value.source})" if value.source else ""
            yield Finding(
                claim=field,
                expected=mismatch.expected,
                actual=f"{mismatch.actual}: {mismatch.why}",
                rule=f"Reference Value {value.id}{source}",
                remedy=remedies.get(field, _REMEDY),
                submod=submod,
                severity="contraindicated" if field in contraindicated else "warning",
            )

    def _compare(self, value: ReferenceValue) -> None:
        found = [
            (field, part, mismatch)
            for field, part in self._parts(value)
            for mismatch in self._mismatch(field, part)
        ]
        self._mismatches += found
        if not found:
            self.matched.append(value.id)

    def _parts(self, value: ReferenceValue) -> Iterator[tuple[str, ReferenceValue]]:
        """Yield what a value says, field by field: registers may stand together in one."""
        if value.key != _REGISTERS or not value.registers:
            yield value.key or "(no measurement key)", value
            return
        for register, digests in value.registers.items():
            name = str(register)
            if name.isdigit() and int(name) < len(self._registers):
                name = self._registers[int(name)]
            yield name, replace(value, key=name, digests=digests, registers={})

    def _mismatch(self, field: str, value: ReferenceValue) -> Sequence[Mismatch]:
        self._described.add(field)
        measured = self._measured.get(field)
        if measured is None:
            known = ", ".join(self._measured)
            return [Mismatch(field, f"one of {known}", field, "the report has no such field")]
        return compare(value, measured)


def nearest(
    values: Sequence[ReferenceValue],
    measured: Mapping[str, Measured],
    *,
    registers: Sequence[str] = (),
) -> DescribedState:
    """Return the state with the fewest problems, the first of several; an empty one for none."""
    states = [
        DescribedState(own, measured, registers=registers) for own in by_state(values).values()
    ]
    return min(states, key=lambda state: state.problems, default=DescribedState((), measured))
