# SPDX-License-Identifier: Apache-2.0
"""Callers judged by the certificate that they showed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.attested_world import Node, World
from troth.control_plane.ext_authz.decision import (
    MAX_CERTIFICATE_BYTES,
    CallerDecision,
    CertificateJudge,
)
from troth.tls.judge import Judge


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def node(world: World) -> Node:
    return world.join("edge")


@pytest.fixture(scope="module")
def plain(world: World) -> Node:
    return world.join("plain", svid_only=True)


def decide(
    world: World,
    node: Node,
    *,
    certificate: bytes | None = None,
    principal: str | None = None,
    later: timedelta = timedelta(0),
    policy: dict[str, Any] | None = None,
    **fields: Any,
) -> CallerDecision:
    judge = Judge(world.policy(**(policy or {})), world.bundles)
    options: dict[str, Any] = {"find": lambda _: judge, **fields}
    return CertificateJudge(world.bundles, **options).judge(
        node.svid.encode_pem() if certificate is None else certificate,
        principal=str(node.svid.spiffe_id) if principal is None else principal,
        now=datetime.now(UTC) + later,
    )


def test_a_result_in_the_certificate_admits_with_the_binding_credential(
    world: World, node: Node
) -> None:
    decision = decide(world, node)
    assert decision.admitted
    assert decision.status == "attested"
    assert decision.peer is not None
    assert decision.peer.binding.value == "credential"
    assert decision.peer.decision.deadline is not None


def test_a_certificate_without_a_result_is_refused_unless_identity_is_enough(
    world: World, plain: Node
) -> None:
    assert not decide(world, plain).admitted
    assert decide(world, plain, policy={"model": "svid_only"}).admitted


def test_a_tier_that_is_not_reached_is_refused_with_the_reason(world: World, node: Node) -> None:
    decision = decide(world, node, policy={"min_tier": "confidential"})
    assert not decision.admitted
    assert "tier" in decision.why


def test_permissive_lets_in_who_has_no_result_and_marks_it(world: World, plain: Node) -> None:
    decision = decide(world, plain, permissive=True)
    assert decision.admitted
    assert decision.status == "none"


def test_permissive_does_not_let_in_who_has_a_result_that_is_not_enough(
    world: World, node: Node
) -> None:
    assert not decide(world, node, policy={"min_tier": "confidential"}, permissive=True).admitted


@pytest.mark.parametrize("permissive", [False, True])
def test_permissive_or_not_a_veto_and_a_missing_rule_refuse(
    world: World, node: Node, plain: Node, *, permissive: bool
) -> None:
    for each in (node, plain):
        vetoed = decide(world, each, permissive=permissive, veto=lambda *_: "withdrawn")
        assert not vetoed.admitted
        assert vetoed.why == "withdrawn"
        assert not decide(world, each, permissive=permissive, find=lambda _: None).admitted


def test_the_veto_is_told_key_name_and_whether_there_is_a_result(
    world: World, node: Node, plain: Node
) -> None:
    told: list[tuple[bytes, str, bool]] = []

    def veto(digest: bytes, name: str, result: bool) -> str:  # noqa: FBT001 - the port's order
        told.append((digest, name, result))
        return ""

    decide(world, node, veto=veto)
    decide(world, plain, veto=veto)
    assert [(name, result) for _, name, result in told] == [
        ("spiffe://mesh.example/node/edge", True),
        ("spiffe://mesh.example/node/plain", False),
    ]
    assert len({digest for digest, _, _ in told}) == 2


def test_a_result_that_has_ended_is_refused(world: World, node: Node) -> None:
    assert decide(world, node, later=timedelta(minutes=5)).admitted
    assert not decide(world, node, later=world.lifetime + timedelta(minutes=1)).admitted


def test_a_certificate_of_another_authority_is_refused_although_envoy_passed_it_on(
    world: World,
) -> None:
    assert not decide(world, World().join("edge")).admitted


def test_an_envoy_that_took_the_caller_for_somebody_else_is_not_believed(
    world: World, node: Node
) -> None:
    assert not decide(world, node, principal="spiffe://mesh.example/node/other").admitted
    assert decide(world, node, principal="").admitted


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (b"", "include_peer_certificate"),
        (b"junk", "not a certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a certificate"),
        (b"x" * (MAX_CERTIFICATE_BYTES + 1), "MAX_CERTIFICATE_BYTES"),
    ],
)
def test_what_is_no_certificate_is_refused_with_the_reason(
    world: World, node: Node, certificate: bytes, why: str
) -> None:
    decision = decide(world, node, certificate=certificate)
    assert not decision.admitted
    assert why in decision.why
