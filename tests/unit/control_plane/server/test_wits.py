# SPDX-License-Identifier: Apache-2.0
"""WITs: for workloads of admitted nodes and for the nodes, with a result for the very same key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from support.server_world import DOMAIN, World, new_key, world
from troth.adapters import server_client
from troth.adapters.server_client import Joined, ServerClient
from troth.control_plane.server.config import LifetimeSection, LifetimesSection
from troth.errors import AuthorizationError, BindingError, DecodeError, TrothError
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.keys import load_keys, spki
from troth.formats.signer import LocalSigner
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.workload_identity_token import bundle_keys, verify_wit
from troth.wimse import (
    RequestCheck,
    ResultRequirement,
    WimseAuth,
    WimseCredentials,
    WimseMiddleware,
)

WEB = {
    "id": "web",
    "spiffe_id": f"spiffe://{DOMAIN}/web",
    "parent_id": f"spiffe://{DOMAIN}/edge",
    "selectors": ["unix:uid:1000"],
}
SHORT = LifetimesSection(measured=LifetimeSection(result_seconds=600, svid_seconds=300))


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        made.options["lifetimes"] = SHORT
        yield made


@pytest.fixture
def edge(here: World) -> SimulatedPlatform:
    return here.platform("edge")


async def member(here: World, edge: SimulatedPlatform) -> tuple[ServerClient, Joined, Any]:
    client, key = here.client(), new_key()
    return client, await client.join(edge, key), key


async def whoami(scope: Any, receive: Any, send: Any) -> None:
    del receive
    caller = scope["extensions"]["wimse"]["caller"]
    body = json.dumps([caller.subject, caller.tier]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def check_for(client: ServerClient, joined: Joined, **changes: Any) -> RequestCheck:
    bundle = (await client.bundles()).own.encode()
    own = TrustBundle.decode(bundle, trust_domain=joined.bundle.trust_domain)
    keys = load_keys(await client.result_keys(), source="server")
    values: dict[str, Any] = {
        "issuers": bundle_keys(TrustBundleSet([own])),
        "origins": ["http://orders"],
        "callers": [f"spiffe://{DOMAIN}/*"],
        "results": ResultRequirement(keys=keys, allow_insecure=True),
    } | changes
    return RequestCheck(**values)


@pytest.mark.parametrize("entry", ["web", ""])
async def test_a_wit_of_the_server_lets_its_holder_call_a_service(
    here: World, edge: SimulatedPlatform, entry: str
) -> None:
    async with here.serve():
        await here.ask("POST", "/v1/entries", 201, json=WEB)
        client, joined, own_key = await member(here, edge)
        key = new_key() if entry else own_key
        token, result = await client.issue_wit(key, entry)
        app = WimseMiddleware(whoami, await check_for(client, joined))
        shown = WimseCredentials(wit=token, signer=LocalSigner(key), result=result)
        transport = httpx.ASGITransport(app=app)
        for proof in ("wpt", "signature"):
            auth = WimseAuth(shown, proof=proof)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, auth=auth) as web:
                answer = await web.post("http://orders/pay?sum=1", content=b"{}")
                expected = f"spiffe://{DOMAIN}/{entry or 'edge'}"
                assert answer.json() == [expected, "measured"], answer.text
        async with httpx.AsyncClient(transport=transport) as web:
            stranger = await web.get("http://orders/", headers={"workload-identity-token": token})
            assert stranger.status_code == 400
        await client.close()


async def test_a_wit_ends_with_the_nodes_result_at_the_latest_and_names_the_key(
    here: World, edge: SimulatedPlatform
) -> None:
    async with here.serve() as running:
        await here.ask("POST", "/v1/entries", 201, json=WEB | {"jwt_svid_ttl": 86400})
        client, joined, _ = await member(here, edge)
        key = new_key()
        token, result = await client.issue_wit(key, "web")
        now = running.context.clock.now()
        here_check = await check_for(client, joined)
        wit = verify_wit(token, here_check.issuers, now=now)
        assert (wit.spki, wit.key.algorithm) == (spki(key.public_key()), "ES256")
        assert wit.expires_at - now <= timedelta(seconds=600)
        assert result.count(".") == 2
        await client.close()


async def test_a_nodes_own_wit_is_for_the_key_of_its_result_only(
    here: World, edge: SimulatedPlatform
) -> None:
    async with here.serve():
        client, _, _ = await member(here, edge)
        with pytest.raises(BindingError):
            await client.issue_wit(new_key())
        await client.close()


async def test_nobody_gets_a_wit_for_an_entry_of_others_or_a_key_that_is_not_held(
    here: World, edge: SimulatedPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with here.serve():
        await here.ask("POST", "/v1/entries", 201, json=WEB)
        await here.ask(
            "POST",
            "/v1/entries",
            201,
            json=WEB | {"id": "core", "parent_id": f"spiffe://{DOMAIN}/core"},
        )
        client, joined, _ = await member(here, edge)
        for name in ("core", "unknown"):
            with pytest.raises(AuthorizationError):
                await client.issue_wit(new_key(), name)
        honest = server_client._certificate_request

        def forged(key: Any) -> bytes:
            request = honest(key)
            return request[:-1] + bytes([request[-1] ^ 1])

        monkeypatch.setattr(server_client, "_certificate_request", forged)
        with pytest.raises((TrothError, DecodeError)):
            await client.issue_wit(new_key(), "web")
        monkeypatch.undo()
        await client.issue_wit(new_key(), "web")
        await here.ask("POST", f"/v1/nodes/{joined.node_id}/expel")
        with pytest.raises(AuthorizationError):
            await client.issue_wit(new_key(), "web")
        await client.close()


async def test_a_stranger_gets_no_wit(here: World) -> None:
    async with here.serve(), here.web(identity=None) as web:
        body = msgspec.json.encode({"entry_id": "", "csr": b"x"})
        assert (await web.post("/v1/agent/wits", content=body)).status_code == 403
