# SPDX-License-Identifier: Apache-2.0
"""What an Envoy with a file of its own gets from the agent, and who may call it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace as changed

from support.attested_world import DOMAIN, Node, World
from troth.control_plane.agent.config import AgentConfig
from troth.control_plane.agent.peers import JudgedPeer
from troth.control_plane.agent.static_side import StaticSide
from troth.control_plane.config_file import parse_config
from troth.control_plane.envoy.description import ProxyIdentity
from troth.control_plane.envoy.patch.listeners import MAX_UNGATED_SECONDS
from troth.control_plane.envoy.resources import MeshResources
from troth.mesh.member import Member
from troth.mesh.node import NodeState
from troth.mesh.peer_policy import Decision, Objection
from troth.mesh.tier import Tier

OWN = f"spiffe://{DOMAIN}/node/cloud"
CONFIG = f"""
[node]
name = "cloud"
[server]
url = "https://127.0.0.1:1"
trust_bundle = "unused"
spiffe_id = "spiffe://{DOMAIN}/troth/server"
[attester]
[envoy]
xds_socket = "/run/xds"
static = true
[ext_authz]
[[outbound]]
name = "web"
peer = "spiffe://{DOMAIN}/node/edge"
listen = "127.0.0.1:1003"
[[clients]]
peers = ["spiffe://{DOMAIN}/*"]
verifiers = ["home"]
allow_insecure = true
"""
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
BUNDLES = {f"spiffe://{DOMAIN}": b"CA"}
IDENTITY = ProxyIdentity("n-cloud", OWN, b"CHAIN", b"KEY")


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def edge(world: World) -> Node:
    return world.join("edge")


@pytest.fixture
def side(world: World) -> StaticSide:
    made = StaticSide(parse_config(CONFIG, AgentConfig, source="t"), trust=world.bundles)
    made.adopt(OWN, [world.trusted])
    return made


def judged(node: Node, *, admitted: bool) -> JudgedPeer:
    objection = Objection(rule=-1, what="state", expected="admitted", actual="expelled")
    decision = Decision(admitted=admitted, objections=() if admitted else (objection,))
    return JudgedPeer(
        member=Member(
            node_id=node.name,
            spiffe_id=str(node.svid.spiffe_id),
            state=NodeState.ADMITTED if admitted else NodeState.EXPELLED,
            reason=None,
            generation=1,
            tier=Tier.MEASURED,
            ear="",
            key_digest=hashlib.sha256(node.svid.spki).hexdigest(),
            deadline=datetime.now(UTC) + timedelta(hours=1),
            services=(),
        ),
        as_client=decision,
        as_server=decision,
    )


def context(resources: MeshResources, name: str) -> Any:
    (found,) = [each for each in resources.secrets if each["name"] == name]
    return found["validation_context"]


def admits(side: StaticSide, node: Node) -> bool:
    judge = side.judge()
    if judge is None:
        return False
    certificate = node.svid.encode_pem()
    return judge.judge(certificate, principal="", now=datetime.now(UTC)).admitted


def test_a_service_is_pinned_to_the_keys_of_its_admitted_servers(
    side: StaticSide, edge: Node
) -> None:
    peers = [judged(edge, admitted=True)]
    resources = side.resources(IDENTITY, BUNDLES, peers, heard=True, now=NOW)
    pin = base64.b64encode(hashlib.sha256(edge.svid.spki).digest()).decode()
    found = context(resources, "troth/servers/web")
    assert found["verify_certificate_spki"] == [pin]
    assert found["match_typed_subject_alt_names"] == [
        {"san_type": "URI", "matcher": {"exact": f"spiffe://{DOMAIN}/node/edge"}}
    ]
    assert {each["name"] for each in resources.secrets} == {
        "troth/node",
        "troth/clients",
        "troth/servers/web",
    }
    assert not resources.listeners
    assert not resources.clusters


def test_with_nobody_admitted_a_key_is_pinned_that_nobody_has(side: StaticSide, edge: Node) -> None:
    for peers in ([], [judged(edge, admitted=False)]):
        resources = side.resources(IDENTITY, BUNDLES, peers, heard=True, now=NOW)
        found = context(resources, "troth/servers/web")
        assert found["verify_certificate_spki"] == [base64.b64encode(bytes(32)).decode()]


def test_callers_are_validated_each_by_its_own_trust_domain(side: StaticSide) -> None:
    bundles = {**BUNDLES, "spiffe://other.example": b"OTHER"}
    config = context(side.resources(IDENTITY, bundles, [], heard=True, now=NOW), "troth/clients")[
        "custom_validator_config"
    ]["typed_config"]
    assert [each["name"] for each in config["trust_domains"]] == [DOMAIN, "other.example"]


def test_a_caller_is_admitted_by_its_certificate_until_the_feed_speaks_against_it(
    side: StaticSide, edge: Node
) -> None:
    assert admits(side, edge), "nothing was heard yet"
    side.resources(IDENTITY, BUNDLES, [judged(edge, admitted=True)], heard=True, now=NOW)
    assert admits(side, edge)
    side.resources(IDENTITY, BUNDLES, [judged(edge, admitted=False)], heard=True, now=NOW)
    assert not admits(side, edge)


def test_a_node_that_the_feed_does_not_know_is_refused_once_it_was_heard(
    side: StaticSide, edge: Node
) -> None:
    side.resources(IDENTITY, BUNDLES, [], heard=False, now=NOW)
    assert admits(side, edge)
    side.resources(IDENTITY, BUNDLES, [], heard=True, now=NOW)
    assert not admits(side, edge)
    other_key = judged(edge, admitted=True)
    member = changed(other_key.member, key_digest="00" * 32)
    side.resources(IDENTITY, BUNDLES, [replace(other_key, member=member)], heard=True, now=NOW)
    assert not admits(side, edge)


def test_a_node_that_is_no_member_reaches_nobody_and_admits_nobody(
    side: StaticSide, edge: Node, world: World
) -> None:
    peers = [judged(edge, admitted=True)]
    side.resources(IDENTITY, BUNDLES, peers, heard=True, now=NOW)
    found = context(side.withdrawn(), "troth/servers/web")
    assert found["verify_certificate_spki"] == [base64.b64encode(bytes(32)).decode()]
    assert side.judge() is None
    side.adopt(OWN, [world.trusted])
    assert admits(side, edge)


def test_before_it_ever_was_a_member_there_is_no_secret(world: World) -> None:
    fresh = StaticSide(parse_config(CONFIG, AgentConfig, source="t"), trust=world.bundles)
    assert not fresh.withdrawn().secrets
    assert fresh.judge() is None


def test_a_withdrawal_is_in_force_when_what_was_open_has_ended(
    side: StaticSide, edge: Node, world: World
) -> None:
    other = world.join("other")
    bound = timedelta(seconds=MAX_UNGATED_SECONDS)
    both = [judged(edge, admitted=True), judged(other, admitted=True)]

    def left(peers: list[JudgedPeer], later: timedelta) -> float:
        side.resources(IDENTITY, BUNDLES, peers, heard=True, now=NOW + later)
        return side.unsettled_seconds(NOW + later)

    assert side.unsettled_seconds(NOW) == 0
    assert left(both, timedelta(0)) == bound.total_seconds(), "what was open before is not known"
    assert left(both, bound) == 0
    assert left(both[:1], 2 * bound) == bound.total_seconds()
    assert left(both[:1], 2.5 * bound) == bound.total_seconds() / 2
    assert left(both, 4 * bound) == 0, "one that is admitted disturbs nobody"
    assert left([both[0], judged(other, admitted=False)], 5 * bound) == bound.total_seconds()
