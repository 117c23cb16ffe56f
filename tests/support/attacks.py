# SPDX-License-Identifier: Apache-2.0
"""The attacks of docs/explanation/security.md that depend on what a proof is tied to.

Each returns whether it succeeded: the honest end opened the connection, and credits the attacker
with what the attack was for. An attack that has several ways succeeds if one of them does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from support.attacker import (
    QUICK,
    Channel,
    Refused,
    Setup,
    Wire,
    accept,
    gate,
    impersonate,
    message,
    own_proof,
    proof,
    read_request,
    tls,
)
from support.attested_world import DOMAIN, Node, World
from troth.errors import TrothError
from troth.evidence.simulator import CcaOptions
from troth.formats import cmw
from troth.formats.exported_authenticator import Role
from troth.identity.attestation_result import result_extension
from troth.identity.x509_svid import X509Svid
from troth.testing.lab import SoftwareDevice
from troth.tls.core.messages import Message, MessageKind, RequestParameters, encode_message
from troth.tls.credentials import Credentials
from troth.tls.peer import AttestedPeer
from troth.tls.prover import Prover

__all__ = ["ATTACKS", "COLUMNS", "Scene"]


@dataclass(frozen=True)
class Column:
    """One kind of proof."""

    channel: Channel
    model: str
    separate: bool = False


COLUMNS = {
    "credential": Column(tls, "svid_only"),
    "key, passport": Column(gate, "passport"),
    "key, background check": Column(gate, "background_check"),
    "session, passport": Column(tls, "passport"),
    "session, passport by a separate key": Column(tls, "passport", separate=True),
    "session, background check": Column(tls, "background_check"),
}


class Cast:
    """Who plays: `web` is the victim, `orders` the honest node that it wants, `mallory` attacks."""

    def __init__(self) -> None:
        self.world = World()
        self.web = self.world.join("web")
        cloud = self.world.platform(CcaOptions())
        self.orders = self.world.join("orders", cloud)
        self.guarded = self.world.join("orders", cloud, device=SoftwareDevice())
        self.twin = self.world.join("orders", node_id="orders-2", device=SoftwareDevice())
        self.billing = self.world.join("billing", device=SoftwareDevice())
        self.mallory = self.world.join("mallory", svid_only=True)


@dataclass
class Scene:
    """One cell: the cast, the kind of proof, and the end that the victim is."""

    cast: Cast
    column: Column
    role: Role

    @property
    def orders(self) -> Node:
        return self.cast.guarded if self.column.separate else self.cast.orders

    def setup(self, **policy: object) -> Setup:
        given: dict[str, object] = {"model": self.column.model, "renew": False}
        if self.column.separate:
            given["proof_key"] = "separate"
        return Setup(self.cast.web, self.cast.world.policy(**{**given, **policy}))

    def victim(self, shown: Node, setup: Setup | None = None) -> AbstractAsyncContextManager[Wire]:
        """A channel with the victim, which sees `shown` in TLS."""
        channel = self.column.channel
        opened: AbstractAsyncContextManager[Wire] = channel(
            self.cast.world, setup or self.setup(), self.role, shown
        )
        return opened

    def target(self, shown: Node) -> AbstractAsyncContextManager[Wire]:
        """A channel with the honest `orders`, which lets every member ask it for proof."""
        policy = self.cast.world.policy(model="svid_only")
        opened: AbstractAsyncContextManager[Wire] = self.column.channel(
            self.cast.world, Setup(self.orders, policy), self.role.other, shown
        )
        return opened

    @property
    def asks(self) -> bool:
        """Whether the victim asks for any proof."""
        return self.column.model != "svid_only"


Attack = Callable[[Scene], Awaitable[bool]]


def credited(peer: AttestedPeer) -> bool:
    return peer.result is not None


async def tried(wire: Wire, prove: Callable[[Wire, Message], Awaitable[bytes]]) -> bool:
    """Go one way; say whether the victim credits the attacker with a result."""
    try:
        return credited(await impersonate(wire, prove))
    except Refused:
        return False


def result_record(token: str | bytes) -> bytes:
    value = token.encode() if isinstance(token, str) else token
    return cmw.encode_cbor(
        cmw.CmwRecord("application/eat+jwt", value, cmw.Indicator.ATTESTATION_RESULTS)
    )


def evidence_record(media_type: str, value: bytes) -> bytes:
    return cmw.encode_cbor(cmw.CmwRecord(media_type, value, cmw.Indicator.EVIDENCE))


async def forward(target: Wire, request: Message) -> bytes:
    """Put the victim's request to the honest node as it is, and take its proof."""
    target.send(encode_message(Message(MessageKind.REQUEST, 0, request.body)))
    return (await message(target, MessageKind.PROOF)).body


