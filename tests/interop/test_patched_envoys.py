# SPDX-License-Identifier: Apache-2.0
"""Two stock Envoys whose own configurations were patched, with their agents."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from interop.existing_envoys import CLIENT, SERVER
from support.applications import HttpApplication
from support.attested_world import Node, World
from support.cli import run_cli
from support.envoy_mesh import envoy_binary
from support.gate import need_gate
from support.ports import reserved_ports
from support.static_agent import StaticAgent
from support.waiting import until
from troth.adapters.envoy_process import EnvoyProcess
from troth.adapters.envoy_trial import validate_configuration
from troth.cli.envoy.files import read_tree
from troth.control_plane.envoy.access_log import decode_access_log_line
from troth.control_plane.envoy.description import GateSetting
from troth.control_plane.envoy.descriptors import EnvoyDescriptors
from troth.control_plane.envoy.patch.patching import patch
from troth.control_plane.envoy.patch.remarks import Kind
from troth.control_plane.envoy.patch.wish import PatchWish
from troth.control_plane.ext_authz.decision import CertificateJudge
from troth.control_plane.ext_authz.service import ExtAuthzService
from troth.control_plane.gate import MODULE_PATH
from troth.tls.judge import Judge

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(60)]

ORDERS = "spiffe://mesh.example/node/orders"


@dataclass
class Pair:
    directory: Path
    world: World
    ports: dict[str, int]
    shop: StaticAgent
    orders: StaticAgent
    application: HttpApplication

    async def get(self, path: str = "/", *, port: str = "local") -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return await client.get(
                f"http://127.0.0.1:{self.ports[port]}{path}", headers={"x-troth-tier": "forged"}
            )

    async def records(self) -> list[dict[str, Any]]:
        """Wait for the lines about connections to the second listener."""
        path = self.directory / "server.admin.log"
        await until(lambda: path.exists() and path.read_bytes().endswith(b"\n"))
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    async def get_directly(self, node: Node, port: str = "orders") -> bytes:
        """One HTTP/1.1 request over mutual TLS, by a peer without a gate."""
        chain = self.directory / f"{node.name}.pem"
        chain.write_bytes(
            node.svid.encode_pem() + node.svid.encode_private_key(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(chain)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.ports[port], ssl=context
            )
            try:
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                async with asyncio.timeout(10):
                    return await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as exc:
                return exc.partial
            finally:
                writer.transport.abort()
        return b""


def wish(agent: StaticAgent, *, gate: GateSetting | None) -> PatchWish:
    return PatchWish(
        node_id=agent.node.name,
        xds_socket=agent.directory / f"{agent.node.name}.xds",
        gate=gate,
        outbound={"orders": ("orders", ORDERS)},
        access_log=str(agent.directory / f"{agent.node.name}.access"),
    )


@contextlib.asynccontextmanager
async def patched_pair(
    *,
    gated: bool = True,
    permissive: bool = False,
    kind: str = "STATIC",
    change: Callable[[str], str] = lambda text: text,
    services: Any = lambda _world: (),
) -> AsyncIterator[Pair]:
    """An application, a patched Envoy before it, a patched Envoy that calls it, and their agents."""
    if gated:
        need_gate()
    world, application = World(), HttpApplication()
    directory = Path(tempfile.mkdtemp(prefix="tp", dir="/tmp"))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        names = ["orders", "again", "health", "local"]
        ports = dict(zip(names, stack.enter_context(reserved_ports(len(names))), strict=True))
        app = await stack.enter_async_context(application.serve())
        orders_node, shop_node = world.join("orders"), world.join("shop")
        orders = StaticAgent(world, orders_node, directory, services=services(world))
        shop = StaticAgent(world, shop_node, directory, servers={"orders": orders_node})
        for agent in (orders, shop):
            await stack.enter_async_context(agent)
        host = "127.0.0.1" if kind == "STATIC" else "localhost"
        for agent, template, name in ((orders, SERVER, "server"), (shop, CLIENT, "client")):
            text = template.substitute(
                ports, admin=directory / f"{name}.admin", app=app, kind=kind, host=host
            )
            text = change(text) if name == "client" else text
            setting = GateSetting(
                module=agent.setting.module,
                agent_socket=agent.setting.agent_socket,
                permissive=permissive,
            )
            patched = patch(
                read_tree(text.encode(), source=name), wish(agent, gate=setting if gated else None)
            )
            assert patched.config is not None
            assert not patched.of_kind(Kind.LEFT)
            envoy = EnvoyProcess(
                binary=envoy_binary(), bootstrap=patched.config, concurrency=1, log_level="warning"
            )
            await stack.enter_async_context(envoy)
            await envoy.wait_ready()
        yield Pair(directory, world, ports, shop, orders, application)


async def test_a_patched_pair_carries_attested_http_to_each_endpoint() -> None:
    async with patched_pair() as pair:
        for _ in range(6):
            answer = await pair.get()
            assert answer.status_code == 200
        seen = [request.get("x-troth-status") for request in pair.application.requests]
        by_http = [r for r in pair.application.requests if "x-troth-status" in r]
        # Round robin over both endpoints: one is HTTP behind its proxy, the other plain bytes.
        assert seen.count("attested") == 3
        assert len(seen) == 6
        assert {r["x-troth-binding"] for r in by_http} == {"key"}
        assert {r["x-troth-tier"] for r in by_http} == {"measured"}
        assert {live.spiffe_id for live in pair.shop.gate.live()} == {ORDERS}
        assert len(pair.shop.gate.live()) == 2
        log = pair.directory / "orders.access"
        await until(lambda: log.exists() and log.read_bytes().endswith(b"\n"))
        record = decode_access_log_line(log.read_bytes().splitlines()[0])
        assert (record.attestation, record.state["tier"]) == ("attested", "measured")


async def test_a_peer_without_a_gate_is_refused_by_both_patched_listeners() -> None:
    async with patched_pair() as pair:
        stranger = pair.world.join("stranger")
        for port in ("orders", "again"):
            assert await pair.get_directly(stranger, port) == b""
        assert not pair.application.requests
        assert (await pair.get()).status_code == 200
        # What was no listener of the mesh still is none.
        assert (await pair.get(port="health")).status_code == 200


async def test_in_permissive_mode_a_peer_without_a_gate_is_marked_and_served() -> None:
    async with patched_pair(permissive=True) as pair:
        stranger = pair.world.join("stranger")
        assert (await pair.get_directly(stranger, "again")).startswith(b"HTTP/1.1 200")
        assert [each["gate"] for each in await pair.records()] == ["none"]
        pair.application.requests.clear()
        assert (await pair.get_directly(stranger)).startswith(b"HTTP/1.1 200")
        (request,) = pair.application.requests
        assert request["x-troth-status"] == "none"
        assert "x-troth-tier" not in request
        log = pair.directory / "orders.access"
        await until(lambda: log.exists() and b'"request"' in log.read_bytes())
        own = [decode_access_log_line(line) for line in log.read_bytes().splitlines()]
        assert {record.attestation for record in own} == {"none"}
        assert {record.kind.value for record in own} >= {"request"}
        assert (await pair.get()).status_code == 200
        marks = {r.get("x-troth-status") for r in pair.application.requests}
        assert "none" in marks


async def test_http_2_crosses_a_patched_pair_on_one_attested_connection() -> None:
    def only_http_2(text: str) -> str:
        text = text.replace("{http_protocol_options: {}}", "{http2_protocol_options: {}}")
        return text[: text.rindex("        - endpoint")]

    async with patched_pair(change=only_http_2) as pair:
        answers = await asyncio.gather(*(pair.get() for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert {r["x-troth-binding"] for r in pair.application.requests} == {"key"}
        assert len(pair.shop.gate.live()) == 1


async def test_endpoints_by_name_are_reached_through_one_gate() -> None:
    async with patched_pair(kind="STRICT_DNS") as pair:
        assert (await pair.get()).status_code == 200
        assert {live.spiffe_id for live in pair.shop.gate.live()} == {ORDERS}


async def test_without_its_agent_a_patched_server_admits_nobody() -> None:
    async with patched_pair() as pair:
        assert (await pair.get()).status_code == 200
        await pair.orders.gate.stop()
        await pair.shop.gate.close_where(lambda _: True, "the test")
        answer = await pair.get()
        assert answer.status_code == 503


def deciding(world: World, *, permissive: bool = False) -> list[ExtAuthzService]:
    judge = Judge(world.policy(), world.bundles)
    callers = CertificateJudge(world.bundles, find=lambda _: judge, permissive=permissive)
    return [ExtAuthzService(EnvoyDescriptors.load(envoy_binary()), lambda: callers)]


async def test_without_code_a_caller_is_admitted_by_the_result_in_its_certificate() -> None:
    async with patched_pair(gated=False, services=deciding) as pair:
        for _ in range(4):
            assert (await pair.get()).status_code == 200
        (request, *_rest) = [r for r in pair.application.requests if "x-forwarded-client-cert" in r]
        assert "spiffe://mesh.example/node/shop" in request["x-forwarded-client-cert"]
        assert "x-troth-tier" not in request, "nobody outside may claim one"
        attested = pair.world.join("other")
        assert (await pair.get_directly(attested, "again")).startswith(b"HTTP/1.1 200")
        (record, *_) = await pair.records()
        assert (record["authz"], record["tier"]) == ("attested", "measured")


async def test_without_code_a_caller_without_a_result_is_refused() -> None:
    async with patched_pair(gated=False, services=deciding) as pair:
        plain = pair.world.join("plain", svid_only=True)
        for port in ("orders", "again"):
            assert await pair.get_directly(plain, port) == b""
        assert not pair.application.requests


async def test_without_code_a_caller_without_a_result_is_marked_in_permissive_mode() -> None:
    async with patched_pair(
        gated=False, services=lambda world: deciding(world, permissive=True)
    ) as pair:
        plain = pair.world.join("plain", svid_only=True)
        assert (await pair.get_directly(plain, "again")).startswith(b"HTTP/1.1 200")
        assert [each["authz"] for each in await pair.records()] == ["none"]


async def test_without_code_and_without_an_agent_nobody_is_admitted() -> None:
    async with patched_pair(gated=False, services=deciding) as pair:
        assert (await pair.get_directly(pair.world.join("other"))).startswith(b"HTTP/1.1 200")
        await pair.orders.xds.stop()
        assert await pair.get_directly(pair.world.join("another")) == b""


async def test_without_code_a_client_reaches_a_server_only_while_its_key_is_pinned() -> None:
    async with patched_pair(gated=False, services=deciding) as pair:
        assert (await pair.get()).status_code == 200
        # The other endpoint has no connection yet, so its handshake meets the new pins.
        await pair.shop.xds.apply(pair.shop.secrets({"orders": []}))
        codes = {(await pair.get()).status_code for _ in range(4)}
        assert 503 in codes
        await pair.shop.xds.apply(pair.shop.secrets())
        assert {(await pair.get()).status_code for _ in range(4)} == {200}


@pytest.mark.parametrize("gated", [True, False])
def test_envoy_accepts_what_was_patched_and_patching_again_changes_nothing(gated: bool) -> None:  # noqa: FBT001
    setting = GateSetting(module=str(MODULE_PATH), agent_socket="/run/gate") if gated else None
    if gated:
        need_gate()
    asked = PatchWish(
        node_id="n",
        xds_socket=Path("/run/xds"),
        gate=setting,
        outbound={"orders": ("o", ORDERS)},
        access_log="/dev/null",
    )
    values = {"admin": "/run/admin", "app": 1, "orders": 2, "again": 3, "health": 4, "local": 5}
    for template, kind, host in (
        (SERVER, "", ""),
        (CLIENT, "STATIC", "127.0.0.1"),
        (CLIENT, "STRICT_DNS", "orders.example"),
        (CLIENT, "LOGICAL_DNS", "orders.example"),
    ):
        text = template.substitute(values, kind=kind, host=host)
        if kind == "LOGICAL_DNS":
            text = text.replace(text[text.rindex("        - endpoint") :], "")
        once = patch(read_tree(text.encode(), source="t"), asked)
        assert once.config is not None
        trial = validate_configuration(envoy_binary(), once.config)
        assert trial.accepted, trial.reason
        assert patch(once.config, asked).config == once.config


def test_preflight_finds_the_installed_envoy_fit_for_the_gate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    need_gate()
    ran = run_cli(capsys, "envoy", "preflight", "--envoy", envoy_binary(), "--format", "json")
    report = json.loads(ran.out)
    assert ran.status == 0
    assert report["profile"] == "gate"
    assert report["version"].startswith("1.")
    assert not report["warnings"]
    assert all(each["present"] for each in report["abilities"].values())


def test_preflight_without_a_loadable_module_leaves_the_profile_without_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a program")
    options = ["--envoy", envoy_binary(), "--module", broken, "--format", "json"]
    ran = run_cli(capsys, "envoy", "preflight", *options)
    report = json.loads(ran.out)
    assert ran.status == 1
    assert report["profile"] == "no-code"
    assert report["abilities"]["module"]["why"]
    assert run_cli(capsys, "envoy", "preflight", *options, "--need", "no-code").status == 0
    text = run_cli(capsys, "envoy", "preflight", *options[:-1], "text").out
    assert "no   dynamic modules" in text
    assert "profile: no-code only" in text


def test_the_commands_patch_a_file_that_envoy_then_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    existing, services = tmp_path / "envoy.yaml", tmp_path / "services.yaml"
    values = {"admin": "/run/admin", "app": 1, "orders": 2, "again": 3, "health": 4, "local": 5}
    existing.write_text(CLIENT.substitute(values, kind="STATIC", host="10.0.0.1"))
    services.write_text(
        f"node: shop\nxds_socket: /run/xds\noutbound: [{{name: orders, peer: '{ORDERS}', "
        "listen: '127.0.0.1:1', endpoints: ['127.0.0.1:2']}]"
    )
    options = ["--services", services, "--validate", "--envoy", envoy_binary()]
    ran = run_cli(capsys, "envoy", "patch", existing, *options)
    assert ran.status == 0, ran.err
    assert "troth/servers/orders" in ran.out
    existing.write_text(existing.read_text().replace("lb_policy: ROUND_ROBIN", "lb_policy: X"))
    ran = run_cli(capsys, "envoy", "patch", existing, *options)
    assert ran.status == 2
    assert "Envoy does not accept the result" in ran.err


@pytest.mark.parametrize("profile", ["gate", "no-code"])
def test_envoy_accepts_what_is_generated_for_every_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: str
) -> None:
    if profile == "gate":
        need_gate()
    services, output = tmp_path / "services.yaml", tmp_path / "envoy.json"
    services.write_text(
        f"""
