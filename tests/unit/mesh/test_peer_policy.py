# SPDX-License-Identifier: Apache-2.0
"""One side's decision about the other: each acceptance with a refusal that changes one thing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from troth.errors import ApiMisuseError, AuthorizationError
from troth.mesh.node import NodeState
from troth.mesh.peer_policy import (
    Decision,
    Peer,
    PeerPolicy,
    PeerResult,
    PeerRule,
    ResultModel,
    authorize,
)
from troth.mesh.tier import Tier

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
RESULT = PeerResult(
    model=ResultModel.PASSPORT,
    status="affirming",
    tier=Tier.MEASURED,
    verifier="troth",
    issued=NOW - timedelta(minutes=5),
    expires=NOW + timedelta(minutes=55),
)
PEER = Peer(
    spiffe_id="spiffe://example.org/edge",
    svid_not_after=NOW + timedelta(minutes=50),
    state=NodeState.ADMITTED,
    result=RESULT,
)
RULE = PeerRule(peers=("spiffe://example.org/edge",), verifiers=frozenset({"troth"}))


def decide(peer: Peer = PEER, **changes: Any) -> Decision:
    return authorize(peer, PeerPolicy(rules=(replace(RULE, **changes),)), now=NOW)


def whats(decision: Decision) -> list[str]:
    assert not decision.admitted
    assert decision.deadline is None
    return [objection.what for objection in decision.objections]


def test_a_peer_that_meets_a_rule_is_admitted_until_the_first_fact_runs_out() -> None:
    decision = decide()
    assert decision.admitted
    assert decision.rule == 0
    assert decision.require().at == PEER.svid_not_after


def test_an_empty_policy_denies_everybody() -> None:
    assert whats(authorize(PEER, PeerPolicy(), now=NOW)) == ["policy"]


def test_a_rule_without_peers_matches_nobody() -> None:
    assert whats(decide(peers=())) == ["SPIFFE ID"]


def test_a_whole_trust_domain_may_be_named_but_not_a_longer_one() -> None:
    assert decide(peers=("spiffe://example.org/*",)).admitted
    assert whats(decide(peers=("spiffe://example.or/*",))) == ["SPIFFE ID"]
    assert whats(decide(peers=("spiffe://example.org/ed*",))) == ["SPIFFE ID"]
    assert whats(decide(peers=("spiffe:///*",))) == ["SPIFFE ID"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"status": "warning"}, "status"),
        ({"status": "none"}, "status"),
        ({"status": "contraindicated"}, "status"),
        ({"status": "Affirming"}, "status"),
        ({"tier": Tier.IDENTIFIED}, "tier"),
        ({"verifier": "somebody"}, "Verifier"),
        ({"verifier": ""}, "Verifier"),
        ({"insecure": ("platform simulator",)}, "insecure"),
        ({"expires": NOW}, "result expiry"),
        ({"issued": NOW + timedelta(seconds=31)}, "result issue"),
        ({"model": ResultModel.BACKGROUND_CHECK}, "model"),
    ],
)
def test_a_result_that_falls_short_in_one_thing_is_refused_for_it(
    change: dict[str, Any], what: str
) -> None:
    assert whats(decide(replace(PEER, result=replace(RESULT, **change)))) == [what]


def test_no_result_is_a_refusal_unless_the_rule_asks_for_none() -> None:
    bare = replace(PEER, result=None)
    assert whats(decide(bare)) == ["result"]
    assert whats(decide(bare, model=ResultModel.ANY)) == ["result"]
    assert decide(bare, model=ResultModel.SVID_ONLY).admitted


def test_a_rule_that_names_no_verifier_believes_none() -> None:
    assert whats(decide(verifiers=frozenset())) == ["Verifier"]


def test_a_warning_passes_only_where_the_rule_says_so_and_none_never() -> None:
    warned = replace(PEER, result=replace(RESULT, status="warning"))
    assert decide(warned, require_affirming=False).admitted
    silent = replace(PEER, result=replace(RESULT, status="none"))
    assert whats(decide(silent, require_affirming=False)) == ["status"]


def test_a_simulator_passes_only_where_the_rule_says_so() -> None:
    simulated = replace(PEER, result=replace(RESULT, insecure=("platform simulator",)))
    assert decide(simulated, allow_insecure=True).admitted


def test_an_old_result_is_refused_and_a_younger_one_bounds_the_connection() -> None:
    assert whats(decide(max_age=timedelta(minutes=4))) == ["result age", "deadline"][:1]
    decision = decide(max_age=timedelta(minutes=6))
    assert decision.require().at == RESULT.issued + timedelta(minutes=6)


def test_the_rules_own_connection_age_bounds_the_connection() -> None:
    decision = decide(max_connection_age=timedelta(minutes=10))
    assert decision.require().at == RESULT.issued + timedelta(minutes=10)
    assert whats(decide(max_connection_age=timedelta(minutes=5))) == ["deadline"]


@pytest.mark.parametrize("state", sorted(set(NodeState) - {NodeState.ADMITTED}))
def test_the_feeds_word_on_the_node_counts(state: NodeState) -> None:
    assert whats(decide(replace(PEER, state=state))) == ["node state"]


def test_a_degraded_peer_passes_only_where_the_rule_says_so() -> None:
    degraded = replace(PEER, state=NodeState.DEGRADED)
    assert decide(degraded, allow_degraded=True).admitted
    assert whats(decide(replace(PEER, state=NodeState.QUARANTINED), allow_degraded=True))


def test_an_svid_only_rule_still_looks_at_the_feed_and_the_clock() -> None:
    svid_only: dict[str, Any] = {"model": ResultModel.SVID_ONLY, "verifiers": frozenset()}
    assert decide(**svid_only).admitted
    assert whats(decide(replace(PEER, state=NodeState.EXPELLED), **svid_only)) == ["node state"]
    assert whats(decide(replace(PEER, svid_not_after=NOW), **svid_only)) == ["SVID notAfter"]


def test_one_refusal_names_everything_that_is_wrong() -> None:
    bad = replace(
        PEER, result=replace(RESULT, status="none", tier=Tier.REGISTERED, verifier="somebody")
    )
    assert whats(decide(bad)) == ["status", "tier", "Verifier"]


def test_a_second_rule_may_admit_what_the_first_refuses() -> None:
    strict = replace(RULE, min_tier=Tier.CONFIDENTIAL)
    decision = authorize(PEER, PeerPolicy(rules=(strict, RULE)), now=NOW)
    assert decision.admitted
    assert decision.rule == 1
    both = authorize(PEER, PeerPolicy(rules=(strict, strict)), now=NOW)
    assert [each.rule for each in both.objections] == [0, 1]


def test_a_refusal_raises_with_every_objection_for_the_operator() -> None:
    refused = decide(min_tier=Tier.CONFIDENTIAL)
    with pytest.raises(AuthorizationError, match="tier is measured; expected at least confiden"):
        refused.require()


def test_a_result_comes_as_passport_or_by_background_check() -> None:
    with pytest.raises(ApiMisuseError):
        replace(RESULT, model=ResultModel.ANY)
    with pytest.raises(ApiMisuseError):
        replace(RULE, max_age=timedelta(0))
