# SPDX-License-Identifier: Apache-2.0
"""OPA refuses these policies; rego-cpp evaluates them, and `not` makes a yes of them."""

from __future__ import annotations

import pytest

from troth.verifier.rego import is_builtin
from troth.verifier.rego_lint import lint
from troth.verifier.rego_source import RegoSource


def problems(text: str) -> list[tuple[int, str]]:
    source = RegoSource(f"package p\nimport rego.v1\n{text}\n")
    return [(e.line - 2, e.message) for e in lint(source, builtin=is_builtin, provided=("GIVEN",))]


@pytest.mark.parametrize(
    "rule",
    [
        "x if { some i, v in input.list; v == i }",
        "x if { every key, value in input.map { value > key } }",
        "x contains v if { walk(input, [_, v]) }",
        "x := input.list[i].name",
        "x if { input.list[i].a == 1; input.list[i].b == i }",
        "x[k] := v if { v := input.map[k] }",
        "x := [y | y := input.list[_]; y > 1]\nz := {k: v | some k, v in input.map}",
        "f(a, [b, c]) := d if { d := (a + b) + c }\nx := f(1, [2, 3])",
        'x if { [a, b] := split(input.s, "."); a == b }',
        'x if { {"key": k} = input.map; k == 1 }',
        "x := 1 if { input.a = v; v > 2 }",
        "x := 1 if { v = input.a; v > 2 }",
        "x if y with input as {}\ny if input.z",
        'x := "undefined_name unknown(1)"',
        "x := GIVEN",
        "x := data.p.y\ny := 1",
        "x := data.elsewhere.y",
        "x := 1 if { input.a } else := 2 if { input.b }",
        'x := {"a": input.b}["a"]',
        "x := input.map[input.key]",
        "import input.claims\nx := claims.a",
    ],
)
def test_a_valid_policy_is_clean(rule: str) -> None:
    assert problems(rule) == []


@pytest.mark.parametrize(
    ("rule", "line", "named"),
    [
        ("x if not debug_enabled", 1, "'debug_enabled'"),
        ("y := 1\nx if { 1 > nowhere }", 2, "'nowhere'"),
        ("x := 1 if { input.a == aproved }", 1, "'aproved'"),
        ("x := nowhere", 1, "'nowhere'"),
        ("x[k] if true", 1, "'k'"),
        ('x := {"a": b, c: 1}', 1, "'b'"),
        ("x := 1 if { input.a } else := other", 1, "'other'"),
        ("f(a) := a + b", 1, "'b'"),
        ("x := data.p.missing", 1, "'missing'"),
        ("x if not is_debug(input)", 1, "'is_debug'"),
        ('x := strings.render_template("", {})', 1, "'strings.render_template'"),
        ("x if y.z(1)", 1, "'y.z'"),
    ],
)
def test_an_undefined_name_is_reported_with_its_line(rule: str, line: int, named: str) -> None:
    found = problems(rule)
    assert found
    assert found[0][0] == line
    assert named in found[0][1]


@pytest.mark.parametrize(
    "call",
    [
        "time.now_ns()",
        'rand.intn("x", 2)',
        'uuid.rfc4122("x")',
        "opa.runtime()",
        'http.send({"method": "GET", "url": "http://127.0.0.1"})',
        'net.lookup_ip_addr("localhost")',
        'print("x")',
    ],
)
def test_what_is_not_repeatable_or_reaches_outside_is_refused(call: str) -> None:
    assert len(problems(f"x := {call}")) == 1


def test_old_syntax_is_read_as_well() -> None:
    text = "package p\nx = 5 { input.a == i; i = 1 } else = 6\ny { z } { input.q }\n"
    found = lint(RegoSource(text), builtin=is_builtin)
    assert [(error.line, "'z'" in error.message) for error in found] == [(3, True)]


def test_every_problem_is_reported_in_order() -> None:
    assert [line for line, _ in problems("x := a1\ny := b1\nz := c1(1)")] == [1, 2, 3]
