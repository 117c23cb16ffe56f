# SPDX-License-Identifier: Apache-2.0
"""SVIDs for workloads: for the agents of admitted nodes, for their entries, and never for longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from support.server_world import DOMAIN, World, new_key, world
from troth.adapters.server_client import Joined, ServerClient, _certificate_request
from troth.control_plane.server import workloads
from troth.control_plane.server.config import LifetimeSection, LifetimesSection
from troth.errors import AuthorizationError, DecodeError
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.keys import load_keys
from troth.identity.attestation_result import verify_attestation_result
from troth.identity.jwt_svid import read_jwt_svid, verify_jwt_svid
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid
from troth.mesh.admission import Step
from troth.mesh.node import Actor, Reason, Trigger
from troth.mesh.registry import Change
from troth.mesh.workload_messages import MAX_BATCH, SvidOutcome, SvidRequest

EDGE = f"spiffe://{DOMAIN}/edge"
WEB = {
    "id": "web",
    "spiffe_id": f"spiffe://{DOMAIN}/web",
    "parent_id": EDGE,
    "selectors": ["unix:uid:1000"],
}
EXPEL = Step(trigger=Trigger.EXPEL, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)
SHORT = LifetimesSection(measured=LifetimeSection(result_seconds=600, svid_seconds=300))


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        made.options["lifetimes"] = SHORT
        yield made


@pytest.fixture
def edge(here: World) -> SimulatedPlatform:
    return here.platform("edge")


async def member(here: World, platform: SimulatedPlatform) -> tuple[ServerClient, Joined]:
    client = here.client()
    return client, await client.join(platform, new_key())


async def register(here: World, **fields: Any) -> None:
    await here.ask("POST", "/v1/entries", 201, json=WEB | fields)


def wanted(entry: str = "web", key: Any = None) -> SvidRequest:
    return SvidRequest(entry_id=entry, csr=_certificate_request(key or new_key()))


async def issue(client: ServerClient, *requests: SvidRequest) -> list[SvidOutcome]:
    return list(await client.issue_x509_svids(requests or [wanted()]))


async def test_an_agent_is_told_the_workloads_of_its_node_and_gets_svids_for_them(
    here: World,
    edge: SimulatedPlatform,
) -> None:
    async with here.serve() as running:
        await register(here, dns_names=["web.mesh.example"], hint="main")
        await register(here, id="other", parent_id=f"spiffe://{DOMAIN}/core")
        client, joined = await member(here, edge)
        reply = await client.workload_entries()
        assert [entry.id for entry in reply.entries] == ["web"]
        assert reply.entries[0].selectors == ("unix:uid:1000",)
        assert reply.entries[0].hint == "main"
        key = new_key()
        [outcome] = await issue(client, wanted(key=key))
        svid = X509Svid.decode(outcome.svid, private_key=key)
        now = running.context.clock.now()
        verified = verify_x509_svid(svid, TrustBundleSet([joined.bundle]), now=now)
        assert str(svid.spiffe_id) == WEB["spiffe_id"]
        assert svid.node_id == joined.node_id
        keys = load_keys(await client.result_keys(), source="server")
        ear = verify_attestation_result(
            verified, keys, now=now, max_age=timedelta(minutes=5), leeway=timedelta(seconds=5)
        )
        assert ear.troth.layer == "node_agent"
        assert ear.expires_at is not None
        assert svid.not_after <= ear.expires_at
        await client.close()


async def test_lifetimes_are_the_entrys_within_the_nodes_result(
    here: World, edge: SimulatedPlatform
) -> None:
    async with here.serve():
        await register(here, x509_svid_ttl=60, jwt_svid_ttl=30)
        await register(
            here, id="long", x509_svid_ttl=86400, jwt_svid_ttl=86400, selectors=["unix:uid:2"]
        )
        await register(here, id="default", selectors=["unix:uid:3"])
        client, joined = await member(here, edge)
        names = ("web", "long", "default")
        outcomes = await issue(client, *(wanted(name) for name in names))
        lives = [
            (svid.not_after - svid.not_before).total_seconds() - 30
            for svid in (X509Svid.decode(outcome.svid) for outcome in outcomes)
        ]
        assert lives[0] == 60
        assert 595 <= lives[1] <= 600
        assert lives[2] == 300
        tokens = [read_jwt_svid(await client.issue_jwt_svid(name, ["x"])) for name in names]
        seconds = [(t.expires_at - t.issued_at).total_seconds() for t in tokens if t.issued_at]
        assert seconds[0] == 30
        assert 590 <= seconds[1] <= 600
        assert seconds[2] == 300
        await client.close()


async def test_a_jwt_svid_is_of_the_entry_and_for_the_audience(
    here: World, edge: SimulatedPlatform
) -> None:
    async with here.serve() as running:
        await register(here)
        client, joined = await member(here, edge)
        token = await client.issue_jwt_svid("web", ["reports", "billing"])
        own = TrustBundle.decode(
            (await client.bundles()).own.encode(), trust_domain=joined.bundle.trust_domain
        )
        now = running.context.clock.now()
        svid = verify_jwt_svid(token, TrustBundleSet([own]), audience="billing", now=now)
        assert str(svid.spiffe_id) == WEB["spiffe_id"]
        with pytest.raises(AuthorizationError):
            await client.issue_jwt_svid("unknown", ["reports"])
        with pytest.raises(DecodeError):
            await client.issue_jwt_svid("web", ["re\nports"])
        await client.close()


async def test_an_entry_of_another_node_is_refused_and_the_rest_of_the_batch_is_not(
    here: World,
    edge: SimulatedPlatform,
) -> None:
    async with here.serve():
        await register(here)
        await register(here, id="other", parent_id=f"spiffe://{DOMAIN}/core")
        await register(here, id="tier", selectors=["unix:uid:1", "troth:tier:confidential"])
        client, _ = await member(here, edge)
        bad = SvidRequest(entry_id="web", csr=b"no request")
        requests = [wanted("other"), wanted("tier"), wanted("unknown"), bad, wanted()]
        outcomes = await issue(client, *requests)
        assert [outcome.error for outcome in outcomes] == [
            "refused",
            "refused",
            "refused",
            "malformed",
            "",
        ]
        assert [bool(outcome.svid) for outcome in outcomes] == [False] * 4 + [True]
        with pytest.raises(AuthorizationError):
            await client.issue_jwt_svid("other", ["x"])
        await client.close()


async def test_selectors_of_the_node_are_not_the_agents_to_match(
    here: World, edge: SimulatedPlatform
) -> None:
    async with here.serve():
        await register(here, selectors=["troth:tier:measured", "unix:uid:1", "troth:scheme:psa"])
        client, _ = await member(here, edge)
        assert (await client.workload_entries()).entries[0].selectors == ("unix:uid:1",)
        await client.close()


async def test_a_stranger_and_a_workload_are_no_agents(
    here: World, edge: SimulatedPlatform
) -> None:
    async with here.serve():
        await register(here)
        client, _ = await member(here, edge)
        key = new_key()
        [outcome] = await issue(client, wanted(key=key))
        workload = X509Svid.decode(outcome.svid, private_key=key)
        for identity in (None, workload):
            async with here.web(identity=identity) as web:
                for method, path in (
                    ("GET", "/v1/agent/entries"),
                    ("GET", "/v1/agent/bundles"),
                    ("POST", "/v1/agent/x509-svids"),
                    ("POST", "/v1/agent/jwt-svids"),
                ):
                    response = await web.request(method, path, json={})
                    assert response.status_code == 403, (path, response.text)
        await client.close()


@pytest.mark.parametrize("verb", ["expel", "reattest", "retire"])
async def test_a_node_that_is_no_member_any_more_gets_nothing(
    here: World, edge: SimulatedPlatform, verb: str
) -> None:
    async with here.serve():
        await register(here)
        client, joined = await member(here, edge)
        assert (await issue(client))[0].svid
        await here.ask("POST", f"/v1/nodes/{joined.node_id}/{verb}")
        with pytest.raises(AuthorizationError):
            await issue(client)
        with pytest.raises(AuthorizationError):
            await client.issue_jwt_svid("web", ["x"])
        with pytest.raises(AuthorizationError):
            await client.workload_entries()
        await client.close()


async def test_who_is_expelled_during_a_batch_gets_nothing_of_it(
    here: World, edge: SimulatedPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with here.serve() as running:
        await register(here)
        client, joined = await member(here, edge)
        issue_batch = workloads.Workloads._issue_batch

        def slow(self: Any, *args: Any) -> Any:
            outcomes = issue_batch(self, *args)
            node = running.context.registry.node(joined.node_id)
            running.context.registry.apply(
                Change(
                    node_id=node.id,
                    generation=node.generation,
                    steps=(EXPEL,),
                    actor="operator 0",
                    at=running.context.clock.now(),
                )
            )
            return outcomes

        monkeypatch.setattr(workloads.Workloads, "_issue_batch", slow)
        with pytest.raises(AuthorizationError):
            await issue(client)
        await client.close()


async def test_a_batch_has_a_limit(here: World, edge: SimulatedPlatform) -> None:
    async with here.serve():
        await register(here)
        client, _ = await member(here, edge)
        request = wanted()
        assert len(await issue(client, *[request] * MAX_BATCH)) == MAX_BATCH
        with pytest.raises(DecodeError):
            await issue(client, *[request] * (MAX_BATCH + 1))
        await client.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"requests": []},
        {"requests": [{"entry_id": "web"}]},
        {"requests": [{"entry_id": "web", "csr": "***"}]},
        {"requests": [{"entry_id": "", "csr": "AA=="}]},
        {"requests": [{"entry_id": "web", "csr": "AA==", "more": 1}]},
    ],
)
async def test_a_wrong_request_is_malformed(
    here: World, edge: SimulatedPlatform, body: dict[str, Any]
) -> None:
    async with here.serve():
        client, joined = await member(here, edge)
        async with here.web(identity=joined.svid) as web:
            response: httpx.Response = await web.post("/v1/agent/x509-svids", json=body)
            assert (response.status_code, response.json()["code"]) == (400, "malformed")
        await client.close()
