# SPDX-License-Identifier: Apache-2.0
"""Trust anchors that devices have earned: attestation keys that were activated in their TPMs.

A TPM's attestation key is made on the machine, so nobody can put it into a CoRIM beforehand. Once
credential activation has shown which TPM it lives in, the Verifier believes it as it believes a
provisioned one, for as long as its device is not revoked. Which Reference Values are for it, the
inventory says (`Device.class_id`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.endorsement.repository import EndorsementSnapshot
from troth.endorsement.trust_anchor import TrustAnchor
from troth.formats.keys import VerificationKey, spki
from troth.formats.tpm.public import decode_public
from troth.mesh.device import DeviceState
from troth.mesh.device_registry import DeviceRegistry
from troth.verifier.verifier import EndorsementSource

__all__ = ["ActivatedAnchors"]

_SCHEME = "tpm2"


class ActivatedAnchors:
    """An `EndorsementSource`: another one, and the activated keys of the registry.

    Its snapshots ask the registry, and only for keys that the other source does not know.
    """

    def __init__(self, endorsements: EndorsementSource, devices: DeviceRegistry) -> None:
        self._endorsements, self._devices = endorsements, devices

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return the set in force at `now`, for one appraisal."""
        return _Snapshot(self._endorsements.snapshot(now), self._devices)


class _Snapshot:
    def __init__(self, base: EndorsementSnapshot, devices: DeviceRegistry) -> None:
        self._base, self._devices = base, devices
        # Of the activated key that this appraisal rests on.
        self._name, self._class_id = b"", b""

    @property
    def epoch(self) -> str:
        """Digest of the set, with the activated key and its kind where there is one.

        Conclusions are kept by this digest, and the same values may mean something else to a
        machine of another kind.
        """
        if not self._name:
            return self._base.epoch
        parts = (self._base.epoch.encode(), self._name, self._class_id)
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> Sequence[ReferenceValue]:
        """Return the values for this environment."""
        if scheme == _SCHEME and not class_id and self._name and instance_id == self._name:
            class_id = self._class_id
        return self._base.find(scheme, class_id=class_id, instance_id=instance_id)

    def trust_anchors(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[TrustAnchor]:
        """Return the keys of this Attester, provisioned or activated."""
        found = self._base.trust_anchors(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )
        if found or scheme != _SCHEME or not instance_id:
            return found
        activated = self._activated(instance_id)
        return (activated,) if activated is not None else ()

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        """Return the keys of this Attester, ready to verify with."""
        found = self._base.keys(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )
        if found or scheme != _SCHEME or not instance_id:
            return found
        activated = self._activated(instance_id)
        return (activated.verification_key(),) if activated is not None else ()

    def _activated(self, name: bytes) -> TrustAnchor | None:
        record = self._devices.activated_key(name)
        if record is None:
            return None
        public = decode_public(record.public)
        if public.name != name:
            return None  # somebody has changed the database
        listed = self._devices.find_devices([record.endorsement])
        if any(device.state is DeviceState.REVOKED for device in listed):
            return None
        self._name = name
        self._class_id = bytes.fromhex(listed[0].class_id) if listed else b""
        return TrustAnchor(
            id=f"activated/{name.hex()}",
            scheme=_SCHEME,
            environment=Environment(instance_id=name),
            public_key=spki(public.public_key()),
            source="an activated key",
        )

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        """Return the root certificates for this scheme."""
        return self._base.certificates(scheme)
