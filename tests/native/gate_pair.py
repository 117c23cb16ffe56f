# SPDX-License-Identifier: Apache-2.0
"""Two stock Envoys with gates, their simulated agents, and plain applications behind them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from native.agent_simulator import AgentSimulator, Script, decide
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
from support.certificates import Credential, TestAuthority
from support.ports import reserved_ports

__all__ = ["GREETING", "GatePair", "Streams", "eventually", "fetch", "gate_pair", "is_closed"]

CLIENT_ID = "spiffe://example.test/client"
SERVER_ID = "spiffe://example.test/server"
GREETING = b"220 the application speaks first\r\n"
SERVER_EXCHANGE_MS = 1500
CLIENT_EXCHANGE_MS = 2500  # so that it is always the server that loses patience first

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gives back every octet, then the end."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As SMTP or MySQL: greets before it has read anything, then echoes."""
    writer.write(GREETING)
    await echo(reader, writer)


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1: answers with the tier header that the proxy added; /slow never ends."""
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


async def fetch(port: int, path: str = "/") -> tuple[int, bytes]:
    """One HTTP/1.1 request on its own connection. It claims a tier from outside."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
            "x-troth-tier: forged\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


async def eventually(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 5) -> None:
    """Wait until a condition holds that no event announces."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if holds is True or (not isinstance(holds, bool) and await holds):
                return
            await asyncio.sleep(0.01)


async def is_closed(reader: asyncio.StreamReader, seconds: float = 10) -> bool:
    """Wait for the end of a connection that must not bring another octet."""
    try:
        return await asyncio.wait_for(reader.read(1), seconds) == b""
    except ConnectionError:
        return True


@dataclass
class Peer:
    """A TLS end without Envoy: speaks to a gate as a test tells it to."""

    authority: TestAuthority
    credential: Credential
    directory: Path

    def context(self, *, server: bool) -> ssl.SSLContext:
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(purpose, cadata=self.authority.bundle.decode())
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        for name, content in (("chain", self.credential.chain), ("key", self.credential.key)):
            (self.directory / f"peer-{name}.pem").write_bytes(content)
        context.load_cert_chain(self.directory / "peer-chain.pem", self.directory / "peer-key.pem")
        return context


@dataclass
class GatePair:
    """Everything that a test talks to."""

    directory: Path
    authority: TestAuthority
    client_credential: Credential
    server_credential: Credential
    ports: dict[str, int]
    client_agent: AgentSimulator
    server_agent: AgentSimulator
    client: StockEnvoy = field(init=False)
    server: StockEnvoy = field(init=False)
    accepted: Counter[str] = field(default_factory=Counter)
    foreign: Handler = echo
    handlers: set[asyncio.Task[None]] = field(default_factory=set)
    streams: list[asyncio.StreamWriter] = field(default_factory=list)
    log_starts: dict[str, int] = field(default_factory=dict)

    def use(self, client: Script = decide, server: Script = decide) -> None:
        """Choose what the agents do with the connections from now on."""
        for agent, script in ((self.client_agent, client), (self.server_agent, server)):
            agent.script, agent.on_resume = script, None
            agent.connections.clear()
        self.accepted.clear()
        for log in self.directory.glob("*.log"):
            self.log_starts[log.stem] = log.stat().st_size

    async def open(self, name: str) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[name])
        self.streams.append(writer)
        return reader, writer

    async def dial(self, name: str) -> Streams:
        """Connect to the server's gate with TLS, as a client that is not Envoy."""
        peer = Peer(self.authority, self.client_credential, self.directory)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.ports[name], ssl=peer.context(server=False)
        )
        self.streams.append(writer)
        return reader, writer

    async def is_refused(self, name: str) -> bool:
        """Whether a new connection ends without an octet; a fast refusal may be seen by connect."""
        try:
            reader, _writer = await self.open(name)
        except ConnectionError:
            return True
        return await is_closed(reader)

    async def hang_up(self) -> None:
        """End every connection of a test, on both sides of the proxies."""
        for task in list(self.handlers):
            task.cancel()
        await asyncio.gather(*self.handlers, return_exceptions=True)
        for writer in self.streams:
            writer.transport.abort()
        self.streams.clear()
        for _ in range(3):  # transports end in a later turn of the loop
            await asyncio.sleep(0)

    async def record(self, log: str, **wanted: str) -> dict[str, Any]:
        """Wait for the first record since `use` whose fields begin with the wanted texts."""
        start = self.log_starts.get(log, 0)
        async with asyncio.timeout(10):
            async for record in log_lines(self.directory / f"{log}.log", start):
                if all(str(record[key]).startswith(text) for key, text in wanted.items()):
                    return record
        raise AssertionError(wanted)

    def handler(self, name: str, handler: Handler | None) -> Callable[..., None]:
        """A server callback that counts, and that survives what proxies do to it."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted[name] += 1
            self.streams.append(writer)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await (handler or self.foreign)(reader, writer)
            writer.close()

        def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(serve(reader, writer))
            self.handlers.add(task)
            task.add_done_callback(self.handlers.discard)

        return start


def _server(pair: GatePair, module: Path, backends: dict[str, int]) -> dict[str, Any]:
    log = pair.directory / "server.log"
    downstream = tls(pair.authority, pair.server_credential, server=True)

    def gate(**options: object) -> dict[str, Any]:
        options = {"label": "inbound", "exchange_ms": SERVER_EXCHANGE_MS} | options
        return gate_filter(module, pair.server_agent.path, "server", **options)

    def tcp(name: str, backend: str, gate: dict[str, Any], **options: object) -> dict[str, Any]:
        filters = [gate, tcp_proxy(backend, max_early_data_bytes=65536)]
        return listener(name, pair.ports[name], filters, log, downstream, **options)

    http = http_manager("web", pair.directory / "server-http.log", rbac_by_tier("confidential"))
    return server_config(
        [
            tcp("s_tcp", "echo", gate()),
            tcp("s_hello", "greet", gate()),
            tcp("s_small", "echo", gate(), per_connection_buffer_limit_bytes=4096),
            tcp("s_one", "echo", gate(max_exchanges=1)),
            tcp("s_open", "echo", gate(mode="permissive", silence_ms=300)),
            tcp("s_open_hello", "greet", gate(mode="permissive", silence_ms=300)),
            listener("s_late", pair.ports["s_late"], [gate(), tcp_proxy("echo")], log, downstream),
            listener("s_raw", pair.ports["s_raw"], [gate(), tcp_proxy("echo")], log),
            listener("s_http", pair.ports["s_http"], [gate(), http], log, downstream),
        ],
        [cluster(name, port) for name, port in backends.items()],
    )


def _client(pair: GatePair, module: Path, foreign: int) -> dict[str, Any]:
    log = pair.directory / "outer.log"
    http = {"h1": "s_http", "h2": "s_http"}
    tcp = {"tcp": "s_tcp", "hello": "s_hello", "small": "s_small", "one": "s_one"}
    tcp |= {"open": "s_open", "foreign": "foreign"}
    routes = {n: listener(n, pair.ports[n], [tcp_proxy(f"mesh_{n}")], log) for n in tcp}
    routes |= {n: listener(n, pair.ports[n], [http_manager(f"mesh_{n}")], log) for n in http}
    targets = pair.ports | {"foreign": foreign}
    return client_config(
        routes=routes,
        endpoints={f"mesh_{name}": targets[target] for name, target in (tcp | http).items()},
        gate=gate_filter(module, pair.client_agent.path, "client", exchange_ms=CLIENT_EXCHANGE_MS),
        socket=tls(pair.authority, pair.client_credential, server=False),
        log=pair.directory / "client.log",
    )


@asynccontextmanager
async def gate_pair(module: Path, binary: Path, *, workers: int = 2) -> AsyncIterator[GatePair]:
    """Start applications, agents and proxies.

    Client listeners are named by what they lead to: tcp, hello, small, one, open, h1, h2, and
    foreign, which is `GatePair.foreign` behind TLS without Envoy. The server's begin with "s_".
    """
    authority = TestAuthority()
    directory = Path(tempfile.mkdtemp(prefix="tg", dir="/tmp"))
    names = ["tcp", "hello", "small", "one", "open", "h1", "h2", "foreign", "s_tcp", "s_hello"]
    names += ["s_small", "s_one", "s_open", "s_open_hello", "s_late", "s_raw", "s_http"]
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        ports = stack.enter_context(reserved_ports(len(names)))
        pair = GatePair(
            directory=directory,
            authority=authority,
            client_credential=authority.issue(CLIENT_ID),
            server_credential=authority.issue(SERVER_ID),
            ports=dict(zip(names, ports, strict=True)),
            client_agent=AgentSimulator(directory / "client.sock"),
            server_agent=AgentSimulator(directory / "server.sock"),
        )
        await stack.enter_async_context(pair.client_agent)
        await stack.enter_async_context(pair.server_agent)
        backends: dict[str, int] = {}
        peer = Peer(authority, pair.server_credential, directory)
        applications = {"echo": echo, "greet": greet, "web": web, "foreign": None}
        for name, handler in applications.items():
            context = peer.context(server=True) if handler is None else None
            application = await asyncio.start_server(
                pair.handler(name, handler), "127.0.0.1", 0, ssl=context
            )
            stack.callback(application.close)
            backends[name] = application.sockets[0].getsockname()[1]
        foreign = backends.pop("foreign")
        server = StockEnvoy(binary, _server(pair, module, backends), name="server", workers=workers)
        client = StockEnvoy(binary, _client(pair, module, foreign), name="client", workers=workers)
        pair.server = await stack.enter_async_context(server)
        pair.client = await stack.enter_async_context(client)
        stack.push_async_callback(pair.hang_up)
        yield pair
