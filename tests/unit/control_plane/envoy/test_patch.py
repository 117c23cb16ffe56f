# SPDX-License-Identifier: Apache-2.0
"""Patching existing configurations; that Envoy takes the results is seen in tests/interop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from troth.control_plane.envoy.bootstrap import AGENT_CLUSTER
from troth.control_plane.envoy.description import GateSetting
from troth.control_plane.envoy.patch.listeners import EXT_AUTHZ_NAME, MAX_UNGATED_SECONDS
from troth.control_plane.envoy.patch.patching import Patched, patch
from troth.control_plane.envoy.patch.remarks import Kind
from troth.control_plane.envoy.patch.wish import PatchWish
from troth.control_plane.envoy.tls_contexts import server_name
from troth.errors import ConfigurationError

GATE = GateSetting(module="/lib/gate.so", agent_socket="/run/gate")
PEER = "spiffe://example.org/orders"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
FILTERS = "type.googleapis.com/envoy.extensions.filters.network."
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Tree = dict[str, Any]
Change = Callable[[Tree], None]


def tcp(**fields: object) -> Tree:
    config = {"@type": f"{FILTERS}tcp_proxy.v3.TcpProxy", "stat_prefix": "t", "cluster": "app"}
    return {"name": "tcp", "typed_config": {**config, **fields}}


def server(*filters: Tree, **context: object) -> Tree:
    typed = {
        "@type": f"{TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"filename": "c"}}],
            "validation_context": {"trusted_ca": {"filename": "ca"}},
        },
        **context,
    }
    chain = {
        "transport_socket": {"name": "tls", "typed_config": typed},
        "filters": list(filters) or [tcp()],
    }
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 8443}}  # noqa: S104 - as services listen
    listener = {"name": "in", "address": address, "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": []}}


def client(*addresses: str, **fields: object) -> Tree:
    endpoints = [
        {
            "endpoint": {"address": {"socket_address": {"address": each, "port_value": 443}}},
            "load_balancing_weight": 2,
        }
        for each in addresses or ("10.0.0.1", "10.0.0.2")
    ]
    typed = {
        "@type": f"{TLS}UpstreamTlsContext",
        "sni": "orders",
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": "ca"}}},
    }
    cluster = {
        "name": "orders",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "transport_socket": {"name": "tls", "typed_config": typed},
        "load_assignment": {
            "cluster_name": "orders",
            "endpoints": [{"lb_endpoints": endpoints}],
        },
        **fields,
    }
    return {"static_resources": {"clusters": [cluster]}}


def patched(config: Tree, *, gate: GateSetting | None = GATE, **fields: Any) -> Patched:
    given: dict[str, Any] = {"outbound": {"orders": ("orders", PEER)}, **fields}
    before = copy.deepcopy(config)
    result = patch(
        config, PatchWish(node_id="edge", xds_socket=Path("/run/xds"), gate=gate, **given)
    )
    assert config == before, "the input is not changed"
    return result


def context_of(result: Patched) -> Tree:
    assert result.config is not None
    chain = result.config["static_resources"]["listeners"][0]["filter_chains"][0]
    return chain["transport_socket"]["typed_config"]


def filters_of(result: Patched) -> list[Tree]:
    assert result.config is not None
    return result.config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]


def clusters_of(result: Patched) -> dict[str, Tree]:
    assert result.config is not None
    return {each["name"]: each for each in result.config["static_resources"]["clusters"]}


def test_the_gate_comes_first_and_secrets_come_from_the_agent() -> None:
    result = patched(server({"name": "limit"}, tcp()))
    assert [each["name"] for each in filters_of(result)] == ["troth.gate", "limit", "tcp"]
    words = filters_of(result)[0]["typed_config"]["filter_config"]["value"]
    assert words == "agent=/run/gate role=server exchange_ms=10000 label=in"
    assert filters_of(result)[2]["typed_config"]["max_early_data_bytes"] == 65536
    common = context_of(result)["common_tls_context"]
    assert "tls_certificates" not in common
    assert common["tls_certificate_sds_secret_configs"][0]["name"] == "troth/node"
    secret = common["combined_validation_context"]["validation_context_sds_secret_config"]
    assert secret["name"] == "troth/clients"
    assert AGENT_CLUSTER in clusters_of(result)
    assert result.config is not None
    assert result.config["node"] == {"id": "edge", "cluster": "troth"}


def test_nothing_is_resumed_and_nothing_older_than_tls_1_3_is_spoken() -> None:
    result = patched(server(session_ticket_keys={"keys": [{"filename": "k"}]}))
    context = context_of(result)
    assert context["disable_stateless_session_resumption"] is True
    assert context["disable_stateful_session_resumption"] is True
    assert "session_ticket_keys" not in context
    assert context["common_tls_context"]["tls_params"] == {
        "tls_maximum_protocol_version": "TLSv1_3",
        "tls_minimum_protocol_version": "TLSv1_3",
    }


def test_the_label_is_the_agents_name_for_the_service_at_that_address() -> None:
    result = patched(server(), inbound={"0.0.0.0:8443": "web"})
    assert filters_of(result)[0]["typed_config"]["filter_config"]["value"].endswith("label=web")


def test_a_permissive_gate_says_so_and_leaves_the_lowest_version() -> None:
    lenient = GateSetting(module="/lib/gate.so", agent_socket="/run/gate", permissive=True)
    result = patched(server(), gate=lenient)
    words = filters_of(result)[0]["typed_config"]["filter_config"]["value"]
    assert "mode=permissive" in words
    assert (
        "mode=permissive"
        not in filters_of(patched(server()))[0]["typed_config"]["filter_config"]["value"]
    )
    parameters = context_of(result)["common_tls_context"]["tls_params"]
    assert parameters == {"tls_maximum_protocol_version": "TLSv1_3"}


def test_matchers_about_spiffe_ids_stay() -> None:
    matcher = {"san_type": "URI", "matcher": {"exact": "spiffe://example.org/shop"}}
    config = server(
        common_tls_context={"validation_context": {"match_typed_subject_alt_names": [matcher]}}
    )
    common = context_of(patched(config))["common_tls_context"]
    default = common["combined_validation_context"]["default_validation_context"]
    assert default == {"match_typed_subject_alt_names": [matcher]}


@pytest.mark.parametrize(
    "validation",
    [
        {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "shop"}}]},
        {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "urn:x"}}]},
        {"match_subject_alt_names": [{"exact": "shop"}]},
        {"verify_certificate_spki": ["AAAA"]},
        {"verify_certificate_hash": ["00"]},
        {"crl": {"filename": "crl"}},
        {"custom_validator_config": {"name": "somebody.else"}},
    ],
)
def test_a_listener_that_would_admit_more_peers_is_left_alone(validation: Tree) -> None:
    config = server(common_tls_context={"validation_context": validation})
    result = patched(config)
    assert result.config == config
    (remark,) = result.of_kind(Kind.LEFT)
    assert remark.place == "listener in, filter chain 0"
    assert remark.remedy


@pytest.mark.parametrize(
    "common",
    [
        {"validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"}},
        {"validation_context": {"allow_expired_certificate": True}},
        {
            "combined_validation_context": {
                "default_validation_context": {"allow_expired_certificate": True}
            }
        },
        {"key_log": {"path": "/tmp/keys"}},  # noqa: S108 - the point of the test
        {"custom_handshaker": {"name": "x"}},
    ],
)
def test_what_would_undo_attestation_is_refused_with_a_remedy(common: Tree) -> None:
    result = patched(server(common_tls_context=common))
    assert result.config is None
    (remark,) = result.of_kind(Kind.INSECURE)
    assert remark.remedy.startswith("remove")


def test_a_client_that_allows_renegotiation_is_refused() -> None:
    config = client()
    typed = config["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]
    typed["allow_renegotiation"] = True
    assert patched(config).config is None
    typed["allow_renegotiation"] = False
    assert patched(config).config is not None


def quic(**fields: object) -> Tree:
    config = server()
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    inner = {"require_client_certificate": True}
    url = "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport"
    typed = {"@type": url, "downstream_tls_context": inner, **fields}
    chain["transport_socket"] = {"name": "quic", "typed_config": typed}
    return config


def test_quic_with_0_rtt_is_refused_and_without_it_named_as_not_patched() -> None:
    assert patched(quic()).config is None
    assert patched(quic(enable_early_data=True)).config is None
    result = patched(quic(enable_early_data=False))
    assert result.config is not None
    assert len(result.of_kind(Kind.LEFT)) == 1


def test_tls_without_client_certificates_is_not_of_the_mesh_unless_it_verifies_some() -> None:
    config = server(require_client_certificate=False, common_tls_context={})
    assert [remark.kind for remark in patched(config).remarks] == [Kind.NOT_MESH]
    optional = server(require_client_certificate=False)
    assert [remark.kind for remark in patched(optional).remarks] == [Kind.LEFT]
    assert not patched(optional, leave=frozenset({"in"})).remarks


def test_each_endpoint_stays_one_behind_the_gate() -> None:
    result = patched(client("10.0.0.1", "fd00::2"))
    outer, inner = clusters_of(result)["orders"], clusters_of(result)["gate/orders"]
    first, second = outer["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert outer["lb_policy"] == "LEAST_REQUEST"
    assert first["load_balancing_weight"] == 2
    assert first["endpoint"]["address"]["envoy_internal_address"] == {
        "server_listener_name": "gate/orders",
        "endpoint_id": "10.0.0.1:443",
    }
    key = "envoy.filters.listener.original_dst"
    assert second["metadata"]["filter_metadata"][key] == {"local": "[fd00::2]:443"}
    assert inner["type"] == "ORIGINAL_DST"
    typed = inner["transport_socket"]["typed_config"]
    assert typed["sni"] == "orders"
    assert typed["max_session_keys"] == 0
    secret = typed["common_tls_context"]["validation_context_sds_secret_config"]
    assert secret["name"] == "troth/servers/orders"
    assert result.config is not None
    (hop,) = result.config["static_resources"]["listeners"]
    gate, proxy = hop["filter_chains"][0]["filters"]
    assert "role=client" in gate["typed_config"]["filter_config"]["value"]
    assert "label=orders" in gate["typed_config"]["filter_config"]["value"]
    assert proxy["typed_config"]["max_early_data_bytes"]
    (extension,) = result.config["bootstrap_extensions"]
    assert extension["name"] == "envoy.bootstrap.internal_listener"


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "STRICT_DNS"},
        {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}, "load_assignment": None},
    ],
)
def test_endpoints_that_envoy_finds_stay_with_the_inner_cluster(fields: Tree) -> None:
    result = patched(client("orders.example", **fields))
    outer, inner = clusters_of(result)["orders"], clusters_of(result)["gate/orders"]
    assert outer["type"] == "STATIC"
    assert inner["type"] == fields["type"]
    assert inner["lb_policy"] == "LEAST_REQUEST"
    if fields["type"] == "EDS":
        assert inner["eds_cluster_config"]["service_name"] == "orders"
    assert any("balanced" in remark.what for remark in result.of_kind(Kind.NOTE))


def http(**options: object) -> Tree:
    return {"typed_extension_protocol_options": {OPTIONS: options}}


@pytest.mark.parametrize(
    ("addresses", "fields"),
    [
        ((), http(auto_config={})),
        ((), {"filters": [{"name": "x"}]}),
        ((), {"transport_socket_matches": [{"name": "x"}]}),
        ((), {"type": "ORIGINAL_DST"}),
        ((), {"cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy"}}),
        ((), {"health_checks": [{}]}),
        (("orders.example",), {"type": "STRICT_DNS", "health_checks": [{}]}),
        ((), {"transport_socket": {"name": "tap", "typed_config": {"@type": "x.Tap"}}}),
    ],
)
def test_a_cluster_that_the_gate_cannot_stand_before_is_named(
    addresses: tuple[str, ...], fields: Tree
) -> None:
    config = client(*addresses, **fields)
    result = patched(config)
    assert result.config == config
    (remark,) = result.of_kind(Kind.LEFT)
    assert remark.place == "cluster orders"
    assert remark.remedy


def test_the_server_name_of_each_request_does_not_reach_behind_the_gate() -> None:
    config = client(**http(upstream_http_protocol_options={"auto_sni": True}))
    assert not patched(config).of_kind(Kind.LEFT), "its sni is in the file"
    typed = config["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]
    del typed["sni"]
    assert patched(config).of_kind(Kind.LEFT)


def test_http_2_is_named_in_tls_as_envoy_would() -> None:
    result = patched(client(**http(explicit_http_config={"http2_protocol_options": {}})))
    inner = clusters_of(result)["gate/orders"]["transport_socket"]["typed_config"]
    assert inner["common_tls_context"]["alpn_protocols"] == ["h2"]


def test_a_node_is_announced_where_that_is_asked_for() -> None:
    config = client()
    typed = config["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]
    typed["auto_host_sni"] = True
    for gate, name in ((GATE, "gate/orders"), (None, "orders")):
        result = patched(config, gate=gate, announce="n1")
        context = clusters_of(result)[name]["transport_socket"]["typed_config"]
        assert context["sni"] == server_name("n1")
        assert "auto_host_sni" not in context


def test_a_cluster_whose_peer_nobody_knows_is_named_unless_it_is_left() -> None:
    config = client()
    result = patched(config, outbound={})
    assert result.config == config
    (remark,) = result.of_kind(Kind.LEFT)
    assert "--leave orders" in remark.remedy
    assert not patched(config, outbound={}, leave=frozenset({"orders"})).remarks


def test_a_cluster_that_demands_another_peer_than_the_agent_is_left() -> None:
    config = client()
    typed = config["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]
    matcher = {"san_type": "URI", "matcher": {"exact": "spiffe://example.org/ledger"}}
    typed["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"] = [matcher]
    assert patched(config).of_kind(Kind.LEFT)
    matcher["matcher"]["exact"] = PEER  # type: ignore[index]
    assert not patched(config).of_kind(Kind.LEFT)


def test_without_code_the_caller_is_shown_to_the_agent_and_connections_end_in_time() -> None:
    result = patched(server(), gate=None)
    authz, proxy = filters_of(result)
    assert authz["name"] == EXT_AUTHZ_NAME
    assert authz["typed_config"]["include_peer_certificate"] is True
    assert authz["typed_config"]["failure_mode_allow"] is False
    assert proxy["typed_config"]["upstream_connect_mode"] == "ON_DOWNSTREAM_DATA"
    limit = f"{MAX_UNGATED_SECONDS}s"
    assert proxy["typed_config"]["max_downstream_connection_duration"] == limit
    cluster = clusters_of(patched(client(**http(auto_config={})), gate=None))["orders"]
    common = cluster["typed_extension_protocol_options"][OPTIONS]["common_http_protocol_options"]
    assert common["max_connection_duration"] == limit


def test_what_was_patched_for_the_gate_is_not_turned_into_the_other_profile() -> None:
    gated = patched(client())
    assert gated.config is not None
    assert patched(gated.config, gate=None).of_kind(Kind.LEFT)


def test_a_moved_agent_is_followed_in_what_was_patched_before() -> None:
    first = patched(client() | {"static_resources": {**client()["static_resources"]}})
    assert first.config is not None
    moved = GateSetting(module="/lib/gate.so", agent_socket="/run/other")
    second = patched(first.config, gate=moved)
    assert second.config is not None
    (hop,) = second.config["static_resources"]["listeners"]
    words = hop["filter_chains"][0]["filters"][0]["typed_config"]["filter_config"]["value"]
    assert words.startswith("agent=/run/other role=client")
    assert words.endswith("label=orders")


def test_headers_of_the_mesh_are_taken_from_peers_and_put_on_by_the_gate() -> None:
    url = f"{FILTERS}http_connection_manager.v3.HttpConnectionManager"
    manager = {"name": "http", "typed_config": {"@type": url, "route_config": {"name": "r"}}}
    routes = filters_of(patched(server(manager)))[1]["typed_config"]["route_config"]
    assert "x-troth-tier" in routes["request_headers_to_remove"]
    assert any(each["header"]["key"] == "x-troth-tier" for each in routes["request_headers_to_add"])
    elsewhere = {"name": "http", "typed_config": {"@type": url, "rds": {}}}
    assert any("elsewhere" in r.what for r in patched(server(elsewhere)).of_kind(Kind.NOTE))


def test_what_a_control_plane_gives_is_named() -> None:
    config = server() | {"dynamic_resources": {"lds_config": {"ads": {}}, "ads_config": {}}}
    (remark,) = patched(config).of_kind(Kind.LEFT)
    assert remark.place == "dynamic_resources.lds_config"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"staticResources": {}}, "snake_case"),
        ({"admin": {}}, "static_resources"),
        ({"static_resources": {"listeners": {}}}, "list of objects"),
        ({"static_resources": {"clusters": ["x"]}}, "list of objects"),
    ],
)
def test_what_is_no_bootstrap_is_an_error(config: Tree, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        patched(config)


def logs(config: Tree | None) -> list[tuple[str, str]]:
    """Return path and kind of every log, in order."""
    assert config is not None
    found = []
    for path in places(config):
        if path[-1] == "json_format":
            node: Any = config
            for key in path[:-2]:
                node = node[key]
            found.append((node["path"], node["log_format"]["json_format"].get("kind", "own")))
    return found


def test_troths_own_lines_are_written_beside_the_others_and_follow_the_path() -> None:
    own = {
        "name": "file",
        "typed_config": {"path": "/own", "log_format": {"json_format": {"a": "%START_TIME%"}}},
    }
    config = server(tcp(access_log=[own]))
    config["static_resources"]["clusters"] = client()["static_resources"]["clusters"]
    assert logs(patched(config).config) == [("/own", "own")]
    once = patched(config, access_log="/one")
    assert sorted(logs(once.config)) == [
        ("/one", "connection"),
        ("/one", "connection"),
        ("/one", "refused"),
        ("/own", "own"),
    ]
    assert once.config is not None
    assert patched(once.config, access_log="/one").config == once.config
    moved = patched(once.config, access_log="/two")
    assert {path for path, _ in logs(moved.config)} == {"/two", "/own"}
    assert logs(patched(once.config).config) == [("/own", "own")]


def test_a_servers_gate_in_an_internal_listener_is_not_taken_for_a_clients() -> None:
    config = server()
    listener = config["static_resources"]["listeners"][0]
    del listener["address"]
    listener["internal_listener"] = {}
    once = patched(config)
    assert once.config is not None
    assert patched(once.config).config == once.config
    words = filters_of(patched(once.config))[0]["typed_config"]["filter_config"]["value"]
    assert "role=server" in words


def places(tree: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children: Any = ()
    if isinstance(tree, dict):
        children = tree.items()
    elif isinstance(tree, list):
        children = enumerate(tree)
    found = [path] if path else []
    for key, value in children:
        found += places(value, (*path, key))
    return found


@pytest.mark.parametrize("gate", [GATE, None])
@pytest.mark.parametrize("wrong", [None, "text", 7, [], {}, [None], {"a": []}])
@pytest.mark.parametrize("config", [server(), client()])
def test_no_wrong_value_anywhere_ends_in_anything_but_a_named_error(
    config: Tree, wrong: object, gate: GateSetting | None
) -> None:
    for path in places(config):
        broken = copy.deepcopy(config)
        parent: Any = broken
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = wrong
        try:
            patched(broken, gate=gate)
        except ConfigurationError:
            continue


@pytest.mark.parametrize("gate", [GATE, None])
@pytest.mark.parametrize(
    "config",
    [server(), client(), client("orders.example", type="STRICT_DNS"), server(tcp(), tcp())],
)
def test_patching_again_changes_nothing(config: Tree, gate: GateSetting | None) -> None:
    once = patched(config, gate=gate)
    assert once.config is not None
    assert once.config != config
    again = patched(once.config, gate=gate)
    assert again.config == once.config
    assert not again.of_kind(Kind.LEFT)
