# SPDX-License-Identifier: Apache-2.0
"""py-spiffe, another's SPIFFE library, as a client of our Workload API."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.workloads import DOMAIN, OTHER, AgentSide, agent_side, authority, entry, foreign_bundle
from troth.adapters.process_attestor import ProcessAttestor

if importlib.util.find_spec("spiffe") is None:
    pytest.skip("py-spiffe is not installed", allow_module_level=True)

PROGRAM = Path(__file__).parents[1] / "support" / "spiffe_client.py"
SELECTORS = (f"unix:uid:{os.getuid()}", f"unix:path:{Path(sys.executable).resolve()}")
WEB = f"spiffe://{DOMAIN}/web"


class Client:
    """The program, asked one thing after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *words: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write((" ".join(words) + "\n").encode())
        async with asyncio.timeout(30):
            return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def client(side: AgentSide) -> AsyncIterator[Client]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix://{side.socket}"},
    )
    try:
        yield Client(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def side_and_client(*entries: Any) -> AsyncIterator[tuple[AgentSide, Client]]:
    async with agent_side(*entries, attestor=ProcessAttestor()) as side, client(side) as made:
        yield side, made


async def test_a_source_sees_a_rotation() -> None:
    async with side_and_client(entry("web", *SELECTORS)) as (side, program):
        first = await program.ask("source")
        assert first["id"] == WEB
        side.clock.ahead = timedelta(minutes=21)
        await side.settle()
        second = await program.ask("rotated", first["serial"])
        assert second["id"] == WEB


async def test_svids_bundles_and_tokens_are_fetched_and_validated() -> None:
    web = entry("web", *SELECTORS, federates_with=(OTHER.name,))
    async with side_and_client(web, entry("job", *SELECTORS)) as (side, program):
        side.server.federated = {OTHER.name: foreign_bundle()}
        side.server.authorities.append(authority())
        side.tell_bundles()
        found = await program.ask("svids")
        assert [each["id"] for each in found] == [WEB, f"spiffe://{DOMAIN}/job"]
        assert await program.ask("bundles") == {DOMAIN.name: 2, OTHER.name: 1}
        assert await program.ask("jwt_bundles") == {DOMAIN.name: 1, OTHER.name: 1}
        token = await program.ask("jwt", "reports", "billing")
        assert await program.ask("validate", token, "reports") == WEB
        assert "error" in await program.ask("validate", token, "others")
        assert "error" in await program.ask("validate", token[:-4] + "AAAA", "reports")


async def test_a_jwt_source_checks_our_token_by_our_keys() -> None:
    async with side_and_client(entry("web", *SELECTORS)) as (_, program):
        token = await program.ask("jwt_source", "reports")
        assert await program.ask("validate", token, "reports") == WEB


async def test_who_is_nobody_is_told_so() -> None:
    async with side_and_client(entry("web", "unix:path:/bin/other")) as (_, program):
        answer = await program.ask("svids")
        assert answer["error"] == "FetchX509SvidError"
        assert "PERMISSION_DENIED" in answer["text"]
