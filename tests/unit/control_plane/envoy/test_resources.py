# SPDX-License-Identifier: Apache-2.0
"""What is generated, where a test with Envoy cannot see it or would come too late."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from support.envoy_mesh import envoy_binary
from troth.control_plane.envoy.description import (
    Address,
    AdmittedPeer,
    InboundService,
    MeshDescription,
    OutboundService,
    Protocol,
    ProxyIdentity,
)
from troth.control_plane.envoy.descriptors import EnvoyDescriptors
from troth.control_plane.envoy.resources import MeshResources
from troth.control_plane.envoy.tls_contexts import server_name

CLOUD = AdmittedPeer("cloud", "spiffe://example.test/cloud")
FOG = AdmittedPeer("fog", "spiffe://other.test/fog")


def _mesh(**changes: Any) -> MeshDescription:
    mesh = MeshDescription(
        identity=ProxyIdentity("edge", "spiffe://example.test/edge", b"chain", b"key"),
        trust_bundles={"spiffe://example.test": b"ca", "spiffe://other.test": b"other ca"},
        peers=(CLOUD, FOG),
        inbound=tuple(
            InboundService(name, protocol, Address("0.0.0.0", port), Address("127.0.0.1", port))  # noqa: S104
            for name, protocol, port in (
                ("web", Protocol.HTTP, 1001),
                ("rpc", Protocol.HTTP2, 1002),
                ("wire", Protocol.TCP, 1003),
            )
        ),
        outbound=(
            OutboundService(
                "bank", Protocol.HTTP, Address("127.0.0.1", 1004), "cloud", Address("10.0.0.1", 1)
            ),
            OutboundService(
                "tape", Protocol.TCP, Address("/run/tape"), "fog", Address("fog.example", 2)
            ),
        ),
        access_log="/dev/stdout",
    )
    return replace(mesh, **changes)


def _by_name(resources: tuple[dict[str, object], ...]) -> dict[str, Any]:
    return {str(resource["name"]): resource for resource in resources}


def _chains(resources: MeshResources, listener: str) -> dict[str, Any]:
    return {
        chain["name"]: chain for chain in _by_name(resources.listeners)[listener]["filter_chains"]
    }


def _downstream(chain: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = chain["transport_socket"]["typed_config"]
    return config


def _everywhere(value: object, key: str) -> list[Any]:
    """Return all values under `key`, however deep."""
    if isinstance(value, dict):
        here = [value[key]] if key in value else []
        return here + [found for item in value.values() for found in _everywhere(item, key)]
    if isinstance(value, list | tuple):
        return [found for item in value for found in _everywhere(item, key)]
    return []


def test_every_resource_is_one_that_envoy_can_read() -> None:
    descriptors = EnvoyDescriptors.load(envoy_binary())
    for type_url, resources in MeshResources.build(_mesh()).by_type().items():
        assert resources
        for resource in resources:
            descriptors.resource(type_url, resource)


def test_the_same_description_gives_the_same_resources_in_any_order_of_peers() -> None:
    one, two = _mesh(), _mesh(peers=(FOG, CLOUD))
    assert MeshResources.build(one) == MeshResources.build(two)


def test_each_peer_has_a_chain_that_demands_its_name_its_trust_domain_and_nothing_else() -> None:
    resources = MeshResources.build(_mesh())
    for listener in ("inbound/web", "inbound/rpc", "inbound/wire"):
        chains = _chains(resources, listener)
        assert chains.keys() == {"cloud", "fog"}
        for peer, bundle in ((CLOUD, "spiffe://example.test"), (FOG, "spiffe://other.test")):
            chain = chains[peer.node_id]
            assert chain["filter_chain_match"]["server_names"] == [server_name(peer.node_id)]
            tls = _downstream(chain)
            assert tls["require_client_certificate"] is True
            validation = tls["common_tls_context"]["combined_validation_context"]
            assert validation["validation_context_sds_secret_config"]["name"] == bundle
            assert validation["default_validation_context"]["match_typed_subject_alt_names"] == [
                {"san_type": "URI", "matcher": {"exact": peer.spiffe_id}}
            ]
    assert not _everywhere(resources.listeners, "default_filter_chain")


def test_every_tls_context_is_1_3_without_resumption() -> None:
    resources = MeshResources.build(_mesh())
    contexts = [
        socket["typed_config"]
        for socket in _everywhere((resources.listeners, resources.clusters), "transport_socket")
    ]
    assert len(contexts) == 3 * 2 + 2
    for context in contexts:
        params = context["common_tls_context"]["tls_params"]
        assert set(params.values()) == {"TLSv1_3"}
        if context["@type"].endswith("UpstreamTlsContext"):
            assert context["max_session_keys"] == 0
            assert context["sni"] == server_name("edge")
        else:
            assert context["disable_stateless_session_resumption"] is True
            assert context["disable_stateful_session_resumption"] is True


def test_secrets_appear_only_as_secrets() -> None:
    resources = MeshResources.build(_mesh())
    encoded = base64.b64encode(b"key").decode()
    assert encoded in json.dumps(resources.secrets)
    assert encoded not in json.dumps((resources.listeners, resources.clusters))
    assert _by_name(resources.secrets).keys() == {
        "spiffe://example.test/edge",
        "spiffe://example.test",
        "spiffe://other.test",
    }


def test_a_withdrawn_peer_is_gone_and_everything_else_is_byte_for_byte_the_same() -> None:
    before, after = MeshResources.build(_mesh()), MeshResources.build(_mesh(peers=(FOG,)))
    for listener in ("inbound/web", "inbound/rpc", "inbound/wire"):
        chains = _chains(before, listener)
        del chains["cloud"]
        assert _chains(after, listener) == chains
    assert _by_name(before.clusters).keys() - _by_name(after.clusters).keys() == {"outbound/bank"}
    assert _by_name(before.listeners).keys() - _by_name(after.listeners).keys() == {"outbound/bank"}
    for name, cluster in _by_name(after.clusters).items():
        assert cluster == _by_name(before.clusters)[name]


def test_a_new_certificate_changes_secrets_alone() -> None:
    renewed = ProxyIdentity("edge", "spiffe://example.test/edge", b"next chain", b"next key")
    before, after = MeshResources.build(_mesh()), MeshResources.build(_mesh(identity=renewed))
    assert before.secrets != after.secrets
    assert (before.listeners, before.clusters) == (after.listeners, after.clusters)


def test_a_new_generation_changes_that_peers_chains_alone() -> None:
    again = replace(CLOUD, generation=1)
    before, after = MeshResources.build(_mesh()), MeshResources.build(_mesh(peers=(again, FOG)))
    assert _chains(before, "inbound/web")["cloud"] != _chains(after, "inbound/web")["cloud"]
    assert _chains(before, "inbound/web")["fog"] == _chains(after, "inbound/web")["fog"]
    changed = {
        name
        for one, two in ((before.clusters, after.clusters), (before.listeners, after.listeners))
        for name in _by_name(one)
        if _by_name(one)[name] != _by_name(two)[name]
    }
    assert changed == {"inbound/web", "inbound/rpc", "inbound/wire", "outbound/bank"}


def test_nobody_admitted_means_nothing_listens() -> None:
    resources = MeshResources.build(_mesh(peers=()))
    assert resources.listeners == ()
    assert resources.clusters == ()


def test_a_peer_that_we_call_but_that_may_not_call_us_has_no_chain() -> None:
    called = replace(CLOUD, inbound=False)
    resources = MeshResources.build(_mesh(peers=(called, FOG)))
    assert _chains(resources, "inbound/web").keys() == {"fog"}
    assert "outbound/bank" in _by_name(resources.clusters)
    alone = MeshResources.build(_mesh(peers=(called,)))
    assert _by_name(alone.listeners).keys() == {"outbound/bank"}


def test_key_pins_reach_both_directions() -> None:
    pin = hashlib.sha256(b"key").digest()
    resources = MeshResources.build(_mesh(peers=(replace(CLOUD, key_pins=(pin,)), FOG)))
    pins = _everywhere((resources.listeners, resources.clusters), "verify_certificate_spki")
    assert pins == [[base64.b64encode(pin).decode()]] * (3 + 1)


def test_a_server_name_says_who_without_saying_it() -> None:
    names = {server_name(node) for node in ("edge", "cloud", "edge ", "EDGE")}
    assert len(names) == 4
    for name in names:
        assert name.endswith(".node.troth.internal")
        assert "edge" not in name
        assert len(name.split(".", maxsplit=1)[0]) <= 63
        assert name == name.lower()


def test_applications_get_the_certificate_only_where_asked_for() -> None:
    asked = replace(_mesh().inbound[0], forward_certificate=True)
    for services, expected in (((asked,), [True]), (_mesh().inbound[:1], [False])):
        chains = _chains(MeshResources.build(_mesh(inbound=services)), "inbound/web")
        details = _everywhere(chains["cloud"], "set_current_client_cert_details")
        assert [detail["cert"] for detail in details] == expected


@pytest.mark.parametrize(("seconds", "text"), [(0, "0.000000000s"), (1.5, "1.500000000s")])
def test_a_request_timeout_is_off_unless_asked_for(seconds: float, text: str) -> None:
    service = replace(_mesh().inbound[0], request_timeout_seconds=seconds)
    chains = _chains(MeshResources.build(_mesh(inbound=(service,))), "inbound/web")
    grpc, rest = _everywhere(chains["cloud"], "route")
    assert (grpc["timeout"], rest["timeout"]) == (text, text)
    assert "retry_policy" not in grpc | rest


def test_without_a_log_file_nothing_is_logged_and_certificates_can_be_left_out() -> None:
    silent = MeshResources.build(_mesh(access_log=""))
    assert not any(_everywhere(silent.listeners, "access_log"))
    short = json.dumps(MeshResources.build(_mesh(log_certificates=False)).listeners)
    assert "_PEER_CERT%" not in short
    assert "_PEER_URI_SAN%" in short


def test_a_name_is_resolved_and_an_address_is_not() -> None:
    clusters = _by_name(MeshResources.build(_mesh()).clusters)
    assert clusters["outbound/tape"]["type"] == "STRICT_DNS"
    assert clusters["outbound/bank"]["type"] == "STATIC"
