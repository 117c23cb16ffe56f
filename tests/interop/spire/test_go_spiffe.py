# SPDX-License-Identifier: Apache-2.0
"""go-spiffe as a client of our Workload API, on a node that has joined by Evidence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.server_world import DOMAIN, World, world
from support.spire import go_client
from support.workload_agent import running_agent

WEB = f"spiffe://{DOMAIN}/web"


@pytest.fixture
async def socket() -> AsyncIterator[Path]:
    async with world() as here:
        platform = here.platform("edge")
        async with here.serve(), running_agent(here, platform) as agent:
            await register(here, f"unix:uid:{os.getuid()}")
            yield agent.socket


async def register(here: World, selector: str) -> None:
    entry = {
        "id": "web",
        "spiffe_id": WEB,
        "parent_id": f"spiffe://{DOMAIN}/edge",
        "selectors": [selector, "troth:tier:measured"],
    }
    await here.ask("POST", "/v1/entries", 201, json=entry)


async def ask(socket: Path, *words: str) -> tuple[int | None, str]:
    process = await go_client(socket, *words)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, (out or err).decode().strip()


async def test_it_fetches_svids_and_bundles(socket: Path) -> None:
    assert await ask(socket, "svid") == (0, f"{WEB} {DOMAIN}")


async def test_it_fetches_a_jwt_svid_and_has_it_validated(socket: Path) -> None:
    await ask(
        socket, "svid"
    )  # waits for the entry to reach the node, which one call for a JWT does not
    assert await ask(socket, "jwt", "reports") == (0, WEB)


async def test_two_programs_meet_by_mutual_tls_and_another_id_is_refused(socket: Path) -> None:
    for expected, status in ((WEB, 0), (f"spiffe://{DOMAIN}/other", 1)):
        serving = await go_client(socket, "serve", expected)
        assert serving.stdout is not None
        async with asyncio.timeout(40):
            address = (await serving.stdout.readline()).decode().strip()
        code, said = await ask(socket, "dial", address, WEB)
        assert code == status, said
        async with asyncio.timeout(40):
            _, err = await serving.communicate()
        assert (b"unexpected ID" in err) == bool(status)
