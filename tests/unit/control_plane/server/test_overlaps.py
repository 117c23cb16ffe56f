# SPDX-License-Identifier: Apache-2.0
"""CoRIMs that follow others: with an overlap, or by declaring to replace their tags."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from support.server_world import World, corims_for, new_key, new_platform, world
from troth.adapters.server_client import RefusedByServerError
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.formats.corim import Comid, Corim, LinkedTag


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def join(here: World, platform: SimulatedPlatform) -> None:
    client = here.client()
    try:
        await client.join(platform, new_key())
    finally:
        await client.close()


async def test_old_and_new_firmware_join_until_the_overlap_ends(here: World) -> None:
    old = here.platform("edge")
    new = old.with_measurement(0, b"\xaa" * 32)
    (data,) = corims_for(new, "v2", keys=False)
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    async with here.serve():
        with pytest.raises(RefusedByServerError):
            await join(here, new)
        await here.ask(
            "POST",
            "/v1/corims",
            201,
            content=data,
            params={"replaces": "maker-of-edge", "overlap_until": until},
        )
        phases = {each["id"]: each["phase"] for each in await here.ask("GET", "/v1/corims")}
        assert phases == {"maker-of-edge": "retiring", "v2": "in force"}
        await join(here, old)
        await join(here, new)
    async with here.serve():
        phases = {each["id"]: each["phase"] for each in await here.ask("GET", "/v1/corims")}
        assert phases == {"maker-of-edge": "retiring", "v2": "in force"}


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"replaces": "maker-of-edge"}, 400),
        ({"overlap_until": "2099-01-01T00:00:00Z"}, 400),
        ({"replaces": "maker-of-edge", "overlap_until": "2099-01-01T00:00:00"}, 400),
        ({"replaces": "maker-of-edge", "overlap_until": "soon"}, 400),
        ({"replaces": "maker-of-edge", "overlap_until": "2001-01-01T00:00:00Z"}, 400),
        ({"replaces": "nobody", "overlap_until": "2099-01-01T00:00:00Z"}, 409),
    ],
)
async def test_an_overlap_that_cannot_be_changes_nothing(
    here: World, params: dict[str, str], status: int
) -> None:
    here.platform("edge")
    (data,) = corims_for(new_platform(PsaOptions(model="other")), "v2")
    async with here.serve() as running:
        epoch = running.context.registry.epoch
        await here.ask("POST", "/v1/corims", status, content=data, params=params)
        assert running.context.registry.epoch == epoch
        assert [each["id"] for each in await here.ask("GET", "/v1/corims")] == ["maker-of-edge"]


async def test_who_stood_on_a_tag_that_is_replaced_is_appraised_again_at_once(
    here: World,
) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    successor = Corim.decode(corims_for(edge.with_measurement(0, b"\xaa" * 32), "v2")[0])
    first = successor.tags[0]
    assert isinstance(first, Comid)
    linked = replace(first, linked_tags=(LinkedTag("maker-of-edge:state", 1),))
    data = replace(successor, tags=(linked, *successor.tags[1:])).encode()
    async with here.serve() as running:
        for platform in (edge, cloud):
            await join(here, platform)
        made = await here.ask("POST", "/v1/corims", 201, content=data)
        assert made["withdrawn"] == ["maker-of-edge/maker-of-edge:state"]
        nodes = running.context.registry.nodes()
        assert {node.spiffe_id.rpartition("/")[2]: node.state for node in nodes} == {
            "edge": "quarantined",
            "cloud": "admitted",
        }
        with pytest.raises(RefusedByServerError):
            await join(here, edge)
