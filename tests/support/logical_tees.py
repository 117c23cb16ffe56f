# SPDX-License-Identifier: Apache-2.0
"""A Logical TEE of two classes, and nodes as the registry would hold them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from troth.mesh.logical_tee import Epoch, LogicalTee, MemberClass
from troth.mesh.node import NodeState
from troth.mesh.node_record import AppraisedEvidence, IssuedSvid, NodeRecord, ResultSummary
from troth.mesh.tier import Tier

DOMAIN = "mesh.example"
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

REALM = MemberClass(
    name="realm",
    min_tier=Tier.CONFIDENTIAL,
    schemes=("cca",),
    policy_ids=("realm-v7",),
    max_age_seconds=600,
    proxy_placement="in_member",
    entries=("realms",),
)
GATEWAY = MemberClass(
    name="gateway",
    min_tier=Tier.IDENTIFIED,
    schemes=("psa", "tpm2"),
    policy_ids=("edge-v3",),
    max_age_seconds=3600,
    proxy_placement="host",
    spiffe_ids=(f"spiffe://{DOMAIN}/gateway",),
)


def tee(**changes: Any) -> LogicalTee:
    values: dict[str, Any] = {
        "name": "claims-processing",
        "trust_domain": DOMAIN,
        "owner": "insurer-a",
        "classes": (REALM, GATEWAY),
        "epochs": (Epoch(id=1, not_before=NOW - timedelta(days=1), registry_epoch=5),),
    }
    return LogicalTee(**(values | changes))


def realm(node_id: str, **changes: Any) -> NodeRecord:
    return _node(node_id, REALM, Tier.CONFIDENTIAL, changes)


def gateway(node_id: str, **changes: Any) -> NodeRecord:
    return _node(node_id, GATEWAY, Tier.MEASURED, changes)


def _node(node_id: str, meant: MemberClass, tier: Tier, changes: dict[str, Any]) -> NodeRecord:
    """Return an admitted node; changes are of the record, of its result, or of its scheme."""
    result = ResultSummary(
        status="affirming",
        tier=tier,
        verifier="lead",
        issued=NOW - MINUTE,
        expires=NOW + 9 * MINUTE,
        policy_id=meant.policy_ids[0],
        policy_digest="00",
        epoch=5,
    )
    own = {name: changes.pop(name) for name in list(changes) if hasattr(result, name)}
    appraised = AppraisedEvidence(
        scheme=changes.pop("scheme", meant.schemes[0]),
        media_type="application/eat+cwt",
        evidence=b"",
        challenge=b"",
        spki=b"",
        boot_session=b"",
        result=replace(result, **own),
        ear=f"ear-of-{node_id}",
    )
    svid = IssuedSvid(
        serial=node_id,
        key_digest=f"key-of-{node_id}",
        not_after=NOW + 10 * MINUTE,
        deadline=NOW + 15 * MINUTE,
    )
    node = NodeRecord(
        id=node_id,
        device=f"device-{node_id}",
        entry_id=f"{meant.name}s",
        spiffe_id=f"spiffe://{DOMAIN}/{meant.name}",
        name=node_id,
        state=NodeState.ADMITTED,
        reason=None,
        generation=3,
        registered_at=NOW,
        changed_at=NOW,
        appraised=appraised,
        svid=svid,
    )
    return replace(node, **changes)
