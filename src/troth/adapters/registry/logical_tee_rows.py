# SPDX-License-Identifier: Apache-2.0
"""Logical TEEs as rows, and the part of the registry port about them."""

from __future__ import annotations

from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import state_log
from troth.adapters.registry.database import Database
from troth.adapters.registry.logical_tee_schema import logical_tees
from troth.errors import ConflictError, UnavailableError
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.logical_tee_registry import MAX_LOGICAL_TEES, LogicalTeeRegistry

__all__ = ["SqlLogicalTeeRegistry"]


class SqlLogicalTeeRegistry(LogicalTeeRegistry):
    """The part of `SqlRegistry` that knows Logical TEEs."""

    _database: Database

    def logical_tees(self) -> tuple[LogicalTee, ...]:
        """Return all, by name."""
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(logical_tees.c.body).order_by(logical_tees.c.name)
            ).scalars()
            return tuple(map(_tee, found))

    def logical_tee(self, name: str) -> LogicalTee:
        """Return one."""
        with self._database.read() as connection:
            return _read(connection, name)

    def put_logical_tee(self, tee: LogicalTee, *, actor: str, at: datetime) -> bool:
        """Write a definition in the place of the one of its name."""
        with self._database.write() as connection:
            present = _find(connection, tee.name)
            if present == tee:
                return False
            body = msgspec.json.encode(tee).decode()
            if present is None:
                _refuse_more(connection)
                connection.execute(sa.insert(logical_tees).values(name=tee.name, body=body))
            else:
                _refuse_other_past(present, tee, at)
                connection.execute(
                    sa.update(logical_tees).where(logical_tees.c.name == tee.name).values(body=body)
                )
            _log(connection, "ltee_set", tee, actor=actor, at=at)
            return True

    def delete_logical_tee(self, name: str, *, actor: str, at: datetime) -> None:
        """Delete a definition."""
        with self._database.write() as connection:
            tee = _read(connection, name)
            connection.execute(sa.delete(logical_tees).where(logical_tees.c.name == name))
            _log(connection, "ltee_deleted", tee, actor=actor, at=at)


def _find(connection: Connection, name: str) -> LogicalTee | None:
    body = connection.execute(
        sa.select(logical_tees.c.body).where(logical_tees.c.name == name)
    ).scalar_one_or_none()
    return None if body is None else _tee(body)


def _read(connection: Connection, name: str) -> LogicalTee:
    found = _find(connection, name)
    if found is None:
        raise ConflictError(f"there is no Logical TEE {name!r}", remedy="`troth ltee list`")
    return found


def _refuse_more(connection: Connection) -> None:
    count = connection.execute(sa.select(sa.func.count()).select_from(logical_tees)).scalar_one()
    if count >= MAX_LOGICAL_TEES:
        raise UnavailableError(
            f"there are {MAX_LOGICAL_TEES} Logical TEEs already", remedy="delete one"
        )


def _refuse_other_past(present: LogicalTee, wanted: LogicalTee, at: datetime) -> None:
    """Results name epochs by number: what a number meant once, it means for good."""
    past = {epoch.id: epoch for epoch in present.epochs if epoch.not_before <= at}
    for epoch in wanted.epochs:
        before = past.get(epoch.id)
        if before is not None and (before.not_before, before.registry_epoch) != (
            epoch.not_before,
            epoch.registry_epoch,
        ):
            raise ConflictError(
                f"epoch {epoch.id} of {wanted.name} has begun and means what it meant",
                remedy="add an epoch with a higher number; only its overlap may change",
            )
    if past and wanted.epochs[-1].id < max(past):
        raise ConflictError(
            f"epoch {max(past)} of {wanted.name} has begun and cannot be taken back",
            remedy="add an epoch with a higher number",
        )


def _log(connection: Connection, kind: str, tee: LogicalTee, *, actor: str, at: datetime) -> None:
    data = {"ltee": tee.name, "owner": tee.owner, "definition": tee.definition_digest}
    state_log.append(connection, kind, actor=actor, at=at, data=data)


def _tee(body: str) -> LogicalTee:
    return msgspec.json.decode(body, type=LogicalTee)
