# SPDX-License-Identifier: Apache-2.0
"""Background checks by the server's Verifier, on behalf of a member's connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from troth.clock import Clock, SystemClock
from troth.evidence import registry
from troth.formats.ear.dialects import PROFILES
from troth.formats.ear.result import Ear
from troth.formats.ear.token import verify_ear
from troth.formats.keys import VerificationKey
from troth.mesh.peer_policy import CLOCK_SKEW

__all__ = ["ServerCheck"]

# The result was asked for just now.
_OLDEST = timedelta(minutes=1)


class _Appraising(Protocol):
    async def appraise(self, evidence: bytes, media_type: str, *, challenge: bytes) -> str: ...


class ServerCheck:
    """Implements `troth.tls.judge.BackgroundCheck` over `ServerClient`."""

    def __init__(
        self,
        name: str,
        server: _Appraising,
        keys: Callable[[], Sequence[VerificationKey]],
        *,
        clock: Clock | None = None,
    ) -> None:
        """Prepare.

        Args:
            name: what rules call the server's Verifier.
            server: reaches it.
            keys: gives its result keys as they are known now.
            clock: time.
        """
        self._name = name
        self._server = server
        self._keys = keys
        self._clock = clock or SystemClock()

    @property
    def name(self) -> str:
        """What rules call the Verifier."""
        return self._name

    async def appraise(
        self, evidence: bytes, media_type: str, *, challenge: Callable[[int], bytes], spki: bytes
    ) -> Ear:
        """Have `evidence` appraised; the challenge covers `spki`, and the server need not know it.

        Raises:
            DecodeError, VerificationError: the Evidence is refused, or the answer is not the
                Verifier's.
            UnavailableError: no answer can be had now.
        """
        del spki
        name = registry.by_media_type(media_type) if media_type else registry.detect(evidence)
        expected = challenge(registry.scheme(name).challenge_size)
        token = await self._server.appraise(evidence, media_type, challenge=expected)
        return verify_ear(
            token,
            self._keys(),
            now=self._clock.now(),
            max_age=_OLDEST,
            leeway=CLOCK_SKEW,
            profiles=PROFILES,
            require_key=False,
            require_exp=True,
        )
