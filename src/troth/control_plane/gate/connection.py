# SPDX-License-Identifier: Apache-2.0
"""One connection of the proxy, as its agent decides about it.

The gates carry the exchange; here it is run, with the binding to both certificates and nonces.
The gate is told to admit only when both sides have accepted (`Opened`), for as long as this side's
decision lasts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from cryptography import x509

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
from troth.errors import BindingError, PeerError, TrothError, UnavailableError
from troth.formats.exported_authenticator import Role
from troth.formats.keys import spki
from troth.identity.certificates import key_of
from troth.identity.spiffe_id import SpiffeId
from troth.mesh.deadline import Deadline
from troth.tls.core.binding import Proof
from troth.tls.core.certificate import NONCE_OCTETS, CertificateBinding
from troth.tls.core.exchange import (
    Appraise,
    DecideIdentity,
    Ended,
    Event,
    Exchange,
    Opened,
    Prove,
    Timeouts,
)
from troth.tls.core.messages import Model, Verdict
from troth.tls.credentials import Credentials
from troth.tls.judge import Judge
from troth.tls.peer import AttestedPeer, ChannelPeer
from troth.tls.prover import Prover
from troth.tls.verdicts import verdict_of

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
    """The exchange of one connection between two proxies."""

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
        self.admitted = False
        self.proving_key: bytes = b""
        self._side = side
        self._prover = Prover(own.credentials)
        self._write, self._clock = write, clock
        self._loop = asyncio.get_running_loop()
        self._incoming = _Incoming()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._asked_for_evidence = False
        self._started = False
        demand = side.judge.demand()
        role = Role.CLIENT if opening.role is GateRole.CLIENT else Role.SERVER
        self._binding = CertificateBinding(
            role=role, nonce=random(NONCE_OCTETS), own=tuple(own.shown)
        )
        self._exchange = Exchange(self._binding, demand, random=random, timeouts=timeouts)
        # Without a demand the decision waits for the peer's identity.
        if role is Role.CLIENT and demand is not None:
            self._start()

    def see_peer(self, identity: PeerIdentity) -> None:
        """Take what Envoy says about the peer's certificate."""
        self.peer_identity = identity
        self._binding.see_peer(identity.digest)
        if not self._started:
            self._start()

    def take(self, frame: PeerData) -> None:
        """Take a piece of a message of the peer's agent."""
        try:
            message = self._incoming.take(frame)
        except PeerError as exc:
            self._refuse(Verdict.MALFORMED, str(exc))
            return
        if message is not None:
            self._handle(self._exchange.receive(message, self._loop.time()))
            self._flush()

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
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    # The exchange.

    def _start(self) -> None:
        self._started = True
        self._handle(self._exchange.start(self._loop.time()))
        self._flush()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Prove):
                self._spawn(self._prove(event))
            elif isinstance(event, Appraise):
                self._spawn(self._appraise(event))
            elif isinstance(event, DecideIdentity):
                self._decide_identity()
            elif isinstance(event, Opened):
                self._admit()
            elif isinstance(event, Ended):
                self._ended(event)

    async def _prove(self, event: Prove) -> None:
        try:
            proof = await self._prover.prove(event.request, self._binding)
        except TrothError as exc:
            self._handle(self._exchange.decline(event.round, event.request, str(exc)))
        else:
            self._handle(self._exchange.proof_made(event.round, proof, self._loop.time()))

    async def _appraise(self, event: Appraise) -> None:
        judge, now = self._side.judge, self._clock.now()
        try:
            peer = await judge.judge(self._channel_peer(), event.proof, self._binding, now=now)
        except UnavailableError as exc:
            self._handle(self._exchange.decide(event.round, Verdict.UNAVAILABLE, str(exc)))
            return
        except TrothError as exc:
            if self._may_check():
                self._ask_for_evidence()
            else:
                self._handle(self._exchange.decide(event.round, verdict_of(exc), str(exc)))
            return
        if not peer.decision.admitted and self._may_check():
            self._ask_for_evidence()
            return
        self.proving_key = _key_of(event.proof)
        self._conclude(event.round, peer)

    def _channel_peer(self, not_after: datetime | None = None) -> ChannelPeer:
        """Return whom Envoy verified in TLS.

        Raises:
            BindingError: nobody yet, or somebody without a SPIFFE ID.
        """
        if self.peer_identity is None or not self.peer_identity.spiffe_id:
            raise BindingError("the proxy names no SPIFFE ID of the peer")
        return ChannelPeer(
            spiffe_id=SpiffeId.decode(self.peer_identity.spiffe_id), not_after=not_after
        )

    def _decide_identity(self) -> None:
        now = self._clock.now()
        try:
            named = self._channel_peer()
            end = self._side.svid_end(str(named.spiffe_id), now)
            peer = self._side.judge.judge_identity(self._channel_peer(end), now=now)
        except TrothError as exc:
            self._handle(self._exchange.decide(-1, verdict_of(exc), str(exc)))
            return
        self._conclude(-1, peer)

    def _conclude(self, round_: int, peer: AttestedPeer) -> None:
        if not peer.decision.admitted or peer.decision.deadline is None:
            why = "; ".join(str(objection) for objection in peer.decision.objections)
            self._handle(self._exchange.decide(round_, Verdict.REFUSED, why))
            return
        self.peer = peer
        self._handle(self._exchange.decide(round_, Verdict.ACCEPTED))

    def _may_check(self) -> bool:
        judge = self._side.judge
        return judge.policy.model == "any" and judge.can_check and not self._asked_for_evidence

    def _ask_for_evidence(self) -> None:
        self._asked_for_evidence = True
        demand = self._side.judge.demand(Model.BACKGROUND_CHECK)
        self._handle(self._exchange.ask(self._loop.time(), demand))

    # What the gate is told.

    def _admit(self) -> None:
        peer = self.peer
        if peer is None or peer.decision.deadline is None:  # pragma: no cover - Opened comes after
            return
        # Everything this side has to say goes out before the last word.
        self._flush()
        self.admitted = True
        deadline = peer.decision.deadline
        self._write(
            Admit(
                self.number,
                deadline_ms(deadline.at, self._clock.now()),
                filter_state(peer, deadline=deadline),
                context=encode_context(peer, self.proving_key),
            )
        )

    def _ended(self, ended: Ended) -> None:
        self._flush()
        if not self.admitted:
            self._write(Refuse(self.number, peer_class(ended.verdict), ended.why))
            _log.info(
                "connection refused",
                peer=self.peer_identity.spiffe_id if self.peer_identity else "",
                verdict=ended.verdict.name.lower(),
                why=ended.why,
                by_peer=ended.by_peer,
                envoy_connection=self.opening.envoy_connection,
            )

    def _refuse(self, verdict: Verdict, why: str) -> None:
        self._handle(self._exchange.refuse(verdict, why))

    def _flush(self) -> None:
        for message in self._exchange.messages_to_send():
            if not self.admitted:
                self._write(Send(self.number, message))
        at = None if self.admitted else self._exchange.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._handle(self._exchange.poll(self._loop.time()))
        self._flush()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            await work
            self._flush()

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("defect in an exchange", exc_info=error)
            self._write(Close(self.number, "internal error"))


def _key_of(proof: Proof) -> bytes:
    """Return the proving key; the proof has been judged, so its leaf can be read."""
    return spki(key_of(x509.load_der_x509_certificate(proof.chain[0])))


def encode_context(peer: AttestedPeer, key: bytes) -> bytes:
    """Return what the next agent has to know of a connection that this one admitted.

    Digest of the proving key (zeros where none proved), then the SPIFFE ID.
    """
    digest = hashlib.sha256(key).digest() if key else bytes(32)
    return digest + str(peer.spiffe_id).encode()[: 512 - 32]
