# SPDX-License-Identifier: Apache-2.0
"""What every demo does: start real parts, in order, and stop all of them at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from troth.adapters.envoy_process import EnvoyProcess
from troth.cli.demo.processes import Child, Children
from troth.cli.demo.setting import NodeSetting, Setting

__all__ = ["START_SECONDS", "Performance", "start_agents", "start_envoy", "start_server"]

START_SECONDS = 30.0


@dataclass(kw_only=True)
class Performance:
    """One run of a demo.

    Attributes:
        directory: for its files.
        say: prints a line of progress.
        envoy: Envoy binary, or None for the installed one.
        stopping: everything is being stopped: too late to interrupt.
    """

    directory: Path
    say: Callable[[str], None]
    envoy: Path | None = None
    stopping: bool = False

    async def tell(self) -> bool:
        """Run all steps; return whether what should happen did.

        Raises:
            TrothError: a step could not be taken.
        """
        async with AsyncExitStack() as stack:
            try:
                return await self._tell(stack)
            finally:
                self.stopping = True

    async def _tell(self, stack: AsyncExitStack) -> bool:
        raise NotImplementedError


async def start_server(
    children: Children, setting: Setting, names: Iterable[str]
) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
    """Start the server, and a small service for each of `names`; return their ready lines."""
    server = await children.start(
        "server", "server", "-c", str(setting.write_server()), "--stop-with-stdin"
    )
    running = {
        name: await children.start(f"{name}-service", "demo", "service", name) for name in names
    }
    ready = await server.ready(START_SECONDS)
    return ready, {name: await child.ready(START_SECONDS) for name, child in running.items()}


async def start_agents(children: Children, nodes: Mapping[str, NodeSetting]) -> dict[str, Child]:
    """Start the agent of each node; they join at the same time."""
    return {
        name: await children.start(
            f"{name}-agent", "agent", "-c", str(node.config), "--stop-with-stdin"
        )
        for name, node in nodes.items()
    }


async def start_envoy(stack: AsyncExitStack, node: NodeSetting, binary: Path) -> None:
    """Start a node's Envoy, wait until it serves, and stop it with `stack`."""
    envoy = EnvoyProcess(
        binary=binary, bootstrap=json.loads(node.bootstrap.read_text()), concurrency=1
    )
    await envoy.start()
    stack.push_async_callback(envoy.stop)
    await envoy.wait_ready(timeout_seconds=START_SECONDS)
