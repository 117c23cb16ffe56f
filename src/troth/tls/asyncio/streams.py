# SPDX-License-Identifier: Apache-2.0
"""`open_connection` and `start_server`, in the shape that asyncio's users know."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Self

from troth.clock import Clock, SystemClock
from troth.formats.exported_authenticator import Role
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.tls.asyncio.connection import AttestedConnection, ConnectionOptions
from troth.tls.asyncio.engine import TlsContext
from troth.tls.core.exchange import Timeouts
from troth.tls.core.profile import EXPAT_03
from troth.tls.credentials import Credentials
from troth.tls.judge import AttestedPeer, BackgroundCheck, Judge, ReferenceResolver
from troth.tls.policy import AttestationPolicy

__all__ = [
    "AttestedServer",
    "AttestedStream",
    "connection_options",
    "open_connection",
    "start_server",
]


def _domain(pattern: str) -> TrustDomain:
    return SpiffeId.decode(pattern.removesuffix("/*")).trust_domain


LapseCallback = Callable[["AttestedStream", str], None]


@dataclass(frozen=True, slots=True)
class AttestedStream:
    """An open attested connection as a pair of asyncio streams.

    Unpacks like asyncio's own result: `reader, writer = await open_connection(…)`.

    Attributes:
        reader: application bytes from the peer.
        writer: application bytes to the peer; `writer.close()` closes the connection.
        connection: the connection underneath.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: AttestedConnection

    @property
    def peer(self) -> AttestedPeer:
        """Who the peer is and what was last proved about it."""
        return self.connection.peer

    async def reattest(self) -> AttestedPeer:
        """Ask the peer for a new proof; application bytes keep moving.

        Raises:
            AttestationRefusedError: the proof was refused or did not come; the connection is closed.
        """
        return await self.connection.reattest()

    def __iter__(self) -> Iterator[asyncio.StreamReader | asyncio.StreamWriter]:
        return iter((self.reader, self.writer))


def connection_options(
    role: Role,
    *,
    credentials: Credentials,
    policy: AttestationPolicy,
    verifier: BackgroundCheck | None = None,
    resolver: ReferenceResolver | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
) -> ConnectionOptions:
    """Return what many connections of one kind share.

    Raises:
        ApiMisuseError: no authority is known for any trust domain that the policy names.
    """
    domains = {credentials.svid.spiffe_id.trust_domain}
    domains |= {_domain(pattern) for pattern in policy.peers}
    authorities = [
        authority
        for domain in sorted(domains, key=str)
        for bundle in [credentials.bundles.bundle(domain)]
        if bundle is not None
        for authority in bundle.x509_authorities
    ]
    return ConnectionOptions(
        context=TlsContext(
            role=role,
            chain=credentials.svid.chain,
            private_key=credentials.svid.private_key,
            authorities=authorities,
            alpn=EXPAT_03.alpn,
        ),
        credentials=credentials,
        judge=Judge(policy, credentials.bundles, verifier=verifier, resolver=resolver),
        timeouts=timeouts or Timeouts(),
        clock=clock or SystemClock(),
    )


async def open_connection(
    host: str,
    port: int,
    *,
    credentials: Credentials,
    policy: AttestationPolicy,
    verifier: BackgroundCheck | None = None,
    resolver: ReferenceResolver | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
    on_lapse: LapseCallback | None = None,
    limit: int = 1 << 16,
) -> AttestedStream:
    """Connect, and return when both sides have accepted each other.

    Args:
        host: where to connect to; the peer is recognised by its SPIFFE ID, not by this name.
        port: TCP port.
        credentials: what this side shows.
        policy: what the server must show.
        verifier: this side's Verifier, for background checks.
        resolver: fetches payloads that the peer sends by reference.
        timeouts: of the exchange.
        clock: time.
        on_lapse: called with the reason when the connection ends for the peer's state.
        limit: size of the reader's buffer, as asyncio's.

    Raises:
        AttestationRefusedError: one of the two decisions was no, or there was none in time.
        ChainError, PeerError: TLS failed.
        OSError: there is no connection to `host`.
    """
    options = connection_options(
        Role.CLIENT,
        credentials=credentials,
        policy=policy,
        verifier=verifier,
        resolver=resolver,
        timeouts=timeouts,
        clock=clock,
    )
    holder = _StreamHolder(limit=limit, on_lapse=on_lapse)
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(
        lambda: AttestedConnection(options, holder.protocol, on_lapse=holder.lapsed), host, port
    )
    try:
        await asyncio.shield(connection.opened)
    except BaseException:
        transport.close()
        raise
    return holder.stream(connection)


