# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from support.appraisal import case
from troth.adapters import rego_worker
from troth.adapters.rego_worker import WorkerEvaluator
from troth.formats.ar4si import TrustTier
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator, Program

# 9 million pairs: many seconds of work, which the operator did not foresee.
SLOW = "x := count([1 | numbers.range(1, 3000)[_] > 0; numbers.range(1, 3000)[_] > 0])"
# Legal Rego that ends rego-cpp 1.5.2 by a signal.
CRASHING = 'a := 1\nx[k] := v { k := ["a", "b"][_]; v := data.p[k] }'


def program(rule: str) -> Program:
    return Program((("policy.rego", f"package p\n{rule}\n"),), "p/x", "{}", rule)


@pytest.fixture
def evaluator() -> Iterator[WorkerEvaluator]:
    with WorkerEvaluator(deadline_seconds=5.0) as found:
        yield found


def test_a_worker_gives_what_evaluation_here_gives(evaluator: WorkerEvaluator) -> None:
    asked = program('x := {"a": input.a, "é": [1, 2.5, null, true], "big": input.big}')
    document: dict[str, object] = {"a": 'q"\n', "big": 2**64}
    assert evaluator.evaluate(asked, document) == DirectEvaluator().evaluate(asked, document)


def test_failures_come_back_with_their_place(evaluator: WorkerEvaluator) -> None:
    found = evaluator.evaluate(program("x := {{{"), {})
    assert "does not parse" in found.failure
    assert (found.module, found.offset) == ("policy.rego", 17)


def test_a_policy_is_applied_through_a_worker(evaluator: WorkerEvaluator) -> None:
    assert AppraisalPolicy.default().apply(case(), evaluator).status is TrustTier.AFFIRMING


def test_an_evaluation_that_takes_too_long_is_ended_and_contraindicates() -> None:
    text = f'package troth.appraisal\n{SLOW}\nstatus := "affirming" {{ x > 0 }}\n'
    policy = AppraisalPolicy.from_text(text, name="slow.rego")
    with WorkerEvaluator(deadline_seconds=0.3) as evaluator:
        verdict = policy.apply(case(), evaluator)
        assert verdict.status is TrustTier.CONTRAINDICATED
        assert "longer than 0.3 s" in verdict.findings[0].actual
        assert evaluator.evaluate(program("x := 1"), {}).value == 1


def test_a_policy_that_crashes_the_interpreter_does_not_crash_us(
    evaluator: WorkerEvaluator,
) -> None:
    assert "crashed" in evaluator.evaluate(program(CRASHING), {}).failure
    assert evaluator.evaluate(program("x := 1"), {}).value == 1


def test_a_policy_that_eats_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerEvaluator(deadline_seconds=30.0) as evaluator:
        evaluator.warm_up()
        monkeypatch.setattr(rego_worker, "WORKER_MEMORY_BYTES", 1 << 20)
        assert "WORKER_MEMORY_BYTES" in evaluator.evaluate(program(SLOW), {}).failure


def test_a_worker_that_was_killed_between_two_questions_is_replaced(
    evaluator: WorkerEvaluator,
) -> None:
    assert evaluator.evaluate(program("x := 1"), {}).value == 1
    (idle,) = evaluator._idle
    os.kill(idle._process.pid, signal.SIGKILL)
    idle._process.wait()
    assert "crashed" in evaluator.evaluate(program("x := 1"), {}).failure
    assert evaluator.evaluate(program("x := 1"), {}).value == 1


def test_closing_ends_every_process(evaluator: WorkerEvaluator) -> None:
    evaluator.warm_up()
    (idle,) = evaluator._idle
    evaluator.close()
    assert idle._process.poll() is not None
    evaluator.evaluate(program("x := 1"), {})
    assert evaluator._idle == []


def test_a_document_that_json_cannot_hold_is_a_failure(evaluator: WorkerEvaluator) -> None:
    assert "cannot be given" in evaluator.evaluate(program("x := 1"), {"a": object()}).failure


def test_a_worker_does_not_see_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROTH_TEST_SECRET", "hunter2")
    with WorkerEvaluator(deadline_seconds=5.0) as evaluator:
        found = evaluator.evaluate(program("x := opa.runtime().env"), {})
    assert isinstance(found.value, dict)
    assert "PATH" in found.value
    assert "TROTH_TEST_SECRET" not in found.value


def test_several_threads_ask_at_once() -> None:
    wrong: list[object] = []
    with WorkerEvaluator(deadline_seconds=20.0, workers=2) as evaluator:

        def work(number: int) -> None:
            for _ in range(20):
                value = evaluator.evaluate(program("x := input.n"), {"n": number}).value
                if value != number:
                    wrong.append(value)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(evaluator._idle) <= 2
    assert wrong == []
