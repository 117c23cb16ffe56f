# SPDX-License-Identifier: Apache-2.0
"""A whole Envoy configuration from a list of services: listeners and clusters stand in the file.

It is made as an ordinary mutual TLS configuration first, and then patched as anybody's would be, so
what is generated and what is patched attest in one and the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from troth.control_plane.envoy.access_log import Direction, RecordKind, access_log
from troth.control_plane.envoy.bootstrap import overload_manager
from troth.control_plane.envoy.description import Address, Protocol
from troth.control_plane.envoy.http import http_connection_manager, http_options
from troth.control_plane.envoy.patch.patching import patch
from troth.control_plane.envoy.patch.remarks import Tree
from troth.control_plane.envoy.patch.wish import PatchWish, Profile
from troth.control_plane.envoy.resources import envoy_address
from troth.errors import ConfigurationError

__all__ = ["StaticInbound", "StaticMesh", "StaticOutbound", "static_configuration"]

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters."
_CONNECT_TIMEOUT: Final = "5s"
_HANDSHAKE_TIMEOUT: Final = "5s"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticInbound:
    """A local service that peers may call.

    Attributes:
        name: of the service.
        protocol: what it speaks.
        listen: where peers connect to.
        upstream: where the service is.
    """

    name: str
    protocol: Protocol
    listen: Address
    upstream: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOutbound:
    """Peers' service that local programs call.

    Attributes:
        name: as in the agent's configuration.
        protocol: what it speaks.
        listen: where local programs connect to; whoever can, speaks as this node.
        endpoints: where the peers' Envoys listen.
        server_name: what to announce in TLS (SNI), or "".
    """

    name: str
    protocol: Protocol
    listen: Address
    endpoints: Sequence[Address]
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticMesh:
    """All services of one Envoy.

    Attributes:
        inbound: for peers.
        outbound: for local programs.
        admin_socket: Unix socket of Envoy's admin interface.
        access_log: file for one JSON line per request or connection; "" for none.
    """

    inbound: Sequence[StaticInbound]
    outbound: Sequence[StaticOutbound]
    admin_socket: Path
    access_log: str = ""


def static_configuration(mesh: StaticMesh, wish: PatchWish) -> Tree:
    """Return the configuration; every listener and cluster of it attests.

    Raises:
        ConfigurationError: there is no service, or a service that `wish` knows no peer of.
    """
    if not mesh.inbound and not mesh.outbound:
        raise ConfigurationError(source="services", accepted="at least one, inbound or outbound")
    plain: Tree = {
        "node": {"id": wish.node_id, "cluster": "troth"},
        "admin": {"address": {"pipe": {"path": str(mesh.admin_socket), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                *(_inbound_listener(mesh, each, wish) for each in mesh.inbound),
                *(_outbound_listener(mesh, each) for each in mesh.outbound),
            ],
            "clusters": [
                *(cluster for each in mesh.inbound for cluster in _local(each)),
                *(_peers(each) for each in mesh.outbound),
            ],
        },
        "overload_manager": overload_manager(),
    }
    patched = patch(plain, wish, source="generated configuration")
    left = [remark for remark in patched.remarks if remark.kind.value in ("left", "insecure")]
    if patched.config is None or left:
        raise ConfigurationError(
            source="services",
            key=left[0].place if left else "",
            accepted="; ".join(remark.remedy or remark.what for remark in left),
        )
    return patched.config


def outbound_cluster(name: str) -> str:
    """Return the cluster of an outbound service."""
    return f"outbound/{name}"


def _inbound_cluster(name: str) -> str:
    return f"inbound/{name}"


def _inbound_listener(mesh: StaticMesh, service: StaticInbound, wish: PatchWish) -> Tree:
    name = _inbound_cluster(service.name)
    http = service.protocol is not Protocol.TCP
    return {
        "name": name,
        "address": envoy_address(service.listen),
        "traffic_direction": "INBOUND",
        "filter_chains": [
            {
                "transport_socket_connect_timeout": _HANDSHAKE_TIMEOUT,
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": f"{_TLS}DownstreamTlsContext",
                        "require_client_certificate": True,
                        "common_tls_context": (
                            {"alpn_protocols": ["h2", "http/1.1"]} if http else {}
                        ),
                    },
                },
                "filters": [_proxy(mesh, service, Direction.INBOUND, wish.profile is Profile.GATE)],
            }
        ],
        "access_log": _log(mesh, RecordKind.REFUSED, Direction.INBOUND, service.name),
    }


def _outbound_listener(mesh: StaticMesh, service: StaticOutbound) -> Tree:
    return {
        "name": outbound_cluster(service.name),
        "address": envoy_address(service.listen),
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [_proxy(mesh, service, Direction.OUTBOUND, gated=False)]}],
    }


def _proxy(
    mesh: StaticMesh,
    service: StaticInbound | StaticOutbound,
    direction: Direction,
    gated: bool,  # noqa: FBT001 - one of two callers says it by position
) -> dict[str, object]:
    inbound = direction is Direction.INBOUND
    name = _inbound_cluster(service.name) if inbound else outbound_cluster(service.name)
    if service.protocol is Protocol.TCP:
        return {
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": f"{_FILTERS}network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name,
                "cluster": name,
                "access_log": _log(mesh, RecordKind.CONNECTION, direction, service.name),
            },
        }
    return http_connection_manager(
        cluster=name,
        direction=direction,
        forward_certificate=False,
        request_timeout_seconds=0,
        log=_log(mesh, RecordKind.REQUEST, direction, service.name),
        grpc_cluster=f"{name}/grpc" if inbound and service.protocol is Protocol.HTTP else "",
        gated=gated,
    )


def _local(service: StaticInbound) -> list[Tree]:
    name = _inbound_cluster(service.name)
    cluster = _cluster(name, [service.upstream])
    key = "typed_extension_protocol_options"
    if service.protocol is Protocol.TCP:
        return [cluster]
    http2 = http_options(http2=True, remote=False)
    if service.protocol is Protocol.HTTP2:
        return [cluster | {key: http2}]
    grpc = _cluster(f"{name}/grpc", [service.upstream])
    return [cluster | {key: http_options(http2=False, remote=False)}, grpc | {key: http2}]


def _peers(service: StaticOutbound) -> Tree:
    cluster = _cluster(outbound_cluster(service.name), service.endpoints)
    context: Tree = {"@type": f"{_TLS}UpstreamTlsContext", "common_tls_context": {}}
    if service.server_name:
        context["sni"] = service.server_name
    cluster["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": context,
    }
    if service.protocol is not Protocol.TCP:
        # Between proxies always HTTP/2: requests share one attested connection.
        cluster["typed_extension_protocol_options"] = http_options(http2=True, remote=True)
        context["common_tls_context"] = {"alpn_protocols": ["h2"]}
    return cluster


def _cluster(name: str, addresses: Sequence[Address]) -> Tree:
    limit = {"max_connections": 65_536, "max_pending_requests": 65_536, "max_requests": 65_536}
    endpoints: list[Any] = [{"endpoint": {"address": envoy_address(each)}} for each in addresses]
    return {
        "name": name,
        "type": "STATIC" if all(each.is_numeric for each in addresses) else "STRICT_DNS",
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _log(
    mesh: StaticMesh, kind: RecordKind, direction: Direction, service: str
) -> list[dict[str, object]]:
    return access_log(
        mesh.access_log, kind=kind, direction=direction, service=service, certificates=False
    )
