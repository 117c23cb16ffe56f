# SPDX-License-Identifier: Apache-2.0
"""A trust domain of SPIRE's and one of Troth's federate, and their workloads meet by go-spiffe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.server_world import DOMAIN as MESH
from support.spire import DOMAIN, go_client
from support.spire_federation import OURS, THEIRS, Both, federated


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    async with federated() as made:
        yield made


async def _ask(socket: Path, *words: str) -> str:
    process = await go_client(socket, *words)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


async def test_workloads_of_both_meet_by_mutual_tls_in_both_directions(both: Both) -> None:
    assert await _ask(both.ours, "svid") == f"{OURS} {MESH} {DOMAIN}"
    assert await _ask(both.theirs, "svid") == f"{THEIRS} {MESH} {DOMAIN}"
    for server, client, server_id, client_id in (
        (both.ours, both.theirs, OURS, THEIRS),
        (both.theirs, both.ours, THEIRS, OURS),
    ):
        serving = await go_client(server, "serve", client_id)
        assert serving.stdout is not None
        async with asyncio.timeout(40):
            address = (await serving.stdout.readline()).decode().strip()
        assert await _ask(client, "dial", address, server_id) == "hello from the server"
        async with asyncio.timeout(10):
            assert await serving.wait() == 0


async def test_go_spiffe_fetches_and_validates_our_jwt_svids(both: Both) -> None:
    await _ask(both.ours, "svid")
    assert await _ask(both.ours, "jwt", "reports") == OURS


async def test_a_peer_of_another_id_is_refused(both: Both) -> None:
    serving = await go_client(both.ours, "serve", f"spiffe://{DOMAIN}/other")
    assert serving.stdout is not None
    async with asyncio.timeout(40):
        address = (await serving.stdout.readline()).decode().strip()
    dialling = await go_client(both.theirs, "dial", address, OURS)
    async with asyncio.timeout(60):
        await dialling.communicate()
        _, err = await serving.communicate()
    assert dialling.returncode == 1
    assert b"unexpected ID" in err
