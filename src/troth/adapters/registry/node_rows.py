# SPDX-License-Identifier: Apache-2.0
"""Node records as rows, both ways."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from troth.adapters.registry.schema import nodes
from troth.errors import ConflictError
from troth.mesh.member import Service
from troth.mesh.node import NodeState, Reason
from troth.mesh.node_record import AppraisedEvidence, IssuedSvid, NodeRecord, ResultSummary

__all__ = ["appraised_values", "node_from", "read_node", "services_value", "svid_values"]


def node_from(row: Row[Any]) -> NodeRecord:
    """Return the record in a row of the nodes table."""
    return NodeRecord(
        id=row.id,
        device=row.device,
        entry_id=row.entry_id,
        spiffe_id=row.spiffe_id,
        name=row.name,
        state=NodeState(row.state),
        reason=Reason(row.reason) if row.reason else None,
        generation=row.generation,
        registered_at=row.registered_at,
        changed_at=row.changed_at,
        services=msgspec.json.decode(row.services, type=tuple[Service, ...]),
        appraised=_appraised(row),
        svid=msgspec.json.decode(row.svid, type=IssuedSvid) if row.svid else None,
    )


def read_node(connection: Connection, node_id: str) -> NodeRecord:
    """Return one node.

    Raises:
        ConflictError: there is none of that name.
    """
    row = connection.execute(sa.select(nodes).where(nodes.c.id == node_id)).one_or_none()
    if row is None:
        raise ConflictError(f"there is no node {node_id!r}", remedy="list the nodes")
    return node_from(row)


def appraised_values(appraised: AppraisedEvidence) -> dict[str, object]:
    """Return the columns that hold a node's last Evidence."""
    return {
        "scheme": appraised.scheme,
        "media_type": appraised.media_type,
        "evidence": appraised.evidence,
        "challenge": appraised.challenge,
        "spki": appraised.spki,
        "boot_session": appraised.boot_session,
        "result": _json(appraised.result),
        "ear": appraised.ear,
    }


def svid_values(svid: IssuedSvid) -> dict[str, object]:
    """Return the columns that hold a node's last SVID."""
    kept = IssuedSvid(
        serial=svid.serial,
        key_digest=svid.key_digest,
        not_after=svid.not_after,
        deadline=svid.deadline,
    )
    return {"svid": _json(kept), "deadline": svid.deadline}


def services_value(services: tuple[Service, ...]) -> str:
    """Return the column that holds a node's services."""
    return _json(services)


def _appraised(row: Row[Any]) -> AppraisedEvidence | None:
    if row.result is None:
        return None
    return AppraisedEvidence(
        scheme=row.scheme,
        media_type=row.media_type,
        evidence=row.evidence,
        challenge=row.challenge,
        spki=row.spki,
        boot_session=row.boot_session,
        result=msgspec.json.decode(row.result, type=ResultSummary),
        ear=row.ear,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
