# SPDX-License-Identifier: Apache-2.0
"""Devices: the inventory of machines that belong to the trust domain, and who accepted them.

An inventory says which piece of hardware may be here. It is a double opt-in: the device presents
itself with a proof of one of its identities, and its owner approves it. Either may come first, and
neither is enough. The inventory is asked at every decision, joining and renewing alike, so that
good software on a machine that is not ours (a diverted one, or one that was taken away) is refused.

It does not replace trust anchors, Reference Values or registration entries: it comes in addition.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from troth.errors import AuthorizationError, DecodeError

__all__ = [
    "MAX_IDENTITIES",
    "Device",
    "DeviceIdentity",
    "DeviceState",
    "IdentityKind",
    "Presented",
    "admit_device",
    "find_device",
    "key_identity",
    "may_bind",
]

MAX_IDENTITIES: Final = 16
"""Identities of one device: its keys, and the instance ids that its firmware versions derive."""

_ID: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_DIGEST: Final = r"[0-9a-f]{64}"
_MAX_CLASS_BYTES: Final = 128


class DeviceState(StrEnum):
    """What the owner has decided."""

    PENDING = "pending"
    APPROVED = "approved"
    REVOKED = "revoked"


class IdentityKind(StrEnum):
    """What a device can be known by.

    A join token is none: it shows once which device is meant, and the device is then known by the
    Attester that came with it.
    """

    EK = "ek"
    """SHA-256 of the SubjectPublicKeyInfo of its TPM's endorsement key."""
    CERTIFICATE = "certificate"
    """SHA-256 of the SubjectPublicKeyInfo of its IDevID or claim certificate."""
    SIGNER = "signer"
    """RFC 7638 thumbprint (hex) of its own attestation key."""
    INSTANCE = "instance"
    """`SCHEME/HEX`: the instance id that its Evidence carries, under that scheme."""


_FORMS: Final = {
    IdentityKind.EK: re.compile(_DIGEST),
    IdentityKind.CERTIFICATE: re.compile(_DIGEST),
    IdentityKind.SIGNER: re.compile(_DIGEST),
    IdentityKind.INSTANCE: re.compile(r"[a-z][a-z0-9_]{0,31}/(?:[0-9a-f]{2}){1,128}"),
}
# What a TPM, or a key in the device's root of trust, has shown in this very exchange. A certificate's
# key or a token could have been carried to another machine.
_IN_HARDWARE: Final = frozenset({IdentityKind.EK, IdentityKind.SIGNER, IdentityKind.INSTANCE})


@dataclass(frozen=True, slots=True, order=True)
class DeviceIdentity:
    """One name of a device, such as `ek:1f…` or `instance:psa/01a2…`."""

    kind: IdentityKind
    value: str

    @classmethod
    def decode(cls, text: str) -> DeviceIdentity:
        """Read `KIND:VALUE`.

        Raises:
            DecodeError: not one; the message has the accepted forms.
        """
        kind, _, value = text.partition(":")
        if kind not in tuple(IdentityKind) or not _FORMS[IdentityKind(kind)].fullmatch(value):
            raise DecodeError(
                f"{text[:64]!r} is none of ek:SHA256, certificate:SHA256, signer:SHA256, "
                "instance:SCHEME/HEX, all in lower case",
                format="device identity",
            )
        return cls(IdentityKind(kind), value)

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.value}"


