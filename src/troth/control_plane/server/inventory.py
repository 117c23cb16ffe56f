# SPDX-License-Identifier: Apache-2.0
"""The inventory at work: which device is joining, and may it.

Asked at every join and at every renewal. A machine has to prove what it is known by each time, or
be known by the Attester that it once presented itself with.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from troth.control_plane.server.activations import Activations
from troth.control_plane.server.join_request import DecodedRequest, token_digest
from troth.control_plane.server.onboarding_config import OnboardingSection
from troth.control_plane.server.worker import Worker
from troth.errors import AuthorizationError, BindingError, ConfigurationError
from troth.evidence.tpm2.activation import ActivationChallenge
from troth.formats.tpm.public import decode_public
from troth.mesh.claim_certificate import verify_claim
from troth.mesh.device import (
    Device,
    DeviceIdentity,
    IdentityKind,
    Presented,
    admit_device,
    find_device,
    may_bind,
)
from troth.mesh.device_registry import ActivatedKeyRecord, DeviceRegistry, RevokedDevice
from troth.mesh.registration_entry import device_key
from troth.verifier.result import AttestationResult
from troth.verifier.verifier import EndorsementSource

__all__ = ["Inventory", "Proofs"]

_TOKEN_BYTES: Final = 32


class Proofs(msgspec.Struct, frozen=True, kw_only=True):
    """What a join has proved beside its Evidence.

    Attributes:
        activated: the key that its TPM was shown to hold, or None.
        certificate: identity by its claim certificate, or None.
    """

    activated: ActivatedKeyRecord | None = None
    certificate: DeviceIdentity | None = None


class Inventory:
    """Decides by the inventory of devices.

    Args:
        devices, worker: the registry, and the one thread that it is used from.
        section: the configuration.
        endorsements: roots of EK certificates.
        random: source of randomness.
        max_activations: activations under way at once.

    Raises:
        ConfigurationError: a file of roots cannot be read.
    """

    def __init__(
        self,
        devices: DeviceRegistry,
        worker: Worker,
        *,
        section: OnboardingSection,
        endorsements: EndorsementSource,
        random: Callable[[int], bytes],
        max_activations: int,
    ) -> None:
        self._devices, self._worker, self._section = devices, worker, section
        self._required = section.inventory == "required"
        self._roots = _roots(section.claim_roots)
        self._activations = Activations(
            devices,
            endorsements,
            required=self._required,
            random=random,
            max_open=max_activations,
        )

    # Joins

    async def challenge(
        self, session_id: str, data: bytes, *, now: datetime
    ) -> ActivationChallenge:
        """Challenge a TPM; raises as `Activations.begin`."""
        return await self._worker.run(self._activations.begin, session_id, data, now=now)

    async def proofs(self, request: DecodedRequest, *, now: datetime) -> Proofs:
        """Verify what a join brings beside its Evidence.

        Raises:
            VerificationError: an activation or a claim that does not hold.
            AuthorizationError: a TPM that is not to be activated.
        """
        certificate = None
        if request.claim is not None:
            certificate = verify_claim(
                request.claim,
                roots=self._roots,
                svid_key=request.csr.spki,
                nonce=request.session.nonce,
                now=now,
            )
        activated = None
        if request.activation:
            activated = await self._worker.run(
                self._activations.complete, request.session.id, request.activation, now=now
            )
        return Proofs(activated=activated, certificate=certificate)

    async def decide(
        self, result: AttestationResult, request: DecodedRequest, proofs: Proofs, *, now: datetime
    ) -> Device | None:
        """Return the device that is joining, None where it is not in the inventory and need not be.

        It presents itself by that: the first proof of a device is noted even if it is not approved.

        Args:
            result: of its Evidence, which is authentic.
            request: what it sent.
            proofs: as `proofs` gave them.
            now: the time.

        Raises:
            AuthorizationError: the inventory is against it.
            BindingError: the Evidence is not of the key that was activated.
            ConflictError: the inventory has changed meanwhile; decide again.
        """
        return await self._worker.run(self._decide, result, request, proofs, now)

    def _decide(
        self, result: AttestationResult, request: DecodedRequest, proofs: Proofs, now: datetime
    ) -> Device | None:
        presented = self._presented(result, request, proofs, now)
        candidates = self._devices.find_devices(
            presented.identities, attester=presented.attester, device_id=presented.token_device
        )
        device = find_device(candidates, presented)
        if (
            request.token
            and not presented.token_device
            and (device is None or device.bound != presented.attester)
        ):
            raise AuthorizationError(
                "the join token is unknown, used or expired",
                remedy="make a new one: troth device token ID",
            )
        token = request.token if presented.token_device else ""
        changes = device is not None and (device.bound != presented.attester or bool(token))
        if device is not None and changes and may_bind(device, presented):
            device = self._devices.present_device(
                device.id, attester=presented.attester, at=now, token=token
            )
        admit_device(device, presented, required=self._required)
        return device

    def _presented(
        self, result: AttestationResult, request: DecodedRequest, proofs: Proofs, now: datetime
    ) -> Presented:
        identities = []
        if result.signer_is_device and result.signer:
            identities.append(DeviceIdentity(IdentityKind.SIGNER, result.signer))
        if result.instance_id:
            name = f"{result.scheme}/{result.instance_id.hex()}"
            identities.append(DeviceIdentity(IdentityKind.INSTANCE, name))
        activated = proofs.activated
        if activated is not None and (
            result.scheme != "tpm2" or result.signer != decode_public(activated.public).thumbprint
        ):
            raise BindingError(
                "the Evidence is not signed by the attestation key that was activated",
                remedy="Attest with the key that the activation request names.",
            )
        if activated is None and result.scheme == "tpm2":
            activated = self._devices.activated_key(result.instance_id)
        if activated is not None:
            identities.append(activated.endorsement)
        if proofs.certificate is not None:
            identities.append(proofs.certificate)
        token = self._devices.token_device(request.token, now=now) if request.token else ""
        return Presented(
            attester=device_key(result), identities=tuple(identities), token_device=token
        )

    # Operators

    async def devices(self) -> tuple[Device, ...]:
        """Return all devices."""
        return await self._worker.run(self._devices.devices)

    async def device(self, device_id: str) -> Device:
        """Return one; raises ConflictError where there is none."""
        return await self._worker.run(self._devices.device, device_id)

    async def add(self, device: Device, *, actor: str, now: datetime) -> Device:
        """Enter a device; raises as `DeviceRegistry.add_device`."""
        await self._worker.run(self._devices.add_device, device, actor=actor, at=now)
        return await self.device(device.id)

    async def approve(self, device_id: str, *, actor: str, now: datetime) -> Device:
        """Approve a device; raises as `DeviceRegistry.approve_device`."""
        return await self._worker.run(self._devices.approve_device, device_id, actor=actor, at=now)

    async def revoke(self, device_id: str, *, actor: str, now: datetime) -> RevokedDevice:
        """Revoke a device; raises as `DeviceRegistry.revoke_device`."""
        return await self._worker.run(self._devices.revoke_device, device_id, actor=actor, at=now)

    async def token(
        self, device_id: str, *, seconds: int, actor: str, now: datetime
    ) -> tuple[str, datetime]:
        """Make a join token for a device; only its digest is kept.

        Args:
            device_id: the device.
            seconds: its life, 0 for the configured one.
            actor: who makes it.
            now: the time.

        Raises:
            ConflictError: there is no such device, or it was revoked.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        expires = now + timedelta(seconds=seconds or self._section.join_token_seconds)
        await self._worker.run(
            self._devices.add_join_token,
            token_digest(token),
            device_id,
            expires=expires,
            actor=actor,
            at=now,
        )
        return token, expires


def _roots(names: Sequence[str]) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    for name in names:
        try:
            found += x509.load_pem_x509_certificates(Path(name).read_bytes())
        except (OSError, ValueError) as exc:
            raise ConfigurationError(
                source="server configuration",
                key="onboarding.claim_roots",
                value=name,
                accepted=f"a readable PEM file of certificates ({exc})",
            ) from exc
    return tuple(found)
