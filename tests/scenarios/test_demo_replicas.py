# SPDX-License-Identifier: Apache-2.0
"""One of two replicas with one SPIFFE ID is expelled, by the demo as its user runs it."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from support.gate import GATED

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(150), GATED]


async def test_exactly_the_expelled_replicas_connections_end(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "troth", "demo", "replicas"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said
    names = re.findall(r"joined as (\S+), node (\S+)", said)
    assert [name for name, _ in names].count("spiffe://demo.example/node/edge") == 2
    assert len({node for _, node in names}) == 3
    assert "edge-1: 6 of 6 connections ended" in said
    assert "edge-2: 6 of 6 stay, 0 of them quiet" in said
    assert "a new connection of edge-1 is refused; of edge-2, is served" in said
