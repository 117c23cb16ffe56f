# SPDX-License-Identifier: Apache-2.0
"""Blocking work off the event loop: one thread for the registry, a few for appraisal.

Calls and results cross between the loop and the threads in plain queues, and the loop is woken
once for all results that are there: at thousands of calls a second the executor of the standard
library costs as much as the calls themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar, cast

from troth.errors import UnavailableError

__all__ = ["COMPUTING_THREADS", "WAITING_THREADS", "Worker"]

COMPUTING_THREADS: Final = 2
"""For appraisals: one may wait for a policy's process while the other verifies."""
WAITING_THREADS: Final = 16
"""For calls that mostly wait for another service's answer."""

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Worker:
    """Runs blocking calls in `threads` threads, at most `max_waiting` of them queued.

    With one thread the calls run one after the other in the order in which they were made: the
    registry's single writer. One event loop uses it.
    """

    def __init__(self, name: str, *, threads: int, max_waiting: int) -> None:
        self._name = name
        self._max_waiting = max_waiting
        self._waiting = 0
        self._stopped = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # (future, result, error) of calls that have ended, until the loop looks.
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._woken = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `call` returns.

        A caller that is cancelled stops waiting; a call that has begun is carried through.

        Raises:
            UnavailableError: too many calls wait already.
        """
        if self._stopped:
            raise UnavailableError(f"the {self._name} has stopped")
        if self._waiting >= self._max_waiting:
            raise UnavailableError(
                f"{self._max_waiting} calls wait for the {self._name}", retry_after_seconds=1.0
            )
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((loop, future, lambda: call(*args, **kwargs)))
        return cast("T", await future)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, call = job
            result, error = None, None
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - it is the caller's to handle
                error = exc
            self._ended.append((future, result, error))
            del job, future, call, result, error  # nothing of a call outlives it here
            if not self._woken:
                self._woken = True
                with contextlib.suppress(RuntimeError):  # nobody waits once the loop is closed
                    loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # First the flag: whoever ends a call after this wakes the loop again.
        self._woken = False
        while self._ended:
            future, result, error = self._ended.popleft()
            self._waiting -= 1
            if future.cancelled():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    async def close(self) -> None:
        """Wait for what was begun, refuse what comes."""
        self._stopped = True
        for _ in self._threads:
            self._jobs.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._join)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
