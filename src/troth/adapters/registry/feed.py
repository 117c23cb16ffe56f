# SPDX-License-Identifier: Apache-2.0
"""The feed's outbox, and how far its readers have come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from troth.adapters.registry import signal
from troth.adapters.registry.node_rows import node_from
from troth.adapters.registry.schema import counters, events, feed_consumers, nodes
from troth.errors import ConflictError
from troth.mesh.event import Event, Snapshot
from troth.mesh.member import Member
from troth.mesh.node import PERMISSIONS
from troth.mesh.node_record import member_of
from troth.mesh.registry import Delivery

__all__ = [
    "acknowledge",
    "delivery",
    "last_event_of",
    "read_events",
    "require_sequence",
    "take_snapshot",
]


def read_events(connection: Connection, *, after: int, limit: int) -> tuple[Event, ...]:
    """Return the events after number `after`; see `Registry.events`."""
    last = _last(connection)
    if after > last:
        raise ConflictError(
            f"event {after} is asked for as known, but {last} is the last one",
            remedy="take a snapshot; the server was restored from a backup",
        )
    found: Sequence[Row[Any]] = connection.execute(
        sa.select(events).where(events.c.sequence > after).order_by(events.c.sequence).limit(limit)
    ).all()
    if after < last and (not found or found[0].sequence != after + 1):
        raise ConflictError(f"the events after {after} are not kept", remedy="take a snapshot")
    return tuple(
        Event(
            sequence=row.sequence,
            at=row.at,
            member=msgspec.json.decode(row.member, type=Member),
        )
        for row in found
    )


def take_snapshot(connection: Connection) -> Snapshot:
    """Return all members and the last number, of one moment."""
    found = connection.execute(sa.select(nodes).order_by(nodes.c.registered_at, nodes.c.id))
    members = tuple(member_of(node_from(row)) for row in found)
    return Snapshot(sequence=_last(connection), members=members)


def last_event_of(connection: Connection, node_id: str) -> int:
    """Return the number of the last event about a node, or 0."""
    last = connection.execute(
        sa.select(sa.func.max(events.c.sequence)).where(events.c.node_id == node_id)
    ).scalar_one()
    return last or 0


def require_sequence(connection: Connection, sequence: int) -> None:
    """Refuse unless event `sequence` is still the last one.

    Raises:
        ConflictError: it is not.
    """
    last = connection.execute(
        sa.select(counters.c.value).where(counters.c.name == "event").with_for_update()
    ).scalar_one()
    if last != sequence:
        raise ConflictError(
            f"nodes changed meanwhile (event {last}, not {sequence})", remedy="appraise again"
        )


def acknowledge(
    connection: Connection, node_id: str, *, sequence: int, lease_until: datetime
) -> None:
    """Note how far a node's agent has come; it never goes back."""
    known = connection.execute(
        sa.update(feed_consumers)
        .where(feed_consumers.c.node_id == node_id)
        .values(
            acknowledged=sa.case(
                (feed_consumers.c.acknowledged < sequence, sequence),
                else_=feed_consumers.c.acknowledged,
            ),
            lease_until=lease_until,
        )
        .returning(feed_consumers.c.node_id)
    ).one_or_none()
    if known is None:
        connection.execute(
            sa.insert(feed_consumers).values(
                node_id=node_id, acknowledged=sequence, lease_until=lease_until
            )
        )
    if sequence >= 0:
        # An operator at another server may wait for it.
        signal.tell(connection)


def delivery(connection: Connection, sequence: int, *, now: datetime) -> Delivery:
    """Say who has applied event `sequence`; see `Registry.delivery`."""
    # A node that may not read the feed any more does not enforce anything upon itself: its peers
    # have ended its connections.
    readers = [state.value for state, allowed in PERMISSIONS.items() if allowed.feed]
    consumers = connection.execute(
        sa.select(feed_consumers)
        .join(nodes, nodes.c.id == feed_consumers.c.node_id)
        .where(nodes.c.state.in_(readers))
        .order_by(feed_consumers.c.node_id)
    )
    acknowledged, waiting, lapsed = [], [], []
    for row in consumers:
        if row.acknowledged >= sequence:
            acknowledged.append(row.node_id)
        elif row.lease_until > now:
            waiting.append(row.node_id)
        else:
            lapsed.append(row.node_id)
    return Delivery(
        sequence=sequence,
        acknowledged=tuple(acknowledged),
        waiting=tuple(waiting),
        lapsed=tuple(lapsed),
    )


def _last(connection: Connection) -> int:
    last: int = connection.execute(
        sa.select(counters.c.value).where(counters.c.name == "event")
    ).scalar_one()
    return last
