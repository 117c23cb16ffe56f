# SPDX-License-Identifier: Apache-2.0
"""Trust anchors held in a list, repeatable randomness, and simulated platforms by one name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509

from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.registry import scheme
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.formats.keys import load_keys
from troth.formats.verification_key import VerificationKey


class FixedAnchors:
    """A TrustAnchorSource for one Attester; it notes what it was asked for."""

    def __init__(self, *keys: VerificationKey, identity: tuple[bytes, bytes] | None = None) -> None:
        self._keys, self._identity = keys, identity
        self.asked: list[tuple[str, bytes, bytes]] = []

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        self.asked.append((scheme, implementation_id, instance_id))
        if self._identity not in {None, (implementation_id, instance_id)}:
            return ()
        return self._keys

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        del scheme
        return ()


def seeded(seed: str) -> Callable[[int], bytes]:
    """Return a source of octets that gives the same ones for the same seed, in each run."""
    drawn = 0

    def random(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(f"{seed} {drawn}".encode()).digest(size)

    return random


def simulate(
    options: PsaOptions | CcaOptions | None = None, *, seed: str = "a"
) -> SimulatedPlatform:
    """Return a simulated platform that is the same in each run."""
    return SimulatedPlatform.create(options or PsaOptions(), random=seeded(seed))


def anchors_of(*platforms: SimulatedPlatform) -> FixedAnchors:
    """Return the attestation keys of these platforms as trust anchors of anybody who asks."""
    keys: list[VerificationKey] = []
    for platform in platforms:
        reference = platform.reference()
        if reference.symmetric_key:
            keys.append(VerificationKey(reference.symmetric_key, source="device file"))
        else:
            keys += load_keys(reference.public_key_pem.encode(), source="device file")
    return FixedAnchors(*keys)


def verify(
    token: bytes, name: str, *, anchors: FixedAnchors, challenge: Any, **allowed: bool
) -> VerifiedEvidence[Any]:
    """Decode and verify in one step, the simulator allowed unless said otherwise."""
    chosen = scheme(name)
    return chosen.verify(
        chosen.decode(token),
        trust_anchors=anchors,
        freshness=challenge,
        **{"allow_simulator": True, **allowed},
    )
