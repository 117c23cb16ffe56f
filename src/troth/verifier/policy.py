# SPDX-License-Identifier: Apache-2.0
"""The Appraisal Policy: Rego that an operator writes, and what its evaluation may change.

A policy may set trustworthiness claims, worse or better than the appraiser left them, and report
findings of its own. It may lower the status. It cannot raise the status above the worst claim:
who wants a claim to count as good has to say so of that claim, and the result shows that it did.
What is undefined, fails, does not conform, or is not understood is contraindicated.

Source: RFC 9334 section 8.5; draft-ietf-rats-ear-03 section 3.2 (status and vector).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib import resources
from typing import Final

from troth.formats.ar4si import CLAIM_NAMES, TrustTier, TrustworthinessVector, tier_of
from troth.formats.ar4si_values import describe
from troth.verifier.case import AppraisalCase
from troth.verifier.finding import Finding
from troth.verifier.policy_document import TIME_MEMBERS, mentions_nonce
from troth.verifier.policy_vocabulary import (
    VOCABULARIES,
    NonconformingError,
    PolicyOutcome,
    Vocabulary,
    vocabulary_of,
)
from troth.verifier.rego import NOT_COMPILED, Evaluation, Program, RegoEvaluator, is_builtin
from troth.verifier.rego_lint import lint
from troth.verifier.rego_source import RegoSource

__all__ = ["MAX_POLICY_BYTES", "POLICY_DEADLINE_SECONDS", "AppraisalPolicy", "PolicyVerdict"]

MAX_POLICY_BYTES: Final = 262_144
"""Octets of one policy's text."""

POLICY_DEADLINE_SECONDS: Final = 1.0
"""How long one evaluation may take; whoever implements `RegoEvaluator` at an edge enforces it."""

_MODULE: Final = "policy.rego"
_OUTCOME_PACKAGE: Final = "troth_outcome"
_SEVERITY_TIER: Final = {
    "contraindicated": TrustTier.CONTRAINDICATED,
    "warning": TrustTier.WARNING,
    "note": TrustTier.NONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdict:
    """What a policy made of one case.

    Attributes:
        status: final for this claims set.
        vector: with the claims that the policy set.
        findings: the appraiser's, then the policy's.
        added_claims: what the policy wants the result to carry.
        failed: the policy gave no verdict; another time it may.
    """

    status: TrustTier
    vector: TrustworthinessVector
    findings: tuple[Finding, ...]
    added_claims: Mapping[str, object] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True)
