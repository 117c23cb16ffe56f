# SPDX-License-Identifier: Apache-2.0
"""Logical TEEs of a running server: defined by operators, verified by a stranger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from support.server_world import DOMAIN, World, new_key, world
from troth.adapters.server_client import ServerClient
from troth.clock import SystemClock
from troth.errors import BindingError
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.formats.keys import load_keys
from troth.mesh.aggregated_result import AggregatedResult, verify_aggregated_result
from troth.mesh.logical_tee_messages import ResultReply, StatusReply
from troth.mesh.tier import Tier

URL = "/v1/ltees/claims"


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def definition(policy: str, **changes: Any) -> dict[str, Any]:
    common = {"policy_ids": [policy], "max_age_seconds": 3600, "min_tier": "identified"}
    return {
        "name": "claims",
        "trust_domain": DOMAIN,
        "owner": "insurer-a",
        "classes": [
            common
            | {
                "name": "realm",
                "schemes": ["cca"],
                "spiffe_ids": [f"spiffe://{DOMAIN}/cloud"],
                "proxy_placement": "in_member",
            },
            common
            | {
                "name": "gateway",
                "schemes": ["psa"],
                "spiffe_ids": [f"spiffe://{DOMAIN}/edge"],
                "proxy_placement": "host",
            },
        ],
        "epochs": [
            {
                "id": 1,
                "not_before": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
                "registry_epoch": 0,
            }
        ],
        **changes,
    }


async def joined(here: World, platform: SimulatedPlatform) -> ServerClient:
    client = here.client()
    await client.join(platform, new_key())
    return client


async def stranger(here: World, token: str) -> AggregatedResult:
    """Verify with what anybody can have: the published keys and the token."""
    async with here.web() as web:
        published = await web.get("/.well-known/troth/result-keys")
    keys = load_keys(published.content, source="result keys")
    return verify_aggregated_result(
        token, keys, now=SystemClock().now(), name="claims", trust_domain=DOMAIN
    )


async def define(here: World, **changes: Any) -> dict[str, Any]:
    policy = (await here.ask("GET", "/v1/policy"))["enforced"]["id"]
    made = definition(policy, **changes)
    assert (await here.ask("PUT", URL, json=made))["changed"]
    return made


async def test_a_stranger_verifies_cloud_and_edge_as_one(here: World) -> None:
    cloud, edge = here.platform("cloud", CcaOptions()), here.platform("edge")
    async with here.serve():
        await define(here, public=True)
        async with here.web() as web:
            token = (await web.get(f"{URL}/result")).text
        assert (await stranger(here, token)).tier is None  # nobody has joined

        clients = [await joined(here, cloud), await joined(here, edge)]
        reply = msgspec.convert(await here.ask("GET", f"{URL}/result"), ResultReply)
        made = await stranger(here, reply.result)
        assert made.tier is Tier.MEASURED
        assert {each.name: each.tier for each in made.classes} == {
            "realm": Tier.CONFIDENTIAL,
            "gateway": Tier.MEASURED,
        }
        assert made.insecure  # the platforms are simulated, and the result says so
        made.verify_members(reply.members)

        status = msgspec.convert(await here.ask("GET", f"{URL}/status"), StatusReply)
        assert status.membership == made.membership_digest
        edge_id = next(m.node_id for m in status.members if m.member_class == "gateway")
        await here.ask("POST", f"/v1/nodes/{edge_id}/expel")
        after = msgspec.convert(await here.ask("GET", f"{URL}/result"), ResultReply)
        later = await stranger(here, after.result)
        assert (later.tier, later.status.word) == (None, "none")
        with pytest.raises(BindingError):
            later.verify_members(reply.members)
        status = msgspec.convert(await here.ask("GET", f"{URL}/status"), StatusReply)
        assert [other.reason for other in status.others] == ["state"]
        for client in clients:
            await client.close()


async def test_a_member_proves_that_it_is_one_and_others_cannot(here: World) -> None:
    cloud, other = here.platform("cloud", CcaOptions()), here.platform("other")
    async with here.serve():
        await define(here)
        client, outsider = here.client(), here.client()
        member = (await client.join(cloud, new_key())).svid
        stranger_svid = (await outsider.join(other, new_key())).svid
        path = "/v1/agent/ltees/claims/proofs"
        async with here.web(identity=member) as web:
            answer = await web.get(path)
        reply = msgspec.json.decode(answer.content, type=ResultReply)
        made = await stranger(here, reply.result)
        found = made.verify_inclusion(reply.proofs[0], now=SystemClock().now())
        assert found.spiffe_id == f"spiffe://{DOMAIN}/cloud"
        assert reply.members == ()  # a member is not told who the others are
        async with here.web(identity=stranger_svid) as web:
            assert (await web.get(path)).status_code == 403
        async with here.web() as web:
            assert (await web.get(path)).status_code == 403
        await client.close()
        await outsider.close()


async def test_what_is_not_public_is_unknown_to_the_public(here: World) -> None:
    async with here.serve():
        made = await define(here)
        async with here.web() as web:
            assert (await web.get(f"{URL}/result")).status_code == 404
            await here.ask("PUT", URL, json=made | {"public": True})
            answer = await web.get(f"{URL}/result")
            assert answer.headers["content-type"].startswith("application/eat+jwt")
            await here.ask("PUT", URL, json=made)
            assert (await web.get(f"{URL}/result")).status_code == 404


async def test_definitions_are_listed_changed_and_deleted(here: World) -> None:
    async with here.serve():
        made = await define(here)
        assert [each["name"] for each in await here.ask("GET", "/v1/ltees")] == ["claims"]
        assert not (await here.ask("PUT", URL, json=made))["changed"]
        await here.ask("PUT", URL, 400, json=made | {"name": "other"})
        await here.ask("PUT", URL, 400, json=made | {"trust_domain": "other.example"})
        await here.ask("PUT", URL, 400, json=made | {"classes": []})
        await here.ask("PUT", URL, 400, json=made | {"more": 1})
        await here.ask("DELETE", URL, 204)
        await here.ask("GET", URL, 409)
        await here.ask("GET", f"{URL}/status", 409)
