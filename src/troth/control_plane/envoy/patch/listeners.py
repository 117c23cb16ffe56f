# SPDX-License-Identifier: Apache-2.0
"""Listeners that terminate mutual TLS: the gate, or ext_authz, as their first network filter."""

from __future__ import annotations

import re
from typing import Any, Final

from troth.control_plane.envoy.access_log import (
    Direction,
    RecordKind,
    access_log,
    is_access_log,
)
from troth.control_plane.envoy.bootstrap import AGENT_CLUSTER
from troth.control_plane.envoy.description import GateSetting
from troth.control_plane.envoy.gate import GATE_NAME, gate_filter, state_headers
from troth.control_plane.envoy.patch import tls
from troth.control_plane.envoy.patch.remarks import Remarks, Tree, objects, type_name
from troth.control_plane.envoy.patch.wish import PatchWish, Profile

__all__ = ["EXT_AUTHZ_NAME", "MAX_UNGATED_SECONDS", "ext_authz_filter", "patch_listener"]

EXT_AUTHZ_NAME: Final = "troth.ext_authz"
EARLY_BYTES: Final = 64 * 1024
MAX_UNGATED_SECONDS: Final = 600
"""Longest life of a connection without the gate, which nobody can end when its peer is withdrawn."""
_AUTHZ_TIMEOUT: Final = "2s"
_FORGEABLE: Final = frozenset({"FORWARD_ONLY", "APPEND_FORWARD", "ALWAYS_FORWARD_ONLY"})


def patch_listener(listener: Tree, wish: PatchWish, remarks: Remarks) -> None:
    """Patch every filter chain of `listener` that demands a client certificate."""
    name = str(listener.get("name") or _address(listener) or "without a name")
    place = f"listener {name}"
    if "internal_listener" in listener and _refresh_hop(listener, wish):
        return
    chains = [
        (f"{place}, filter chain {chain.get('name') or number}", chain)
        for number, chain in enumerate(objects(listener, "filter_chains", place))
    ]
    default = listener.get("default_filter_chain")
    if isinstance(default, dict):
        chains.append((f"{place}, default filter chain", default))
    label = wish.inbound.get(_address(listener), "") or name
    patched = [_patch_chain(chain, where, wish, remarks, label=label) for where, chain in chains]
    if any(patched):
        add_log(listener, wish, RecordKind.REFUSED, Direction.INBOUND, label)


def add_log(
    config: Tree, wish: PatchWish, kind: RecordKind, direction: Direction, service: str
) -> None:
    """Have Troth's own lines written at this place, beside what else is logged there."""
    wanted = access_log(
        wish.access_log, kind=kind, direction=direction, service=service, certificates=False
    )
    there = config.get("access_log") or []
    others = [each for each in there if not is_access_log(each)]
    if wanted or len(others) != len(there):
        config["access_log"] = [*others, *wanted]


def _refresh_hop(listener: Tree, wish: PatchWish) -> bool:
    """Bring a client's hop, made earlier, to what is wished now; say if it was one."""
    for chain in listener.get("filter_chains") or []:
        filters = chain.get("filters") or []
        if not filters or filters[0].get("name") != GATE_NAME:
            continue
        words = str(filters[0].get("typed_config", {}).get("filter_config", {}).get("value", ""))
        if "role=client" not in words.split():
            continue
        if wish.gate is not None:
            chain["filters"] = hop_filters(filters[-1], wish, wish.gate, _label_of(words))
        return True
    return False


def hop_filters(proxy: Tree, wish: PatchWish, gate: GateSetting, service: str) -> list[Tree]:
    """Return the filters of a client's hop: the gate, and the proxy behind it."""
    add_log(proxy["typed_config"], wish, RecordKind.CONNECTION, Direction.OUTBOUND, service)
    return [gate_filter(gate, role="client", label=service), proxy]


def _label_of(words: str) -> str:
    found = re.search(r"(?:^|\s)label=(\S+)", words)
    return found[1] if found else ""


def _patch_chain(chain: Tree, place: str, wish: PatchWish, remarks: Remarks, *, label: str) -> bool:
    """Patch a chain, and say whether it was."""
    socket = chain.get("transport_socket")
    kind = type_name(socket)
    if socket is None:
        remarks.not_mesh(place, "plain text: there is no peer to attest")
        return False
    if kind == "QuicDownstreamTransport":
        _judge_quic(socket["typed_config"], place, remarks)
        return False
    if kind != "DownstreamTlsContext":
        remarks.left(
            place,
            f"its transport socket ({kind or 'without a type'}) is not plainly TLS",
            "use envoy.transport_sockets.tls there",
        )
        return False
    context: Tree = socket["typed_config"]
    if context.get("require_client_certificate") is not True:
        _judge_optional(context, place, remarks)
        return False
    permissive = wish.gate is not None and wish.gate.permissive
    patched = tls.downstream(context, place, remarks, permissive=permissive)
    if patched is None:
        return False
    filters = [
        each
        for each in objects(chain, "filters", place)
        if each.get("name") not in (GATE_NAME, EXT_AUTHZ_NAME)
    ]
    for each in filters:
        _patch_filter(each, place, wish, remarks, label=label)
    socket["typed_config"] = patched
    if wish.gate is not None:
        first = gate_filter(wish.gate, role="server", label=_words(label))
        mode = "permissive: peers without a gate are marked" if permissive else "strict"
        remarks.patched(place, f"the gate, {mode}")
    else:
        first = ext_authz_filter()
        remarks.patched(place, "ext_authz by the agent")
    chain["filters"] = [first, *filters]
    return True


