# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from troth.verifier.rego_source import RegoSource

POLICY = """# a comment, with a comma
package troth.appraisal

import rego.v1
import data.lib.versions as v

default status := "none"

status := "affirming" if {
    input.status == "affirming"  # trailing, comma
} else := "warning"

newer(a, b) if a > b

findings contains {
    "claim": "x",
} if { true }

findings contains {"claim": "y"} if input.x
"""


def test_the_package_is_its_dotted_path() -> None:
    assert RegoSource(POLICY).package == "troth.appraisal"
    assert RegoSource("status := 1\n").package == ""


def test_each_rule_is_found_with_the_lines_of_its_definitions() -> None:
    assert RegoSource(POLICY).rules == {
        "status": [7, 9],
        "newer": [13],
        "findings": [15, 19],
    }


def test_a_function_is_told_from_a_rule() -> None:
    functions = [s.name for s in RegoSource(POLICY).statements if s.is_function]
    assert functions == ["newer"]


def test_imports_bring_their_last_part_or_their_alias() -> None:
    assert RegoSource(POLICY).imports == {"v1", "v"}


def test_an_expression_may_go_on_in_the_next_line() -> None:
    source = RegoSource("package p\nx :=\n  1 +\n  2\ny := 3\n")
    assert source.rules == {"x": [2], "y": [5]}


def test_words_inside_comments_do_not_count() -> None:
    assert "nonce" not in RegoSource("package p\nx := 1 # nonce\n").words()
    assert "nonce" in RegoSource('package p\nx := "nonce"\n').words()


def test_blanking_comments_keeps_every_byte_in_its_place() -> None:
    text = 'package p # ключ, é\nx := "a # b" # c\n'
    blanked = RegoSource(text).without_comments
    assert blanked.split("\n")[1].rstrip() == 'x := "a # b"'
    assert len(blanked.encode()) == len(text.encode())


def test_a_byte_offset_is_turned_into_a_line() -> None:
    source = RegoSource("é\né\nx")
    assert [source.line_at(offset) for offset in (0, 3, 6)] == [1, 2, 3]


def test_a_literal_is_found_with_its_line() -> None:
    source = RegoSource('package p\nx := "one"\ny := "two"\n')
    assert source.line_of_literal(["zero", "two"]) == 3
    assert source.line_of_literal(["zero"]) is None
