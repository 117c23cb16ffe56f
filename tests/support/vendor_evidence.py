# SPDX-License-Identifier: Apache-2.0
"""Trust anchors that are root certificates, and verification with the time and collateral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from troth.evidence.context import Collateral, VerificationContext
from troth.evidence.evidence import Unchecked, VerifiedEvidence
from troth.evidence.registry import scheme
from troth.formats.keys import VerificationKey

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
CHALLENGE = bytes(range(64))
UNCHECKED = Unchecked("this test is not about freshness")


class Roots:
    """A TrustAnchorSource of root certificates."""

    def __init__(self, *certificates: x509.Certificate) -> None:
        self._certificates = certificates

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        del scheme, implementation_id, instance_id
        return ()

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        del scheme
        return self._certificates


def verify_with(
    data: bytes,
    name: str,
    *roots: x509.Certificate,
    now: datetime = NOW,
    challenge: bytes | Unchecked = CHALLENGE,
    collateral: Mapping[str, bytes] | None = None,
    vendors: Sequence[str] = (),
    media_type: str = "",
    grace: timedelta = timedelta(0),
    **allowed: bool,
) -> VerifiedEvidence[Any]:
    """Decode and verify in one step, the simulator allowed unless said otherwise."""
    chosen = scheme(name)
    return chosen.verify(
        chosen.decode(data, media_type=media_type),
        trust_anchors=Roots(*roots),
        freshness=challenge,
        context=VerificationContext(
            now=now,
            collateral=Collateral(collateral or {}),
            vendors=frozenset(vendors),
            grace=grace,
        ),
        **{"allow_simulator": True, **allowed},
    )
