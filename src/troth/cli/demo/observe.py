# SPDX-License-Identifier: Apache-2.0
"""What the Envoys saw of each other, and what clients of open connections notice.

Peers are read from the access logs: from what the gate let Envoy know and, without the gate, from
the certificates alone, whose results are verified with the Verifier's key. The registry is not
asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from troth.console.report import PeerView
from troth.control_plane.envoy.access_log import (
    AccessLogRecord,
    Direction,
    RecordKind,
    decode_access_log_line,
)
from troth.errors import UnavailableError
from troth.identity.attestation_result import attestation_result
from troth.identity.x509_svid import X509Svid
from troth.mesh.passport import Passport, TrustedVerifier, read_passport

__all__ = [
    "EndedConnection",
    "OpenConnection",
    "find_connection",
    "find_record",
    "http_stream",
    "peer_view",
    "tcp_stream",
]

_LOG_SECONDS = 5.0


async def find_record(
    log: Path, direction: Direction, *, path: str, after: datetime
) -> AccessLogRecord:
    """Wait for the line about the request for `path` in an Envoy's access log.

    Raises:
        UnavailableError: it does not come.
    """

    def wanted(record: AccessLogRecord) -> bool:
        return record.kind is RecordKind.REQUEST and record.path == path

    return await _find(log, direction, wanted, after=after, what=path)


async def find_connection(
    log: Path, direction: Direction, *, service: str, after: datetime
) -> AccessLogRecord:
    """Wait for a line about a connection to `service`, which may still be open.

    Raises:
        UnavailableError: it does not come.
    """

    def wanted(record: AccessLogRecord) -> bool:
        # A proxied connection has two lines; the one of the mesh connection has the peer.
        about = record.kind is RecordKind.CONNECTION and record.service == service
        return about and record.peer_is_proven

    return await _find(log, direction, wanted, after=after, what=f"a connection to {service}")


async def _find(
    log: Path,
    direction: Direction,
    wanted: Callable[[AccessLogRecord], bool],
    *,
    after: datetime,
    what: str,
) -> AccessLogRecord:
    deadline = time.monotonic() + _LOG_SECONDS
    while time.monotonic() < deadline:
        for line in reversed(_lines(log)):
            record = decode_access_log_line(line)
            if record.direction is direction and record.started_at >= after and wanted(record):
                return record
        await asyncio.sleep(0.05)
    raise UnavailableError(f"{log.name} has no {direction.value} line about {what}")


def _lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines() if log.exists() else []


def peer_view(record: AccessLogRecord, verifier: TrustedVerifier) -> PeerView:
    """Return what this Envoy knew of its peer.

    Raises:
        DecodeError, VerificationError: the peer's certificate proves nothing.
    """
    return _by_gate(record, verifier) if record.attestation else _by_certificate(record, verifier)


def _by_gate(record: AccessLogRecord, verifier: TrustedVerifier) -> PeerView:
    state = record.state
    issued = state.get("result_issued_at")
    age = None if issued is None else record.started_at - datetime.fromisoformat(issued)
    return PeerView(
        spiffe_id=record.peer_spiffe_id,
        scheme=state.get("scheme", "") if issued else "",
        status=state.get("result", "none"),
        tier=state.get("tier", ""),
        binding=state.get("binding", ""),
        result_age_seconds=None if age is None else max(age.total_seconds(), 0.0),
        verifier=state.get("verifier", "") if issued else "",
        tls_version=record.tls_version,
        insecure=tuple(filter(None, state.get("insecure", "").split("; "))),
        fresh=issued is not None
        and datetime.fromisoformat(issued) > _passport(record, verifier).result.issued,
    )


def _passport(record: AccessLogRecord, verifier: TrustedVerifier) -> Passport:
    svid = X509Svid.decode(record.peer_certificate)
    token = attestation_result(svid)
    if token is None:
        raise UnavailableError(f"the certificate of {svid.spiffe_id} carries no result")
    return read_passport(
        token,
        key_digest=hashlib.sha256(svid.spki).digest(),
        verifiers=[verifier],
        now=datetime.now(UTC),
    )


def _by_certificate(record: AccessLogRecord, verifier: TrustedVerifier) -> PeerView:
    passport = _passport(record, verifier)
    svid = X509Svid.decode(record.peer_certificate)
    result = passport.result
    return PeerView(
        spiffe_id=str(svid.spiffe_id),
        scheme=passport.scheme,
        status=result.status,
        tier=result.tier.value,
        # The result was issued for the key in the certificate that TLS verified; no more.
        binding="credential",
        result_age_seconds=max((record.started_at - result.issued).total_seconds(), 0.0),
        verifier=result.verifier,
        tls_version=record.tls_version,
        insecure=result.insecure,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedConnection:
    """How an open connection ended.

    Attributes:
        what: for people.
        at: monotonic seconds when its client noticed.
        octets: received before.
        observed: what the client saw.
    """

    what: str
    at: float
    octets: int
    observed: str


class OpenConnection:
    """A connection on which data keeps coming, until it does not."""

    def __init__(
        self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: str
    ) -> None:
        self._what, self._prefix = what, prefix
        self._reader, self._writer = reader, writer
        self.flowing = asyncio.Event()
        self.ended: asyncio.Task[EndedConnection] = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self.ended

    async def _read(self) -> EndedConnection:
        octets = 0
        observed = "end of the stream"
        try:
            while data := await self._reader.read(4096):
                octets += len(data)
                if octets > 256:
                    self.flowing.set()
        except ConnectionError as exc:
            observed = f"{type(exc).__name__}"
        at = time.monotonic()
        self._writer.close()
        return EndedConnection(
            what=self._what, at=at, octets=octets, observed=f"{self._prefix}{observed}"
        )


async def http_stream(port: int) -> OpenConnection:
    """Ask for the endless response through the local Envoy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nhost: demo\r\n\r\n")
    await writer.drain()
    return OpenConnection("HTTP stream", reader, writer, "response cut: ")


async def tcp_stream(port: int) -> OpenConnection:
    """Start the raw TCP ticker through the local Envoy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"go\n")
    await writer.drain()
    return OpenConnection("raw TCP", reader, writer, "connection cut: ")
