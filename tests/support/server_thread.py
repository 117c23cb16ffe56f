# SPDX-License-Identifier: Apache-2.0
"""A server on an event loop of its own thread, for tools that ask it from outside of one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def in_own_thread(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep `server` running in a thread while the block runs; give what it gives.

    Raises:
        Exception: what it raised while it started or stopped.
    """
    started = threading.Event()
    given: list[T] = []
    failed: list[BaseException] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with server as value:
            given.append(value)
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            failed.append(exc)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(30)
    try:
        if not given:
            raise failed[0] if failed else TimeoutError("the server does not start")
        yield given[0]
    finally:
        if given:
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    if failed:
        raise failed[0]
