# SPDX-License-Identifier: Apache-2.0
"""Differences between two policies' conclusions, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import click
import msgspec

from troth.cli.inputs import printable
from troth.mesh.policy_messages import PolicyName
from troth.verifier.case_document import FindingDocument
from troth.verifier.recorded import RecordedNode
from troth.verifier.replay import Change, Difference, Summary, summarise

__all__ = ["difference_report", "difference_text"]

MAX_SHOWN: Final = 100
"""Differences that are written out as text; the JSON form has all of them."""

_COLOURS: Final = {Change.STRICTER: "red", Change.LOOSER: "yellow", Change.FINDINGS: "cyan"}
_ORDER: Final = (Change.STRICTER, Change.LOOSER, Change.FINDINGS)


def difference_report(policy: PolicyName, differences: Sequence[Difference]) -> dict[str, object]:
    """Return everything as a JSON tree; records without any difference are only counted."""
    summary = summarise(differences)
    report: dict[str, object] = {
        "policy": msgspec.to_builtins(policy),
        "records": summary.records,
        "appraisals": summary.appraisals,
        "changes": {change.value: summary.changes.get(change, 0) for change in Change},
        "statuses": [
            {"before": before, "after": after, "records": count}
            for (before, after), count in sorted(summary.statuses.items())
        ],
        "shut_out": msgspec.to_builtins(summary.shut_out),
        "let_in": msgspec.to_builtins(summary.let_in),
        "differences": msgspec.to_builtins(_sorted(differences)),
    }
    return report


def difference_text(policy: PolicyName, differences: Sequence[Difference]) -> Iterator[str]:
    """Yield the lines: what it comes to, then each difference, the strictest first."""
    summary = summarise(differences)
    yield (
        f"policy {printable(policy.id)} ({printable(policy.source or 'built-in')}), "
        f"sha-256 {policy.digest}"
    )
    yield f"{_counted(summary.records, 'record')}, {_counted(summary.appraisals, 'appraisal')}"
    if not summary.records:
        yield "Nothing is on record for that time: this says nothing about the policy."
        return
    yield from _summary_lines(summary)
    different = _sorted(differences)
    for each in different[:MAX_SHOWN]:
        yield ""
        yield from _difference_lines(each)
    if len(different) > MAX_SHOWN:
        yield ""
        yield f"… and {len(different) - MAX_SHOWN} more; --format json has all"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _sorted(differences: Sequence[Difference]) -> list[Difference]:
    different = [each for each in differences if each.change is not Change.SAME]
    return sorted(different, key=lambda each: (_ORDER.index(each.change), each.device, each.id))


def _summary_lines(summary: Summary) -> Iterator[str]:
    for change in (*_ORDER, Change.SAME):
        count = summary.changes.get(change, 0)
        if count:
            yield f"  {click.style(f'{change:<9}', fg=_COLOURS.get(change))} {count}"
    for (before, after), count in sorted(summary.statuses.items()):
        if before != after:
            yield f"  {before} would be {after}: {count}"
    yield from _node_lines("would be refused", summary.shut_out)
    yield from _node_lines("would be admitted", summary.let_in)


def _node_lines(what: str, nodes: Sequence[RecordedNode]) -> Iterator[str]:
    for node in nodes:
        yield click.style(f"  {what}: {_node(node)}", bold=True)


def _node(node: RecordedNode) -> str:
    return f"{printable(node.name) or 'unnamed'} ({node.node_id}, {printable(node.spiffe_id)})"


def _difference_lines(found: Difference) -> Iterator[str]:
    word = click.style(found.change.upper(), fg=_COLOURS.get(found.change), bold=True)
    who = ", ".join(_node(effect.node) for effect in found.nodes)
    yield f"{word}  {printable(found.device) or found.scheme}{f'  {who}' if who else ''}"
    times = f"{found.count} times, " if found.count > 1 else ""
    yield f"  {times}last at {found.last:%Y-%m-%dT%H:%M:%SZ}; record {found.id[:16]}"
    yield (
        f"  {found.before.status}, tier {found.before.tier} (by {printable(found.before.policy_id)})"
        f" would be {found.after.status}, tier {found.after.tier}"
    )
    if found.after.failed:
        yield "  the policy gives no verdict on it"
    for name, (before, after) in found.claims.items():
        yield f"  {printable(name)}: {_value(before)} would be {_value(after)}"
    for finding in found.findings_added:
        yield from _finding_lines("+", "red", finding)
    for finding in found.findings_gone:
        yield from _finding_lines("-", "green", finding)


def _value(value: int | None) -> str:
    return "no claim" if value is None else str(value)


def _finding_lines(sign: str, colour: str, finding: FindingDocument) -> Iterator[str]:
    where = f"  [{printable(finding.submod)}]" if finding.submod else ""
    yield click.style(f"  {sign} {finding.severity}: {printable(finding.claim)}{where}", fg=colour)
    for name in ("expected", "actual", "rule", "remedy"):
        text = getattr(finding, name)
        if text:
            yield f"      {name:<9}{printable(text)}"
