# SPDX-License-Identifier: Apache-2.0
"""Credential activations under way, each within one join session.

They are kept in this process and end after two minutes. A join that is answered by another server
of the same registry begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509

from troth.errors import (
    AuthorizationError,
    ConflictError,
    FreshnessError,
    UnavailableError,
)
from troth.evidence.context import VerificationContext
from troth.evidence.evidence import TrustAnchorSource
from troth.evidence.tpm2.activation import (
    ActivationChallenge,
    ActivationRequest,
    CredentialActivation,
)
from troth.formats.keys import VerificationKey, spki
from troth.formats.tpm.public import TpmPublic
from troth.mesh.device import Device, DeviceIdentity, DeviceState, IdentityKind, key_identity
from troth.mesh.device_registry import ActivatedKeyRecord, DeviceRegistry
from troth.verifier.verifier import EndorsementSource

__all__ = ["MAX_ACTIVATED_KEYS", "Activations"]

MAX_ACTIVATED_KEYS: Final = 200_000
"""TPMs whose key is kept: each takes a TPM that somebody vouches for."""


class Activations:
    """The server's side of activations. Its methods block and are used from one thread.

    Args:
        devices: the inventory.
        endorsements: roots of EK certificates, and registered EKs.
        required: only TPMs of the inventory are activated.
        random: source of randomness.
        max_open: activations under way.
    """

    def __init__(
        self,
        devices: DeviceRegistry,
        endorsements: EndorsementSource,
        *,
        required: bool,
        random: Callable[[int], bytes],
        max_open: int,
    ) -> None:
        self._devices, self._endorsements = devices, endorsements
        self._required, self._random, self._max_open = required, random, max_open
        self._open: dict[str, CredentialActivation] = {}

    def begin(self, session_id: str, data: bytes, *, now: datetime) -> ActivationChallenge:
        """Return the challenge for the TPM of a session's Attester.

        Args:
            session_id: of an open session; it is challenged once.
            data: the activation request, as received.
            now: the time.

        Raises:
            DecodeError: not an activation request.
            AuthorizationError: its endorsement key is not in the inventory that has to have it, or
                was revoked.
            VerificationError: nothing vouches for the endorsement key, or a key is not what it
                has to be.
            ConflictError: this session was challenged already.
            UnavailableError: too many activations are under way.
        """
        self._forget(now)
        if session_id in self._open:
            raise ConflictError(
                "this session was challenged already", remedy="open a new session for another key"
            )
        if len(self._open) >= self._max_open:
            raise UnavailableError(
                f"{self._max_open} activations are under way", retry_after_seconds=10.0
            )
        request = ActivationRequest.decode(data)
        identity = _identity(request.endorsement_key)
        device = next(iter(self._devices.find_devices([identity])), None)
        self._check(device, identity)
        snapshot = self._endorsements.snapshot(now)
        activation = CredentialActivation.begin(
            request,
            trust_anchors=_Vouching(snapshot, request.endorsement_key if device else None),
            context=VerificationContext(now=now),
            random=self._random,
        )
        self._open[session_id] = activation
        return activation.challenge

    def complete(self, session_id: str, answer: bytes, *, now: datetime) -> ActivatedKeyRecord:
        """Return the key that the answer shows to live in the challenged TPM, and keep it.

        Raises:
            BindingError: the answer is not the secret of this session's challenge.
            FreshnessError: this session was not challenged, or too long ago.
            AuthorizationError: the TPM was revoked meanwhile.
            UnavailableError: keys of too many TPMs are kept.
        """
        activation = self._open.pop(session_id, None)
        if activation is None:
            raise FreshnessError(
                "this session has no challenge that an answer could be for",
                remedy="ask for a challenge in the session that is joined with",
            )
        activated = activation.complete(answer, now=now)
        identity = _identity(activated.endorsement_key)
        device = next(iter(self._devices.find_devices([identity])), None)
        self._check(device, identity)
        record = ActivatedKeyRecord(
            name=activated.attestation_key.name,
            public=activated.attestation_key.raw,
            endorsement=identity,
            vouched_by=activated.vouched_by,
            at=now,
        )
        known = self._devices.activated_key(record.name)
        if known is None or known.endorsement != identity:
            self._devices.put_activated_key(record, limit=MAX_ACTIVATED_KEYS)
        return record

    def _check(self, device: Device | None, identity: DeviceIdentity) -> None:
        if device is None and self._required:
            raise AuthorizationError(
                f"the TPM with endorsement key {identity} is not in the inventory of devices",
                remedy=f"if it belongs here: troth device add ID --identity {identity}",
            )
        if device is not None and device.state is DeviceState.REVOKED:
            raise AuthorizationError(f"device {device.id} was revoked")

    def _forget(self, now: datetime) -> None:
        over = [name for name, each in self._open.items() if each.expires < now]
        for name in over:
            del self._open[name]


def _identity(endorsement_key: TpmPublic) -> DeviceIdentity:
    return key_identity(IdentityKind.EK, spki(endorsement_key.public_key()))


class _Vouching(TrustAnchorSource):
    """Trust anchors, with an endorsement key that the inventory has."""

    def __init__(self, anchors: TrustAnchorSource, listed: TpmPublic | None) -> None:
        self._anchors, self._listed = anchors, listed

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        if self._listed is not None and instance_id == self._listed.name:
            return (VerificationKey(self._listed.public_key(), source="the inventory"),)
        return self._anchors.keys(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        return self._anchors.certificates(scheme)
