# SPDX-License-Identifier: Apache-2.0
"""Apply a `Change`: guarded statements, log rows and events in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import signal, state_log
from troth.adapters.registry.device_check import require_approved
from troth.adapters.registry.node_rows import (
    appraised_values,
    node_from,
    read_node,
    services_value,
    svid_values,
)
from troth.adapters.registry.schema import (
    boot_sessions,
    counters,
    events,
    issuances,
    nodes,
    refusals,
)
from troth.errors import AuthorizationError, ConflictError
from troth.mesh.admission import Step
from troth.mesh.node import PERMISSIONS, NodeState, Trigger, find_transition, follow
from troth.mesh.node_record import AppraisedEvidence, IssuedSvid, NodeRecord, member_of
from troth.mesh.registry import Change, JoinRefusal, NewNode

__all__ = ["apply_change", "require_epoch", "write_refusal"]

_ISSUING = tuple(state.value for state, allowed in PERMISSIONS.items() if allowed.svid == "yes")


def apply_change(
    connection: Connection, change: Change, issue: Callable[[NodeRecord], IssuedSvid] | None
) -> NodeRecord:
    """Apply `change` as `Registry.apply` promises; the caller commits.

    Raises:
        ConflictError, AuthorizationError: the caller rolls back.
    """
    if change.require_epoch is not None:
        require_epoch(connection, change.require_epoch)
    if change.require_device:
        require_approved(connection, change.require_device)
    if change.new_node is not None:
        _register(connection, change, change.new_node)
    node = read_node(connection, change.node_id)
    if node.generation != change.generation:
        raise ConflictError(
            f"node {node.id} is at generation {node.generation}, not {change.generation}",
            remedy="read the node again and decide again",
        )
    node = _follow_steps(connection, change, node)
    if change.refusal is not None:
        write_refusal(connection, change.refusal, actor=change.actor)
    if issue is not None:
        node = _issue(connection, change, node, issue)
    if change.steps:
        _publish(connection, node, change.at)
    for other in change.also:
        apply_change(connection, other, None)
    return node


def _follow_steps(connection: Connection, change: Change, node: NodeRecord) -> NodeRecord:
    if change.appraised is not None:
        _note_boot(connection, node.id, change.appraised, change.at)
    remembered = _remembered(change) | _shortened(node.svid, change.connections_end)
    if not change.steps and remembered:
        connection.execute(sa.update(nodes).where(nodes.c.id == node.id).values(remembered))
        return read_node(connection, node.id)
    for number, step in enumerate(change.steps):
        if number:
            # The last step is published when the SVID, if any, is part of the record.
            _publish(connection, node, change.at)
        last = number == len(change.steps) - 1
        node = _step(connection, change, node, step, remembered if last else {})
    return node


def require_epoch(connection: Connection, epoch: int) -> None:
    """Refuse unless the registry is at `epoch`.

    Raises:
        ConflictError: it is not.
    """
    present = connection.execute(
        sa.select(counters.c.value).where(counters.c.name == "epoch").with_for_update()
    ).scalar_one()
    if present != epoch:
        raise ConflictError(
            f"reference values or policy changed (epoch {present}, not {epoch})",
            remedy="appraise again",
        )


def write_refusal(connection: Connection, refusal: JoinRefusal, *, actor: str) -> None:
    """Remember a refused join and log it."""
    connection.execute(
        sa.insert(refusals).values(
            id=refusal.id, at=refusal.at, body=msgspec.json.encode(refusal).decode()
        )
    )
    data = {
        "refusal": refusal.id,
        "code": refusal.code,
        "stage": refusal.stage,
        "node_id": refusal.node_id,
        "evidence_digest": refusal.evidence_digest,
    }
    state_log.append(connection, "join_refused", actor=actor, at=refusal.at, data=data)


def _remembered(change: Change) -> dict[str, object]:
    values: dict[str, object] = {}
    if change.appraised is not None:
        values |= appraised_values(change.appraised)
    if change.services is not None:
        values["services"] = services_value(change.services)
    if change.entry_id is not None:
        values["entry_id"] = change.entry_id
    return values


def _shortened(svid: IssuedSvid | None, end: datetime | None) -> dict[str, object]:
    if svid is None or end is None or end >= svid.deadline:
        return {}
    return svid_values(replace(svid, deadline=end))


def _register(connection: Connection, change: Change, new: NewNode) -> None:
    connection.execute(
        sa.insert(nodes).values(
            id=new.id,
            device=new.device,
            entry_id=new.entry_id,
            spiffe_id=new.spiffe_id,
            name=new.name,
            state=NodeState.REGISTERED,
            generation=0,
            registered_at=change.at,
            changed_at=change.at,
            services="[]",
        )
    )
    data = {
        "node_id": new.id,
        "device": new.device,
        "entry_id": new.entry_id,
        "spiffe_id": new.spiffe_id,
        "state": NodeState.REGISTERED.value,
        "generation": 0,
    }
    state_log.append(connection, "registered", actor=change.actor, at=change.at, data=data)


def _note_boot(
    connection: Connection, node_id: str, appraised: AppraisedEvidence, at: datetime
) -> None:
    known = connection.execute(
        sa.select(boot_sessions.c.node_id).where(
            boot_sessions.c.node_id == node_id,
            boot_sessions.c.boot_session == appraised.boot_session,
        )
    ).one_or_none()
    if known is None and appraised.boot_session:
        connection.execute(
            sa.insert(boot_sessions).values(
                node_id=node_id, boot_session=appraised.boot_session, first_seen=at
            )
        )


def _step(
    connection: Connection,
    change: Change,
    node: NodeRecord,
    step: Step,
    remembered: dict[str, object],
) -> NodeRecord:
    row = find_transition(node.state, step.trigger)
    target = follow(
        node.state, step.trigger, reason=step.reason, actor=step.actor, facts=change.facts
    )
    # The states are compared again by the database: on one with several writers somebody may
    # have been here since the node was read.
    changed = connection.execute(
        sa.update(nodes)
        .where(
            nodes.c.id == node.id,
            nodes.c.generation == node.generation,
            nodes.c.state.in_([source.value for source in row.sources]),
        )
        .values(
            state=target.value,
            reason=step.reason.value,
            generation=nodes.c.generation + 1,
            changed_at=change.at,
            **remembered,
        )
        .returning(nodes)
    ).one_or_none()
    if changed is None:
        raise ConflictError(
            f"node {node.id} changed while {step.trigger} was decided",
            remedy="read the node again and decide again",
        )
    after = node_from(changed)
    if step.trigger is Trigger.REATTEST:
        # The operator has settled which machine is the right one, perhaps one whose boot session
        # had been replaced. What comes back from here on is judged anew.
        connection.execute(sa.delete(boot_sessions).where(boot_sessions.c.node_id == node.id))
    data = {
        **change.details,
        "node_id": node.id,
        "trigger": step.trigger.value,
        "reason": step.reason.value,
        "from": node.state.value,
        "state": after.state.value,
        "generation": after.generation,
    }
    state_log.append(connection, "transition", actor=change.actor, at=change.at, data=data)
    return after


def _issue(
    connection: Connection,
    change: Change,
    node: NodeRecord,
    issue: Callable[[NodeRecord], IssuedSvid],
) -> NodeRecord:
    if node.state.value not in _ISSUING:
        raise AuthorizationError(f"a node that is {node.state} gets no SVID")
    svid = issue(node)
    holder = connection.execute(
        sa.select(issuances.c.node_id)
        .where(issuances.c.key_digest == svid.key_digest, issuances.c.node_id != node.id)
        .limit(1)
    ).scalar_one_or_none()
    if holder is not None:
        raise AuthorizationError(
            f"the key of this request belongs to node {holder}",
            remedy="each node makes a key of its own; one that was expelled makes a new one",
        )
    connection.execute(
        sa.insert(issuances).values(
            serial=svid.serial,
            node_id=node.id,
            generation=node.generation,
            key_digest=svid.key_digest,
            issued=change.at,
            not_after=svid.not_after,
        )
    )
    stored = connection.execute(
        sa.update(nodes)
        .where(
            nodes.c.id == node.id,
            nodes.c.generation == node.generation,
            nodes.c.state.in_(_ISSUING),
        )
        .values(svid_values(svid))
        .returning(nodes)
    ).one_or_none()
    if stored is None:
        raise ConflictError(
            f"node {node.id} changed while its SVID was made",
            remedy="read the node again and decide again",
        )
    data = {
        "node_id": node.id,
        "serial": svid.serial,
        "key_digest": svid.key_digest,
        "not_after": svid.not_after.isoformat(),
    }
    state_log.append(connection, "svid_issued", actor=change.actor, at=change.at, data=data)
    return node_from(stored)


def _publish(connection: Connection, node: NodeRecord, at: datetime) -> None:
    sequence = state_log.next_number(connection, "event")
    connection.execute(
        sa.insert(events).values(
            sequence=sequence,
            at=at,
            node_id=node.id,
            member=msgspec.json.encode(member_of(node)).decode(),
        )
    )
    signal.tell(connection)
