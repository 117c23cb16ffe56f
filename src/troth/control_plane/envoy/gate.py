# SPDX-License-Identifier: Apache-2.0
"""The gate in Envoy's configuration: the filter, the client's internal hop, and what it leaves.

Stock Envoy has no upstream network filter from a module, so on the client's side the gate stands in
an internal listener between the cluster that balances load and the one that does TLS. What the
gate knows of an admitted peer is filter state: for RBAC, request headers and access logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from troth.control_plane.envoy.description import GateSetting

__all__ = [
    "GATE_NAME",
    "STATE_COLUMNS",
    "gate_filter",
    "hop_address",
    "hop_socket",
    "state_headers",
]

GATE_NAME = "troth.gate"
_EXTENSIONS = "type.googleapis.com/envoy.extensions."

# Access log column to filter state; docs/reference/gate-protocol.md section 6 has the keys.
STATE_COLUMNS = {
    "attestation": "troth.status",
    "result": "troth.result",
    "tier": "troth.tier",
    "binding": "troth.binding",
    "proof_key": "troth.proof_key",
    "scheme": "troth.scheme",
    "verifier": "troth.verifier",
    "result_issued_at": "troth.result_issued_at",
    "policy_digest": "troth.policy_digest",
    "insecure": "troth.insecure",
}
_HEADERS = (
    "status",
    "result",
    "tier",
    "binding",
    "scheme",
    "component",
    "layer",
    "verifier",
    "result_issued_at",
    "policy_digest",
    "spiffe_id",
    "insecure",
)


def gate_filter(gate: GateSetting, *, role: str, label: str = "") -> dict[str, object]:
    """Return the gate as a network filter; it comes first in its chain.

    Args:
        gate: where module and agent are.
        role: "client" or "server".
        label: given to the agent with each connection: the service that it is for.
    """
    words = [f"agent={gate.agent_socket}", f"role={role}", f"exchange_ms={gate.exchange_ms}"]
    if label:
        words.append(f"label={label}")
    if role == "server" and gate.permissive:
        words.append("mode=permissive")
    return {
        "name": GATE_NAME,
        "typed_config": {
            "@type": f"{_EXTENSIONS}filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
            "dynamic_module_config": {
                "module": {"local": {"filename": gate.module}},
                "do_not_close": True,
            },
            "filter_name": "gate",
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": " ".join(words),
            },
        },
    }


def hop_address(listener: str, *, endpoint: str = "") -> dict[str, object]:
    """Return the address of an internal listener, or of one endpoint that it leads to."""
    address = {"server_listener_name": listener}
    return {"envoy_internal_address": address | ({"endpoint_id": endpoint} if endpoint else {})}


def hop_socket(*, endpoint_metadata: str = "") -> dict[str, object]:
    """Return the transport socket towards an internal listener.

    Args:
        endpoint_metadata: name of metadata of the endpoint that the internal listener gets.
    """
    passed = [{"kind": {"host": {}}, "name": endpoint_metadata}] if endpoint_metadata else []
    return {
        "name": "envoy.transport_sockets.internal_upstream",
        "typed_config": {
            "@type": (
                f"{_EXTENSIONS}transport_sockets.internal_upstream.v3.InternalUpstreamTransport"
            ),
            **({"passthrough_metadata": passed} if passed else {}),
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}transport_sockets.raw_buffer.v3.RawBuffer"
                },
            },
        },
    }


def state_headers() -> dict[str, object]:
    """Return how `x-troth-*` headers are made: those from outside go, the gate's are put on."""
    names = [f"x-troth-{name.replace('_', '-')}" for name in _HEADERS]
    return {
        "request_headers_to_remove": names,
        "request_headers_to_add": [
            {
                "header": {"key": header, "value": f"%FILTER_STATE(troth.{name}:PLAIN)%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                "keep_empty_value": False,
            }
            for name, header in zip(_HEADERS, names, strict=True)
        ],
    }
