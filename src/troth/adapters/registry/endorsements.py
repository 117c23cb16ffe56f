# SPDX-License-Identifier: Apache-2.0
"""CoRIMs, withdrawals and the policy in force, and the epoch that numbers them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import state_log
from troth.adapters.registry.schema import corims, counters, policies, withdrawn_parts
from troth.errors import ConflictError
from troth.mesh.registry import ProvisionedCorim, Withdrawal

__all__ = [
    "adopt_policy",
    "present_epoch",
    "provision",
    "read_corims",
    "withdraw",
    "withdrawn_ids",
]


def present_epoch(connection: Connection) -> int:
    """Return the epoch in force."""
    epoch: int = connection.execute(
        sa.select(counters.c.value).where(counters.c.name == "epoch")
    ).scalar_one()
    return epoch


def read_corims(connection: Connection) -> tuple[ProvisionedCorim, ...]:
    """Return all CoRIMs in the order in which they were provisioned."""
    found = connection.execute(
        sa.select(corims).order_by(corims.c.sequence, corims.c.provisioned_at, corims.c.digest)
    )
    return tuple(
        ProvisionedCorim(
            id=row.id,
            digest=row.digest,
            source=row.source,
            data=row.data,
            provisioned_at=row.provisioned_at,
            provisioned_by=row.provisioned_by,
            withdrawn=row.withdrawn,
            scheme=row.scheme,
            retires_at=row.retires_at,
        )
        for row in found
    )


def withdrawn_ids(connection: Connection) -> tuple[str, ...]:
    """Return the identifiers of what was withdrawn out of CoRIMs."""
    return tuple(connection.execute(sa.select(withdrawn_parts.c.id)).scalars())


def provision(
    connection: Connection,
    corim: ProvisionedCorim,
    *,
    replaces: str,
    overlap_until: datetime | None,
    withdraws: Sequence[str],
) -> int:
    """Store a CoRIM; see `Registry.provision`. One that was withdrawn is in force again."""
    present = connection.execute(
        sa.select(corims.c.withdrawn, corims.c.retires_at).where(corims.c.digest == corim.digest)
    ).one_or_none()
    if present is not None and not present.withdrawn and present.retires_at is None:
        return present_epoch(connection)
    if replaces:
        _retire(connection, replaces, overlap_until)
    # They were about another content of this id, or about this one before it was withdrawn.
    connection.execute(
        sa.delete(withdrawn_parts).where(
            withdrawn_parts.c.id.startswith(f"{corim.id}/", autoescape=True)
        )
    )
    epoch = state_log.next_number(connection, "epoch")
    values = {
        "id": corim.id,
        "source": corim.source,
        "data": corim.data,
        "provisioned_at": corim.provisioned_at,
        "provisioned_by": corim.provisioned_by,
        "withdrawn": False,
        "sequence": epoch,
        "scheme": corim.scheme,
        "retires_at": None,
    }
    if present is None:
        connection.execute(sa.insert(corims).values(digest=corim.digest, **values))
    else:
        connection.execute(sa.update(corims).where(corims.c.digest == corim.digest).values(values))
    data: dict[str, object] = {
        "id": corim.id,
        "digest": corim.digest,
        "source": corim.source,
        "epoch": epoch,
    }
    _withdraw_parts(
        connection,
        withdraws,
        actor=corim.provisioned_by,
        at=corim.provisioned_at,
        why=f"replaced by {corim.id}",
    )
    if withdraws:
        data["withdraws"] = list(withdraws)
    if replaces:
        data["replaces"] = replaces
        data["overlap_until"] = overlap_until.isoformat() if overlap_until is not None else ""
    state_log.append(
        connection,
        "corim_provisioned",
        actor=corim.provisioned_by,
        at=corim.provisioned_at,
        data=data,
    )
    return epoch


def _retire(connection: Connection, digest: str, until: datetime | None) -> None:
    """Let a CoRIM go: at once, or at `until` if it would be there for longer."""
    change = {"withdrawn": True} if until is None else {"retires_at": until}
    gone = connection.execute(
        sa.update(corims)
        .where(corims.c.digest == digest, corims.c.withdrawn.is_(False))
        .values(change)
        .returning(corims.c.digest)
    ).one_or_none()
    if gone is None:
        raise ConflictError(f"there is no CoRIM {digest} to replace", remedy="list the CoRIMs")


def withdraw(connection: Connection, withdrawal: Withdrawal) -> int:
    """Mark what is withdrawn and return the new epoch; the caller has checked the old one.

    Raises:
        ConflictError: a CoRIM is not there, or everything is withdrawn already.
    """
    fresh = 0
    for digest in withdrawal.corims:
        present = connection.execute(
            sa.update(corims)
            .where(corims.c.digest == digest)
            .values(withdrawn=True)
            .returning(corims.c.digest)
        ).one_or_none()
        if present is None:
            raise ConflictError(f"there is no CoRIM {digest}", remedy="list the CoRIMs")
        fresh += 1
    fresh += _withdraw_parts(
        connection,
        withdrawal.parts,
        actor=withdrawal.actor,
        at=withdrawal.at,
        why=withdrawal.why,
    )
    if not fresh:
        raise ConflictError("all of that is withdrawn already")
    epoch = state_log.next_number(connection, "epoch")
    data = {
        "parts": list(withdrawal.parts),
        "corims": list(withdrawal.corims),
        "why": withdrawal.why,
        "epoch": epoch,
    }
    state_log.append(
        connection, "endorsement_withdrawn", actor=withdrawal.actor, at=withdrawal.at, data=data
    )
    return epoch


def _withdraw_parts(
    connection: Connection, parts: Sequence[str], *, actor: str, at: datetime, why: str
) -> int:
    """Mark parts of CoRIMs and return how many were not marked before."""
    known = set(withdrawn_ids(connection)) if parts else set()
    fresh = [part for part in parts if part not in known]
    for part in fresh:
        connection.execute(
            sa.insert(withdrawn_parts).values(id=part, withdrawn_at=at, withdrawn_by=actor, why=why)
        )
    return len(fresh)


def adopt_policy(
    connection: Connection, *, policy_id: str, digest: str, actor: str, at: datetime
) -> int:
    """Write down the policy in force; see `Registry.adopt_policy`."""
    last = connection.execute(
        sa.select(policies).order_by(policies.c.epoch.desc()).limit(1)
    ).one_or_none()
    if last is not None and (last.id, last.digest) == (policy_id, digest):
        return present_epoch(connection)
    epoch = state_log.next_number(connection, "epoch")
    connection.execute(
        sa.insert(policies).values(epoch=epoch, id=policy_id, digest=digest, adopted_at=at)
    )
    data = {"policy_id": policy_id, "policy_digest": digest, "epoch": epoch}
    state_log.append(connection, "policy_adopted", actor=actor, at=at, data=data)
    return epoch
