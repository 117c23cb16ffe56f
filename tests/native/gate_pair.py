# SPDX-License-Identifier: Apache-2.0
"""Two stock Envoys with gates, their simulated agents, and plain applications behind them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from native.agent_simulator import AgentSimulator, decide
from native.stock_envoy import (
    StockEnvoy,
    client_config,
    cluster,
    gate_filter,
    http_manager,
    listener,
    log_lines,
    rbac_by_tier,
    server_config,
    tcp_proxy,
    tls,
)
from support.certificates import TestAuthority
from support.ports import reserved_ports

__all__ = ["GREETING", "GatePair", "fetch", "gate_pair"]

CLIENT_ID = "spiffe://example.test/client"
SERVER_ID = "spiffe://example.test/server"
GREETING = b"220 the application speaks first\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gives back every octet, then the end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    writer.close()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As SMTP or MySQL: greets before it has read anything, then echoes."""
    writer.write(GREETING)
    await echo(reader, writer)


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1: answers with the tier header that the proxy added; /slow never ends."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            await reader.readexactly(int(fields.get("content-length", "0")))
            if " /slow" in head[0]:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
                await reader.read()
                break
            body = fields.get("x-troth-tier", "").encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    writer.close()


async def fetch(port: int, path: str = "/", *, body: bytes = b"") -> tuple[int, bytes]:
    """One HTTP/1.1 request on its own connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        # The header tries to claim a tier from outside; the proxy must replace it.
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-troth-tier: forged\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = await reader.read()
    finally:
        writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


@dataclass
class GatePair:
    """Everything that a test talks to."""

    client_agent: AgentSimulator
    server_agent: AgentSimulator
    client: StockEnvoy
    server: StockEnvoy
    ports: dict[str, int]
    directory: Path
    authority: TestAuthority
    module: Path

    def use(self, client: Any = decide, server: Any = decide) -> None:
        """Choose what the agents do with the connections from now on."""
        for agent, script in ((self.client_agent, client), (self.server_agent, server)):
            agent.script, agent.on_resume = script, None
            agent.connections.clear()

    async def open(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.ports[name])

    async def record(self, log: str, **wanted: str) -> dict[str, Any]:
        """Wait for the first access-log record whose fields begin with the wanted texts."""
        async with asyncio.timeout(10):
            async for record in log_lines(self.directory / log):
                if all(str(record[key]).startswith(text) for key, text in wanted.items()):
                    return record
        raise AssertionError


@asynccontextmanager
async def gate_pair(
    module: Path,
    binary: Path,
    *,
    client_gate: dict[str, object] | None | bool = None,
    server_gate: dict[str, object] | None | bool = None,
    workers: int = 2,
) -> AsyncIterator[GatePair]:
    """Start the pair. `client_gate` and `server_gate`: options of the gate, or False for none.

    Client listeners: tcp, hello, h1, h2, by what they lead to. Server ports: s_tcp, s_hello, s_http.
    """
    authority = TestAuthority()
    directory = Path(tempfile.mkdtemp(prefix="tg", dir="/tmp"))  # noqa: S108 - short socket paths
    client_gate = {} if client_gate is None else client_gate
    server_gate = {} if server_gate is None else server_gate

    async with contextlib.AsyncExitStack() as stack:
        backends: dict[str, int] = {}
        for name, handler in (("echo", echo), ("greet", greet), ("web", web)):
            application = await asyncio.start_server(handler, "127.0.0.1", 0)
            stack.push_async_callback(application.wait_closed)
            stack.callback(application.close)
            backends[name] = application.sockets[0].getsockname()[1]
        names = ["tcp", "hello", "h1", "h2", "s_tcp", "s_hello", "s_http"]
        ports = dict(zip(names, stack.enter_context(reserved_ports(len(names))), strict=True))
        agents = {
            role: await stack.enter_async_context(AgentSimulator(directory / f"{role}.sock"))
            for role in ("client", "server")
        }

        def chain(*after: dict[str, Any]) -> list[dict[str, Any]]:
            if server_gate is False:
                return list(after)
            agent = agents["server"].path
            return [gate_filter(module, agent, "server", label="inbound", **server_gate), *after]

        log = directory / "server.log"
        downstream = tls(authority, SERVER_ID, server=True)
        server = StockEnvoy(
            binary,
            server_config(
                [
                    listener("tcp", ports["s_tcp"], chain(tcp_proxy("echo")), log, downstream),
                    listener("hello", ports["s_hello"], chain(tcp_proxy("greet")), log, downstream),
                    listener(
                        "http",
                        ports["s_http"],
                        chain(
                            http_manager(
                                "web", directory / "server-http.log", rbac_by_tier("confidential")
                            )
                        ),
                        log,
                        downstream,
                    ),
                ],
                [cluster(name, port) for name, port in backends.items()],
            ),
            name="server",
            workers=workers,
        )
        log = directory / "outer.log"
        client = StockEnvoy(
            binary,
            client_config(
                routes={
                    "tcp": listener("tcp", ports["tcp"], [tcp_proxy("mesh_tcp")], log),
                    "hello": listener("hello", ports["hello"], [tcp_proxy("mesh_hello")], log),
                    "h1": listener("h1", ports["h1"], [http_manager("mesh_h1")], log),
                    "h2": listener("h2", ports["h2"], [http_manager("mesh_h2")], log),
                },
                endpoints={
                    "mesh_tcp": ports["s_tcp"],
                    "mesh_hello": ports["s_hello"],
                    "mesh_h1": ports["s_http"],
                    "mesh_h2": ports["s_http"],
                },
                gate=None
                if client_gate is False
                else gate_filter(module, agents["client"].path, "client", **client_gate),
                socket=tls(authority, CLIENT_ID, server=False),
                log=directory / "client.log",
            ),
            name="client",
            workers=workers,
        )
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        yield GatePair(
            agents["client"], agents["server"], client, server, ports, directory, authority, module
        )


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
