# SPDX-License-Identifier: Apache-2.0
"""Workloads and secrets are released to admitted members of the right class, and to nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from support.server_world import DOMAIN, World, new_key, world
from troth.identity.x509_svid import X509Svid
from troth.mesh.admission import Step
from troth.mesh.node import Actor, Reason, Trigger
from troth.mesh.placement import Action, Assignment
from troth.mesh.registry import Change

UNIT = {"name": "api.service", "text": "[Service]\nExecStart=/bin/true\n"}
PLACEMENT = {
    "name": "api",
    "ltee": "claims",
    "member_class": "gateway",
    "units": [UNIT],
    "secrets": ["token"],
}


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def place(here: World) -> None:
    """Define a Logical TEE with a class for each of two roles, and place a workload in one."""
    policy = (await here.ask("GET", "/v1/policy"))["enforced"]["id"]
    classes = [
        {
            "name": name,
            "min_tier": "identified",
            "schemes": ["psa"],
            "policy_ids": [policy],
            "max_age_seconds": 3600,
            "spiffe_ids": [f"spiffe://{DOMAIN}/{role}"],
            "proxy_placement": "in_member",
        }
        for name, role in (("gateway", "edge"), ("sensor", "other"))
    ]
    begin = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    definition = {
        "name": "claims",
        "trust_domain": DOMAIN,
        "owner": "insurer-a",
        "classes": classes,
        "epochs": [{"id": 1, "not_before": begin, "registry_epoch": 0}],
    }
    await here.ask("PUT", "/v1/ltees/claims", json=definition)
    assert (await here.ask("PUT", "/v1/placements/api", json=PLACEMENT))["changed"]
    path = "/v1/placements/api/secrets/token"
    await here.ask("PUT", path, 204, content=b"hush\x00")


async def told(here: World, identity: X509Svid | None) -> list[Assignment] | int:
    """Return what a node is told, or the status that it is refused with."""
    async with here.web(identity=identity) as web:
        answer = await web.get("/v1/agent/placements")
    if answer.status_code != 200:
        return answer.status_code
    assert answer.headers["cache-control"] == "no-store"
    return msgspec.json.decode(answer.content, type=list[Assignment])


async def test_secrets_go_to_admitted_members_of_the_class_alone(here: World) -> None:
    edge, other = here.platform("edge"), here.platform("other")
    async with here.serve():
        await place(here)
        clients = [here.client(), here.client()]
        joined = await clients[0].join(edge, new_key())
        outsider = await clients[1].join(other, new_key())
        found = await told(here, joined.svid)
        assert isinstance(found, list)
        assert [(each.name, each.action) for each in found] == [("api", Action.RUN)]
        assert found[0].secrets == {"token": b"hush\x00"}
        assert found[0].units[0].text == UNIT["text"]
        assert await told(here, outsider.svid) == []  # a member, of another class
        assert await told(here, None) == 403
        for client in clients:
            await client.close()


async def test_a_degraded_node_is_given_nothing_and_an_expelled_one_is_refused(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve() as running:
        await place(here)
        client = here.client()
        joined = await client.join(edge, new_key())
        registry = running.context.registry
        node = registry.node(joined.node_id)
        degrade = Step(
            trigger=Trigger.DEGRADE, reason=Reason.VERIFIER_UNREACHABLE, actor=Actor.SERVER
        )
        registry.apply(
            Change(
                node_id=node.id,
                generation=node.generation,
                steps=(degrade,),
                actor="server",
                at=running.context.clock.now(),
            )
        )
        assert await told(here, joined.svid) == [Assignment(name="api", action=Action.KEEP)]
        await here.ask("POST", f"/v1/nodes/{node.id}/expel")
        assert await told(here, joined.svid) == 403
        await client.close()


async def test_what_is_deleted_is_drained_and_values_are_never_shown(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve():
        await place(here)
        client = here.client()
        joined = await client.join(edge, new_key())
        shown: list[Any] = [
            await here.ask("GET", path)
            for path in ("/v1/placements", "/v1/placements/api", "/v1/log?limit=1000")
        ]
        assert "hush" not in str(shown)
        await here.ask("DELETE", "/v1/placements/api", 204)
        assert await told(here, joined.svid) == []
        await here.ask("PUT", "/v1/placements/api", json=PLACEMENT)
        again = await told(here, joined.svid)
        assert isinstance(again, list)
        assert again[0].secrets == {}  # the old value is forgotten
        # Without the Logical TEE nobody is a member.
        await here.ask("DELETE", "/v1/ltees/claims", 204)
        assert await told(here, joined.svid) == []
        await client.close()
