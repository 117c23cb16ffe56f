# SPDX-License-Identifier: Apache-2.0
"""The inventory as rows, and the part of the registry port about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import state_log
from troth.adapters.registry.database import Database
from troth.adapters.registry.device_schema import (
    activated_keys,
    device_identities,
    devices,
    join_tokens,
)
from troth.adapters.registry.node_rows import node_from
from troth.adapters.registry.schema import nodes
from troth.adapters.registry.transitions import apply_change
from troth.errors import ConflictError, UnavailableError
from troth.mesh.admission import Step
from troth.mesh.device import Device, DeviceIdentity, DeviceState
from troth.mesh.device_registry import ActivatedKeyRecord, DeviceRegistry, RevokedDevice
from troth.mesh.node import NodeState, Reason, Trigger
from troth.mesh.registry import Change

__all__ = ["SqlDeviceRegistry"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REVOKED = Step(trigger=Trigger.QUARANTINE, reason=Reason.DEVICE_REVOKED)
_LIVE = (NodeState.ATTESTING, NodeState.ATTESTED, NodeState.ADMITTED, NodeState.DEGRADED)


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a device but its id and what it is bound to."""

    identities: tuple[str, ...]
    owner: str
    state: str
    class_id: str
    presented_at: datetime | None
    added_at: datetime | None
    added_by: str
    hint: str


