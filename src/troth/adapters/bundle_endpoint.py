# SPDX-License-Identifier: Apache-2.0
"""Fetches SPIFFE bundles from the endpoints of other trust domains.

Redirects are not followed: the specification leaves that to the client, and whoever may redirect
would decide whom we ask (SPIFFE Federation section 7.5.1).

Source: SPIFFE Federation sections 5.2.1.4 and 5.2.2.4 (spiffe/spiffe, July 2026).
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx

from troth.adapters.pinned_tls import pinned_context
from troth.adapters.server_errors import translated
from troth.errors import (
    ApiMisuseError,
    ConfigurationError,
    LimitExceededError,
    UnavailableError,
)
from troth.identity.trust_bundle import BUNDLE_LIMITS, TrustBundle
from troth.mesh.federation import EndpointProfile, Federation

__all__ = ["HttpsBundleFetcher"]

_SECONDS = 10.0


class HttpsBundleFetcher:
    """Fetches by both profiles; each fetch has a connection of its own and a deadline.

    Args:
        web_roots: PEM file of the authorities that `https_web` is verified under; None for those
            of the operating system.
    """

    def __init__(self, web_roots: Path | None = None) -> None:
        """Load the web's authorities.

        Raises:
            ConfigurationError: `web_roots` cannot be read.
        """
        try:
            self._web = ssl.create_default_context(cafile=web_roots)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(
                source=str(web_roots), accepted=f"a PEM file of certificates ({exc})"
            ) from exc
        self._web.minimum_version = ssl.TLSVersion.TLSv1_2

    async def fetch(
        self, federation: Federation, *, endpoint_bundle: TrustBundle | None
    ) -> TrustBundle:
        """Return the bundle that the endpoint serves; see `BundleFetcher.fetch`."""
        context = self._context(federation, endpoint_bundle)
        try:
            async with asyncio.timeout(_SECONDS):
                data = await _get(federation.endpoint_url, context)
        except TimeoutError as exc:
            raise UnavailableError(
                f"{federation.endpoint_url} did not answer within {_SECONDS:g} s"
            ) from exc
        return TrustBundle.decode(data, trust_domain=federation.trust_domain)

    def _context(
        self, federation: Federation, endpoint_bundle: TrustBundle | None
    ) -> ssl.SSLContext:
        if federation.profile is EndpointProfile.HTTPS_WEB:
            return self._web
        if federation.endpoint_spiffe_id is None or endpoint_bundle is None:
            raise ApiMisuseError("https_spiffe needs the endpoint's SPIFFE ID and a bundle")
        pem = endpoint_bundle.encode_pem().decode("ascii")
        return pinned_context(pem, federation.endpoint_spiffe_id)


async def _get(url: str, context: ssl.SSLContext) -> bytes:
    body = bytearray()
    with translated():
        async with (
            httpx.AsyncClient(verify=context, trust_env=False, timeout=_SECONDS) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise UnavailableError(f"{url} answers with status {response.status_code}")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > BUNDLE_LIMITS.max_bytes:
                    raise LimitExceededError(
                        format="SPIFFE bundle", limit="max_bytes", value=BUNDLE_LIMITS.max_bytes
                    )
    return bytes(body)
