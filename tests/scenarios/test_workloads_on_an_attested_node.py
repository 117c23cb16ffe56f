# SPDX-License-Identifier: Apache-2.0
"""From Evidence to a workload's SVID, and back to nobody: server, agent and Workload API together.

1. A simulated device attests, joins, and its agent serves the Workload API.
2. An operator registers a workload by selectors; the process gets its SVID on the open stream.
3. Bundles, entries and authorities change; the stream follows without a gap.
4. The node is expelled; the workload is nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from support.server_world import DOMAIN, World, world
from support.waiting import until
from support.workload_agent import running_agent
from support.workloads import foreign_bundle
from troth.control_plane.server.config import LifetimeSection, LifetimesSection
from troth.control_plane.server.trust_config import AuthoritiesSection
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.keys import load_keys
from troth.identity.attestation_result import verify_attestation_result
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

WEB = f"spiffe://{DOMAIN}/web"
ENTRY = {
    "id": "web",
    "spiffe_id": WEB,
    "parent_id": f"spiffe://{DOMAIN}/edge",
    "selectors": [f"unix:uid:{os.getuid()}", "troth:tier:measured"],
}
SECONDS = 15


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
def edge(here: World) -> SimulatedPlatform:
    return here.platform("edge")


async def take(stream: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(SECONDS):
        return await anext(stream)


async def end_of(stream: AsyncIterator[Any]) -> GRPCError:
    """Take what still comes, and return how it ends."""
    with contextlib.suppress(StopAsyncIteration):
        while True:
            try:
                await take(stream)
            except GRPCError as exc:
                return exc
    raise AssertionError("the stream ended without a status")


async def registered(here: World, **fields: Any) -> None:
    await here.ask("POST", "/v1/entries", 201, json=ENTRY | fields)


async def first_svids(client: Any) -> Any:
    """Return a stream and its first message, as a client that retries gets them."""
    async with asyncio.timeout(SECONDS):
        while True:
            stream = client.svids()
            try:
                return stream, await anext(stream)
            except GRPCError:  # nobody yet, or the node is no member yet
                await asyncio.sleep(0.01)


async def test_a_process_becomes_a_workload_of_an_attested_node(
    here: World, edge: SimulatedPlatform
) -> None:
    async with (
        here.serve() as running,
        running_agent(here, edge) as agent,
        agent.client() as client,
    ):
        await registered(here)
        stream, response = await first_svids(client)
        [message] = response.svids
        svid = X509Svid.decode(message.x509_svid)
        now = running.context.clock.now()
        own = running.context.bundles.own
        verified = verify_x509_svid(svid, TrustBundleSet([own]), now=now)
        assert svid.node_id == agent.membership.node_id
        path = running.trust_bundle.with_name("result-keys.json")
        ear = verify_attestation_result(
            verified,
            load_keys(path.read_bytes(), source="result keys"),
            now=now,
            max_age=timedelta(minutes=5),
            leeway=timedelta(seconds=5),
        )
        assert (ear.troth.layer, ear.troth.component) == ("node_agent", "workload")
        assert ear.troth.tier == "measured"
        assert ear.insecure == ("platform simulator",)
        token = (await client.jwt("reports")).svids[0]
        valid = await client.call(
            "ValidateJWTSVID", "ValidateJWTSVID", audience="reports", svid=token.svid
        )
        assert valid.spiffe_id == token.spiffe_id == WEB
        await stream.aclose()


async def test_a_stream_follows_entries_federation_and_authorities(
    here: World, edge: SimulatedPlatform
) -> None:
    async with here.serve(), running_agent(here, edge) as agent, agent.client() as client:
        await registered(here)
        stream, before = await first_svids(client)
        foreign = foreign_bundle()
        await here.ask(
            "PUT",
            "/v1/bundles/other.example",
            json={"bundle": foreign.encode().decode()},
        )
        await here.ask("PUT", "/v1/entries/web", json=ENTRY | {"federates_with": ["other.example"]})
        federated = await take(stream)
        assert list(federated.federated_bundles) == ["spiffe://other.example"]
        assert federated.svids[0].x509_svid == before.svids[0].x509_svid
        await here.ask("POST", "/v1/authorities/x509/prepare")
        both = await take(stream)
        assert len(both.svids[0].bundle) > len(before.svids[0].bundle)
        assert len(agent.bundles[-1].x509_authorities) == 2
        await here.ask("POST", "/v1/authorities/x509/activate")
        await here.ask("PUT", "/v1/entries/web", json=ENTRY | {"x509_svid_ttl": 120})
        renewed = await take(stream)
        while renewed.svids[0].x509_svid == before.svids[0].x509_svid:
            renewed = await take(stream)
        svid = X509Svid.decode(renewed.svids[0].x509_svid)
        newest = X509Svid.decode(before.svids[0].x509_svid)
        assert svid.leaf.issuer != newest.leaf.issuer
        bundle = agent.bundles[-1]
        now = svid.not_before + timedelta(minutes=1)
        for each in (svid, newest):
            verify_x509_svid(each, TrustBundleSet([bundle]), now=now)
        await here.ask("DELETE", "/v1/entries/web")
        assert (await end_of(stream)).status is Status.PERMISSION_DENIED


async def test_an_expelled_nodes_workloads_are_nobody_at_once(
    here: World, edge: SimulatedPlatform
) -> None:
    async with (
        here.serve(),
        running_agent(here, edge) as agent,
        agent.client() as client,
    ):
        await registered(here)
        stream, _ = await first_svids(client)
        await here.ask("POST", f"/v1/nodes/{agent.membership.node_id}/expel")
        assert (await end_of(stream)).status is Status.PERMISSION_DENIED
        with pytest.raises(GRPCError) as caught:
            await client.jwt("reports")
        assert caught.value.status is Status.PERMISSION_DENIED


async def test_a_node_that_is_to_attest_again_does_so_at_once_and_its_workloads_are_back(
    here: World, edge: SimulatedPlatform
) -> None:
    async with (
        here.serve(),
        running_agent(here, edge) as agent,
        agent.client() as client,
    ):
        await registered(here)
        stream, _ = await first_svids(client)
        await here.ask("POST", f"/v1/nodes/{agent.membership.node_id}/reattest")
        assert (await end_of(stream)).status is Status.PERMISSION_DENIED
        stream, response = await first_svids(client)
        assert response.svids[0].spiffe_id == WEB
        await stream.aclose()


async def test_no_connection_to_the_server_drops_when_authorities_roll_over(
    here: World, edge: SimulatedPlatform
) -> None:
    """The agent goes on, and so does one that is new, through a whole rollover."""
    brief = LifetimeSection(result_seconds=6, svid_seconds=6, connection_seconds=6)
    here.options |= {
        "lifetimes": LifetimesSection(
            registered=brief, identified=brief, measured=brief, confidential=brief
        ),
        "authorities": AuthoritiesSection(x509_announce_seconds=2),
        "server_svid_seconds": 6,
    }
    async with (
        here.serve() as running,
        running_agent(here, edge) as agent,
        agent.client() as client,
    ):
        await registered(here)
        stream, response = await first_svids(client)
        first = running.context.bundles.own.x509_authorities[0]
        await here.ask("POST", "/v1/authorities/x509/prepare")
        bundle: TrustBundle | None = None
        async with asyncio.timeout(30):
            while bundle is None or first in bundle.x509_authorities:
                svid = X509Svid.decode(response.svids[0].x509_svid)
                own = running.context.bundles.own
                now = running.context.clock.now()
                verify_x509_svid(svid, TrustBundleSet([own]), now=now)
                response = await take(stream)
                bundle = agent.bundles[-1]
        await until(lambda: agent.side.identities.ready)
        assert (await client.jwt("reports")).svids
        await stream.aclose()


async def test_another_process_gets_nothing(here: World, edge: SimulatedPlatform) -> None:
    async with here.serve(), running_agent(here, edge) as agent, agent.client() as client:
        await registered(here, selectors=["unix:path:/usr/bin/somebody-else"])
        await until(lambda: agent.side.identities.ready)
        with pytest.raises(GRPCError) as caught:
            await take(client.svids())
        assert caught.value.status is Status.PERMISSION_DENIED
