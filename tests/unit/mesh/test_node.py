# SPDX-License-Identifier: Apache-2.0
"""The node state machine, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from troth.errors import ApiMisuseError, AuthorizationError, ConflictError
from troth.mesh.node import (
    PERMISSIONS,
    TRANSITIONS,
    Actor,
    Facts,
    NodeState,
    Reason,
    Transition,
    Trigger,
    find_transition,
    follow,
    remediable,
)
from troth.mesh.node_diagram import render

DOCS = Path(__file__).parents[3] / "docs" / "explanation" / "node-states.md"


def test_the_page_is_what_the_table_says() -> None:
    assert DOCS.read_text() == render(), (
        "write it anew: python -m troth.mesh.node_diagram > docs/explanation/node-states.md"
    )


def test_every_state_has_its_permissions_and_every_trigger_a_row() -> None:
    assert set(PERMISSIONS) == set(NodeState)
    assert {row.trigger for row in TRANSITIONS} == set(Trigger)


def test_a_trigger_leaves_each_state_by_one_row_only() -> None:
    pairs = [(row.trigger, source) for row in TRANSITIONS for source in row.sources]
    assert len(pairs) == len(set(pairs))


def test_only_admitted_and_degraded_nodes_may_have_an_svid() -> None:
    issuing = {state for state, allowed in PERMISSIONS.items() if allowed.svid != "no"}
    assert issuing == {NodeState.ADMITTED, NodeState.DEGRADED}


def test_nothing_leads_to_admitted_without_a_named_guard() -> None:
    ways = [row for row in TRANSITIONS if row.target is NodeState.ADMITTED]
    assert {row.trigger for row in ways} == {Trigger.ADMIT, Trigger.RENEW, Trigger.RECOVER}
    assert all(
        {"tier_reached", "entry_matches", "epoch_current"} <= set(row.requires) for row in ways
    )


@pytest.mark.parametrize("state", [NodeState.EXPELLED, NodeState.RETIRED])
def test_expelled_and_retired_never_lead_back(state: NodeState) -> None:
    reached = {row.target for row in TRANSITIONS if state in row.sources}
    assert reached <= {NodeState.RETIRED}


def test_a_trigger_from_the_wrong_state_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match="expelled cannot be changed by renew"):
        find_transition(NodeState.EXPELLED, Trigger.RENEW)


def test_a_fact_that_nobody_established_refuses() -> None:
    established = Facts(evidence_authentic=True, entry_matches=True)
    assert (
        follow(
            NodeState.REGISTERED,
            Trigger.ATTEST,
            reason=Reason.EVIDENCE_RECEIVED,
            actor=Actor.NODE,
            facts=established,
        )
        is NodeState.ATTESTING
    )
    with pytest.raises(AuthorizationError, match="entry_matches"):
        follow(
            NodeState.REGISTERED,
            Trigger.ATTEST,
            reason=Reason.EVIDENCE_RECEIVED,
            actor=Actor.NODE,
            facts=Facts(evidence_authentic=True),
        )


def test_a_node_may_not_do_what_is_the_operators() -> None:
    assert (
        follow(
            NodeState.ADMITTED,
            Trigger.REATTEST,
            reason=Reason.OPERATOR_REQUEST,
            actor=Actor.OPERATOR,
        )
        is NodeState.ATTESTING
    )
    with pytest.raises(AuthorizationError, match="node may not reattest"):
        follow(
            NodeState.ADMITTED, Trigger.REATTEST, reason=Reason.OPERATOR_REQUEST, actor=Actor.NODE
        )


def test_a_reason_that_the_row_does_not_know_is_misuse() -> None:
    with pytest.raises(ApiMisuseError):
        follow(NodeState.ADMITTED, Trigger.DEGRADE, reason=Reason.TAMPERED, actor=Actor.SERVER)


def test_a_row_cannot_require_a_fact_that_does_not_exist() -> None:
    with pytest.raises(ApiMisuseError, match="moon_full"):
        Transition(
            trigger=Trigger.ADMIT,
            sources=(NodeState.ATTESTED,),
            target=NodeState.ADMITTED,
            reasons=(Reason.POLICY_MET,),
            actors=(Actor.SERVER,),
            requires=("moon_full",),
        )


def test_fresh_evidence_does_not_clear_a_copied_or_tampered_machine() -> None:
    assert remediable(Reason.CONTRAINDICATED)
    assert not remediable(Reason.DUPLICATE_IDENTITY)
    assert not remediable(Reason.TAMPERED)


def test_a_hold_also_takes_a_quarantined_node_and_a_quarantine_does_not_loosen_a_hold() -> None:
    held = follow(
        NodeState.QUARANTINED,
        Trigger.HOLD,
        reason=Reason.DUPLICATE_IDENTITY,
        actor=Actor.SERVER,
    )
    assert held is NodeState.QUARANTINED
    with pytest.raises(ConflictError, match="quarantined cannot be changed by quarantine"):
        find_transition(NodeState.QUARANTINED, Trigger.QUARANTINE)


@pytest.mark.parametrize("state", [NodeState.EXPELLED, NodeState.RETIRED])
def test_a_hold_does_not_bring_back_what_is_gone(state: NodeState) -> None:
    with pytest.raises(ConflictError):
        find_transition(state, Trigger.HOLD)
