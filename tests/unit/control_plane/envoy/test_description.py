# SPDX-License-Identifier: Apache-2.0
"""A description that could not mean anything safe cannot be made."""

from __future__ import annotations

import pytest

from troth.control_plane.envoy.description import (
    Address,
    AdmittedPeer,
    InboundService,
    MeshDescription,
    OutboundService,
    Protocol,
    ProxyIdentity,
    trust_domain_id,
)
from troth.errors import ConfigurationError

OWN = ProxyIdentity("edge", "spiffe://example.test/edge", b"chain", b"key")
BUNDLES = {"spiffe://example.test": b"ca"}
HERE = Address("127.0.0.1", 80)
CLOUD = AdmittedPeer("cloud", "spiffe://example.test/cloud")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8443", "127.0.0.1", 8443),
        ("[::1]:0", "::1", 0),
        ("edge.example:65535", "edge.example", 65535),
        ("unix:/run/app.sock", "/run/app.sock", None),
    ],
)
def test_an_address_reads_and_prints_alike(text: str, host: str, port: int | None) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8443",
        ":8443",
        "host:",
        "host:65536",
        "host:-1",
        "::1:80",
        "unix:relative",
        "a b:1",
        "unix:/" + "x" * 107,
        "unix:/a\0b",
        "host:\u0661",
    ],
)
def test_what_is_no_address_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigurationError, match="unix:"):
        Address.parse(text)


def test_the_longest_socket_path_is_accepted() -> None:
    assert Address.parse("unix:/" + "x" * 106).port is None


def test_a_trust_domain_is_the_first_part_of_a_spiffe_id() -> None:
    assert trust_domain_id("spiffe://example.test/a/b") == "spiffe://example.test"
    assert trust_domain_id("spiffe://example.test") == "spiffe://example.test"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.test/a",
        "https://example.test/a",
        "spiffe:///a",
        "spiffe://Example.test/a",
        "spiffe://example.test:80/a",
        "spiffe://example.test/",
        "spiffe://example.test//a",
        "spiffe://example.test/../a",
        "spiffe://example.test/a?b",
        "spiffe://example.test/a%20b",
        "spiffe://example.test/a\n",
        "spiffe://" + "a" * 256,
        "spiffe://example.test/" + "a" * 2048,
    ],
)
def test_what_is_no_spiffe_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="SPIFFE ID"):
        AdmittedPeer("cloud", text)


@pytest.mark.parametrize("node_id", ["", "x" * 257, "a\nb"])
def test_a_node_id_that_would_confuse_a_log_is_refused(node_id: str) -> None:
    with pytest.raises(ConfigurationError, match="node id"):
        AdmittedPeer(node_id, CLOUD.spiffe_id)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-a", "x" * 64])
def test_a_service_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(ConfigurationError, match="service name"):
        InboundService(name, Protocol.TCP, HERE, HERE)


def test_a_listener_needs_an_ip_address_and_an_upstream_does_not() -> None:
    with pytest.raises(ConfigurationError, match=r"service web: listen is 'edge\.example:80'"):
        InboundService("web", Protocol.HTTP, Address("edge.example", 80), HERE)
    OutboundService("web", Protocol.HTTP, HERE, "edge", Address("edge.example", 80))


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_a_timeout_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="request_timeout_seconds"):
        InboundService("web", Protocol.HTTP, HERE, HERE, request_timeout_seconds=seconds)


def test_a_key_pin_is_a_sha256_digest() -> None:
    with pytest.raises(ConfigurationError, match="key_pins"):
        AdmittedPeer("cloud", CLOUD.spiffe_id, key_pins=(bytes(31),))


def test_a_peer_whose_trust_domain_has_no_bundle_is_refused() -> None:
    foreign = AdmittedPeer("guest", "spiffe://elsewhere.test/guest")
    with pytest.raises(ConfigurationError, match=r"peers\.guest.*elsewhere\.test has none"):
        MeshDescription(OWN, BUNDLES, peers=(foreign,))
    with pytest.raises(ConfigurationError, match=r"peers\.guest"):
        MeshDescription(OWN, {**BUNDLES, "spiffe://elsewhere.test": b""}, peers=(foreign,))
    MeshDescription(OWN, {**BUNDLES, "spiffe://elsewhere.test": b"ca"}, peers=(foreign,))


def test_names_are_given_once() -> None:
    service = InboundService("web", Protocol.HTTP, HERE, HERE)
    with pytest.raises(ConfigurationError, match=r"inbound is 'web'"):
        MeshDescription(OWN, BUNDLES, inbound=(service, service))
    with pytest.raises(ConfigurationError, match=r"peers is 'cloud'"):
        MeshDescription(OWN, BUNDLES, peers=(CLOUD, CLOUD))


def test_the_private_key_is_not_shown() -> None:
    assert "secret" not in repr(ProxyIdentity("edge", OWN.spiffe_id, b"chain", b"secret"))
