# SPDX-License-Identifier: Apache-2.0
"""The live feed: snapshot and tail, nothing lost between reading and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.members import NOW, join, new_node, svid_for
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.worker import Worker
from troth.mesh.event import Event, FeedMessage, Heartbeat, Snapshot


class Setting:
    def __init__(self, path: Path) -> None:
        self.registry = SqlRegistry(sqlite_url(path / "registry.db"))
        self.worker = Worker("registry", threads=1, max_waiting=100)
        self.hub = FeedHub(self.registry, self.worker, heartbeat_seconds=60)

    def admit(self, name: str) -> None:
        self.registry.apply(join(new_node(name)), issue=svid_for)
        self.hub.wake()


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.hub.close()
    await made.worker.close()
    made.registry.close()


async def take(stream: AsyncIterator[FeedMessage], count: int) -> list[FeedMessage]:
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]


async def test_a_new_reader_gets_a_snapshot_and_then_every_event(setting: Setting) -> None:
    setting.admit("n1")
    stream = setting.hub.follow(None)
    first = (await take(stream, 1))[0]
    assert isinstance(first, Snapshot)
    assert (first.sequence, len(first.members)) == (3, 1)
    waiting = asyncio.create_task(take(stream, 3))
    await asyncio.sleep(0)
    setting.admit("n2")
    events = await waiting
    assert [(type(each), each.sequence) for each in events] == [(Event, 4), (Event, 5), (Event, 6)]


async def test_a_reader_that_knows_something_gets_only_what_came_after(setting: Setting) -> None:
    setting.admit("n1")
    assert [each.sequence for each in await take(setting.hub.follow(1), 2)] == [2, 3]


@pytest.mark.parametrize("after", [99, 1])
async def test_a_gap_or_a_number_never_given_out_means_a_snapshot(
    setting: Setting, after: int
) -> None:
    setting.admit("n1")
    setting.registry.prune(now=NOW, keep_events=1, keep_refusals=1)
    message = (await take(setting.hub.follow(after), 1))[0]
    assert isinstance(message, Snapshot)


async def test_silence_is_broken_by_heartbeats_with_the_last_number(setting: Setting) -> None:
    setting.admit("n1")
    setting.hub._heartbeat_seconds = 0.01
    assert await take(setting.hub.follow(3), 2) == [Heartbeat(sequence=3)] * 2


async def test_closing_ends_every_stream(setting: Setting) -> None:
    streams = [setting.hub.follow(0) for _ in range(3)]
    waiting = [asyncio.create_task(anext(stream, None)) for stream in streams]
    await asyncio.sleep(0.01)
    setting.hub.close()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [None] * 3


async def test_nothing_is_lost_when_events_come_while_others_are_read(setting: Setting) -> None:
    stream = setting.hub.follow(0)
    names = [f"n{number}" for number in range(20)]

    async def write() -> None:
        for name in names:
            await setting.worker.run(setting.registry.apply, join(new_node(name)), issue=svid_for)
            setting.hub.wake()

    writing = asyncio.create_task(write())
    read = await take(stream, 60)
    await writing
    assert [each.sequence for each in read] == list(range(1, 61))
