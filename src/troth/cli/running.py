# SPDX-License-Identifier: Apache-2.0
"""How a long-running command starts and stops.

It ends cleanly by SIGINT, SIGTERM, or, where it was asked to, when its standard input closes: the
last is for a parent that must not leave it behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Coroutine
from typing import Any

__all__ = ["print_ready", "run_until_stopped", "without_decorations"]


def run_until_stopped(
    work: Coroutine[Any, Any, None], *, with_stdin: bool, fast: bool = False
) -> None:
    """Run `work` until it ends, a signal asks to stop, or standard input closes.

    Args:
        work: what to do.
        with_stdin: whether the end of standard input ends it.
        fast: use the faster event loop, at the price of some memory.

    Raises:
        Exception: what `work` raised.
    """
    loop_factory = None
    if fast:
        import uvloop  # noqa: PLC0415 - only where it is used

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_run(work, with_stdin=with_stdin))


async def _run(work: Coroutine[Any, Any, None], *, with_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if with_stdin:
        await _watch_stdin(stopped)
    task = loop.create_task(work)
    stopping = loop.create_task(stopped.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _watch_stdin(stopped: asyncio.Event) -> None:
    class Watcher(asyncio.Protocol):
        def eof_received(self) -> None:
            stopped.set()

        def connection_lost(self, exc: Exception | None) -> None:
            del exc
            stopped.set()

    await asyncio.get_running_loop().connect_read_pipe(Watcher, sys.stdin)


def print_ready(**facts: object) -> None:
    """Print the one line of JSON by which a starter learns that the process serves."""
    print(json.dumps({"ready": True, **facts}), flush=True)  # noqa: T201 - the ready line is for the starter


def without_decorations() -> None:
    """Keep libraries from loading what only a terminal program needs: a fifth of an agent's memory.

    httpx would load its own command line, structlog its coloured tracebacks, and both rich and
    pygments. They take the absence in their stride; call this before anything imports them.
    """
    for name in ("httpx._main", "rich"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None makes the import fail
