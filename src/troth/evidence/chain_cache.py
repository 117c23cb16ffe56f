# SPDX-License-Identifier: Apache-2.0
"""Certificate paths that were verified before, so that a fleet's are not verified each time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

__all__ = ["MAX_REMEMBERED_CHAINS", "ChainCache"]

MAX_REMEMBERED_CHAINS: Final = 4096
"""Paths remembered for one scheme, least recently used first to go; one takes some 10 KB."""

T = TypeVar("T")


class ChainCache(Generic[T]):
    """What paths led to, by all that decides where they lead but for the time.

    The time is for the caller to check, each time. May be used from several threads.
    """

    def __init__(self, size: int = MAX_REMEMBERED_CHAINS) -> None:
        self._size = size
        self._lock = Lock()
        self._known: OrderedDict[bytes, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @staticmethod
    def key(*groups: Sequence[bytes]) -> bytes:
        """Return a digest of the groups: no two different ones have the same octets to hash."""
        digest = hashlib.sha256()
        for group in groups:
            digest.update(len(group).to_bytes(4, "big"))
            for part in group:
                digest.update(len(part).to_bytes(4, "big"))
                digest.update(part)
        return digest.digest()

    def get(self, key: bytes) -> T | None:
        """Return what is remembered, or None."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def put(self, key: bytes, found: T) -> None:
        """Remember it."""
        with self._lock:
            self._known[key] = found
            self._known.move_to_end(key)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
