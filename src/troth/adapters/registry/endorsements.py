# SPDX-License-Identifier: Apache-2.0
"""CoRIMs, withdrawals and the policy in force, and the epoch that numbers them."""

from __future__ import annotations

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
    found = connection.execute(sa.select(corims).order_by(corims.c.provisioned_at, corims.c.digest))
    return tuple(
        ProvisionedCorim(
            id=row.id,
            digest=row.digest,
            source=row.source,
            data=row.data,
            provisioned_at=row.provisioned_at,
            provisioned_by=row.provisioned_by,
            withdrawn=row.withdrawn,
        )
        for row in found
    )


def withdrawn_ids(connection: Connection) -> tuple[str, ...]:
    """Return the identifiers of what was withdrawn out of CoRIMs."""
    return tuple(connection.execute(sa.select(withdrawn_parts.c.id)).scalars())


def provision(connection: Connection, corim: ProvisionedCorim) -> int:
    """Store a CoRIM; see `Registry.provision`. One that was withdrawn is in force again."""
    present = connection.execute(
        sa.select(corims.c.withdrawn).where(corims.c.digest == corim.digest)
    ).scalar_one_or_none()
    if present is False:
        return present_epoch(connection)
    values = {
        "id": corim.id,
        "source": corim.source,
        "data": corim.data,
        "provisioned_at": corim.provisioned_at,
        "provisioned_by": corim.provisioned_by,
        "withdrawn": False,
    }
    if present is None:
        connection.execute(sa.insert(corims).values(digest=corim.digest, **values))
    else:
        connection.execute(sa.update(corims).where(corims.c.digest == corim.digest).values(values))
    epoch = state_log.next_number(connection, "epoch")
    state_log.append(
        connection,
        "corim_provisioned",
        actor=corim.provisioned_by,
        at=corim.provisioned_at,
        data={"id": corim.id, "digest": corim.digest, "source": corim.source, "epoch": epoch},
    )
    return epoch


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
    already = set(withdrawn_ids(connection))
    for part in withdrawal.parts:
        if part in already:
            continue
        connection.execute(
            sa.insert(withdrawn_parts).values(
                id=part,
                withdrawn_at=withdrawal.at,
                withdrawn_by=withdrawal.actor,
                why=withdrawal.why,
            )
        )
        fresh += 1
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
