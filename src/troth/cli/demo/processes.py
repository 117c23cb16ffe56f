# SPDX-License-Identifier: Apache-2.0
"""The demo's child processes: started, awaited, and gone when the demo is gone.

Every `troth` child stops when its standard input closes, so even a demo that is killed outright
leaves nobody behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from troth.errors import UnavailableError

__all__ = ["Child", "Children"]

_STOP_SECONDS = 5.0
_LOG_TAIL_LINES = 12


class Child:
    """One `troth` process with its ready line and its log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    async def ready(self, seconds: float) -> dict[str, object]:
        """Return what the process printed as its one JSON ready line.

        Raises:
            UnavailableError: it ended or stayed silent; the message has the end of its log.
        """
        stdout = self.process.stdout
        if stdout is None:  # pragma: no cover - always piped by Children.start
            raise UnavailableError(f"{self.name} has no output to read")
        try:
            async with asyncio.timeout(seconds):
                line = await stdout.readline()
        except TimeoutError as exc:
            raise UnavailableError(
                f"{self.name} was not ready within {seconds:.0f} s; its log ends:\n{self.log_tail()}"
            ) from exc
        if not line:
            await self.process.wait()
            raise UnavailableError(
                f"{self.name} ended with status {self.process.returncode}; its log ends:\n"
                f"{self.log_tail()}"
            )
        decoded: dict[str, object] = json.loads(line)
        return decoded

    def log_tail(self) -> str:
        """Return the last lines that the process logged."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:])

    async def stop(self) -> None:
        """Close its standard input, then insist."""
        if self.process.returncode is not None:
            return
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


class Children:
    """All processes of one demo; the last started is the first stopped."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    async def start(self, name: str, *arguments: str) -> Child:
        """Start `troth ARGUMENTS` with its standard error in a log file."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "troth",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                # Ctrl-C goes to the demo alone; it stops its children in order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    async def stop(self) -> None:
        """Stop all of them."""
        for child in reversed(self._children):
            await child.stop()
        self._children.clear()
