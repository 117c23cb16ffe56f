# SPDX-License-Identifier: Apache-2.0
"""A host of SPIRE plugins: starts one as SPIRE does, and speaks to it over go-plugin's handshake."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod

from troth.control_plane.spire.messages import CONFIG, CONFIG_SERVICE, GO_PLUGIN, HEALTH, INIT
from troth.control_plane.spire.messages import INIT_SERVICE as INIT_NAME

DOMAIN = "spire.example"


class Plugin:
    """A plugin that runs, its handshake done."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel, line: str) -> None:
        self.process, self.channel, self.line = process, channel, line

    async def call(self, path: str, request: Any, reply: Any) -> Any:
        async with asyncio.timeout(20):
            return await UnaryUnaryMethod(self.channel, path, type(request), reply)(request)

    async def configure(self, path: Path) -> None:
        request = CONFIG["ConfigureRequest"](
            core_configuration=CONFIG["CoreConfiguration"](trust_domain=DOMAIN),
            hcl_configuration=f'config = "{path}"',
        )
        await self.call(f"/{CONFIG_SERVICE}/Configure", request, CONFIG["ConfigureResponse"])

    async def validate(self, hcl: str) -> list[str]:
        request = CONFIG["ValidateRequest"](
            core_configuration=CONFIG["CoreConfiguration"](trust_domain=DOMAIN),
            hcl_configuration=hcl,
        )
        reply = await self.call(f"/{CONFIG_SERVICE}/Validate", request, CONFIG["ValidateResponse"])
        assert reply.valid == (not reply.notes)
        return list(reply.notes)

    def stream(self, path: str, request: Any, reply: Any) -> Any:
        return StreamStreamMethod(self.channel, path, request, reply).open()

    async def shut_down(self) -> int:
        empty = GO_PLUGIN["Empty"]
        await self.call("/plugin.GRPCController/Shutdown", empty(), empty)
        async with asyncio.timeout(10):
            return await self.process.wait()


@asynccontextmanager
async def hosted(kind: str, program: str, *arguments: str) -> AsyncIterator[Plugin]:
    """Start a plugin as SPIRE does, and end it.

    Args:
        kind: type of the plugin, which is also SPIRE's cookie.
        program: of ours, beside the interpreter.
        arguments: its command line.
    """
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / program),
        *arguments,
        env={**os.environ, kind: kind, "PLUGIN_PROTOCOL_VERSIONS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    channel = None
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode().strip()
        core, protocol, network, address, kind_of_rpc = line.split("|")
        assert (core, protocol, network, kind_of_rpc) == ("1", "1", "unix", "grpc")
        channel = Channel(path=address)
        plugin = Plugin(process, channel, line)
        health = await plugin.call(
            "/grpc.health.v1.Health/Check",
            HEALTH["HealthCheckRequest"](service="plugin"),
            HEALTH["HealthCheckResponse"],
        )
        assert health.status == 1
        info = GO_PLUGIN["ConnInfo"]
        async with plugin.stream("/plugin.GRPCBroker/StartStream", info, info) as broker:
            await broker.send_message(info(service_id=1, network="unix", address="/nowhere"))
            reply = await plugin.call(
                f"/{INIT_NAME}/Init", INIT["InitRequest"](), INIT["InitResponse"]
            )
            assert CONFIG_SERVICE in reply.plugin_service_names
            yield plugin
            await broker.end()
    finally:
        if channel is not None:
            channel.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
