# SPDX-License-Identifier: Apache-2.0
"""`troth device` against a running server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.cli import Ran, run_cli
from support.server_world import World, new_key, world
from support.vectors import vectors
from troth.formats.keys import spki
from troth.mesh.ownership_voucher import decode_voucher


class Setting:
    def __init__(self, here: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self._capsys = here, capsys

    async def run(self, *arguments: object) -> Ran:
        socket = self.here.running.admin_socket
        return await asyncio.to_thread(
            run_cli, self._capsys, "device", *arguments, "--admin-socket", socket
        )

    async def made(self, *arguments: object) -> Any:
        ran = await self.run(*arguments)
        assert (ran.status, ran.err) == (0, ""), ran
        return json.loads(ran.out)


@pytest.fixture
async def served(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Setting]:
    async with world() as here, here.serve():
        yield Setting(here, capsys)


async def test_a_device_is_entered_shown_approved_and_revoked(served: Setting) -> None:
    key = new_key().public_key()
    path = served.here.directory / "ek.pem"
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    added = await served.made("add", "edge-7", "--ek", path, "--owner", "plant 3")
    identity = f"ek:{hashlib.sha256(spki(key)).hexdigest()}"
    assert (added["identities"], added["state"]) == ([identity], "pending")
    (approved,) = await served.made("approve", "edge-7")
    assert approved["state"] == "approved"
    assert await served.made("list", "--state", "pending") == []
    assert [each["id"] for each in await served.made("list")] == ["edge-7"]
    assert await served.made("list", "--waiting") == []
    text = await served.run("show", "edge-7", "--format", "text")
    assert "plant 3" in text.out
    assert await served.made("revoke", "edge-7") == [{"id": "edge-7", "quarantined": []}]
    again = await served.run("approve", "edge-7")
    assert again.status == 2
    assert "for good" in again.err


async def test_a_token_is_printed_once(served: Setting) -> None:
    added = await served.made("add", "edge-7", "--token", "--approve")
    assert added["state"] == "approved"
    made = await served.made("token", "edge-7", "--seconds", "90")
    assert len(made["token"]) == 43
    assert made["token"] != added["token"]
    text = await served.run("token", "edge-7", "--format", "text")
    assert len(text.out.strip()) == 43
    assert "token" not in await served.made("show", "edge-7")
    assert (await served.run("token", "nobody")).status == 2


async def test_a_delivery_list_is_imported_whole_or_not_at_all(served: Setting) -> None:
    path = served.here.directory / "delivery.csv"
    digest = "1f" * 32
    good = f"id,identities,owner\nedge-1,ek:{digest} instance:psa/01,plant 3\nedge-2,,plant 3\n"
    for text, why in (
        (good + "Edge 3,,x\n", "line 4"),
        (good.replace("owner", "colour"), "colour"),
        (good + "edge-3,ek:12,x\n", "line 4"),
        (good + "edge-3,,x,y\n", "line 4"),
    ):
        path.write_text(text)
        ran = await served.run("import", path)
        assert ran.status == 3
        assert why in ran.err
    assert await served.made("list") == []
    path.write_text(good)
    done = await served.made("import", path, "--approve")
    assert [each["outcome"] for each in done] == ["approved", "approved"]
    done = await served.made("import", path)
    assert [each["outcome"] for each in done] == ["kept", "kept"]


async def test_devices_come_by_ownership_vouchers_that_lead_to_us(served: Setting) -> None:
    source = vectors("fdo") / "ov_extended.pem"
    text = source.read_text().splitlines()
    found = decode_voucher(base64.b64decode("".join(text[1:-1])))
    folder = served.here.directory
    for name, key in (("maker", found.maker), ("ours", found.entries[-1].owner)):
        (folder / name).write_bytes(spki(key))
    options = ("--maker", folder / "maker", "--owner-key", folder / "ours")
    wrong = await served.run("voucher", source, "--maker", folder / "ours", *options[2:])
    assert wrong.status == 2
    assert "not believed" in wrong.err
    assert await served.made("list") == []
    (made,) = await served.made("voucher", source, *options, "--approve")
    assert made["id"] == f"fdo-{found.guid.hex()}"
    assert made["state"] == "approved"
    assert made["identities"][0].startswith("certificate:")
    assert (await served.run("voucher", source, *options)).status == 2  # it is there already
