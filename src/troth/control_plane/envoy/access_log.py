# SPDX-License-Identifier: Apache-2.0
"""The access log that Envoys in the mesh write, and its reader.

One JSON object per line. What it says of the peer is what Envoy saw in the handshake, never what
the registry believes; only `peer_node` is from the configuration (whose filter chain it was).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_to_bytes

from troth.control_plane.envoy.gate import STATE_COLUMNS
from troth.errors import DecodeError, LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_LINE_BYTES",
    "AccessLogRecord",
    "Direction",
    "RecordKind",
    "access_log",
    "decode_access_log_line",
    "is_access_log",
]

MAX_LINE_BYTES = 64 * 1024
_FORMAT = "Envoy access log line"


class RecordKind(Enum):
    """What a line is about."""

    REQUEST = "request"
    """One HTTP request, at its end."""
    CONNECTION = "connection"
    """One TCP connection, at its end."""
    REFUSED = "refused"
    """A connection that failed before any application byte: no filter chain, or the handshake."""


class Direction(Enum):
    """Which side of the mesh connection wrote the line."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLogRecord:
    """One line, decoded.

    Attributes:
        kind: what ended.
        direction: inbound (the peer connected to us) or outbound.
        service: the service's name.
        started_at: when it began, UTC.
        duration_seconds: how long it lasted.
        peer_node: the node whose filter chain or cluster it was; "" where none was chosen.
        peer_spiffe_id: URI SAN of the peer's certificate; "" where there was none. Several are
            separated by commas, but no such certificate passes.
        peer_certificate: the peer's certificate, PEM; empty where it sent none or where the log
            is set to leave it out.
        peer_address: remote address of the mesh connection, as `ip:port`.
        tls_version: such as "TLSv1.3"; "" without TLS.
        protocol: "HTTP/1.1", "HTTP/2" or "" (TCP).
        method: HTTP method, or "".
        path: HTTP path without its query, or "".
        response_code: HTTP status; 0 where no response began, and for TCP.
        response_flags: Envoy's flags, such as "DC,UF"; "" where nothing was wrong.
        details: Envoy's words for how it ended, or "".
        transport_failure: why TLS failed, or "".
        bytes_received: body bytes from the client.
        bytes_sent: body bytes to the client.
        upstream_host: where the connection was passed to, as `ip:port`, or "".
        attestation: what the gate said: "attested", "none", or "" without a gate.
        state: what the agent told the gate about the peer, by the names of `STATE_COLUMNS`.
    """

    kind: RecordKind
    direction: Direction
    service: str
    started_at: datetime
    duration_seconds: float
    peer_node: str
    peer_spiffe_id: str
    peer_certificate: bytes
    peer_address: str
    tls_version: str
    protocol: str
    method: str
    path: str
    response_code: int
    response_flags: str
    details: str
    transport_failure: str
    bytes_received: int
    bytes_sent: int
    upstream_host: str
    attestation: str = ""
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def peer_is_proven(self) -> bool:
        """Whether Envoy finished the TLS handshake, and so vouches for the peer's certificate.

        Where it did not, `peer_spiffe_id` and `peer_certificate` are what somebody claimed.
        """
        return (
            self.kind is not RecordKind.REFUSED
            and bool(self.tls_version and self.peer_spiffe_id)
            and not self.transport_failure
        )


def access_log(
    path: str,
    *,
    kind: RecordKind,
    direction: Direction,
    service: str,
    certificates: bool,
) -> list[dict[str, object]]:
    """Return the `access_log` field of a filter or listener; empty where `path` is "".

    Args:
        path: the file, such as `/dev/stdout`.
        kind: what the lines of this place are about.
        direction: which side this place is on.
        service: the service's name.
        certificates: whether to write the peer's certificate.
    """
    if not path:
        return []
    # The peer is downstream of an inbound filter and upstream of an outbound one.
    side = "DOWNSTREAM" if direction is Direction.INBOUND else "UPSTREAM"
    columns: dict[str, object] = {
        "kind": kind.value,
        "direction": direction.value,
        "service": service,
        "peer_node": "%FILTER_CHAIN_NAME%",
        "started_at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
        "duration_ms": "%DURATION%",
        "peer_spiffe_id": f"%{side}_PEER_URI_SAN%",
        "peer_address": f"%{side}_REMOTE_ADDRESS%",
        "tls_version": f"%{side}_TLS_VERSION%",
        "response_flags": "%RESPONSE_FLAGS%",
        "connection_details": "%CONNECTION_TERMINATION_DETAILS%",
        "transport_failure": f"%{side}_TRANSPORT_FAILURE_REASON%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "upstream_host": "%UPSTREAM_HOST%",
    }
    # A stranger's certificate may be 100 KB long and proves nothing: refusals do without.
    if kind is not RecordKind.REFUSED:
        columns |= {name: f"%FILTER_STATE({key}:PLAIN)%" for name, key in STATE_COLUMNS.items()}
    if certificates and kind is not RecordKind.REFUSED:
        columns["peer_certificate"] = f"%{side}_PEER_CERT%"
    if kind is RecordKind.REQUEST:
        columns |= {
            "protocol": "%PROTOCOL%",
            "method": "%REQ(:METHOD):32%",
            "path": "%PATH(NQ:PATH):512%",
            "response_code": "%RESPONSE_CODE%",
            "response_details": "%RESPONSE_CODE_DETAILS%",
        }
    entry: dict[str, object] = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": columns, "omit_empty_values": True},
        },
    }
    if kind is RecordKind.REFUSED:
        entry["filter"] = {"or_filter": {"filters": [_NO_CHAIN, _filter(_HANDSHAKE_FAILED)]}}
    elif kind is RecordKind.CONNECTION and direction is Direction.INBOUND:
        # A failed handshake is the listener's line, not also the TCP proxy's behind it.
        entry["filter"] = _filter(f"!{_HANDSHAKE_FAILED}")
    return [entry]


