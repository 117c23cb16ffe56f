# SPDX-License-Identifier: Apache-2.0
"""The agent of an Envoy whose listeners and clusters stand in a file: secrets, gate, ext_authz."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import serialization

from support.attested_world import DOMAIN, Node, World
from support.envoy_mesh import envoy_binary
from troth.control_plane.envoy.description import GateSetting, ProxyIdentity
from troth.control_plane.envoy.descriptors import EnvoyDescriptors
from troth.control_plane.envoy.resources import SECRET, MeshResources
from troth.control_plane.envoy.static_secrets import StaticServer, static_secrets
from troth.control_plane.envoy.xds import XdsServer
from troth.control_plane.gate import MODULE_PATH
from troth.control_plane.gate.connection import GateSide, OwnSide
from troth.control_plane.gate.service import GateService
from troth.identity.spiffe_id import SpiffeId
from troth.tls.judge import Judge

__all__ = ["StaticAgent", "key_pin"]


def key_pin(node: Node) -> bytes:
    """Return what pins the node's key in Envoy."""
    digest = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    import hashlib  # noqa: PLC0415

    return hashlib.sha256(node.svid.public_key.public_bytes(*digest)).digest()


@dataclass
class StaticAgent:
    """Serves one Envoy; use as `async with`."""

    world: World
    node: Node
    directory: Path
    servers: dict[str, Node] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    services: Collection[Any] = ()

    def __post_init__(self) -> None:
        self.descriptors = EnvoyDescriptors.load(envoy_binary())
        self.xds = XdsServer(
            socket=self.directory / f"{self.node.name}.xds",
            descriptors=self.descriptors,
            types=(SECRET,),
            services=self.services,
        )
        judge = Judge(self.world.policy(**self.policy), self.world.bundles)
        side = GateSide(judge=judge, svid_end=lambda _, now: now + self.world.lifetime)
        own = OwnSide(
            credentials=self.world.credentials(self.node), shown=[self.node.svid.fingerprint]
        )
        self.gate = GateService(
            path=self.directory / f"{self.node.name}.gate",
            own=lambda: own,
            sides=lambda _role, _service, _peer: side,
        )

    @property
    def setting(self) -> GateSetting:
        return GateSetting(
            module=str(MODULE_PATH), agent_socket=str(self.directory / f"{self.node.name}.gate")
        )

    def secrets(self, pins: dict[str, list[bytes]] | None = None) -> MeshResources:
        """Return what is published; `pins` replace those of a service."""
        pins = pins or {}
        bundle = self.world.bundles.bundle(SpiffeId.decode(f"spiffe://{DOMAIN}/x").trust_domain)
        assert bundle is not None
        return MeshResources(
            secrets=static_secrets(
                ProxyIdentity(
                    node_id=self.node.name,
                    spiffe_id=str(self.node.svid.spiffe_id),
                    certificate_chain=self.node.svid.encode_pem(),
                    private_key=self.node.svid.encode_private_key(serialization.Encoding.PEM),
                ),
                {f"spiffe://{DOMAIN}": bundle.encode_pem()},
                [
                    StaticServer(
                        name=name,
                        spiffe_id=str(node.svid.spiffe_id),
                        key_pins=pins.get(name, [key_pin(node)]),
                    )
                    for name, node in self.servers.items()
                ],
            ),
            clusters=(),
            listeners=(),
        )

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self.gate)
        await self._stack.enter_async_context(self.xds)
        self.xds.publish_mesh(self.secrets())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