def key_identity(kind: IdentityKind, spki: bytes) -> DeviceIdentity:
    """Return the identity that a public key (DER SubjectPublicKeyInfo) gives its device."""
    return DeviceIdentity(kind, hashlib.sha256(spki).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One machine in the inventory.

    Attributes:
        id: the owner's name for it; lower case letters, digits, ".", "_" and "-".
        identities: what it may be recognised by; none where a join token will show it.
        owner: whose it is, in the owner's own words.
        state: what the owner has decided.
        class_id: environment class (hex) of the Reference Values for machines of its kind. Only
            needed where no CoRIM names its attestation key, as with an activated one.
        bound: the Attester that it presented itself with (`device_key`), or "".
        presented_at: when it first did so; its half of the double opt-in. None: not yet.
        added_at, added_by: when and by whom it was entered.
        hint: the operator's own words, such as a serial number.

    Raises:
        DecodeError: a field is not what it has to be.
    """

    id: str
    identities: tuple[DeviceIdentity, ...] = ()
    owner: str = ""
    state: DeviceState = DeviceState.PENDING
    class_id: str = ""
    bound: str = ""
    presented_at: datetime | None = None
    added_at: datetime | None = None
    added_by: str = ""
    hint: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise DecodeError(
                f"{self.id[:64]!r} is no id: 1 to 63 of a-z, 0-9, '.', '_', '-'", format="device"
            )
        if len(self.identities) > MAX_IDENTITIES:
            raise DecodeError(f"more than {MAX_IDENTITIES} identities", format="device")
        if len(set(self.identities)) < len(self.identities):
            raise DecodeError("an identity twice", format="device")
        try:
            size = len(bytes.fromhex(self.class_id))
        except ValueError as exc:
            raise DecodeError("class_id is not hexadecimal", format="device") from exc
        if size > _MAX_CLASS_BYTES:
            raise DecodeError(f"class_id is longer than {_MAX_CLASS_BYTES}", format="device")

    @property
    def accepted(self) -> bool:
        """Whether both sides have opted in: it presented itself, and its owner approved it."""
        return self.state is DeviceState.APPROVED and self.presented_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a machine has proved about itself in one exchange.

    Attributes:
        attester: who made its Evidence (`device_key`).
        identities: everything that was proved: by Evidence, activation or certificate.
        token_device: id of the device whose join token it brought, or "".
    """

    attester: str
    identities: tuple[DeviceIdentity, ...]
    token_device: str = ""


def find_device(candidates: Sequence[Device], presented: Presented) -> Device | None:
    """Return the device that was presented, out of those that anything of it names.

    Raises:
        AuthorizationError: its proofs name several devices.
    """
    found = {
        each.id: each
        for each in candidates
        if each.id == presented.token_device
        or (each.bound and each.bound == presented.attester)
        or not set(each.identities).isdisjoint(presented.identities)
    }
    if len(found) > 1:
        raise AuthorizationError(
            f"what this machine proved belongs to several devices: {', '.join(sorted(found))}",
            remedy="correct the inventory: an identity belongs to one device",
        )
    return next(iter(found.values()), None)


def may_bind(device: Device, presented: Presented) -> bool:
    """Say whether the device may be known by this Attester from now on.

    One that it is bound to already, or its first. Another one only where the hardware itself has
    proved to be the device: a token or a certificate's key could have been carried over.
    """
    if device.bound in ("", presented.attester):
        return True
    proved = set(device.identities) & set(presented.identities)
    return any(identity.kind in _IN_HARDWARE for identity in proved)


def admit_device(device: Device | None, presented: Presented, *, required: bool) -> None:
    """Return if the inventory has nothing against this machine.

    Args:
        device: as `find_device` gave it, with this presentation noted.
        presented: what it proved.
        required: a machine that is not in the inventory is refused.

    Raises:
        AuthorizationError: it is not in there, not approved (any more), or bound to another
            Attester.
    """
    if device is None:
        if required:
            names = ", ".join(map(str, presented.identities)) or presented.attester
            raise AuthorizationError(
                f"this machine is not in the inventory of devices ({names})",
                remedy="if it belongs here: troth device add ID --identity with one of these, "
                "then troth device approve ID",
            )
        return
    if device.state is DeviceState.REVOKED:
        raise AuthorizationError(
            f"device {device.id} was revoked", remedy="nothing, unless the inventory is wrong"
        )
    if not may_bind(device, presented):
        raise AuthorizationError(
            f"device {device.id} is known by {device.bound}, and this is {presented.attester}: "
            "its token or certificate is used on another machine",
            remedy="find out where both machines are; if the Attester was replaced, revoke the "
            "device and add it anew",
        )
    if device.state is not DeviceState.APPROVED:
        raise AuthorizationError(
            f"device {device.id} has presented itself and is not approved",
            remedy=f"if it is yours: troth device approve {device.id}",
        )
