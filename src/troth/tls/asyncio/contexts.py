# SPDX-License-Identifier: Apache-2.0
"""TLS settings that follow the credentials: SVIDs and authorities change while a program runs."""

from __future__ import annotations

from collections.abc import Sequence

from troth.formats.exported_authenticator import Role
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.tls.asyncio.engine import TlsContext
from troth.tls.core.profile import EXPAT_03
from troth.tls.credentials import Credentials, CredentialsSource, current

__all__ = ["TlsContexts"]


class TlsContexts:
    """Gives the context for a new connection, and makes another when something has changed."""

    def __init__(
        self, role: Role, credentials: CredentialsSource, domains: Sequence[TrustDomain]
    ) -> None:
        """Make the first one, so that what cannot work is said at once.

        Args:
            role: this end of the connections.
            credentials: this side's, or a call for the newest.
            domains: trust domains of peers; this side's own is added.

        Raises:
            ApiMisuseError: no authority is known for any of the trust domains.
        """
        self._role = role
        self._credentials = credentials
        self._domains = domains
        self._made_of: tuple[Credentials, list[TrustBundle]] | None = None
        self._context = self.current()

    def current(self) -> TlsContext:
        """Return the context with the newest SVID and authorities.

        Raises:
            ApiMisuseError: no authority is left for any of the trust domains.
        """
        credentials = current(self._credentials)
        domains = {credentials.svid.spiffe_id.trust_domain, *self._domains}
        bundles = [
            bundle
            for domain in sorted(domains, key=str)
            if (bundle := credentials.bundles.bundle(domain)) is not None
        ]
        if self._made_of is not None:
            made_with, made_from = self._made_of
            unchanged = len(made_from) == len(bundles) and all(
                old is new for old, new in zip(made_from, bundles, strict=True)
            )
            if made_with.svid is credentials.svid and unchanged:
                return self._context
        self._context = TlsContext(
            role=self._role,
            chain=credentials.svid.chain,
            private_key=credentials.svid.private_key,
            authorities=[ca for bundle in bundles for ca in bundle.x509_authorities],
            alpn=EXPAT_03.alpn,
        )
        self._made_of = (credentials, bundles)
        return self._context
