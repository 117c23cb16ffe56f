# SPDX-License-Identifier: Apache-2.0
"""The small applications that tests put behind and before a proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from google.protobuf.wrappers_pb2 import StringValue
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["HttpApplication", "RpcApplication", "StreamApplication"]

TICK_SECONDS = 0.02


class HttpApplication:
    """HTTP/1.1: `/stream` sends a chunk each 20 ms, an upgrade echoes, all else tells its headers."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        async with _ended(server):
            yield server.sockets[0].getsockname()[1]

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                method, path, _ = first.split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in lines)
                raw = dict(line.split(": ", 1) for line in lines)
                headers |= {name.lower(): value for name, value in raw.items()}
                self.requests.append({":method": method, ":path": path, **headers})
                await self._answer(path, headers, reader, writer)
        writer.close()

    async def _answer(
        self,
        path: str,
        headers: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if headers.get("upgrade") == "websocket":
            accept = hashlib.sha1(  # noqa: S324 - RFC 6455 asks for it
                headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            ).digest()
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                b"sec-websocket-accept: " + base64.b64encode(accept) + b"\r\n\r\n"
            )
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
            raise ConnectionError
        if path == "/stream":
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"5\r\ntick\n\r\n")
                await writer.drain()
                await asyncio.sleep(TICK_SECONDS)
        status = b"503 Unavailable" if path == "/fail" else b"200 OK"
        body = json.dumps(headers).encode()
        writer.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (status, len(body), body)
        )
        await writer.drain()


class RpcApplication:
    """gRPC over clear-text HTTP/2: `/test.Echo/Echo` echoes each message of a stream."""

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/test.Echo/Echo": Handler(
                self._echo, Cardinality.STREAM_STREAM, StringValue, StringValue
            )
        }

    async def _echo(self, stream: Any) -> None:
        async for message in stream:
            await stream.send_message(message)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        server = Server([self])
        await server.start("127.0.0.1", 0)
        try:
            yield server._server.sockets[0].getsockname()[1]
        finally:
            server.close()


class StreamApplication:
    """Echoes bytes."""

    def __init__(self) -> None:
        self.connections = 0

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        async with _ended(server):
            yield server.sockets[0].getsockname()[1]

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def _ended(server: asyncio.Server) -> AsyncIterator[None]:
    try:
        yield
    finally:
        server.close()
