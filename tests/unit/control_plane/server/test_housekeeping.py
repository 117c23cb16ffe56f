# SPDX-License-Identifier: Apache-2.0
"""What happens by itself, under a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from support.members import NOW, join, new_node, svid_for
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.control_plane.server.appraisal_recorder import AppraisalRecorder
from troth.control_plane.server.config import LimitSection
from troth.control_plane.server.endorsement_set import EndorsementSet
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.housekeeping import Housekeeping
from troth.control_plane.server.worker import Worker
from troth.errors import UnavailableError
from troth.mesh.admission import Step
from troth.mesh.node import Actor, NodeState, Reason, Trigger
from troth.mesh.registry import Change


class MovedClock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


class Setting:
    def __init__(self, path: Path) -> None:
        self.registry = SqlRegistry(sqlite_url(path / "registry.db"))
        self.worker = Worker("registry", threads=1, max_waiting=100)
        self.clock = MovedClock()
        self.renewals: list[datetime] = []
        self.keeper = Housekeeping(
            registry=self.registry,
            registry_worker=self.worker,
            hub=FeedHub(self.registry, self.worker, heartbeat_seconds=60),
            admission=asyncio.Lock(),
            clock=self.clock,
            limits=LimitSection(kept_events=2, kept_refusals=1),
            keep_keys=self.renewals.append,
            recorder=AppraisalRecorder(
                self.registry, keep=True, on_difference=print, on_lost=print
            ),
            endorsements=EndorsementSet(self.registry, keys=()),
        )

    async def sweep(self, after: timedelta) -> None:
        self.clock.time += after
        await self.keeper.sweep()


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path)
    yield made
    await made.worker.close()
    made.registry.close()


async def test_a_result_that_nobody_renews_lapses_at_its_deadline(setting: Setting) -> None:
    setting.registry.apply(join(new_node()), issue=svid_for)
    await setting.sweep(timedelta(minutes=59))
    assert setting.registry.node("n1").state is NodeState.ADMITTED
    await setting.sweep(timedelta(minutes=1))
    node = setting.registry.node("n1")
    assert (node.state, node.reason) == (NodeState.DEGRADED, Reason.RESULT_STALE)
    assert setting.registry.snapshot().sequence == 4
    await setting.sweep(timedelta(minutes=1))
    assert setting.registry.snapshot().sequence == 4


async def test_an_attempt_that_stalls_is_given_up(setting: Setting) -> None:
    node = setting.registry.apply(join(new_node()), issue=svid_for)
    step = Step(trigger=Trigger.REATTEST, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)
    setting.registry.apply(
        Change(node_id="n1", generation=node.generation, steps=(step,), actor="operator 0", at=NOW)
    )
    await setting.sweep(timedelta(seconds=149))
    assert setting.registry.node("n1").state is NodeState.ATTESTING
    await setting.sweep(timedelta(seconds=1))
    node = setting.registry.node("n1")
    assert (node.state, node.reason) == (NodeState.REGISTERED, Reason.TIMED_OUT)


async def test_old_events_go_and_the_servers_svid_is_looked_at(setting: Setting) -> None:
    setting.registry.apply(join(new_node()), issue=svid_for)
    await setting.sweep(timedelta(0))
    assert [event.sequence for event in setting.registry.events(after=1, limit=9)] == [2, 3]
    assert setting.renewals == [NOW]


async def test_a_sweep_that_fails_is_tried_again(setting: Setting) -> None:
    sweeps = 0
    done = asyncio.Event()

    async def failing() -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps > 1:
            done.set()
        raise UnavailableError("disk full")

    setting.keeper.sweep = failing  # type: ignore[method-assign]
    task = asyncio.create_task(setting.keeper.run())
    async with asyncio.timeout(10):
        await done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
