# SPDX-License-Identifier: Apache-2.0
"""Two servers on one PostgreSQL: one membership, whichever of them a node or an operator asks."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from support.postgres import PostgresServer
from support.server_world import World, corims_for, entry_for, new_key, new_platform, world
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.adapters.server_client import RefusedByServerError
from troth.evidence.simulator import SimulatedPlatform


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


async def register(here: World, platform: SimulatedPlatform) -> None:
    entry = entry_for(platform, "edge")
    message = {"spiffe_id": entry.spiffe_id, "selectors": entry.selectors}
    await here.ask("POST", "/v1/entries", 201, json=message)
    for data in corims_for(platform, "maker"):
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
        async with first.serve():
            # The keys of the trust domain are shared as an operator shares them.
            shutil.copytree(
                first.directory / "data",
                second.directory / "data",
                ignore=shutil.ignore_patterns("*.sock"),
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
