# SPDX-License-Identifier: Apache-2.0
"""A whole node without an Envoy: simulated platform, agent, Workload API, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.server_world import SERVER_ID, World
from support.waiting import until
from support.workloads import WorkloadClient, short_directory
from troth.adapters.process_attestor import ProcessAttestor
from troth.control_plane.agent.config import (
    AgentConfig,
    AttesterSection,
    BrokerSection,
    NodeSection,
    ServerSection,
    WorkloadApiSection,
)
from troth.control_plane.agent.no_proxy import NoProxy
from troth.control_plane.agent.node_agent import NodeAgent
from troth.control_plane.agent.ports import Membership
from troth.control_plane.agent.trust import AgentTrust
from troth.control_plane.agent.workload_side import WorkloadSide
from troth.evidence.simulator import SimulatedPlatform
from troth.identity.trust_bundle import TrustBundle


@dataclass
class RunningAgent:
    """An agent that has joined.

    Attributes:
        side: its workload side.
        membership: what the first join gave.
        socket, broker_socket: of its APIs.
        bundles: every bundle of the trust domain that it came to believe.
    """

    side: WorkloadSide
    membership: Membership
    socket: Path
    broker_socket: Path
    bundles: list[TrustBundle]

    def client(self) -> WorkloadClient:
        return WorkloadClient(self.socket)


@asynccontextmanager
async def running_agent(
    here: World, platform: SimulatedPlatform, *, attestor: Any = None, brokers: tuple[str, ...] = ()
) -> AsyncIterator[RunningAgent]:
    """Give a joined agent of `platform`; `here` serves."""
    with short_directory() as directory:
        api = WorkloadApiSection(socket=str(directory / "api.sock"))
        broker = BrokerSection(socket=str(directory / "broker.sock"), callers=list(brokers))
        config = AgentConfig(
            node=NodeSection(name="edge"),
            server=ServerSection(url=here.running.url, trust_bundle="unused", spiffe_id=SERVER_ID),
            attester=AttesterSection(kind="simulator", device="unused"),
            workload_api=api,
        )
        server = here.client()
        side = WorkloadSide(
            server=server,
            attestor=attestor or ProcessAttestor(),
            api=api,
            broker=broker if brokers else None,
        )
        joined: asyncio.Future[Membership] = asyncio.get_running_loop().create_future()
        bundles: list[TrustBundle] = []
        trust = AgentTrust()
        agent = NodeAgent(
            config,
            server=server,
            proxy=NoProxy(),
            attester=platform,
            workloads=side,
            trust=trust,
            on_bundle=bundles.append,
            on_joined=joined.set_result,
        )
        async with side:
            running = asyncio.create_task(agent.run())
            try:
                await asyncio.wait({running, joined}, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
                # The feed has begun: httpx leaves a connection behind that is given up half-made.
                await until(lambda: trust._revision >= 0)
                yield RunningAgent(side, joined.result(), api.path, broker.path, bundles)
            finally:
                running.cancel()
                await asyncio.wait({running})
                await server.close()
