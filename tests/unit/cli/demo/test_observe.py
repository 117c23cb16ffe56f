# SPDX-License-Identifier: Apache-2.0
"""What the demo says of a peer is what the Envoys logged and the certificate proves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.attested_world import Node, World
from troth.cli.demo.observe import find_connection, peer_view
from troth.control_plane.envoy.access_log import (
    AccessLogRecord,
    Direction,
    decode_access_log_line,
)
from troth.errors import TrothError, UnavailableError
from troth.formats.keys import VerificationKey
from troth.mesh.passport import TrustedVerifier

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def edge(world: World) -> Node:
    return world.join("edge", world.platform())


def line(node: Node, **columns: Any) -> str:
    pem = node.svid.encode_pem().split(b"-----END CERTIFICATE-----\n")[0]
    return json.dumps(
        {
            "kind": "connection",
            "direction": "outbound",
            "service": "ticker",
            "started_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "peer_spiffe_id": str(node.svid.spiffe_id),
            "peer_certificate": quote(pem + b"-----END CERTIFICATE-----\n"),
            "tls_version": "TLSv1.3",
        }
        | columns
    )


def record(node: Node, **columns: Any) -> AccessLogRecord:
    return decode_access_log_line(line(node, **columns))


def test_without_the_gate_the_certificate_carries_the_result(world: World, edge: Node) -> None:
    view = peer_view(record(edge), world.trusted)
    assert (view.scheme, view.status, view.binding) == ("psa", "affirming", "credential")
    assert view.result_age_seconds is not None
    assert not view.fresh
    stranger = TrustedVerifier(name="home", keys=[VerificationKey(edge.svid.public_key)])
    with pytest.raises(TrothError):
        peer_view(record(edge), stranger)


def test_a_result_is_called_fresh_only_where_it_is_newer_than_the_certificates(
    world: World, edge: Node
) -> None:
    about = {"attestation": "attested", "binding": "key", "result": "affirming", "scheme": "psa"}
    now = datetime.now(UTC)
    later, earlier = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (now + HOUR, now - HOUR))
    fresh = peer_view(record(edge, result_issued_at=later, **about), world.trusted)
    old = peer_view(record(edge, result_issued_at=earlier, **about), world.trusted)
    assert (fresh.fresh, old.fresh) == (True, False)
    assert (fresh.binding, fresh.status) == ("key", "affirming")
    assert old.result_age_seconds == pytest.approx(3600, abs=60)


def test_a_peer_that_was_asked_for_its_identity_alone_has_no_state(
    world: World, edge: Node
) -> None:
    view = peer_view(record(edge, attestation="attested", binding="none"), world.trusted)
    assert (view.status, view.tier, view.scheme, view.verifier) == ("none", "", "", "")
    assert view.result_age_seconds is None


async def test_only_a_line_of_a_proven_peer_counts_as_the_connection(
    edge: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "access.log"
    log.write_text(f"{line(edge)}\n{line(edge, transport_failure='failed', path='/no')}\n")
    now = datetime.now(UTC)
    found = await find_connection(log, Direction.OUTBOUND, service="ticker", after=now - HOUR)
    assert not found.transport_failure
    monkeypatch.setattr("troth.cli.demo.observe._LOG_SECONDS", 0.1)
    with pytest.raises(UnavailableError):
        await find_connection(log, Direction.OUTBOUND, service="ticker", after=now + HOUR)
