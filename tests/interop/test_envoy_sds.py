# SPDX-License-Identifier: Apache-2.0
"""Stock Envoy, configured statically as for SPIRE, gets its secrets from our socket instead.

Nothing in the configuration is Troth's but the path of the socket: cluster `spire_agent`, secrets
`default`, `ROOTCA` and `ALL`, SAN matching in the combined validation context.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.envoy_mesh import envoy_binary
from support.ports import reserved_ports
from support.waiting import until
from support.workloads import (
    DOMAIN,
    OTHER,
    AgentSide,
    agent_side,
    authority,
    entry,
)
from support.x509 import Plan, p256, sign, signing
from troth.adapters.envoy_process import EnvoyProcess
from troth.adapters.process_attestor import ProcessAttestor
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_authority import X509Authority
from troth.identity.x509_svid import X509Svid

pytestmark = pytest.mark.envoy
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."


def sds(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "spire_agent"}}],
            },
        },
    }


def pipe_cluster(name: str, path: Path) -> dict[str, Any]:
    address = {"address": {"pipe": {"path": str(path)}}}
    endpoints = [{"lb_endpoints": [{"endpoint": address}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def bootstrap(
    directory: Path, port: int, *, validation: str, certificate: str = "default"
) -> dict[str, Any]:
    """Return a static configuration: one mutual-TLS listener before a local service."""
    agent = pipe_cluster("spire_agent", directory / "api.sock")
    agent["http2_protocol_options"] = {}
    context = {
        "@type": f"{TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [sds(certificate)],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [
                        {"san_type": "URI", "matcher": {"suffix": "/client"}}
                    ]
                },
                "validation_context_sds_secret_config": sds(validation),
            },
        },
    }
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "service",
        "cluster": "service",
    }
    listener = {
        "name": "inbound",
        "enable_reuse_port": True,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}],
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": context,
                },
            }
        ],
    }
    return {
        "node": {"id": "spire-user", "cluster": "spire-user"},
        "admin": {"address": {"pipe": {"path": str(directory / "admin"), "mode": 0o600}}},
        "static_resources": {
            "listeners": [listener],
            "clusters": [agent, pipe_cluster("service", directory / "service")],
        },
    }


@dataclass
class Proxy:
    side: AgentSide
    envoy: EnvoyProcess
    port: int

    def context(self, identity: X509Svid) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.side.server.bundle.encode_pem().decode())
        file = self.side.directory / "client.pem"
        file.write_bytes(identity.encode_pem() + identity.encode_private_key(Encoding.PEM))
        context.load_cert_chain(file)
        return context

    @asynccontextmanager
    async def connected(
        self, identity: X509Svid
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context(identity)
        )
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()

    async def serial(self, identity: X509Svid) -> int:
        """Connect, say something, and return the serial number of the certificate that was shown."""
        async with self.connected(identity) as (reader, writer):
            writer.write(b"hello\n")
            async with asyncio.timeout(5):
                assert await reader.readline() == b"hello\n"
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return X509Svid.decode(shown).leaf.serial_number

    async def admits(self, identity: X509Svid) -> bool:
        try:
            await self.serial(identity)
        except (ssl.SSLError, ConnectionError, AssertionError):
            return False
        return True

    def held_serial(self) -> int:
        svid = self.side.identities._held["web"].svid
        assert svid is not None
        return svid.leaf.serial_number

    async def rotate(self) -> None:
        """Have the SVID issued anew, by the newest authority."""
        self.side.server.entries[0] = entry(
            "web", *SELECTORS(), form=str(datetime.now(UTC)), federates_with=(OTHER.name,)
        )
        self.side.identities.adopt(self.side.server.bundle)
        await self.side.settle()


def SELECTORS() -> tuple[str, ...]:  # noqa: N802 - needs Envoy, else it would be a constant
    return (f"unix:path:{envoy_binary()}", f"unix:uid:{os.getuid()}")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


@asynccontextmanager
async def proxy(**options: str) -> AsyncIterator[Proxy]:
    binary = envoy_binary()
    web = entry("web", *SELECTORS(), federates_with=(OTHER.name,))
    async with AsyncExitStack() as stack:
        side = await stack.enter_async_context(agent_side(web, attestor=ProcessAttestor()))
        [port] = stack.enter_context(reserved_ports(1))
        service = await asyncio.start_unix_server(echo, side.directory / "service")
        stack.callback(service.close)
        envoy = EnvoyProcess(
            binary=binary,
            bootstrap=bootstrap(side.directory, port, **({"validation": "ROOTCA"} | options)),
            concurrency=1,
        )
        await stack.enter_async_context(envoy)
        await envoy.wait_ready()
        made = Proxy(side, envoy, port)
        client = side.server.issue(f"spiffe://{DOMAIN}/client")
        await until(lambda: made.admits(client), interval=0.05)
        yield made


def issued_by(ca: X509Authority, spiffe_id: str) -> X509Svid:
    key = p256()
    now = datetime.now(UTC)
    made = ca._issue(
        key.public_key(),
        SpiffeId.decode(spiffe_id),
        now=now,
        not_after=now + timedelta(hours=1),
        random=os.urandom(16),
        dns_names=(),
    )
    return X509Svid(chain=made.chain, private_key=key)


async def test_an_envoy_made_for_spire_serves_and_demands_svids() -> None:
    async with proxy() as made:
        client = made.side.server.issue(f"spiffe://{DOMAIN}/client")
        assert await made.serial(client) == made.held_serial()
        assert not await made.admits(made.side.server.issue(f"spiffe://{DOMAIN}/other"))
        assert not await made.admits(issued_by(authority(), f"spiffe://{DOMAIN}/client"))


@pytest.mark.parametrize("name", [f"spiffe://{DOMAIN}/web", "default"])
async def test_a_rotation_reaches_new_connections_and_leaves_open_ones_alone(name: str) -> None:
    async with proxy(certificate=name, validation=f"spiffe://{DOMAIN}") as made:
        client = made.side.server.issue(f"spiffe://{DOMAIN}/client")
        async with made.connected(client) as (reader, writer):
            before = made.held_serial()
            await made.rotate()
            assert made.held_serial() != before

            async def rotated() -> bool:
                return await made.serial(client) == made.held_serial()

            await until(rotated, interval=0.02)
            writer.write(b"still here\n")
            async with asyncio.timeout(5):
                assert await reader.readline() == b"still here\n"


async def test_no_connection_drops_and_none_is_refused_while_the_authority_rolls_over() -> None:
    async with proxy() as made:
        server = made.side.server
        old_client = server.issue(f"spiffe://{DOMAIN}/client")
        async with made.connected(old_client) as (reader, writer):
            new = authority()
            server.authorities.insert(0, new)  # prepared: in the bundle, the old one issues
            made.side.tell_bundles()
            new_client = issued_by(new, f"spiffe://{DOMAIN}/client")
            await until(lambda: made.admits(new_client), interval=0.02)
            assert await made.admits(old_client)
            server.authorities.reverse()  # active: the new one issues
            await made.rotate()

            async def shows_new() -> bool:
                return await made.serial(new_client) == made.held_serial()

            await until(shows_new, interval=0.02)
            assert await made.admits(old_client)
            server.authorities.pop(0)  # gone: the last SVID of the old one has ended
            made.side.tell_bundles()

            async def refused() -> bool:
                return not await made.admits(old_client)

            await until(refused, interval=0.02)
            assert await made.admits(new_client)
            writer.write(b"still here\n")
            async with asyncio.timeout(5):
                assert await reader.readline() == b"still here\n"


async def test_all_believes_each_trust_domain_for_itself_alone() -> None:
    now = datetime.now(UTC)
    dates = {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(hours=1)}
    root = signing(uris=(f"spiffe://{OTHER}",), **dates)

    def of_the_other(uri: str) -> X509Svid:
        plan = Plan(uris=(uri,), **dates)
        return X509Svid(chain=[sign(plan, root)], private_key=plan.key)  # type: ignore[arg-type]

    async with proxy(validation="ALL") as made:
        own = made.side.server.issue(f"spiffe://{DOMAIN}/client")
        theirs = of_the_other(f"spiffe://{OTHER}/client")
        impostor = of_the_other(f"spiffe://{DOMAIN}/client")
        assert await made.admits(own)
        assert not await made.admits(theirs)
        made.side.server.federated = {
            OTHER.name: TrustBundle(trust_domain=OTHER, x509_authorities=[sign(root)])
        }
        made.side.tell_bundles()
        await until(lambda: made.admits(theirs), interval=0.02)
        assert await made.admits(own)
        assert not await made.admits(impostor)


async def test_an_envoy_that_is_not_registered_serves_nobody() -> None:
    async with proxy() as made:
        client = made.side.server.issue(f"spiffe://{DOMAIN}/client")
        made.side.server.entries[0] = entry("web", "unix:path:/usr/bin/another-proxy")
        made.side.identities.adopt(made.side.server.bundle)
        await made.side.settle()
        # What it holds it keeps until it ends, as Envoy does; a new one gets nothing.
        another = EnvoyProcess(
            binary=envoy_binary(),
            bootstrap=bootstrap(made.side.directory, made.port, validation="ROOTCA"),
            concurrency=1,
        )
        await made.envoy.stop()
        await another.start()
        try:
            await asyncio.sleep(0.5)
            assert not await made.admits(client)
        finally:
            await another.stop()