node: edge
xds_socket: /run/xds
gate_socket: /run/gate
access_log: /dev/null
inbound:
- {{name: web, listen: "0.0.0.0:1", upstream: "127.0.0.1:2"}}
- {{name: wire, protocol: tcp, listen: "0.0.0.0:3", upstream: "localhost:4"}}
outbound:
- {{name: a, peer: "{ORDERS}", listen: "127.0.0.1:5", endpoints: ["10.0.0.1:1", "10.0.0.2:1"]}}
- {{name: b, protocol: tcp, peer: "{ORDERS}", listen: "127.0.0.1:6", endpoints: ["b.example:1"]}}
- {{name: c, protocol: http2, peer: "{ORDERS}", listen: "127.0.0.1:7", endpoints: ["10.0.0.3:1"],
   server_name: c.example}}
"""
    )
    arguments = ["--services", services, "--profile", profile, "--format", "json", "-o", output]
    assert run_cli(capsys, "envoy", "bootstrap", "--static", *arguments).status == 0
    tree = json.loads(output.read_text())
    trial = validate_configuration(envoy_binary(), tree)
    assert trial.accepted, trial.reason
    again = run_cli(capsys, "envoy", "patch", output, "--diff", *arguments[:4])
    assert (again.status, again.out) == (0, "")
