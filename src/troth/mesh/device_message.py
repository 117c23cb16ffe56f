# SPDX-License-Identifier: Apache-2.0
"""Devices as operators write and read them in JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from troth.mesh.device import MAX_IDENTITIES, Device, DeviceIdentity, DeviceState

__all__ = [
    "DeviceMessage",
    "RevocationMessage",
    "TokenReply",
    "TokenRequest",
    "device_from",
    "device_message",
]


class DeviceMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device. The members after `hint` are the server's to say; a new device leaves them out.

    Attributes:
        id: the owner's name for it.
        identities: such as `ek:SHA256`; see `DeviceIdentity`.
        owner, hint: in words.
        class_id: hex; see `Device`.
        state: pending, approved or revoked.
        bound: the Attester that it is known by.
        presented_at: when it presented itself first.
        added_at, added_by: when and by whom it was entered.
    """

    id: Annotated[str, Meta(max_length=63)]
    identities: Annotated[
        tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=MAX_IDENTITIES)
    ] = ()
    owner: Annotated[str, Meta(max_length=256)] = ""
    class_id: Annotated[str, Meta(max_length=256)] = ""
    hint: Annotated[str, Meta(max_length=256)] = ""
    state: str = DeviceState.PENDING.value
    bound: str = ""
    presented_at: datetime | None = None
    added_at: datetime | None = None
    added_by: str = ""


class RevocationMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a revocation did.

    Attributes:
        device: the device.
        quarantined: the nodes that were members by it.
    """

    device: DeviceMessage
    quarantined: tuple[str, ...]


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for a join token.

    Attributes:
        seconds: its life; 0 for the configured one.
    """

    seconds: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 0


class TokenReply(msgspec.Struct, frozen=True, kw_only=True):
    """A join token; nobody can be shown it a second time.

    Attributes:
        device: id of the device that it is for.
        token: goes into the agent's configuration on that machine.
        expires: aware UTC.
    """

    device: str
    token: str
    expires: datetime


def device_from(message: DeviceMessage) -> Device:
    """Return the new device that a message describes, pending whatever it says.

    Raises:
        DecodeError: a field is not what it has to be.
    """
    return Device(
        id=message.id,
        identities=tuple(map(DeviceIdentity.decode, message.identities)),
        owner=message.owner,
        class_id=message.class_id,
        hint=message.hint,
    )


def device_message(device: Device) -> DeviceMessage:
    """Return a device as operators read it."""
    return DeviceMessage(
        id=device.id,
        identities=tuple(map(str, device.identities)),
        owner=device.owner,
        class_id=device.class_id,
        hint=device.hint,
        state=device.state.value,
        bound=device.bound,
        presented_at=device.presented_at,
        added_at=device.added_at,
        added_by=device.added_by,
    )
