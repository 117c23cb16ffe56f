# SPDX-License-Identifier: Apache-2.0
"""Clusters that speak TLS to peers: the client's gate between balancing and TLS.

Stock Envoy has no upstream filter from a module, so a cluster becomes two, with an internal listener
that holds the gate between them::

    routes -> NAME (balances, pools) -> listener gate/NAME (gate) -> cluster gate/NAME (TLS)

Where every endpoint is an IP address, NAME keeps its endpoints one by one, and with them everything
that is done per endpoint: load balancing of requests, outlier detection. gate/NAME then connects to
the address that NAME chose. Names that Envoy resolves, and endpoints that another service gives
(EDS), stay with gate/NAME: connections are balanced there, not requests.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from troth.control_plane.envoy.description import GateSetting
from troth.control_plane.envoy.gate import hop_address, hop_socket
from troth.control_plane.envoy.patch import tls
from troth.control_plane.envoy.patch.listeners import (
    EARLY_BYTES,
    MAX_UNGATED_SECONDS,
    hop_filters,
)
from troth.control_plane.envoy.patch.remarks import Remarks, Tree, type_name
from troth.control_plane.envoy.patch.wish import PatchWish

__all__ = ["Hop", "hop_of", "patch_cluster"]

Hop = tuple[list[Tree], list[Tree]]
"""The clusters that replace one, and the listeners that come with them."""

_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ORIGINAL_DST: Final = "envoy.filters.listener.original_dst"
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters."
_MAX_PER_CLUSTER: Final = 65_536
# How a cluster reaches its endpoints is the inner one's affair; the rest stays with its name.
_REACHING: Final = ("upstream_connection_options", "upstream_bind_config")
_RESOLVED: Final = ("STRICT_DNS", "LOGICAL_DNS", "EDS")
_PROTOCOLS: Final = (
    "typed_extension_protocol_options",
    "http2_protocol_options",
    "http_protocol_options",
    "common_http_protocol_options",
    "max_requests_per_connection",
    "circuit_breakers",
    "metadata",
    "track_timeout_budgets",
    "track_cluster_stats",
)


def patch_cluster(cluster: Tree, wish: PatchWish, remarks: Remarks) -> Hop:
    """Return what takes the place of `cluster`; the cluster itself where nothing is done."""
    name = str(cluster.get("name", ""))
    place = f"cluster {name}"
    socket = cluster.get("transport_socket")
    unchanged: Hop = ([cluster], [])
    if cluster.get("transport_socket_matches"):
        remarks.left(
            place,
            "transport_socket_matches choose TLS by endpoint",
            "give each kind of endpoint a cluster of its own",
        )
        return unchanged
    kind = type_name(socket)
    if socket is None or kind in ("RawBuffer", "InternalUpstreamTransport"):
        return unchanged
    if kind != "UpstreamTlsContext":
        remarks.left(
            place,
            f"its transport socket ({kind or 'without a type'}) is not plainly TLS",
            "use envoy.transport_sockets.tls there",
        )
        return unchanged
    if name not in wish.outbound:
        remarks.left(
            place,
            "nothing says which peer it leads to",
            f"add [[outbound]] with its SPIFFE ID to the agent's configuration and say"
            f" --server {name}=SERVICE if its name is another, or --leave {name}",
        )
        return unchanged
    service, spiffe_id = wish.outbound[name]
    context = tls.upstream(
        socket["typed_config"],
        place,
        remarks,
        service=service,
        spiffe_id=spiffe_id,
        announce=wish.announce,
    )
    if context is None:
        return unchanged
    if wish.gate is None:
        socket["typed_config"] = context
        _bound_lifetime(cluster, place, remarks)
        remarks.patched(place, f"TLS to {spiffe_id} alone, by keys that the agent admits")
        return unchanged
    objection = _objection(cluster, context)
    if objection:
        remarks.left(place, *objection)
        return unchanged
    _set_alpn(context, cluster)
    inner_socket = copy.deepcopy(socket) | {"typed_config": context}
    listener = _hop_listener(name, wish, wish.gate, service)
    addresses = _numeric_addresses(cluster)
    if addresses is not None:
        listener["listener_filters"] = [
            {
                "name": _ORIGINAL_DST,
                "typed_config": {"@type": f"{_FILTERS}listener.original_dst.v3.OriginalDst"},
            }
        ]
        remarks.patched(place, f"the gate towards {spiffe_id}, endpoint by endpoint")
        return _per_endpoint(cluster, inner_socket), [listener]
    remarks.patched(place, f"the gate towards {spiffe_id}")
    remarks.note(
        place,
        "its endpoints are not IP addresses in this file: connections are balanced over them,"
        " no longer requests",
        "list IP addresses to balance requests",
    )
    return _behind(cluster, inner_socket), [listener]


def hop_of(name: str) -> str:
    """Return the name of the client gate's listener, and of the cluster behind it."""
    return f"gate/{name}"


def _objection(cluster: Tree, context: Tree) -> tuple[str, str] | None:
    """Return why the gate cannot stand before this cluster, and the remedy."""
    options = (cluster.get("typed_extension_protocol_options") or {}).get(_OPTIONS) or {}
    if "auto_config" in options:
        return (
            "its HTTP version is negotiated in TLS, which is now behind the gate",
            "say explicit_http_config in the place of auto_config",
        )
    names = options.get("upstream_http_protocol_options") or {}
    if (names.get("auto_sni") or context.get("auto_host_sni")) and not context.get("sni"):
        return (
            "its server name (SNI) comes from each request, which ends before the gate",
            "say sni in the TLS context",
        )
    if cluster.get("filters"):
        return "it has upstream network filters", "remove them, or move them to a listener"
    kind = cluster.get("type", "STATIC")
    if cluster.get("cluster_type") or kind not in ("STATIC", *_RESOLVED):
        return (
            f"its endpoints come by {cluster['cluster_type'].get('name') if cluster.get('cluster_type') else kind}",
            "use STATIC, STRICT_DNS, LOGICAL_DNS or EDS",
        )
    if cluster.get("health_checks"):
        # Seen in Envoy 1.40: every check fails, and the cluster has no healthy endpoint.
        return (
            "Envoy runs active health checks where internal listeners do not exist",
            "use outlier_detection in the place of health_checks",
        )
    return None


