# SPDX-License-Identifier: Apache-2.0
"""Which node is calling: its SVID by the letter, and its state by the registry."""

from __future__ import annotations

import hashlib

from troth.clock import Clock
from troth.control_plane.server.http_server import Caller
from troth.control_plane.server.worker import Worker
from troth.errors import AuthorizationError
from troth.identity.trust_bundle import TrustBundleSource
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid
from troth.mesh.node import PERMISSIONS
from troth.mesh.node_record import NodeRecord
from troth.mesh.registry import Registry

__all__ = ["Members"]


class Members:
    """Recognises members by the certificate of their TLS connection.

    Args:
        registry, registry_worker: membership, and the one thread that it is used from.
        bundles: whose SVIDs are believed.
        clock: time.
    """

    def __init__(
        self,
        registry: Registry,
        registry_worker: Worker,
        *,
        bundles: TrustBundleSource,
        clock: Clock,
    ) -> None:
        self._registry, self._registry_worker = registry, registry_worker
        self._bundles, self._clock = bundles, clock

    def verified_key(self, caller: Caller) -> str:
        """Return the digest of the key in the caller's SVID, or "" where it showed none.

        TLS has checked that the caller holds the key. Says nothing about what the registry thinks
        of it.

        Raises:
            DecodeError, ChainError: a certificate, but not an SVID of this trust domain in force.
        """
        if not caller.certificate:
            return ""
        svid = X509Svid.decode(caller.certificate)
        verify_x509_svid(svid, self._bundles, now=self._clock.now())
        return hashlib.sha256(svid.spki).hexdigest()

    async def member(self, caller: Caller) -> NodeRecord:
        """Return the node that is calling, if its state lets it read the feed.

        Raises:
            AuthorizationError: no member, or one that may not.
            DecodeError, ChainError: as `verified_key`.
        """
        digest = self.verified_key(caller)
        if not digest:
            raise AuthorizationError(
                "no client certificate", remedy="connect with the node's X.509-SVID"
            )
        node = await self._registry_worker.run(self._registry.find_node_by_key, digest)
        if node is None or not PERMISSIONS[node.state].feed:
            state = node.state.value if node else "unknown"
            raise AuthorizationError(f"a node that is {state} may not read the feed")
        return node
