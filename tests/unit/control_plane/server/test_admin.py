# SPDX-License-Identifier: Apache-2.0
"""The operators' socket: withdrawals and what follows, nodes, entries, records."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.server_world import (
    DOMAIN,
    World,
    corims_for,
    entry_for,
    new_key,
    new_platform,
    world,
)
from support.waiting import until
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.adapters.server_client import RefusedByServerError, ServerClient
from troth.clock import SystemClock
from troth.control_plane.server import http_server
from troth.control_plane.server.config import VerifierSection
from troth.errors import ConflictError, UnavailableError
from troth.evidence.simulator import SimulatedPlatform
from troth.mesh.event import Event, Snapshot


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def joined(here: World, platform: SimulatedPlatform) -> ServerClient:
    client = here.client()
    await client.join(platform, new_key())
    return client


async def value_of(here: World, maker: str, kind: str = "reference_value") -> str:
    values = await here.ask("GET", "/v1/reference-values")
    return next(v["id"] for v in values if v["id"].startswith(maker) and v["kind"] == kind)


async def test_withdrawing_a_value_quarantines_exactly_who_stood_on_it(here: World) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    async with here.serve() as running:
        edge_client, cloud_client = await joined(here, edge), await joined(here, cloud)
        feed = cloud_client.feed()
        assert isinstance(await anext(feed), Snapshot)
        outcome = await here.ask(
            "DELETE",
            "/v1/reference-values",
            params={"id": await value_of(here, "maker-of-edge"), "why": "a bug in 2.1.0"},
        )
        assert [node["state"] for node in outcome["nodes"]] == ["quarantined"]
        assert outcome["nodes"][0]["spiffe_id"] == f"spiffe://{DOMAIN}/edge"
        event = await anext(feed)
        assert isinstance(event, Event)
        assert event.sequence == outcome["sequence"]
        assert event.member.reason == "reference_value_withdrawn"
        states = [node.state for node in running.context.registry.nodes()]
        assert states == ["quarantined", "admitted"]

        explained = await here.ask("GET", f"/v1/refusals/{outcome['nodes'][0]['refusal']}")
        assert explained["stage"] == "reappraise"
        assert any("provision" in finding["remedy"] for finding in explained["findings"])
        with pytest.raises(RefusedByServerError) as refused:
            await edge_client.join(edge, new_key())
        assert refused.value.findings
        await cloud_client.join(cloud, new_key())
        await feed.aclose()
        await edge_client.close()
        await cloud_client.close()


async def test_a_withdrawn_trust_anchor_quarantines_its_device(here: World) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    async with here.serve():
        clients = [await joined(here, edge), await joined(here, cloud)]
        anchor = await value_of(here, "maker-of-edge", "trust_anchor")
        outcome = await here.ask("DELETE", "/v1/corims", params={"id": anchor})
        states = {node["spiffe_id"].rpartition("/")[2]: node["state"] for node in outcome["nodes"]}
        assert states == {"edge": "quarantined", "cloud": "admitted"}
        node = next(n for n in await here.ask("GET", "/v1/nodes") if n["state"] == "quarantined")
        assert node["reason"] == "trust_anchor_withdrawn"
        for client in clients:
            await client.close()


async def test_a_whole_corim_can_be_withdrawn_and_stays_so_over_a_restart(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve():
        client = await joined(here, edge)
        outcome = await here.ask("DELETE", "/v1/corims", params={"id": "maker-of-edge"})
        assert [node["state"] for node in outcome["nodes"]] == ["quarantined"]
        await client.close()
    async with here.serve():
        assert await here.ask("GET", "/v1/corims") == []
        client = here.client()
        with pytest.raises(RefusedByServerError):
            await client.join(edge, new_key())
        await client.close()


async def test_a_withdrawn_part_stays_withdrawn_over_a_restart(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve():
        value = await value_of(here, "maker-of-edge")
        await here.ask("DELETE", "/v1/reference-values", params={"id": value})
    async with here.serve():
        shown = await here.ask("GET", "/v1/reference-values")
        assert [each["id"] for each in shown if each["withdrawn"]] == [value]
        client = here.client()
        with pytest.raises(RefusedByServerError):
            await client.join(edge, new_key())
        await client.close()


async def test_withdrawing_what_is_not_there_changes_nothing(here: World) -> None:
    here.platform("edge")
    async with here.serve() as running:
        epoch = running.context.registry.epoch
        for name in ("nobody", "maker-of-edge/nothing", "maker-of-edge/maker-of-edge:state#99"):
            problem = await here.ask("DELETE", "/v1/corims", 409, params={"id": name})
            assert problem["code"] == "conflict"
        await here.ask("DELETE", "/v1/corims", 400)
        assert running.context.registry.epoch == epoch


async def test_a_withdrawal_that_cannot_be_written_is_undone_in_memory(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = here.platform("edge")
    async with here.serve() as running:
        client = await joined(here, edge)
        value = await value_of(here, "maker-of-edge")

        def fail(*_: object, **__: object) -> int:
            raise UnavailableError("no space left")

        registry = running.context.registry
        with monkeypatch.context() as patched:
            patched.setattr(registry, "withdraw", fail)
            await here.ask("DELETE", "/v1/reference-values", 503, params={"id": value})
        assert [node.state for node in registry.nodes()] == ["admitted"]
        await client.join(edge, new_key())
        await client.close()


async def test_a_withdrawal_that_loses_a_race_is_decided_again(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = here.platform("edge")
    async with here.serve() as running:
        client = await joined(here, edge)
        registry = running.context.registry
        assert isinstance(registry, SqlRegistry)
        calls = 0
        original = registry.withdraw

        def once_too_late(*arguments: Any, **options: Any) -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ConflictError("another server was faster")
            return original(*arguments, **options)

        monkeypatch.setattr(registry, "withdraw", once_too_late)
        value = await value_of(here, "maker-of-edge")
        outcome = await here.ask("DELETE", "/v1/reference-values", params={"id": value})
        assert calls == 2
        assert [node["state"] for node in outcome["nodes"]] == ["quarantined"]
        await client.close()


async def test_a_corim_provisioned_later_lets_a_device_join(here: World) -> None:
    edge = new_platform()
    here.entries.append(entry_for(edge, "edge"))
    data = corims_for(edge, "maker")[0]
    async with here.serve():
        client = here.client()
        with pytest.raises(RefusedByServerError):
            await client.join(edge, new_key())
        made = await here.ask("POST", "/v1/corims", 201, content=data, params={"source": "x"})
        assert made["id"] == "maker"
        again = await here.ask("POST", "/v1/corims", 201, content=data)
        assert again["unchanged"]
        await client.join(edge, new_key())
        problem = await here.ask("POST", "/v1/corims", 400, content=b"\x01")
        assert problem["code"] == "malformed"
        assert problem["detail"]
        await client.close()
    async with here.serve():
        client = here.client()
        await client.join(edge, new_key())
        await client.close()


async def test_expelling_cuts_issuance_at_once_and_is_done_when_agents_have_it(
    here: World,
) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    async with here.serve() as running:
        edge_client, cloud_client = await joined(here, edge), await joined(here, cloud)
        feed = cloud_client.feed()
        await anext(feed)
        edge_id = running.context.registry.nodes()[0].id
        expelled = await here.ask("POST", f"/v1/nodes/{edge_id}/expel")
        assert expelled["state"] == "expelled"
        path = f"/v1/delivery/{expelled['sequence']}"
        cloud_id = running.context.registry.nodes()[1].id
        assert await here.ask("GET", path) == {
            "sequence": expelled["sequence"],
            "done": False,
            "acknowledged": [],
            "waiting": [cloud_id],
            "lapsed": [],
        }
        waiting = asyncio.create_task(here.ask("GET", path, params={"wait": "30"}))
        event = await anext(feed)
        await cloud_client.acknowledge(event.sequence)
        delivered = await waiting
        assert delivered["done"]
        assert delivered["acknowledged"] == [cloud_id]
        with pytest.raises(RefusedByServerError, match="expelled"):
            await edge_client.join(edge, new_key())
        await feed.aclose()
        await edge_client.close()
        await cloud_client.close()


async def test_retiring_and_wrong_verbs(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve() as running:
        client = await joined(here, edge)
        node_id = running.context.registry.nodes()[0].id
        await here.ask("POST", f"/v1/nodes/{node_id}/promote", 404)
        await here.ask("POST", "/v1/nodes/nobody/expel", 409)
        assert (await here.ask("GET", f"/v1/nodes/{node_id}"))["state"] == "admitted"
        assert (await here.ask("POST", f"/v1/nodes/{node_id}/retire"))["state"] == "retired"
        await here.ask("POST", f"/v1/nodes/{node_id}/retire", 409)
        with pytest.raises(RefusedByServerError, match="retired"):
            await client.join(edge, new_key())
        await client.close()


async def test_deleting_an_entry_quarantines_and_a_new_one_lets_back_in(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve() as running:
        client = await joined(here, edge)
        entry = (await here.ask("GET", "/v1/entries"))[0]
        gone = await here.ask("DELETE", f"/v1/entries/{entry['id']}")
        assert gone["quarantined"] == [running.context.registry.nodes()[0].id]
        with pytest.raises(RefusedByServerError, match="no registration entry"):
            await client.join(edge, new_key())
        await here.ask("POST", "/v1/entries", 201, json=entry | {"id": "anew"})
        await client.join(edge, new_key())
        assert [node.entry_id for node in running.context.registry.nodes()] == ["anew"]
        await client.close()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"spiffe_id": "spiffe://other.example/x"}, 403),
        ({"spiffe_id": f"spiffe://{DOMAIN}"}, 403),
        ({"spiffe_id": f"spiffe://{DOMAIN}/troth/server"}, 403),
        ({"spiffe_id": f"spiffe://{DOMAIN}/a b"}, 400),
        ({"selectors": ["scheme:psa"]}, 400),
        ({"selectors": ["instance:XY"]}, 400),
        ({"min_tier": "highest"}, 400),
        ({"id": "A B"}, 400),
        ({"unknown": 1}, 400),
    ],
)
async def test_a_wrong_entry_is_refused_with_the_reason(
    here: World, change: dict[str, Any], status: int
) -> None:
    entry = {"spiffe_id": f"spiffe://{DOMAIN}/x", "selectors": ["instance:00"]}
    async with here.serve():
        problem = await here.ask("POST", "/v1/entries", status, json=entry | change)
        assert problem["detail"]
        assert await here.ask("GET", "/v1/entries") == []


async def test_the_state_log_can_be_read_and_verified(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve():
        client = await joined(here, edge)
        rows = await here.ask("GET", "/v1/log", params={"limit": "1000"})
        kinds = [row["entry"]["kind"] for row in rows]
        assert kinds == [
            "policy_adopted",
            "corim_provisioned",
            "entry_created",
            "registered",
            "transition",
            "transition",
            "transition",
            "svid_issued",
        ]
        head = await here.ask("GET", "/v1/log/verify")
        assert head == {"sequence": len(rows), "digest": rows[-1]["digest"]}
        await here.ask("GET", "/v1/log", 400, params={"after": "-1"})
        await client.close()


async def test_health_and_metrics_and_an_unknown_path(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve():
        client = await joined(here, edge)
        for path in ("/livez", "/readyz"):
            assert (await here.operator.get(path)).status_code == 200
        text = (await here.operator.get("/metrics")).text
        assert 'troth_nodes{state="admitted"} 1.0' in text
        assert 'troth_joins_total{code="",outcome="admitted"} 1.0' in text
        missing = await here.operator.get("/v1/nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert (await here.operator.put("/v1/entries")).status_code == 405
        async with here.web() as web:
            assert (await web.get("/livez")).status_code == 200
            for hidden in ("/metrics", "/v1/entries", "/v1/corims", "/v1/log"):
                assert (await web.get(hidden)).status_code == 404
        await client.close()


async def test_metrics_are_public_only_where_configured(here: World) -> None:
    here.options["public_metrics"] = True
    async with here.serve(), here.web() as web:
        assert (await web.get("/metrics")).status_code == 200


async def test_the_socket_is_for_our_own_user_and_the_kernel_is_asked_too(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with here.serve() as running:
        assert stat.S_IMODE(running.admin_socket.stat().st_mode) == 0o600
        assert (await here.operator.get("/livez")).status_code == 200
        monkeypatch.setattr(http_server, "_UCRED", _Somebody(os.geteuid() + 12345))
        transport = httpx.AsyncHTTPTransport(uds=str(running.admin_socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as other:
            with pytest.raises(httpx.HTTPError):
                await other.get("/livez")
    assert not running.admin_socket.exists()


class _Somebody:
    """Credentials of another user, as the kernel would report them."""

    size = 12

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        return 1, self._uid, self._uid


async def test_a_corim_file_that_is_none_does_not_start_the_server(here: World) -> None:
    broken = here.directory / "broken.cbor"
    broken.write_bytes(b"\x00")
    here.options["verifier"] = VerifierSection(corims=[str(broken)])
    with pytest.raises(Exception, match=r"broken\.cbor"):
        async with here.serve():
            pass
    here.options["verifier"] = VerifierSection(corims=[str(here.directory / "absent")])
    with pytest.raises(Exception, match=r"verifier\.corims"):
        async with here.serve():
            pass


async def test_a_new_result_key_is_published_before_it_signs(here: World) -> None:
    async with here.serve() as running:
        made = await here.ask("POST", "/v1/result-keys", 201)
        public = await here.ask("GET", "/.well-known/troth/result-keys")
        assert [key["kid"] for key in public["keys"]][1:] == [made["kid"]]
        assert running.context.keys.results.signer(SystemClock().now()).key_id != made["kid"]
        again = await here.ask("POST", "/v1/result-keys", 409)
        assert again["code"] == "conflict"
        file = here.directory / "data" / "result-keys.json"
        await until(lambda: made["kid"] in file.read_text())
