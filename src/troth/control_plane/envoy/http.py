# SPDX-License-Identifier: Apache-2.0
"""The HTTP part of the generated configuration."""

from __future__ import annotations

from troth.control_plane.envoy.access_log import Direction
from troth.control_plane.envoy.gate import state_headers

__all__ = ["http_connection_manager", "http_options"]

_FILTERS = "type.googleapis.com/envoy.extensions.filters."
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# A client that has begun a request must finish its headers; Envoy's default is to wait for ever.
_REQUEST_HEADERS_TIMEOUT = "15s"
# After a stream broke off, the client's connection stays this long so that what was written before
# reaches it. Envoy's default of 1 s would be how late a client learns that its peer is gone.
_DELAYED_CLOSE = "0.05s"
_MAX_CONCURRENT_STREAMS = 1024
# 64 KiB per stream and 1 MiB per connection bound what one connection can make Envoy buffer
# (Envoy's defaults are 16 MiB and 24 MiB).
_STREAM_WINDOW_BYTES = 64 * 1024
_CONNECTION_WINDOW_BYTES = 1024 * 1024


def http_connection_manager(
    *,
    cluster: str,
    direction: Direction,
    forward_certificate: bool,
    request_timeout_seconds: float,
    log: list[dict[str, object]],
    grpc_cluster: str = "",
    gated: bool = False,
) -> dict[str, object]:
    """Return the network filter that serves HTTP/1.1, HTTP/2 and WebSocket to `cluster`.

    gRPC goes to `grpc_cluster` where there is one.

    Nothing is retried, and no timeout ends a stream that is in progress unless
    `request_timeout_seconds` asks for one. `x-forwarded-client-cert` from outside is dropped; an
    inbound application gets Envoy's own (hash, subject and URI of the peer's certificate).
    `x-troth-*` from outside is dropped in any case, and made from the gate's words where `gated`.
    """
    timeout = f"{request_timeout_seconds:.9f}s"
    routes: list[dict[str, object]] = [
        {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": timeout}}
    ]
    if grpc_cluster:
        to_grpc = {"cluster": grpc_cluster, "timeout": timeout}
        routes.insert(0, {"match": {"prefix": "/", "grpc": {}}, "route": to_grpc})
    route_config: dict[str, object] = {
        "name": cluster,
        "virtual_hosts": [{"name": cluster, "domains": ["*"], "routes": routes}],
    }
    config: dict[str, object] = {
        "@type": f"{_FILTERS}network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": cluster,
        "codec_type": "AUTO",
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": "0s",
        "request_headers_timeout": _REQUEST_HEADERS_TIMEOUT,
        "delayed_close_timeout": _DELAYED_CLOSE,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": _http2(remote=direction is Direction.INBOUND),
        "route_config": route_config,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_FILTERS}http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
        "access_log": log,
    }
    if direction is Direction.INBOUND:
        # Peers are outside: their x-envoy-* headers steer nothing here (retries, timeouts), and
        # their address is the one that x-forwarded-for ends with.
        config |= {
            "use_remote_address": True,
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {
                "uri": True,
                "subject": True,
                "cert": forward_certificate,
            },
        }
        headers = state_headers()
        if not gated:
            del headers["request_headers_to_add"]
        route_config |= headers
    else:
        config |= {"forward_client_cert_details": "SANITIZE"}
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def http_options(*, http2: bool, remote: bool) -> dict[str, object]:
    """Return the protocol options of a cluster whose endpoints speak HTTP/2 or HTTP/1.1.

    Args:
        http2: HTTP/2 (without negotiation in clear text), else HTTP/1.1.
        remote: whether the endpoint is another proxy: then a silent connection is probed.
    """
    explicit = (
        {"http2_protocol_options": _http2(remote=remote)}
        if http2
        else {"http_protocol_options": {}}
    )
    return {
        _OPTIONS: {
            "@type": f"type.googleapis.com/{_OPTIONS}",
            "explicit_http_config": explicit,
        }
    }


def _http2(*, remote: bool) -> dict[str, object]:
    options: dict[str, object] = {
        "allow_connect": True,  # a WebSocket crosses HTTP/2 as an extended CONNECT (RFC 8441)
        "max_concurrent_streams": _MAX_CONCURRENT_STREAMS,
        "initial_stream_window_size": _STREAM_WINDOW_BYTES,
        "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
    }
    if remote:
        options["connection_keepalive"] = {"interval": "30s", "timeout": "10s"}
    return options
