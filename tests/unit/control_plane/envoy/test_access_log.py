# SPDX-License-Identifier: Apache-2.0
"""Access log lines are read strictly."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from troth.control_plane.envoy.access_log import (
    MAX_LINE_BYTES,
    Direction,
    RecordKind,
    decode_access_log_line,
)
from troth.errors import DecodeError, LimitExceededError

PEM = "-----BEGIN CERTIFICATE-----\nMIIB+w==\n-----END CERTIFICATE-----\n"
LINE = {
    "kind": "request",
    "direction": "inbound",
    "service": "web",
    "peer_node": "cloud",
    "started_at": "2026-01-02T03:04:05.678901Z",
    "duration_ms": 1500,
    "peer_spiffe_id": "spiffe://example.test/cloud",
    "peer_certificate": quote(PEM, safe=""),
    "peer_address": "127.0.0.1:5",
    "tls_version": "TLSv1.3",
    "protocol": "HTTP/2",
    "method": "GET",
    "path": "/",
    "response_code": 200,
    "response_flags": "-",
    "response_details": "via_upstream",
    "bytes_received": 1,
    "bytes_sent": 2,
    "upstream_host": "127.0.0.1:6",
}


def _line(**changes: object) -> bytes:
    columns = {name: value for name, value in {**LINE, **changes}.items() if value is not None}
    return json.dumps(columns).encode()


def test_a_whole_line_is_read() -> None:
    record = decode_access_log_line(_line())
    assert record.kind is RecordKind.REQUEST
    assert record.direction is Direction.INBOUND
    assert record.started_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert record.duration_seconds == 1.5
    assert record.peer_certificate == PEM.encode()
    assert record.response_code == 200
    assert record.response_flags == ""
    assert record.details == "via_upstream"
    assert record.transport_failure == ""


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "refused"},
        {"tls_version": None},
        {"peer_spiffe_id": None},
        {"transport_failure": "TLS_error"},
    ],
)
def test_a_peer_is_proven_only_by_a_finished_handshake(change: dict[str, object]) -> None:
    assert decode_access_log_line(_line()).peer_is_proven
    assert not decode_access_log_line(_line(**change)).peer_is_proven


def test_columns_that_envoy_left_out_are_empty() -> None:
    absent = dict.fromkeys(LINE.keys() - {"kind", "direction", "service", "started_at"})
    record = decode_access_log_line(_line(**absent))
    assert (record.peer_spiffe_id, record.peer_certificate) == ("", b"")
    assert (record.response_code, record.duration_seconds) == (0, 0)


def test_how_a_connection_ended_comes_before_how_the_request_did() -> None:
    record = decode_access_log_line(_line(connection_details="rbac_access_denied"))
    assert record.details == "rbac_access_denied"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "call"),
        ("kind", None),
        ("kind", ["request"]),
        ("direction", ""),
        ("service", 5),
        ("started_at", "2026-01-02"),
        ("started_at", None),
        ("duration_ms", "1"),
        ("duration_ms", -1),
        ("response_code", True),
        ("bytes_sent", 1.5),
        ("bytes_sent", 1 << 64),
        ("duration_ms", 10**400),
        ("path", "\ud800"),
        ("peer_certificate", "\ud800"),
        ("peer_certificate", "no certificate"),
        ("peer_certificate", quote(PEM + PEM, safe="")),
    ],
)
def test_a_column_that_is_not_what_it_should_be_is_named(column: str, value: object) -> None:
    with pytest.raises(DecodeError, match=f"access log line: {column} is "):
        decode_access_log_line(_line(**{column: value}))


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b"\xff", b"[" * 60_000, b"null"])
def test_what_is_no_json_object_is_refused(line: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_access_log_line(line)


def test_a_line_above_the_limit_is_refused() -> None:
    padding = "x" * (MAX_LINE_BYTES - len(_line(path="")))
    decode_access_log_line(_line(path=padding))
    with pytest.raises(LimitExceededError):
        decode_access_log_line(_line(path=padding + "x"))
