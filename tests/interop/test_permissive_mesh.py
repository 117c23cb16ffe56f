# SPDX-License-Identifier: Apache-2.0
"""A mesh on its way to the gate: the server's Envoy has one, the client's has none yet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from support.applications import HttpApplication
from support.certificates import TestAuthority
from support.envoy_mesh import MeshNode
from support.gate import need_gate
from support.ports import reserved_ports
from support.waiting import until
from troth.control_plane.envoy.description import (
    Address,
    GateSetting,
    InboundService,
    MeshDescription,
    OutboundService,
    Protocol,
)
from troth.control_plane.gate import MODULE_PATH
from troth.control_plane.gate.service import GateService

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(60)]


@dataclass
class GatedNode(MeshNode):
    """A node whose Envoy has the gate."""

    permissive: bool = True

    @property
    def gate_socket(self) -> Path:
        return self.directory / "gate"

    def description(self) -> MeshDescription:
        setting = GateSetting(
            module=str(MODULE_PATH), agent_socket=str(self.gate_socket), permissive=self.permissive
        )
        return replace(super().description(), gate=setting)


@contextlib.asynccontextmanager
async def migrating(*, permissive: bool) -> AsyncIterator[tuple[GatedNode, HttpApplication, int]]:
    need_gate()
    authority, application = TestAuthority(), HttpApplication()
    async with contextlib.AsyncExitStack() as stack:
        listen, local = stack.enter_context(reserved_ports(2))
        app = await stack.enter_async_context(application.serve())
        web = InboundService(
            "web", Protocol.HTTP, Address("127.0.0.1", listen), Address("127.0.0.1", app)
        )
        call = OutboundService(
            "web", Protocol.HTTP, Address("127.0.0.1", local), "edge", Address("127.0.0.1", listen)
        )
        edge = GatedNode("edge", authority, inbound=(web,), permissive=permissive)
        cloud = MeshNode("cloud", authority, outbound=(call,))
        gate = GateService(path=edge.gate_socket, own=lambda: None, sides=lambda *_: None)
        await stack.enter_async_context(gate)
        for node, peer in ((edge, "cloud"), (cloud, "edge")):
            node.admit(peer)
            stack.push_async_callback(node.stop)
            await node.start()
        yield edge, application, local


async def get(port: int) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        answer = await client.get(
            f"http://127.0.0.1:{port}/", headers={"x-troth-status": "attested"}
        )
        return answer.status_code


async def test_a_member_without_a_gate_is_served_and_marked_in_headers_and_log() -> None:
    async with migrating(permissive=True) as (edge, application, port):
        assert await get(port) == 200
        (request,) = application.requests
        assert request["x-troth-status"] == "none"
        assert "x-troth-result" not in request
        await until(lambda: bool(edge.records()))
        (record,) = edge.records()
        assert record.attestation == "none"
        assert record.peer_spiffe_id.endswith("/cloud")
        assert not record.state.get("result")


async def test_a_strict_gate_refuses_the_same_member() -> None:
    async with migrating(permissive=False) as (_edge, application, port):
        assert await get(port) == 503
        assert not application.requests
