# SPDX-License-Identifier: Apache-2.0
"""A verdict in words for a person: status first, then everything that was found, then the rest.

Colours are set by click, which drops them where standard output is not a terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from troth.cli.inputs import printable
from troth.formats.ar4si import TrustTier, TrustworthinessVector, tier_of
from troth.formats.ar4si_values import describe
from troth.verifier.finding import Finding
from troth.verifier.result import AttestationResult, SubmodResult

__all__ = ["finding_lines", "status_word", "vector_lines", "verdict_text"]

_WIDTH: Final = 100
_COLOURS: Final = {
    "affirming": "green",
    "warning": "yellow",
    "contraindicated": "red",
    "none": "red",
    "note": "cyan",
}
_MEANING: Final = {
    TrustTier.AFFIRMING: "nothing speaks against it",
    TrustTier.WARNING: "authentic, but not as described",
    TrustTier.CONTRAINDICATED: "not to be trusted",
    TrustTier.NONE: "nothing was established, which denies",
}


def verdict_text(result: AttestationResult) -> str:
    """Return the verdict, several lines without the last line's end."""
    lines = [
        f"{status_word(result.status.word)}: {_MEANING[result.status]}",
        f"scheme {result.scheme}, tier {result.tier.value}, vouched for by {result.layer}",
    ]
    if result.insecure:
        lines.append(click.style(f"INSECURE: {printable('; '.join(result.insecure))}", fg="red"))
    for submod in result.submods.values():
        lines += ["", *_submod_lines(submod)]
    against = [finding for finding in result.findings if finding.severity != "note"]
    notes = [finding for finding in result.findings if finding.severity == "note"]
    if against:
        lines += ["", click.style("Findings", bold=True), *finding_lines(against)]
    if notes:
        lines += ["", click.style("Notes", bold=True), *finding_lines(notes)]
    lines += [
        "",
        f"policy {printable(result.policy_id)}, sha-256 {result.policy_digest}",
        f"Reference Values epoch {result.reference_epoch}",
    ]
    return "\n".join(lines)


def status_word(word: str) -> str:
    """Return a tier or severity in capitals and its colour."""
    return click.style(word.upper(), fg=_COLOURS.get(word), bold=True)


def vector_lines(vector: TrustworthinessVector) -> Iterator[str]:
    """Yield one line for each trustworthiness claim that is made, in words."""
    for name, value in vector.items():
        described = describe(str(name), value)
        tier = click.style(f"{tier_of(value).word:<15}", fg=_COLOURS[tier_of(value).word])
        yield f"  {printable(str(name)):<18} {value:>4}  {tier}  {described.short}"


def finding_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the lines of each finding: all of its parts."""
    for number, finding in enumerate(findings, 1):
        where = f"  [{printable(finding.submod)}]" if finding.submod else ""
        severity = click.style(finding.severity, fg=_COLOURS.get(finding.severity))
        yield f"  {number}. {severity}: {printable(finding.claim)}{where}"
        yield from _part("expected", finding.expected)
        yield from _part("actual", finding.actual)
        yield from _part("rule", finding.rule)
        yield from _part("remedy", finding.remedy)


def _submod_lines(submod: SubmodResult) -> Sequence[str]:
    colour = _COLOURS[submod.status.word]
    word = click.style(submod.status.word, fg=colour, bold=True)
    heading = f"{printable(submod.label)} ({submod.component}, by {submod.layer}): {word}"
    return [heading, *vector_lines(submod.vector)]


def _part(name: str, text: str) -> Iterator[str]:
    if not text:
        return
    wrapped = textwrap.wrap(
        printable(text), _WIDTH - 15, break_long_words=False, break_on_hyphens=False
    )
    for index, line in enumerate(wrapped or [""]):
        yield f"       {name if not index else '':<9}{line}"
