# SPDX-License-Identifier: Apache-2.0
"""An attested connection: TLS, the exchange and the application on one asyncio transport.

From below it is an `asyncio.Protocol` on a raw TCP transport. To above it gives a transport of its
own, on which any asyncio protocol runs, once both sides have decided; before that the protocol
does not exist, so it can neither send nor receive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import structlog

from troth.errors import ApiMisuseError, PeerError, TrothError
from troth.tls.asyncio.contexts import TlsContexts
from troth.tls.asyncio.driver import AttestationRefusedError, ExchangeDriver, ExchangeOptions
from troth.tls.asyncio.engine import TlsEngine
from troth.tls.asyncio.transport import ApplicationTransport
from troth.tls.core.exchange import Ended
from troth.tls.core.framing import (
    Frame,
    FrameKind,
    FrameReader,
    encode_frames,
)
from troth.tls.core.session import SessionBinding
from troth.tls.peer import AttestedPeer

__all__ = ["AttestedConnection", "ConnectionOptions"]

_log = structlog.get_logger("troth.tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions(ExchangeOptions):
    """What the connections of one kind share.

    Attributes:
        contexts: TLS settings with this side's current SVID.
        handshake_seconds: for TLS.
        linger_seconds: how long a closed connection waits for the network to take its last octets.
    """

    contexts: TlsContexts
    handshake_seconds: float = 10.0
    linger_seconds: float = 10.0


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
            on_lapse: called with the reason when an open connection ends by a decision of either
                side: a result lapsed, or re-attestation failed.
        """
        self._options = options
        self._make_application = application
        self._on_lapse = on_lapse
        self._engine = TlsEngine(options.contexts.current())
        self._frames = FrameReader()
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[AttestedPeer] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._raw: asyncio.Transport | None = None
        self._driver: ExchangeDriver | None = None
        self._top: asyncio.Protocol | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._timer: asyncio.TimerHandle | None = None
        self._receiving = False
        self._failure: TrothError | None = None
        self._closing = False

    @property
    def peer(self) -> AttestedPeer:
        """Who the peer is and what was last proved.

        Raises:
            ApiMisuseError: this side has not decided about the peer yet.
        """
        if self._driver is None:
            raise ApiMisuseError("nothing is known of the peer before the connection is open")
        return self._driver.peer

    @property
    def flowing(self) -> bool:
        """Whether application bytes may pass."""
        return self._driver is not None and self._driver.flowing

    @property
    def failure(self) -> TrothError | None:
        """Why the connection ended, or None where nobody objected to it."""
        return self._failure

    @property
    def application(self) -> asyncio.Protocol:
        """The protocol that runs on top.

        Raises:
            ApiMisuseError: the connection is not open yet.
        """
        if self._top is None:
            raise ApiMisuseError("there is no application before the connection is open")
        return self._top

    @application.setter
    def application(self, protocol: asyncio.Protocol) -> None:
        self._top = protocol

    async def reattest(self) -> AttestedPeer:
        """Ask the peer for a new proof while the connection stays open.

        A round that is running is waited for: what this returns was asked for after the call.

        Returns:
            What was proved this time.

        Raises:
            AttestationRefusedError: the peer was refused or gave none; the connection is closed.
            UnavailableError: there was no decision, and the policy keeps the connection.
            ApiMisuseError: the policy asks the peer for nothing, or the connection is not open.
        """
        if self._driver is None:
            raise ApiMisuseError("only an open connection can attest again")
        return await self._driver.reattest()

    def close(self) -> None:
        """Close once everything written has gone out, or after `linger_seconds`."""
        self._closing = True
        if self._raw is not None and not self._raw.is_closing():
            self._engine.close()
            self._send()
            self._raw.close()
            if self._raw.get_write_buffer_size():
                # Who does not read must not keep us: what has not gone out by then is lost.
                self._arm(self._options.linger_seconds, self._raw.abort)

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
        self._arm(self._options.handshake_seconds, self._handshake_is_late)
        self._progress(b"")

    def data_received(self, data: bytes) -> None:
        """Take octets from the network."""
        self._progress(data)

    def eof_received(self) -> bool:
        """End: TLS over half a connection is not offered; half-close is a frame of ours."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, whatever the reason."""
        self._disarm()
        self._writable.set()
        if self._driver is not None:
            self._driver.stop()
        if self._failure is None and not self.opened.done():
            self._failure = PeerError("the peer closed the connection before it was attested")
        # The end of TLS says nothing about the end of the data: that is a frame.
        cut_off = self._top is not None and not self._frames.ended and not self._closing
        if cut_off and self._failure is None and exc is None:
            self._failure = PeerError("the connection broke before the end of the peer's data")
        if not self.opened.done():
            self._fail_opening(self._failure or PeerError("the connection is closed"))
        if self._top is not None:
            cause: Exception | None = exc
            if self._failure is not None and not self._frames.ended:
                cause = ConnectionResetError(str(self._failure))
                cause.__cause__ = self._failure
            self._top.connection_lost(cause)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """Pass back-pressure on."""
        self._writable.clear()
        if self._top is not None:
            self._top.pause_writing()

    def resume_writing(self) -> None:
        """Pass relief on."""
        self._writable.set()
        if self._top is not None:
            self._top.resume_writing()

    # The driver calls these.

    def send_message(self, message: bytes) -> None:
        """Send one message of the exchange."""
        self._write(FrameKind.EXCHANGE_END, message)
        # What answers one piece of input goes out in one piece, when all of it has been read.
        if not self._receiving:
            self._send()

    def exchange_opened(self, peer: AttestedPeer) -> None:
        """Let the application begin."""
        if self._raw is None:  # pragma: no cover - messages came over it
            return
        self._top = self._make_application(self)
        if not self.opened.done():
            self.opened.set_result(peer)
        self._top.connection_made(ApplicationTransport(self, self._raw))
        if not self._writable.is_set():
            self._top.pause_writing()

    def exchange_renewed(self, peer: AttestedPeer) -> None:
        """Nothing to do: `peer` is read where it is wanted."""

    def exchange_ended(self, ended: Ended) -> None:
        """Close, after what was said about it."""
        self._failure = AttestationRefusedError(ended)
        was_open = self._top is not None
        self._fail_opening(self._failure)
        self._loop.call_soon(self.close)
        if was_open and self._on_lapse is not None:
            self._loop.call_soon(self._on_lapse, self, ended.why)

    async def writable(self) -> None:
        """Return when the network takes what was sent."""
        await self._writable.wait()

    # Input.

    def _progress(self, data: bytes) -> None:
        self._receiving = True
        try:
            self._engine.receive(data)
            if self._driver is None:
                if not self._engine.handshake():
                    self._send()
                    return
                self._begin_exchange()
            self._receive()
        except TrothError as exc:
            self._give_up(exc)
        finally:
            self._receiving = False
        self._send()

    def _begin_exchange(self) -> None:
        self._disarm()
        options = self._options
        peer = options.judge.identify(self._engine.peer_chain, now=options.clock.now())
        binding = SessionBinding(
            role=self._engine.role, exporter=self._engine.export, hash_name=self._engine.hash_name
        )
        self._driver = ExchangeDriver(options, binding, self)
        self._driver.start(peer)

    def _receive(self) -> None:
        try:
            pieces = self._engine.read()
        except EOFError:
            if self._raw is not None:
                self._raw.close()
            return
        for piece in pieces:
            # Most pieces of a large transfer lie within a frame whose beginning was looked at.
            if self._frames.passes(piece):
                if not self._take_application(piece):
                    return
                continue
            for frame in self._frames.feed(piece):
                if not self._take(frame):
                    return

    def _take(self, frame: Frame) -> bool:
        """Hand one frame on; say whether to go on."""
        if frame.kind is FrameKind.APPLICATION:
            return self._take_application(frame.payload)
        driver, top = self._driver, self._top
        if driver is None or driver.ended is not None or self._closing:
            return False
        if frame.kind is FrameKind.EXCHANGE_END:
            driver.receive(frame.payload)
        elif top is None or not driver.flowing:
            raise PeerError("the end of application data before both sides have decided")
        elif not top.eof_received():
            # asyncio's contract: a protocol that does not want half-close gets the end.
            self.close()
        return True

    def _take_application(self, data: bytes) -> bool:
        driver, top = self._driver, self._top
        if top is not None and driver is not None and driver.flowing and not self._closing:
            top.data_received(data)
            return True
        if driver is None or driver.ended is not None or self._closing:
            return False
        raise PeerError("application data before both sides have decided")

    def _give_up(self, exc: TrothError) -> None:
        if self._driver is not None and self._driver.ended is None:
            self._driver.fail(exc)
            return
        if self._failure is None:
            self._failure = exc
            self._fail_opening(exc)
            _log.info("connection failed", why=str(exc), role=self._engine.role.value)
        # What TLS has to say (an alert) goes out first.
        self._loop.call_soon(self.close)

    def _handshake_is_late(self) -> None:
        self._give_up(PeerError("the TLS handshake took too long"))
        self.abort()

    def _fail_opening(self, failure: TrothError) -> None:
        if not self.opened.done():
            self.opened.set_exception(failure)
            self.opened.exception()  # looked at here, so that nobody has to wait for it

    # Output.

    def write_application(self, data: bytes | bytearray | memoryview) -> None:
        """Send application bytes, or drop them where the connection is not open any more."""
        if self._driver is None or not self._driver.flowing:
            return
        self._write(FrameKind.APPLICATION, data)
        self._send()

    def write_end(self) -> None:
        """Say that no more application bytes follow."""
        if self.flowing:
            self._write(FrameKind.END_OF_STREAM, b"")
            self._send()

    def _write(self, kind: FrameKind, payload: bytes | bytearray | memoryview) -> None:
        try:
            for part in encode_frames(kind, payload):
                self._engine.write(part)
        except PeerError as exc:
            # TLS has failed or the peer has ended it: nothing that is written arrives.
            self._give_up(exc)

    def _send(self) -> None:
        data = self._engine.outgoing()
        if data and self._raw is not None and not self._raw.is_closing():
            self._raw.write(data)

    # One timer: the handshake's, then that of closing.

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
