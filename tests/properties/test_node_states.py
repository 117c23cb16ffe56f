# SPDX-License-Identifier: Apache-2.0
"""The state machine under every sequence of triggers: what must never happen does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from troth.errors import ApiMisuseError, AuthorizationError, ConflictError
from troth.mesh.admission import Standing, Verdict, join_facts, plan_join, plan_reappraisal
from troth.mesh.node import (
    PERMISSIONS,
    TRANSITIONS,
    Actor,
    Facts,
    NodeState,
    Reason,
    Trigger,
    follow,
    remediable,
)

STATES = st.sampled_from(NodeState)
FACTS = st.builds(Facts, **{name: st.booleans() for name in Facts.__dataclass_fields__})
PULLS = st.tuples(st.sampled_from(Trigger), st.sampled_from(Reason), st.sampled_from(Actor), FACTS)
VERDICTS = st.sampled_from(Verdict)


@given(STATES, PULLS)
def test_a_state_changes_only_along_a_listed_row(
    state: NodeState, pull: tuple[Trigger, Reason, Actor, Facts]
) -> None:
    trigger, reason, actor, facts = pull
    try:
        target = follow(state, trigger, reason=reason, actor=actor, facts=facts)
    except (ConflictError, AuthorizationError, ApiMisuseError):
        return
    rows = [row for row in TRANSITIONS if row.trigger is trigger and state in row.sources]
    assert len(rows) == 1
    assert rows[0].target is target
    assert reason in rows[0].reasons
    assert actor in rows[0].actors
    assert all(getattr(facts, name) for name in rows[0].requires)


@given(st.lists(PULLS, max_size=60), STATES)
def test_after_expelled_nothing_is_ever_allowed_again(
    pulls: list[tuple[Trigger, Reason, Actor, Facts]], start: NodeState
) -> None:
    state, expelled = start, start is NodeState.EXPELLED
    for trigger, reason, actor, facts in pulls:
        try:
            state = follow(state, trigger, reason=reason, actor=actor, facts=facts)
        except (ConflictError, AuthorizationError, ApiMisuseError):
            continue
        expelled = expelled or state is NodeState.EXPELLED
        if expelled:
            allowed = PERMISSIONS[state]
            assert allowed.svid == allowed.new_connections == allowed.keeps_connections == "no"
            assert not allowed.feed


@given(STATES, st.none() | st.sampled_from(Reason), st.booleans(), st.booleans(), VERDICTS)
def test_a_join_ends_admitted_or_refused_and_its_steps_are_rows_of_the_table(
    state: NodeState,
    reason: Reason | None,
    boot_unchanged: bool,  # noqa: FBT001 - drawn by Hypothesis
    boot_returned: bool,  # noqa: FBT001 - drawn by Hypothesis
    verdict: Verdict,
) -> None:
    standing = Standing(
        state=state, reason=reason, boot_unchanged=boot_unchanged, boot_returned=boot_returned
    )
    plan = plan_join(standing, verdict)
    facts = join_facts(
        verdict,
        boot_unchanged=boot_unchanged,
        remediable_now=reason is None or remediable(reason),
    )
    for step in plan.steps:
        state = follow(state, step.trigger, reason=step.reason, actor=step.actor, facts=facts)
    if plan.refusal is None:
        assert verdict is Verdict.GOOD
        assert plan.steps
        assert state is NodeState.ADMITTED
    elif plan.steps:
        assert state is not NodeState.ADMITTED


@given(STATES, VERDICTS)
def test_a_new_appraisal_of_old_evidence_never_lifts_a_node(
    state: NodeState, verdict: Verdict
) -> None:
    steps = plan_reappraisal(state, verdict, reason=Reason.REFERENCE_VALUE_WITHDRAWN)
    after = state
    for step in steps:
        after = follow(after, step.trigger, reason=step.reason, actor=step.actor)
    if verdict is Verdict.GOOD:
        assert after is state
    assert PERMISSIONS[after].svid == "no" or verdict is Verdict.GOOD


def test_only_an_affirming_status_is_good() -> None:
    assert Verdict.of(status="affirming", tier_reached=True) is Verdict.GOOD
    assert Verdict.of(status="affirming", tier_reached=False) is Verdict.TIER_TOO_LOW
    for status in ("none", "warning", "contraindicated", "", "Affirming", "yes"):
        assert Verdict.of(status=status, tier_reached=True) is not Verdict.GOOD
