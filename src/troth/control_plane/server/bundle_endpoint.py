# SPDX-License-Identifier: Apache-2.0
"""The bundle endpoint: our trust bundle for others to fetch, on a listener of its own.

It asks nobody for a certificate. By `https_spiffe` it shows the server's X.509-SVID, by
`https_web` a certificate of the operator's; either file is read again when it changes.

Source: SPIFFE Federation sections 5.2.1.3 and 5.2.2.3 (spiffe/spiffe, July 2026).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.errors import ConfigurationError
from troth.identity.trust_bundle import TrustBundle

__all__ = ["EndpointTls", "bundle_app"]


class EndpointTls:
    """A TLS 1.2+ context whose certificate follows its files.

    Args:
        certificate: PEM chain, and the key too where `key` is None.
        key: PEM private key.
    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        """Load the certificate.

        Raises:
            ConfigurationError: it cannot be used.
        """
        self._certificate, self._key = certificate, key
        self._seen: tuple[int, ...] = ()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Mozilla's intermediate compatibility, which the specification asks for, begins at 1.2.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self.context = context
        self.look()

    def look(self) -> None:
        """Take a new certificate into use for new connections.

        Raises:
            ConfigurationError: it cannot be used; the one before stays.
        """
        try:
            files = [self._certificate, *([self._key] if self._key else [])]
            stamp = tuple(n for f in files for n in (f.stat().st_mtime_ns, f.stat().st_ino))
            if stamp != self._seen:
                self.context.load_cert_chain(self._certificate, self._key)
                self._seen = stamp
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(
                source=str(self._certificate), accepted=f"a certificate with its key ({exc})"
            ) from exc


def bundle_app(own: Callable[[], TrustBundle]) -> Starlette:
    """Return the application; `own` gives the bundle of the moment."""

    async def bundle(_: Request) -> Response:
        found = own()
        age = found.refresh_hint_seconds or 0
        return Response(
            found.encode(),
            media_type="application/json",
            headers={"Cache-Control": f"max-age={age}"},
        )

    return Starlette(routes=[Route("/", bundle, methods=["GET"])])
