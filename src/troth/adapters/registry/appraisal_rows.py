# SPDX-License-Identifier: Apache-2.0
"""Recorded appraisals as rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Connection, Row

from troth.adapters.registry.schema import appraisals, entries, nodes
from troth.mesh.tier import Tier
from troth.verifier.recorded import RecordedAppraisal, RecordedNode, decode_body, encode_body

__all__ = ["prune", "read", "write"]


def write(connection: Connection, record: RecordedAppraisal) -> None:
    """Store a record, or count it with the one of its id.

    Raises:
        LimitExceededError: it is too long; nothing was written.
    """
    body = encode_body(record)
    known = connection.execute(
        sa.update(appraisals)
        .where(appraisals.c.id == record.id)
        .values(seen=appraisals.c.seen + record.count, last=record.last, body=body)
        .returning(appraisals.c.id)
    ).one_or_none()
    if known is None:
        connection.execute(
            sa.insert(appraisals).values(
                id=record.id,
                device=record.device,
                spiffe_id=record.spiffe_id,
                first=record.first,
                last=record.last,
                seen=record.count,
                body=body,
            )
        )


def read(
    connection: Connection, *, since: datetime, after: str, limit: int
) -> tuple[RecordedAppraisal, ...]:
    """Return records by id, with the nodes that they are about."""
    found = connection.execute(
        sa.select(appraisals)
        .where(appraisals.c.last >= since, appraisals.c.id > after)
        .order_by(appraisals.c.id)
        .limit(limit)
    ).all()
    known = _nodes(connection, found)
    return tuple(
        replace(
            decode_body(
                row.body,
                record_id=row.id,
                first=row.first,
                last=row.last,
                count=row.seen,
                device=row.device,
                spiffe_id=row.spiffe_id,
            ),
            nodes=known.get((row.device, row.spiffe_id), []),
        )
        for row in found
    )


def prune(connection: Connection, *, before: datetime, keep: int) -> None:
    """Forget what is too old or too much; with `keep` 0, everything."""
    newest = sa.select(appraisals.c.id).order_by(appraisals.c.last.desc()).limit(keep)
    connection.execute(
        sa.delete(appraisals).where(
            sa.or_(appraisals.c.last < before, appraisals.c.id.not_in(newest))
        )
    )


def _nodes(
    connection: Connection, records: Sequence[Row[Any]]
) -> dict[tuple[str, str], list[RecordedNode]]:
    devices = {record.device for record in records if record.spiffe_id}
    # A node whose entry is gone cannot join under any policy.
    found = connection.execute(
        sa.select(nodes.c.id, nodes.c.name, nodes.c.device, nodes.c.spiffe_id, entries.c.min_tier)
        .join(entries, entries.c.id == nodes.c.entry_id)
        .where(nodes.c.device.in_(devices))
    )
    by_role: dict[tuple[str, str], list[RecordedNode]] = {}
    for row in found:
        by_role.setdefault((row.device, row.spiffe_id), []).append(
            RecordedNode(
                node_id=row.id,
                name=row.name,
                spiffe_id=row.spiffe_id,
                min_tier=Tier(row.min_tier),
            )
        )
    return by_role
