# SPDX-License-Identifier: Apache-2.0
"""The small services behind the demo's Envoys: HTTP with a stream, and a raw TCP ticker.

They know nothing of attestation, certificates or Troth: that is the point of the demo.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

__all__ = ["run_service"]

_TICK_SECONDS = 0.01


async def run_service(name: str) -> None:
    """Serve until standard input closes; print one JSON line with the ports when ready."""
    http = await asyncio.start_server(lambda r, w: _http(name, r, w), "127.0.0.1", 0)
    tcp = await asyncio.start_server(lambda r, w: _tcp(name, r, w), "127.0.0.1", 0)
    ports = {
        "http": http.sockets[0].getsockname()[1],
        "tcp": tcp.sockets[0].getsockname()[1],
    }
    print(json.dumps({"ready": True, **ports}), flush=True)  # noqa: T201 - the ready line is for the starter
    async with http, tcp:
        await asyncio.to_thread(sys.stdin.buffer.read)


async def _http(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ", 2)[1]
            if path == "/stream":
                await _stream(name, writer)
                break
            body = f"hello from {name}\n".encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            await writer.drain()
    writer.close()


async def _stream(name: str, writer: asyncio.StreamWriter) -> None:
    """An endless chunked response, one small line per tick."""
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    count = 0
    while True:
        line = f"{name} {count}\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        await writer.drain()
        count += 1
        await asyncio.sleep(_TICK_SECONDS)


async def _tcp(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first octets, then tick for ever."""
    with contextlib.suppress(ConnectionError):
        if await reader.read(64):
            count = 0
            while True:
                writer.write(f"{name} {count}\n".encode())
                await writer.drain()
                count += 1
                await asyncio.sleep(_TICK_SECONDS)
    writer.close()