class SqlDeviceRegistry(DeviceRegistry):
    """The part of `SqlRegistry` that knows devices."""

    _database: Database

    def devices(self) -> tuple[Device, ...]:
        """Return all devices by id."""
        with self._database.read() as connection:
            found = connection.execute(sa.select(devices).order_by(devices.c.id))
            return tuple(_device(row.id, row.bound, row.body) for row in found)

    def device(self, device_id: str) -> Device:
        """Return one device."""
        with self._database.read() as connection:
            return _read(connection, device_id)

    def find_devices(
        self, identities: Sequence[DeviceIdentity], *, attester: str = "", device_id: str = ""
    ) -> tuple[Device, ...]:
        """Return the devices that any of these names."""
        named = sa.select(device_identities.c.device_id).where(
            device_identities.c.identity.in_([str(each) for each in identities])
        )
        wanted = sa.or_(
            devices.c.id.in_(named), devices.c.bound == attester, devices.c.id == device_id
        )
        with self._database.read() as connection:
            found = connection.execute(sa.select(devices).where(wanted).order_by(devices.c.id))
            return tuple(_device(row.id, row.bound, row.body) for row in found)

    def add_device(self, device: Device, *, actor: str, at: datetime) -> None:
        """Enter a device."""
        made = replace(device, added_at=at, added_by=actor)
        with self._database.write() as connection:
            _refuse_taken(connection, device)
            connection.execute(
                sa.insert(devices).values(id=made.id, bound=made.bound or None, body=_body(made))
            )
            rows = [{"identity": str(each), "device_id": made.id} for each in made.identities]
            if rows:
                connection.execute(sa.insert(device_identities), rows)
            _log(connection, "device_added", made, actor=actor, at=at)

    def approve_device(self, device_id: str, *, actor: str, at: datetime) -> Device:
        """Note the owner's approval."""
        with self._database.write() as connection:
            device = _read(connection, device_id)
            _refuse_revoked(device)
            if device.state is DeviceState.APPROVED:
                return device
            approved = replace(device, state=DeviceState.APPROVED)
            _write(connection, approved)
            _log(connection, "device_approved", approved, actor=actor, at=at)
            return approved

    def revoke_device(self, device_id: str, *, actor: str, at: datetime) -> RevokedDevice:
        """Revoke a device and quarantine its nodes."""
        with self._database.write() as connection:
            device = replace(_read(connection, device_id), state=DeviceState.REVOKED)
            _write(connection, device)
            connection.execute(sa.delete(join_tokens).where(join_tokens.c.device_id == device_id))
            connection.execute(
                sa.delete(activated_keys).where(
                    activated_keys.c.endorsement.in_([str(each) for each in device.identities])
                )
            )
            _log(connection, "device_revoked", device, actor=actor, at=at)
            affected = connection.execute(
                sa.select(nodes).where(
                    nodes.c.device == device.bound,
                    nodes.c.state.in_([state.value for state in _LIVE]),
                )
            ).all()
            for row in affected:
                node = node_from(row)
                change = Change(
                    node_id=node.id,
                    generation=node.generation,
                    steps=(_REVOKED,),
                    actor=actor,
                    at=at,
                )
                apply_change(connection, change, None)
            return RevokedDevice(device=device, nodes=tuple(row.id for row in affected))

    def present_device(
        self, device_id: str, *, attester: str, at: datetime, token: str = ""
    ) -> Device:
        """Note that the device has presented itself, and use its token up."""
        with self._database.write() as connection:
            if token:
                used = connection.execute(
                    sa.delete(join_tokens)
                    .where(join_tokens.c.digest == token, join_tokens.c.device_id == device_id)
                    .returning(join_tokens.c.digest)
                ).one_or_none()
                if used is None:
                    raise ConflictError("the join token was used meanwhile")
            device = _read(connection, device_id)
            presented = replace(device, bound=attester, presented_at=device.presented_at or at)
            if presented != device:
                _write(connection, presented)
                _log(connection, "device_presented", presented, actor="server", at=at)
            return presented

    def add_join_token(
        self, digest: str, device_id: str, *, expires: datetime, actor: str, at: datetime
    ) -> None:
        """Keep the digest of a join token."""
        with self._database.write() as connection:
            device = _read(connection, device_id)
            _refuse_revoked(device)
            connection.execute(
                sa.delete(join_tokens).where(
                    sa.or_(
                        join_tokens.c.device_id == device_id,
                        join_tokens.c.expires <= _number(at),
                    )
                )
            )
            connection.execute(
                sa.insert(join_tokens).values(
                    digest=digest, device_id=device_id, expires=_number(expires)
                )
            )
            _log(connection, "join_token_made", device, actor=actor, at=at)

    def token_device(self, digest: str, *, now: datetime) -> str:
        """Return the device that an unused token is for, or ""."""
        with self._database.read() as connection:
            found: str | None = connection.execute(
                sa.select(join_tokens.c.device_id).where(
                    join_tokens.c.digest == digest, join_tokens.c.expires > _number(now)
                )
            ).scalar_one_or_none()
            return found or ""

    def put_activated_key(self, key: ActivatedKeyRecord, *, limit: int) -> None:
        """Keep an activated key in the place of the one that this TPM had before."""
        with self._database.write() as connection:
            connection.execute(
                sa.delete(activated_keys).where(
                    sa.or_(
                        activated_keys.c.endorsement == str(key.endorsement),
                        # The same TPM, by its other endorsement key.
                        activated_keys.c.name == key.name.hex(),
                    )
                )
            )
            count = connection.execute(
                sa.select(sa.func.count()).select_from(activated_keys)
            ).scalar_one()
            if count >= limit:
                raise UnavailableError(
                    f"activated keys of {limit} TPMs are kept already",
                    remedy='set onboarding.inventory to "required", so that only TPMs of the '
                    "inventory are activated",
                )
            connection.execute(
                sa.insert(activated_keys).values(
                    endorsement=str(key.endorsement),
                    name=key.name.hex(),
                    public=key.public,
                    vouched_by=key.vouched_by,
                    at=_number(key.at),
                )
            )
            data = {
                "name": key.name.hex(),
                "endorsement": str(key.endorsement),
                "vouched_by": key.vouched_by,
            }
            state_log.append(connection, "key_activated", actor="server", at=key.at, data=data)

    def activated_key(self, name: bytes) -> ActivatedKeyRecord | None:
        """Return the activated key of this name."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(activated_keys).where(activated_keys.c.name == name.hex())
            ).one_or_none()
            if row is None:
                return None
            return ActivatedKeyRecord(
                name=name,
                public=row.public,
                endorsement=DeviceIdentity.decode(row.endorsement),
                vouched_by=row.vouched_by,
                at=_EPOCH + timedelta(microseconds=row.at),
            )


def _read(connection: Connection, device_id: str) -> Device:
    row = connection.execute(sa.select(devices).where(devices.c.id == device_id)).one_or_none()
    if row is None:
        raise ConflictError(f"there is no device {device_id!r}", remedy="list the devices")
    return _device(row.id, row.bound, row.body)


def _write(connection: Connection, device: Device) -> None:
    connection.execute(
        sa.update(devices)
        .where(devices.c.id == device.id)
        .values(bound=device.bound or None, body=_body(device))
    )


def _refuse_taken(connection: Connection, device: Device) -> None:
    taken = connection.execute(
        sa.select(devices.c.id).where(devices.c.id == device.id)
    ).one_or_none()
    if taken is not None:
        raise ConflictError(f"there is a device {device.id!r} already", remedy="choose another id")
    row = connection.execute(
        sa.select(device_identities).where(
            device_identities.c.identity.in_([str(each) for each in device.identities])
        )
    ).first()
    if row is not None:
        raise ConflictError(
            f"{row.identity} belongs to device {row.device_id!r}",
            remedy="an identity belongs to one device, a revoked one too",
        )


def _refuse_revoked(device: Device) -> None:
    if device.state is DeviceState.REVOKED:
        raise ConflictError(
            f"device {device.id!r} was revoked, which is for good",
            remedy="enter the hardware as another device, with other identities",
        )


def _log(connection: Connection, kind: str, device: Device, *, actor: str, at: datetime) -> None:
    data = {
        "device_id": device.id,
        "state": device.state.value,
        "bound": device.bound,
        "identities": [str(each) for each in device.identities],
    }
    state_log.append(connection, kind, actor=actor, at=at, data=data)


def _body(device: Device) -> str:
    body = _Body(
        identities=tuple(map(str, device.identities)),
        owner=device.owner,
        state=device.state.value,
        class_id=device.class_id,
        presented_at=device.presented_at,
        added_at=device.added_at,
        added_by=device.added_by,
        hint=device.hint,
    )
    return msgspec.json.encode(body).decode()


def _device(device_id: str, bound: str | None, text: str) -> Device:
    body = msgspec.json.decode(text, type=_Body)
    return Device(
        id=device_id,
        identities=tuple(map(DeviceIdentity.decode, body.identities)),
        owner=body.owner,
        state=DeviceState(body.state),
        class_id=body.class_id,
        bound=bound or "",
        presented_at=body.presented_at,
        added_at=body.added_at,
        added_by=body.added_by,
        hint=body.hint,
    )


def _number(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
