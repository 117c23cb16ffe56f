# SPDX-License-Identifier: Apache-2.0
"""`troth apply` of trust domains, devices and Logical TEEs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import msgspec
import pytest

from support.cli import Ran, run_cli
from support.server_world import DOMAIN, World, world
from troth.cli.operators import ADMIN_SOCKET_VARIABLE, Operator
from troth.cli.resource_kinds import LogicalTees
from troth.errors import ConfigurationError
from troth.mesh.entry_message import EntryMessage
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.resources import read_resource, render_schema

EK = "ek:" + "ab" * 32
SELECTOR = "instance:01" + "ab" * 32
DEVICE = f"""\
kind: Device
id: press-7
identities: ["{EK}"]
owner: plant 3
"""
PARTNER = """\
kind: TrustDomain
name: partner.example
endpoint_url: https://127.0.0.1:1/bundle
profile: https_web
"""


class Setting:
    def __init__(self, here: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self._capsys = here, capsys

    async def apply(self, text: str, *options: str) -> Ran:
        path = self.here.directory / "resources.yaml"
        path.write_text(text)
        socket = self.here.running.admin_socket
        arguments = ("apply", "-f", path, *options, "--admin-socket", socket)
        return await asyncio.to_thread(run_cli, self._capsys, *arguments)

    async def applied(self, text: str, *options: str) -> list[str]:
        ran = await self.apply(text, *options)
        assert ran.status in (0, 1), ran
        return [f"{step['action']} {step['name']}" for step in json.loads(ran.out)]


@pytest.fixture(autouse=True)
def no_usual_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADMIN_SOCKET_VARIABLE, raising=False)


@pytest.fixture
async def setting(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Setting]:
    async with world() as here, here.serve():
        yield Setting(here, capsys)


# Devices


async def test_a_device_is_entered_once_and_approved_when_the_file_says_so(
    setting: Setting,
) -> None:
    assert await setting.applied(DEVICE, "--dry-run") == ["create press-7"]
    assert await setting.here.ask("GET", "/v1/devices") == []
    assert await setting.applied(DEVICE) == ["create press-7"]
    assert await setting.applied(DEVICE) == ["keep press-7"]
    (device,) = await setting.here.ask("GET", "/v1/devices")
    assert (device["state"], device["identities"]) == ("pending", [EK])
    approved = DEVICE + "approved: true\n"
    assert await setting.applied(approved) == ["change press-7"]
    assert await setting.applied(approved) == ["keep press-7"]
    assert await setting.applied(DEVICE) == ["keep press-7"]
    (device,) = await setting.here.ask("GET", "/v1/devices")
    assert device["state"] == "approved"


async def test_a_new_device_may_be_approved_at_once(setting: Setting) -> None:
    assert await setting.applied(DEVICE + "approved: true\n") == ["create press-7"]
    (device,) = await setting.here.ask("GET", "/v1/devices")
    assert device["state"] == "approved"


async def test_what_a_device_is_does_not_change_by_a_file(setting: Setting) -> None:
    await setting.applied(DEVICE)
    ran = await setting.apply(DEVICE.replace("plant 3", "plant 4"))
    assert ran.status == 3
    assert "owner" in ran.err
    assert "plant 3" in ran.err


async def test_a_revoked_device_is_not_approved_by_a_file(setting: Setting) -> None:
    await setting.applied(DEVICE)
    await setting.here.ask("POST", "/v1/devices/press-7/revoke")
    assert await setting.applied(DEVICE) == ["keep press-7"]
    ran = await setting.apply(DEVICE + "approved: true\n")
    assert ran.status == 3
    assert "revoked" in ran.err


# Trust domains


async def test_a_trust_domain_is_federated_with_and_its_endpoint_changes(
    setting: Setting,
) -> None:
    assert await setting.applied(PARTNER, "--dry-run") == ["create partner.example"]
    assert await setting.applied(PARTNER) == ["create partner.example"]
    assert await setting.applied(PARTNER) == ["keep partner.example"]
    moved = PARTNER.replace("/bundle", "/other")
    ran = await setting.apply(moved, "--format", "text")
    assert "~ TrustDomain partner.example" in ran.out
    assert "+ endpoint_url: https://127.0.0.1:1/other" in ran.out
    assert "profile" not in ran.out


async def test_the_servers_own_trust_domain_is_not_federated_with(setting: Setting) -> None:
    ran = await setting.apply(PARTNER.replace("partner.example", DOMAIN))
    assert ran.status == 3
    assert "own" in ran.err


async def test_a_wrong_document_is_named_and_nothing_is_done(setting: Setting) -> None:
    ran = await setting.apply(DEVICE + "---\n" + PARTNER.replace("https_web", "http"))
    assert ran.status == 3
    assert "document 2" in ran.err
    assert "profile" in ran.err
    assert await setting.here.ask("GET", "/v1/devices") == []


async def test_the_server_serves_the_schema_of_what_is_applied(setting: Setting) -> None:
    schema = await setting.here.ask("GET", "/v1/resources/schema")
    assert schema == json.loads(render_schema())
    described = await setting.here.ask("GET", "/openapi.json")
    assert "/v1/resources/schema" in described["paths"]


# Logical TEEs


async def test_a_logical_tee_and_the_entry_that_it_names_come_in_one_file(
    setting: Setting,
) -> None:
    entry = (
        f"kind: Entry\nid: edge\nspiffe_id: spiffe://{DOMAIN}/ltee-edge\nselectors: [{SELECTOR}]\n"
    )
    # JSON is YAML, and times and numbers are texts in it.
    document = {"kind": "LogicalTEE", **msgspec.to_builtins(tee())}
    text = f"{json.dumps(document)}\n---\n{entry}"
    assert await setting.applied(text, "--dry-run") == ["create edge", "create claims"]
    assert await setting.here.ask("GET", "/v1/ltees") == []
    assert await setting.applied(text) == ["create edge", "create claims"]
    assert await setting.applied(text) == ["keep edge", "keep claims"]
    (shown,) = await setting.here.ask("GET", "/v1/ltees")
    assert msgspec.convert(shown, LogicalTee) == tee()


class FakeOperator:
    """Answers what a server would."""

    def __init__(self, ltees: Sequence[LogicalTee] = ()) -> None:
        entry = EntryMessage(id="edge", spiffe_id=f"spiffe://{DOMAIN}/edge", selectors=("a:b",))
        web = msgspec.structs.replace(entry, id="web", parent_id=entry.spiffe_id)
        self._answers: Mapping[str, Any] = {
            "/v1/bundles": [{"trust_domain": DOMAIN, "own": True}],
            "/v1/entries": msgspec.to_builtins([entry, web]),
            "/v1/ltees": msgspec.to_builtins(list(ltees)),
        }

    def get(self, path: str) -> Any:
        return self._answers[path]


def tee(*, entries: Sequence[str] = ("edge",), **fields: object) -> LogicalTee:
    document = {
        "name": "claims",
        "trust_domain": DOMAIN,
        "owner": "insurer",
        "classes": [
            {
                "name": "gateway",
                "min_tier": "measured",
                "schemes": ["psa"],
                "policy_ids": ["default"],
                "max_age_seconds": "3600",
                "proxy_placement": "in_member",
                "entries": list(entries),
            }
        ],
        "epochs": [{"id": "1", "not_before": "2026-11-26T00:00:00Z", "registry_epoch": "0"}],
    }
    made = read_resource("LogicalTEE", document | fields)
    assert isinstance(made, LogicalTee)
    return made


def plan(wanted: LogicalTee, *there: LogicalTee, **together: Any) -> Any:
    operator = cast("Operator", FakeOperator(there))
    (step,) = LogicalTees().plan({"LogicalTEE": [wanted], **together}, operator)
    return step


def test_a_logical_tee_is_created_changed_and_kept() -> None:
    created = plan(tee())
    assert (created.action, created.method, created.path) == ("create", "PUT", "/v1/ltees/claims")
    assert created.message == tee()
    assert plan(tee(), tee()).action == "keep"
    changed = plan(tee(owner="another"), tee())
    assert changed.action == "change"
    assert changed.changes == {"owner": ("insurer", "another")}


@pytest.mark.parametrize("entry", ["nowhere", "web"])
def test_a_logical_tee_names_entries_of_nodes_that_are_there(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"classes\.gateway\.entries"):
        plan(tee(entries=("edge", entry)))


def test_an_entry_that_comes_with_it_counts() -> None:
    entry = EntryMessage(id="new", spiffe_id=f"spiffe://{DOMAIN}/new", selectors=("a:b",))
    assert plan(tee(entries=("new",)), Entry=[entry]).action == "create"
    with pytest.raises(ConfigurationError, match="entries"):
        plan(tee(entries=("new",)))


def test_a_logical_tee_of_another_trust_domain_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="trust_domain"):
        plan(tee(trust_domain="other.example"))
