# SPDX-License-Identifier: Apache-2.0
"""Asks a running Envoy about itself, over the Unix socket of its admin interface.

HTTP/1.1 of the one kind that Envoy's admin interface speaks: it keeps an HTTP client library, and
its 10 MB, out of the agent.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from troth.errors import ProxyError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EnvoyAdmin"]

MAX_ANSWER_BYTES = 64 * 1024 * 1024  # a whole configuration dump of a large mesh
_TIMEOUT_SECONDS = 5.0


class EnvoyAdmin:
    """The admin interface at the Unix socket `socket`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def get(self, path: str) -> str:
        """Return the answer to `GET path`.

        Raises:
            ProxyError: Envoy does not answer, or answers with another status than 200.
        """
        status, text = await self.ask(path)
        if status != 200:
            raise ProxyError(f"Envoy's admin interface answers {status} to {path}: {text[:200]}")
        return text

    async def ask(self, path: str) -> tuple[int, str]:
        """Return status and body of the answer to `GET path`.

        Raises:
            ProxyError: Envoy does not answer in time, or what answers is not Envoy.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                answer = await self._exchange(path)
            return _decode(answer)
        except TimeoutError as exc:
            raise ProxyError(
                f"Envoy's admin interface did not answer {path} within {_TIMEOUT_SECONDS:g} s"
            ) from exc
        except OSError as exc:
            raise ProxyError(f"Envoy's admin interface at {self._socket}: {exc.strerror}") from exc
        except ValueError as exc:
            raise ProxyError(f"what answers at {self._socket} is not Envoy ({exc})") from exc

    async def listeners(self) -> dict[str, tuple[str, int]]:
        """Return where Envoy listens: (IP address, port) by the listener's name.

        A listener on a Unix socket has its path and port 0.

        Raises:
            ProxyError: as `get`.
        """
        answer = json.loads(await self.get("/listeners?format=json"))
        found = {}
        for status in answer.get("listener_statuses", ()):
            address = status["local_address"]
            if "pipe" in address:
                found[status["name"]] = (address["pipe"]["path"], 0)
            else:
                tcp = address["socket_address"]
                found[status["name"]] = (tcp["address"], tcp["port_value"])
        return found

    async def _exchange(self, path: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode()
            )
            parts, size = [], 0
            while part := await reader.read(65536):
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return b"".join(parts)
        finally:
            writer.close()


def _decode(answer: bytes) -> tuple[int, str]:
    """Return status and body; Envoy sends the body in chunks (RFC 9112 §7.1)."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    if not separator or version != b"HTTP/1.1":
        raise ValueError("no HTTP/1.1 answer")
    if b"transfer-encoding: chunked" in head.lower():
        body = b"".join(_chunks(body))
    return int(rest[:3]), body.decode("utf-8", "replace")


def _chunks(body: bytes) -> list[bytes]:
    chunks: list[bytes] = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return chunks
        if not 0 < length <= len(body) - 2:
            raise ValueError("a body that was cut off")
        chunks.append(body[:length])
        body = body[length + 2 :]
