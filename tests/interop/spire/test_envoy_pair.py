# SPDX-License-Identifier: Apache-2.0
"""Two stock Envoys: one has its SVID from SPIRE's agent alone, the other from an attested node's.

test -> Envoy's plain listener -> mutual TLS -> the other Envoy's listener -> echo
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.envoy_mesh import envoy_binary
from support.ports import reserved_ports
from support.spire_federation import OURS, THEIRS, federated
from support.waiting import until
from troth.adapters.envoy_process import EnvoyProcess

pytestmark = pytest.mark.envoy
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"


def sds(name: str) -> dict[str, Any]:
    source = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}],
    }
    config = {"resource_api_version": "V3", "api_config_source": source}
    return {"name": name, "sds_config": config}


def tls(kind: str, peer: str) -> dict[str, Any]:
    """Return a transport socket that shows our SVID and takes that of `peer` alone."""
    matcher = {"san_type": "URI", "matcher": {"exact": peer}}
    common = {
        "tls_certificate_sds_secret_configs": [sds("default")],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [matcher]},
            "validation_context_sds_secret_config": sds("ALL"),
        },
    }
    config: dict[str, Any] = {"@type": f"{TLS}{kind}TlsContext", "common_tls_context": common}
    if kind == "Downstream":
        config["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def cluster(name: str, address: dict[str, Any], **more: Any) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    assignment = {"cluster_name": name, "endpoints": endpoints}
    made = {"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": assignment}
    return made | more


def tcp(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(name: str, port: int, to: str, **chain: Any) -> dict[str, Any]:
    proxy = {"@type": TCP, "stat_prefix": name, "cluster": to}
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    return {
        "name": name,
        "enable_reuse_port": True,
        "address": tcp(port),
        "filter_chains": [{"filters": filters, **chain}],
    }


@asynccontextmanager
async def envoy(
    name: str, agent: Path, service: Path, *, peer: str, inbound: int, outbound: int, to: int
) -> AsyncIterator[EnvoyProcess]:
    directory = Path(tempfile.mkdtemp(prefix="te", dir="/tmp"))
    pipe = {"pipe": {"path": str(agent)}}
    config = {
        "node": {"id": name, "cluster": name},
        "admin": {"address": {"pipe": {"path": str(directory / "admin"), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                listener("inbound", inbound, "service", transport_socket=tls("Downstream", peer)),
                listener("outbound", outbound, "peer"),
            ],
            "clusters": [
                cluster("agent", pipe, http2_protocol_options={}),
                cluster("service", {"pipe": {"path": str(service)}}),
                cluster("peer", tcp(to), transport_socket=tls("Upstream", peer)),
            ],
        },
    }
    process = EnvoyProcess(binary=envoy_binary(), bootstrap=config, concurrency=1)
    async with process:
        await process.wait_ready()
        yield process


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


async def echoes(port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(5):
                writer.write(b"hello\n")
                return await reader.readline() == b"hello\n"
        finally:
            writer.close()
    return False


@asynccontextmanager
async def pair(*, expected_of_ours: str = OURS) -> AsyncIterator[tuple[int, int]]:
    """Give the plain listeners of SPIRE's side and of ours."""
    async with AsyncExitStack() as stack:
        both = await stack.enter_async_context(federated())
        directory = Path(tempfile.mkdtemp(prefix="te", dir="/tmp"))
        service = await asyncio.start_unix_server(echo, directory / "echo")
        stack.callback(service.close)
        in_a, out_a, in_b, out_b = stack.enter_context(reserved_ports(4))
        a = envoy(
            "spire",
            both.theirs,
            directory / "echo",
            peer=expected_of_ours,
            inbound=in_a,
            outbound=out_a,
            to=in_b,
        )
        b = envoy(
            "troth",
            both.ours,
            directory / "echo",
            peer=THEIRS,
            inbound=in_b,
            outbound=out_b,
            to=in_a,
        )
        await stack.enter_async_context(a)
        await stack.enter_async_context(b)
        yield out_a, out_b


async def test_an_envoy_of_spires_and_one_on_an_attested_node_serve_each_other() -> None:
    async with pair() as (from_spire, from_troth):
        await until(lambda: echoes(from_spire), seconds=20, interval=0.2)
        await until(lambda: echoes(from_troth), seconds=20, interval=0.2)


async def test_an_envoy_of_spires_refuses_a_peer_that_it_does_not_name() -> None:
    async with pair(expected_of_ours=f"{OURS}/other") as (from_spire, from_troth):
        await asyncio.sleep(2)
        assert not await echoes(from_spire)
        assert not await echoes(from_troth)
