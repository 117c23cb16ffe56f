# SPDX-License-Identifier: Apache-2.0
"""What the agent needs of the world: a server to join, a proxy to configure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from troth.control_plane.envoy.resources import MeshResources
from troth.evidence.attester import Attester
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_svid import X509Svid
from troth.mesh.event import FeedMessage, FeedNotice
from troth.mesh.member import Service

__all__ = ["Membership", "MeshProxy", "MeshServer"]


class Membership(Protocol):
    """What joining gave; `troth.adapters.server_client.Joined` is one."""

    @property
    def node_id(self) -> str:
        """The node's name in the mesh."""

    @property
    def spiffe_id(self) -> SpiffeId:
        """Its SPIFFE ID."""

    @property
    def svid(self) -> X509Svid:
        """Its SVID, with the private key."""

    @property
    def ear(self) -> str:
        """Its Attestation Result."""

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle."""

    @property
    def expires(self) -> datetime:
        """When SVID or result runs out."""

    @property
    def refresh_after(self) -> timedelta:
        """When to renew, from the moment of joining."""


class MeshServer(Protocol):
    """The server, as `troth.adapters.server_client.ServerClient` reaches it.

    Attributes:
        on_notice: told what the feed says beside its messages.
    """

    on_notice: Callable[[FeedNotice], None] | None

    def believe(self, pem: str) -> None:
        """Recognise the server under these authorities too: they roll over."""

    async def join(
        self,
        attester: Attester,
        key: ec.EllipticCurvePrivateKey,
        *,
        node_name: str = "",
        services: Sequence[Service] = (),
    ) -> Membership:
        """Join or renew.

        Raises:
            AuthorizationError: refused.
            UnavailableError: no answer now.
        """
        ...

    def feed(self, after: int | None = None) -> AsyncIterator[FeedMessage]:
        """Follow the feed, forever."""
        ...

    async def acknowledge(self, sequence: int) -> None:
        """Say that everything up to `sequence` is in force here."""
        ...

    async def result_keys(self) -> bytes:
        """Return the JWK Set of the server's Verifier."""
        ...


class MeshProxy(Protocol):
    """The proxy beside this agent, as `XdsServer` reaches it."""

    async def apply(self, resources: MeshResources, *, timeout_seconds: float = 10) -> None:
        """Publish, and wait until every connected proxy has it in effect.

        Raises:
            UnavailableError: no proxy was there, or it did not answer.
        """
        ...
