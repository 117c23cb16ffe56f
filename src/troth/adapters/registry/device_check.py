# SPDX-License-Identifier: Apache-2.0
"""The last look at the inventory, inside the transaction that admits."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry.device_schema import devices
from troth.errors import ConflictError
from troth.mesh.device import DeviceState

__all__ = ["require_approved"]


class _State(msgspec.Struct, frozen=True):
    state: str


def require_approved(connection: Connection, device_id: str) -> None:
    """Refuse unless the device is approved; another server may have revoked it a moment ago.

    Raises:
        ConflictError: it is not (any more).
    """
    body = connection.execute(
        sa.select(devices.c.body).where(devices.c.id == device_id)
    ).scalar_one_or_none()
    state = msgspec.json.decode(body, type=_State).state if body is not None else ""
    if state != DeviceState.APPROVED.value:
        raise ConflictError(
            f"device {device_id} is not approved any more", remedy="ask the inventory again"
        )
