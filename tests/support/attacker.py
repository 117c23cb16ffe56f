# SPDX-License-Identifier: Apache-2.0
"""A machine between honest ones: real channels to each of them, and whatever keys it holds.

An honest end runs the product: over TLS by the public API, behind a pretended gate by the driver.
The attacker has the other end of each channel: its TLS with an identity whose private key it
holds, the exchange's messages as octets, and a binding of its own for that channel, so that it can
make proofs as well as anybody. It sends what it likes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from support.attested_pair import Party, digest, shown_chain
from support.attested_world import Node, World
from support.waiting import until
from troth.clock import SystemClock
from troth.errors import TrothError
from troth.formats.exported_authenticator import Role
from troth.formats.signer import LocalSigner
from troth.tls import AttestationPolicy, AttestedStream, open_connection, start_server
from troth.tls.asyncio.driver import ExchangeDriver, ExchangeOptions
from troth.tls.asyncio.engine import TlsContext, TlsEngine
from troth.tls.core.binding import ChannelBinding, Request
from troth.tls.core.certificate import NONCE_OCTETS, CertificateBinding
from troth.tls.core.exchange import Ended, Timeouts
from troth.tls.core.framing import FrameKind, FrameReader, encode_frames
from troth.tls.core.messages import Message, MessageKind, Verdict, decode_message, encode_message
from troth.tls.core.profile import EXPAT_03
from troth.tls.core.session import SessionBinding
from troth.tls.judge import BackgroundCheck, Judge
from troth.tls.peer import AttestedPeer
from troth.tls.prover import Prover

QUICK = Timeouts(peer=2.0, prove=2.0, appraise=2.0, renewal=2.0)


class Refused(Exception):  # noqa: N818 - an outcome
    """The honest end did not open the connection, or ended it."""

    def __init__(self, why: str, verdict: Verdict | None) -> None:
        super().__init__(why)
        self.verdict = verdict


class Honest(Protocol):
    """An honest end, as the attacker's test looks at it."""

    async def outcome(self) -> AttestedPeer:
        """Whom it opened for, or `Refused`."""
        ...

    async def reattest(self) -> AttestedPeer:
        """Let it ask again; or `Refused`."""
        ...

    async def end(self) -> str:
        """Why it ended the connection, or did not open it."""
        ...


class Wire(Protocol):
    """The attacker's end of one channel."""

    binding: ChannelBinding
    honest: Honest

    def send(self, message: bytes) -> None:
        """Send one message of the exchange."""
        ...

    async def receive(self) -> Message:
        """Return the honest end's next message; EOFError where it has gone."""
        ...


def accept(round_: int = 0) -> bytes:
    return encode_message(Message(MessageKind.DECISION, round_, bytes([Verdict.ACCEPTED])))


async def message(wire: Wire, kind: MessageKind) -> Message:
    """Skip to the honest end's next message of a kind."""
    async with asyncio.timeout(5):
        while (got := await wire.receive()).kind is not kind:
            pass
    return got


def read_request(wire: Wire, got: Message) -> Request:
    return wire.binding.read_request(got.body)


def own_proof(wire: Wire, got: Message, node: Node, payload: bytes) -> bytes:
    """Make a proof with the TLS key of `node`, as if everything were in order."""
    assert node.svid.private_key is not None
    signer = LocalSigner(node.svid.private_key)
    request = read_request(wire, got)
    chain = [node.svid.encode_der()]
    pending = wire.binding.begin_proof(request, chain, payload)
    return wire.binding.finish_proof(pending, signer.algorithm, signer.sign(pending.to_sign))


def proof(got: Message, body: bytes) -> bytes:
    return encode_message(Message(MessageKind.PROOF, got.round, body))


# TLS.


