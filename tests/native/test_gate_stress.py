# SPDX-License-Identifier: Apache-2.0
"""Many connections through stock Envoys while clients abort, agents refuse, stall, die and return.

`TROTH_GATE_STRESS_CONNECTIONS` (1,000) and `TROTH_GATE_STRESS_SEED` (1) choose the run; `make
stress` runs 50,000.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from native.agent_simulator import AgentSimulator, SimulatedConnection, decide
from native.gate_pair import GatePair, eventually, gate_pair

CONNECTIONS = int(os.environ.get("TROTH_GATE_STRESS_CONNECTIONS", "1000"))
SEED = int(os.environ.get("TROTH_GATE_STRESS_SEED", "1"))
AT_ONCE = 64

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120 + CONNECTIONS / 20)]


class Chaos:
    """One run's dice and what came of it."""

    def __init__(self, pair: GatePair) -> None:
        self.pair = pair
        self.dice = random.Random(SEED)  # noqa: S311 - dice, not keys
        self.outcomes: Counter[str] = Counter()
        self.admitted_by_servers_agent = 0

    async def agent(self, connection: SimulatedConnection) -> None:
        roll = self.dice.random()
        if roll < 0.03:
            return  # never decides
        if roll < 0.10:
            connection.refuse(text="by chance")
            return
        if roll < 0.13:
            await asyncio.sleep(self.dice.random() / 5)
        await decide(connection)
        if connection.role == 2:
            self.admitted_by_servers_agent += 1
        if roll > 0.95:
            connection.close("by chance")
        elif roll > 0.92:
            connection.update(deadline_ms=1 + self.dice.randrange(100))

    async def client(self) -> None:
        """One application connection. Whatever happens, it gets no octet that is not its own."""
        data = self.dice.randbytes(self.dice.choice([0, 1, 100, 5_000, 60_000]))
        patience = self.dice.choice([None, None, 0, 0.002, 0.02])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.pair.ports["tcp"])
        except OSError:
            self.outcomes["refused"] += 1
            return
        received = b""
        try:
            writer.write(data)
            if not data or self.dice.random() < 0.5:
                writer.write_eof()
            async with asyncio.timeout(20 if patience is None else patience):
                while len(received) < len(data) or not data:
                    piece = await reader.read(65_536)
                    if not piece:
                        break
                    received += piece
            self.outcomes["complete" if received == data != b"" else "ended"] += 1
        except TimeoutError:  # before OSError, whose kind it is
            assert patience is not None, (
                f"{len(data)} octets neither flowed nor ended in 20 s: {len(received)}"
            )
            self.outcomes["aborted"] += 1
        except OSError:
            self.outcomes["reset"] += 1
        finally:
            writer.transport.abort()
        assert data.startswith(received)

    async def killer(self, agent: AgentSimulator) -> None:
        while True:
            await asyncio.sleep(0.3 + self.dice.random())
            await agent.stop()
            await asyncio.sleep(self.dice.random() / 5)
            await agent.start()


async def open_connections(pair: GatePair) -> int:
    """Connections that either Envoy still holds for the mesh."""
    total = 0
    for envoy in (pair.client, pair.server):
        for line in (
            await envoy.admin("/stats?filter=^listener.*downstream_cx_active$")
        ).splitlines():
            if "admin" not in line:
                total += int(line.rpartition(": ")[2])
    return total


def descriptors(pair: GatePair) -> list[int]:
    found = []
    for envoy in (pair.client, pair.server):
        assert envoy.process is not None
        found.append(sum(1 for _ in Path(f"/proc/{envoy.process.pid}/fd").iterdir()))
    return found


async def test_nothing_leaks_crashes_or_passes_undecided(
    gate_module: Path, envoy_binary: Path
) -> None:
    async with gate_pair(gate_module, envoy_binary, workers=4) as pair:
        chaos = Chaos(pair)
        pair.use(client=chaos.agent, server=chaos.agent)
        await chaos.client()
        await restart_and_close_everything(pair)
        await eventually(lambda: no_connections(pair), 20)
        before = descriptors(pair)
        slots = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with slots:
                await chaos.client()

        killers = [
            asyncio.ensure_future(chaos.killer(agent))
            for agent in (pair.client_agent, pair.server_agent)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(one())
        finally:
            for killer in killers:
                killer.cancel()
            await asyncio.gather(*killers, return_exceptions=True)
        await restart_and_close_everything(pair)
        assert pair.client.alive
        assert pair.server.alive
        assert pair.accepted["echo"] <= chaos.admitted_by_servers_agent
        assert chaos.outcomes["complete"] > CONNECTIONS / 10, chaos.outcomes
        await eventually(lambda: no_connections(pair), 30)
        await pair.hang_up()
        assert all(now <= then + 2 for now, then in zip(descriptors(pair), before, strict=True))

        pair.use()  # and afterwards everything works again
        await eventually(lambda: pair.client_agent.links != [] and pair.server_agent.links != [])
        for _ in range(20):
            reader, writer = await pair.open("tcp")
            writer.write(b"ping")
            assert await asyncio.wait_for(reader.readexactly(4), 5) == b"ping"
        await pair.hang_up()


async def restart_and_close_everything(pair: GatePair) -> None:
    """Let new agents end what is left: Envoy's pools keep connections whose application is gone.

    A new agent is told of every admitted connection, and its CLOSE is acknowledged for each.
    """
    for agent in (pair.client_agent, pair.server_agent):
        assert agent.errors == []
        await agent.stop()
        await agent.start()
        await eventually(lambda agent=agent: agent.links != [])
        (link,) = agent.links
        await asyncio.wait_for(link.resumed.wait(), 5)
        left = list(link.connections.values())
        for connection in left:
            if connection.admitted:
                connection.close("the run is over")
        await asyncio.wait_for(asyncio.gather(*(c.closed for c in left)), 10)


async def no_connections(pair: GatePair) -> bool:
    return await open_connections(pair) == 0
