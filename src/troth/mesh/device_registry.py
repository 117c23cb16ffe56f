# SPDX-License-Identifier: Apache-2.0
"""The registry port for the inventory of devices; the rules of `troth.mesh.registry` hold here too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from troth.mesh.device import Device, DeviceIdentity

__all__ = ["ActivatedKeyRecord", "DeviceRegistry", "RevokedDevice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivatedKeyRecord:
    """An attestation key that credential activation has shown to live in a certain TPM.

    Attributes:
        name: its TPM name, which Evidence carries as instance id.
        public: its public area (TPMT_PUBLIC).
        endorsement: identity of that TPM's endorsement key.
        vouched_by: what says whose TPM that is.
        at: when.
    """

    name: bytes
    public: bytes = field(repr=False)
    endorsement: DeviceIdentity
    vouched_by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedDevice:
    """What a revocation did: the device, and the nodes that are quarantined by it."""

    device: Device
    nodes: tuple[str, ...]


class DeviceRegistry(Protocol):
    """Durable inventory of devices, with their join tokens and activated keys."""

    def devices(self) -> tuple[Device, ...]:
        """Return all devices by id."""
        ...

    def device(self, device_id: str) -> Device:
        """Return one device.

        Raises:
            ConflictError: there is none of that id.
        """
        ...

    def find_devices(
        self, identities: Sequence[DeviceIdentity], *, attester: str = "", device_id: str = ""
    ) -> tuple[Device, ...]:
        """Return the devices with any of these identities, bound to this Attester, or of this id."""
        ...

    def add_device(self, device: Device, *, actor: str, at: datetime) -> None:
        """Enter a device.

        Raises:
            ConflictError: its id is taken, or an identity is another device's.
        """

    def approve_device(self, device_id: str, *, actor: str, at: datetime) -> Device:
        """Note the owner's approval.

        Raises:
            ConflictError: there is none of that id, or it was revoked: that is for good.
        """
        ...

    def revoke_device(self, device_id: str, *, actor: str, at: datetime) -> RevokedDevice:
        """Revoke a device with its tokens and activated keys, and quarantine its nodes.

        Raises:
            ConflictError: there is none of that id.
        """
        ...

    def present_device(
        self, device_id: str, *, attester: str, at: datetime, token: str = ""
    ) -> Device:
        """Note that the device has presented itself with this Attester, and use its token up.

        Args:
            device_id: the device.
            attester: what it is known by from now on.
            at: when.
            token: digest of the join token that showed which device it is, or "".

        Raises:
            ConflictError: there is no such device, or the token was used meanwhile.
        """
        ...

    def add_join_token(
        self, digest: str, device_id: str, *, expires: datetime, actor: str, at: datetime
    ) -> None:
        """Keep the digest of a join token for a device, in the place of an earlier one.

        Raises:
            ConflictError: there is none of that id, or it was revoked.
        """

    def token_device(self, digest: str, *, now: datetime) -> str:
        """Return the device that an unused token is for, or "" where there is no such token."""
        ...

    def put_activated_key(self, key: ActivatedKeyRecord, *, limit: int) -> None:
        """Keep an activated key in the place of the one that this TPM had before.

        Raises:
            UnavailableError: keys of `limit` TPMs are kept already.
        """

    def activated_key(self, name: bytes) -> ActivatedKeyRecord | None:
        """Return the activated key of this name."""
        ...