def _set_alpn(context: Tree, cluster: Tree) -> None:
    """Name the HTTP version in TLS, as Envoy does for a cluster that has both."""
    common = context["common_tls_context"]
    if common.get("alpn_protocols"):
        return
    options = (cluster.get("typed_extension_protocol_options") or {}).get(_OPTIONS) or {}
    explicit = options.get("explicit_http_config") or {}
    if "http2_protocol_options" in explicit or "http2_protocol_options" in cluster:
        common["alpn_protocols"] = ["h2"]


def _per_endpoint(cluster: Tree, socket: Tree) -> list[Tree]:
    name = cluster["name"]
    outer = copy.deepcopy(cluster)
    reaching: Tree = {key: outer.pop(key) for key in _REACHING if key in outer}
    outer["type"] = "STATIC"
    outer["transport_socket"] = hop_socket(endpoint_metadata=_ORIGINAL_DST)
    for endpoint in _endpoints(outer):
        address = _numeric(endpoint["endpoint"])
        endpoint["endpoint"]["address"] = hop_address(hop_of(name), endpoint=address)
        metadata = endpoint.setdefault("metadata", {}).setdefault("filter_metadata", {})
        metadata[_ORIGINAL_DST] = {"local": address}
    inner: Tree = {
        "name": hop_of(name),
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": cluster.get("connect_timeout", "5s"),
        "circuit_breakers": _wide(),
        "transport_socket": socket,
        **reaching,
    }
    return [outer, inner]


def _behind(cluster: Tree, socket: Tree) -> list[Tree]:
    name = cluster["name"]
    inner: Tree = copy.deepcopy(cluster)
    inner |= {"name": hop_of(name), "transport_socket": socket}
    outer: Tree = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": cluster.get("connect_timeout", "5s"),
        "transport_socket": hop_socket(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": hop_address(hop_of(name))}}]}],
        },
    }
    outer |= {key: inner.pop(key) for key in _PROTOCOLS if key in inner}
    inner["circuit_breakers"] = _wide()
    if inner.get("type") == "EDS":
        eds = inner.setdefault("eds_cluster_config", {})
        eds.setdefault("service_name", name)
    elif isinstance(inner.get("load_assignment"), dict):
        inner["load_assignment"]["cluster_name"] = hop_of(name)
    return [outer, inner]


def _hop_listener(name: str, wish: PatchWish, gate: GateSetting, service: str) -> Tree:
    proxy: Tree = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_FILTERS}network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": hop_of(name),
            "cluster": hop_of(name),
            # Without early data the gate could not say the first word.
            "max_early_data_bytes": EARLY_BYTES,
        },
    }
    return {
        "name": hop_of(name),
        "internal_listener": {},
        "filter_chains": [{"filters": hop_filters(proxy, wish, gate, service)}],
    }


def _bound_lifetime(cluster: Tree, place: str, remarks: Remarks) -> None:
    options = (cluster.get("typed_extension_protocol_options") or {}).get(_OPTIONS)
    if isinstance(options, dict):
        common = options.setdefault("common_http_protocol_options", {})
        common.setdefault("max_connection_duration", f"{MAX_UNGATED_SECONDS}s")
        return
    remarks.note(
        place,
        "nothing bounds how long its connections live, so a withdrawn peer keeps them",
        f"for HTTP, give it typed_extension_protocol_options with max_connection_duration:"
        f" {MAX_UNGATED_SECONDS}s",
    )


def _endpoints(cluster: Tree) -> Iterator[Tree]:
    assignment = cluster.get("load_assignment") or {}
    for locality in assignment.get("endpoints") or []:
        yield from locality.get("lb_endpoints") or []


def _numeric_addresses(cluster: Tree) -> list[str] | None:
    """Return `ip:port` of every endpoint, or None where one has no such address."""
    if cluster.get("type", "STATIC") not in ("STATIC", "STRICT_DNS") or cluster.get("cluster_type"):
        return None
    found = [_numeric(each.get("endpoint") or {}) for each in _endpoints(cluster)]
    return found if found and all(found) else None


def _numeric(endpoint: Tree) -> str:
    address = endpoint.get("address") or {}
    socket: Any = address.get("socket_address") or {}
    # Another address for health checks, or several to try, cannot be said of an internal one.
    special = endpoint.get("additional_addresses") or endpoint.get("health_check_config")
    if special or not socket.get("port_value"):
        return ""
    try:
        ip = ipaddress.ip_address(str(socket.get("address")))
    except ValueError:
        return ""
    return f"[{ip}]:{socket['port_value']}" if ip.version == 6 else f"{ip}:{socket['port_value']}"


def _wide() -> Tree:
    # The cluster before the gate limits; Envoy's default of 1024 would be a second, hidden limit.
    limit = {
        "max_connections": _MAX_PER_CLUSTER,
        "max_pending_requests": _MAX_PER_CLUSTER,
        "max_requests": _MAX_PER_CLUSTER,
    }
    return {"thresholds": [limit]}
