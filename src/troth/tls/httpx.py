# SPDX-License-Identifier: Apache-2.0
"""HTTP clients over attested connections: a transport for httpx.

    transport = AttestedTransport(credentials=credentials, policy=policy)
    async with httpx.AsyncClient(transport=transport) as client:
        response = await client.get("https://orders.example:8443/")

What was proved about the server that answered is in `response.extensions["troth"]`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import httpcore
import httpx

from troth.clock import Clock
from troth.errors import TrothError
from troth.formats.exported_authenticator import Role
from troth.tls.asyncio.connection import ConnectionOptions
from troth.tls.asyncio.streams import AttestedStream, connect, connection_options
from troth.tls.core.exchange import Timeouts
from troth.tls.credentials import CredentialsSource
from troth.tls.judge import BackgroundCheck
from troth.tls.payload import PayloadUploader, ReferenceResolver
from troth.tls.policy import AttestationPolicy

__all__ = ["AttestedTransport"]


class AttestedTransport(httpx.AsyncBaseTransport):
    """Gives an `httpx.AsyncClient` attested connections, pooled as httpx's own are.

    HTTP/1.1 and https URLs only. The host of a URL is where to connect to; the server is
    recognised by its SPIFFE ID. A refusal is an `httpx.ConnectError`, and its `__cause__` is the
    `AttestationRefusedError`.
    """

    def __init__(
        self,
        *,
        credentials: CredentialsSource,
        policy: AttestationPolicy,
        verifier: BackgroundCheck | None = None,
        resolver: ReferenceResolver | None = None,
        uploader: PayloadUploader | None = None,
        timeouts: Timeouts | None = None,
        clock: Clock | None = None,
        limits: httpx.Limits | None = None,
    ) -> None:
        """Prepare; connections are opened as requests need them.

        Args:
            credentials: what this side shows, or a call that gives the newest.
            policy: what servers must show.
            verifier: this side's Verifier, for background checks.
            resolver: fetches payloads that servers send by reference.
            uploader: stores this side's payloads where servers can fetch them.
            timeouts: of the exchange.
            clock: time.
            limits: of the pool; httpx's defaults if None.

        Raises:
            ConfigurationError, ApiMisuseError: the arguments do not fit each other.
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
        bounds = limits or httpx.Limits(
            max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0
        )
        self._pool = httpcore.AsyncConnectionPool(
            # Never used: the backend's streams are encrypted from their first octet.
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            max_connections=bounds.max_connections,
            max_keepalive_connections=bounds.max_keepalive_connections,
            keepalive_expiry=bounds.keepalive_expiry,
            network_backend=_Backend(options),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        if request.url.scheme != "https":
            raise httpx.UnsupportedProtocol(
                f"attested connections are for https URLs, not {request.url.scheme!r}",
                request=request,
            )
        with _as_httpx():
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=cast("httpx.AsyncByteStream", request.stream),
                    extensions=request.extensions,
                )
            )
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("troth_peer") if stream is not None else None
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions={**response.extensions, "troth": peer},
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response, with httpx's exceptions."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._response.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._response.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens attested connections where httpcore would open TCP ones."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's port
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        del local_address, socket_options
        try:
            async with asyncio.timeout(timeout):
                return _Stream(await connect(host, port, self._options))
        except TimeoutError as exc:
            raise _caused(httpcore.ConnectTimeout, exc) from exc
        except (TrothError, OSError) as exc:
            raise _caused(httpcore.ConnectError, exc) from exc

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """An attested connection as httpcore uses it."""

    def __init__(self, stream: AttestedStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's port
        try:
            async with asyncio.timeout(timeout):
                return await self._stream.reader.read(max_bytes)
        except TimeoutError as exc:
            raise _caused(httpcore.ReadTimeout, exc) from exc
        except OSError as exc:
            raise _caused(httpcore.ReadError, exc) from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's port
        try:
            async with asyncio.timeout(timeout):
                self._stream.writer.write(buffer)
                await self._stream.writer.drain()
        except TimeoutError as exc:
            raise _caused(httpcore.WriteTimeout, exc) from exc
        except (TrothError, OSError) as exc:
            raise _caused(httpcore.WriteError, exc) from exc

    async def aclose(self) -> None:
        self._stream.writer.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's port
    ) -> httpcore.AsyncNetworkStream:
        """Nothing to start: TLS and the exchange were done before this stream existed."""
        del ssl_context, server_hostname, timeout
        return self

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's port
        if info == "is_readable":
            # Asked of idle connections only: there, anything but silence is an end.
            reader = self._stream.reader
            over = reader.at_eof() or reader.exception() is not None
            return over or self._stream.writer.is_closing()
        return self._stream.writer.get_extra_info(info)


def _caused(kind: type[Exception], cause: BaseException) -> Exception:
    """Make an exception of httpcore's, whose pool forgets `__cause__`, remember its cause."""
    error = kind(str(cause))
    error.args = (*error.args, cause)
    return error


# The most specific class of httpcore that an exception has decides.
_EXCEPTIONS: Mapping[type[Exception], type[httpx.TransportError]] = MappingProxyType(
    {
        httpcore.ConnectTimeout: httpx.ConnectTimeout,
        httpcore.ReadTimeout: httpx.ReadTimeout,
        httpcore.WriteTimeout: httpx.WriteTimeout,
        httpcore.PoolTimeout: httpx.PoolTimeout,
        httpcore.TimeoutException: httpx.TimeoutException,
        httpcore.ConnectError: httpx.ConnectError,
        httpcore.ReadError: httpx.ReadError,
        httpcore.WriteError: httpx.WriteError,
        httpcore.NetworkError: httpx.NetworkError,
        httpcore.LocalProtocolError: httpx.LocalProtocolError,
        httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
        httpcore.ProtocolError: httpx.ProtocolError,
        httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    }
)


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except tuple(_EXCEPTIONS) as exc:
        for kind, ours in _EXCEPTIONS.items():
            if isinstance(exc, kind):
                message = str(exc.args[0]) if exc.args else ""
                cause = exc.args[1] if len(exc.args) > 1 else exc
                raise ours(message) from cause
        raise  # pragma: no cover - the tuple above is the table
