# SPDX-License-Identifier: Apache-2.0
"""Registration entries and join sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from troth.adapters.registry import state_log
from troth.adapters.registry.node_rows import node_from
from troth.adapters.registry.schema import entries, nodes, sessions
from troth.errors import ConflictError, FreshnessError, UnavailableError
from troth.mesh.node import NodeState
from troth.mesh.node_record import NodeRecord
from troth.mesh.registration_entry import RegistrationEntry, node_selector
from troth.mesh.registry import JoinSession
from troth.mesh.tier import Tier

__all__ = [
    "delete_entry",
    "insert_entry",
    "live_nodes_of",
    "look_at_session",
    "open_session",
    "read_entries",
    "take_session",
]


def read_entries(connection: Connection) -> tuple[RegistrationEntry, ...]:
    """Return all entries, oldest first."""
    found = connection.execute(sa.select(entries).order_by(entries.c.created, entries.c.id))
    return tuple(_entry_from(row) for row in found)


def insert_entry(
    connection: Connection, entry: RegistrationEntry, *, actor: str, at: datetime
) -> None:
    """Add an entry; a taken id breaks the table's rule and rolls back."""
    selectors = [str(selector) for selector in entry.selectors]
    connection.execute(
        sa.insert(entries).values(
            id=entry.id,
            spiffe_id=entry.spiffe_id,
            selectors=msgspec.json.encode(selectors).decode(),
            min_tier=entry.min_tier.value,
            hint=entry.hint,
            created=at,
        )
    )
    data = {
        "entry_id": entry.id,
        "spiffe_id": entry.spiffe_id,
        "selectors": selectors,
        "min_tier": entry.min_tier.value,
    }
    state_log.append(connection, "entry_created", actor=actor, at=at, data=data)


def delete_entry(connection: Connection, entry_id: str, *, actor: str, at: datetime) -> None:
    """Delete an entry.

    Raises:
        ConflictError: there is none of that id.
    """
    gone = connection.execute(
        sa.delete(entries).where(entries.c.id == entry_id).returning(entries.c.id)
    ).one_or_none()
    if gone is None:
        raise ConflictError(
            f"there is no registration entry {entry_id!r}", remedy="list the entries"
        )
    state_log.append(connection, "entry_deleted", actor=actor, at=at, data={"entry_id": entry_id})


def live_nodes_of(connection: Connection, entry_id: str) -> tuple[NodeRecord, ...]:
    """Return the nodes that joined by an entry and could be quarantined."""
    live = (NodeState.ATTESTING, NodeState.ATTESTED, NodeState.ADMITTED, NodeState.DEGRADED)
    found = connection.execute(
        sa.select(nodes).where(
            nodes.c.entry_id == entry_id, nodes.c.state.in_([state.value for state in live])
        )
    )
    return tuple(node_from(row) for row in found)


def open_session(connection: Connection, session: JoinSession, *, max_open: int) -> None:
    """Remember a nonce; see `Registry.open_session`."""
    connection.execute(sa.delete(sessions).where(sessions.c.expires <= session.created))
    count = connection.execute(
        sa.select(sa.func.count()).select_from(sessions).where(sessions.c.used.is_(False))
    ).scalar_one()
    if count >= max_open:
        raise UnavailableError(
            f"{max_open} join sessions are open",
            retry_after_seconds=10.0,
            remedy="wait; an unused session ends by itself",
        )
    connection.execute(
        sa.insert(sessions).values(
            id=session.id,
            nonce=session.nonce,
            node_name=session.node_name,
            address=session.address,
            created=session.created,
            expires=session.expires,
            used=False,
        )
    )


def take_session(connection: Connection, session_id: str, *, now: datetime) -> JoinSession:
    """Use a session up; see `Registry.take_session`."""
    taken = connection.execute(
        sa.update(sessions)
        .where(sessions.c.id == session_id, sessions.c.used.is_(False), sessions.c.expires > now)
        .values(used=True)
        .returning(sessions)
    ).one_or_none()
    return _session_from(taken)


def look_at_session(connection: Connection, session_id: str, *, now: datetime) -> JoinSession:
    """Read a session; see `Registry.look_at_session`."""
    return _session_from(
        connection.execute(
            sa.select(sessions).where(
                sessions.c.id == session_id,
                sessions.c.used.is_(False),
                sessions.c.expires > now,
            )
        ).one_or_none()
    )


def _session_from(row: Row[Any] | None) -> JoinSession:
    if row is None:
        raise FreshnessError(
            "this join session is unknown, used or expired",
            remedy="open a new session; a nonce answers once and within its time",
        )
    return JoinSession(
        id=row.id,
        nonce=row.nonce,
        node_name=row.node_name,
        address=row.address,
        created=row.created,
        expires=row.expires,
    )


def _entry_from(row: Row[Any]) -> RegistrationEntry:
    texts = msgspec.json.decode(row.selectors, type=list[str])
    return RegistrationEntry(
        id=row.id,
        spiffe_id=row.spiffe_id,
        selectors=tuple(node_selector(text) for text in texts),
        min_tier=Tier(row.min_tier),
        hint=row.hint,
    )
