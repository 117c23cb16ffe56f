# SPDX-License-Identifier: Apache-2.0
"""A `MeshDescription` as Envoy's secrets, clusters and listeners.

Pure: the same description gives the same resources, so publishing again what did not change
touches nothing. docs/reference/envoy.md explains each choice.

The shape that matters: an inbound listener has ONE FILTER CHAIN PER PEER, and each outbound
service has a listener and a cluster of its own. Envoy ends the connections of a chain that is
changed or removed and leaves the others alone, so this is what lets one peer be cut off without
touching another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from troth.control_plane.envoy.access_log import Direction, RecordKind, access_log
from troth.control_plane.envoy.description import Protocol
from troth.control_plane.envoy.gate import gate_filter, hop_address, hop_socket
from troth.control_plane.envoy.http import http_connection_manager, http_options
from troth.control_plane.envoy.tls_contexts import (
    downstream_tls,
    secrets,
    server_name,
    upstream_tls,
)

if TYPE_CHECKING:
    from troth.control_plane.envoy.description import (
        Address,
        AdmittedPeer,
        GateSetting,
        InboundService,
        MeshDescription,
        OutboundService,
    )

__all__ = ["CLUSTER", "LISTENER", "SECRET", "MeshResources"]

SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"

_FILTERS = "type.googleapis.com/envoy.extensions.filters."
# Until these end, a stranger holds a socket and nothing more.
_CLIENT_HELLO_TIMEOUT = "5s"
_HANDSHAKE_TIMEOUT = "5s"
# From connect() to the end of the TLS handshake with a peer, or to the local application.
_CONNECT_TIMEOUT = "5s"
_LOCAL_CONNECT_TIMEOUT = "2s"
# Envoy's own default of 1024 would refuse the 1025th stream of a busy proxy.
_MAX_PER_CLUSTER = 65_536
# What a peer may send while its connection to the application is still being made.
_EARLY_BYTES = 64 * 1024
_ALPN_HTTP = ("h2", "http/1.1")
_KEEPALIVE: dict[str, object] = {
    "keepalive_time": 30,
    "keepalive_interval": 10,
    "keepalive_probes": 3,
}


@dataclass(frozen=True, slots=True)
class MeshResources:
    """Envoy's resources in the protobuf JSON mapping, each with its name in `name`."""

    secrets: tuple[dict[str, object], ...]
    clusters: tuple[dict[str, object], ...]
    listeners: tuple[dict[str, object], ...]

    @classmethod
    def build(cls, mesh: MeshDescription) -> MeshResources:
        """Return what an Envoy needs to do exactly what `mesh` says.

        An inbound service gets no listener while no peer is admitted: there is nobody who may
        connect. An outbound service gets none while its peer is not admitted.
        """
        peers = sorted(mesh.peers, key=lambda peer: peer.node_id)
        by_node = {peer.node_id: peer for peer in peers}
        outbound = [
            (service, by_node[service.node_id])
            for service in mesh.outbound
            if service.node_id in by_node
        ]
        callers = [peer for peer in peers if peer.inbound]
        inbound = mesh.inbound if callers else ()
        return cls(
            secrets=secrets(mesh.identity, mesh.trust_bundles),
            clusters=(
                *(cluster for service in inbound for cluster in _local_clusters(service)),
                *(c for service, peer in outbound for c in _peer_clusters(mesh, service, peer)),
            ),
            listeners=(
                *(_inbound_listener(mesh, service, callers) for service in inbound),
                *(
                    each
                    for service, peer in outbound
                    for each in _outbound_listeners(mesh, service, peer)
                ),
            ),
        )

    def by_type(self) -> dict[str, tuple[dict[str, object], ...]]:
        """Return the resources by type URL, in the order in which Envoy should take them."""
        return {SECRET: self.secrets, CLUSTER: self.clusters, LISTENER: self.listeners}


def inbound_name(service: str) -> str:
    """Return the name of the listener and of the cluster of an inbound service."""
    return f"inbound/{service}"


def outbound_name(service: str) -> str:
    """Return the name of the listener and of the cluster of an outbound service."""
    return f"outbound/{service}"


def hop_name(service: str) -> str:
    """Return the name of the client gate's listener, and of the cluster behind it."""
    return f"gate/{service}"


