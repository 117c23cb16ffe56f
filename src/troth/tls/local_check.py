# SPDX-License-Identifier: Apache-2.0
"""Background checks by a Verifier in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from troth.clock import Clock, SystemClock
from troth.evidence import registry
from troth.formats.ear.result import Ear
from troth.verifier.verifier import AUTO, Verifier

__all__ = ["LocalVerifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalVerifier:
    """Implements `BackgroundCheck`; appraises in a thread, so that no connection waits for another.

    Attributes:
        name: what policies call it.
        verifier: the Verifier; give it `lifetimes`, for a result without expiry admits nobody.
        clock: time.
    """

    name: str
    verifier: Verifier
    clock: Clock = field(default_factory=SystemClock)

    async def appraise(
        self, evidence: bytes, media_type: str, *, challenge: Callable[[int], bytes], spki: bytes
    ) -> Ear:
        """Appraise `evidence`, whose signed part has to hold the channel's binder.

        Raises:
            DecodeError, VerificationError: the Evidence is refused.
        """
        name = registry.by_media_type(media_type) if media_type else registry.detect(evidence)
        scheme = registry.scheme(name)
        result = await asyncio.to_thread(
            self.verifier.appraise,
            evidence,
            now=self.clock.now(),
            challenge=challenge(scheme.challenge_size),
            scheme=name if media_type else AUTO,
            media_type=media_type,
            key=spki,
        )
        return result.to_ear()
