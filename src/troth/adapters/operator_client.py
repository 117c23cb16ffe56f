# SPDX-License-Identifier: Apache-2.0
"""The operator's side of `troth server`: its Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from troth.adapters.server_errors import error_of, translated
from troth.errors import DecodeError

__all__ = ["OperatorClient"]

_SECONDS = 30.0


class OperatorClient:
    """Calls the admin API; whoever may open the socket may do everything there.

    Use as `async with`. Replies are what docs/reference/server.md shows.
    """

    def __init__(self, socket: Path) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url="http://operators",
            timeout=_SECONDS,
        )

    async def __aenter__(self) -> OperatorClient:  # noqa: PYI034 - not made for subclasses
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - a JSON tree
        """Return the JSON at `path`.

        Raises:
            UnavailableError: there is no server behind the socket.
            TrothError: what the server answered instead.
        """
        return await self._call("GET", path, query)

    async def delete(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - a JSON tree
        """Delete what `path` and `query` name, and return the outcome."""
        return await self._call("DELETE", path, query)

    async def post(self, path: str, message: object = None, **query: str | int) -> Any:  # noqa: ANN401 - a JSON tree
        """Post `message` as JSON, or octets as they are, and return the outcome."""
        content = message if isinstance(message, bytes) else msgspec.json.encode(message)
        return await self._call("POST", path, query, content)

    async def put(self, path: str, message: object) -> Any:  # noqa: ANN401 - a JSON tree
        """Put `message` as JSON in the place of what is at `path`, and return the outcome."""
        return await self._call("PUT", path, {}, msgspec.json.encode(message))

    async def lines(self, path: str, **query: str | int) -> AsyncIterator[bytes]:
        """Yield the lines of a stream, such as the feed, until the server ends it.

        Raises:
            UnavailableError: there is no server behind the socket, or it went away.
            TrothError: what the server answered instead.
        """
        with translated():
            # A quiet stream is none that broke: a Unix socket tells when its other end is gone.
            async with self._client.stream(
                "GET", path, params=dict(query), timeout=httpx.Timeout(_SECONDS, read=None)
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                async for line in response.aiter_lines():
                    yield line.encode()

    async def _call(
        self, method: str, path: str, query: Mapping[str, str | int], content: bytes | None = None
    ) -> Any:  # noqa: ANN401 - a JSON tree
        with translated():
            response = await self._client.request(method, path, params=dict(query), content=content)
        if not response.is_success:
            raise error_of(response)
        try:
            return msgspec.json.decode(response.content) if response.content else None
        except msgspec.DecodeError as exc:
            raise DecodeError(str(exc), format=f"reply to {path}") from exc
