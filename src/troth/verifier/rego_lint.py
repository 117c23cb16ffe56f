# SPDX-License-Identifier: Apache-2.0
"""What rego-cpp would let pass and OPA refuses: unknown functions and undefined variables.

In rego-cpp `not no_such_function(x)` and `not no_such_variable` are true. A policy that says
`status := "affirming" if not debug_enabled(input.claims)` with a slip in the name would affirm
everything. So a policy with an error found here is not evaluated at all.

The check of variables is by token, statement by statement. It errs towards silence: a name that
could be bound anywhere in its statement counts as bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from troth.verifier.rego_source import KEYWORDS, RegoSource, Statement, Token

__all__ = ["LintError", "lint"]

# Evaluation must be repeatable: the same document gives the same verdict, today and in a replay.
_IMPURE = {
    "time.now_ns": "use input.now_ns: one appraisal reads the clock once",
    "rand.intn": "a verdict must not depend on chance",
    "uuid.rfc4122": "a verdict must not depend on chance",
    "opa.runtime": "it would hand the Verifier's environment to the policy",
    "http.send": "a Verifier fetches nothing while it appraises",
    "net.lookup_ip_addr": "a Verifier fetches nothing while it appraises",
}
_EXPRESSION_ENDS = frozenset({"{", ";", "|", "(", ","})
_PAIRS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class LintError:
    """Why a policy must not be evaluated.

    Attributes:
        line: from 1.
        message: what is wrong and what to do.
    """

    line: int
    message: str


def lint(
    source: RegoSource, *, builtin: Callable[[str], bool], provided: Iterable[str] = ()
) -> list[LintError]:
    """Return what is wrong with `source`, in order of lines; an empty list is a clean policy.

    Says nothing about syntax (the compiler does) nor about misspelt members of the input.

    Args:
        source: the policy.
        builtin: whether the evaluator has a builtin function of that name.
        provided: functions and constants that the evaluator adds to the policy's package.
    """
    rules = {name.partition(".")[0] for name in source.rules}
    known = rules | source.imports | set(provided) | {"input", "data"}
    errors = []
    for statement in source.statements:
        if statement.keyword:
            continue
        view = _View(statement, source.package)
        errors += [e for call in view.calls() if (e := _call_error(call, known, builtin))]
        bound = known | view.bound_names()
        errors += [
            LintError(token.line, f"undefined variable {token.text!r}: no rule, import or "
                      "assignment in this package gives it a value")
            for token in view.free_names()
            if token.text not in bound
        ]  # fmt: skip
        errors += view.unknown_own_references(known)
    return sorted(errors, key=lambda error: error.line)


def _call_error(
    call: tuple[str, int], known: set[str], builtin: Callable[[str], bool]
) -> LintError | None:
    name, line = call
    if reason := _IMPURE.get(name):
        return LintError(line, f"{name} is not available to an Appraisal Policy: {reason}")
    head, _, rest = name.partition(".")
    if (not rest and head in known) or (rest and head in known and head != "input"):
        return None
    if builtin(name):
        return None
    return LintError(line, f"unknown function {name!r}: neither builtin nor defined in the policy")


class _View:
    """One rule, seen as brackets and references."""

    def __init__(self, statement: Statement, package: str) -> None:
        self.tokens: Sequence[Token] = statement.tokens
        self.statement = statement
        self.package = package
        self.partner = _partners(self.tokens)
        self.depth, self.in_head = _depths(self.tokens)

    def calls(self) -> Iterator[tuple[str, int]]:
        """Yield the dotted name and line of each call, the head of a function left out."""
        for index, token in enumerate(self.tokens):
            if token.text != "(" or not token.glued or index == self._head_parenthesis():
                continue
            if self.tokens[index - 1].kind != "name":
                continue
            start = self._reference_start(index - 1)
            yield "".join(t.text for t in self.tokens[start:index]), self.tokens[start].line

    def free_names(self) -> Iterator[Token]:
        """Yield each name that stands as a variable: no keyword, member, call or wildcard."""
        for index, token in enumerate(self.tokens):
            if token.kind != "name" or token.text in KEYWORDS or token.text == "_":
                continue
            if index < self._head_end() or self._is_member(index) or self._is_call(index):
                continue
            yield token

    def bound_names(self) -> set[str]:
        """Return the names that something in the rule may give a value to."""
        bound: set[str] = set()
        head = self._head_parenthesis()
        if head is not None:
            bound |= self._names(head + 1, self.partner.get(head, len(self.tokens)))
        for index, token in enumerate(self.tokens):
            if token.text in ("some", "every") and token.kind == "name":
                bound |= self._names(index + 1, self._declaration_end(index + 1))
            elif token.text in (":=", "=") and not (self.in_head[index] and not self.depth[index]):
                bound |= self._left_pattern(index, whole=token.text == ":=")
                if token.text == "=":
                    bound |= self._right_pattern(index)
            elif token.text == "[" and self._binds_by_index(index):
                bound |= self._names(index + 1, self.partner.get(index, len(self.tokens)))
        return bound

    def unknown_own_references(self, known: set[str]) -> list[LintError]:
        """Find `data.<own package>.<name>` where the package has no such name."""
        errors = []
        path = ["data", *self.package.split(".")]
        span = 2 * len(path) - 1
        for index, token in enumerate(self.tokens):
            if token.text != "data" or self._is_member(index):
                continue
            if [t.text for t in self.tokens[index : index + span : 2]] != path:
                continue
            following = self.tokens[index + span : index + span + 2]
            if len(following) == 2 and following[0].text == "." and following[1].text not in known:
                errors.append(
                    LintError(token.line, f"undefined variable {following[1].text!r} in "
                              f"{'.'.join(path)}")
                )  # fmt: skip
        return errors

    def _head_parenthesis(self) -> int | None:
        end = self._head_end()
        return end if self.statement.is_function else None

    def _head_end(self) -> int:
        """Return the index after the rule's own name."""
        index = 1 if self.tokens[0].text == "default" else 0
        return index + 2 * self.statement.name.count(".") + 1

    def _key_end(self) -> int:
        """Return the index where the head's name, keys or arguments end."""
        for index, token in enumerate(self.tokens):
            if not self.depth[index] and token.text in (":=", "=", "{", "if", "contains"):
                return index
        return len(self.tokens)

    def _names(self, start: int, end: int) -> set[str]:
        return {
            token.text
            for index, token in enumerate(self.tokens[start:end], start)
            if token.kind == "name" and token.text not in KEYWORDS and not self._is_member(index)
        }

    def _is_member(self, index: int) -> bool:
        return index > 0 and self.tokens[index - 1].text == "." and self.tokens[index].glued

    def _is_call(self, index: int) -> bool:
        index += 1
        while index + 1 < len(self.tokens) and self.tokens[index].text == ".":
            index += 2
        return (
            index < len(self.tokens) and self.tokens[index].text == "(" and self.tokens[index].glued
        )

    def _reference_start(self, index: int) -> int:
        while index >= 2 and self._is_member(index):
            index -= 2
        return index

    def _declaration_end(self, start: int) -> int:
        for index in range(start, len(self.tokens)):
            token = self.tokens[index]
            if token.kind == "newline" or token.text in ("in", ";", "}"):
                return index
        return len(self.tokens)

    def _left_pattern(self, index: int, *, whole: bool) -> set[str]:
        """Return the names left of an assignment: one name, or all in an array or object."""
        last = index - 1
        if last < 0:
            return set()
        if self.tokens[last].text in _PAIRS:
            opening = self.partner.get(last, last)
            is_index = (
                opening > 0 and self._is_reference(opening - 1) and self.tokens[opening].glued
            )
            return set() if is_index else self._names(opening + 1, last)
        start = self._reference_start(last)
        lone = start == last and (whole or self._starts_expression(start))
        return self._names(start, last + 1) if lone else set()

    def _right_pattern(self, index: int) -> set[str]:
        first = index + 1
        if first >= len(self.tokens):
            return set()
        if self.tokens[first].text in ("[", "{"):
            return self._names(first + 1, self.partner.get(first, first + 1))
        following = self.tokens[first + 1] if first + 1 < len(self.tokens) else None
        if following is None or following.text not in (".", "(", "["):
            return self._names(first, first + 1)
        return set()

    def _starts_expression(self, index: int) -> bool:
        before = self.tokens[index - 1] if index else None
        return (
            before is None
            or before.kind == "newline"
            or before.text in _EXPRESSION_ENDS
            or before.text in ("if", "not")
        )

    def _binds_by_index(self, index: int) -> bool:
        """Say whether this bracket is `ref[name]`, `ref[[a, b]]` or an array in a call's arguments."""
        closing = self.partner.get(index, -1)
        before = self.tokens[index - 1] if index else None
        if before is None:
            return False
        if self.tokens[index].glued and self._is_reference(index - 1):
            if index < self._key_end():
                return False
            single = closing == index + 2 and self.tokens[index + 1].kind == "name"
            within = self.tokens[index + 1 : index + 2]  # none where the bracket ends the policy
            return single or any(token.text in ("[", "{") for token in within)
        return before.text in (",", "(") and self._inside_call(index)

    def _is_reference(self, index: int) -> bool:
        token = self.tokens[index]
        return (token.kind == "name" and token.text not in KEYWORDS) or token.text in ("]", ")")

    def _inside_call(self, index: int) -> bool:
        level = 0
        for position in range(index - 1, -1, -1):
            text = self.tokens[position].text
            if text in _PAIRS:
                level += 1
            elif text in _PAIRS.values():
                if level == 0:
                    return text == "(" and self.tokens[position].glued
                level -= 1
        return False


def _partners(tokens: Sequence[Token]) -> dict[int, int]:
    """Map each bracket's index to that of its partner."""
    partner: dict[int, int] = {}
    stack: list[int] = []
    for index, token in enumerate(tokens):
        if token.kind != "punct":
            continue
        if token.text in _PAIRS.values():
            stack.append(index)
        elif token.text in _PAIRS and stack:
            partner[index] = stack.pop()
            partner[partner[index]] = index
    return partner


def _depths(tokens: Sequence[Token]) -> tuple[list[int], list[bool]]:
    """Return each token's bracket depth, and whether it is still in a rule's head."""
    depths, heads = [], []
    depth, head = 0, True
    for token in tokens:
        if token.kind == "punct" and token.text in _PAIRS:
            depth -= 1
        if depth == 0 and token.kind == "name" and token.text in ("if", "else"):
            head = token.text == "else"
        depths.append(depth)
        heads.append(head)
        if token.kind == "punct" and token.text in _PAIRS.values():
            depth += 1
    return depths, heads
