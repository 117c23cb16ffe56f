# SPDX-License-Identifier: Apache-2.0
"""A node of a test mesh: one stock Envoy with its `XdsServer`."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from support.certificates import Credential, TestAuthority
from troth.adapters.envoy_process import EnvoyLogLine, EnvoyProcess, find_envoy
from troth.control_plane.envoy.access_log import AccessLogRecord, decode_access_log_line
from troth.control_plane.envoy.bootstrap import bootstrap
from troth.control_plane.envoy.description import (
    AdmittedPeer,
    InboundService,
    MeshDescription,
    OutboundService,
    ProxyIdentity,
)
from troth.control_plane.envoy.descriptors import EnvoyDescriptors
from troth.control_plane.envoy.resources import MeshResources
from troth.control_plane.envoy.xds import ProxyEvent, XdsServer
from troth.errors import ConfigurationError

__all__ = ["TRUST_DOMAIN", "MeshNode", "envoy_binary", "spiffe_id"]

TRUST_DOMAIN = "spiffe://example.test"


def envoy_binary() -> Path:
    """Return the Envoy to test with (`$TROTH_TEST_ENVOY` first); without one, skip the test."""
    named = os.environ.get("TROTH_TEST_ENVOY")
    try:
        return find_envoy(Path(named) if named else None)
    except ConfigurationError as exc:
        pytest.skip(f"no Envoy here: {exc}")


def spiffe_id(node_id: str) -> str:
    return f"{TRUST_DOMAIN}/node/{node_id}"


@dataclass
class MeshNode:
    """Start it, describe it, use it, stop it."""

    node_id: str
    authority: TestAuthority
    peers: dict[str, AdmittedPeer] = field(default_factory=dict)
    inbound: tuple[InboundService, ...] = ()
    outbound: tuple[OutboundService, ...] = ()

    def __post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
        self.binary = envoy_binary()
        self.descriptors = EnvoyDescriptors.load(self.binary)
        self.credential: Credential = self.authority.issue(
            spiffe_id(self.node_id), node_id=self.node_id
        )
        self.events: list[ProxyEvent] = []
        self.log: list[EnvoyLogLine] = []
        self.bundles = {TRUST_DOMAIN: self.authority.bundle}
        self.xds = self.new_xds()
        self.envoy = self.new_envoy()

    @property
    def access_log(self) -> Path:
        return self.directory / "access.log"

    def new_xds(self, **options: object) -> XdsServer:
        return XdsServer(
            socket=self.directory / "xds",
            descriptors=self.descriptors,
            on_event=self.events.append,
            **options,
        )

    def new_envoy(self) -> EnvoyProcess:
        return EnvoyProcess(
            binary=self.binary,
            bootstrap=bootstrap(
                node_id=self.node_id,
                xds_socket=self.directory / "xds",
                admin_socket=self.directory / "admin",
            ),
            concurrency=1,
            on_log=self.log.append,
            access_log_flush_ms=20,
        )

    def description(self) -> MeshDescription:
        return MeshDescription(
            identity=ProxyIdentity(
                self.node_id,
                spiffe_id(self.node_id),
                self.credential.chain,
                self.credential.key,
            ),
            trust_bundles=self.bundles,
            peers=tuple(self.peers.values()),
            inbound=self.inbound,
            outbound=self.outbound,
            access_log=str(self.access_log),
        )

    def resources(self) -> MeshResources:
        return MeshResources.build(self.description())

    async def start(self) -> None:
        await self.xds.start()
        self.xds.publish_mesh(self.resources())
        await self.envoy.start()
        await self.envoy.wait_ready()
        await self.apply()

    async def apply(self) -> None:
        await self.xds.apply(self.resources())

    async def stop(self) -> None:
        await self.envoy.stop()
        await self.xds.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def admit(self, *node_ids: str) -> None:
        for node_id in node_ids:
            self.peers[node_id] = AdmittedPeer(node_id, spiffe_id(node_id))

    def withdraw(self, node_id: str) -> None:
        del self.peers[node_id]

    def change(self, node_id: str, **fields: object) -> None:
        self.peers[node_id] = replace(self.peers[node_id], **fields)

    def records(self) -> list[AccessLogRecord]:
        if not self.access_log.exists():
            return []
        whole, _, _ = self.access_log.read_bytes().rpartition(b"\n")
        return [decode_access_log_line(line) for line in whole.splitlines()]

    async def statistics(self, prefix: str) -> dict[str, int]:
        text = await self.envoy.admin.get(f"/stats?filter={prefix}")
        pairs = (line.rpartition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}
