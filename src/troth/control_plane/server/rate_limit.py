# SPDX-License-Identifier: Apache-2.0
"""Token buckets: how often one address, and everybody together, may ask."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["MAX_TRACKED_ADDRESSES", "Rate", "RateLimiter"]

MAX_TRACKED_ADDRESSES = 10_000
"""Addresses remembered; the one that asked longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second in the long run, and so many at once."""

    per_second: float
    burst: int


class RateLimiter:
    """One bucket for each caller and one for all of them.

    Args:
        each: what one caller may do.
        together: what all may do together.
    """

    def __init__(self, *, each: Rate, together: Rate) -> None:
        self._each = each
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._together = _Bucket(together)

    def take(self, caller: str, *, monotonic: float) -> float:
        """Take a token and return 0, or return the seconds after which there is one."""
        bucket = self._buckets.pop(caller, None) or _Bucket(self._each)
        self._buckets[caller] = bucket
        if len(self._buckets) > MAX_TRACKED_ADDRESSES:
            self._buckets.popitem(last=False)
        # A caller over its own limit takes nothing from the others.
        wait = bucket.wait(monotonic) or self._together.wait(monotonic)
        if not wait:
            bucket.take()
            self._together.take()
        return wait


class _Bucket:
    __slots__ = ("_filled_at", "_rate", "_tokens")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._filled_at: float | None = None

    def wait(self, monotonic: float) -> float:
        passed = monotonic - self._filled_at if self._filled_at is not None else 0.0
        self._filled_at = monotonic
        self._tokens = min(self._rate.burst, self._tokens + passed * self._rate.per_second)
        return max(0.0, (1.0 - self._tokens) / self._rate.per_second)

    def take(self) -> None:
        self._tokens -= 1.0