def _judge_quic(transport: Tree, place: str, remarks: Remarks) -> None:
    context = transport.get("downstream_tls_context") or {}
    if context.get("require_client_certificate") is not True:
        remarks.not_mesh(place, "QUIC without client certificates")
    elif transport.get("enable_early_data") is not False:
        remarks.insecure(
            place,
            "QUIC with 0-RTT: requests are served, and can be replayed, before anybody is attested",
            "set enable_early_data: false, or remove the listener",
        )
    else:
        remarks.left(
            place,
            "QUIC has no network filters, so nobody is attested there",
            "let peers of the mesh use a TCP listener",
        )


def _judge_optional(context: Tree, place: str, remarks: Remarks) -> None:
    common = context.get("common_tls_context") or {}
    if any("validation_context" in key for key in common):
        remarks.left(
            place,
            "it verifies client certificates but does not demand them",
            "set require_client_certificate: true, or name the listener with --leave",
        )
    else:
        remarks.not_mesh(place, "it asks for no client certificate")


def _patch_filter(each: Tree, place: str, wish: PatchWish, remarks: Remarks, *, label: str) -> None:
    kind = type_name(each)
    config: Any = each.get("typed_config")
    if kind == "TcpProxy":
        _patch_tcp(config, wish)
        add_log(config, wish, RecordKind.CONNECTION, Direction.INBOUND, label)
    elif kind == "HttpConnectionManager":
        _patch_http(config, place, wish, remarks)
        add_log(config, wish, RecordKind.REQUEST, Direction.INBOUND, label)
    elif wish.profile is Profile.NO_CODE and "rbac" not in str(each.get("name")):
        remarks.note(
            place,
            f"{each.get('name')}: nothing bounds how long its connections live",
            "a withdrawn peer keeps them until they end",
        )


def _patch_tcp(config: Tree, wish: PatchWish) -> None:
    config.setdefault("max_early_data_bytes", EARLY_BYTES)
    if wish.profile is Profile.GATE:
        # The gate starts this filter when it opens; the default then serves every protocol.
        config.pop("upstream_connect_mode", None)
    else:
        # ext_authz decides at the first octets: until then nothing is connected upstream.
        config["upstream_connect_mode"] = "ON_DOWNSTREAM_DATA"
        config.setdefault("max_downstream_connection_duration", f"{MAX_UNGATED_SECONDS}s")


def _patch_http(config: Tree, place: str, wish: PatchWish, remarks: Remarks) -> None:
    if config.get("forward_client_cert_details") in _FORGEABLE:
        remarks.note(
            place,
            "x-forwarded-client-cert of the peer is passed on: it may claim to be anybody",
            "set forward_client_cert_details: SANITIZE_SET",
        )
    if wish.profile is Profile.NO_CODE:
        common = config.setdefault("common_http_protocol_options", {})
        common.setdefault("max_connection_duration", f"{MAX_UNGATED_SECONDS}s")
    headers = state_headers()
    if wish.profile is Profile.NO_CODE:
        del headers["request_headers_to_add"]
    routes = config.get("route_config")
    if not isinstance(routes, dict):
        remarks.note(
            place,
            "its routes are elsewhere, so x-troth-* headers of a peer are passed on as they come",
            "remove them in the routes, if anything trusts them",
        )
        return
    for key, wanted in headers.items():
        _merge(routes, key, wanted)


def _merge(routes: Tree, key: str, wanted: object) -> None:
    there = routes.setdefault(key, [])
    if isinstance(wanted, list) and isinstance(there, list):
        there.extend(each for each in wanted if each not in there)


def ext_authz_filter() -> Tree:
    """Return ext_authz as a network filter, decided by the agent; it comes first in its chain."""
    return {
        "name": EXT_AUTHZ_NAME,
        "typed_config": {
            "@type": ("type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"),
            "stat_prefix": "troth",
            "transport_api_version": "V3",
            "failure_mode_allow": False,
            # Without it the agent would see a name that TLS verified, and no result.
            "include_peer_certificate": True,
            "grpc_service": {
                "envoy_grpc": {"cluster_name": AGENT_CLUSTER},
                "timeout": _AUTHZ_TIMEOUT,
            },
        },
    }


def _address(listener: Tree) -> str:
    address = listener.get("address")
    socket = address.get("socket_address") if isinstance(address, dict) else None
    if not isinstance(socket, dict):
        return ""
    return f"{socket.get('address')}:{socket.get('port_value')}"


def _words(label: str) -> str:
    """Return `label` as the gate's configuration takes it: words are separated by spaces."""
    return re.sub(r"[\s;=]", "_", label)[:128]
