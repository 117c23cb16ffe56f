# SPDX-License-Identifier: Apache-2.0
"""An attested connection: TLS, the exchange and the application on one asyncio transport.

From below it is an `asyncio.Protocol` on a raw TCP transport. To above it gives a transport of its
own, on which any asyncio protocol runs, once both sides have decided; before that the protocol
does not exist, so it can neither send nor receive. Afterwards it watches the deadline of the last
decision and ends the connection when it passes.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import structlog

from troth.clock import Clock, SystemClock, system_random
from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    DecodeError,
    FreshnessError,
    PeerError,
    TrothError,
    UnavailableError,
    VerificationError,
)
from troth.formats import cmw
from troth.identity.x509_path import VerifiedX509Svid
from troth.tls.asyncio.engine import TlsContext, TlsEngine
from troth.tls.core.binding import Request
from troth.tls.core.exchange import (
    Appraise,
    DecideIdentity,
    Ended,
    Event,
    Exchange,
    Opened,
    Prove,
    Renewed,
    Timeouts,
)
from troth.tls.core.framing import FrameKind, FrameReader, encode_frames
from troth.tls.core.messages import Model, RequestParameters, Verdict
from troth.tls.core.session import SessionBinding
from troth.tls.credentials import Credentials
from troth.tls.judge import EAR_JWT, AttestedPeer, Judge

__all__ = ["AttestationRefusedError", "AttestedConnection", "ConnectionOptions"]

_log = structlog.get_logger("troth.tls")

EAR_MARK = cmw.Indicator.ATTESTATION_RESULTS
# A payload above this is worth compressing where the peer takes it.
_COMPRESS_ABOVE = 4096


class AttestationRefusedError(AuthorizationError):
    """No connection came about, or it was ended, by a decision or for want of one.

    Attributes:
        verdict: the coarse class, also told to the peer.
        by_peer: whether the other side decided so.
    """

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.why)
        self.verdict = ended.verdict
        self.by_peer = ended.by_peer


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """What a connection needs besides its policy; shared by many.

    Attributes:
        context: TLS settings with this side's SVID.
        credentials: what this side can show.
        judge: decides about peers.
        timeouts: of the opening exchange.
        handshake_seconds: for TLS.
        renewal_seconds: how long one side waits for the other's proof when attesting again; an
            application that does not read for a while must not lose its connection for it.
        clock: time.
    """

    context: TlsContext
    credentials: Credentials
    judge: Judge
    timeouts: Timeouts = field(default_factory=Timeouts)
    handshake_seconds: float = 10.0
    renewal_seconds: float = 60.0
    clock: Clock = field(default_factory=SystemClock)


class AttestedConnection(asyncio.Protocol):
    """One connection. `await opened` gives the decision; `peer` says what was proved."""

    def __init__(
        self,
        options: ConnectionOptions,
        application: Callable[[AttestedConnection], asyncio.Protocol],
        *,
        on_lapse: Callable[[AttestedConnection, str], None] | None = None,
    ) -> None:
        """Prepare one connection.

        Args:
            options: shared settings.
            application: makes the protocol that runs on top, once the connection is open.
            on_lapse: called with the reason when a decision lapses or re-attestation fails.
        """
        self._options = options
        self._application = application
        self._on_lapse = on_lapse
        self._engine = TlsEngine(options.context)
        self._frames = FrameReader()
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[AttestedPeer] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._renewals: list[asyncio.Future[AttestedPeer]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._lapse: asyncio.TimerHandle | None = None
        self._raw: asyncio.Transport | None = None
        self._top: asyncio.Protocol | None = None
        self._transport: _ApplicationTransport | None = None
        self._exchange: Exchange | None = None
        self._binding: SessionBinding | None = None
        self._svid: VerifiedX509Svid | None = None
        self._judged: AttestedPeer | None = None
        self._asked_for_evidence = False
        self._failure: TrothError | None = None
        self._closing = False

    @property
    def peer(self) -> AttestedPeer:
        """Who the peer is and what was last proved.

        Raises:
            ApiMisuseError: the connection is not open yet.
        """
        if self._judged is None:
            raise ApiMisuseError("nothing is known of the peer before the connection is open")
        return self._judged

    @property
    def flowing(self) -> bool:
        """Whether application bytes may pass."""
        return self._exchange is not None and self._exchange.flowing

    @property
    def failure(self) -> TrothError | None:
        """Why the connection ended, or None where nobody objected to it."""
        return self._failure

    async def reattest(self) -> AttestedPeer:
        """Ask the peer for a new proof while the connection stays open.

        Returns:
            What was proved this time.

        Raises:
            AttestationRefusedError: the peer was refused or gave none; the connection is closed.
            ApiMisuseError: the policy asks the peer for nothing, or a round is running.
        """
        if self._exchange is None or not self._exchange.flowing:
            raise ApiMisuseError("only an open connection can attest again")
        if self._renewals:
            raise ApiMisuseError("a round of attestation is running")
        renewal: asyncio.Future[AttestedPeer] = self._loop.create_future()
        self._renewals.append(renewal)
        self._asked_for_evidence = False
        try:
            self._handle(self._exchange.ask(self._loop.time(), self._demand()))
        except ApiMisuseError:
            self._renewals.remove(renewal)
            raise
        self._flush()
        return await renewal

    def close(self) -> None:
        """Close once everything written has gone out."""
        self._closing = True
        if self._raw is not None and not self._raw.is_closing():
            self._engine.close()
            self._send_raw()
            self._raw.close()

    def abort(self) -> None:
        """Close at once; what has not gone out is lost."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await asyncio.shield(self.closed)

    # The raw transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._raw = cast("asyncio.Transport", transport)
        self._arm(self._loop.time() + self._options.handshake_seconds)
        self._progress()

    def data_received(self, data: bytes) -> None:
        """Take octets from the network."""
        self._engine.receive(data)
        self._progress()

    def eof_received(self) -> bool:
        """End: TLS over half a connection is not offered; half-close is a frame of ours."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, whatever the reason."""
        for handle in (self._timer, self._lapse):
            if handle is not None:
                handle.cancel()
        for task in self._tasks:
            task.cancel()
        if self._failure is None and not self.opened.done():
            self._failure = PeerError("the peer closed the connection before it was attested")
        unfinished = not self._frames.ended and self._top is not None
        truncated = self._failure is None and unfinished and not self._closing
        failure = self._failure or (
            PeerError("the connection broke before the end of the peer's data")
            if truncated and exc is None
            else None
        )
        self._fail_waiters(failure or PeerError("the connection is closed"))
        if self._top is not None:
            cause: Exception | None = exc
            if failure is not None and not self._frames.ended:
                cause = ConnectionResetError(str(failure))
                cause.__cause__ = failure
            self._top.connection_lost(cause)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """Pass back-pressure on."""
        if self._top is not None:
            self._top.pause_writing()

    def resume_writing(self) -> None:
        """Pass relief on."""
        if self._top is not None:
            self._top.resume_writing()

    # The machine.

    def _progress(self) -> None:
        try:
            if self._exchange is None:
                if not self._engine.handshake():
                    self._send_raw()
                    return
                self._established()
            self._receive()
        except TrothError as exc:
            self._give_up(exc)
        self._flush()

    def _established(self) -> None:
        options = self._options
        self._svid = options.judge.identify(self._engine.peer_chain, now=options.clock.now())
        self._binding = SessionBinding(
            role=self._engine.role, exporter=self._engine.export, hash_name=self._engine.hash_name
        )
        self._exchange = Exchange(
            self._binding, self._demand(), random=system_random, timeouts=options.timeouts
        )
        self._handle(self._exchange.start(self._loop.time()))

    def _receive(self) -> None:
        try:
            plain = self._engine.read()
        except EOFError:
            if self._raw is not None:
                self._raw.close()
            return
        for frame in self._frames.feed(plain):
            if frame.kind is FrameKind.EXCHANGE_END:
                if self._exchange is not None:
                    self._handle(self._exchange.receive(frame.payload, self._loop.time()))
            elif self._exchange is None or not self._exchange.flowing or self._top is None:
                raise PeerError("application data before both sides have decided")
            elif frame.kind is FrameKind.APPLICATION:
                self._top.data_received(frame.payload)
            elif not self._top.eof_received():
                # asyncio's contract: a protocol that does not want half-close gets the end.
                self.close()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Prove):
                self._spawn(self._prove(event))
            elif isinstance(event, Appraise):
                self._spawn(self._appraise(event))
            elif isinstance(event, DecideIdentity):
                self._decide_identity()
            elif isinstance(event, Opened):
                self._open()
            elif isinstance(event, Renewed) and event.ours:
                self._resolve_renewals()
            elif isinstance(event, Ended):
                self._end(event)

    def _decide_identity(self) -> None:
        exchange, svid = self._require()
        judgement = self._options.judge.judge_identity(svid, now=self._options.clock.now())
        self._handle(self._conclude(-1, judgement.peer, exchange))

    async def _prove(self, event: Prove) -> None:
        exchange, _ = self._require()
        binding = self._binding
        if binding is None:  # pragma: no cover - set together with the exchange
            return
        try:
            payload = await self._payload(event.request, binding)
            if payload is None:
                self._handle(exchange.decline(event.round, event.request, "nothing to show"))
                return
            content, encoding = _encode_payload(payload, event.request)
            pending = binding.begin_proof(
                event.request, self._options.credentials.proof_chain, content, encoding
            )
            algorithm, signature = await self._options.credentials.sign(pending.to_sign)
            proof = binding.finish_proof(pending, algorithm, signature)
            self._handle(exchange.proof_made(event.round, proof, self._loop.time()))
        except TrothError as exc:
            self._handle(exchange.decline(event.round, event.request, str(exc)))

    async def _payload(self, request: Request, binding: SessionBinding) -> bytes | None:
        credentials = self._options.credentials
        for model in request.parameters.models:
            if model is Model.PASSPORT and (passport := credentials.current_passport()):
                return cmw.encode_cbor(cmw.CmwRecord(EAR_JWT, passport, EAR_MARK))
            if model is Model.BACKGROUND_CHECK and credentials.attester is not None:
                attester = credentials.attester
                challenge = binding.challenge(
                    request, credentials.proving.spki, attester.challenge_size
                )
                evidence = await asyncio.to_thread(attester.attest, challenge)
                record = cmw.CmwRecord(attester.media_type, evidence, cmw.Indicator.EVIDENCE)
                return cmw.encode_cbor(record)
        return None

    async def _appraise(self, event: Appraise) -> None:
        exchange, svid = self._require()
        if self._binding is None:  # pragma: no cover - set together with the exchange
            return
        judge = self._options.judge
        try:
            judgement = await judge.judge(
                svid, event.proof, self._binding, now=self._options.clock.now()
            )
        except UnavailableError as exc:
            self._handle(self._indeterminate(event.round, str(exc), exchange))
            return
        except TrothError as exc:
            if self._may_check(exchange):
                self._handle(self._ask_for_evidence(exchange))
            else:
                self._handle(exchange.decide(event.round, _verdict(exc), str(exc)))
            return
        if not judgement.peer.decision.admitted and self._may_check(exchange):
            self._handle(self._ask_for_evidence(exchange))
            return
        self._handle(self._conclude(event.round, judgement.peer, exchange))

    def _may_check(self, exchange: Exchange) -> bool:
        return (
            self._options.judge.policy.model == "any"
            and self._options.judge.can_check
            and not self._asked_for_evidence
            and exchange.ended is None
        )

    def _ask_for_evidence(self, exchange: Exchange) -> list[Event]:
        self._asked_for_evidence = True
        return exchange.ask(self._loop.time(), self._demand(Model.BACKGROUND_CHECK))

    def _indeterminate(self, round_: int, why: str, exchange: Exchange) -> list[Event]:
        keep = self._options.judge.policy.on_indeterminate == "keep"
        if keep and self._judged is not None and exchange.flowing:
            # The last decision and its deadline stand; this round ends without a better one.
            self._fail_renewals(UnavailableError(why))
            return exchange.decide(round_, Verdict.ACCEPTED)
        return exchange.decide(round_, Verdict.UNAVAILABLE, why)

    def _conclude(self, round_: int, peer: AttestedPeer, exchange: Exchange) -> list[Event]:
        if not peer.decision.admitted or peer.decision.deadline is None:
            why = "; ".join(str(objection) for objection in peer.decision.objections)
            return exchange.decide(round_, Verdict.REFUSED, why)
        self._judged = peer
        self._watch(peer.decision.deadline.at, peer.decision.deadline.because)
        return exchange.decide(round_, Verdict.ACCEPTED)

    def _open(self) -> None:
        if self._raw is None:
            return
        self._transport = _ApplicationTransport(self, self._raw)
        self._top = self._application(self)
        if not self.opened.done():
            self.opened.set_result(self.peer)
        self._top.connection_made(self._transport)

    def _resolve_renewals(self) -> None:
        waiting, self._renewals = self._renewals, []
        for renewal in waiting:
            if not renewal.done():
                renewal.set_result(self.peer)

    def _watch(self, at: datetime, because: str) -> None:
        if self._lapse is not None:
            self._lapse.cancel()
        left = (at - self._options.clock.now()) / timedelta(seconds=1)
        self._lapse = self._loop.call_later(max(left, 0), self._lapsed, because)

    def _lapsed(self, because: str) -> None:
        if self._exchange is not None:
            self._handle(self._exchange.refuse(Verdict.REFUSED, f"lapsed: {because}"))
            self._flush()

    def _end(self, ended: Ended) -> None:
        was_open = self.opened.done() and not self.opened.cancelled()
        self._failure = AttestationRefusedError(ended)
        _log.info(
            "connection ended",
            peer=str(self._svid.svid.spiffe_id) if self._svid else "",
            verdict=ended.verdict.name.lower(),
            why=ended.why,
            by_peer=ended.by_peer,
        )
        self._fail_waiters(self._failure)
        if was_open and self._on_lapse is not None:
            self._on_lapse(self, ended.why)
        # The decision still has to reach the peer: `_flush` sends it, then the end of TLS.
        self._loop.call_soon(self.close)

    def _give_up(self, exc: TrothError) -> None:
        if self._exchange is not None and self._exchange.ended is None:
            self._handle(self._exchange.refuse(_verdict(exc), str(exc)))
            return
        if self._failure is None:
            self._failure = exc
            self._fail_waiters(exc)
            _log.info("connection failed", why=str(exc))
        # What TLS has to say (an alert) goes out first.
        self._loop.call_soon(self.close)

    def _fail_waiters(self, failure: TrothError) -> None:
        if not self.opened.done():
            self.opened.set_exception(failure)
            self.opened.exception()  # looked at here, so that nobody has to wait for it
        self._fail_renewals(failure)

    def _fail_renewals(self, failure: TrothError) -> None:
        waiting, self._renewals = self._renewals, []
        for renewal in waiting:
            if not renewal.done():
                renewal.set_exception(failure)
                renewal.exception()

    def _require(self) -> tuple[Exchange, VerifiedX509Svid]:
        if self._exchange is None or self._svid is None:  # pragma: no cover - events come later
            raise ApiMisuseError("the exchange has not begun")
        return self._exchange, self._svid

    def _demand(self, model: Model | None = None) -> RequestParameters | None:
        judge = self._options.judge
        return judge.policy.demand(
            model, encodings=("deflate",), takes_references=judge.takes_references
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            await work
            self._flush()

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("defect in a connection", exc_info=error)
            self.abort()

    # Output.

    def _flush(self) -> None:
        if self._exchange is not None:
            for message in self._exchange.messages_to_send():
                self._send_frames(FrameKind.EXCHANGE_END, message)
            waiting = self._exchange.next_deadline()
            if waiting is not None and self._exchange.flowing:
                waiting += self._options.renewal_seconds
            self._arm(waiting)
        self._send_raw()

    def write_application(self, data: bytes) -> None:
        """Send application bytes; for the application's transport only.

        Raises:
            ApiMisuseError: the connection is not open.
        """
        if not self.flowing:
            raise ApiMisuseError("the connection is not open for application data")
        self._send_frames(FrameKind.APPLICATION, data)
        self._send_raw()

    def write_end(self) -> None:
        """Say that no more application bytes follow."""
        if self.flowing:
            self._send_frames(FrameKind.END_OF_STREAM, b"")
            self._send_raw()

    def _send_frames(self, kind: FrameKind, payload: bytes) -> None:
        for frame in encode_frames(kind, payload):
            self._engine.write(frame)

    def _send_raw(self) -> None:
        data = self._engine.outgoing()
        if data and self._raw is not None and not self._raw.is_closing():
            self._raw.write(data)

    def _arm(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        if self._exchange is None:
            self._give_up(PeerError("the TLS handshake took too long"))
            self.abort()
            return
        self._handle(self._exchange.poll(self._loop.time()))
        self._flush()


class _ApplicationTransport(asyncio.Transport):
    """What the application's protocol sees."""

    def __init__(self, connection: AttestedConnection, raw: asyncio.Transport) -> None:
        super().__init__()
        self._connection = connection
        self._raw = raw
        self._ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's signature
        """Return `troth_peer` (AttestedPeer), `troth_connection`, or the raw transport's fact."""
        if name == "troth_peer":
            return self._connection.peer
        if name == "troth_connection":
            return self._connection
        return self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; after the end of the connection the data is dropped, as asyncio's transports do."""
        if self._ended:
            raise ApiMisuseError("write after write_eof")
        if self._connection.flowing and not self._raw.is_closing():
            self._connection.write_application(bytes(data))

    def can_write_eof(self) -> bool:
        """Half-close is supported."""
        return True

    def write_eof(self) -> None:
        """End this side's data; the peer's keeps coming."""
        if not self._ended:
            self._ended = True
            self._connection.write_end()

    def close(self) -> None:
        """Close after what was written."""
        self.write_eof()
        self._connection.close()

    def abort(self) -> None:
        """Close at once."""
        self._connection.abort()

    def is_closing(self) -> bool:
        """Whether the connection is closing."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """Stop taking data."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on taking data."""
        self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Whether data is taken."""
        return self._raw.is_reading()

    def get_write_buffer_size(self) -> int:
        """Octets that wait for the network."""
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called."""
        self._raw.set_write_buffer_limits(high, low)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the raw transport's protocol, this connection."""
        return self._raw.get_protocol()


def _encode_payload(payload: bytes, request: Request) -> tuple[bytes, str]:
    """Compress what is large where the peer takes it; refuse what it would not take.

    Raises:
        UnavailableError: larger than the peer announced, compressed or not.
    """
    parameters = request.parameters
    limit = min(parameters.max_proof_octets, (1 << 16) - 64)
    if len(payload) > _COMPRESS_ABOVE and "deflate" in parameters.encodings:
        squeezed = zlib.compress(payload)
        if len(squeezed) < len(payload) and len(squeezed) <= limit:
            return squeezed, "deflate"
    if len(payload) > limit:
        raise UnavailableError(
            f"the payload has {len(payload)} octets, the peer takes {limit}",
            remedy="show a passport, or let both sides take payloads by reference",
        )
    return payload, ""


def _verdict(exc: TrothError) -> Verdict:
    """Return the coarse class of an error: the one table from our errors to the wire."""
    if isinstance(exc, FreshnessError):
        return Verdict.NOT_FRESH
    if isinstance(exc, UnavailableError):
        return Verdict.UNAVAILABLE
    if isinstance(exc, DecodeError | PeerError):
        return Verdict.MALFORMED
    if isinstance(exc, VerificationError | AuthorizationError):
        return Verdict.REFUSED
    return Verdict.REFUSED
