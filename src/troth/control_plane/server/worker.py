# SPDX-License-Identifier: Apache-2.0
"""Blocking work off the event loop: one thread for the registry, a few for appraisal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from troth.errors import UnavailableError

__all__ = ["Worker"]

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs blocking calls in `threads` threads, at most `max_waiting` of them queued.

    With one thread the calls run one after the other in the order in which they were made: the
    registry's single writer.
    """

    def __init__(self, name: str, *, threads: int, max_waiting: int) -> None:
        self._name = name
        self._max_waiting = max_waiting
        self._waiting = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `call` returns.

        A caller that is cancelled stops waiting; a call that has begun is carried through.

        Raises:
            UnavailableError: too many calls wait already.
        """
        if self._waiting >= self._max_waiting:
            raise UnavailableError(
                f"{self._max_waiting} calls wait for the {self._name}", retry_after_seconds=1.0
            )
        self._waiting += 1
        try:
            future = self._executor.submit(call, *args, **kwargs)
        except RuntimeError as exc:
            self._waiting -= 1
            raise UnavailableError(f"the {self._name} has stopped") from exc
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._report_done(loop))
        return await asyncio.wrap_future(future)

    def _report_done(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # nobody counts once the loop is closed
            loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        self._waiting -= 1

    async def close(self) -> None:
        """Wait for what was begun, refuse what comes."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
