# SPDX-License-Identifier: Apache-2.0
"""The text of a Rego module as tokens and statements, enough to lint it and to point at lines.

This is no Rego parser: rego-cpp parses and evaluates. Its errors carry no rule names, and it
lets pass what OPA refuses, so we need to see which rules a module declares, which functions it
calls and which variables it binds.

Source: the Rego grammar, openpolicyagent.org/docs/policy-reference (v0 and v1 syntax).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["KEYWORDS", "RegoSource", "Statement", "Token"]

KEYWORDS = frozenset(
    {"as", "contains", "default", "else", "every", "false", "if", "import", "in", "not", "null"}
    | {"package", "some", "true", "with"}
)

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<space>[^\S\n]+)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<punct>:=|==|!=|<=|>=|.)""",
    re.VERBOSE,
)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
# After one of these, a newline does not end a statement.
_CONTINUES = frozenset(
    {":=", "=", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "&", "|", ",", "."}
    | {"if", "in", "contains", "not", "with", "as", "some", "every"}
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    Attributes:
        kind: "name", "string", "number", "punct" or "newline".
        text: as written; a string keeps its quotes.
        line: from 1.
        glued: nothing stands between it and the token before.
    """

    kind: str
    text: str
    line: int
    glued: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """One top-level statement: package, import, or a rule with its `else` branches.

    Attributes:
        tokens: newlines included where they separate expressions.
        keyword: "package", "import", or "" for a rule.
        name: the rule's name with dots, the package's path, or the import's alias.
        is_function: whether the rule takes arguments.
    """

    tokens: Sequence[Token] = field(repr=False)
    keyword: str
    name: str
    is_function: bool = False

    @property
    def line(self) -> int:
        """Return the line on which the statement begins."""
        return self.tokens[0].line


@dataclass(frozen=True)
class RegoSource:
    """One module's text.

    Attributes:
        text: the module.
        name: file name or other label, for messages.
    """

    text: str
    name: str = "policy.rego"

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens; a character that belongs to no token comes as punctuation."""
        return tuple(_tokens(self.text))

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """Return the top-level statements in order."""
        return tuple(_statement(group) for group in _split(self.tokens))

    @cached_property
    def without_comments(self) -> str:
        """The text with each comment blanked out, so that every byte keeps its place.

        rego-cpp refuses some comments, such as one with a comma at the end of a rule.
        """
        return "".join(
            " " * len(match.group().encode()) if match.lastgroup == "comment" else match.group()
            for match in _TOKEN.finditer(self.text)
        )

    @property
    def package(self) -> str:
        """Return the package path with dots, or "" where there is none."""
        return next((s.name for s in self.statements if s.keyword == "package"), "")

    @cached_property
    def rules(self) -> dict[str, list[int]]:
        """Map each rule's name to the lines where its definitions begin."""
        lines: dict[str, list[int]] = {}
        for statement in self.statements:
            if not statement.keyword:
                lines.setdefault(statement.name, []).append(statement.line)
        return lines

    @cached_property
    def imports(self) -> frozenset[str]:
        """Return the names that imports bring into scope."""
        return frozenset(s.name for s in self.statements if s.keyword == "import")

    def words(self) -> frozenset[str]:
        """Return every identifier and the contents of every string literal."""
        return frozenset(
            token.text.strip('"`') for token in self.tokens if token.kind in ("name", "string")
        )

    def line_of_literal(self, values: Sequence[str]) -> int | None:
        """Return the line of the first of `values` that stands in the text as a string literal."""
        for value in values:
            for token in self.tokens:
                if token.kind == "string" and value and token.text[1:-1] == value:
                    return token.line
        return None

    def line_at(self, offset: int) -> int:
        """Return the line of the byte `offset` of the UTF-8 text."""
        return self.text.encode()[:offset].count(b"\n") + 1


def _tokens(text: str) -> Iterator[Token]:
    line, glued = 1, False
    for match in _TOKEN.finditer(text):
        kind, value = match.lastgroup or "punct", match.group()
        if kind not in ("space", "comment"):
            yield Token(kind, value, line, glued)
        glued = kind not in ("space", "comment", "newline")
        line += value.count("\n")


def _split(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Cut where a line begins, outside all brackets, with a name that can start a statement."""
    group: list[Token] = []
    depth = 0
    for token in tokens:
        before = group[-1] if group else None
        if (
            depth <= 0
            and token.kind == "name"
            and token.text != "else"
            and before is not None
            and before.kind == "newline"
            and _complete(group)
        ):
            yield group
            group = []
        if token.kind == "newline" and not group:
            continue
        group.append(token)
        if token.kind == "punct":
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
    if group:
        yield group


def _complete(group: Sequence[Token]) -> bool:
    last = next((token for token in reversed(group) if token.kind != "newline"), None)
    return last is None or last.text not in _CONTINUES


def _statement(tokens: list[Token]) -> Statement:
    while tokens and tokens[-1].kind == "newline":
        tokens.pop()
    first = tokens[0].text
    if first in ("package", "import"):
        path = [token.text for token in tokens[1:] if token.kind == "name"]
        name = ".".join(path) if first == "package" else path[-1] if path else ""
        return Statement(tuple(tokens), first, name)
    start = 1 if first == "default" else 0
    name, index = "", start
    while index < len(tokens):
        token = tokens[index]
        if token.kind != "name" and not (token.text == "." and token.glued):
            break
        if token.kind == "name" and name and not name.endswith("."):
            break
        name += token.text
        index += 1
    is_function = index < len(tokens) and tokens[index].text == "("
    return Statement(tuple(tokens), "", name or first, is_function)
