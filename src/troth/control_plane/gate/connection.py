# SPDX-License-Identifier: Apache-2.0
"""One connection of the proxy, as its agent decides about it.

The gates carry the exchange; here it is run, with the binding to both certificates and nonces.
The gate is told to admit only when both sides have accepted (`Opened`), for as long as this side's
decision lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from troth.clock import Clock
from troth.control_plane.gate.decision import deadline_ms, filter_state, peer_class
from troth.control_plane.gate.frames import (
    MAX_EXCHANGE_BYTES,
    Admit,
    AgentFrame,
    Close,
    GateRole,
    Opening,
    PeerData,
    PeerIdentity,
    Refuse,
    Send,
    Update,
)
from troth.errors import BindingError, PeerError, TrothError
from troth.formats.exported_authenticator import Role
from troth.identity.spiffe_id import SpiffeId
from troth.mesh.deadline import Deadline
from troth.tls.asyncio.driver import ExchangeDriver, ExchangeOptions
from troth.tls.core.certificate import NONCE_OCTETS, CertificateBinding
from troth.tls.core.exchange import Ended, Timeouts
from troth.tls.core.messages import Verdict
from troth.tls.credentials import Credentials
from troth.tls.judge import Judge
from troth.tls.peer import AttestedPeer, ChannelPeer
from troth.tls.prover import Prover

__all__ = ["GateConnection", "GateSide", "OwnSide", "encode_context"]

_log = structlog.get_logger("troth.gate")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSide:
    """What this node shows at the moment.

    Attributes:
        credentials: SVID, result and Attester.
        shown: SHA-256 of each certificate that the proxy may be showing, the newest first.
    """

    credentials: Credentials
    shown: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSide:
    """What is demanded of peers in one direction: of those that call, or of those that are called.

    Attributes:
        judge: decides.
        svid_end: says until when the SVID behind a SPIFFE ID may be taken to last, where nothing
            but the SVID is asked for: Envoy verified it, and does not tell its end.
    """

    judge: Judge
    svid_end: Callable[[str, datetime], datetime]


@dataclass(slots=True)
class _Incoming:
    """A message of the peer's agent that comes in pieces."""

    pieces: bytearray = field(default_factory=bytearray)
    total: int = 0

    def take(self, frame: PeerData) -> bytes | None:
        self.total += len(frame.data)
        if self.total > MAX_EXCHANGE_BYTES:
            raise PeerError("the peer's agent sends more than an exchange may have")
        self.pieces += frame.data
        if frame.more:
            return None
        whole = bytes(self.pieces)
        self.pieces.clear()
        return whole


class GateConnection:
    """The exchange of one connection between two proxies. Owns the driver's channel."""

    def __init__(
        self,
        opening: Opening,
        *,
        side: GateSide,
        own: OwnSide,
        write: Callable[[AgentFrame], None],
        random: Callable[[int], bytes],
        clock: Clock,
        timeouts: Timeouts,
    ) -> None:
        """Begin; a client's request goes out at once, a server's when its peer is known."""
        self.number = opening.connection
        self.opening = opening
        self.peer_identity: PeerIdentity | None = None
        self.peer: AttestedPeer | None = None
        self._side = side
        self._write, self._clock = write, clock
        self._incoming = _Incoming()
        # Without a demand the decision waits for the peer's identity.
        self._identity_alone = side.judge.demand() is None
        self._binding = CertificateBinding(
            role=Role.CLIENT if opening.role is GateRole.CLIENT else Role.SERVER,
            nonce=random(NONCE_OCTETS),
            own=tuple(own.shown),
        )
        options = ExchangeOptions(
            judge=side.judge, prover=Prover(own.credentials), clock=clock, timeouts=timeouts
        )
        self._driver = ExchangeDriver(options, self._binding, self)
        self._started = self._binding.role is Role.CLIENT and not self._identity_alone
        if self._started:
            self._driver.start()

    @property
    def admitted(self) -> bool:
        """Whether the gate was told to let application bytes pass."""
        return self.peer is not None

    def see_peer(self, identity: PeerIdentity) -> None:
        """Take what Envoy says about the peer's certificate."""
        self.peer_identity = identity
        self._binding.see_peer(identity.digest)
        try:
            peer = self._channel_peer(identity)
        except TrothError as exc:
            self._driver.fail(exc)
            return
        if self._started:
            self._driver.see_peer(peer)
        else:
            self._started = True
            self._driver.start(peer)

    def take(self, frame: PeerData) -> None:
        """Take a piece of a message of the peer's agent."""
        try:
            message = self._incoming.take(frame)
        except PeerError as exc:
            self._driver.refuse(Verdict.MALFORMED, str(exc))
            return
        if message is not None:
            self._driver.receive(message)

    def close(self, why: str) -> None:
        """End the connection, whatever its state."""
        self._write(Close(self.number, why))

    def extend(self, deadline: Deadline, peer: AttestedPeer) -> None:
        """Let an admitted connection live on to a later deadline."""
        now = self._clock.now()
        self.peer = peer
        self._write(
            Update(
                self.number, deadline_ms(deadline.at, now), filter_state(peer, deadline=deadline)
            )
        )

    def forget(self) -> None:
        """The connection is gone: stop whatever is under way for it."""
        self._driver.stop()

    # What the driver asks of its channel.

    def send_message(self, message: bytes) -> None:
        """Have the gate carry a message to the peer's agent."""
        if not self.admitted:
            self._write(Send(self.number, message))

    def exchange_opened(self, peer: AttestedPeer) -> None:
        """Have the gate admit. Nothing is exchanged after that, and the gate keeps the time."""
        deadline = peer.decision.deadline
        if deadline is None:  # pragma: no cover - no peer is admitted without one
            return
        self.peer = peer
        self._driver.stop()
        self._write(
            Admit(
                self.number,
                deadline_ms(deadline.at, self._clock.now()),
                filter_state(peer, deadline=deadline),
                context=encode_context(peer),
            )
        )

    def exchange_renewed(self, peer: AttestedPeer) -> None:
        """Does not happen: the exchange is over when the gate admits."""

    def exchange_ended(self, ended: Ended) -> None:
        """Have the gate refuse."""
        self._write(Refuse(self.number, peer_class(ended.verdict), ended.why))
        _log.info(
            "connection refused",
            peer=self.peer_identity.spiffe_id if self.peer_identity else "",
            verdict=ended.verdict.name.lower(),
            why=ended.why,
            by_peer=ended.by_peer,
            envoy_connection=self.opening.envoy_connection,
        )

    async def writable(self) -> None:
        """Return at once: a peer that does not read gets one proof, and no more."""

    def _channel_peer(self, identity: PeerIdentity) -> ChannelPeer:
        """Return whom Envoy verified in TLS.

        Raises:
            BindingError: somebody without a SPIFFE ID.
            DecodeError: it is none.
        """
        if not identity.spiffe_id:
            raise BindingError("the proxy names no SPIFFE ID of the peer")
        end = None
        if self._identity_alone:
            end = self._side.svid_end(identity.spiffe_id, self._clock.now())
        return ChannelPeer(spiffe_id=SpiffeId.decode(identity.spiffe_id), not_after=end)


def encode_context(peer: AttestedPeer) -> bytes:
    """Return what the next agent has to know of a connection that this one admitted.

    Digest of the proving key (zeros where none proved), then the SPIFFE ID.
    """
    return (peer.proof_key_digest or bytes(32)) + str(peer.spiffe_id).encode()[: 512 - 32]
