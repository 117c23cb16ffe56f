# SPDX-License-Identifier: Apache-2.0
"""Several real servers on one PostgreSQL, and what can happen to them: killed, stopped, cut off."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from support.postgres import PostgresServer
from support.server_world import DOMAIN, SERVER_ID, World
from troth.adapters.server_client import ServerClient

__all__ = ["CutLine", "SeveralServers", "cut_line", "several_servers"]

_PG_SOCKET = ".s.PGSQL.5432"
HEARTBEAT_SECONDS = 0.5


class CutLine:
    """A way to PostgreSQL that can stop to carry anything, in either direction, and go on later."""

    def __init__(self, directory: Path, target: Path) -> None:
        self.directory, self._target = directory, target
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / _PG_SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.mend()
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.wait()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._target / _PG_SOCKET))
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def cut_line(directory: Path, target: Path) -> Iterator[CutLine]:
    directory.mkdir()
    line = CutLine(directory, target)
    try:
        yield line
    finally:
        line.close()


class SeveralServers:
    """Processes of `troth server` with one authority and one registry."""

    def __init__(self, directory: Path, world: World, urls: list[str]) -> None:
        self._directory, self._world, self._databases = directory, world, urls
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._addresses: dict[int, str] = {}

    def start(self, number: int) -> None:
        """Start a server, again at its old address, unless it runs."""
        if number in self._processes:
            return
        data = self._directory / f"s{number}"
        if number and not data.exists():
            # The keys of the trust domain are shared as an operator shares them.
            shutil.copytree(
                self._directory / "s0", data, ignore=shutil.ignore_patterns("*.sock", "tls*", ".*")
            )
        config = self._directory / f"s{number}.toml"
        config.write_text(self._config(number, data))
        log = self._directory / f"s{number}.log"
        with log.open("a") as errors:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "troth", "server", "-c", config),
                    *("--log-level", "warning", "--stop-with-stdin"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._processes[number] = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        self._addresses[number] = json.loads(line)["url"]

    def kill(self, number: int) -> None:
        """End a server as a power cut does."""
        process = self._processes.pop(number)
        process.kill()
        _reap(process)

    def stop(self, number: int) -> None:
        """Stop a server as an operator does; return when it has ended."""
        process = self._processes.pop(number)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=30) == 0
        finally:
            _reap(process)

    def close(self) -> None:
        for number in list(self._processes):
            self.kill(number)

    def client(self, *numbers: int) -> ServerClient:
        """Return an agent's client that knows these servers, or all."""
        return ServerClient(
            [self._addresses[number] for number in numbers or sorted(self._addresses)],
            trust_bundle=(self._directory / "s0" / "bundle.pem").read_text(),
            server_id=SERVER_ID,
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )

    async def ask(self, number: int, method: str, path: str, **options: Any) -> Any:
        """Ask a server as an operator."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._directory / f"s{number}/admin.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            response = await client.request(method, path, timeout=20, **options)
        assert response.is_success, response.text
        return response.json()

    def _config(self, number: int, data: Path) -> str:
        listen = self._addresses.get(number, "https://127.0.0.1:0").removeprefix("https://")
        fields: dict[str, Any] = {
            "trust_domain": DOMAIN,
            "data_dir": str(data),
            "listen": listen,
            "database": self._databases[number],
            "allow_simulator": True,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
        for entry in self._world.entries:
            lines += ["[[entries]]", f"spiffe_id = {json.dumps(entry.spiffe_id)}"]
            lines += [f"selectors = {json.dumps(entry.selectors)}"]
        lines += ["[verifier]", f"corims = {json.dumps(self._world.corims)}", "[limits]"]
        # Chaos makes more joins from one address than a fleet does.
        lines += ["requests_per_second = 1000.0", "request_burst = 10000"]
        return "\n".join(lines) + "\n"


def _reap(process: subprocess.Popen[str]) -> None:
    process.wait(timeout=30)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@contextmanager
def several_servers(
    postgres: PostgresServer, world: World, *, count: int = 3
) -> Iterator[tuple[SeveralServers, CutLine]]:
    """Give `count` servers, the last of them behind a line that can be cut."""
    url = postgres.new_url()
    with ExitStack() as stack:
        line = stack.enter_context(cut_line(world.directory / "line", postgres.directory))
        cut = url.replace(str(postgres.directory), str(line.directory))
        servers = SeveralServers(world.directory, world, [url] * (count - 1) + [cut])
        stack.callback(servers.close)
        servers.start(0)  # makes the keys
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(servers.start, range(1, count)))
        yield servers, line
