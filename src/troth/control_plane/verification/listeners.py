# SPDX-License-Identifier: Apache-2.0
"""TLS of a Verifier's listener: a certificate from files, read again when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from troth.errors import ConfigurationError

__all__ = ["FileTls"]

_LOG = logging.getLogger(__name__)


class FileTls:
    """The TLS context of a listener whose certificate somebody else renews.

    Args:
        certificate, key: PEM files.
        client_ca: PEM file of the authorities whose client certificates are looked at, or "".
    """

    def __init__(self, certificate: str, key: str, *, client_ca: str = "") -> None:
        """Load the files.

        Raises:
            ConfigurationError: one of them cannot be used.
        """
        self._certificate, self._key = Path(certificate), Path(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        if client_ca:
            # Optional: most callers have none, and who may do what is decided by request.
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(cadata=Path(client_ca).read_text(encoding="ascii"))
            except (OSError, ValueError, ssl.SSLError) as exc:
                raise _unusable("client_ca", client_ca, exc) from exc
        self.context = context
        self._stamp = self._load()

    def reload_if_changed(self) -> None:
        """Take over a renewed certificate; connections that are open keep the old one.

        A pair that cannot be used is logged and the present one stays.
        """
        try:
            if self._stamp != self._stamps():
                self._stamp = self._load()
                _LOG.info("the TLS certificate was read again")
        except (OSError, ConfigurationError) as exc:
            _LOG.warning("the renewed TLS certificate is not used: %s", exc)

    def _stamps(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns

    def _load(self) -> tuple[int, int]:
        try:
            stamp = self._stamps()
            self.context.load_cert_chain(self._certificate, self._key)
        except (OSError, ValueError, ssl.SSLError) as exc:
            raise _unusable("tls_certificate", str(self._certificate), exc) from exc
        return stamp


def _unusable(key: str, value: str, exc: Exception) -> ConfigurationError:
    return ConfigurationError(
        source="verifier configuration", key=key, value=value, accepted=f"usable PEM files ({exc})"
    )
