# SPDX-License-Identifier: Apache-2.0
"""Which transitions a join leads to, where two machines hold one identity."""

from __future__ import annotations

import pytest

from troth.mesh.admission import Refusal, Standing, Verdict, plan_duplicate, plan_join
from troth.mesh.node import NodeState, Reason, Trigger

LIVE = [state for state in NodeState if state not in (NodeState.EXPELLED, NodeState.RETIRED)]


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("sign", ["boot_returned", "key_copied"])
def test_a_copy_is_held_whatever_the_state_and_the_verdict(
    state: NodeState, verdict: Verdict, sign: str
) -> None:
    plan = plan_join(Standing(state=state, reason=Reason.CONTRAINDICATED, **{sign: True}), verdict)
    assert plan.refusal is Refusal.DUPLICATE
    assert [step.trigger for step in plan.steps] == [Trigger.HOLD]
    same = plan_join(Standing(state=state, reason=Reason.CONTRAINDICATED), verdict)
    assert same.refusal is not Refusal.DUPLICATE


@pytest.mark.parametrize(
    ("state", "refusal"),
    [(NodeState.EXPELLED, Refusal.EXPELLED), (NodeState.RETIRED, Refusal.RETIRED)],
)
def test_a_copy_of_a_node_that_is_gone_changes_nothing(state: NodeState, refusal: Refusal) -> None:
    plan = plan_join(Standing(state=state, boot_returned=True, key_copied=True), Verdict.GOOD)
    assert (plan.steps, plan.refusal) == ((), refusal)


def test_a_held_node_stays_held_and_a_quarantined_one_becomes_held() -> None:
    assert plan_duplicate(NodeState.QUARANTINED, Reason.DUPLICATE_IDENTITY) == ()
    assert plan_duplicate(NodeState.EXPELLED, Reason.OPERATOR_REQUEST) == ()
    for state, reason in (
        (NodeState.QUARANTINED, Reason.CONTRAINDICATED),
        (NodeState.ADMITTED, Reason.RESULT_AFFIRMING),
        (NodeState.REGISTERED, None),
    ):
        (step,) = plan_duplicate(state, reason)
        assert (step.trigger, step.reason) == (Trigger.HOLD, Reason.DUPLICATE_IDENTITY)


def test_a_changed_boot_session_re_attests_in_the_same_join() -> None:
    same = plan_join(Standing(state=NodeState.ADMITTED, boot_unchanged=True), Verdict.GOOD)
    assert [step.trigger for step in same.steps] == [Trigger.RENEW]
    changed = plan_join(Standing(state=NodeState.ADMITTED), Verdict.GOOD)
    assert [step.trigger for step in changed.steps] == [
        Trigger.BOOT_CHANGED,
        Trigger.APPRAISED,
        Trigger.ADMIT,
    ]
