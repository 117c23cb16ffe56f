# SPDX-License-Identifier: Apache-2.0
"""Several processes of one command that serve one port.

Each worker ends when its standard input closes, so none is left behind by a parent that dies. One
that ends by itself is started again, later and later while it does not last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from troth.errors import ConfigurationError, UnavailableError

__all__ = ["run_workers"]

_LOG = logging.getLogger(__name__)
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_FIRST_WAIT_SECONDS: Final = 0.5
_LAST_WAIT_SECONDS: Final = 30.0
_LASTING_SECONDS: Final = 60.0
_USAGE: Final = 3


async def run_workers(
    commands: Sequence[Sequence[str]],
    *,
    environment: Mapping[str, str],
    ready: Callable[[dict[str, Any]], None],
) -> None:
    """Run one process for each command until cancelled.

    The second and further ones start when the first is ready.

    Args:
        commands: arguments of this program, the first worker's first.
        environment: of the workers.
        ready: is given the first worker's ready line once all of them are ready.

    Raises:
        ConfigurationError: the first worker does not accept what it is told; it has said why.
        UnavailableError: a worker does not come up.
    """
    workers = [_Worker(command, environment) for command in commands]
    try:
        line = await workers[0].start()
        async with asyncio.TaskGroup() as starting:
            for worker in workers[1:]:
                starting.create_task(worker.start())
        ready(line)
        async with asyncio.TaskGroup() as keeping:
            for worker in workers:
                keeping.create_task(worker.keep())
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from exc
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))


class _Worker:
    """One process, and its successors."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = tuple(command), dict(environment)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> dict[str, Any]:
        """Start it and return its ready line.

        Raises:
            ConfigurationError, UnavailableError: it did not come up.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "troth",
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        output = self._process.stdout
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await output.readline() if output is not None else b""
        except TimeoutError as exc:
            raise UnavailableError("a worker does not get ready") from exc
        if not line:
            status = await self._process.wait()
            if status == _USAGE:
                raise ConfigurationError(
                    source="configuration", accepted="one that the workers take, see above"
                )
            raise UnavailableError(f"a worker ended with status {status} at its start")
        found: dict[str, Any] = json.loads(line)
        return found

    async def keep(self) -> None:
        """Start it again whenever it ends, until cancelled."""
        wait = _FIRST_WAIT_SECONDS
        while True:
            begin = asyncio.get_running_loop().time()
            status = await self._process.wait() if self._process is not None else -1
            lasted = asyncio.get_running_loop().time() - begin
            wait = _FIRST_WAIT_SECONDS if lasted > _LASTING_SECONDS else wait
            _LOG.error("a worker ended with status %s; the next starts in %.1f s", status, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LAST_WAIT_SECONDS)
            try:
                await self.start()
            except (UnavailableError, ConfigurationError) as exc:
                _LOG.error("%s", exc)

    async def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
