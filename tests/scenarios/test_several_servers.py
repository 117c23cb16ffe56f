# SPDX-License-Identifier: Apache-2.0
"""Three real servers on one PostgreSQL: what one says all say, and each of them may go.

Whatever happens to a server, no renewal is refused, no event is lost or comes out of order, and an
expelled node gets nothing anywhere.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from support.postgres import PostgresServer
from support.server_world import World, entry_for, new_key, new_platform
from support.several_servers import CutLine, SeveralServers, several_servers
from support.waiting import until
from troth.adapters.registry.database import _WRITER_LOCK
from troth.adapters.server_client import Joined, RefusedByServerError, ServerClient
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.mesh.event import Event, FeedMessage, Heartbeat, Snapshot
from troth.mesh.node import NodeState

SECONDS = 60
ROUNDS = int(os.environ.get("TROTH_CHAOS_ROUNDS", "0"))
"""How often each server is also stopped, killed and started again; `make test-pg` sets it."""


@dataclass
class Setting:
    servers: SeveralServers
    line: CutLine
    platforms: list[SimulatedPlatform]


@pytest.fixture(scope="module")
def started(postgres: PostgresServer) -> Iterator[Setting]:
    directory = Path(tempfile.mkdtemp(prefix="troth"))
    try:
        world = World(directory)
        platforms = [new_platform(PsaOptions(model=f"m{number}")) for number in range(8)]
        for number, platform in enumerate(platforms):
            world.endorse(platform, f"maker-{number}")
            # Two replicas of each role: one SPIFFE ID, two devices.
            world.entries.append(entry_for(platform, f"role-{number // 2}"))
        with several_servers(postgres, world) as (servers, line):
            yield Setting(servers, line, platforms)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def setting(started: Setting) -> Setting:
    started.line.mend()
    for number in range(3):
        started.servers.start(number)
    return started


@dataclass
class Reader:
    """Follows a feed as an agent does, and keeps what it is told."""

    client: ServerClient
    heard: list[FeedMessage] = field(default_factory=list)

    async def run(self) -> None:
        async with aclosing(self.client.feed()) as feed:
            async for message in feed:
                if not isinstance(message, Heartbeat):
                    self.heard.append(message)

    @property
    def sequence(self) -> int:
        return self.heard[-1].sequence if self.heard else -1

    def has_heard(self, node_id: str, state: NodeState) -> Callable[[], bool]:
        """Return whether it was told by an event or a snapshot."""

        def heard() -> bool:
            members = [
                member
                for message in self.heard
                for member in (
                    message.members if isinstance(message, Snapshot) else [message.member]
                )
            ]
            return any(each.node_id == node_id and each.state is state for each in members)

        return heard

    def check_order(self) -> None:
        """Numbers only grow, and by one, but where a snapshot stands for what was missed."""
        for before, after in zip(self.heard, self.heard[1:], strict=False):
            if isinstance(after, Event):
                assert after.sequence == before.sequence + 1
            assert after.sequence >= before.sequence


async def join(client: ServerClient, platform: SimulatedPlatform) -> Joined:
    async with asyncio.timeout(SECONDS):
        return await client.join(platform, new_key())


@pytest.fixture
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as tasks:
        yield tasks
        for task in list(tasks._tasks):
            task.cancel()


async def test_an_expulsion_at_one_server_is_seen_at_all_and_its_replica_stays(
    setting: Setting, group: asyncio.TaskGroup
) -> None:
    servers, (gone, replica, *others) = setting.servers, setting.platforms[:5]
    readers = []
    for number, platform in enumerate(others):
        client = servers.client(number)
        await join(client, platform)
        readers.append(Reader(client))
        group.create_task(readers[-1].run())
    first, second = servers.client(0), servers.client(1)
    expelled, kept = await join(first, gone), await join(second, replica)
    assert expelled.spiffe_id == kept.spiffe_id
    await until(lambda: all(reader.heard for reader in readers), seconds=SECONDS)
    await servers.ask(2, "POST", f"/v1/nodes/{expelled.node_id}/expel", json={})
    for reader in readers:
        told = reader.has_heard(expelled.node_id, NodeState.EXPELLED)
        await until(told, seconds=SECONDS)
        assert not reader.has_heard(kept.node_id, NodeState.EXPELLED)()
        reader.check_order()
    for number in range(3):
        client = servers.client(number)
        with pytest.raises(RefusedByServerError):
            await join(client, gone)
        await client.close()
    assert (await join(second, replica)).node_id == kept.node_id
    for each in (first, second, *(reader.client for reader in readers)):
        await each.close()


async def test_a_server_cut_off_from_the_database_loses_its_agents_to_the_others_and_no_event(
    setting: Setting, group: asyncio.TaskGroup
) -> None:
    servers, (*_, moving, staying, subject) = setting.servers, setting.platforms
    both, only, elsewhere = servers.client(2), servers.client(2), servers.client(0)
    # It begins at the server that will be cut off, and knows another one.
    both._urls += elsewhere._urls
    readers = []
    for client, platform in ((both, moving), (only, staying)):
        await join(client, platform)
        readers.append(Reader(client))
        group.create_task(readers[-1].run())
    await until(lambda: all(reader.heard for reader in readers), seconds=SECONDS)
    node = await join(elsewhere, subject)
    moved, stayed = readers
    setting.line.cut()
    await servers.ask(0, "POST", f"/v1/nodes/{node.node_id}/expel", json={})
    told = moved.has_heard(node.node_id, NodeState.EXPELLED)
    await until(told, seconds=SECONDS)
    assert not stayed.has_heard(node.node_id, NodeState.EXPELLED)()
    setting.line.mend()
    await until(stayed.has_heard(node.node_id, NodeState.EXPELLED), seconds=SECONDS)
    for reader in readers:
        reader.check_order()
        await reader.client.close()
    await elsewhere.close()


async def test_a_disk_that_is_slow_delays_renewals_and_refuses_none(
    setting: Setting, postgres: PostgresServer
) -> None:
    """The writers' lock is held as long as a write takes; here by a writer that takes two seconds."""
    client = setting.servers.client()
    await join(client, setting.platforms[4])
    with psycopg.connect(
        host=str(postgres.directory), user="troth", dbname="postgres", autocommit=False
    ) as slow:
        slow.execute("SELECT pg_advisory_xact_lock(%s)", [_WRITER_LOCK])
        began = time.monotonic()
        renewing = asyncio.create_task(join(client, setting.platforms[4]))
        await asyncio.sleep(2)
        assert not renewing.done()
        slow.rollback()
    await renewing
    assert time.monotonic() - began >= 2
    await client.close()


