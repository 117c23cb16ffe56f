# SPDX-License-Identifier: Apache-2.0
"""Joining over the real listener: one way in, and each neighbouring way that must not lead there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from support.server_world import (
    DOMAIN,
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
from troth.control_plane.server.config import EntrySection, LimitSection
from troth.evidence.simulator import CcaOptions
from troth.evidence.simulator.keys import SimulatedKeys
from troth.formats.ear import PROFILES, verify_ear
from troth.formats.keys import load_keys
from troth.identity.attestation_result import verify_attestation_result
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid
from troth.mesh.admission import Step
from troth.mesh.join_messages import JoinReply
from troth.mesh.node import Reason, Trigger
from troth.mesh.registry import Change


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def join(web: httpx.AsyncClient, platform: Any, **fields: Any) -> httpx.Response:
    session = await open_session(web)
    return await web.post(
        f"/v1/join/sessions/{session.session}", json=join_body(platform, session, **fields)
    )


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["code"] == code
    return body


def members(here: World) -> list[str]:
    nodes = here.running.context.registry.nodes()
    return [f"{node.spiffe_id.rpartition('/')[2]} {node.state}" for node in nodes]


async def test_a_node_with_good_evidence_gets_an_svid_that_carries_its_result(here: World) -> None:
    platform = here.platform("edge")
    async with here.serve() as running, here.web() as web:
        response = await join(web, platform)
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        reply = JoinReply(**response.json())
        now = datetime.now(UTC)
        bundles = TrustBundleSet([running.context.issuer.trust_bundle()])
        svid = X509Svid.decode(reply.svid.encode())
        verified = verify_x509_svid(svid, bundles, now=now)
        assert str(svid.spiffe_id) == f"spiffe://{DOMAIN}/edge"
        assert svid.node_id == reply.node_id
        keys = load_keys((await web.get("/.well-known/troth/result-keys")).content, source="x")
        checks: dict[str, Any] = {"now": now, "leeway": timedelta(0), "profiles": PROFILES}
        inside = verify_attestation_result(verified, keys, max_age=timedelta(minutes=1), **checks)
        assert svid.not_after <= inside.expires_at  # type: ignore[operator]
        assert inside.extensions["iss"] == "troth"
        assert inside.insecure
        own = verify_ear(
            reply.ear,
            keys,
            max_age=timedelta(minutes=1),
            require_key=True,
            require_exp=True,
            **checks,
        )
        assert own.keys == (svid.spki,)
        assert members(here) == ["edge admitted"]


async def test_the_evidence_may_come_as_a_cmw_record(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        session = await open_session(web)
        body = join_body(platform, session)
        record = [body.pop("media_type"), body["evidence"], 4]
        response = await web.post(
            f"/v1/join/sessions/{session.session}", json=body | {"evidence": record}
        )
        assert response.status_code == 200, response.text
        session = await open_session(web)
        body = join_body(platform, session)
        endorsement = [body.pop("media_type"), body["evidence"], 2]
        response = await web.post(
            f"/v1/join/sessions/{session.session}", json=body | {"evidence": endorsement}
        )
        problem(response, 415, "unsupported")


async def test_a_cca_realm_joins_as_well(here: World) -> None:
    platform = here.platform("cloud", CcaOptions(), min_tier="confidential")
    async with here.serve(), here.web() as web:
        assert (await join(web, platform)).status_code == 200
        node = here.running.context.registry.nodes()[0]
        assert node.appraised is not None
        assert node.appraised.result.tier.value == "confidential"


async def test_renewing_raises_the_generation_and_keeps_the_node(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        first = (await join(web, platform)).json()
        second = (await join(web, platform)).json()
        assert second["node_id"] == first["node_id"]
        assert second["generation"] == first["generation"] + 1


# Nonces


async def test_a_nonce_is_used_up_by_a_join_that_succeeds(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        session = await open_session(web)
        body = join_body(platform, session)
        path = f"/v1/join/sessions/{session.session}"
        assert (await web.post(path, json=body)).status_code == 200
        problem(await web.post(path, json=body), 403, "not_fresh")


async def test_a_nonce_is_used_up_by_a_join_that_fails(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        session = await open_session(web)
        path = f"/v1/join/sessions/{session.session}"
        body = join_body(platform, session)
        bad = await web.post(path, json=body | {"evidence": "AAAA"})
        problem(bad, 400, "malformed")
        problem(await web.post(path, json=body), 403, "not_fresh")
        assert members(here) == []


async def test_evidence_for_another_sessions_nonce_is_refused(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        one, other = await open_session(web), await open_session(web)
        body = join_body(platform, other)
        response = await web.post(f"/v1/join/sessions/{one.session}", json=body)
        refused = problem(response, 403, "not_fresh")
        assert "findings" not in refused
        assert "detail" not in refused
        assert members(here) == []


async def test_a_session_that_has_expired_is_refused(here: World) -> None:
    platform = here.platform()
    here.options["limits"] = LimitSection(session_seconds=1)
    async with here.serve(), here.web() as web:
        session = await open_session(web)
        body = join_body(platform, session)
        registry = here.running.context.registry
        assert isinstance(registry, SqlRegistry)
        with registry._database.write() as connection:
            connection.exec_driver_sql("UPDATE join_sessions SET expires = expires - 2000000")
        response = await web.post(f"/v1/join/sessions/{session.session}", json=body)
        problem(response, 403, "not_fresh")


async def test_evidence_about_another_key_than_the_requests_is_refused(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        response = await join(web, platform, evidence_key=new_key())
        problem(response, 403, "not_fresh")
        assert members(here) == []


async def test_a_request_whose_sender_does_not_hold_the_key_is_refused(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        session = await open_session(web)
        body = join_body(platform, session)
        broken = body["csr"][:-4] + ("AAAA" if body["csr"][-4:] != "AAAA" else "BBBA")
        response = await web.post(
            f"/v1/join/sessions/{session.session}", json=body | {"csr": broken}
        )
        assert response.json()["code"] in ("not_authentic", "malformed")
        assert response.status_code in (400, 403)
        assert members(here) == []


# Who may join


async def test_changed_firmware_is_refused_with_what_was_expected_and_what_was_found(
    here: World,
) -> None:
    good = here.platform()
    changed = good.with_measurement(0, b"\x66" * 32)
    async with here.serve(), here.web() as web:
        refused = problem(await join(web, changed), 403, "refused")
        finding = next(each for each in refused["findings"] if "[0]" in each["claim"])
        assert "66" * 32 in finding["actual"]
        assert finding["expected"]
        assert finding["remedy"]
        assert refused["refusal"]
        explained = await here.ask("GET", f"/v1/refusals/{refused['refusal']}")
        assert explained["node_id"]
        assert explained["findings"] == [
            each | {"submod": each.get("submod", "")} for each in refused["findings"]
        ]
        assert "edge admitted" not in members(here)
        assert (await join(web, good)).status_code == 200
        assert members(here) == ["edge admitted"]


async def test_findings_stay_with_the_server_where_the_operator_wants_that(here: World) -> None:
    changed = here.platform().with_measurement(0, b"\x66" * 32)
    here.options["disclose_findings"] = False
    async with here.serve(), here.web() as web:
        refused = problem(await join(web, changed), 403, "refused")
        assert not {"findings", "detail", "remedy"} & refused.keys()
        explained = await here.ask("GET", f"/v1/refusals/{refused['refusal']}")
        assert explained["findings"]


async def test_a_device_without_trust_anchor_is_refused_without_findings(here: World) -> None:
    stranger = new_platform()
    here.entries.append(entry_for(stranger, "edge"))
    async with here.serve(), here.web() as web:
        refused = problem(await join(web, stranger), 403, "not_authentic")
        assert not {"findings", "detail"} & refused.keys()
        explained = await here.ask("GET", f"/v1/refusals/{refused['refusal']}")
        assert explained["stage"] == "verify"
        assert explained["message"]
        assert members(here) == []


async def test_a_genuine_device_that_no_entry_selects_is_refused(here: World) -> None:
    stranger = new_platform()
    here.endorse(stranger, "maker")
    async with here.serve(), here.web() as web:
        refused = problem(await join(web, stranger), 403, "refused")
        assert f"instance:{stranger.instance_id.hex()}" in refused["detail"]
        assert members(here) == []
        entry = {
            "spiffe_id": f"spiffe://{DOMAIN}/edge",
            "selectors": [f"instance:{stranger.instance_id.hex()}"],
        }
        await here.ask("POST", "/v1/entries", 201, json=entry)
        assert (await join(web, stranger)).status_code == 200


async def test_a_simulator_is_refused_unless_it_is_allowed(here: World) -> None:
    platform = here.platform()
    here.options["allow_simulator"] = False
    async with here.serve(), here.web() as web:
        problem(await join(web, platform), 403, "not_authentic")
        assert members(here) == []


async def test_a_platform_of_a_lower_tier_than_the_entry_wants_is_refused(here: World) -> None:
    platform = here.platform("edge", min_tier="confidential")
    async with here.serve(), here.web() as web:
        refused = problem(await join(web, platform), 403, "refused")
        assert "tier measured" in refused["detail"]
        assert members(here) == ["edge registered"]


async def test_another_devices_key_does_not_make_the_evidence_authentic(here: World) -> None:
    good, other = here.platform(), new_platform()
    forged = replace(
        good,
        keys=SimulatedKeys(attestation=other.keys.attestation, realm=other.keys.realm),
    )
    async with here.serve(), here.web() as web:
        problem(await join(web, forged), 403, "not_authentic")


# What comes after


async def test_a_reboot_re_attests_and_a_boot_that_returns_is_a_copy(here: World) -> None:
    first = here.platform()
    second = first.reboot(random=lambda size: b"\x22" * size)
    async with here.serve(), here.web() as web:
        assert (await join(web, first)).status_code == 200
        assert (await join(web, second)).status_code == 200
        states = [
            event.member.state for event in here.running.context.registry.events(after=3, limit=9)
        ]
        assert states == ["attesting", "attested", "admitted"]
        refused = problem(await join(web, first), 403, "refused")
        assert "two machines" in refused["detail"]
        held = problem(await join(web, second), 403, "refused")
        assert "operator" in held["detail"]
        node = (await here.ask("GET", "/v1/nodes"))[0]
        assert (node["state"], node["reason"]) == ("quarantined", "duplicate_identity")
        await here.ask("POST", f"/v1/nodes/{node['node_id']}/reattest")
        assert (await join(web, second)).status_code == 200


async def test_an_expelled_node_does_not_come_back_whatever_it_shows(here: World) -> None:
    platform = here.platform()
    async with here.serve(), here.web() as web:
        node_id = (await join(web, platform)).json()["node_id"]
        await here.ask("POST", f"/v1/nodes/{node_id}/expel")
        for machine in (platform, platform.reboot(random=lambda size: b"\x33" * size)):
            refused = problem(await join(web, machine), 403, "refused")
            assert "expelled" in refused["detail"]
        assert members(here) == ["edge expelled"]
        await here.ask("POST", f"/v1/nodes/{node_id}/reattest", 409)


async def test_a_copied_key_holds_the_node_that_shows_it_and_the_node_that_it_is_from(
    here: World,
) -> None:
    one, other = here.platform("one"), here.platform("other")
    async with here.serve(), here.web() as web:
        key = new_key()
        reply = (await join(web, one, key=key)).json()
        assert (await join(web, other)).status_code == 200
        svid = X509Svid.decode(reply["svid"].encode(), private_key=key)
        async with here.web(identity=svid) as renewing:
            assert (await join(renewing, one)).status_code == 200
            refused = problem(await join(renewing, other), 403, "refused")
            assert "two machines" in refused["detail"]
        nodes = await here.ask("GET", "/v1/nodes")
        assert [(node["state"], node["reason"]) for node in nodes] == [
            ("quarantined", "duplicate_identity"),
            ("quarantined", "duplicate_identity"),
        ]
        for machine in (one, other):
            held = problem(await join(web, machine), 403, "refused")
            assert "operator" in held["detail"]
        await here.ask("POST", f"/v1/nodes/{nodes[1]['node_id']}/expel")
        await here.ask("POST", f"/v1/nodes/{nodes[0]['node_id']}/reattest")
        assert (await join(web, one)).status_code == 200
        here.running.context.registry.verify_log()


async def test_a_machine_that_was_never_seen_and_shows_a_copied_key_is_held_too(
    here: World,
) -> None:
    one, stranger = here.platform("one"), here.platform("other")
    async with here.serve(), here.web() as web:
        key = new_key()
        reply = (await join(web, one, key=key)).json()
        svid = X509Svid.decode(reply["svid"].encode(), private_key=key)
        async with here.web(identity=svid) as renewing:
            problem(await join(renewing, stranger), 403, "refused")
        nodes = await here.ask("GET", "/v1/nodes")
        assert [node["state"] for node in nodes] == ["quarantined", "quarantined"]
        problem(await join(web, stranger), 403, "refused")


async def test_a_copy_is_noticed_although_it_has_made_the_node_lose_its_membership(
    here: World,
) -> None:
    first = here.platform()
    second = first.reboot(random=lambda size: b"\x22" * size)
    async with here.serve(), here.web() as web:
        assert (await join(web, first)).status_code == 200
        assert (await join(web, second)).status_code == 200
        registry = here.running.context.registry
        (node,) = registry.nodes()
        gone = Step(trigger=Trigger.QUARANTINE, reason=Reason.CONTRAINDICATED)
        registry.apply(
            Change(
                node_id=node.id,
                generation=node.generation,
                steps=(gone,),
                actor="server",
                at=node.changed_at,
            )
        )
        refused = problem(await join(web, first), 403, "refused")
        assert "two machines" in refused["detail"]
        assert registry.node(node.id).reason is Reason.DUPLICATE_IDENTITY


async def test_a_key_serves_one_node_only(here: World) -> None:
    one, other = here.platform("one"), here.platform("other")
    async with here.serve(), here.web() as web:
        key = new_key()
        assert (await join(web, one, key=key)).status_code == 200
        refused = problem(await join(web, other, key=key), 403, "refused")
        assert "belongs to node" in refused["detail"]
        assert members(here) == ["one admitted"]


async def test_values_that_change_under_a_join_make_it_appraise_again(here: World) -> None:
    platform = here.platform()
    async with here.serve() as running, here.web() as web:
        context = running.context
        appraise = context.joins._appraiser.appraise
        seen: list[int] = []

        def slow(*arguments: Any, **options: Any) -> Any:
            appraisal = appraise(*arguments, **options)
            seen.append(appraisal.remembered.result.epoch)
            if len(seen) == 1:  # a CoRIM is provisioned between appraisal and admission
                data = corims_for(new_platform(), "another")[0]
                context.endorsements.provision(
                    data, source="another", actor="test", now=datetime.now(UTC)
                )
            return appraisal

        context.joins._appraiser.appraise = slow  # type: ignore[method-assign]
        assert (await join(web, platform)).status_code == 200
        assert len(seen) == 2
        assert seen[1] == seen[0] + 1


# Limits and bad input


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b'{"csr":"","csr":""}', 400, "malformed"),
        (b'{"csr":"AA","evidence":"AA","media_type":"x","extra":1}', 400, "malformed"),
        (b'{"csr":"AA","evidence":"AA"}', 400, "malformed"),
        (b'{"csr":1,"evidence":"AA","media_type":"x"}', 400, "malformed"),
        (b"[" * 100, 413, "too_large"),
        (b'{"csr":"' + b"A" * 300_000 + b'"}', 413, "too_large"),
    ],
)
async def test_a_request_that_is_not_one_is_refused_and_changes_nothing(
    here: World, body: bytes, status: int, code: str
) -> None:
    async with here.serve() as running, here.web() as web:
        session = await open_session(web)
        response = await web.post(f"/v1/join/sessions/{session.session}", content=body)
        problem(response, status, code)
        assert running.context.registry.nodes() == ()


async def test_services_are_advertised_and_bounded(here: World) -> None:
    platform = here.platform()
    service = {"name": "web", "protocol": "http", "address": "127.0.0.1:8080"}
    async with here.serve(), here.web() as web:
        assert (await join(web, platform, services=[service])).status_code == 200
        assert (await here.ask("GET", "/v1/nodes"))[0]["services"] == [service]
        for bad in ([service] * 65, [service | {"name": "-"}], [service | {"address": "x"}]):
            problem(await join(web, platform, services=bad), 400, "malformed")


async def test_too_many_requests_from_one_address_wait(here: World) -> None:
    here.options["limits"] = LimitSection(requests_per_second=0.5, request_burst=2)
    async with here.serve(), here.web() as web:
        for _ in range(2):
            await open_session(web)
        limited = await web.post("/v1/join/sessions", json={})
        problem(limited, 429, "rate_limited")
        assert 1 <= int(limited.headers["retry-after"]) <= 3


async def test_open_sessions_are_bounded(here: World) -> None:
    here.options["limits"] = LimitSection(open_sessions=1)
    async with here.serve(), here.web() as web:
        await open_session(web)
        busy = await web.post("/v1/join/sessions", json={})
        problem(busy, 503, "unavailable")
        assert int(busy.headers["retry-after"]) > 0


@contextlib.contextmanager
def full_disk(registry: SqlRegistry) -> Iterator[None]:
    """Let no page be added to the database any more."""

    def limit(connection: Any, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    engine = registry._database._engine
    engine.dispose()
    sa.event.listen(engine, "connect", limit)
    yield
    engine.dispose()
    sa.event.remove(engine, "connect", limit)


async def test_a_full_disk_admits_nobody_and_the_server_recovers(here: World) -> None:
    platform = here.platform()
    async with here.serve() as running, here.web() as web:
        registry = running.context.registry
        assert isinstance(registry, SqlRegistry)
        sessions = [await open_session(web) for _ in range(12)]
        before = registry.snapshot()
        with full_disk(registry):
            for session in sessions:  # until the pages that are there are used up
                body = join_body(platform, session)
                response = await web.post(f"/v1/join/sessions/{session.session}", json=body)
                if response.status_code != 200:
                    break
                before = registry.snapshot()
            problem(response, 503, "unavailable")
            assert registry.snapshot() == before
            registry.verify_log()
        assert (await join(web, platform)).status_code == 200


async def test_many_nodes_join_at_once(here: World) -> None:
    here.options["limits"] = LimitSection(request_burst=100)
    platforms = [here.platform(f"node-{number}") for number in range(8)]
    async with here.serve() as running, here.web() as web:
        responses = await asyncio.gather(*(join(web, platform) for platform in platforms))
        assert [response.status_code for response in responses] == [200] * 8
        assert len({response.json()["node_id"] for response in responses}) == 8
        assert running.context.registry.verify_log().sequence > 0


async def test_an_entry_of_another_trust_domain_does_not_start_the_server(here: World) -> None:
    here.entries.append(EntrySection(spiffe_id="spiffe://other/x", selectors=["instance:00"]))
    with pytest.raises(Exception, match=r"entries\[0\]"):
        async with here.serve():
            pass
