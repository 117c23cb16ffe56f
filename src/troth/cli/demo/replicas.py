# SPDX-License-Identifier: Apache-2.0
"""Expel one of two replicas that share a SPIFFE ID: its connections end, the other's do not.

Both call the cloud node, whose Envoy cannot tell them apart by name: only by node. The expelled
replica's own agent is killed before, as on a machine that does not want to hear: its peer has to act.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from troth.adapters.envoy_process import find_envoy
from troth.adapters.operator_client import OperatorClient
from troth.cli.demo.performance import (
    START_SECONDS,
    Performance,
    start_agents,
    start_envoy,
    start_server,
)
from troth.cli.demo.platforms import CLOUD, REPLICAS, Platforms
from troth.cli.demo.ports import PortReservation
from troth.cli.demo.processes import Child, Children
from troth.cli.demo.setting import NodeSetting, Setting
from troth.errors import UnavailableError

__all__ = ["Held", "Replicas"]

_ROUTE_SECONDS = 15.0
_FLOW_SECONDS, _AGAIN_SECONDS = 5.0, 0.1
_KINDS = ("HTTP stream", "raw TCP")
_EACH = 3
# What the other replica's connections have to outlive; five times the bound for the expelled one.
_WATCH_SECONDS = 5.0
_DEAF_SECONDS = 1.0
_REQUEST = b"GET /stream HTTP/1.1\r\nhost: demo\r\n\r\n"


@dataclass
class Held:
    """One open connection of a replica, on which the cloud node keeps sending.

    Attributes:
        kind: "raw TCP" or "HTTP stream".
        replica: whose it is.
        heard_at: monotonic seconds of the last octets; 0 before the first.
        ended_at: when it ended, or None while it is open.
        flowing: set once it carries data.
        task: reads from it.
    """

    kind: str
    replica: str
    heard_at: float = 0.0
    ended_at: float | None = None
    flowing: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    async def follow(self, node: NodeSetting) -> None:
        """Open it through the replica's own Envoy and read until it ends."""
        tcp = self.kind == "raw TCP"
        writer = None
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", node.tcp_port if tcp else node.http_port
            )
            writer.write(b"go\n" if tcp else _REQUEST)
            while data := await reader.read(4096):
                if CLOUD.encode() in data:
                    self.heard_at = time.monotonic()
                    self.flowing.set()
        except OSError:
            pass  # an end like any other
        finally:
            self.ended_at = time.monotonic()
            if writer is not None:
                writer.close()


@dataclass(kw_only=True)
class Replicas(Performance):
    """One run."""

    ids: dict[str, str] = field(default_factory=dict)

    async def _tell(self, stack: AsyncExitStack) -> bool:
        ports = PortReservation()
        stack.callback(ports.close)
        children = Children(self.directory)
        stack.push_async_callback(children.stop)
        platforms = Platforms.replicas(os.urandom)
        setting = Setting(self.directory, ports, gated=True, platforms=platforms)
        self.say("starting the server, three nodes and their stock Envoys")
        server, nodes, agents = await self._start(stack, children, setting)
        operators = await stack.enter_async_context(
            OperatorClient(Path(str(server["admin_socket"])))
        )
        held: list[Held] = []
        stack.push_async_callback(_let_go, held)
        await self._open(held, nodes)
        return await self._expel(held, agents, operators, nodes)

    async def _start(
        self, stack: AsyncExitStack, children: Children, setting: Setting
    ) -> tuple[dict[str, object], dict[str, NodeSetting], dict[str, Child]]:
        names = (CLOUD, *REPLICAS)
        server, services = await start_server(children, setting, names)
        nodes = {
            name: setting.write_node(name, server=server, service=services[name]) for name in names
        }
        agents = await start_agents(children, nodes)
        for name, agent in agents.items():
            ready = await agent.ready(START_SECONDS)
            self.ids[name] = str(ready["node_id"])
            self.say(f"{name} joined as {ready['spiffe_id']}, node {ready['node_id']}")
        binary = find_envoy(self.envoy)
        for node in nodes.values():
            await start_envoy(stack, node, binary)
        return server, nodes, agents

    async def _open(self, held: list[Held], nodes: dict[str, NodeSetting]) -> None:
        for name in REPLICAS:
            for kind in _KINDS:
                for _ in range(_EACH):
                    await self._hold(held, kind, name, nodes)
            self.say(f"{name} holds {_EACH} HTTP streams and {_EACH} raw TCP connections")

    async def _hold(
        self, held: list[Held], kind: str, name: str, nodes: dict[str, NodeSetting]
    ) -> None:
        """Open one that carries data; the nodes may have to learn of each other first."""
        until = time.monotonic() + _ROUTE_SECONDS
        while time.monotonic() < until:
            each = _opened(kind, name, nodes)
            held.append(each)
            if await _flows(each):
                return
        raise UnavailableError(f"no {kind} connection of {name} carries data")

    async def _expel(
        self,
        held: list[Held],
        agents: dict[str, Child],
        operators: OperatorClient,
        nodes: dict[str, NodeSetting],
    ) -> bool:
        gone, stays = REPLICAS
        live = [each for each in held if each.ended_at is None]
        theirs = {name: [each for each in live if each.replica == name] for name in REPLICAS}
        self.say(f"{gone}'s agent is killed and it is expelled; {stays}, of the same name, stays")
        # Its own side does nothing any more, so what ends is ended by the cloud node's.
        agents[gone].process.kill()
        await asyncio.sleep(_DEAF_SECONDS)
        deaf = all(each.ended_at is None for each in theirs[gone])
        begin = time.monotonic()
        await operators.post(f"/v1/nodes/{self.ids[gone]}/expel", {"why": "the demo expels it"})
        await asyncio.sleep(_WATCH_SECONDS)
        times = [(each.ended_at - begin) * 1000 for each in theirs[gone] if each.ended_at]
        kept = [each for each in theirs[stays] if each.ended_at is None]
        quiet = [each for each in kept if each.heard_at < begin + _WATCH_SECONDS - 1]
        self.say(
            f"{gone}: {len(times)} of {len(theirs[gone])} connections ended"
            + (f", the last after {max(times):.0f} ms" if times else "")
        )
        self.say(f"{stays}: {len(kept)} of {len(theirs[stays])} stay, {len(quiet)} of them quiet")
        back, more = (_opened("raw TCP", name, nodes) for name in REPLICAS)
        held += [back, more]
        returned, served = await _flows(back), await _flows(more)
        self.say(f"a new connection of {gone} {_outcome(returned)}; of {stays}, {_outcome(served)}")
        return (
            deaf
            and len(times) == len(theirs[gone])
            and len(kept) == len(theirs[stays])
            and not quiet
            and served
            and not returned
        )


def _opened(kind: str, name: str, nodes: dict[str, NodeSetting]) -> Held:
    each = Held(kind, name)
    each.task = asyncio.create_task(each.follow(nodes[name]))
    return each


async def _flows(each: Held) -> bool:
    """Say whether it comes to carry data before it ends."""
    flowing = asyncio.create_task(each.flowing.wait())
    await asyncio.wait(
        [task for task in (flowing, each.task) if task is not None],
        timeout=_FLOW_SECONDS,
        return_when=asyncio.FIRST_COMPLETED,
    )
    flowing.cancel()
    if not each.flowing.is_set():
        await asyncio.sleep(_AGAIN_SECONDS)
    return each.flowing.is_set()


def _outcome(served: bool) -> str:  # noqa: FBT001 - a word for it
    return "is served" if served else "is refused"


async def _let_go(held: list[Held]) -> None:
    tasks = [each.task for each in held if each.task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
