# SPDX-License-Identifier: Apache-2.0
"""A finding: one thing that a Verifier holds against Evidence, in terms a person can act on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mismatch or omission. A verdict reports all of them, never only the first.

    Attributes:
        claim: the claim's name with its place, such as "sw-components[1] (BL2).measurement-value".
        expected: the accepted value or values, as text.
        actual: what the Evidence says, as text.
        rule: what decided it: a specification section, a reference value's source, or a policy
            file with its line.
        remedy: what the operator can do next.
        submod: label of the claims set that it is about, or "".
        severity: "contraindicated", "warning" or "note" (a note never changes the status).
    """

    claim: str
    expected: str
    actual: str
    rule: str
    remedy: str
    submod: str = ""
    severity: str = "contraindicated"

    def to_json(self) -> dict[str, str]:
        """Return the finding as results, reports and policies spell it."""
        members = {
            "claim": self.claim,
            "expected": self.expected,
            "actual": self.actual,
            "rule": self.rule,
            "remedy": self.remedy,
            "severity": self.severity,
        }
        if self.submod:
            members["submod"] = self.submod
        return members