def _inbound_listener(
    mesh: MeshDescription, service: InboundService, peers: list[AdmittedPeer]
) -> dict[str, object]:
    name = inbound_name(service.name)
    return {
        "name": name,
        "address": envoy_address(service.listen),
        "traffic_direction": "INBOUND",
        "listener_filters": [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {"@type": f"{_FILTERS}listener.tls_inspector.v3.TlsInspector"},
            }
        ],
        "listener_filters_timeout": _CLIENT_HELLO_TIMEOUT,
        "tcp_keepalive": _KEEPALIVE,
        "filter_chains": [_inbound_chain(mesh, service, peer) for peer in peers],
        "access_log": access_log(
            mesh.access_log,
            kind=RecordKind.REFUSED,
            direction=Direction.INBOUND,
            service=service.name,
            certificates=mesh.log_certificates,
        ),
    }


def _inbound_chain(
    mesh: MeshDescription, service: InboundService, peer: AdmittedPeer
) -> dict[str, object]:
    name = inbound_name(service.name)
    if service.protocol is Protocol.TCP:
        alpn: tuple[str, ...] = ()
        proxy = _tcp_proxy(mesh, service, Direction.INBOUND)
    else:
        alpn = _ALPN_HTTP
        proxy = http_connection_manager(
            cluster=name,
            direction=Direction.INBOUND,
            forward_certificate=service.forward_certificate,
            request_timeout_seconds=service.request_timeout_seconds,
            log=_log(mesh, service, Direction.INBOUND, RecordKind.REQUEST),
            grpc_cluster=_grpc_name(service),
            gated=mesh.gate is not None,
        )
    gate = [gate_filter(mesh.gate, role="server", label=service.name)] if mesh.gate else []
    return {
        "name": peer.node_id,
        "metadata": _generation(peer),
        "filter_chain_match": {
            "transport_protocol": "tls",
            "server_names": [server_name(peer.node_id)],
        },
        "transport_socket": downstream_tls(mesh.identity.spiffe_id, peer, alpn=alpn),
        "transport_socket_connect_timeout": _HANDSHAKE_TIMEOUT,
        "filters": [*gate, proxy],
    }


def _outbound_listeners(
    mesh: MeshDescription, service: OutboundService, peer: AdmittedPeer
) -> list[dict[str, object]]:
    listeners = [_outbound_listener(mesh, service, peer)]
    if mesh.gate is not None:
        listeners.append(_hop_listener(mesh, mesh.gate, service, peer))
    return listeners


def _hop_listener(
    mesh: MeshDescription, gate: GateSetting, service: OutboundService, peer: AdmittedPeer
) -> dict[str, object]:
    name = hop_name(service.name)
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_FILTERS}network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": name,
            # Without early data the gate could not say the first word.
            "max_early_data_bytes": _EARLY_BYTES,
            "access_log": _log(mesh, service, Direction.OUTBOUND, RecordKind.CONNECTION),
            **_periodic(mesh),
        },
    }
    return {
        "name": name,
        "internal_listener": {},
        "filter_chains": [
            {
                "name": peer.node_id,
                "metadata": _generation(peer),
                "filters": [gate_filter(gate, role="client", label=service.name), proxy],
            }
        ],
    }


def _outbound_listener(
    mesh: MeshDescription, service: OutboundService, peer: AdmittedPeer
) -> dict[str, object]:
    name = outbound_name(service.name)
    if service.protocol is Protocol.TCP:
        proxy = _tcp_proxy(mesh, service, Direction.OUTBOUND)
    else:
        proxy = http_connection_manager(
            cluster=name,
            direction=Direction.OUTBOUND,
            forward_certificate=False,
            request_timeout_seconds=service.request_timeout_seconds,
            log=_log(mesh, service, Direction.OUTBOUND, RecordKind.REQUEST),
        )
    return {
        "name": name,
        "address": envoy_address(service.listen),
        "traffic_direction": "OUTBOUND",
        "filter_chains": [
            {"name": peer.node_id, "metadata": _generation(peer), "filters": [proxy]}
        ],
    }


def _local_clusters(service: InboundService) -> list[dict[str, object]]:
    name = inbound_name(service.name)
    cluster = _cluster(name, service.upstream, _LOCAL_CONNECT_TIMEOUT)
    if service.protocol is Protocol.TCP:
        return [cluster]
    key = "typed_extension_protocol_options"
    http2 = http_options(http2=True, remote=False)
    if service.protocol is Protocol.HTTP2:
        return [cluster | {key: http2}]
    grpc = _cluster(_grpc_name(service), service.upstream, _LOCAL_CONNECT_TIMEOUT)
    return [cluster | {key: http_options(http2=False, remote=False)}, grpc | {key: http2}]


