# SPDX-License-Identifier: Apache-2.0
"""Runs the second table of docs/explanation/security.md: what a peer may try at the protocol.

The peer is a member with a genuine platform, over real TLS; it keeps to the protocol up to the
attempt. What it is told is read off the wire; what the honest end knows is in its outcome.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from support.attacker import (
    QUICK,
    Refused,
    Setup,
    TlsWire,
    accept,
    impersonate,
    message,
    own_proof,
    proof,
    read_request,
    tls,
)
from support.attacks import evidence_record, result_record
from support.attested_world import Node, World
from support.security_page import WORDS_OF_VERDICTS, rows
from troth.formats import cbor
from troth.formats.ear.result import Ear
from troth.formats.exported_authenticator import (
    AuthenticatorRequest,
    Role,
    SignatureScheme,
    certificate_message,
    certificate_verify_input,
    decode_request,
    finish_authenticator,
    make_request,
)
from troth.formats.tls_wire import handshake_message, vector
from troth.tls.core.framing import FrameKind
from troth.tls.core.messages import (
    MAX_PROOF_OCTETS,
    MAX_REQUEST_OCTETS,
    Message,
    MessageKind,
    Model,
    RequestParameters,
    encode_message,
)
from troth.tls.core.profile import EXPAT_03
from troth.tls.core.session import SessionBinding
from troth.tls.prover import Prover

IMPATIENT = replace(QUICK, peer=0.15, renewal=0.15, appraise=0.15)
ASK = RequestParameters(models=(Model.PASSPORT,), verifiers=("home",))


@dataclass
class Attempt:
    """One run: the attacker's end of the wire, and who it is."""

    world: World
    wire: TlsWire
    peer: Node

    async def request(self) -> Message:
        return await message(self.wire, MessageKind.REQUEST)

    def send(self, kind: MessageKind, body: bytes, round_: int = 0) -> None:
        self.wire.send(encode_message(Message(kind, round_, body)))

    def ask(self, round_: int = 0, context: bytes = b"") -> None:
        made = self.wire.binding.make_request(context or os.urandom(32), ASK)
        self.send(MessageKind.REQUEST, made.raw, round_)

    def passport(self) -> bytes:
        return result_record(self.peer.passport)

    async def open(self) -> None:
        """Do everything right until the connection is open."""

        async def prove(wire: Any, got: Message) -> bytes:
            prover = Prover(self.world.credentials(self.peer))
            return await prover.prove(read_request(wire, got), wire.binding)

        await impersonate(self.wire, prove)

    async def answer(self, body: bytes) -> None:
        """Answer the honest end's request with these octets."""
        self.wire.send(proof(await self.request(), body))

    # Authenticators by hand.

    async def crafted(
        self, change: Callable[[AuthenticatorRequest, bytes], bytes], **extensions: bytes
    ) -> None:
        """Answer with an authenticator whose Certificate message was changed before signing."""
        got = await self.request()
        asked = decode_request(got.body, self.wire.binding.role.other)
        named = {int(kind, 16): value for kind, value in extensions.items()}
        chain = [self.peer.svid.encode_der()]
        certificate = change(asked, certificate_message(asked, chain, named))
        binding = self.wire.binding
        assert isinstance(binding, SessionBinding)
        keys = binding._keys_of(binding.role)
        key = self.peer.svid.private_key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        signature = key.sign(
            certificate_verify_input(keys, asked, certificate), ec.ECDSA(hashes.SHA256())
        )
        scheme = SignatureScheme.ECDSA_SECP256R1_SHA256
        body = finish_authenticator(keys, asked, certificate, scheme=scheme, signature=signature)
        self.wire.send(proof(got, body))


def same(_: AuthenticatorRequest, certificate: bytes) -> bytes:
    return certificate


