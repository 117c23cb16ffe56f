# SPDX-License-Identifier: Apache-2.0
"""The agent's service for its proxy's gates: a Unix socket, and every connection behind it.

A link that breaks its rules is ended; the connections on it are then the gate's to refuse. What an
earlier agent admitted comes back as RESUME: it is kept only if this agent would admit its peer now.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from troth.clock import Clock, SystemClock, system_random
from troth.control_plane.gate.connection import GateConnection, GateSide, OwnSide
from troth.control_plane.gate.frames import (
    AgentFrame,
    Close,
    Closed,
    FrameDecoder,
    GateFrame,
    GateRole,
    Hello,
    Opening,
    PeerClass,
    PeerData,
    PeerIdentity,
    Refuse,
    Resume,
    Resumed,
    Welcome,
    encode,
)
from troth.errors import ConfigurationError, DecodeError
from troth.mesh.deadline import Deadline
from troth.tls.core.exchange import Timeouts
from troth.tls.peer import AttestedPeer

__all__ = ["GateService", "LiveConnection"]

_log = structlog.get_logger("troth.gate")
_READ_OCTETS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveConnection:
    """An admitted connection, for whoever has to end or extend it.

    Attributes:
        number: the gate's number on its link.
        role: which end this proxy is.
        peer_digest: SHA-256 of the certificate that the peer showed in TLS.
        key_digest: SHA-256 of the proving key, or b"" where the peer proved nothing.
        spiffe_id: of the peer.
        service: the service that it is for.
        peer: as it was judged; None for a connection that an earlier agent admitted.
    """

    number: int
    role: GateRole
    peer_digest: bytes
    key_digest: bytes
    spiffe_id: str
    service: str
    peer: AttestedPeer | None


class GateMetrics:
    """Counters of one agent's gate service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.opened = Counter("troth_gate_exchanges", "Exchanges begun", registry=registry)
        self.closed = Counter(
            "troth_gate_closed", "Connections ended, by reason", ["reason"], registry=registry
        )
        self.admitted = Gauge(
            "troth_gate_admitted", "Admitted connections that are open", registry=registry
        )


