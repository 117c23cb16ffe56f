# SPDX-License-Identifier: Apache-2.0
"""The file that an Envoy of the mesh starts with: where its agent is, and little else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.control_plane.envoy.description import MAX_UNIX_PATH_BYTES
from troth.control_plane.envoy.tls_contexts import ADS
from troth.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AGENT_CLUSTER", "agent_cluster", "bootstrap", "internal_listeners", "overload_manager"]

AGENT_CLUSTER = "troth-agent"
# Envoy's default after a lost agent grows to 30 s between attempts; a proxy on the agent's own
# machine can afford to ask more often, and a withdrawal may be waiting.
_RETRY_BASE = "0.1s"
_RETRY_MAX = "1s"
_MAX_DOWNSTREAM_CONNECTIONS = 50_000


def bootstrap(
    *,
    node_id: str,
    xds_socket: Path,
    admin_socket: Path,
    mesh: str = "troth",
    max_connections: int = _MAX_DOWNSTREAM_CONNECTIONS,
) -> dict[str, object]:
    """Return Envoy's bootstrap in JSON form.

    Envoy gets secrets, clusters and listeners from one aggregated stream (ADS) to the agent, and
    is ready when it has them; without an agent it never is, and listens nowhere.

    Args:
        node_id: the node, as Envoy names itself to the agent.
        xds_socket: Unix socket that the agent's `XdsServer` listens on.
        admin_socket: Unix socket for Envoy's admin interface. It can stop Envoy and show its
            configuration: put it in a directory that only its user can enter.
        mesh: Envoy's "cluster" name, which its statistics carry.
        max_connections: how many connections clients may have open in total.

    Raises:
        ConfigurationError: a path is not absolute or too long for a Unix socket.
    """
    for key, path in (("xds_socket", xds_socket), ("admin_socket", admin_socket)):
        if not path.is_absolute() or len(bytes(path)) > MAX_UNIX_PATH_BYTES:
            raise ConfigurationError(
                source="Envoy bootstrap",
                key=key,
                value=str(path),
                accepted=f"an absolute path of at most {MAX_UNIX_PATH_BYTES} bytes",
            )
    from_agent = {**ADS, "initial_fetch_timeout": "0s"}
    return {
        "node": {"id": node_id, "cluster": mesh},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": AGENT_CLUSTER,
                            "retry_policy": {
                                "retry_back_off": {
                                    "base_interval": _RETRY_BASE,
                                    "max_interval": _RETRY_MAX,
                                }
                            },
                        }
                    }
                ],
            },
            "cds_config": from_agent,
            "lds_config": from_agent,
        },
        "static_resources": {"clusters": [agent_cluster(xds_socket)]},
        # The client's side of the gate stands in internal listeners.
        "bootstrap_extensions": internal_listeners(),
        "overload_manager": overload_manager(max_connections),
    }


def internal_listeners() -> list[dict[str, object]]:
    """Return the extension that internal listeners need."""
    return [
        {
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": (
                    "type.googleapis.com/"
                    "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
                )
            },
        }
    ]


def overload_manager(
    max_connections: int = _MAX_DOWNSTREAM_CONNECTIONS,
) -> dict[str, object]:
    """Return the limit on connections that clients may have open in total."""
    return {
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": (
                        "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig"
                    ),
                    "max_active_downstream_connections": max_connections,
                },
            }
        ]
    }


def agent_cluster(xds_socket: Path) -> dict[str, object]:
    """Return the cluster that leads to the agent."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": AGENT_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        # A stopped agent is noticed although its socket stays open.
                        "connection_keepalive": {"interval": "10s", "timeout": "10s"}
                    }
                },
            }
        },
        "load_assignment": {
            "cluster_name": AGENT_CLUSTER,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(xds_socket)}}}}]}
            ],
        },
    }