class TlsWire(asyncio.Protocol):
    """The attacker's end of a real TLS connection."""

    def __init__(self, context: TlsContext) -> None:
        self.engine = TlsEngine(context)
        self._frames = FrameReader()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = bytearray()
        # The first decision that is not an acceptance: what this end is told.
        self.told: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.honest: Honest
        self.binding: ChannelBinding

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._step(b"")

    def data_received(self, data: bytes) -> None:
        self._step(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._messages.put_nowait(None)
        if not self.ready.done():
            self.ready.set_exception(EOFError("no TLS"))
            self.ready.exception()

    def _step(self, data: bytes) -> None:
        try:
            self.engine.receive(data)
            if not self.ready.done() and self.engine.handshake():
                self.binding = SessionBinding(
                    role=self.engine.role,
                    exporter=self.engine.export,
                    hash_name=self.engine.hash_name,
                )
                self.ready.set_result(None)
            if self.ready.done():
                for frame in self._frames.feed(b"".join(self.engine.read())):
                    if frame.kind is FrameKind.EXCHANGE_END:
                        self._take(decode_message(frame.payload))
                    else:
                        self.received += frame.payload
        except TrothError as exc:
            if not self.ready.done():
                self.ready.set_exception(EOFError(str(exc)))
                self.ready.exception()
        except EOFError:
            self.transport.close()
        self._flush()

    def _take(self, got: Message) -> None:
        self._messages.put_nowait(got)
        if got.kind is MessageKind.DECISION and got.body != bytes([Verdict.ACCEPTED]):
            assert len(got.body) == 1
            self.told.set_result(Verdict(got.body[0]))

    def _flush(self) -> None:
        if data := self.engine.outgoing():
            self.transport.write(data)

    def send(self, message: bytes) -> None:
        self.send_frames(FrameKind.EXCHANGE_END, message)

    def send_frames(self, kind: FrameKind, payload: bytes = b"") -> None:
        self.send_raw(b"".join(encode_frames(kind, payload)))

    def send_raw(self, data: bytes) -> None:
        """Send octets inside TLS that need not be frames."""
        self.engine.write(data)
        self._flush()

    async def receive(self) -> Message:
        got = await self._messages.get()
        if got is None:
            raise EOFError("the honest end has gone")
        return got


class _TlsHonest:
    """An honest end over TLS."""

    def __init__(self) -> None:
        self.stream: asyncio.Future[AttestedStream] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> AttestedPeer:
        try:
            async with asyncio.timeout(5):
                return (await self.stream).peer
        except TrothError as exc:
            raise Refused(str(exc), getattr(exc, "verdict", None)) from exc

    async def reattest(self) -> AttestedPeer:
        stream = await self.stream
        try:
            async with asyncio.timeout(5):
                return await stream.reattest()
        except TrothError as exc:
            raise Refused(str(exc), getattr(exc, "verdict", None)) from exc

    async def end(self) -> str:
        try:
            stream = await self.stream
        except TrothError as exc:
            return str(exc)
        async with asyncio.timeout(5):
            await stream.connection.wait_closed()
        return str(stream.connection.failure or "")


@dataclass
class Setup:
    """How an honest end is configured."""

    node: Node
    policy: AttestationPolicy
    verifier: BackgroundCheck | None = None
    timeouts: Timeouts = QUICK
    credentials: Any = None


@asynccontextmanager
async def tls(world: World, honest: Setup, role: Role, shown: Node) -> AsyncIterator[TlsWire]:
    """A TLS connection between an honest end, which is `role`, and the attacker as `shown`."""
    own = role.other
    context = TlsContext(
        role=own,
        chain=shown.svid.chain,
        private_key=shown.svid.private_key,
        authorities=[world.authority.certificate],
        alpn=EXPAT_03.alpn,
    )
    end = _TlsHonest()
    product: dict[str, Any] = {
        "credentials": honest.credentials or world.credentials(honest.node),
        "policy": honest.policy,
        "verifier": honest.verifier or world.check,
        "timeouts": honest.timeouts,
    }
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        if role is Role.SERVER:

            async def opened(stream: AttestedStream) -> None:
                end.stream.set_result(stream)
                await stream.reader.read(-1)

            server = await start_server(opened, "127.0.0.1", **product)
            await stack.enter_async_context(server)
            port = server.addresses[0][1]
            _, wire = await loop.create_connection(lambda: TlsWire(context), "127.0.0.1", port)
            await until(lambda: server.connections == 1)
            accepted = next(iter(server._connections))
            accepted.opened.add_done_callback(lambda done: _failed(done, end.stream))
        else:
            waiting: asyncio.Future[TlsWire] = loop.create_future()

            def met() -> TlsWire:
                wire = TlsWire(context)
                waiting.set_result(wire)
                return wire

            listener = await loop.create_server(met, "127.0.0.1", 0)
            stack.callback(listener.close)
            port = listener.sockets[0].getsockname()[1]
            opening = loop.create_task(open_connection("127.0.0.1", port, **product))
            opening.add_done_callback(lambda done: _forward(done, end.stream))
            wire = await waiting
            stack.push_async_callback(_finish, opening)
        wire.honest = end
        await wire.ready
        stack.callback(wire.transport.abort)
        yield wire


def _failed(done: asyncio.Future[Any], to: asyncio.Future[Any]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None and not to.done():
        to.set_exception(error)
        to.exception()


def _forward(done: asyncio.Future[Any], to: asyncio.Future[Any]) -> None:
    _failed(done, to)
    if not to.done() and not done.cancelled():
        to.set_result(done.result())


async def _finish(opening: asyncio.Task[AttestedStream]) -> None:
    opening.cancel()
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        opening.result().writer.transport.abort()


# Behind gates.


@dataclass
class KeyWire:
    """The attacker's end of a connection whose honest end has a proxy with the gate."""

    binding: ChannelBinding
    honest: Honest
    driver: ExchangeDriver
    queue: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    def send(self, message: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.driver.receive, message)

    async def receive(self) -> Message:
        return await self.queue.get()


class _KeyHonest:
    """An honest agent."""

    def __init__(self, party: Party) -> None:
        self._party = party

    async def outcome(self) -> AttestedPeer:
        party = self._party
        async with asyncio.timeout(5):
            await asyncio.wait({party.opened, party.ended}, return_when=asyncio.FIRST_COMPLETED)
        if party.opened.done() and not party.ended.done():
            return party.opened.result()
        ended: Ended = party.ended.result()
        raise Refused(ended.why, ended.verdict)

    async def reattest(self) -> AttestedPeer:
        try:
            async with asyncio.timeout(5):
                return await self._party.driver.reattest()
        except TrothError as exc:
            raise Refused(str(exc), getattr(exc, "verdict", None)) from exc

    async def end(self) -> str:
        async with asyncio.timeout(5):
            return (await self._party.ended).why


@asynccontextmanager
async def gate(world: World, honest: Setup, role: Role, shown: Node) -> AsyncIterator[KeyWire]:
    """A connection of an honest proxy, to which the attacker showed `shown` in mutual TLS."""
    judge = Judge(honest.policy, world.bundles, verifier=honest.verifier or world.check)
    options = ExchangeOptions(
        judge=judge,
        prover=Prover(honest.credentials or world.credentials(honest.node)),
        clock=SystemClock(),
        timeouts=honest.timeouts,
    )
    party = Party(role)
    binding = CertificateBinding(
        role=role, nonce=os.urandom(NONCE_OCTETS), own=[digest(honest.node)], peer=digest(shown)
    )
    party.driver = ExchangeDriver(options, binding, party)
    wire = KeyWire(
        binding=CertificateBinding(
            role=role.other,
            nonce=os.urandom(NONCE_OCTETS),
            own=[digest(shown)],
            peer=digest(honest.node),
        ),
        honest=_KeyHonest(party),
        driver=party.driver,
    )

    def keep(message: Message) -> bool:
        wire.queue.put_nowait(message)
        return True

    party.hold = keep
    try:
        party.driver.start(judge.identify(shown_chain(shown), now=SystemClock().now()))
        yield wire
    finally:
        party.driver.stop()
        for outcome in (party.opened, party.ended):
            if outcome.done():
                outcome.exception()


Channel = Callable[[World, Setup, Role, Node], Any]
Prove = Callable[[Wire, Message], Awaitable[bytes]]


async def impersonate(wire: Wire, prove: Prove) -> AttestedPeer:
    """Answer an honest end as a peer would, with a proof from `prove`.

    Raises:
        Refused: it saw through it.
    """
    first = await wire.receive()
    wire.send(accept())
    if first.kind is MessageKind.REQUEST:
        wire.send(proof(first, await prove(wire, first)))
    return await wire.honest.outcome()
