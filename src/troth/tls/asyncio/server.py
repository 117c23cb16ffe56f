# SPDX-License-Identifier: Apache-2.0
"""A server of attested connections, whatever runs on top of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self

import structlog

from troth.tls.asyncio.connection import AttestedConnection, ConnectionOptions
from troth.tls.peer import AttestedPeer

__all__ = ["MAX_UNOPENED", "AttestedServer"]

_log = structlog.get_logger("troth.tls")

MAX_UNOPENED = 1000
"""Connections of one server that are not open yet; a further one is closed at once."""


class AttestedServer:
    """A listening server. Use as `async with`, or `close()` and `wait_closed()`."""

    def __init__(
        self,
        options: ConnectionOptions,
        application: Callable[[AttestedConnection], asyncio.Protocol],
        *,
        run: Callable[[AttestedConnection], Coroutine[Any, Any, None]] | None = None,
        on_lapse: Callable[[AttestedConnection, str], None] | None = None,
        max_unopened: int = MAX_UNOPENED,
    ) -> None:
        """Prepare; `listen` begins.

        Args:
            options: shared by the connections.
            application: makes the protocol that runs on top of a connection that has opened.
            run: what else runs while it is open, if anything; an error in it goes to the log.
            on_lapse: hears of connections that a decision has ended.
            max_unopened: bounds the connections that have not opened yet.
        """
        self._options = options
        self._application = application
        self._run = run
        self._on_lapse = on_lapse
        self._max_unopened = max_unopened
        self._connections: set[AttestedConnection] = set()
        self._unopened = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listening socket."""
        sockets = self._server.sockets if self._server else ()
        return [sock.getsockname()[:2] for sock in sockets]

    @property
    def connections(self) -> int:
        """How many connections there are, those that are not open yet included."""
        return len(self._connections)

    async def listen(self, host: str | None, port: int) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, host, port)

    async def serve_forever(self) -> None:
        """Serve until cancelled."""
        if self._server is not None:
            await self._server.serve_forever()

    def stop_listening(self) -> None:
        """Take no more connections; those that are there stay."""
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """Stop listening and close every connection."""
        self.stop_listening()
        for connection in list(self._connections):
            connection.close()

    async def wait_closed(self) -> None:
        """Wait until nothing is left; a handler that still runs without its connection is ended."""
        for connection in list(self._connections):
            await connection.wait_closed()
        if self._server is not None:
            await self._server.wait_closed()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    def _accept(self) -> asyncio.Protocol:
        if self._unopened >= self._max_unopened:
            _log.warning("too many connections are not open yet", limit=self._max_unopened)
            return _Refused()
        connection = AttestedConnection(self._options, self._application, on_lapse=self._on_lapse)
        self._connections.add(connection)
        self._unopened += 1
        connection.closed.add_done_callback(lambda _: self._connections.discard(connection))

        def opened(outcome: asyncio.Future[AttestedPeer]) -> None:
            self._unopened -= 1
            if self._run is not None and not outcome.cancelled() and outcome.exception() is None:
                self._spawn(self._run(connection), connection)

        connection.opened.add_done_callback(opened)
        return connection

    def _spawn(self, work: Coroutine[Any, Any, None], connection: AttestedConnection) -> None:
        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                peer = str(connection.peer.spiffe_id)
                _log.error("defect in a handler", exc_info=error, peer=peer)

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)


class _Refused(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()
