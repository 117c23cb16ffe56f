# SPDX-License-Identifier: Apache-2.0
"""Policies on a real server: enforced, audited, on record, and tried before they are applied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.server_world import DOMAIN, World, join_body, new_key, open_session, world
from troth.adapters.server_client import RefusedByServerError
from troth.control_plane.server.config import LimitSection, VerifierSection
from troth.control_plane.server.policy_set import load_policies
from troth.control_plane.server.remote_config import RemoteSection
from troth.errors import ConfigurationError
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.base64url import decode_base64url
from troth.formats.ear.codec import ear_from_claims
from troth.formats.strict_json import decode_json_object
from troth.mesh.event import Snapshot
from troth.verifier.policy import MAX_POLICY_BYTES, AppraisalPolicy

HEAD = "package troth.appraisal\nimport rego.v1\n"
STRICT = HEAD + 'findings contains {"claim": "site", "expected": "one", "actual": "none"}\n'
LOOSE = HEAD + 'vector := {"executables": "approved_rt", "hardware": 2}\n'

REMOTE = RemoteSection(kind="veraison", url="https://verifier.example", result_keys=["keys.json"])


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def configure(here: World, **verifier: Any) -> None:
    """Set keys of `[verifier]`; a policy is given as its text."""
    for key in ("policy", "audit_policy"):
        if key in verifier:
            path = here.directory / f"{key}.rego"
            path.write_text(verifier[key])
            verifier[key] = str(path)
    here.options["verifier"] = VerifierSection(corims=here.corims, **verifier)


async def join(here: World, platform: SimulatedPlatform) -> str:
    client = here.client()
    try:
        await client.join(platform, new_key())
    except RefusedByServerError as exc:
        return exc.refusal
    finally:
        await client.close()
    return ""


async def flush(here: World) -> None:
    """Write what was noted, without waiting for the next sweep."""
    context = here.running.context
    await context.registry_worker.run(context.joins._recorder.write)


# --- records


async def test_each_join_is_on_record_with_its_node_whether_it_was_refused_or_not(
    here: World,
) -> None:
    edge = here.platform("edge")
    async with here.serve():
        assert not await join(here, edge)
        changed = edge.with_measurement(0, b"\xee" * 32)
        assert await join(here, changed)
        assert not await join(here, edge)
        await flush(here)
        page = await here.ask("GET", "/v1/policy/records")
        (node,) = await here.ask("GET", "/v1/nodes")
    assert page["next"] == ""
    found = {each["outcome"]["status"]: each for each in page["records"]}
    assert {status: each.get("count", 1) for status, each in found.items()} == {
        "affirming": 2,
        "warning": 1,
    }
    for record in page["records"]:
        assert [each["node_id"] for each in record["nodes"]] == [node["node_id"]]
        assert record["spiffe_id"] == f"spiffe://{DOMAIN}/edge"
        assert "evidence" not in record


async def test_evidence_that_is_not_authentic_is_not_on_record(here: World) -> None:
    here.platform("edge")
    stranger = here.platform("stranger")
    here.corims.pop()
    async with here.serve():
        assert await join(here, stranger)
        await flush(here)
        assert (await here.ask("GET", "/v1/policy/records"))["records"] == []


async def test_what_was_noted_is_written_when_the_server_stops(here: World) -> None:
    edge = here.platform("edge")
    async with here.serve():
        await join(here, edge)
    async with here.serve():
        assert len((await here.ask("GET", "/v1/policy/records"))["records"]) == 1


async def test_nothing_is_on_record_where_that_is_off(here: World) -> None:
    edge = here.platform("edge")
    here.options["limits"] = LimitSection(kept_appraisals=0)
    async with here.serve():
        await join(here, edge)
        await flush(here)
        assert (await here.ask("GET", "/v1/policy"))["recording"] is False
        assert (await here.ask("GET", "/v1/policy/records"))["records"] == []


# --- replay


async def test_a_replay_says_who_would_be_shut_out_and_changes_nothing(here: World) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    async with here.serve() as running:
        for platform in (edge, cloud):
            await join(here, platform)
        await flush(here)
        before = running.context.registry.verify_log()
        page = await here.ask(
            "POST", "/v1/policy/replay", content=STRICT.encode(), params={"name": "site.rego"}
        )
        assert running.context.registry.verify_log() == before
        assert not await join(here, edge)
    assert page["policy"]["id"] == "site"
    assert [each["change"] for each in page["differences"]] == ["stricter"] * 2
    for each in page["differences"]:
        (effect,) = each["nodes"]
        assert (effect["before"], effect["after"]) == (True, False)
        (finding,) = each["findings_added"]
        assert finding["rule"] == "policy site (site.rego:3)"


async def test_a_replay_comes_in_pages(here: World) -> None:
    async with here.serve():
        pass
    platforms = [here.platform(role) for role in ("a", "b", "c")]
    async with here.serve():
        for platform in platforms:
            await join(here, platform)
        await flush(here)
        seen, after = [], ""
        for _ in range(3):
            page = await here.ask(
                "POST",
                "/v1/policy/replay",
                content=STRICT.encode(),
                params={"limit": "1", "after": after},
            )
            seen += [each["id"] for each in page["differences"]]
            after = page["next"]
    assert seen == sorted(set(seen))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("content", "params", "status"),
    [
        (b"\xff", {}, 400),
        (b"", {}, 400),
        (HEAD.encode() + b"status := no_such_variable\n", {}, 400),
        (b"#" * (MAX_POLICY_BYTES + 1), {}, 413),
        (STRICT.encode(), {"since": "-1"}, 400),
        (STRICT.encode(), {"since": "99999999999"}, 400),
        (STRICT.encode(), {"limit": "501"}, 400),
        (STRICT.encode(), {"after": "a" * 65}, 413),
    ],
)
async def test_a_replay_that_cannot_be_is_refused(
    here: World, content: bytes, params: dict[str, str], status: int
) -> None:
    async with here.serve():
        await here.ask("POST", "/v1/policy/replay", status, content=content, params=params)


# --- audit beside an enforced policy


async def test_an_audited_policy_decides_nothing_and_its_differences_are_listed(
    here: World,
) -> None:
    edge = here.platform("edge")
    configure(here, audit_policy=STRICT)
    async with here.serve() as running:
        assert not await join(here, edge)
        await flush(here)
        overview = await here.ask("GET", "/v1/policy")
        page = await here.ask("GET", "/v1/policy/differences")
        metrics = (await here.operator.get("/metrics")).text
        (node,) = running.context.registry.nodes()
    assert overview["mode"] == "enforce"
    assert overview["enforced"]["id"] == "default"
    assert overview["candidate"]["id"] == "audit_policy"
    (found,) = page["differences"]
    assert found["change"] == "stricter"
    assert found["after"]["status"] == "contraindicated"
    assert 'troth_policy_audits_total{change="stricter"} 1.0' in metrics
    assert node.appraised is not None
    assert node.appraised.result.insecure == ("platform simulator",)


async def test_an_audited_policy_lets_nobody_in_that_the_enforced_one_refuses(
    here: World,
) -> None:
    edge = here.platform("edge")
    configure(here, policy=STRICT, audit_policy=LOOSE)
    async with here.serve():
        assert await join(here, edge)


async def test_differences_of_another_candidate_are_not_shown(here: World) -> None:
    edge = here.platform("edge")
    configure(here, audit_policy=STRICT)
    async with here.serve():
        await join(here, edge)
    configure(here, audit_policy=LOOSE)
    async with here.serve():
        page = await here.ask("GET", "/v1/policy/differences")
    assert (page["differences"], page["skipped"]) == ([], 1)


async def test_without_an_audited_policy_there_are_no_differences_to_list(here: World) -> None:
    async with here.serve():
        problem = await here.ask("GET", "/v1/policy/differences", 409)
    assert "audit_policy" in problem["remedy"]


# --- mode = audit


async def test_in_mode_audit_who_the_policy_would_refuse_is_let_in_and_labelled(
    here: World,
) -> None:
    edge = here.platform("edge")
    configure(here, mode="audit", policy=STRICT)
    async with here.serve():
        client = here.client()
        membership = await client.join(edge, new_key())
        feed = client.feed()
        snapshot = await anext(feed)
        await feed.aclose()
        await client.close()
        overview = await here.ask("GET", "/v1/policy")
    claims = decode_json_object(
        decode_base64url(membership.ear.split(".")[1], format="EAR"), format="EAR"
    )
    ear = ear_from_claims(claims, wire="json")
    assert any("policy policy is not enforced (mode audit)" in each for each in ear.insecure)
    assert isinstance(snapshot, Snapshot)
    assert any("mode audit" in reason for reason in snapshot.members[0].insecure)
    assert (overview["mode"], overview["enforced"]["id"]) == ("audit", "default")


async def test_mode_audit_lets_in_only_who_the_built_in_policy_affirms(here: World) -> None:
    edge = here.platform("edge")
    configure(here, mode="audit", policy=LOOSE)
    async with here.serve():
        assert await join(here, edge.with_measurement(0, b"\xee" * 32))
        assert not await join(here, edge)


async def test_mode_audit_takes_no_evidence_that_mode_enforce_does_not(here: World) -> None:
    edge = here.platform("edge")
    here.options["allow_simulator"] = False
    configure(here, mode="audit", policy=LOOSE)
    async with here.serve() as running:
        async with here.web() as web:
            session = await open_session(web)
            response = await web.post(
                f"/v1/join/sessions/{session.session}", json=join_body(edge, session)
            )
        assert response.json()["code"] == "not_authentic"
        assert running.context.registry.nodes() == ()


async def test_the_end_of_mode_audit_is_a_new_epoch_and_refuses_at_the_next_renewal(
    here: World,
) -> None:
    edge = here.platform("edge")
    configure(here, mode="audit", policy=STRICT)
    async with here.serve() as running:
        assert not await join(here, edge)
        epoch = running.context.registry.epoch
    configure(here, policy=STRICT)
    async with here.serve() as running:
        assert running.context.registry.epoch > epoch
        assert await join(here, edge)
        assert [node.state for node in running.context.registry.nodes()] == ["quarantined"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"mode": "audit"}, "verifier.mode"),
        ({"mode": "audit", "policy": STRICT, "audit_policy": LOOSE}, "verifier.audit_policy"),
        ({"audit_policy": HEAD + "status := no_such_variable\n"}, ""),
        ({"policy": STRICT, "remote": REMOTE}, "verifier.policy"),
        ({"audit_policy": STRICT, "remote": REMOTE}, "verifier.audit_policy"),
        ({"mode": "audit", "remote": REMOTE}, "verifier.mode"),
    ],
)
def test_settings_that_contradict_each_other_stop_the_start(
    tmp_path: Path, settings: dict[str, Any], key: str
) -> None:
    for name in ("policy", "audit_policy"):
        if name in settings:
            path = tmp_path / f"{name}.rego"
            path.write_text(settings[name])
            settings = settings | {name: str(path)}
    with pytest.raises(ConfigurationError) as caught:
        load_policies(VerifierSection(**settings))
    assert caught.value.key == key


def test_without_any_setting_the_built_in_policy_decides() -> None:
    policies = load_policies(VerifierSection())
    assert (policies.enforced, policies.candidate) == (AppraisalPolicy.default(), None)
    assert not policies.audits
