# SPDX-License-Identifier: Apache-2.0
"""`troth policy test`: run cases, and say of each that fails what was expected and what came."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import click

from troth.cli.endorsement_files import read_endorsements
from troth.cli.inputs import HexBytes, Rfc3339, printable, read_collateral, read_input
from troth.cli.policy.cases import PolicyCase, read_cases
from troth.cli.policy_files import evaluator_for, read_policy
from troth.cli.verdict_text import finding_lines
from troth.clock import SystemClock
from troth.errors import ConfigurationError, TrothError
from troth.evidence.context import Collateral
from troth.evidence.evidence import Unchecked
from troth.evidence.registry import SCHEMES, scheme
from troth.verifier.conclusion import Conclusion, Judgement, conclude
from troth.verifier.finding import Finding
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.policy_case import Mismatch, mismatches
from troth.verifier.rego import RegoEvaluator
from troth.verifier.result import AssuranceTier, VerifierIdentity
from troth.verifier.verifier import Verifier

__all__ = ["test"]

EXIT_NOT_RUN: Final = 2


class _Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


_EXIT: Final = {_Outcome.PASSED: 0, _Outcome.FAILED: 1, _Outcome.NOT_RUN: EXIT_NOT_RUN}
_COLOURS: Final = {
    _Outcome.PASSED: "green",
    _Outcome.FAILED: "red",
    _Outcome.NOT_RUN: "magenta",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """What came of one case."""

    case: PolicyCase
    outcome: _Outcome
    mismatches: Sequence[Mismatch] = ()
    error: str = ""
    conclusion: Conclusion | None = None
    findings: Sequence[Finding] = field(default=())


@click.command()
@click.argument("policy")
@click.argument("cases", nargs=-1, required=True)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, json elsewhere.",
)
@click.pass_context
def test(ctx: click.Context, policy: str, cases: Sequence[str], output: str | None) -> None:
    r"""Ask POLICY what CASES (files or folders, YAML or JSON) ask, and compare its conclusions.

    \b
    Exit status:
      0  every case passed
      1  some failed
      2  some could not be run: its Evidence is not authentic, or it expects what cannot be
      3  wrong usage: a file that is not as described, or no case at all

    docs/reference/policy.md describes the files.
    """
    tested, found = read_policy(policy), read_cases(cases)
    now = SystemClock().now()
    with evaluator_for() as evaluator:
        defects = tested.check(evaluator)
        ran = [_run(case, tested, evaluator, now=now) for case in found]
    if output == "json" or (output is None and not sys.stdout.isatty()):
        click.echo(json.dumps(_report(tested, defects, ran), indent=2))
    else:
        click.echo("\n".join(_text(defects, ran)))
    ctx.exit(max(_EXIT[each.outcome] for each in ran))


def _run(
    case: PolicyCase, policy: AppraisalPolicy, evaluator: RegoEvaluator, *, now: datetime
) -> _Ran:
    try:
        conclusion = _concluded(case, policy, evaluator, now=now)
        found = mismatches(conclusion, case.expected)
    except ConfigurationError:
        raise
    except TrothError as exc:
        return _Ran(case=case, outcome=_Outcome.NOT_RUN, error=str(exc))
    return _Ran(
        case=case,
        outcome=_Outcome.FAILED if found else _Outcome.PASSED,
        mismatches=found,
        conclusion=conclusion,
        findings=[each for submod in conclusion.submods for each in submod.findings],
    )


def _concluded(
    case: PolicyCase, policy: AppraisalPolicy, evaluator: RegoEvaluator, *, now: datetime
) -> Conclusion:
    if case.evidence is not None:
        return _appraised(case, policy, evaluator, now=now)
    asked = [document.case(now=now) for document in case.asked]
    return conclude(asked, policy, evaluator, best=_best(case.asked[0].scheme))


def _best(name: str) -> AssuranceTier:
    # A scheme of somebody's own, that this program does not know, may reach any tier.
    return AssuranceTier(scheme(name).tier) if name in SCHEMES else AssuranceTier.CONFIDENTIAL


def _appraised(
    case: PolicyCase, policy: AppraisalPolicy, evaluator: RegoEvaluator, *, now: datetime
) -> Conclusion:
    options, folder = case.appraisal, case.file.parent

    def beside(names: Sequence[str]) -> list[str]:
        return [str(folder / name) for name in names]

    at = _converted(Rfc3339(), options.at, case, "at") if options.at else now
    nonce = _converted(HexBytes(), options.nonce, case, "nonce") if options.nonce else None
    endorsements, _ = read_endorsements(
        beside(options.trust_anchors),
        beside(options.reference_values),
        beside(options.corim_keys),
        now=at,
        scheme=options.scheme,
    )
    collateral = (
        read_collateral(str(folder / options.collateral)) if options.collateral else Collateral()
    )
    seen: list[Judgement] = []
    Verifier(
        identity=VerifierIdentity.of_this_build(),
        endorsements=endorsements,
        policy=policy,
        evaluator=evaluator,
        collateral=collateral,
        vendors=frozenset(options.trust_vendors),
        allow_test_keys=options.allow_test_keys,
        allow_simulator=options.allow_simulator,
    ).appraise(
        read_input(str(case.evidence)),
        now=at,
        challenge=Unchecked("the case gives no nonce") if nonce is None else nonce,
        scheme=options.scheme,
        observe=seen.append,
    )
    return seen[0].conclusion


def _converted(kind: click.ParamType[Any], text: str, case: PolicyCase, key: str) -> Any:  # noqa: ANN401 - of the kind's type
    try:
        return kind.convert(text, None, None)
    except click.BadParameter as exc:
        raise ConfigurationError(
            source=str(case.file), key=f"appraisal.{key}", accepted=exc.message
        ) from exc


def _report(
    policy: AppraisalPolicy, defects: Sequence[Finding], ran: Sequence[_Ran]
) -> dict[str, object]:
    return {
        "policy": {"id": policy.id, "sha-256": policy.digest},
        "defects": [defect.to_json() for defect in defects],
        **{outcome.value.replace(" ", "_"): _count(ran, outcome) for outcome in _Outcome},
        "cases": [_case_report(each) for each in ran],
    }


def _case_report(ran: _Ran) -> dict[str, object]:
    report: dict[str, object] = {
        "name": ran.case.name,
        "file": str(ran.case.file),
        "outcome": ran.outcome.value,
        "mismatches": [
            {"what": each.what, "expected": each.expected, "actual": each.actual}
            for each in ran.mismatches
        ],
    }
    if ran.error:
        report["error"] = ran.error
    if ran.conclusion is not None:
        report["status"] = ran.conclusion.status.word
        report["tier"] = ran.conclusion.tier.value
        report["findings"] = [finding.to_json() for finding in ran.findings]
    return report


def _count(ran: Sequence[_Ran], outcome: _Outcome) -> int:
    return sum(each.outcome is outcome for each in ran)


def _text(defects: Sequence[Finding], ran: Sequence[_Ran]) -> Iterator[str]:
    for defect in defects:
        yield click.style(f"{defect.rule}: {printable(defect.actual)}", fg="red")
    for each in ran:
        word = click.style(f"{each.outcome:<8}", fg=_COLOURS[each.outcome])
        yield f"{word} {printable(each.case.name)}"
        if each.outcome is not _Outcome.PASSED:
            yield from _why(each)
    counts = (f"{_count(ran, each)} {each}" for each in _Outcome if _count(ran, each))
    yield f"{len(ran)} case{'s' if len(ran) > 1 else ''}: {', '.join(counts)}"


def _why(ran: _Ran) -> Iterator[str]:
    yield f"         in {printable(str(ran.case.file))}"
    if ran.error:
        yield f"         {printable(ran.error)}"
    for each in ran.mismatches:
        yield f"         {printable(each.what)}"
        yield click.style(f"           expected  {printable(each.expected)}", fg="green")
        yield click.style(f"           concluded {printable(each.actual)}", fg="red")
    if ran.conclusion is None:
        return
    word = f"{ran.conclusion.status.word}, tier {ran.conclusion.tier}"
    yield f"         concluded: {word}; {len(ran.findings) or 'no'} findings"
    for line in finding_lines(ran.findings):
        yield f"       {line}"
