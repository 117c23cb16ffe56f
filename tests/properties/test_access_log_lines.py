# SPDX-License-Identifier: Apache-2.0
"""No access log line gives anything but a record or a named error."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from troth.control_plane.envoy.access_log import AccessLogRecord, decode_access_log_line
from troth.errors import DecodeError

COLUMNS = [
    *("kind", "direction", "service", "peer_node", "started_at", "duration_ms", "tls_version"),
    *("peer_spiffe_id", "peer_certificate", "response_code", "bytes_sent", "path"),
]
WHOLE = {
    "kind": "request",
    "direction": "inbound",
    "service": "web",
    "started_at": "2026-01-02T03:04:05.678901Z",
}
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, max_codepoint=0x10FFFF), max_size=20)
    | st.lists(st.integers(), max_size=2)
)


def _decode(line: bytes) -> None:
    try:
        assert isinstance(decode_access_log_line(line), AccessLogRecord)
    except DecodeError as refusal:
        str(refusal).encode()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=4))
def test_a_line_with_any_columns_is_read_or_refused(changes: dict[str, object]) -> None:
    _decode(json.dumps({**WHOLE, **changes}).encode())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(line: bytes) -> None:
    _decode(line)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(0, 400), st.binary(max_size=4))
def test_a_damaged_line_is_read_or_refused(position: int, damage: bytes) -> None:
    line = json.dumps(WHOLE).encode()
    _decode(line[:position] + damage + line[position + len(damage) :])
