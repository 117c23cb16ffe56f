# SPDX-License-Identifier: Apache-2.0
"""The words in which Appraisal Policies speak: Troth's own, Veraison's and Trustee's.

A vocabulary is known by the policy's package and rules. It says which rules a policy may define,
what the policy sees, what is added to its package, and how its outcome is read. People who have
policies for the other two projects bring them along unchanged.

Source: docs/reference/policy.md; Veraison services, policy hook of the OPA backend (2026-08);
Trustee attestation service, EAR token broker (2026-08).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from troth.errors import DecodeError
from troth.formats.ar4si import CLAIM_NAMES, TrustTier
from troth.formats.ar4si_values import CLAIM_VALUES, COMMON_VALUES, value_of_tag
from troth.verifier.case import AppraisalCase
from troth.verifier.finding import Finding
from troth.verifier.policy_document import (
    TROTH_MEMBERS,
    VERAISON_MEMBERS,
    troth_document,
    trustee_document,
    veraison_document,
)
from troth.verifier.rego_source import RegoSource

__all__ = ["VOCABULARIES", "NonconformingError", "PolicyOutcome", "Vocabulary", "vocabulary_of"]

MAX_POLICY_FINDINGS: Final = 64
"""Findings that one evaluation of a policy may add."""

_SEVERITIES: Final = ("contraindicated", "warning", "note")
_ATTRIBUTE_TO_NAME: Final = {attribute: name for name, attribute in CLAIM_NAMES.items()}


class NonconformingError(Exception):
    """A rule of a policy has a value that it must not have. Never leaves this package."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"rule {rule!r}: {message}")
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOutcome:
    """What one evaluation of a policy decided, read from its vocabulary.

    Attributes:
        status: the status that the policy asks for, or None where it leaves it to the vector.
        claims: trustworthiness claims that it sets, by JSON name.
        findings: what it reports; `rule` may be "" where the policy did not fill it.
        added_claims: claims that go to the Attestation Result as they are.
    """

    status: TrustTier | None = None
    claims: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    added_claims: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """One way of speaking.

    Attributes:
        name: "troth", "veraison" or "trustee".
        package: the package that a policy declares.
        hooks: the rules that are read.
        required: hooks of which a policy must define all.
        members: what `input` may hold; empty where that depends on the Evidence.
        preamble: Rego that is added to the policy's package.
        document: builds the input.
        read: reads the hooks' values.
    """

    name: str
    package: str
    hooks: Sequence[str]
    required: Sequence[str]
    members: frozenset[str]
    preamble: str
    document: Callable[[AppraisalCase, frozenset[str], bool], dict[str, object]]
    read: Callable[[Mapping[str, object]], PolicyOutcome]

    @property
    def provided(self) -> frozenset[str]:
        """The names that the preamble defines."""
        return frozenset(RegoSource(self.preamble).rules)


def vocabulary_of(source: RegoSource) -> Vocabulary | None:
    """Return the vocabulary that the module speaks, or None where its package is not known."""
    for vocabulary in VOCABULARIES:
        if vocabulary.package == source.package and all(
            rule in source.rules for rule in vocabulary.required
        ):
            return vocabulary
    candidates = [each for each in VOCABULARIES if each.package == source.package]
    return candidates[-1] if candidates else None


def _read_troth(rules: Mapping[str, object]) -> PolicyOutcome:
    return PolicyOutcome(
        status=_word("status", rules["status"]) if "status" in rules else None,
        claims=_claims("vector", rules.get("vector", {})),
        findings=_findings(rules.get("findings", [])),
        added_claims=_object("added_claims", rules.get("added_claims", {})),
    )


def _read_veraison(rules: Mapping[str, object]) -> PolicyOutcome:
    claims = {
        _ATTRIBUTE_TO_NAME[rule]: value for rule, value in rules.items() if rule in _ATTRIBUTES
    }
    status = rules.get("status")
    return PolicyOutcome(
        # Veraison's default is 0 for "the policy does not say".
        status=None if status in (None, 0) else _status("status", status),
        claims={
            name: _claim(name.replace("-", "_"), name, value)
            for name, value in claims.items()
            if value != 0
        },
        added_claims=_object("added_claims", rules.get("added_claims", {})),
    )


def _read_trustee(rules: Mapping[str, object]) -> PolicyOutcome:
    claims = _claims("trust_claims", rules["trust_claims"])
    if not any(claims.values()):
        raise NonconformingError("trust_claims", "it sets no claim")
    added: dict[str, object] = {}
    extensions = rules.get("extensions", [])
    if not isinstance(extensions, list):
        raise NonconformingError("extensions", "it is not an array")
    for extension in extensions:
        name = extension.get("name") if isinstance(extension, dict) else None
        if not isinstance(name, str) or "value" not in extension:
            raise NonconformingError("extensions", "an element has no name or no value")
        added[name] = extension["value"]
    return PolicyOutcome(
        claims={name: value for name, value in claims.items() if value}, added_claims=added
    )


def _word(rule: str, value: object) -> TrustTier:
    try:
        return TrustTier.from_word(value)
    except DecodeError as exc:
        raise NonconformingError(rule, str(exc)) from exc


