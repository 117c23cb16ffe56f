# SPDX-License-Identifier: Apache-2.0
"""A stock Envoy asks about WITs and proofs, and tells the service behind it who is calling."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from support.applications import HttpApplication
from support.envoy_mesh import envoy_binary
from support.ports import reserved_ports
from support.wimse import check, credentials
from troth.adapters.envoy_process import EnvoyProcess
from troth.wimse import WimseAuth, ext_authz_app, ext_authz_filter

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(60)]


def _cluster(name: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _bootstrap(directory: Path, port: int, service: int, authz: int) -> dict[str, Any]:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network."
        "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                }
            ]
        },
        "http_filters": [
            ext_authz_filter("wimse", max_body_bytes=1 << 16),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            },
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters}],
    }
    return {
        "admin": {"address": {"pipe": {"path": str(directory / "admin"), "mode": 0o600}}},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_cluster("service", service), _cluster("wimse", authz)],
        },
    }


@asynccontextmanager
async def _served(app: Any) -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", proxy_headers=False)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listening.close()


async def test_envoy_lets_a_proved_caller_through_and_nobody_else() -> None:
    directory = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
    application = HttpApplication()
    shown = credentials(datetime.now(UTC).replace(microsecond=0))
    with reserved_ports(1) as [port]:
        here = f"http://127.0.0.1:{port}"
        authz = ext_authz_app(check(origins=[here]))
        async with (
            application.serve() as service,
            _served(authz) as asked,
            EnvoyProcess(
                binary=envoy_binary(),
                bootstrap=_bootstrap(directory, port, service, asked),
                concurrency=1,
            ) as envoy,
            httpx.AsyncClient(base_url=here, trust_env=False, timeout=5) as web,
        ):
            await envoy.wait_ready()
            forged = {"x-wimse-subject": "spiffe://mesh.example/admin", "x-wimse-tier": "forged"}
            for proof in ("wpt", "signature"):
                auth = WimseAuth(shown, proof=proof)  # type: ignore[arg-type]
                answer = await web.post("/pay?sum=1", content=b"{}", auth=auth, headers=forged)
                assert answer.status_code == 200, answer.text
                seen = application.requests.pop()
                assert seen["x-wimse-subject"] == "spiffe://mesh.example/web"
                assert seen["x-wimse-proof"] == proof
                assert seen["x-wimse-tier"] == "measured"

            # the same proof again; then none; one for another path; a body that was changed
            again = dict(answer.request.headers)
            assert (await web.post("/pay?sum=1", content=b"{}", headers=again)).status_code == 400
            assert (await web.get("/", headers=forged)).status_code == 400
            signed = WimseAuth(shown, proof="signature")
            for path, body in (("/pay?sum=2", b"{}"), ("/pay?sum=1", b"[]")):
                request = web.build_request("POST", "/pay?sum=1", content=b"{}")
                next(signed.auth_flow(request))
                kept = {k: v for k, v in request.headers.items() if k != "content-length"}
                answer = await web.post(path, content=body, headers=kept)
                assert answer.status_code == 400, (path, body)
            assert not application.requests
    shutil.rmtree(directory)
