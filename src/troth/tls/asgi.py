# SPDX-License-Identifier: Apache-2.0
"""ASGI applications on attested connections, by uvicorn.

    await serve(app, "0.0.0.0", 8443, credentials=credentials, policy=policy)

A request finds its peer in `scope["extensions"]["troth"]`: `peer` is what was last proved about
it (`AttestedPeer`), `connection` can `reattest()` it. WebSockets have it too.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import uvicorn

from troth.clock import Clock
from troth.errors import UnavailableError
from troth.formats.exported_authenticator import Role
from troth.tls.asyncio.connection import AttestedConnection, ConnectionOptions
from troth.tls.asyncio.server import MAX_UNOPENED, AttestedServer
from troth.tls.asyncio.streams import connection_options
from troth.tls.core.exchange import Timeouts
from troth.tls.credentials import CredentialsSource
from troth.tls.judge import BackgroundCheck
from troth.tls.payload import PayloadUploader, ReferenceResolver
from troth.tls.policy import AttestationPolicy

__all__ = ["serve", "serving"]

_SECURE = {"http": "https", "websocket": "wss"}
# Unless the caller says otherwise: the host program owns its logging, and a peer does not get to
# say which address it comes from.
_DEFAULTS: dict[str, Any] = {"log_config": None, "proxy_headers": False}


async def serve(app: Any, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:  # noqa: ANN401 - an ASGI app; the rest is `serving`'s
    """Serve `app` until SIGINT or SIGTERM, or until cancelled.

    Args are those of `serving`.
    """
    async with _running(app, host, port, signals=True, **options) as (_, running):
        await asyncio.shield(running)


@asynccontextmanager
async def serving(
    app: Any,  # noqa: ANN401 - an ASGI application, or its import name
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    credentials: CredentialsSource,
    policy: AttestationPolicy,
    **options: Any,  # noqa: ANN401 - named below
) -> AsyncIterator[Sequence[tuple[str, int]]]:
    """Serve `app` while the context is entered; gives the addresses that it listens on.

    Args:
        app: ASGI application, or its import name.
        host: address to listen on.
        port: 0 for any free one.
        credentials: what this side shows, or a call that gives the newest.
        policy: what clients must show. Nobody else gets as far as an HTTP request.
        options: `verifier`, `resolver`, `uploader`, `timeouts`, `clock` and `max_unopened` as in
            `troth.tls.start_server`; everything else goes to `uvicorn.Config`.

    Raises:
        ConfigurationError, ApiMisuseError: the arguments do not fit each other.
        UnavailableError: the application's own start-up failed.
        OSError: the address cannot be listened on.
    """
    running = _running(
        app, host, port, signals=False, credentials=credentials, policy=policy, **options
    )
    async with running as (server, _):
        yield server.addresses


@asynccontextmanager
async def _running(
    app: Any,  # noqa: ANN401
    host: str,
    port: int,
    *,
    signals: bool,
    credentials: CredentialsSource,
    policy: AttestationPolicy,
    verifier: BackgroundCheck | None = None,
    resolver: ReferenceResolver | None = None,
    uploader: PayloadUploader | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
    max_unopened: int = MAX_UNOPENED,
    **uvicorn_options: Any,  # noqa: ANN401
) -> AsyncIterator[tuple[_Server, asyncio.Task[None]]]:
    connections = connection_options(
        Role.SERVER,
        credentials=credentials,
        policy=policy,
        verifier=verifier,
        resolver=resolver,
        uploader=uploader,
        timeouts=timeouts,
        clock=clock,
    )
    config = uvicorn.Config(app, host=host, port=port, **{**_DEFAULTS, **uvicorn_options})
    server = _Server(config, connections, max_unopened=max_unopened, signals=signals)
    running = asyncio.create_task(server.serve())
    try:
        await server.wait_started(running)
        yield server, running
    finally:
        server.should_exit = True
        try:
            await asyncio.shield(running)
        finally:
            await server.end_connections()


class _Server(uvicorn.Server):
    """uvicorn on attested connections: its own listener is replaced, the rest is as it is."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: ConnectionOptions,
        *,
        max_unopened: int,
        signals: bool,
    ) -> None:
        super().__init__(config)
        self._attested = AttestedServer(connections, self._application, max_unopened=max_unopened)
        self._signals = signals
        self._ready = asyncio.Event()

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        return self._attested.addresses

    async def wait_started(self, running: asyncio.Task[None]) -> None:
        """Wait until requests are served, or raise why they never will be."""
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if running.done():
            running.result()

    async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401 - uvicorn's signature
        del sockets
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise UnavailableError("the application's start-up failed; its log says why")
        await self._attested.listen(self.config.host, self.config.port)
        self.servers = [_Listener(self._attested)]  # type: ignore[list-item]  # the two calls that uvicorn makes
        self.started = True
        self._ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals() if self._signals else nullcontext():
            yield

    async def end_connections(self) -> None:
        self._attested.close()
        await self._attested.wait_closed()

    def _application(self, connection: AttestedConnection) -> asyncio.Protocol:
        """Make the HTTP protocol of one connection, with an application that knows its peer."""
        app = self.config.loaded_app

        async def with_peer(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
            if (scheme := _SECURE.get(scope["type"])) is not None:
                found = {"peer": connection.peer, "connection": connection}
                extensions = {**(scope.get("extensions") or {}), "troth": found}
                scope = {**scope, "scheme": scheme, "extensions": extensions}
            await app(scope, receive, send)

        config = copy.copy(self.config)
        config.loaded_app = with_peer
        protocol: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]  # uvicorn's own call
            config=config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


class _Listener:
    """What uvicorn closes when it stops taking connections; those that are open drain first."""

    def __init__(self, server: AttestedServer) -> None:
        self._server = server

    def close(self) -> None:
        self._server.stop_listening()

    async def wait_closed(self) -> None:
        """Nothing to wait for: `end_connections` waits for everything."""
