# SPDX-License-Identifier: Apache-2.0
"""What a node pays: join time from Evidence to an SVID in Envoy, memory, time to end connections."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Table
from troth.adapters.envoy_process import EnvoyProcess, find_envoy
from troth.adapters.server_client import ServerClient
from troth.cli.demo.platforms import CLOUD, EDGE
from troth.cli.demo.ports import PortReservation
from troth.cli.demo.processes import Children
from troth.cli.demo.setting import Setting
from troth.cli.demo.story import Story

JOINS = 30
RUNS = 5


def mesh() -> Table:
    """Measure with the demo's processes: server, agents and Envoys of their own."""
    with tempfile.TemporaryDirectory(prefix="troth-") as directory:
        facts = asyncio.run(_measure(Path(directory)))
        facts += asyncio.run(_withdrawals(Path(directory)))
    return Table("A node in the mesh", facts=facts)


async def _measure(directory: Path) -> list[tuple[str, str]]:
    ports = PortReservation()
    setting = Setting(directory, ports, gated=False)
    children = Children(directory)
    envoys: list[EnvoyProcess] = []
    facts: list[tuple[str, str]] = []
    try:
        server = await children.start(
            "server", "server", "-c", str(setting.write_server()), "--stop-with-stdin"
        )
        ready = await server.ready(30)
        facts += await _joins(setting, ready)
        service = await children.start("service", "demo", "service", EDGE)
        served = await service.ready(30)
        nodes = {n: setting.write_node(n, server=ready, service=served) for n in (CLOUD, EDGE)}
        agents = {}
        for name, node in nodes.items():
            began = time.monotonic()
            agents[name] = await children.start(
                name, "agent", "-c", str(node.config), "--stop-with-stdin"
            )
            await agents[name].ready(30)
            envoy = EnvoyProcess(
                binary=find_envoy(), bootstrap=json.loads(node.bootstrap.read_text()), concurrency=1
            )
            envoys.append(envoy)
            await envoy.start()
            await envoy.wait_ready()
            seconds = time.monotonic() - began
            facts.append(
                (f"{name}: agent and Envoy started, attested and serving", f"{seconds:.2f} s")
            )
        for name, agent in agents.items():
            facts.append(
                (f"{name}: resident memory of the agent (aim < 60 MB)", _memory(agent.process.pid))
            )
        facts.append(("resident memory of the server", _memory(server.process.pid)))
    finally:
        for envoy in envoys:
            await envoy.stop()
        await children.stop()
        ports.close()
    return facts


async def _joins(setting: Setting, ready: dict[str, object]) -> list[tuple[str, str]]:
    facts = []
    bundle = await asyncio.to_thread(Path(str(ready["trust_bundle"])).read_text)
    for name in (CLOUD, EDGE):
        times = []
        for _ in range(JOINS):
            client = ServerClient(
                str(ready["url"]), trust_bundle=bundle, server_id=str(ready["spiffe_id"])
            )
            begin = time.monotonic()
            await client.join(
                setting.platforms.by_name[name], ec.generate_private_key(ec.SECP256R1())
            )
            times.append((time.monotonic() - begin) * 1000)
            await client.close()
            # The server limits how fast one address may join.
            await asyncio.sleep(0.25)
        facts.append(
            (
                f"{name}: join, new TLS connection and Evidence included (aim < 150 ms)",
                f"p50 {statistics.median(times):.0f} ms, max {max(times):.0f} ms of {JOINS}",
            )
        )
    return facts


async def _withdrawals(directory: Path) -> list[tuple[str, str]]:
    ends: dict[str, list[float]] = {}
    bounds: dict[str, float] = {}
    for number in range(RUNS):
        run = directory / str(number)
        run.mkdir()
        story = Story(directory=run, say=lambda _: None, show=lambda _: None)
        await story.tell()
        if story.withdrawal is None:
            raise RuntimeError("the demo did not come to the withdrawal")
        for end in story.withdrawal.ends:
            ends.setdefault(end.what, []).append(end.milliseconds)
            bounds[end.what] = end.bound_milliseconds
    return [
        (
            f"{what}: withdrawal to end (bound {bounds[what]:.0f} ms)",
            f"p50 {statistics.median(times):.0f} ms, max {max(times):.0f} ms of {len(times)}",
        )
        for what, times in ends.items()
    ]


def _memory(pid: int) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return f"{int(line.split()[1]) / 1024:.0f} MB"
    return "unknown"
