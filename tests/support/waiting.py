# SPDX-License-Identifier: Apache-2.0
"""Waiting for what another process does, with a bound and without luck."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["until"]


async def until(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]],
    *,
    seconds: float = 5,
    interval: float = 0.002,
) -> None:
    """Return as soon as `condition` holds.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if inspect.isawaitable(holds):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(interval)
