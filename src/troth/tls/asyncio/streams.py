# SPDX-License-Identifier: Apache-2.0
"""`open_connection` and `start_server`, in the shape that asyncio's users know."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from troth.clock import Clock, SystemClock
from troth.errors import ApiMisuseError, ConfigurationError
from troth.formats.exported_authenticator import Role
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.tls.asyncio.connection import AttestedConnection, ConnectionOptions
from troth.tls.asyncio.contexts import TlsContexts
from troth.tls.asyncio.server import MAX_UNOPENED, AttestedServer
from troth.tls.core.exchange import Timeouts
from troth.tls.credentials import CredentialsSource, current
from troth.tls.judge import BackgroundCheck, Judge
from troth.tls.payload import PayloadUploader, ReferenceResolver
from troth.tls.peer import AttestedPeer
from troth.tls.policy import AttestationPolicy
from troth.tls.prover import Prover

__all__ = [
    "AttestedStream",
    "LapseCallback",
    "connect",
    "connection_options",
    "open_connection",
    "start_server",
]

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
            UnavailableError: there was no decision, and the policy keeps the connection.
        """
        return await self.connection.reattest()

    def __iter__(self) -> Iterator[asyncio.StreamReader | asyncio.StreamWriter]:
        return iter((self.reader, self.writer))


def connection_options(
    role: Role,
    *,
    credentials: CredentialsSource,
    policy: AttestationPolicy,
    verifier: BackgroundCheck | None = None,
    resolver: ReferenceResolver | None = None,
    uploader: PayloadUploader | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
) -> ConnectionOptions:
    """Return what many connections of one kind share. Args are those of `open_connection`.

    Raises:
        ApiMisuseError: no authority is known for any trust domain that the policy names.
        ConfigurationError: the policy wants background checks and there is no Verifier.
    """
    if policy.model in ("background_check", "any") and verifier is None:
        raise ConfigurationError(
            source="verifier", accepted=f"a Verifier of this side's, for the model {policy.model!r}"
        )
    domains = [_domain(pattern) for pattern in policy.peers]
    bundles = _CurrentBundles(credentials)
    return ConnectionOptions(
        contexts=TlsContexts(role, credentials, domains),
        judge=Judge(policy, bundles, verifier=verifier, resolver=resolver),
        prover=Prover(credentials, uploader=uploader),
        timeouts=timeouts or Timeouts(),
        clock=clock or SystemClock(),
    )


def _domain(pattern: str) -> TrustDomain:
    return SpiffeId.decode(pattern.removesuffix("/*")).trust_domain


class _CurrentBundles:
    """The bundles of the newest credentials."""

    def __init__(self, credentials: CredentialsSource) -> None:
        self._credentials = credentials

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        return current(self._credentials).bundles.bundle(trust_domain)


async def open_connection(
    host: str,
    port: int,
    *,
    credentials: CredentialsSource,
    policy: AttestationPolicy,
    verifier: BackgroundCheck | None = None,
    resolver: ReferenceResolver | None = None,
    uploader: PayloadUploader | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
    on_lapse: LapseCallback | None = None,
    limit: int = 1 << 16,
) -> AttestedStream:
    """Connect, and return when both sides have accepted each other.

    Args:
        host: where to connect to; the peer is recognised by its SPIFFE ID, not by this name.
        port: TCP port.
        credentials: what this side shows, or a call that gives the newest.
        policy: what the server must show.
        verifier: this side's Verifier, for background checks.
        resolver: fetches payloads that the peer sends by reference.
        uploader: stores this side's payloads where peers that take references can fetch them.
        timeouts: of the exchange.
        clock: time.
        on_lapse: called with the reason when the open connection is ended by a decision.
        limit: size of the reader's buffer, as asyncio's.

    Raises:
        AttestationRefusedError: one of the two decisions was no, or there was none in time.
        ChainError, PeerError: TLS failed.
        ConfigurationError, ApiMisuseError: the arguments do not fit each other.
        OSError: there is no connection to `host`.
    """
    options = connection_options(
        Role.CLIENT,
        credentials=credentials,
        policy=policy,
        verifier=verifier,
        resolver=resolver,
        uploader=uploader,
        timeouts=timeouts,
        clock=clock,
    )
    return await connect(host, port, options, on_lapse=on_lapse, limit=limit)


async def connect(
    host: str,
    port: int,
    options: ConnectionOptions,
    *,
    on_lapse: LapseCallback | None = None,
    limit: int = 1 << 16,
) -> AttestedStream:
    """Connect with options that were made before; a client that connects often saves their cost."""
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(
        lambda: AttestedConnection(
            options, lambda _: _StreamProtocol(limit), on_lapse=_stream_callback(on_lapse)
        ),
        host,
        port,
    )
    try:
        await asyncio.shield(connection.opened)
    except asyncio.CancelledError:
        transport.abort()
        raise
    return _stream(connection)


async def start_server(
    client_connected: Callable[[AttestedStream], Awaitable[None] | None],
    host: str | None = None,
    port: int = 0,
    *,
    credentials: CredentialsSource,
    policy: AttestationPolicy,
    verifier: BackgroundCheck | None = None,
    resolver: ReferenceResolver | None = None,
    uploader: PayloadUploader | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
    on_lapse: LapseCallback | None = None,
    limit: int = 1 << 16,
    max_unopened: int = MAX_UNOPENED,
) -> AttestedServer:
    """Listen, and call `client_connected` for each client that was accepted and accepted us.

    Args are those of `open_connection`; `policy` is what clients must show. An error in
    `client_connected` goes to the log; its connection is closed when it returns.
    `max_unopened` bounds the connections that have not got that far.
    """
    options = connection_options(
        Role.SERVER,
        credentials=credentials,
        policy=policy,
        verifier=verifier,
        resolver=resolver,
        uploader=uploader,
        timeouts=timeouts,
        clock=clock,
    )

    async def handle(connection: AttestedConnection) -> None:
        stream = _stream(connection)
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

    server = AttestedServer(
        options,
        lambda _: _StreamProtocol(limit),
        run=handle,
        on_lapse=_stream_callback(on_lapse),
        max_unopened=max_unopened,
    )
    await server.listen(host, port)
    return server


class _StreamProtocol(asyncio.StreamReaderProtocol):
    """asyncio's stream protocol, which keeps the pair of streams that it was made for."""

    def __init__(self, limit: int) -> None:
        self._loop_used = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(limit=limit, loop=self._loop_used)
        self.stream: AttestedStream | None = None
        super().__init__(self.reader, loop=self._loop_used)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            writer = asyncio.StreamWriter(transport, self, self.reader, self._loop_used)
            connection = transport.get_extra_info("troth_connection")
            self.stream = AttestedStream(self.reader, writer, connection)


def _stream(connection: AttestedConnection) -> AttestedStream:
    protocol = connection.application
    if not isinstance(protocol, _StreamProtocol) or protocol.stream is None:
        raise ApiMisuseError("this connection was not opened for streams")
    return protocol.stream


def _stream_callback(
    on_lapse: LapseCallback | None,
) -> Callable[[AttestedConnection, str], None] | None:
    if on_lapse is None:
        return None
    return lambda connection, why: on_lapse(_stream(connection), why)
