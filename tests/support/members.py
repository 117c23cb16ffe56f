# SPDX-License-Identifier: Apache-2.0
"""Made-up nodes, results and changes for tests of the registry and of what stands on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from troth.mesh.admission import Standing, Verdict, join_facts, plan_join
from troth.mesh.node import NodeState
from troth.mesh.node_record import AppraisedEvidence, IssuedSvid, NodeRecord, ResultSummary
from troth.mesh.registry import Change, NewNode
from troth.mesh.tier import Tier

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SPIFFE_ID = "spiffe://example.org/edge"

RESULT = ResultSummary(
    status="affirming",
    tier=Tier.MEASURED,
    verifier="troth",
    issued=NOW,
    expires=NOW + timedelta(hours=1),
    policy_id="default",
    policy_digest="d" * 64,
    epoch=0,
)
APPRAISED = AppraisedEvidence(
    scheme="psa",
    media_type="application/eat+cwt",
    evidence=b"evidence",
    challenge=b"c" * 32,
    spki=b"spki",
    boot_session=b"boot 1",
    result=RESULT,
    ear="a.b.c",
)


def new_node(name: str = "n1", **fields: str) -> NewNode:
    values = {
        "device": f"psa:signer:{name}",
        "entry_id": "e1",
        "spiffe_id": SPIFFE_ID,
        "name": name,
    } | fields
    return NewNode(id=name, **values)


def join(node: NodeRecord | NewNode, verdict: Verdict = Verdict.GOOD, **fields: Any) -> Change:
    """Return the change that a join with `verdict` makes."""
    new = node if isinstance(node, NewNode) else None
    appraised = fields.get("appraised", APPRAISED)
    before = node.appraised if isinstance(node, NodeRecord) else None
    standing = Standing(
        state=node.state if isinstance(node, NodeRecord) else NodeState.REGISTERED,
        reason=node.reason if isinstance(node, NodeRecord) else None,
        boot_unchanged=before is not None and before.boot_session == appraised.boot_session,
    )
    change = Change(
        node_id=node.id,
        generation=0 if isinstance(node, NewNode) else node.generation,
        steps=plan_join(standing, verdict).steps,
        facts=join_facts(verdict, boot_unchanged=standing.boot_unchanged, remediable_now=True),
        actor=f"node {node.id}",
        at=NOW,
        new_node=new,
        appraised=appraised,
    )
    return replace(change, **fields)


def svid_for(node: NodeRecord, *, key: str = "", **fields: Any) -> IssuedSvid:
    """Return an SVID for `node`, each time with another serial."""
    values: dict[str, Any] = {
        "serial": f"{node.id}-{node.generation}",
        "key_digest": (key or node.id).encode().hex().ljust(64, "0")[:64],
        "not_after": NOW + timedelta(hours=1),
        "deadline": NOW + timedelta(hours=1),
        "chain": "PEM",
    }
    return IssuedSvid(**(values | fields))