async def payload_of(target: Wire, context: bytes, parameters: RequestParameters) -> bytes:
    """Ask the honest node in our own name, with a context of the victim's."""
    request = target.binding.make_request(context, parameters)
    target.send(encode_message(Message(MessageKind.REQUEST, 0, request.raw)))
    answer = await message(target, MessageKind.PROOF)
    return target.binding.read_proof(request, answer.body).payload


async def _relays(scene: Scene, shown: Node, to_target: Node, keys: Node) -> bool:
    """Every way of a machine between the two ends that shows `shown` and signs as `keys`."""
    if not scene.asks:
        async with scene.victim(shown) as victim:
            return await tried(victim, _never)

    async def forwarded(_: Wire, request: Message) -> bytes:
        return await forward(target, request)

    async def signed_again(wire: Wire, request: Message) -> bytes:
        asked = read_request(wire, request)
        payload = await payload_of(target, asked.context, asked.parameters)
        return own_proof(wire, request, keys, payload)

    async def signed_alone(wire: Wire, request: Message) -> bytes:
        return own_proof(wire, request, keys, result_record(scene.orders.passport))

    async def signed_with_tls_result(wire: Wire, request: Message) -> bytes:
        return own_proof(wire, request, keys, result_record(scene.cast.orders.passport))

    for way in (forwarded, signed_again, signed_alone, signed_with_tls_result):
        async with scene.victim(shown) as victim, scene.target(to_target) as target:
            if await tried(victim, way):
                return True
    return False


async def _never(*_: object) -> bytes:
    raise AssertionError("nothing was asked for")


async def relay(scene: Scene) -> bool:
    mallory = scene.cast.mallory
    return await _relays(scene, mallory, mallory, mallory)


async def relay_with_stolen_key(scene: Scene) -> bool:
    # What is stolen is the TLS key: it is in memory. A key in a device is not.
    return await _relays(scene, scene.orders, scene.cast.mallory, scene.orders)


async def relay_with_both_keys(scene: Scene) -> bool:
    return await _relays(scene, scene.orders, scene.cast.web, scene.orders)


async def replay(scene: Scene) -> bool:
    """The node itself, no longer what it was, shows again what it showed before."""
    prover = Prover(scene.cast.world.credentials(scene.orders))
    kept: list[bytes] = []

    async def genuine(wire: Wire, request: Message) -> bytes:
        kept.append(await prover.prove(read_request(wire, request), wire.binding))
        return kept[0]

    async def again(*_: object) -> bytes:
        return kept[0]

    async with scene.victim(scene.orders) as victim:
        assert credited(await impersonate(victim, genuine)), "the honest run has to succeed"
        if await _renewed(victim, again):
            return True
    async with scene.victim(scene.orders) as victim:
        if await tried(victim, again):
            return True
    if scene.column.model != "background_check":
        return False

    async def old_evidence(wire: Wire, request: Message) -> bytes:
        return own_proof(wire, request, scene.orders, old[0])

    old: list[bytes] = []
    async with scene.victim(scene.orders) as victim:
        first = await message(victim, MessageKind.REQUEST)
        made = await prover._payload(
            scene.cast.world.credentials(scene.orders), read_request(victim, first), victim.binding
        )
        old.append(made)
        victim.send(accept())
        victim.send(proof(first, own_proof(victim, first, scene.orders, made)))
        assert credited(await victim.honest.outcome())
        if await _renewed(victim, old_evidence):
            return True
    async with scene.victim(scene.orders) as victim:
        return await tried(victim, old_evidence)


