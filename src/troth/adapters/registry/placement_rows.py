# SPDX-License-Identifier: Apache-2.0
"""Placements as rows, and the part of the registry port about them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import state_log
from troth.adapters.registry.database import Database
from troth.adapters.registry.logical_tee_schema import logical_tees
from troth.adapters.registry.placement_schema import placement_secrets, placements
from troth.errors import ConflictError, UnavailableError
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.placement import MAX_PLACEMENTS, Placement
from troth.mesh.placement_registry import PlacementRegistry

__all__ = ["SqlPlacementRegistry"]


class SqlPlacementRegistry(PlacementRegistry):
    """The part of `SqlRegistry` that knows placements."""

    _database: Database

    def placements(self) -> tuple[Placement, ...]:
        """Return all, by name."""
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(placements.c.body).order_by(placements.c.name)
            ).scalars()
            return tuple(map(_placement, found))

    def put_placement(self, placement: Placement, *, actor: str, at: datetime) -> bool:
        """Write a placement in the place of the one of its name."""
        with self._database.write() as connection:
            present = _find(connection, placement.name)
            if present == placement:
                return False
            _require_class(connection, placement)
            if present is None:
                _refuse_more(connection)
            _forget(connection, placement.name, keep=placement.secrets)
            connection.execute(sa.delete(placements).where(placements.c.name == placement.name))
            body = msgspec.json.encode(placement).decode()
            connection.execute(sa.insert(placements).values(name=placement.name, body=body))
            _log(connection, "placement_set", placement, actor=actor, at=at)
            return True

    def delete_placement(self, name: str, *, actor: str, at: datetime) -> None:
        """Delete a placement with its secrets."""
        with self._database.write() as connection:
            present = _read(connection, name)
            _forget(connection, name, keep=())
            connection.execute(sa.delete(placements).where(placements.c.name == name))
            _log(connection, "placement_deleted", present, actor=actor, at=at)

    def put_secret(
        self, placement: str, name: str, value: bytes, *, actor: str, at: datetime
    ) -> None:
        """Set the value of a secret."""
        with self._database.write() as connection:
            present = _read(connection, placement)
            if name not in present.secrets:
                raise ConflictError(
                    f"placement {placement} names no secret {name!r}",
                    remedy="list it in the placement's secrets first",
                )
            table = placement_secrets
            connection.execute(
                sa.delete(table).where(table.c.placement == placement, table.c.name == name)
            )
            connection.execute(sa.insert(table).values(placement=placement, name=name, value=value))
            _log(connection, "placement_secret_set", present, actor=actor, at=at, secret=name)

    def secrets_of(self, placement: str) -> Mapping[str, bytes]:
        """Return the values of a placement's secrets that were set."""
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(placement_secrets.c.name, placement_secrets.c.value).where(
                    placement_secrets.c.placement == placement
                )
            )
            return {row.name: row.value for row in found}


def _find(connection: Connection, name: str) -> Placement | None:
    body = connection.execute(
        sa.select(placements.c.body).where(placements.c.name == name)
    ).scalar_one_or_none()
    return None if body is None else _placement(body)


def _read(connection: Connection, name: str) -> Placement:
    found = _find(connection, name)
    if found is None:
        raise ConflictError(f"there is no placement {name!r}", remedy="list the placements")
    return found


def _require_class(connection: Connection, placement: Placement) -> None:
    body = connection.execute(
        sa.select(logical_tees.c.body).where(logical_tees.c.name == placement.ltee)
    ).scalar_one_or_none()
    tee = None if body is None else msgspec.json.decode(body, type=LogicalTee)
    if tee is None or placement.member_class not in {each.name for each in tee.classes}:
        raise ConflictError(
            f"there is no class {placement.member_class!r} of a Logical TEE {placement.ltee!r}",
            remedy="define the Logical TEE first",
        )


def _refuse_more(connection: Connection) -> None:
    count = connection.execute(sa.select(sa.func.count()).select_from(placements)).scalar_one()
    if count >= MAX_PLACEMENTS:
        raise UnavailableError(
            f"there are {MAX_PLACEMENTS} placements already", remedy="delete one"
        )


def _forget(connection: Connection, name: str, *, keep: tuple[str, ...]) -> None:
    connection.execute(
        sa.delete(placement_secrets).where(
            placement_secrets.c.placement == name, placement_secrets.c.name.not_in(keep)
        )
    )


def _log(
    connection: Connection,
    kind: str,
    placement: Placement,
    *,
    actor: str,
    at: datetime,
    secret: str = "",
) -> None:
    data = {
        "placement": placement.name,
        "ltee": placement.ltee,
        "member_class": placement.member_class,
        "digest": placement.digest,
        **({"secret": secret} if secret else {}),
    }
    state_log.append(connection, kind, actor=actor, at=at, data=data)


def _placement(body: str) -> Placement:
    return msgspec.json.decode(body, type=Placement)
