# SPDX-License-Identifier: Apache-2.0
"""`troth policy replay`, `diff` and `export` against a running server and its export."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.cli import Ran, run_cli
from support.server_world import World, new_key, world
from troth.cli.operators import ADMIN_SOCKET_VARIABLE
from troth.control_plane.server.config import LimitSection, VerifierSection

HEAD = "package troth.appraisal\nimport rego.v1\n"
STRICT = HEAD + 'findings contains {"claim": "site", "expected": "one", "actual": "none"}\n'
SAME = HEAD + "status := input.status\n"


class Setting:
    """A server on which one node has joined, and the command line."""

    def __init__(self, here: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self._capsys = here, capsys

    def policy(self, text: str, name: str = "new.rego") -> Path:
        path = self.here.directory / name
        path.write_text(text)
        return path

    async def run(self, *arguments: object) -> Ran:
        return await asyncio.to_thread(run_cli, self._capsys, "policy", *arguments)

    @property
    def socket(self) -> Path:
        return self.here.running.admin_socket

    async def join(self) -> None:
        client = self.here.client()
        await client.join(self._platform, new_key())
        await client.close()
        context = self.here.running.context
        await context.registry_worker.run(context.joins._recorder.write)

    def prepare(self, **verifier: Any) -> None:
        self._platform = self.here.platform("edge")
        self.here.options["verifier"] = VerifierSection(corims=self.here.corims, **verifier)


@pytest.fixture
async def setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Setting]:
    monkeypatch.delenv(ADMIN_SOCKET_VARIABLE, raising=False)
    async with world() as here:
        yield Setting(here, capsys)


async def test_a_replay_names_who_would_be_refused_and_why(setting: Setting) -> None:
    setting.prepare()
    new = setting.policy(STRICT)
    async with setting.here.serve():
        await setting.join()
        ran = await setting.run("replay", "--since", "24h", new, "--admin-socket", setting.socket)
        text = await setting.run(
            "replay", new, "--admin-socket", setting.socket, "--format", "text"
        )
    assert ran.status == text.status == 1
    report = json.loads(ran.out)
    assert (report["records"], report["appraisals"]) == (1, 1)
    assert report["changes"] == {"same": 0, "findings": 0, "looser": 0, "stricter": 1}
    assert report["statuses"] == [{"before": "affirming", "after": "contraindicated", "records": 1}]
    assert [node["spiffe_id"] for node in report["shut_out"]] == ["spiffe://mesh.example/edge"]
    assert report["differences"][0]["findings_added"][0]["claim"] == "site"
    assert "would be refused: " in text.out
    assert "+ contraindicated: site" in text.out
    assert "rule     policy new (new.rego:3)" in text.out


async def test_a_policy_that_concludes_the_same_has_status_0(setting: Setting) -> None:
    setting.prepare()
    new = setting.policy(SAME)
    async with setting.here.serve():
        await setting.join()
        ran = await setting.run("replay", new, "--admin-socket", setting.socket)
    assert ran.status == 0
    assert json.loads(ran.out)["changes"]["same"] == 1


async def test_an_export_is_private_and_replays_without_the_server(setting: Setting) -> None:
    setting.prepare()
    path = setting.here.directory / "records.jsonl"
    new = setting.policy(STRICT)
    async with setting.here.serve():
        await setting.join()
        await setting.join()
        ran = await setting.run("export", "-o", path, "--admin-socket", setting.socket)
        assert (ran.status, ran.err) == (0, f"1 on record, written to {path}\n")
        again = await setting.run("export", "-o", path, "--admin-socket", setting.socket)
        assert again.status == 3
        there = await setting.run("replay", new, "--admin-socket", setting.socket)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    here = await setting.run("replay", new, "--records", path)
    assert here.status == 1
    assert json.loads(here.out)["differences"] == json.loads(there.out)["differences"]
    assert json.loads(here.out)["appraisals"] == 2
    old = await setting.run("replay", new, "--records", path, "--since", "0s")
    assert json.loads(old.out)["records"] == 0


async def test_records_become_test_cases(setting: Setting) -> None:
    setting.prepare()
    path = setting.here.directory / "recorded.json"
    async with setting.here.serve():
        await setting.join()
        ran = await setting.run("export", "--cases", "-o", path, "--admin-socket", setting.socket)
        assert ran.status == 0
    assert (await setting.run("test", setting.policy(SAME), path)).status == 0
    assert (await setting.run("test", setting.policy(STRICT), path)).status == 1


async def test_differences_of_an_audited_policy_are_listed(setting: Setting) -> None:
    audited = setting.policy(STRICT, "audited.rego")
    setting.prepare(audit_policy=str(audited))
    async with setting.here.serve():
        await setting.join()
        ran = await setting.run("diff", "--admin-socket", setting.socket)
        shown = await setting.run("show", "--admin-socket", setting.socket, "--format", "text")
    assert ran.status == 1
    report = json.loads(ran.out)
    assert report["policy"]["id"] == "audited"
    assert report["changes"]["stricter"] == 1
    assert shown.out.startswith("mode enforce\nenforced default (built-in), sha-256 ")
    assert f"audited audited ({audited})" in shown.out


async def test_without_an_audited_policy_there_is_nothing_to_list(setting: Setting) -> None:
    async with setting.here.serve():
        ran = await setting.run("diff", "--admin-socket", setting.socket)
    assert (ran.status, ran.out) == (2, "")
    assert "no policy is audited" in ran.err
    assert "verifier.audit_policy" in ran.err


async def test_a_server_that_keeps_no_records_is_wrong_usage(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.here.options["limits"] = LimitSection(kept_appraisals=0)
    new = setting.policy(SAME)
    async with setting.here.serve():
        monkeypatch.setenv(ADMIN_SOCKET_VARIABLE, str(setting.socket))
        for command in (["replay", new], ["diff"], ["export", "-o", "never"]):
            ran = await setting.run(*command)
            assert ran.status == 3
            assert "kept_appraisals" in ran.err


async def test_the_socket_may_be_named_by_the_environment(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = setting.policy(SAME)
    assert (await setting.run("replay", new)).status == 3
    async with setting.here.serve():
        monkeypatch.setenv(ADMIN_SOCKET_VARIABLE, str(setting.socket))
        ran = await setting.run("replay", new, "--format", "text")
    assert ran.status == 0
    assert "Nothing is on record" in ran.out
    ran = await setting.run("replay", new)
    assert ran.status == 2
    assert "does not answer" in ran.err


async def test_a_policy_that_would_give_no_verdict_is_not_replayed(setting: Setting) -> None:
    new = setting.policy(HEAD + "status := no_such_variable\n")
    async with setting.here.serve():
        ran = await setting.run("replay", new, "--admin-socket", setting.socket)
    assert (ran.status, ran.out) == (2, "")
    assert "no_such_variable" in ran.err


async def test_wrong_arguments_have_status_3(setting: Setting) -> None:
    new = setting.policy(SAME)
    bad = setting.policy("not a record\n", "bad.jsonl")
    for arguments in (
        ["replay", new, "--since", "1 day"],
        ["replay", new, "--records", bad, "--admin-socket", "s"],
        ["replay", new, "--records", bad],
        ["replay", new, "--records", "/nonexistent"],
        ["replay", "/nonexistent"],
        ["show", new, "--admin-socket", "s"],
    ):
        assert (await setting.run(*arguments)).status == 3, arguments
