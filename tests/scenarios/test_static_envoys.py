# SPDX-License-Identifier: Apache-2.0
"""Envoys with files of their own, from `troth envoy` to the end of a node's membership.

1. A server runs; two `troth agent` processes join with `[envoy] static = true`.
2. `troth envoy bootstrap --static` writes the files, and two stock Envoys start with them.
3. A request crosses, attested: by the gate, or without code by what certificates carry.
4. The called node is expelled, and nothing crosses any more.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.applications import HttpApplication
from support.command import troth
from support.envoy_mesh import envoy_binary
from support.gate import need_gate
from support.ports import reserved_ports
from support.server_world import DOMAIN, SERVER_ID, World, world
from support.waiting import until
from support.workloads import short_directory
from troth.adapters.envoy_process import EnvoyProcess
from troth.cli.demo.processes import Children
from troth.control_plane.envoy.access_log import decode_access_log_line
from troth.evidence.simulator import SimulatedPlatform
from troth.evidence.simulator.device_file import to_json

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(90)]

ORDERS = f"spiffe://{DOMAIN}/orders"
AGENT = """
[node]
name = "{name}"
[server]
url = "{url}"
trust_bundle = "{bundle}"
spiffe_id = "{server_id}"
[attester]
kind = "simulator"
device = "{name}.json"
[envoy]
xds_socket = "{directory}/{name}.xds"
access_log = "{directory}/{name}.access"
binary = "{binary}"
static = {static}
{decider}
[[clients]]
peers = ["spiffe://{domain}/*"]
verifiers = ["troth"]
allow_insecure = true
[[servers]]
peers = ["{orders}"]
verifiers = ["troth"]
allow_insecure = true
[[verifiers]]
name = "troth"
"""
DECIDERS = {"gate": '[gate]\nsocket = "{directory}/{name}.gate"', "no-code": "[ext_authz]"}


@dataclass
class Place:
    """Everything that runs."""

    here: World
    directory: Path
    local: int
    envoys: dict[str, EnvoyProcess]
    application: HttpApplication
    nodes: dict[str, str]

    async def get(self) -> int:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return (await client.get(f"http://127.0.0.1:{self.local}/")).status_code

    async def answers(self, status: int) -> None:
        async def holds() -> bool:
            return await self.get() == status

        await until(holds, seconds=20, interval=0.05)

    def envoy(self, name: str) -> EnvoyProcess:
        tree = json.loads((self.directory / f"{name}-envoy.json").read_text())
        return EnvoyProcess(
            binary=envoy_binary(), bootstrap=tree, concurrency=1, access_log_flush_ms=20
        )


def configure(
    place: Path, name: str, profile: str, here: World, services: str, *, static: bool
) -> Path:
    path = place / f"{name}.toml"
    words: dict[str, Any] = {
        "name": name,
        "directory": place,
        "url": here.running.url,
        "bundle": here.running.trust_bundle,
        "server_id": SERVER_ID,
        "binary": envoy_binary(),
        "domain": DOMAIN,
        "orders": ORDERS,
        "static": str(static).lower(),
    }
    words["decider"] = DECIDERS[profile].format(**words)
    path.write_text(AGENT.format(**words) + services)
    return path


@contextlib.asynccontextmanager
async def running(
    profile: str, static: tuple[str, ...] = ("orders", "shop")
) -> AsyncIterator[Place]:
    if profile == "gate":
        need_gate()
    async with contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(world())
        platforms: dict[str, SimulatedPlatform] = {
            name: here.platform(name) for name in ("orders", "shop")
        }
        directory = stack.enter_context(short_directory())
        listen, local = stack.enter_context(reserved_ports(2))
        application = HttpApplication()
        app = await stack.enter_async_context(application.serve())
        await stack.enter_async_context(here.serve())
        services = {
            "orders": f'[[inbound]]\nname = "orders"\nlisten = "127.0.0.1:{listen}"\n'
            f'upstream = "127.0.0.1:{app}"\n',
            "shop": f'[[outbound]]\nname = "orders"\npeer = "{ORDERS}"\n'
            f'listen = "127.0.0.1:{local}"\n',
        }
        listed = directory / "services.yaml"
        listed.write_text(
            f"outbound: [{{name: orders, listen: '127.0.0.1:{local}', "
            f"endpoints: ['127.0.0.1:{listen}']}}]"
        )
        children = Children(directory)
        stack.push_async_callback(children.stop)
        place = Place(here, directory, local, {}, application, {})
        for name, platform in platforms.items():
            (directory / f"{name}.json").write_text(to_json(platform))
            (directory / f"{name}.json").chmod(0o600)
            config = configure(
                directory, name, profile, here, services[name], static=name in static
            )
            agent = await children.start(
                name, "agent", "--config", str(config), "--stop-with-stdin"
            )
            place.nodes[name] = str((await agent.ready(30))["node_id"])
            options = ["--static"] if name in static else []
            if name == "shop" and options:
                options += ["--services", str(listed), "--announce", place.nodes[name]]
            output = directory / f"{name}-envoy.json"
            made = troth(
                *("envoy", "bootstrap", "-c", str(config), *options),
                *("--format", "json", "-o", str(output)),
            )
            assert (made.code, made.err) == (0, "")
            place.envoys[name] = await stack.enter_async_context(place.envoy(name))
            await place.envoys[name].wait_ready()
        yield place


async def test_the_gate_admits_until_the_called_node_is_expelled() -> None:
    async with running("gate") as place:
        await place.answers(200)
        (request, *_) = place.application.requests
        assert request["x-troth-status"] == "attested"
        assert request["x-troth-binding"] == "key"
        await until((place.directory / "orders.access").exists)
        await until(lambda: (place.directory / "orders.access").read_bytes().endswith(b"\n"))
        (line, *_) = (place.directory / "orders.access").read_bytes().splitlines()
        record = decode_access_log_line(line)
        assert record.attestation == "attested"
        assert record.state["tier"] == "measured"
        await place.here.ask(
            "POST", f"/v1/nodes/{place.nodes['orders']}/expel", 200, json={"reason": "test"}
        )
        await place.answers(503)


@pytest.mark.parametrize("static", ["orders", "shop"])
async def test_one_envoy_with_a_file_of_its_own_and_one_that_its_agent_configures(
    static: str,
) -> None:
    async with running("gate", static=(static,)) as place:
        await place.answers(200)
        assert {r["x-troth-binding"] for r in place.application.requests} == {"key"}


async def test_without_code_new_connections_end_with_the_membership() -> None:
    async with running("no-code") as place:
        await place.answers(200)
        await place.here.ask(
            "POST", f"/v1/nodes/{place.nodes['orders']}/expel", 200, json={"reason": "test"}
        )
        # What is open lives on for a while, as the reference says: look at new connections.
        await place.envoys["shop"].stop()
        async with place.envoy("shop") as envoy:
            await envoy.wait_ready()
            await place.answers(503)