async def _renewed(wire: Wire, prove: Callable[[Wire, Message], Awaitable[bytes]]) -> bool:
    renewal = asyncio.ensure_future(wire.honest.reattest())
    request = await message(wire, MessageKind.REQUEST)
    wire.send(proof(request, await prove(wire, request)))
    try:
        return credited(await renewal)
    except Refused:
        return False


async def reflection(scene: Scene) -> bool:
    """The strongest mirror: one that shows the victim its own identity in TLS."""
    web = scene.cast.web
    async with scene.victim(web) as victim:
        request = await message(victim, MessageKind.REQUEST)
        victim.send(accept())
        victim.send(encode_message(request))
        try:
            if credited(await victim.honest.outcome()):
                return True
        except Refused:
            pass
    async with scene.victim(web) as victim:
        request = await message(victim, MessageKind.REQUEST)
        # A fair question of the same kind, and the victim's own answer sent back.
        asked = read_request(victim, request)
        ours = victim.binding.make_request(bytes(reversed(asked.context)), asked.parameters)
        victim.send(encode_message(Message(MessageKind.REQUEST, 0, ours.raw)))
        answer = await message(victim, MessageKind.PROOF)
        victim.send(accept())
        victim.send(proof(request, answer.body))
        try:
            return credited(await victim.honest.outcome())
        except Refused:
            return False


async def key_substitution(scene: Scene) -> bool:
    mallory = scene.cast.mallory
    if not scene.asks:
        async with scene.victim(_with_foreign_result(scene)) as victim:
            return await tried(victim, _never)

    async def result(wire: Wire, request: Message) -> bytes:
        return own_proof(wire, request, mallory, result_record(scene.orders.passport))

    async def evidence(wire: Wire, request: Message) -> bytes:
        asked = read_request(wire, request)
        platform = scene.orders.platform
        # Even made for this channel by a platform that means well, for the key that it holds.
        challenge = wire.binding.challenge(asked, scene.orders.svid.spki, platform.challenge_size)
        made = evidence_record(platform.media_type, platform.attest(challenge))
        return own_proof(wire, request, mallory, made)

    for way in (result, evidence):
        async with scene.victim(mallory) as victim:
            if await tried(victim, way):
                return True
    return False


def _with_foreign_result(scene: Scene) -> Node:
    """An SVID by a careless issuer of the trust domain: with another node's result in it."""
    world = scene.cast.world
    key = ec.generate_private_key(ec.SECP256R1())
    plain = world._plain_svid(key, scene.cast.mallory.svid.spiffe_id).leaf
    builder = (
        x509.CertificateBuilder()
        .subject_name(plain.subject)
        .issuer_name(plain.issuer)
        .public_key(key.public_key())
        .serial_number(plain.serial_number)
        .not_valid_before(plain.not_valid_before_utc)
        .not_valid_after(plain.not_valid_after_utc)
    )
    for extension in plain.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(
        result_extension(scene.orders.passport.encode()), critical=False
    )
    certificate = builder.sign(world._authority_key, hashes.SHA256())
    return replace(scene.cast.mallory, svid=X509Svid(chain=[certificate], private_key=key))