def is_access_log(entry: object) -> bool:
    """Say whether a member of an `access_log` field is one that `access_log` makes."""
    config = entry.get("typed_config") if isinstance(entry, dict) else None
    form = config.get("log_format") if isinstance(config, dict) else None
    columns = form.get("json_format") if isinstance(form, dict) else None
    return isinstance(columns, dict) and columns.keys() >= {
        "kind",
        "direction",
        "service",
        "peer_spiffe_id",
    }


_NO_CHAIN: dict[str, object] = {"response_flag_filter": {"flags": ["NR"]}}
_HANDSHAKE_FAILED = "has(connection.transport_failure_reason)"


def _filter(expression: str) -> dict[str, object]:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": (
                    "type.googleapis.com/"
                    "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
                ),
                "expression": expression,
            },
        }
    }


def decode_access_log_line(line: bytes | str) -> AccessLogRecord:
    """Return what one line of the log says. A column that Envoy left out is "" or 0.

    Checks the form only: the certificate in it is not parsed, and whoever can write to the file
    can write any line.

    Raises:
        LimitExceededError: the line is longer than `MAX_LINE_BYTES`.
        DecodeError: it is not a line that `access_log` describes.
    """
    data = line.encode() if isinstance(line, str) else line
    if len(data) > MAX_LINE_BYTES:
        raise LimitExceededError(format=_FORMAT, limit="MAX_LINE_BYTES", value=MAX_LINE_BYTES)
    try:
        columns = json.loads(data.decode())
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"not JSON ({exc})", format=_FORMAT) from exc
    if not isinstance(columns, dict):
        raise DecodeError("not a JSON object", format=_FORMAT)
    return AccessLogRecord(
        kind=_enum(columns, "kind", RecordKind),
        direction=_enum(columns, "direction", Direction),
        service=_text(columns, "service"),
        started_at=_time(columns, "started_at"),
        duration_seconds=_number(columns, "duration_ms") / 1000,
        peer_node=_text(columns, "peer_node"),
        peer_spiffe_id=_text(columns, "peer_spiffe_id"),
        peer_certificate=_certificate(columns, "peer_certificate"),
        peer_address=_text(columns, "peer_address"),
        tls_version=_text(columns, "tls_version"),
        protocol=_text(columns, "protocol"),
        method=_text(columns, "method"),
        path=_text(columns, "path"),
        response_code=_number(columns, "response_code"),
        response_flags=_text(columns, "response_flags"),
        details=_text(columns, "connection_details") or _text(columns, "response_details"),
        transport_failure=_text(columns, "transport_failure"),
        bytes_received=_number(columns, "bytes_received"),
        bytes_sent=_number(columns, "bytes_sent"),
        upstream_host=_text(columns, "upstream_host"),
        attestation=_text(columns, "attestation"),
        state={
            name: value
            for name in STATE_COLUMNS
            if name != "attestation" and (value := _text(columns, name))
        },
    )


_E = TypeVar("_E", bound=Enum)


def _enum(columns: Mapping[str, object], name: str, kind: type[_E]) -> _E:
    value = columns.get(name)
    try:
        return kind(value)
    except ValueError as exc:
        raise _wrong(name, value, " or ".join(str(item.value) for item in kind)) from exc


def _text(columns: Mapping[str, object], name: str) -> str:
    value = columns.get(name)
    if value is None or value == "-":
        return ""
    # JSON can spell a lone surrogate, which is no text and fails wherever it is written next.
    if not isinstance(value, str) or _SURROGATE.search(value):
        raise _wrong(name, value, "text")
    return value


def _number(columns: Mapping[str, object], name: str) -> int:
    value = columns.get(name)
    if value is None or value == "-":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise _wrong(name, value, "a number of 64 bits")
    return value


def _time(columns: Mapping[str, object], name: str) -> datetime:
    value = _text(columns, name)
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError as exc:
        raise _wrong(name, value, "a UTC time such as 2026-01-02T03:04:05.678901Z") from exc


def _certificate(columns: Mapping[str, object], name: str) -> bytes:
    """Return the PEM text, which Envoy writes URL-encoded."""
    value = _text(columns, name)
    pem = unquote_to_bytes(value)
    if value and not _PEM.fullmatch(pem):
        raise _wrong(name, value, "a URL-encoded PEM certificate")
    return pem


_SURROGATE = re.compile("[\ud800-\udfff]")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n?")


def _wrong(name: str, value: object, accepted: str) -> DecodeError:
    shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return DecodeError(f"{name} is {shown[:100]}; expected {accepted}", format=_FORMAT)
