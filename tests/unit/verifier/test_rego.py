# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from troth.verifier.rego import DirectEvaluator, Evaluation, Program, is_builtin


def evaluate(
    text: str, document: dict[str, object] | None = None, *, data: str = "{}"
) -> Evaluation:
    program = Program((("policy.rego", text),), "p/x", data, text + data)
    return DirectEvaluator().evaluate(program, document or {})


@pytest.mark.parametrize(
    "hostile",
    [
        'a","x":"affirming',
        'a"}]}, {"x": 1',
        "back\\slash",
        '\\"',
        "\\u0041",
        "line\nbreak",
        "nul\x00tail",
        "escape\x1b[2J",
    ],
)
def test_a_claim_cannot_write_into_the_verdict(hostile: str) -> None:
    """rego-cpp adds no escapes to strings that it prints."""
    found = evaluate('package p\nx := {"said": input.claim}', {"claim": hostile})
    assert found.failure == ""
    assert isinstance(found.value, dict)
    assert set(found.value) == {"said"}
    assert "\ufffd" in str(found.value["said"])
    assert not set('"\\\x00\x1b\n') & set(str(found.value["said"]))


@pytest.mark.parametrize("plain", ["", "1.2.3-rc.1+b", "émile 😀", "a/b?c=d&e", "\u2028", "'"])
def test_other_text_arrives_as_it_is(plain: str) -> None:
    assert evaluate("package p\nx := input.claim", {"claim": plain}).value == plain


def test_a_hostile_name_of_a_member_is_made_harmless_too() -> None:
    found = evaluate("package p\nx := input.map", {"map": {'a":1,"b': 2}})
    assert found.value == {"a\ufffd:1,\ufffdb": 2}


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, str(2**63)),
        (-(2**70), str(-(2**70))),
        (True, True),
        (None, None),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (b"\x00\xff", "00ff"),
        ([1, (2, [])], [1, [2, []]]),
        ({"a": {}}, {"a": {}}),
    ],
)
def test_values_arrive_whole_or_as_text(value: object, seen: object) -> None:
    found = evaluate('package p\nx := {"v": input.v}', {"v": value})
    assert found.value == {"v": seen}


def test_too_deep_a_document_is_a_failure() -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    assert "MAX_DOCUMENT_DEPTH=32" in evaluate("package p\nx := 1", {"v": deep}).failure


def test_a_value_that_rego_has_no_form_for_is_a_failure() -> None:
    assert "object" in evaluate("package p\nx := 1", {"v": object()}).failure


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("package p\ny := 1", "undefined"),
        ("package p\nx := no_such(1)", "Function not found"),
        ("package p\nx := y\ny := x", "Recursion"),
        ("package p\nx := 1 { true }\nx := 2 { true }", "two different values"),
        ("package p\ndefault x := 1\ndefault x := 2", "does not compile"),
        ("", "does not parse"),
        ("# only a comment", "does not parse"),
    ],
)
def test_what_yields_no_value_is_a_failure_in_words(text: str, words: str) -> None:
    found = evaluate(text)
    assert words in found.failure
    assert found.value is None


def test_a_parse_error_says_where() -> None:
    found = evaluate("package p\n\nx := {{{")
    assert found.module == "policy.rego"
    assert found.offset == len("package p\n\nx := {{")


def test_nothing_is_printed_for_a_broken_policy(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate("package p\nx := {{{")
    assert capfd.readouterr() == ("", "")


def test_too_long_an_output_is_a_failure() -> None:
    found = evaluate("package p\nx := numbers.range(1, 20000)")
    assert "MAX_OUTPUT_BYTES=65536" in found.failure


def test_data_is_found() -> None:
    assert evaluate("package p\nx := data.reference.a", data='{"reference": {"a": 7}}').value == 7


def test_one_evaluator_serves_several_threads() -> None:
    evaluator = DirectEvaluator()
    program = Program((("policy.rego", "package p\nx := input.n"),), "p/x", "{}", "threads")
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(200):
            value = evaluator.evaluate(program, {"n": number}).value
            if value != number:
                wrong.append((number, value))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_builtins_are_known_by_name() -> None:
    assert is_builtin("semver.compare")
    assert not is_builtin("http.send")
