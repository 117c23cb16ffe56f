# SPDX-License-Identifier: Apache-2.0
"""The only source of time and randomness; the core is handed readings of it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock", "system_random"]


class Clock(Protocol):
    """Wall and monotonic time."""

    def now(self) -> datetime:
        """Return the wall-clock time, timezone-aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the system time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the system's monotonic clock in seconds."""
        return time.monotonic()


def system_random(size: int) -> bytes:
    """Return `size` bytes from the operating system's random source."""
    return os.urandom(size)