async def proves_nothing(scene: Scene) -> bool:
    mallory = scene.cast.mallory
    impatient = replace(scene.setup(), timeouts=replace(QUICK, peer=0.2))

    async def silent(victim: Wire) -> None:
        victim.send(accept())

    async def declines(victim: Wire) -> None:
        request = await message(victim, MessageKind.REQUEST)
        victim.send(accept())
        victim.send(proof(request, victim.binding.decline(read_request(victim, request))))

    async def proves_its_key_only(victim: Wire) -> None:
        request = await message(victim, MessageKind.REQUEST)
        victim.send(accept())
        victim.send(proof(request, own_proof(victim, request, mallory, b"")))

    ways = (silent, declines, proves_its_key_only) if scene.asks else (silent,)
    for way in ways:
        async with scene.victim(mallory, impatient) as victim:
            await way(victim)
            try:
                await victim.honest.outcome()
            except Refused:
                continue
            return True
    return False


async def _as_itself(scene: Scene, node: Node, credentials: Credentials, setup: Setup) -> bool:
    """A peer that does everything right, as the node that it is."""
    prover = Prover(credentials)

    async def prove(wire: Wire, request: Message) -> bytes:
        try:
            return await prover.prove(read_request(wire, request), wire.binding)
        except TrothError as exc:  # pragma: no cover - a defect of the test
            raise AssertionError("the peer could not prove") from exc

    async with scene.victim(node, setup) as victim:
        try:
            await impersonate(victim, prove)
        except Refused:
            return False
        return True


async def diversion(scene: Scene) -> bool:
    wanted = scene.setup(peers=[f"spiffe://{DOMAIN}/node/orders"])
    billing = scene.cast.billing
    credentials = scene.cast.world.credentials(billing)
    if not scene.column.separate:
        credentials = replace(credentials, proof_key=None, passport="")
    return await _as_itself(scene, billing, credentials, wanted)


async def diversion_to_a_twin(scene: Scene) -> bool:
    wanted = scene.setup(peers=[f"spiffe://{DOMAIN}/node/orders"])
    twin = scene.cast.twin
    credentials = scene.cast.world.credentials(twin)
    if not scene.column.separate:
        credentials = replace(credentials, proof_key=None, passport="")
    return await _as_itself(scene, twin, credentials, wanted)


async def changed_machine(scene: Scene) -> bool:
    changed = scene.orders.platform.with_measurement(0, bytes(32))
    credentials = scene.cast.world.credentials(scene.orders, attester=changed)
    return await _as_itself(scene, scene.orders, credentials, scene.setup())


async def evidence_oracle(scene: Scene) -> bool:
    world, mallory = scene.cast.world, scene.cast.mallory
    platform = scene.orders.platform
    assert mallory.svid.private_key is not None
    if not scene.asks:
        # With a result for its own key, the attacker joins as anybody does.
        async with scene.victim(world.join("mallory", platform)) as victim:
            return await tried(victim, _never)

    async def bought(wire: Wire, request: Message) -> bytes:
        asked = read_request(wire, request)
        spki = mallory.svid.spki
        if scene.column.model == "background_check":
            challenge = wire.binding.challenge(asked, spki, platform.challenge_size)
            payload = evidence_record(platform.media_type, platform.attest(challenge))
        else:
            key = mallory.svid.private_key
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            payload = result_record(world.passport(platform, key.public_key()))
        return own_proof(wire, request, mallory, payload)

    async with scene.victim(mallory) as victim:
        return await tried(victim, bought)


ATTACKS: dict[str, Attack] = {
    "Relay of a parallel connection's proof": relay,
    "Relay with the stolen TLS key of the relayed node": relay_with_stolen_key,
    "Relay with the stolen TLS keys of both ends": relay_with_both_keys,
    "Replay of an earlier proof": replay,
    "Reflection of our own proof": reflection,
    "Key substitution: a genuine result or Evidence beside another key": key_substitution,
    "Downgrade: a member that proves nothing": proves_nothing,
    "Diversion to another node with the same software": diversion,
    "Diversion to another node with the same SPIFFE ID": diversion_to_a_twin,
    "The machine has changed since its result": changed_machine,
    "Evidence oracle: anybody may have the platform quote anything": evidence_oracle,
}