class GateService:
    """Serves the gates of one proxy.

    Args:
        path: Unix socket; its directory must be private.
        own: gives what this node shows now, or None while it is no member: then all is refused.
        sides: gives what is demanded for a role, a service (the gate's label) and the peer's
            SPIFFE ID; that is "" on clients, which ask before anybody has answered. None refuses.
        allowed_uids: users whose gates are served; our own by default.
        timeouts: of an exchange; the gate has a deadline of its own.
    """

    def __init__(
        self,
        *,
        path: Path,
        own: Callable[[], OwnSide | None],
        sides: Callable[[GateRole, str, str], GateSide | None],
        allowed_uids: frozenset[int] | None = None,
        timeouts: Timeouts | None = None,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = system_random,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._path = path
        self._own, self._sides = own, sides
        self._uids = allowed_uids if allowed_uids is not None else frozenset({os.getuid(), 0})
        self._timeouts = timeouts or Timeouts(peer=8.0, prove=8.0, appraise=8.0)
        self._clock = clock or SystemClock()
        self._random = random
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.metrics = GateMetrics(registry or CollectorRegistry())

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            ConfigurationError: the socket cannot be had.
        """
        self._path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, backlog=1024)
        except OSError as exc:
            raise ConfigurationError(
                source="gate socket",
                value=str(self._path),
                accepted=f"a path in a directory of our own ({exc.strerror or exc})",
            ) from exc
        finally:
            os.umask(mask)

    async def stop(self) -> None:
        """Stop serving. Gates keep what was admitted, up to its deadline, and refuse the rest."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.abort()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
        self._path.unlink(missing_ok=True)

    async def __aenter__(self) -> GateService:  # noqa: PYI034 - not made for subclasses
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def live(self) -> list[LiveConnection]:
        """Return every admitted connection of every gate."""
        return [live for link in self._links for live in link.live.values()]

    async def close_where(
        self, condition: Callable[[LiveConnection], bool], why: str, *, seconds: float = 5.0
    ) -> bool:
        """End the admitted connections that meet `condition`, and wait for the gates' word.

        Returns:
            True when every one of them is acknowledged as gone; False after `seconds`.
        """
        waiting = [link.close(live, why) for link in self._links for live in link.chosen(condition)]
        if not waiting:
            return True
        done, _ = await asyncio.wait(waiting, timeout=seconds)
        return len(done) == len(waiting)

    def extend_where(
        self, condition: Callable[[LiveConnection], bool], deadline: Deadline, peer: AttestedPeer
    ) -> int:
        """Let admitted connections live on to `deadline`; return how many."""
        count = 0
        for link in self._links:
            for live in link.chosen(condition):
                count += link.extend(live, deadline, peer)
        return count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer_uid(writer)
        if uid not in self._uids:
            _log.warning("a gate of another user was turned away", uid=uid)
            writer.close()
            return
        link = _Link(self, writer)
        self._links.add(link)
        decoder = FrameDecoder()
        try:
            while data := await reader.read(_READ_OCTETS):
                for frame in decoder.feed(data):
                    link.handle(frame)
                link.flush()
                await writer.drain()
        except DecodeError as exc:
            _log.error("a gate broke the protocol", why=str(exc))
        except ConnectionError:
            pass
        finally:
            self._links.discard(link)
            link.forget()
            writer.close()


class _Link:
    """One gate process."""

    def __init__(self, service: GateService, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._writer = writer
        self._pending: list[bytes] = []
        self._flushing = False
        self.connections: dict[int, GateConnection] = {}
        self.live: dict[int, LiveConnection] = {}
        self._strangers: dict[int, Opening] = {}
        self._closing: dict[int, asyncio.Future[None]] = {}
        self._welcomed = False

    def write(self, frame: AgentFrame) -> None:
        """Queue a frame; frames of one turn of the loop go out in one piece."""
        self._pending.append(encode(frame))
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what is queued."""
        self._flushing = False
        if self._pending and not self._writer.is_closing():
            self._writer.write(b"".join(self._pending))
        self._pending.clear()

    def abort(self) -> None:
        """End the link at once."""
        self._writer.transport.abort()

    def forget(self) -> None:
        """The link is gone."""
        for connection in self.connections.values():
            connection.forget()
        self._service.metrics.admitted.dec(len(self.live))
        for waiting in self._closing.values():
            if not waiting.done():
                waiting.set_result(None)

    def chosen(self, condition: Callable[[LiveConnection], bool]) -> list[LiveConnection]:
        """Return the admitted connections that meet `condition`."""
        return [live for live in self.live.values() if condition(live)]

    def close(self, live: LiveConnection, why: str) -> asyncio.Future[None]:
        """Ask the gate to end a connection; the future is done when it says that it has."""
        waiting = self._closing.get(live.number)
        if waiting is None:
            waiting = self._closing[live.number] = asyncio.get_running_loop().create_future()
            self.write(Close(live.number, why))
        return waiting

    def extend(self, live: LiveConnection, deadline: Deadline, peer: AttestedPeer) -> bool:
        """Extend a connection that this agent knows."""
        connection = self.connections.get(live.number)
        if connection is None or live.number in self._closing:
            return False
        connection.extend(deadline, peer)
        return True

    def handle(self, frame: GateFrame) -> None:
        """Take one frame of the gate.

        Raises:
            DecodeError: out of turn, or about a connection that there is not.
        """
        if not self._welcomed and not isinstance(frame, Hello):
            raise DecodeError("HELLO comes first", format="gate link")
        match frame:
            case Hello():
                self._welcomed = True
                self.write(Welcome())
                _log.info("a gate is connected", build=frame.build, pid=frame.pid)
            case Resumed():
                pass
            case Opening():
                self._open(frame)
            case PeerIdentity():
                self._meet(frame)
            case PeerData():
                # A frame may cross our own refusal on the way; then nobody is left to take it.
                if (connection := self.connections.get(frame.connection)) is not None:
                    connection.take(frame)
            case Closed():
                self._closed(frame)
            case Resume():
                self._resume(frame)

    def _open(self, opening: Opening) -> None:
        if opening.connection in self.connections or opening.connection in self._strangers:
            raise DecodeError("a connection number comes twice", format="gate link")
        if opening.role is GateRole.CLIENT:
            self._begin(opening, "")
        else:
            self._strangers[opening.connection] = opening

    def _meet(self, identity: PeerIdentity) -> None:
        opening = self._strangers.pop(identity.connection, None)
        if opening is not None:
            self._begin(opening, identity.spiffe_id)
        connection = self.connections.get(identity.connection)
        if connection is not None:
            connection.see_peer(identity)

    def _begin(self, opening: Opening, spiffe_id: str) -> None:
        own = self._service._own()  # noqa: SLF001 - the link is the service's other half
        if own is None:
            self.write(Refuse(opening.connection, PeerClass.UNAVAILABLE, "this node is no member"))
            return
        side = self._service._sides(opening.role, opening.label, spiffe_id)  # noqa: SLF001
        if side is None:
            why = f"no rule of this node is about {spiffe_id or 'this peer'} at {opening.label}"
            self.write(Refuse(opening.connection, PeerClass.REFUSED, why))
            return
        self._service.metrics.opened.inc()
        self.connections[opening.connection] = GateConnection(
            opening,
            side=side,
            own=own,
            write=self._writer_of(opening.connection),
            random=self._service._random,  # noqa: SLF001
            clock=self._service._clock,  # noqa: SLF001
            timeouts=self._service._timeouts,  # noqa: SLF001
        )

    def _writer_of(self, number: int) -> Callable[[AgentFrame], None]:
        def write(frame: AgentFrame) -> None:
            self.write(frame)
            self._note_admitted(number)

        return write

    def _note_admitted(self, number: int) -> None:
        connection = self.connections.get(number)
        if connection is None or not connection.admitted or number in self.live:
            return
        identity, peer = connection.peer_identity, connection.peer
        if identity is None or peer is None:
            return
        self.live[number] = LiveConnection(
            number=number,
            role=connection.opening.role,
            peer_digest=identity.digest,
            key_digest=peer.proof_key_digest,
            spiffe_id=str(peer.spiffe_id),
            service=connection.opening.label,
            peer=peer,
        )
        self._service.metrics.admitted.inc()

    def _resume(self, frame: Resume) -> None:
        digest, spiffe_id = frame.context[:32], frame.context[32:]
        self.live[frame.connection] = LiveConnection(
            number=frame.connection,
            role=frame.role,
            peer_digest=frame.digest,
            key_digest=digest if any(digest) else b"",
            spiffe_id=spiffe_id.decode(errors="replace"),
            service=frame.label,
            peer=None,
        )
        self._service.metrics.admitted.inc()

    def _closed(self, frame: Closed) -> None:
        self._service.metrics.closed.labels(frame.reason.name.lower()).inc()
        self._strangers.pop(frame.connection, None)
        connection = self.connections.pop(frame.connection, None)
        if connection is not None:
            connection.forget()
            if frame.text or not connection.admitted:
                _log.info(
                    "connection ended",
                    reason=frame.reason.name.lower(),
                    text=frame.text,
                    peer_class=frame.peer_class,
                    envoy_connection=connection.opening.envoy_connection,
                )
        if self.live.pop(frame.connection, None) is not None:
            self._service.metrics.admitted.dec()
        waiting = self._closing.pop(frame.connection, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
