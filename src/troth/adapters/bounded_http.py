# SPDX-License-Identifier: Apache-2.0
"""HTTP requests to a service that is not ours: bounded in time and size, no redirects, no proxies."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from troth.adapters.server_errors import translated
from troth.errors import (
    ConfigurationError,
    DecodeError,
    LimitExceededError,
    UnavailableError,
)

__all__ = ["BoundedClient", "tls_context"]

_STEPS = 3


def tls_context(ca: str, *, key: str) -> ssl.SSLContext:
    """Return a client context that believes the authorities in a PEM file, and no others.

    Args:
        ca: path of the file; "" for the system's authorities.
        key: name of the setting, for the message.

    Raises:
        ConfigurationError: it cannot be read, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not ca:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=Path(ca).read_text(encoding="ascii"))
    except (OSError, ValueError, ssl.SSLError) as exc:
        raise ConfigurationError(
            source="configuration", key=key, value=ca, accepted=f"a PEM file of authorities ({exc})"
        ) from exc
    return context


class BoundedClient:
    """Talks to one service. Methods block; any thread may call them. Close it.

    Args:
        url: "https://host:port" and perhaps a path before every path.
        tls: context for https; None for the system's authorities.
        timeout_seconds: for each step of a request; the whole may take three times as long.
        max_bytes: of a reply.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None,
        timeout_seconds: float,
        max_bytes: int,
    ) -> None:
        self.url = url.rstrip("/")
        self._max_bytes, self._seconds = max_bytes, _STEPS * timeout_seconds
        self._client = httpx.Client(
            verify=tls if tls is not None else tls_context("", key=""),
            timeout=timeout_seconds,
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Return the whole reply, whatever its status.

        Raises:
            ChainError: whoever answers is not who was expected.
            UnavailableError: no connection, no answer in time, or a broken one.
            LimitExceededError: a longer reply than `max_bytes`.
            DecodeError: a reply whose encoding is broken.
        """
        deadline = time.monotonic() + self._seconds
        with translated():
            try:
                with self._client.stream(
                    method, self.url + path, content=content, headers=dict(headers or {})
                ) as response:
                    body = bytearray()
                    for chunk in response.iter_bytes():
                        body += chunk
                        if time.monotonic() > deadline:
                            raise UnavailableError(f"{self.url} answers too slowly")
                        if len(body) > self._max_bytes:
                            raise LimitExceededError(
                                format=f"reply of {self.url}",
                                limit="max_bytes",
                                value=self._max_bytes,
                            )
            except httpx.DecodingError as exc:
                raise DecodeError(str(exc), format=f"reply of {self.url}") from exc
        # Already decoded: the headers must not say so again.
        kept = {
            name: value
            for name, value in response.headers.items()
            if name not in {"content-encoding", "content-length", "transfer-encoding"}
        }
        return httpx.Response(response.status_code, headers=kept, content=bytes(body))