class AttestedServer:
    """A listening server. Use as `async with`, or `close()` and `wait_closed()`."""

    def __init__(self, server: asyncio.Server, connections: set[AttestedConnection]) -> None:
        self._server = server
        self._connections = connections

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listening socket."""
        return [sock.getsockname()[:2] for sock in self._server.sockets]

    async def serve_forever(self) -> None:
        """Serve until cancelled."""
        await self._server.serve_forever()

    def close(self) -> None:
        """Stop listening and close every connection."""
        self._server.close()
        for connection in list(self._connections):
            connection.close()

    async def wait_closed(self) -> None:
        """Wait until nothing is left."""
        await self._server.wait_closed()
        for connection in list(self._connections):
            await connection.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()


async def start_server(
    client_connected: Callable[[AttestedStream], Awaitable[None] | None],
    host: str | None = None,
    port: int = 0,
    *,
    credentials: Credentials,
    policy: AttestationPolicy,
    verifier: BackgroundCheck | None = None,
    resolver: ReferenceResolver | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
    on_lapse: LapseCallback | None = None,
    limit: int = 1 << 16,
) -> AttestedServer:
    """Listen, and call `client_connected` for each client that was accepted and accepted us.

    Args are those of `open_connection`; `policy` is what clients must show.
    """
    options = connection_options(
        Role.SERVER,
        credentials=credentials,
        policy=policy,
        verifier=verifier,
        resolver=resolver,
        timeouts=timeouts,
        clock=clock,
    )
    loop = asyncio.get_running_loop()
    connections: set[AttestedConnection] = set()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(connection: AttestedConnection, holder: _StreamHolder) -> None:
        stream = holder.stream(connection)
        try:
            outcome = client_connected(stream)
            if inspect.isawaitable(outcome):
                await outcome
        except ConnectionError:
            # The connection said in the log why it ended; a handler need not say it again.
            if connection.failure is None:
                raise
        finally:
            if not stream.writer.is_closing():
                stream.writer.close()

    def accept() -> AttestedConnection:
        holder = _StreamHolder(limit=limit, on_lapse=on_lapse)
        connection = AttestedConnection(options, holder.protocol, on_lapse=holder.lapsed)
        connections.add(connection)
        connection.closed.add_done_callback(lambda _: connections.discard(connection))

        def opened(outcome: asyncio.Future[AttestedPeer]) -> None:
            if outcome.cancelled() or outcome.exception() is not None:
                return
            task = loop.create_task(serve(connection, holder))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        connection.opened.add_done_callback(opened)
        return connection

    server = await loop.create_server(accept, host, port)
    return AttestedServer(server, connections)


class _StreamHolder:
    """Makes the reader and writer at the moment the connection opens."""

    def __init__(self, *, limit: int, on_lapse: LapseCallback | None) -> None:
        self._limit = limit
        self._on_lapse = on_lapse
        self._reader: asyncio.StreamReader | None = None
        self._protocol: _WriterProtocol | None = None
        self._stream: AttestedStream | None = None

    def protocol(self, connection: AttestedConnection) -> asyncio.Protocol:
        del connection
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=self._limit, loop=loop)
        self._protocol = _WriterProtocol(self._reader, loop)
        return self._protocol

    def stream(self, connection: AttestedConnection) -> AttestedStream:
        if self._stream is not None:
            return self._stream
        reader, protocol = self._reader, self._protocol
        if reader is None or protocol is None or protocol.made is None:  # pragma: no cover
            raise RuntimeError("the connection is not open")
        writer = asyncio.StreamWriter(protocol.made, protocol, reader, asyncio.get_running_loop())
        self._stream = AttestedStream(reader, writer, connection)
        return self._stream

    def lapsed(self, connection: AttestedConnection, why: str) -> None:
        if self._on_lapse is not None and self._reader is not None:
            self._on_lapse(self.stream(connection), why)


class _WriterProtocol(asyncio.StreamReaderProtocol):
    """asyncio's stream protocol, which also remembers its transport."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.made: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            self.made = transport
