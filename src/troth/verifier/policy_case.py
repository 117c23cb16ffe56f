# SPDX-License-Identifier: Apache-2.0
"""Test cases of an Appraisal Policy: what it is asked, what it has to conclude, what differs.

A case is judged by the same function as an appraisal (`conclude`). Where the question comes from
is not decided here: from a document (`CaseDocument`), or from Evidence that a Verifier appraised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from troth.errors import DecodeError
from troth.formats.ar4si import TrustTier
from troth.verifier.case_document import vector_of
from troth.verifier.conclusion import Conclusion
from troth.verifier.finding import Finding
from troth.verifier.result import AssuranceTier, SubmodResult

__all__ = ["Expectation", "ExpectedSubmod", "Mismatch", "mismatches"]

_FORMAT = "policy case"
_FINDING_MEMBERS = ("claim", "expected", "actual", "rule", "remedy", "submod", "severity")


class ExpectedSubmod(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What has to be concluded about one claims set. What is left out is not compared.

    Attributes:
        status: its status.
        vector: claim name to value or tag; claims that are not named are not compared.
        findings: each has to be met by a finding with all of these members.
        no_findings: none of these may be met.
        added_claims: these have to be there, with these values.
    """

    status: str = ""
    vector: dict[str, int | str] = {}
    findings: list[dict[str, str]] = []
    no_findings: list[dict[str, str]] = []
    added_claims: dict[str, object] = {}


class Expectation(ExpectedSubmod, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What has to be concluded about the whole.

    Attributes:
        tier: assurance tier.
        failed: the policy gives no verdict. A policy that fails is contraindicated, so that a
            case which expects that would else be met by any mistake in it.
        submods: label to what has to be concluded about that claims set.
    """

    tier: str = ""
    failed: bool = False
    submods: dict[str, ExpectedSubmod] = {}

    def check(self) -> None:
        """Say what cannot be compared, before anything is evaluated.

        Raises:
            DecodeError: nothing is expected, or something that does not exist.
        """
        if self == Expectation():
            raise DecodeError("nothing is expected", format=_FORMAT)
        if self.tier and self.tier not in {tier.value for tier in AssuranceTier}:
            raise DecodeError(f"there is no tier {self.tier!r}", format=_FORMAT)
        for each in (self, *self.submods.values()):
            if each.status:
                TrustTier.from_word(each.status)
            vector_of(each.vector)
            for finding in (*each.findings, *each.no_findings):
                unknown = set(finding) - set(_FINDING_MEMBERS)
                if unknown or not finding:
                    raise DecodeError(
                        f"a finding has some of {', '.join(_FINDING_MEMBERS)}; "
                        f"got {', '.join(sorted(unknown)) or 'none'}",
                        format=_FORMAT,
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One thing that was expected otherwise, in words."""

    what: str
    expected: str
    actual: str


def mismatches(conclusion: Conclusion, expected: Expectation) -> list[Mismatch]:
    """Return everything in which `conclusion` is not as expected; an empty list is a pass.

    Raises:
        DecodeError: the expectation names a claims set that is not there, or a claim without
            saying of which of several claims sets.
    """
    found: list[Mismatch] = []
    if expected.failed is not conclusion.failed:
        words = {False: "a verdict", True: "none: it fails"}
        found += _differs("the policy's verdict", words[expected.failed], words[conclusion.failed])
    if expected.status:
        found += _differs("status", expected.status, conclusion.status.word)
    if expected.tier:
        found += _differs("tier", expected.tier, conclusion.tier.value)
    submods = {submod.label: submod for submod in conclusion.submods}
    if expected.vector or expected.added_claims:
        if len(submods) != 1:
            raise DecodeError(
                f"the Evidence has {len(submods)} claims sets: say in `submods` which one is "
                f"meant ({', '.join(submods)})",
                format=_FORMAT,
            )
        found += _claims(next(iter(submods.values())), expected, where="")
    everything = [finding for submod in submods.values() for finding in submod.findings]
    found += _findings(everything, expected, where="")
    for label, each in expected.submods.items():
        submod = submods.get(label)
        if submod is None:
            raise DecodeError(
                f"there is no claims set {label!r}; there are {', '.join(submods)}", format=_FORMAT
            )
        where = f"{label}: "
        if each.status:
            found += _differs(f"{where}status", each.status, submod.status.word)
        found += _claims(submod, each, where=where)
        found += _findings(submod.findings, each, where=where)
    return found


def _differs(what: str, expected: str, actual: str) -> list[Mismatch]:
    return [] if expected == actual else [Mismatch(what=what, expected=expected, actual=actual)]


def _claims(submod: SubmodResult, expected: ExpectedSubmod, *, where: str) -> Iterator[Mismatch]:
    actual = submod.vector.to_json()
    for name, value in vector_of(expected.vector).to_json().items():
        yield from _differs(f"{where}{name}", str(value), str(actual.get(name, 0)))
    for name, wanted in expected.added_claims.items():
        present = name in submod.added_claims
        yield from _differs(
            f"{where}added claim {name}",
            _shown(wanted),
            _shown(submod.added_claims[name]) if present else "absent",
        )


def _findings(
    findings: Sequence[Finding], expected: ExpectedSubmod, *, where: str
) -> Iterator[Mismatch]:
    for wanted in expected.findings:
        if not any(_meets(finding, wanted) for finding in findings):
            yield Mismatch(
                what=f"{where}finding", expected=_members(wanted), actual="no such finding"
            )
    for unwanted in expected.no_findings:
        for finding in findings:
            if _meets(finding, unwanted):
                yield Mismatch(
                    what=f"{where}finding",
                    expected=f"none with {_members(unwanted)}",
                    actual=f"{finding.claim} ({finding.severity}): {finding.actual}",
                )


def _meets(finding: Finding, members: Mapping[str, str]) -> bool:
    return all(getattr(finding, name) == value for name, value in members.items())


def _members(members: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in members.items())


def _shown(value: object) -> str:
    return json.dumps(value, sort_keys=True)
