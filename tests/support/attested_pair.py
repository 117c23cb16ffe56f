# SPDX-License-Identifier: Apache-2.0
"""Two exchange drivers on one pretended TLS session in memory, as their channel's owners run them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from support.attested_world import Node, World
from support.exchange import exporter
from troth.formats.exported_authenticator import Role
from troth.identity.x509_svid import X509Svid
from troth.tls.asyncio.driver import ExchangeDriver, ExchangeOptions
from troth.tls.core.binding import ChannelBinding
from troth.tls.core.certificate import CertificateBinding
from troth.tls.core.exchange import Ended, Timeouts
from troth.tls.core.messages import Message, decode_message
from troth.tls.core.session import SessionBinding
from troth.tls.judge import BackgroundCheck, Judge
from troth.tls.payload import PayloadUploader, ReferenceResolver
from troth.tls.peer import AttestedPeer, ChannelPeer
from troth.tls.policy import AttestationPolicy
from troth.tls.prover import Prover


class ShiftedClock:
    """The machine's clock, off by as much as a test wants."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def set(self, to: datetime) -> None:
        self.offset = to - datetime.now(UTC)


@dataclass
class Party:
    """One end: its driver, and everything that its owner heard."""

    role: Role
    driver: ExchangeDriver = field(init=False)
    other: Party = field(init=False)
    sent: list[Message] = field(default_factory=list)
    opened: asyncio.Future[AttestedPeer] = field(init=False)
    ended: asyncio.Future[Ended] = field(init=False)
    renewed: list[AttestedPeer] = field(default_factory=list)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    hold: Callable[[Message], bool] = lambda _: False

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.opened, self.ended = loop.create_future(), loop.create_future()
        self.free.set()

    def send_message(self, message: bytes) -> None:
        decoded = decode_message(message)
        self.sent.append(decoded)
        if not self.hold(decoded):
            asyncio.get_running_loop().call_soon(self.other.driver.receive, message)

    def exchange_opened(self, peer: AttestedPeer) -> None:
        self.opened.set_result(peer)

    def exchange_renewed(self, peer: AttestedPeer) -> None:
        self.renewed.append(peer)

    def exchange_ended(self, ended: Ended) -> None:
        self.ended.set_result(ended)

    async def writable(self) -> None:
        await self.free.wait()


@dataclass
class Setting:
    """How one end is set up; what is None is the usual thing."""

    node: Node
    policy: AttestationPolicy
    verifier: BackgroundCheck | None = None
    resolver: ReferenceResolver | None = None
    uploader: PayloadUploader | None = None
    credentials: Any = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    clock: ShiftedClock = field(default_factory=ShiftedClock)


def der_chain(svid: X509Svid) -> list[bytes]:
    return [certificate.public_bytes(Encoding.DER) for certificate in svid.chain]


def shown_chain(node: Node) -> list[bytes]:
    return der_chain(node.svid)


def digest(node: Node) -> bytes:
    return hashlib.sha256(node.svid.encode_der()).digest()


def session(role: Role, own: Node, peer: Node) -> ChannelBinding:
    del own, peer
    return SessionBinding(role=role, exporter=exporter(b"session"), hash_name="sha256")


def certificates(role: Role, own: Node, peer: Node) -> ChannelBinding:
    return CertificateBinding(
        role=role,
        nonce=hashlib.sha256(role.value.encode()).digest(),
        own=[digest(own)],
        peer=digest(peer),
    )


@asynccontextmanager
async def pair(
    world: World,
    client: Setting,
    server: Setting,
    *,
    bind: Callable[[Role, Node, Node], ChannelBinding] = session,
    start: bool = True,
) -> AsyncIterator[tuple[Party, Party]]:
    """Two parties whose exchange has begun."""
    parties = Party(Role.CLIENT), Party(Role.SERVER)
    for party, own, peer in (
        (parties[0], client, server),
        (parties[1], server, client),
    ):
        party.other = parties[1] if party is parties[0] else parties[0]
        verifier = own.verifier
        if verifier is None and own.policy.model in ("background_check", "any"):
            verifier = world.check
        options = ExchangeOptions(
            judge=Judge(own.policy, world.bundles, verifier=verifier, resolver=own.resolver),
            prover=Prover(own.credentials or world.credentials(own.node), uploader=own.uploader),
            clock=own.clock,
            timeouts=own.timeouts,
        )
        party.driver = ExchangeDriver(options, bind(party.role, own.node, peer.node), party)
    try:
        if start:
            for party, peer in zip(parties, (server, client), strict=True):
                party.driver.start(channel_peer(world, peer.node))
        yield parties
    finally:
        for party in parties:
            party.driver.stop()
            for outcome in (party.opened, party.ended):
                if outcome.done():
                    outcome.exception()


def channel_peer(world: World, node: Node) -> ChannelPeer:
    judge = Judge(world.policy(), world.bundles)
    return judge.identify(shown_chain(node), now=datetime.now(UTC))