class AppraisalPolicy:
    """One policy. Making one never fails: a broken policy contraindicates, and says why.

    Attributes:
        id: name that results carry, such as "default" or the operator's own.
        source: the Rego module.
        reference: data that the policy finds under `data.reference`.
    """

    id: str
    source: RegoSource
    reference: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        name: str,
        policy_id: str = "",
        reference: Mapping[str, object] | None = None,
    ) -> AppraisalPolicy:
        """Return the policy written in `text`.

        Args:
            text: the Rego module.
            name: file name or other label, for findings.
            policy_id: what results call the policy; by default the name without its suffix.
            reference: data for `data.reference`.
        """
        source = RegoSource(text, name)
        return cls(policy_id or name.removesuffix(".rego"), source, reference or {})

    @classmethod
    def default(cls) -> AppraisalPolicy:
        """Return the policy that applies where none is configured."""
        return _default_policy()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the policy's text, lower-case hex."""
        return hashlib.sha256(self.source.text.encode()).hexdigest()

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The words that it speaks, or None where they are not known."""
        return vocabulary_of(self.source)

    @cached_property
    def repeatable(self) -> bool:
        """Whether equal claims give an equal verdict: it looks neither at nonces nor at the time.

        Then its documents hold neither, and verdicts may be kept.
        """
        return not self.mentions_nonce and not (self.members & TIME_MEMBERS)

    @cached_property
    def mentions_nonce(self) -> bool:
        """Whether its text speaks of a nonce or challenge."""
        return mentions_nonce(self.source)

    @cached_property
    def members(self) -> frozenset[str]:
        """The members of `input` that it may read."""
        if self.vocabulary is None:
            return frozenset()
        named = frozenset(_input_members(self.source))
        if self.vocabulary.preamble:
            named |= self.source.words()
        return self.vocabulary.members if "*" in named else self.vocabulary.members & named

    @cached_property
    def program(self) -> Program:
        """The modules that are evaluated."""
        vocabulary = self.vocabulary
        modules = [(_MODULE, self.source.without_comments)]
        hooks = self._declared_hooks()
        if vocabulary is not None and vocabulary.preamble:
            modules.append(("preamble.rego", vocabulary.preamble))
        package = self.source.package
        outcome = "".join(f'o["{hook}"] := data.{package}.{hook}\n' for hook in hooks)
        modules.append(("outcome.rego", f"package {_OUTCOME_PACKAGE}\n{outcome}"))
        data = json.dumps({"reference": dict(self.reference)})
        content = json.dumps([modules, data]).encode()
        return Program(
            tuple(modules), f"{_OUTCOME_PACKAGE}/o", data, hashlib.sha256(content).hexdigest()
        )

    def lint(self) -> list[Finding]:
        """Return why this policy would contraindicate everything; an empty list is none.

        Syntax is not looked at: the first evaluation reports it.
        """
        return list(self._defects)

    def check(self, evaluator: RegoEvaluator) -> list[Finding]:
        """Return what `lint` does, or else what the compiler holds against the text.

        Says nothing about what the policy makes of any Evidence: test it for that.
        """
        if self._defects:
            return self.lint()
        evaluation = evaluator.evaluate(self.program, {})
        if not evaluation.failure.startswith(NOT_COMPILED):
            return []
        return [self._defect(self._failure_line(evaluation), evaluation.failure)]

    def document(self, case: AppraisalCase) -> dict[str, object]:
        """Return the input that the policy sees of `case`."""
        if self.vocabulary is None:
            return {}
        return self.vocabulary.document(case, self.members, self.mentions_nonce)

    def apply(self, case: AppraisalCase, evaluator: RegoEvaluator) -> PolicyVerdict:
        """Return the verdict on `case`. Whatever goes wrong makes it contraindicated."""
        if self._defects:
            return _failed(case, self._defects)
        evaluation = evaluator.evaluate(self.program, self.document(case))
        if evaluation.failure:
            line = self._failure_line(evaluation)
            return _failed(case, [self._defect(line, evaluation.failure)])
        try:
            outcome = self._outcome(evaluation.value)
        except NonconformingError as exc:
            return _failed(case, [self._defect(self._line(exc.rule), str(exc))])
        return self._verdict(case, outcome)

    @cached_property
    def _defects(self) -> list[Finding]:
        source = self.source
        if len(source.text) > MAX_POLICY_BYTES:
            return [self._defect(None, f"it is longer than MAX_POLICY_BYTES={MAX_POLICY_BYTES}")]
        if self.vocabulary is None:
            known = " or ".join(sorted({vocabulary.package for vocabulary in VOCABULARIES}))
            problem = f"package {source.package!r}" if source.package else "no package"
            return [self._defect(1, f"{problem} is declared; expected package {known}")]
        hooks = self._declared_hooks()
        missing = [rule for rule in self.vocabulary.required if rule not in hooks]
        if missing or not hooks:
            expected = ", ".join(missing or self.vocabulary.hooks)
            return [self._defect(None, f"it defines no rule {expected}")]
        errors = lint(source, builtin=is_builtin, provided=self.vocabulary.provided)
        return [self._defect(error.line, error.message) for error in errors]

    def _declared_hooks(self) -> list[str]:
        if self.vocabulary is None:
            return []
        return [hook for hook in self.vocabulary.hooks if hook in self.source.rules]

    def _outcome(self, rules: object) -> PolicyOutcome:
        if not isinstance(rules, dict) or self.vocabulary is None:
            raise NonconformingError("", "the outcome is not an object")
        for hook in self._declared_hooks():
            if hook not in rules:
                raise NonconformingError(hook, "it is undefined for this Evidence")
        return self.vocabulary.read(rules)

    def _failure_line(self, evaluation: Evaluation) -> int | None:
        known = evaluation.module == _MODULE and evaluation.offset >= 0
        return self.source.line_at(evaluation.offset) if known else None

    def _line(self, rule: str) -> int | None:
        return self.source.rules.get(rule, [None])[0]

    def _place(self, line: int | None) -> str:
        return f"policy {self.id} ({self.source.name}{f':{line}' if line else ''})"

    def _defect(self, line: int | None, problem: str) -> Finding:
        return Finding(
            claim="appraisal-policy",
            expected="a policy that evaluates to a verdict",
            actual=problem,
            rule=self._place(line),
            remedy=f"Correct the policy in {self.source.name}; until then nothing is affirmed.",
        )

    def _verdict(self, case: AppraisalCase, outcome: PolicyOutcome) -> PolicyVerdict:
        vector = case.vector
        if outcome.claims:
            vector = TrustworthinessVector.from_json({**vector.to_json(), **outcome.claims})
        own = [self._reported(finding, case) for finding in outcome.findings]
        own += self._changed(case, outcome)
        worst = vector.worst
        status = max([worst, *(_SEVERITY_TIER[f.severity] for f in own)])
        if outcome.status is not None:
            asked = outcome.status
            if asked.is_better_than(worst):
                own.append(self._refused_raise(case, asked, worst))
            elif TrustTier.least_trusted([asked, status]) is asked:
                status = asked
        return PolicyVerdict(
            status=status,
            vector=vector,
            findings=(*case.findings, *own),
            added_claims=outcome.added_claims,
        )

    def _reported(self, finding: Finding, case: AppraisalCase) -> Finding:
        """Complete a finding of the policy with the place in its text that it came from."""
        line = self.source.line_of_literal(
            [finding.remedy, finding.expected, finding.actual, finding.claim]
        )
        if line is None:
            line = self._line("findings")
        place = self._place(line)
        rule = f"{finding.rule}; {place}" if finding.rule else place
        return replace(finding, rule=rule, submod=case.claims_set.label)

    def _changed(self, case: AppraisalCase, outcome: PolicyOutcome) -> Iterator[Finding]:
        """Report each claim that the policy set otherwise than the appraiser."""
        for name, value in outcome.claims.items():
            before = getattr(case.vector, CLAIM_NAMES[name]) or 0
            if before == value:
                continue
            attribute = CLAIM_NAMES[name]
            rule = attribute if attribute in self.source.rules else ""
            line = self._line(
                rule or ("vector" if "vector" in self.source.rules else "trust_claims")
            )
            yield Finding(
                claim=name,
                expected=f"{before} ({describe(name, before).short}), by the appraiser",
                actual=f"{value} ({describe(name, value).short}), by the policy",
                rule=self._place(line),
                remedy="Nothing, if the policy is meant to decide this claim.",
                submod=case.claims_set.label,
                severity="note" if tier_of(value) <= TrustTier.AFFIRMING else tier_of(value).word,
            )

    def _refused_raise(self, case: AppraisalCase, asked: TrustTier, worst: TrustTier) -> Finding:
        return Finding(
            claim="status",
            expected=f"no better than the worst claim, {worst.word}",
            actual=f"the policy asks for {asked.word}",
            rule=f"{self._place(self._line('status'))}; draft-ietf-rats-ear-03 section 3.2",
            remedy="Let the policy set the claims that it means to accept.",
            submod=case.claims_set.label,
            severity="note",
        )


def _failed(case: AppraisalCase, findings: Sequence[Finding]) -> PolicyVerdict:
    label = case.claims_set.label
    return PolicyVerdict(
        status=TrustTier.CONTRAINDICATED,
        vector=case.vector,
        findings=(*case.findings, *(replace(finding, submod=label) for finding in findings)),
        failed=True,
    )


def _input_members(source: RegoSource) -> Iterator[str]:
    """Yield the members of `input` that the text names; "*" where it uses `input` as a whole."""
    tokens = source.tokens
    for index, token in enumerate(tokens):
        if token.text != "input" or token.kind != "name":
            continue
        if index and tokens[index - 1].text == "." and token.glued:
            continue
        following = tokens[index + 1 : index + 4]
        if len(following) >= 2 and following[0].text == ".":
            yield following[1].text
        elif (
            len(following) == 3
            and following[0].text == "["
            and following[1].kind == "string"
            and following[2].text == "]"
        ):
            yield following[1].text[1:-1]
        else:
            yield "*"


@cache
def _default_policy() -> AppraisalPolicy:
    # Part of the program's text, read once; it stands in a file so that people can copy it.
    text = resources.files("troth.verifier").joinpath("policies/default.rego").read_text("utf-8")
    return AppraisalPolicy.from_text(text, name="default.rego")