def _grpc_name(service: InboundService) -> str:
    """Return the cluster for gRPC to an application that speaks HTTP/1.1 for the rest."""
    return f"{inbound_name(service.name)}/grpc" if service.protocol is Protocol.HTTP else ""


def _peer_clusters(
    mesh: MeshDescription, service: OutboundService, peer: AdmittedPeer
) -> list[dict[str, object]]:
    """Return the cluster of the peer's service; with the gate, the hop to it in front."""
    cluster = _peer_cluster(mesh, service, peer)
    if mesh.gate is None:
        return [cluster]
    hop = {
        **_cluster(outbound_name(service.name), service.address, _CONNECT_TIMEOUT),
        "type": "STATIC",
        "transport_socket": hop_socket(),
        "metadata": _generation(peer),
    }
    hop["load_assignment"] = {
        "cluster_name": outbound_name(service.name),
        "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": hop_address(hop_name(service.name))}}]}
        ],
    }
    if service.protocol is not Protocol.TCP:
        key = "typed_extension_protocol_options"
        hop[key] = cluster.pop(key)
    return [hop, cluster]


def _peer_cluster(
    mesh: MeshDescription, service: OutboundService, peer: AdmittedPeer
) -> dict[str, object]:
    name = hop_name(service.name) if mesh.gate else outbound_name(service.name)
    cluster = _cluster(name, service.address, _CONNECT_TIMEOUT)
    http = service.protocol is not Protocol.TCP
    cluster["transport_socket"] = upstream_tls(
        mesh.identity.spiffe_id, mesh.identity.node_id, peer, alpn=("h2",) if http else ()
    )
    cluster["upstream_connection_options"] = {"tcp_keepalive": _KEEPALIVE}
    cluster["metadata"] = _generation(peer)
    if http:
        # Between proxies always HTTP/2: requests share one attested connection.
        cluster["typed_extension_protocol_options"] = http_options(http2=True, remote=True)
    return cluster


def _cluster(name: str, address: Address, connect_timeout: str) -> dict[str, object]:
    limit = {
        "max_connections": _MAX_PER_CLUSTER,
        "max_pending_requests": _MAX_PER_CLUSTER,
        "max_requests": _MAX_PER_CLUSTER,
    }
    return {
        "name": name,
        "type": "STATIC" if address.is_numeric else "STRICT_DNS",
        "connect_timeout": connect_timeout,
        "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": envoy_address(address)}}]},
            ],
        },
    }


def _tcp_proxy(
    mesh: MeshDescription,
    service: InboundService | OutboundService,
    direction: Direction,
) -> dict[str, object]:
    inbound = direction is Direction.INBOUND
    name = inbound_name(service.name) if inbound else outbound_name(service.name)
    config: dict[str, object] = {
        "@type": f"{_FILTERS}network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
        "access_log": _log(mesh, service, direction, RecordKind.CONNECTION),
        **_periodic(mesh),
    }
    if inbound:
        config["max_early_data_bytes"] = _EARLY_BYTES
    if inbound and mesh.gate is None:
        # By default Envoy connects to the application while the handshake is still going on: a
        # stranger could make it accept connections. The gate starts this filter when it opens.
        config["upstream_connect_mode"] = "ON_DOWNSTREAM_TLS_HANDSHAKE"
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _periodic(mesh: MeshDescription) -> dict[str, object]:
    if not mesh.log_interval_seconds:
        return {}
    interval = f"{mesh.log_interval_seconds:.3f}s"
    return {"access_log_options": {"access_log_flush_interval": interval}}


def _generation(peer: AdmittedPeer) -> dict[str, object]:
    """Return metadata that makes the chain another one whenever the peer's generation changes.

    Envoy compares chains by their whole content, and ends the connections of one that changed.
    """
    return {"filter_metadata": {"troth": {"peer_generation": peer.generation}}}


def _log(
    mesh: MeshDescription,
    service: InboundService | OutboundService,
    direction: Direction,
    kind: RecordKind,
) -> list[dict[str, object]]:
    return access_log(
        mesh.access_log,
        kind=kind,
        direction=direction,
        service=service.name,
        certificates=mesh.log_certificates,
    )


def envoy_address(address: Address) -> dict[str, object]:
    """Return `address` as `envoy.config.core.v3.Address`."""
    if address.port is None:
        return {"pipe": {"path": address.host, "mode": 0o600}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}
