# SPDX-License-Identifier: Apache-2.0
"""Two servers on one PostgreSQL: one membership, whichever of them a node or an operator asks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from support.postgres import PostgresServer
from support.server_world import (
    World,
    corims_for,
    entry_for,
    join_body,
    new_key,
    new_platform,
    open_session,
    world,
)
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.adapters.server_client import RefusedByServerError
from troth.clock import Clock, SystemClock
from troth.control_plane.server.appraisal_recorder import AppraisalRecorder
from troth.control_plane.server.housekeeping import Housekeeping
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.mesh.event import Snapshot
from troth.mesh.node import NodeState


@dataclass
class Pair:
    """Two servers of one trust domain, with one authority and one registry."""

    first: World
    second: World


async def join(here: World, platform: SimulatedPlatform) -> None:
    client = here.client()
    try:
        await client.join(platform, new_key())
    finally:
        await client.close()


async def register(here: World, platform: SimulatedPlatform, role: str = "edge") -> None:
    entry = entry_for(platform, role)
    message = {"spiffe_id": entry.spiffe_id, "selectors": entry.selectors}
    await here.ask("POST", "/v1/entries", 201, json=message)
    for data in corims_for(platform, f"maker-of-{role}"):
        await here.ask("POST", "/v1/corims", 201, content=data)


async def look(here: World) -> None:
    """Do what the next sweep does: take over what the other server was told."""
    context = here.running.context
    await context.registry_worker.run(context.endorsements.look, now=context.clock.now())


@pytest.fixture
async def pair(postgres: PostgresServer) -> AsyncIterator[Pair]:
    url = postgres.url_of_prepared(lambda url: SqlRegistry(url).close())
    async with world() as first, world() as second:
        for here in (first, second):
            here.options["database"] = url
            # Whatever comes sooner, another server's word has brought.
            here.options["heartbeat_seconds"] = 300.0
        async with first.serve():
            # The keys of the trust domain are shared as an operator shares them.
            shutil.copytree(
                first.directory / "data",
                second.directory / "data",
                ignore=shutil.ignore_patterns("*.sock", ".*"),
            )
            async with second.serve():
                yield Pair(first, second)


async def test_what_one_server_is_told_the_other_appraises_by(pair: Pair) -> None:
    edge = new_platform()
    await register(pair.first, edge)
    await look(pair.second)
    await join(pair.second, edge)
    assert [node["state"] for node in await pair.first.ask("GET", "/v1/nodes")] == ["admitted"]
    await join(pair.first, edge)
    for here in (pair.first, pair.second):
        assert (await here.ask("GET", "/v1/log/verify"))["sequence"] > 0


async def test_a_join_on_older_knowledge_takes_the_newer_over_and_is_decided_by_it(
    pair: Pair,
) -> None:
    edge = new_platform()
    await register(pair.first, edge)
    await look(pair.second)
    await join(pair.second, edge)
    (value,) = [
        each["id"]
        for each in await pair.first.ask("GET", "/v1/reference-values")
        if each["kind"] == "reference_value"
    ][:1]
    outcome = await pair.first.ask("DELETE", "/v1/reference-values", params={"id": value})
    assert [node["state"] for node in outcome["nodes"]] == ["quarantined"]
    with pytest.raises(RefusedByServerError):
        await join(pair.second, edge)
    assert [node["state"] for node in await pair.second.ask("GET", "/v1/nodes")] == ["quarantined"]


async def test_an_event_of_one_server_is_in_the_feeds_of_the_other_at_once(pair: Pair) -> None:
    edge, cloud = new_platform(), new_platform(PsaOptions(model="cloud"))
    await register(pair.first, edge)
    await register(pair.first, cloud, "cloud")
    await look(pair.second)
    reader = pair.second.client(heartbeat_seconds=300)
    await reader.join(edge, new_key())
    feed = reader.feed()
    async with asyncio.timeout(20):
        snapshot = await anext(feed)
        assert isinstance(snapshot, Snapshot)
        await join(pair.first, cloud)
        events = [await anext(feed) for _ in range(3)]
    assert [each.sequence - snapshot.sequence for each in events] == [1, 2, 3]
    await feed.aclose()
    await reader.close()


async def test_an_operator_at_one_server_learns_what_an_agent_told_the_other(pair: Pair) -> None:
    edge = new_platform()
    await register(pair.first, edge)
    await look(pair.second)
    reader = pair.second.client()
    await reader.join(edge, new_key())
    feed = reader.feed()
    async with asyncio.timeout(20):
        sequence = (await anext(feed)).sequence
        operators = pair.first.running.context.operators
        waiting = asyncio.create_task(operators.delivery(sequence, wait_seconds=15))
        await asyncio.sleep(0)
        await reader.acknowledge(sequence)
        assert (await waiting).done
    await feed.aclose()
    await reader.close()


async def test_a_nonce_of_one_server_is_good_at_the_other_and_once(pair: Pair) -> None:
    edge = new_platform()
    await register(pair.first, edge)
    await look(pair.second)
    async with pair.first.web() as first, pair.second.web() as second:
        session = await open_session(first)
        body, path = join_body(edge, session), f"/v1/join/sessions/{session.session}"
        assert (await second.post(path, json=body)).status_code == 200
        for web in (first, second):
            response = await web.post(path, json=body)
            assert (response.status_code, response.json()["code"]) == (403, "not_fresh")


async def test_two_housekeepers_let_a_result_lapse_once(pair: Pair) -> None:
    """No leader: both find it, the guarded statement of one of them goes through."""
    edge = new_platform()
    await register(pair.first, edge)
    await look(pair.second)
    await join(pair.first, edge)
    registry = pair.first.running.context.registry
    (node,) = registry.nodes()
    assert node.svid is not None
    clock = FixedClock(node.svid.deadline + timedelta(seconds=1))
    keepers = [housekeeping(here, clock) for here in (pair.first, pair.second)]
    before = registry.snapshot().sequence
    await asyncio.gather(*(keeper.sweep() for keeper in keepers))
    (after,) = registry.nodes()
    assert (after.state, after.generation) == (NodeState.DEGRADED, node.generation + 1)
    assert registry.snapshot().sequence == before + 1


class FixedClock(SystemClock):
    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


def housekeeping(here: World, clock: Clock) -> Housekeeping:
    context = here.running.context
    return Housekeeping(
        registry=context.registry,
        registry_worker=context.registry_worker,
        hub=context.hub,
        admission=asyncio.Lock(),
        clock=clock,
        limits=context.config.limits,
        keep_keys=lambda _: None,
        recorder=AppraisalRecorder(
            context.registry, keep=False, on_difference=print, on_lost=print
        ),
        endorsements=context.endorsements,
    )
