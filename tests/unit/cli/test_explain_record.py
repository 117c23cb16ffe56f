# SPDX-License-Identifier: Apache-2.0
"""`troth explain ID`: what a server has on record about a refused join or a node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.cli import Ran, run_cli
from support.server_world import World, new_key, world
from troth.adapters.server_client import RefusedByServerError
from troth.cli.operators import ADMIN_SOCKET_VARIABLE
from troth.errors import CollateralError, UnavailableError
from troth.evidence.simulator import SimulatedPlatform


class Setting:
    """A server and the command line."""

    def __init__(self, here: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self._capsys = here, capsys

    async def explain(self, record_id: str, *arguments: object) -> Ran:
        socket = ["--admin-socket", self.here.running.admin_socket]
        return await self.run(record_id, *socket, *arguments)

    async def run(self, *arguments: object) -> Ran:
        return await asyncio.to_thread(run_cli, self._capsys, "explain", *arguments)

    async def refused(self, platform: SimulatedPlatform) -> str:
        client = self.here.client()
        with pytest.raises(RefusedByServerError) as caught:
            await client.join(platform, new_key())
        await client.close()
        return caught.value.refusal


@pytest.fixture
async def setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Setting]:
    monkeypatch.delenv(ADMIN_SOCKET_VARIABLE, raising=False)
    async with world() as here:
        yield Setting(here, capsys)


async def test_every_finding_of_a_refused_join_is_told(setting: Setting) -> None:
    edge = setting.here.platform("edge")
    changed = edge.with_measurement(0, b"\xee" * 32).with_measurement(1, b"\xdd" * 32)
    async with setting.here.serve():
        refusal = await setting.refused(changed)
        ran = await setting.explain(refusal)
        text = await setting.explain(refusal, "--format", "text")
        recorded = await setting.here.ask("GET", f"/v1/refusals/{refusal}")
    assert (ran.status, text.status) == (0, 0)
    report = json.loads(ran.out)
    assert (report["kind"], report["decision"]) == ("refused join", "refused")
    assert report["findings"] == [
        {name: value for name, value in finding.items() if value or name != "submod"}
        for finding in recorded["findings"]
    ]
    for finding in report["findings"]:
        assert finding["claim"] in text.out
        assert finding["rule"][:40] in text.out
    for digest in ("ee" * 32, "dd" * 32):
        assert digest in ran.out
        assert digest in text.out
    assert text.out.startswith(f"Join {refusal}: REFUSED (refused)\n")
    assert f"node {report['node_id']}" in text.out


async def test_a_refusal_before_any_appraisal_says_what_was_wrong(setting: Setting) -> None:
    stranger = setting.here.platform("stranger")
    setting.here.corims.clear()
    async with setting.here.serve():
        refusal = await setting.refused(stranger)
        text = await setting.explain(refusal, "--format", "text")
    assert "REFUSED (not_authentic)" in text.out
    assert "no trust anchor" in text.out
    assert "authentic, fresh and about this key" in text.out


async def test_what_was_not_decided_is_called_undecided_and_is_on_record(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = setting.here.platform("edge")

    def missing(*_: object, **__: object) -> None:
        raise CollateralError("the TCB info of this platform is missing", vendor="intel")

    async with setting.here.serve() as running:
        monkeypatch.setattr(running.context.joins._appraiser, "appraise", missing)
        client = setting.here.client()
        with pytest.raises(UnavailableError) as caught:
            await client.join(edge, new_key())
        await client.close()
        assert not isinstance(caught.value, RefusedByServerError)
        (recorded,) = running.context.registry.refusals(limit=9)
        assert recorded.id in str(caught.value)
        assert running.context.registry.nodes() == ()
        text = await setting.explain(recorded.id, "--format", "text")
        ran = await setting.explain(recorded.id)
    assert text.out.startswith(f"Join {recorded.id}: UNDECIDED: nothing follows")
    assert "the TCB info of this platform is missing" in text.out
    assert json.loads(ran.out)["decision"] == "undecided"


async def test_a_node_is_told_with_its_last_refusal(setting: Setting) -> None:
    edge = setting.here.platform("edge")
    async with setting.here.serve():
        client = setting.here.client()
        await client.join(edge, new_key())
        (node,) = await setting.here.ask("GET", "/v1/nodes")
        good = await setting.explain(node["node_id"], "--format", "text")
        (value,) = [
            each["id"]
            for each in await setting.here.ask("GET", "/v1/reference-values")
            if each["kind"] == "reference_value"
        ][:1]
        await setting.here.ask("DELETE", "/v1/reference-values", params={"id": value})
        bad = await setting.explain(node["node_id"], "--format", "text")
        ran = await setting.explain(node["node_id"])
        await client.close()
    assert good.out.startswith(f"Node {node['node_id']}: admitted")
    assert "last result AFFIRMING, tier measured" in good.out
    assert "INSECURE: platform simulator" in good.out
    assert "No refusal of this node is on record." in good.out
    assert bad.out.startswith(f"Node {node['node_id']}: quarantined, because of reference value")
    assert "appraised again after something was withdrawn" in bad.out
    report = json.loads(ran.out)
    assert report["last_refusal"]["findings"]
    assert report["node"]["state"] == "quarantined"


async def test_an_id_that_nobody_knows_is_refused(setting: Setting) -> None:
    async with setting.here.serve():
        for record_id in ("r" + "0" * 16, "n" + "0" * 20):
            ran = await setting.explain(record_id)
            assert (ran.status, ran.out) == (2, "")
            assert f"nothing on record under {record_id}" in ran.err


async def test_a_file_of_that_name_goes_first(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "r" + "0" * 16
    monkeypatch.chdir(setting.here.directory)
    assert (await setting.run(name)).status == 3  # neither a file nor a socket
    Path(name).write_bytes(b"{}")
    ran = await setting.run(name)
    assert ran.status == 2
    assert "EAR" in ran.err
    assert (await setting.run(name, "--admin-socket", "s")).status == 3
