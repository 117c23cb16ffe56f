# SPDX-License-Identifier: Apache-2.0
"""The server's TLS: its own X.509-SVID, TLS 1.3, client certificates optional, no resumption."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from troth.control_plane.key_files import write_private
from troth.control_plane.server.issuer import SvidIssuer
from troth.control_plane.server.keys import ServerKeys
from troth.errors import UnavailableError
from troth.identity.x509_svid import X509Svid
from troth.mesh.deadline import refresh_after

__all__ = ["SVID_FILE", "ServerTls"]

SVID_FILE = "tls.svid.pem"
"""Name, in the data directory, of the server's own SVID with its key."""


class ServerTls:
    """The TLS context of the HTTPS listener, with an SVID that is renewed in place.

    Args:
        keys, issuer: of the trust domain.
        directory: where the chain and key are written for OpenSSL to read.
        lifetime: of the server's SVID.
        now: time of the first issue.
    """

    def __init__(
        self,
        keys: ServerKeys,
        issuer: SvidIssuer,
        *,
        directory: Path,
        lifetime: timedelta,
        now: datetime,
    ) -> None:
        self._keys, self._issuer = keys, issuer
        self._path, self._lifetime = directory / SVID_FILE, lifetime
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # A node that joins has no certificate yet. One that shows a wrong one is turned away.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        self.context = context
        self._believed = ""
        self.believe()
        self._renew_at = now
        self.renew_if_due(now)

    def believe(self) -> None:
        """Take authorities into the context that have come into the bundle.

        One that has gone stays in the context until a restart: whoever asks for something is
        verified under the bundle of the moment as well (`Members`).
        """
        pem = self._issuer.bundle().pem
        if pem != self._believed:
            self.context.load_verify_locations(cadata=pem)
            self._believed = pem

    def renew_if_due(self, now: datetime) -> None:
        """Issue the next SVID after a third of the life of the present one.

        Connections that are open keep theirs; new ones get the new one.

        Raises:
            UnavailableError: it cannot be written; the present one stays.
        """
        if now < self._renew_at:
            return
        svid = self._issuer.issue_own(self._keys.tls_key.public_key(), now=now, ttl=self._lifetime)
        own = X509Svid(chain=svid.chain, private_key=self._keys.tls_key)
        write_private(self._path, own.encode_pem() + own.encode_private_key(Encoding.PEM))
        try:
            self.context.load_cert_chain(self._path)
        except (OSError, ssl.SSLError) as exc:
            raise UnavailableError(f"{self._path} cannot be loaded: {exc}") from exc
        self._renew_at = now + refresh_after(issued=now, expires=svid.not_after)
