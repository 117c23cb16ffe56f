# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import threading

import pytest

from troth.control_plane.server.worker import Worker
from troth.errors import ConflictError, UnavailableError


def _fail() -> None:
    raise ConflictError("no")


async def test_calls_run_one_after_the_other_off_the_loop() -> None:
    worker = Worker("registry", threads=1, max_waiting=100)
    running = 0
    seen: list[int] = []

    def call(number: int) -> str:
        nonlocal running
        running += 1
        assert running == 1
        seen.append(number)
        running -= 1
        return threading.current_thread().name

    names = await asyncio.gather(*(worker.run(call, number) for number in range(20)))
    assert seen == list(range(20))
    assert set(names) == {"registry_0"}
    await worker.close()


async def test_an_error_reaches_the_caller() -> None:
    worker = Worker("registry", threads=1, max_waiting=1)
    with pytest.raises(ConflictError):
        await worker.run(_fail)
    await worker.close()


async def test_a_full_queue_refuses_instead_of_growing() -> None:
    worker = Worker("registry", threads=1, max_waiting=2)
    gate = threading.Event()
    waiting = [asyncio.create_task(worker.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="2 calls wait"):
        await worker.run(gate.wait)
    gate.set()
    await asyncio.gather(*waiting)
    assert await worker.run(gate.wait)
    await worker.close()


async def test_a_stopped_worker_says_so() -> None:
    worker = Worker("registry", threads=1, max_waiting=2)
    await worker.close()
    with pytest.raises(UnavailableError, match="has stopped"):
        await worker.run(_fail)