async def other_direction(run: Attempt) -> None:
    binding = run.wire.binding
    assert isinstance(binding, SessionBinding)
    mine, theirs = binding.role, binding.role.other
    swapped = {mine: binding._keys_of(theirs), theirs: binding._keys_of(mine)}
    binding._keys = swapped
    got = await run.request()
    run.wire.send(proof(got, own_proof(run.wire, got, run.peer, run.passport())))


async def context_twice(run: Attempt) -> None:
    context = os.urandom(32)
    run.ask(0, context)
    await message(run.wire, MessageKind.PROOF)
    run.ask(1, context)


async def our_context(run: Attempt) -> None:
    asked = read_request(run.wire, await run.request())
    run.ask(0, asked.context)


async def other_type(run: Attempt) -> None:
    got = await run.request()
    run.send(MessageKind.REQUEST, got.body)


def extension(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(value, 2)


async def bare_request(run: Attempt) -> None:
    made = make_request(
        run.wire.binding.role,
        context=os.urandom(32),
        signature_schemes=list(SignatureScheme),
        extensions={},
    )
    run.send(MessageKind.REQUEST, made.raw)


async def unasked_extension(run: Attempt) -> None:
    def change(asked: AuthenticatorRequest, _: bytes) -> bytes:
        block = extension(EXPAT_03.cmw_extension, run.passport()) + extension(0xFF77, b"x")
        entries = vector(run.peer.svid.encode_der(), 3) + vector(block, 2)
        return handshake_message(11, vector(asked.context, 1) + vector(entries, 3))

    await run.crafted(change)


async def extension_on_second(run: Attempt) -> None:
    def change(asked: AuthenticatorRequest, _: bytes) -> bytes:
        der = run.peer.svid.encode_der()
        block = extension(EXPAT_03.cmw_extension, run.passport())
        entries = vector(der, 3) + vector(b"", 2) + vector(der, 3) + vector(block, 2)
        return handshake_message(11, vector(asked.context, 1) + vector(entries, 3))

    await run.crafted(change)


async def two_payloads(run: Attempt) -> None:
    plain, packed = run.passport(), b"\x01" + zlib.compress(run.passport())
    await run.crafted(
        same,
        **{f"{EXPAT_03.cmw_extension:x}": plain, f"{EXPAT_03.encoded_extension:x}": packed},
    )


async def binder_beside(run: Attempt) -> None:
    got = await run.request()
    asked = read_request(run.wire, got)
    platform = run.peer.platform
    size = platform.challenge_size
    right = run.wire.binding.challenge(asked, run.peer.svid.spki, size)
    token = cbor.decode(platform.attest(os.urandom(size)), format="token")
    assert isinstance(token, cbor.Tag)
    assert isinstance(token.value, list)
    token.value[1] = {10: right}
    payload = evidence_record(platform.media_type, cbor.encode(token))
    run.wire.send(proof(got, own_proof(run.wire, got, run.peer, payload)))


async def other_key(run: Attempt) -> None:
    got = await run.request()
    thief = replace(run.peer, svid=_with_key_of(run.peer, run.world.join("thief")))
    run.wire.send(proof(got, own_proof(run.wire, got, thief, run.passport())))


class _Mismatched:
    """An SVID and somebody else's key, which `X509Svid` would not take together."""

    def __init__(self, shown: Node, signer: Node) -> None:
        self._shown, self.private_key = shown, signer.svid.private_key

    def encode_der(self) -> bytes:
        return self._shown.svid.encode_der()


def _with_key_of(shown: Node, signer: Node) -> Any:
    return _Mismatched(shown, signer)


async def other_node(run: Attempt) -> None:
    got = await run.request()
    other = run.world.join("somebody-else")
    payload = result_record(other.passport)
    run.wire.send(proof(got, own_proof(run.wire, got, other, payload)))


async def evidence_for_passport(run: Attempt) -> None:
    got = await run.request()
    platform = run.peer.platform
    challenge = run.wire.binding.challenge(
        read_request(run.wire, got), run.peer.svid.spki, platform.challenge_size
    )
    payload = evidence_record(platform.media_type, platform.attest(challenge))
    run.wire.send(proof(got, own_proof(run.wire, got, run.peer, payload)))


async def large_request(run: Attempt) -> None:
    run.send(MessageKind.REQUEST, bytes(MAX_REQUEST_OCTETS + 1))


async def large_proof(run: Attempt) -> None:
    await run.answer(bytes(MAX_PROOF_OCTETS + 1))


async def bomb(run: Attempt) -> None:
    packed = b"\x01" + zlib.compress(bytes(MAX_PROOF_OCTETS + 1))
    await run.crafted(same, **{f"{EXPAT_03.encoded_extension:x}": packed})


async def slow_drip(run: Attempt) -> None:
    got = await run.request()
    body = own_proof(run.wire, got, run.peer, run.passport())
    octets = bytes([FrameKind.EXCHANGE_END]) + len(body).to_bytes(3, "big") + body
    for octet in octets[:60]:
        if run.wire.transport.is_closing():
            return
        run.wire.send_raw(bytes([octet]))
        await asyncio.sleep(0.01)


async def declines(run: Attempt) -> None:
    got = await run.request()
    run.wire.send(proof(got, run.wire.binding.decline(read_request(run.wire, got))))


async def forged_refusal(run: Attempt) -> None:
    await run.answer(handshake_message(20, bytes(48)))


async def decision_about_nothing(run: Attempt) -> None:
    run.wire.send(accept(7))


async def second_proof(run: Attempt) -> None:
    got = await run.request()
    body = own_proof(run.wire, got, run.peer, run.passport())
    run.wire.send(proof(got, body))
    run.wire.send(proof(got, body))


async def unasked_proof(run: Attempt) -> None:
    run.send(MessageKind.PROOF, b"\x14")


async def endless_questions(run: Attempt) -> None:
    for round_ in range(40):
        run.ask(round_)
        try:
            await message(run.wire, MessageKind.PROOF)
        except (EOFError, TimeoutError):
            return


async def silent(_: Attempt) -> None:
    return


async def silent_after_request(run: Attempt) -> None:
    run.ask()


async def silent_after_proof(run: Attempt) -> None:
    got = await run.request()
    run.wire.send(proof(got, own_proof(run.wire, got, run.peer, run.passport())))


async def silent_when_asked_again(run: Attempt) -> None:
    await run.open()
    with pytest.raises(Refused):
        await run.wire.honest.reattest()


async def early_bytes(run: Attempt) -> None:
    # Longer than one TLS record, so that most of it comes without a header in front.
    run.wire.send_frames(FrameKind.APPLICATION, bytes(40_000))


async def late_bytes(run: Attempt) -> None:
    await run.open()
    run.wire.send_frames(FrameKind.END_OF_STREAM)
    run.wire.send_frames(FrameKind.APPLICATION, b"late")


async def empty_frame(run: Attempt) -> None:
    await run.open()
    run.wire.send_raw(bytes([FrameKind.APPLICATION, 0, 0, 0]))


async def unknown_frame(run: Attempt) -> None:
    run.wire.send_raw(bytes([9, 0, 0, 0]))


async def fresh(run: Attempt) -> None:
    """Not an attack in itself: the Verifier is what does not answer."""
    run.wire.send(accept())
    await evidence_for_passport(run)


@dataclass(frozen=True)
class Row:
    """How one attempt goes, and what is special about the honest end."""

    run: Callable[[Attempt], Awaitable[None]]
    model: str = "passport"
    patient: bool = True
    slow_verifier: bool = False


ATTEMPTS = {
    "Answer with a proof made for the other direction": Row(other_direction),
    "Use a context a second time": Row(context_twice),
    "Use our own context against us": Row(our_context),
    "Send a request of the other role's type": Row(other_type),
    "Strip cmw_attestation from its request": Row(bare_request),
    "Put an extension into the authenticator that was not asked for": Row(unasked_extension),
    "Put an extension on a certificate other than the first": Row(extension_on_second),
    "Send two attestation payloads": Row(two_payloads),
    "Put the right binder beside the Evidence and another one into it": Row(
        binder_beside, "background_check"
    ),
    "Sign with another key than the certificate's": Row(other_key),
    "Prove with the certificate and key of another node": Row(other_node),
    "Send Evidence where a passport was asked for": Row(evidence_for_passport),
    "Send a request that is too large": Row(large_request),
    "Send a proof that is too large": Row(large_proof),
    "Send a compressed payload that grows beyond the limit": Row(bomb),
    "Send a message one octet at a time": Row(slow_drip, patient=False),
    "Decline to prove, authentically": Row(declines),
    "Decline to prove, with a forged refusal": Row(forged_refusal),
    "Decide about a round that it never asked for": Row(decision_about_nothing),
    "Send a second proof for the same round": Row(second_proof),
    "Send a proof that nobody asked for": Row(unasked_proof, "svid_only"),
    "Ask for proof without end": Row(endless_questions),
    "Say nothing after TLS": Row(silent, patient=False),
    "Say nothing after its request": Row(silent_after_request, patient=False),
    "Say nothing after its proof": Row(silent_after_proof, patient=False),
    "Say nothing when asked again": Row(silent_when_asked_again, patient=False),
    "Send application bytes before the decisions": Row(early_bytes),
    "Send application bytes after their end": Row(late_bytes),
    "Send an empty frame": Row(empty_frame),
    "Send a frame of an unknown kind": Row(unknown_frame),
    "Have its Evidence appraised by a Verifier that does not answer": Row(
        fresh, "background_check", patient=False, slow_verifier=True
    ),
}
HEADER, *TABLE = rows("attempt")


class SlowVerifier:
    """A Verifier that never answers."""

    name = "here"

    async def appraise(self, *_: Any, **__: Any) -> Ear:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def web(world: World) -> Node:
    return world.join("web")


@pytest.fixture(scope="module")
def peer(world: World) -> Node:
    return world.join("peer")


def test_the_table_and_the_attempts_are_the_same() -> None:
    assert [row[0] for row in TABLE] == list(ATTEMPTS)


@pytest.mark.parametrize("role", [Role.CLIENT, Role.SERVER], ids=["client", "server"])
@pytest.mark.parametrize(("attempt", "word"), TABLE, ids=[row[0] for row in TABLE])
async def test_an_attempt_ends_the_connection_and_is_told_its_class(
    world: World, web: Node, peer: Node, attempt: str, word: str, *, role: Role
) -> None:
    row = ATTEMPTS[attempt]
    honest = Setup(
        web,
        world.policy(model=row.model, renew=False),
        verifier=SlowVerifier() if row.slow_verifier else None,
        timeouts=QUICK if row.patient else IMPATIENT,
    )
    with capture_logs() as logs:
        async with tls(world, honest, role, peer) as wire:
            run = Attempt(world, wire, peer)
            await row.run(run)
            async with asyncio.timeout(5):
                assert await wire.told is WORDS_OF_VERDICTS[word]
            # Nothing of the application ever came over, and the honest end knows why it ended.
            assert not wire.received
            assert await wire.honest.end()
    ended = [entry for entry in logs if entry["event"] == "connection ended"]
    assert [entry["by_peer"] for entry in ended] == [False]
    assert ended[0]["why"]


def test_a_peer_that_does_none_of_this_is_let_in(world: World, web: Node, peer: Node) -> None:
    async def main() -> None:
        for role in Role:
            honest = Setup(web, world.policy(renew=False))
            async with tls(world, honest, role, peer) as wire:
                await Attempt(world, wire, peer).open()

    asyncio.run(main())
