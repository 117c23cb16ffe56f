# SPDX-License-Identifier: Apache-2.0
"""`troth ltee` against a running server, and alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.cli import Ran, run_cli
from support.server_world import DOMAIN, World, new_key, world
from troth.cli.operators import ADMIN_SOCKET_VARIABLE
from troth.evidence.simulator import SimulatedPlatform

NAME = "claims"


class Setting:
    """A server with one Logical TEE of one class, a device for it, and the command line."""

    def __init__(self, here: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self._capsys = here, capsys
        self.platform: SimulatedPlatform = here.platform("edge")

    async def define(self) -> None:
        policy = (await self.here.ask("GET", "/v1/policy"))["enforced"]["id"]
        gateway = {
            "name": "gateway",
            "min_tier": "identified",
            "schemes": ["psa"],
            "policy_ids": [policy],
            "max_age_seconds": 3600,
            "spiffe_ids": [f"spiffe://{DOMAIN}/edge"],
            "proxy_placement": "in_member",
        }
        begin = datetime.now(UTC) - timedelta(hours=1)
        definition = {
            "name": NAME,
            "trust_domain": DOMAIN,
            "owner": "insurer-a",
            "classes": [gateway],
            "epochs": [{"id": 1, "not_before": begin.isoformat(), "registry_epoch": 0}],
        }
        await self.here.ask("PUT", f"/v1/ltees/{NAME}", json=definition)

    async def join(self) -> str:
        client = self.here.client()
        joined = await client.join(self.platform, new_key())
        await client.close()
        return joined.node_id

    async def run(self, *arguments: object) -> Ran:
        return await asyncio.to_thread(run_cli, self._capsys, "ltee", *arguments)

    def verifying(self, file: Path, *options: object) -> tuple[object, ...]:
        keys = self.here.running.trust_bundle.with_name("result-keys.json")
        return ("verify", file, "--key", keys, *options)

    def file(self, text: str) -> Path:
        path = self.here.directory / "result.json"
        path.write_text(text)
        return path


@pytest.fixture
async def setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Setting]:
    async with world() as here:
        here.options["heartbeat_seconds"] = 0.5
        made = Setting(here, capsys)
        async with here.serve() as running:
            monkeypatch.setenv(ADMIN_SOCKET_VARIABLE, str(running.admin_socket))
            await made.define()
            yield made


async def test_status_says_who_is_in_and_why_others_are_not(setting: Setting) -> None:
    listed = json.loads((await setting.run("list")).out)
    assert [each["name"] for each in listed] == [NAME]
    empty = await setting.run("status", NAME)
    assert (empty.status, json.loads(empty.out)["status"]) == (1, "none")
    node_id = await setting.join()
    full = await setting.run("status", NAME)
    assert (full.status, json.loads(full.out)["tier"]) == (0, "measured")
    await setting.here.ask("POST", f"/v1/nodes/{node_id}/expel")
    gone = await setting.run("status", NAME, "--format", "text")
    assert gone.status == 1
    assert "it is expelled" in gone.out
    assert (await setting.run("status", "unknown")).status == 2
    assert (await setting.run("delete", NAME)).status == 0
    assert (await setting.run("status", NAME)).status == 2


async def test_watch_says_each_change_as_it_comes(setting: Setting) -> None:
    watching = asyncio.create_task(setting.run("watch", NAME, "--until-affirming", "--timeout", 30))
    await asyncio.sleep(0.3)
    await setting.join()
    ran = await watching
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.status, ran.err) == (0, "")
    assert told[-1]["status"] == "affirming"
    over = await setting.run("watch", NAME, "--timeout", 1, "--format", "text")
    assert over.status == 0
    assert over.out.count("Logical TEE:") == 1  # heartbeats alone change nothing
    await setting.here.ask("DELETE", f"/v1/ltees/{NAME}", 204)
    assert (await setting.run("watch", NAME, "--timeout", 5)).status == 2


async def test_a_result_is_verified_with_the_public_keys_alone(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.join()
    token = (await setting.run("result", NAME)).out
    whole = (await setting.run("result", NAME, "--with-members")).out
    monkeypatch.delenv(ADMIN_SOCKET_VARIABLE)
    good = ("--allow-insecure", "--name", NAME, "--trust-domain", DOMAIN)
    for text, checked in ((token, []), (whole, ["all 1 members"])):
        ran = await setting.run(*setting.verifying(setting.file(text), *good))
        assert (ran.status, ran.err) == (0, "")
        assert json.loads(ran.out)["checked"] == checked
    file = setting.file(whole)
    shown = await setting.run(*setting.verifying(file, *good, "--format", "text"))
    assert "tier (floor):" in shown.out
    late = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    refusals: list[tuple[int, tuple[object, ...]]] = [
        (1, ()),  # simulated platforms do not count
        (1, (*good, "--min-tier", "confidential")),
        (2, (*good[:1], "--name", "other")),
        (2, (*good, "--at", late)),
    ]
    for status, options in refusals:
        ran = await setting.run(*setting.verifying(file, *options))
        assert ran.status == status, options
    changed: dict[str, Any] = json.loads(whole)
    changed["members"][0]["tier"] = "confidential"
    file = setting.file(json.dumps(changed))
    ran = await setting.run(*setting.verifying(file, *good))
    assert (ran.status, "digest" in ran.err) == (2, True)
    assert (await setting.run(*setting.verifying(setting.file("{}"), *good))).status == 2
    assert (await setting.run("verify", file)).status == 3