def _status(rule: str, value: object) -> TrustTier:
    if isinstance(value, str):
        return _word(rule, value)
    try:
        return TrustTier.from_number(value)
    except DecodeError as exc:
        raise NonconformingError(rule, str(exc)) from exc


def _claims(rule: str, value: object) -> dict[str, int]:
    return {name: _claim(rule, name, each) for name, each in _object(rule, value).items()}


def _claim(rule: str, name: str, value: object) -> int:
    """Read a claim's value: a number of eight bits, or the tag of one of its standard values."""
    if name not in CLAIM_NAMES:
        raise NonconformingError(rule, f"{name!r} is none of {', '.join(CLAIM_NAMES)}")
    if isinstance(value, str):
        number = value_of_tag(name, value)
        if number is not None:
            return number
    elif type(value) is int and -128 <= value <= 127:
        return value
    raise NonconformingError(rule, f"{_shown(value)} is no value of {name}")


def _object(rule: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise NonconformingError(rule, f"{_shown(value)} is not an object")
    return value


def _findings(value: object) -> list[Finding]:
    if not isinstance(value, list):
        raise NonconformingError("findings", f"{_shown(value)} is not a set or array")
    if len(value) > MAX_POLICY_FINDINGS:
        raise NonconformingError("findings", f"more than MAX_POLICY_FINDINGS={MAX_POLICY_FINDINGS}")
    return [_finding(each) for each in value]


def _finding(value: object) -> Finding:
    members = _object("findings", value)
    severity = members.get("severity", "contraindicated")
    if not isinstance(members.get("claim"), str):
        raise NonconformingError("findings", "one has no claim")
    if severity not in _SEVERITIES:
        raise NonconformingError(
            "findings", f"severity {_shown(severity)} is none of {', '.join(_SEVERITIES)}"
        )
    texts = {name: members.get(name, "") for name in ("expected", "actual", "rule", "remedy")}
    return Finding(
        claim=str(members["claim"]),
        severity=str(severity),
        **{
            name: text if isinstance(text, str) else json.dumps(text)
            for name, text in texts.items()
        },
    )


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


_ATTRIBUTES: Final = frozenset(CLAIM_NAMES.values())


def _constants() -> str:
    """Return the names that Veraison's policies use for tiers and claim values, as Rego."""
    constants = {"AFFIRMING": 2, "WARNING": 32, "CONTRAINDICATED": 96}
    # Two names are misspelt where they come from; policies use them so.
    constants |= {"UNEXECTED_EVIDENCE": 1, "UNENCRYPTED_SECRETES": 96}
    for described in (COMMON_VALUES, *CLAIM_VALUES.values()):
        constants |= {each.tag.upper(): number for number, each in described.items()}
    return "".join(f"{name} := {number}\n" for name, number in sorted(constants.items()))


_VERAISON_PREAMBLE: Final = (
    "package policy\n\n"
    + "".join(f"{name} := input.{name}\n" for name in sorted(VERAISON_MEMBERS))
    + _constants()
    + """
troth_version(text) := numbers {
	parts := split(text, ".")
	numbers := [to_number(part) | part := parts[_]]
	count(numbers) == count(parts)
}

troth_part(version, index) := version[index] {
	index < count(version)
} else := -1

# 1, 0 or -1 as the first dotted version is higher than, equal to, or lower than the second.
# Part by part, because rego-cpp compares arrays by their text: there, [10] < [9].
semver_cmp(first, second) := result {
	left := troth_version(first)
	right := troth_version(second)
	differences := [difference |
		index := numbers.range(0, max([count(left), count(right)]) - 1)[_]
		difference := troth_part(left, index) - troth_part(right, index)
		difference != 0
	]
	result := troth_sign(differences)
}

troth_sign(differences) := 1 {
	differences[0] > 0
} else := -1 {
	differences[0] < 0
} else := 0
"""
)

_TRUSTEE_PREAMBLE: Final = """package policy

# Reference values come from the policy's own data; null where there are none, as in Trustee.
query_reference_value(id) := data.reference[id] {
	data.reference[id]
} else := null
"""

VOCABULARIES: Final[Sequence[Vocabulary]] = (
    Vocabulary(
        name="troth",
        package="troth.appraisal",
        hooks=("status", "vector", "findings", "added_claims"),
        required=(),
        members=frozenset(TROTH_MEMBERS),
        preamble="",
        document=lambda case, members, nonce: troth_document(case, members, nonce=nonce),
        read=_read_troth,
    ),
    Vocabulary(
        name="trustee",
        package="policy",
        hooks=("trust_claims", "extensions"),
        required=("trust_claims",),
        members=frozenset(),
        preamble=_TRUSTEE_PREAMBLE,
        document=lambda case, _, nonce: trustee_document(case, nonce=nonce),
        read=_read_trustee,
    ),
    Vocabulary(
        name="veraison",
        package="policy",
        hooks=("status", *sorted(_ATTRIBUTES), "added_claims"),
        required=(),
        members=frozenset(VERAISON_MEMBERS),
        preamble=_VERAISON_PREAMBLE,
        document=lambda case, members, nonce: veraison_document(case, members, nonce=nonce),
        read=_read_veraison,
    ),
)
"""The vocabularies; the first that fits a policy is taken."""