async def test_no_renewal_is_refused_while_servers_are_killed_and_restarted_one_by_one(
    setting: Setting, group: asyncio.TaskGroup
) -> None:
    servers = setting.servers
    clients = [servers.client() for _ in range(3)]
    renewed = [0] * len(clients)
    stop = asyncio.Event()

    async def renew(number: int) -> None:
        while not stop.is_set():
            # Whatever it raises fails the test.
            await join(clients[number], setting.platforms[4 + number])
            renewed[number] += 1
            await asyncio.sleep(0.05)

    tasks = [group.create_task(renew(number)) for number in range(len(clients))]

    async def each_renews() -> None:
        before = list(renewed)
        async with asyncio.timeout(SECONDS):
            while any(now < then + 2 for now, then in zip(renewed, before, strict=True)):
                assert not any(task.done() for task in tasks)
                await asyncio.sleep(0.01)

    await each_renews()
    reader = Reader(clients[0])
    group.create_task(reader.run())
    servers.kill(0)
    await each_renews()
    await asyncio.to_thread(servers.stop, 1)
    await each_renews()
    for first in [*range(3)] * ROUNDS:
        for number in range(3):
            await asyncio.to_thread(servers.start, number)
        await asyncio.to_thread(servers.stop, first)
        await each_renews()
        await asyncio.to_thread(servers.start, first)
        servers.kill((first + 1) % 3)
        await each_renews()
    await asyncio.to_thread(servers.start, 2)
    stop.set()
    await asyncio.gather(*tasks)
    last = (await clients[0].nodes()).sequence
    await until(lambda: reader.sequence >= last, seconds=SECONDS)
    reader.check_order()
    assert (await servers.ask(2, "GET", "/v1/log/verify"))["sequence"] > 0
    for client in clients:
        await client.close()
