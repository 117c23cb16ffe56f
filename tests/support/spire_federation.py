# SPDX-License-Identifier: Apache-2.0
"""A trust domain of SPIRE's and one of Troth's, federated, with an attested node in each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.ports import reserved_ports
from support.server_world import DOMAIN as MESH
from support.server_world import World, world
from support.spire import DOMAIN, AttestedSpire, attested_spire
from support.waiting import until
from support.workload_agent import running_agent
from troth.adapters.bundle_endpoint import HttpsBundleFetcher
from troth.cli.demo.platforms import EDGE
from troth.control_plane.server.trust_config import FederationSection

THEIRS, OURS = f"spiffe://{DOMAIN}/web", f"spiffe://{MESH}/web"
UID = f"unix:uid:{os.getuid()}"


@dataclass
class Both:
    """The two trust domains, federated, and a Workload API of each."""

    spire: AttestedSpire
    troth: World
    theirs: Path
    ours: Path


@asynccontextmanager
async def federated() -> AsyncIterator[Both]:
    """Give them once each has fetched the other's bundle by https_spiffe."""
    async with AsyncExitStack() as stack:
        with reserved_ports(1) as (port,):
            endpoint = f"""federation {{
    bundle_endpoint {{ address = "127.0.0.1" port = {port} profile "https_spiffe" {{}} }}
  }}"""
        spire = await stack.enter_async_context(attested_spire(more=endpoint))
        here = await stack.enter_async_context(world())
        platform = here.platform("edge")
        here.options |= {"federation": FederationSection(listen="127.0.0.1:0")}
        await stack.enter_async_context(here.serve(fetcher=HttpsBundleFetcher()))
        await _federate(spire, here, port)
        agent = await stack.enter_async_context(running_agent(here, platform))
        await _register(spire, here)
        yield Both(spire, here, spire.spire.agent_socket(EDGE), agent.socket)


async def federate_at_spire(spire: AttestedSpire, here: World, profile: str, *options: str) -> None:
    """Tell SPIRE of our trust domain and where its bundle is."""
    made = await asyncio.to_thread(
        spire.spire.ask,
        *("federation", "create", "-trustDomain", MESH),
        *("-bundleEndpointURL", here.running.bundle_url),
        *("-bundleEndpointProfile", profile),
        *options,
    )
    assert made.returncode == 0, made.stderr


async def _federate(spire: AttestedSpire, here: World, port: int) -> None:
    """Tell each of the other: its first bundle, its endpoint, and whom to expect there."""
    await here.ask(
        "PUT",
        f"/v1/bundles/{DOMAIN}",
        json={
            "bundle": spire.spire.ask("bundle", "show").stdout,
            "endpoint_url": f"https://127.0.0.1:{port}/",
            "profile": "https_spiffe",
            "endpoint_spiffe_id": f"spiffe://{DOMAIN}/spire/server",
        },
    )
    status = await here.ask("POST", f"/v1/bundles/{DOMAIN}/refresh")
    assert status["problem"] == "", status
    await federate_at_spire(
        spire,
        here,
        "https_spiffe",
        *("-endpointSpiffeID", here.running.spiffe_id),
        *("-trustDomainBundlePath", str(here.running.trust_bundle)),
        *("-trustDomainBundleFormat", "pem"),
    )
    refreshed = await asyncio.to_thread(spire.spire.ask, "federation", "refresh", "-id", MESH)
    assert refreshed.returncode == 0, refreshed.stderr
    # The first bundle had no key for JWTs: what SPIRE holds now came from our endpoint.
    await until(
        lambda: "jwt-svid" in spire.spire.ask("bundle", "list", "-format", "spiffe").stdout,
        seconds=20,
        interval=0.3,
    )


async def _register(spire: AttestedSpire, here: World) -> None:
    await here.ask(
        "POST",
        "/v1/entries",
        201,
        json={
            "id": "web",
            "spiffe_id": OURS,
            "parent_id": f"spiffe://{MESH}/edge",
            "selectors": [UID],
            "federates_with": [DOMAIN],
        },
    )
    spire.start_agent(EDGE)
    (agent,) = await spire.attested(1)
    made = spire.spire.ask(
        "entry",
        "create",
        "-parentID",
        f"spiffe://{DOMAIN}{agent['id']['path']}",
        "-spiffeID",
        THEIRS,
        "-selector",
        UID,
        "-federatesWith",
        f"spiffe://{MESH}",
    )
    assert made.returncode == 0, made.stderr
