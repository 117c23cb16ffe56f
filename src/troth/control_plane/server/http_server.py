# SPDX-License-Identifier: Apache-2.0
"""HTTP listeners that know who is calling.

Over TLS a client certificate is asked for and optional; on the Unix socket the kernel says whose
process it is. uvicorn parses HTTP; this module gives it sockets, a TLS context and a look at each peer. What it
learns is in `scope["state"]`, which no request can write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from troth.control_plane.unix_grpc import bind_private_socket
from troth.errors import ConfigurationError, UnavailableError

__all__ = [
    "DRAIN_SECONDS",
    "MAX_SILENCE_SECONDS",
    "Caller",
    "HttpServer",
    "bind_tcp",
    "bind_unix",
    "caller_of",
    "own_uids",
]

_LOG = logging.getLogger(__name__)
_STATE_KEY = "troth.caller"
_UCRED = struct.Struct("3i")  # pid, uid, gid (unix(7))
_BACKLOG = 1024
MAX_SILENCE_SECONDS = 20.0
"""How long a new connection may keep its first request to itself."""
_KEEP_ALIVE_SECONDS = 30
_STOP_SECONDS = 0.5
DRAIN_SECONDS = 10.0
"""How long requests that have begun are waited for when the server stops: as long as clients wait."""
_DRAIN_LOOK_SECONDS = 0.02
_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is at the other end of a connection.

    Attributes:
        address: IP address, or "unix".
        certificate: DER of the certificate that TLS verified against the trust bundle, else b"".
        uid: user of the calling process on a Unix socket, else None.
    """

    address: str
    certificate: bytes = b""
    uid: int | None = None


def caller_of(scope: Scope) -> Caller:
    """Return who sent this request; a stranger where the listener said nothing."""
    found = scope.get("state", {}).get(_STATE_KEY)
    return found if isinstance(found, Caller) else Caller(address="unknown")


def bind_tcp(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a bound socket; port 0 takes a free one.

    Args:
        host: name or address of this machine.
        port: or 0.
        shared: other processes of ours bind to the same port, and the kernel spreads connections
            over those that listen.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as exc:
        raise ConfigurationError(
            source="server configuration",
            key="listen",
            value=f"{host}:{port}",
            accepted=f"an address of this machine that is free ({exc.strerror})",
        ) from exc
    bound.settimeout(0)
    return bound


def bind_unix(path: Path) -> socket.socket:
    """Return a socket at `path` for our own user only; see `bind_private_socket`."""
    return bind_private_socket(path)


class HttpServer:
    """One listener with one application.

    Args:
        application: what to serve.
        listener: a bound socket; `stop` closes it.
        tls: context of the server, or None for a Unix socket.
        allowed_uids: on a Unix socket, users whose processes are served.
        max_connections: how many may be open at once; more are closed.
    """

    def __init__(
        self,
        application: ASGIApp,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        allowed_uids: frozenset[int] = frozenset(),
        max_connections: int = 1000,
    ) -> None:
        self._listener = listener
        config = uvicorn.Config(
            application,
            http=_protocol(allowed_uids, max_connections),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            backlog=_BACKLOG,
        )
        config.load()
        config.ssl = tls
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it is bound to; only for TCP."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            UnavailableError: it does not come up.
        """
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        async with asyncio.timeout(_START_SECONDS):
            while not self._server.started:
                if self._task.done():
                    raise UnavailableError("the HTTP listener does not come up") from (
                        self._task.exception()
                    )
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Take no new connections, answer the requests that have begun, then end.

        A renewal that has begun is finished here; whoever comes later is refused by the kernel and
        goes to another server.
        """
        self._server.should_exit = True
        if self._task is not None:
            end = time.monotonic() + DRAIN_SECONDS
            while self._answering() and not self._task.done() and time.monotonic() < end:
                await asyncio.wait([self._task], timeout=_DRAIN_LOOK_SECONDS)
            await asyncio.wait([self._task], timeout=_STOP_SECONDS)
            # Mostly idle ones whose clients do not answer the end of TLS.
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()
            await self._task
        self._listener.close()

    def _answering(self) -> bool:
        cycles = [getattr(each, "cycle", None) for each in self._server.server_state.connections]
        return any(cycle is not None and not cycle.response_complete for cycle in cycles)


class _Server(uvicorn.Server):
    """uvicorn without its hands on the process's signals: whoever starts us has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocol(allowed_uids: frozenset[int], max_connections: int) -> type[HttpToolsProtocol]:
    class Protocol(HttpToolsProtocol):
        """uvicorn's protocol with a look at each peer before its first octet is read."""

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as uvicorn declares it
            caller = _look_at(transport)
            allowed = caller.uid is None or caller.uid in allowed_uids
            self._welcome = allowed and len(self.connections) < max_connections
            if not self._welcome:
                why = "too many connections" if allowed else f"user {caller.uid} is no operator"
                _LOG.warning("refused a connection from %s: %s", caller.address, why)
                transport.abort()
                return
            self._silence = self.loop.call_later(MAX_SILENCE_SECONDS, self._end_if_silent)
            # Copied into scope["state"] of every request on this connection.
            self.app_state = {**self.app_state, _STATE_KEY: caller}
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            if self._welcome:
                super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._welcome:
                self._silence.cancel()
                super().connection_lost(exc)

        def _end_if_silent(self) -> None:
            # uvicorn looks at the time only after a connection's first answer.
            if self.cycle is None:
                self.transport.abort()

    return Protocol


def _look_at(transport: asyncio.Transport) -> Caller:
    plain = transport.get_extra_info("socket")
    if plain is not None and plain.family == socket.AF_UNIX:
        credentials = plain.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(credentials)
        return Caller(address="unix", uid=uid)
    peer = transport.get_extra_info("peername")
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return Caller(address=peer[0] if peer else "unknown", certificate=certificate or b"")


def own_uids() -> frozenset[int]:
    """Return the users that may operate this server: its own and root."""
    return frozenset({os.geteuid(), 0})
