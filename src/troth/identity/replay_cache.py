# SPDX-License-Identifier: Apache-2.0
"""Which proofs have been seen, so that none is taken twice.

Only proofs whose signature held get here, so strangers cost nothing; and one caller can fill no
more than its own share.

Source: draft-ietf-wimse-wpt-02 (`jti`); draft-ietf-wimse-http-signature (`nonce`).
"""

from __future__ import annotations

from datetime import datetime
from threading import Lock
from typing import Final, Protocol

from troth.errors import ApiMisuseError, FreshnessError, UnavailableError

__all__ = ["MAX_REMEMBERED", "MAX_REMEMBERED_OF_ONE", "MemoryReplayCache", "ReplayCache"]

MAX_REMEMBERED: Final = 100_000
"""Proofs of all callers that are remembered at a time: about 30 MB."""

MAX_REMEMBERED_OF_ONE: Final = 10_000
"""Proofs of one caller's key that are remembered at a time."""


class ReplayCache(Protocol):
    """Where proofs are remembered. One that several processes share is the caller's to write."""

    def remember(self, owner: str, proof: str, *, until: datetime, now: datetime) -> None:
        """Remember a proof until it ends by itself.

        Args:
            owner: names the key that made it.
            proof: names it among those of this key.
            until: until when it would be taken.
            now: timezone-aware.

        Raises:
            FreshnessError: it is there already.
            UnavailableError: there is no room: refuse, for what is forgotten could come again.
        """
        ...


class MemoryReplayCache:
    """Remembers in this process; other processes of the same service do not know. Thread-safe."""

    def __init__(
        self, *, limit: int = MAX_REMEMBERED, limit_of_one: int = MAX_REMEMBERED_OF_ONE
    ) -> None:
        """Take the limits: of all callers, and of one key."""
        if min(limit, limit_of_one) < 1:
            raise ApiMisuseError("a replay cache without room would refuse everything")
        self._limit, self._limit_of_one = limit, limit_of_one
        self._lock = Lock()
        self._seen: dict[str, dict[str, float]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def remember(self, owner: str, proof: str, *, until: datetime, now: datetime) -> None:
        """Remember a proof; see `ReplayCache.remember`."""
        clock = now.timestamp()
        with self._lock:
            own = self._seen.get(owner, {})
            if own.get(proof, clock) > clock:
                raise FreshnessError("this proof was used before", remedy="make one per request")
            if len(own) >= self._limit_of_one:
                own = self._forget(owner, clock)
            if self._size >= self._limit:
                for name in tuple(self._seen):
                    self._forget(name, clock)
                own = self._seen.get(owner, {})
            if len(own) >= self._limit_of_one or self._size >= self._limit:
                raise UnavailableError(
                    f"there is no room for more than {self._limit_of_one} proofs of one key, or "
                    f"{self._limit} of all, until some have ended"
                )
            own = self._seen.setdefault(owner, own)
            self._size += proof not in own
            own[proof] = until.timestamp()

    def _forget(self, owner: str, clock: float) -> dict[str, float]:
        """Drop what has ended of one key."""
        own = self._seen.pop(owner, {})
        kept = {proof: end for proof, end in own.items() if end > clock}
        self._size -= len(own) - len(kept)
        if kept:
            self._seen[owner] = kept
        return kept
