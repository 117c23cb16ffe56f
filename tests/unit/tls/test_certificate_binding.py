# SPDX-License-Identifier: Apache-2.0
"""The binding for proxies: nonces and certificates in place of an exporter."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.exchange import PASSPORT, Identity, make_proof
from troth.errors import ApiMisuseError, BindingError, DecodeError, PeerError, SignatureError
from troth.formats import cbor
from troth.formats.exported_authenticator import Role
from troth.tls.core.binding import BindingKind, ChannelBinding, Request
from troth.tls.core.certificate import NONCE_OCTETS, CertificateBinding
from troth.tls.core.exchange import Appraise, DecideIdentity, Event, Exchange, Opened, Prove
from troth.tls.core.messages import Verdict

CONTEXT = bytes(range(32))
CLIENT, SERVER, STRANGER = Identity("client"), Identity("server"), Identity("stranger")


def digest(identity: Identity) -> bytes:
    return hashlib.sha256(identity.certificate).digest()


def binding(
    role: Role, own: Identity, peer: Identity | None, nonce: bytes = b"", *more: Identity
) -> CertificateBinding:
    return CertificateBinding(
        role=role,
        nonce=nonce or hashlib.sha256(own.name.encode()).digest(),
        own=[digest(own), *map(digest, more)],
        peer=digest(peer) if peer else b"",
    )


def pair() -> tuple[CertificateBinding, CertificateBinding]:
    return binding(Role.CLIENT, CLIENT, SERVER), binding(Role.SERVER, SERVER, CLIENT)


def prove(prover: ChannelBinding, raw: bytes, identity: Identity, payload: bytes = b"p") -> bytes:
    return make_proof(prover, Prove(0, prover.read_request(raw)), identity, payload)


@pytest.mark.parametrize("asker", [Role.CLIENT, Role.SERVER])
def test_a_proof_is_accepted_by_the_end_that_asked(asker: Role) -> None:
    ends = dict(zip((Role.CLIENT, Role.SERVER), pair(), strict=True))
    identity = SERVER if asker is Role.CLIENT else CLIENT
    request = ends[asker].make_request(CONTEXT, PASSPORT)
    raw = prove(ends[asker.other], request.raw, identity)
    proof = ends[asker].read_proof(request, raw)
    assert proof.chain == (identity.certificate,)
    assert proof.payload == b"p"
    assert ends[asker].kind is BindingKind.KEY


def honest() -> tuple[CertificateBinding, Request]:
    client, _ = pair()
    return client, client.make_request(CONTEXT, PASSPORT)


# Each server differs from the honest one in exactly one thing.
SERVERS: dict[str, Callable[[Request], tuple[CertificateBinding, bytes]]] = {
    "saw another client certificate": lambda r: (binding(Role.SERVER, SERVER, STRANGER), r.raw),
    "shows another certificate": lambda r: (binding(Role.SERVER, STRANGER, CLIENT), r.raw),
    "answers another context": lambda _: (
        pair()[1],
        pair()[0].make_request(bytes(32), PASSPORT).raw,
    ),
    "answers other parameters": lambda _: (
        pair()[1],
        pair()[0].make_request(CONTEXT, replace(PASSPORT, verifiers=("w",))).raw,
    ),
}


@pytest.mark.parametrize("change", SERVERS)
def test_a_proof_about_another_connection_is_refused(change: str) -> None:
    client, request = honest()
    server, raw = SERVERS[change](request)
    with pytest.raises(BindingError):
        client.read_proof(request, prove(server, raw, SERVER))


def test_the_unchanged_server_is_accepted() -> None:
    client, request = honest()
    assert client.read_proof(request, prove(pair()[1], request.raw, SERVER)).payload == b"p"


def test_a_reflected_request_or_proof_is_refused() -> None:
    client, server = pair()
    request = client.make_request(CONTEXT, PASSPORT)
    with pytest.raises(DecodeError, match="not made by the server"):
        client.read_request(request.raw)
    # The client's own proof for a request of the server, thrown back at it.
    theirs = server.make_request(CONTEXT, PASSPORT)
    own = prove(client, theirs.raw, CLIENT)
    with pytest.raises(DecodeError, match="not made by the server"):
        client.read_proof(request, own)


def test_a_proof_by_another_key_than_its_certificate_is_refused() -> None:
    client, request = honest()
    thief = Identity("thief", certificate=b"")
    thief.certificate = SERVER.certificate
    with pytest.raises(SignatureError):
        client.read_proof(request, prove(pair()[1], request.raw, thief))


# A changed octet can also make the serial number negative, which cryptography only warns of.
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_octet_anywhere_is_refused(where: int, change: int) -> None:
    client, request = honest()
    raw = bytearray(PROVED)
    raw[where % len(raw)] ^= change
    with pytest.raises((DecodeError, PeerError, SignatureError, BindingError)):
        client.read_proof(request, bytes(raw))


PROVED = prove(pair()[1], honest()[1].raw, SERVER)


def test_a_proxy_in_the_middle_of_a_rotation_is_recognised_by_its_last_certificate() -> None:
    fresh = Identity("server's next")
    client, request = honest()
    server = binding(Role.SERVER, fresh, CLIENT, b"n" * NONCE_OCTETS, SERVER)
    proof = client.read_proof(request, prove(server, request.raw, fresh))
    assert proof.chain == (fresh.certificate,)
    only_next = binding(Role.SERVER, fresh, CLIENT)
    with pytest.raises(BindingError, match="another certificate than the one that TLS showed"):
        client.read_proof(request, prove(only_next, request.raw, fresh))


def test_a_refusal_to_prove_is_told_apart_and_belongs_to_its_request() -> None:
    client, server = pair()
    request = client.make_request(CONTEXT, PASSPORT)
    raw = server.decline(server.read_request(request.raw))
    with pytest.raises(PeerError) as caught:
        client.read_proof(request, raw)
    assert caught.value.alert == "certificate_required"
    with pytest.raises(BindingError):
        client.read_proof(client.make_request(bytes(32), PASSPORT), raw)


def test_the_challenge_is_the_same_at_both_ends_and_differs_in_everything_else() -> None:
    client, request = honest()
    server = pair()[1]
    mine = server.challenge(server.read_request(request.raw), b"spki", 64)
    proof = client.read_proof(request, prove(server, request.raw, SERVER))
    assert client.expected_challenge(proof, b"spki", 64) == mine
    assert client.expected_challenge(proof, b"spki", 32) == mine[:32]
    others = [
        client.expected_challenge(proof, b"another key", 64),
        binding(Role.SERVER, SERVER, CLIENT, b"m" * 32).challenge(request, b"spki", 64),
        binding(Role.SERVER, SERVER, STRANGER).challenge(request, b"spki", 64),
        binding(Role.SERVER, STRANGER, CLIENT).challenge(request, b"spki", 64),
        server.challenge(client.make_request(bytes(32), PASSPORT), b"spki", 64),
    ]
    assert len({mine, *others}) == 6


def test_directions_have_different_challenges_though_all_else_is_equal() -> None:
    one = binding(Role.CLIENT, CLIENT, CLIENT, b"n" * 32)
    other = binding(Role.SERVER, CLIENT, CLIENT, b"n" * 32)
    to_server = one.make_request(CONTEXT, PASSPORT)
    to_client = replace(to_server, requester=Role.SERVER)
    assert one.challenge(to_client, b"k", 64) != other.challenge(to_server, b"k", 64)


@pytest.mark.parametrize("encoding", ["deflate", "reference", "gzip"])
def test_an_encoding_that_was_not_offered_is_refused(encoding: str) -> None:
    client, request = honest()
    server = pair()[1]
    pending = server.begin_proof(
        server.read_request(request.raw), [SERVER.certificate], b"x", encoding
    )
    raw = server.finish_proof(pending, "ES256", SERVER.sign(pending.to_sign))
    with pytest.raises(PeerError, match=r"not offered|unknown"):
        client.read_proof(request, raw)


def test_a_payload_above_the_announced_size_is_refused() -> None:
    client, _ = honest()
    small = client.make_request(CONTEXT, replace(PASSPORT, max_proof_octets=3))
    assert client.read_proof(small, prove(pair()[1], small.raw, SERVER, b"abc"))
    with pytest.raises(PeerError, match="larger than we announced"):
        client.read_proof(small, prove(pair()[1], small.raw, SERVER, b"abcd"))


def test_what_the_owner_has_not_said_cannot_be_proved() -> None:
    blind = binding(Role.SERVER, SERVER, None)
    request = blind.read_request(honest()[1].raw)
    with pytest.raises(ApiMisuseError, match="see_peer"):
        blind.challenge(request, b"k", 64)
    with pytest.raises(ApiMisuseError, match="see_peer"):
        blind.begin_proof(request, [SERVER.certificate], b"")
    blind.see_peer(digest(CLIENT))
    blind.see_peer(digest(CLIENT))
    with pytest.raises(ApiMisuseError, match="one peer"):
        blind.see_peer(digest(STRANGER))
    with pytest.raises(ApiMisuseError, match="own request"):
        blind.begin_proof(blind.make_request(CONTEXT, PASSPORT), [SERVER.certificate], b"")
    with pytest.raises(ApiMisuseError, match="not the algorithm"):
        blind.finish_proof(blind.begin_proof(request, [SERVER.certificate], b""), "PS256", b"")


@pytest.mark.parametrize(
    "wrong", [{"nonce": b"short"}, {"own": []}, {"own": [b"d"]}, {"own": [bytes(32)] * 5}]
)
def test_nonces_and_digests_have_their_sizes(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {"role": Role.CLIENT, "nonce": bytes(32), "own": [bytes(32)]}
    CertificateBinding(**right)  # type: ignore[arg-type]
    with pytest.raises(ApiMisuseError):
        CertificateBinding(**{**right, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", range(1, 10))
@pytest.mark.parametrize("value", [None, 7, "text", [], [7], {}])
def test_a_signed_statement_of_the_wrong_shape_is_refused(key: int, value: object) -> None:
    client, request = honest()
    server = pair()[1]
    pending = server.begin_proof(server.read_request(request.raw), [SERVER.certificate], b"")
    protected, statement = cbor.decode(pending.prefix, format="t")  # type: ignore[misc]
    tree = cbor.decode(statement, format="t")
    assert isinstance(tree, dict)
    tree[key] = value
    changed = cbor.encode(tree)
    to_sign = cbor.encode(["Signature1", protected, b"troth gate proof", changed])
    raw = cbor.encode(cbor.Tag(18, [protected, {}, changed, SERVER.sign(to_sign)]))
    with pytest.raises((DecodeError, PeerError, BindingError, SignatureError)):
        client.read_proof(request, raw)


def test_a_whole_exchange_takes_four_flights() -> None:
    """Client request; server request and proof; client proof and decision; server decision."""
    client = binding(Role.CLIENT, CLIENT, None)
    ends = {
        Role.CLIENT: Exchange(client, PASSPORT, random=lambda n: b"c" * n),
        Role.SERVER: Exchange(
            binding(Role.SERVER, SERVER, CLIENT), PASSPORT, random=lambda n: b"s" * n
        ),
    }
    opened: set[Role] = set()

    def take(role: Role, events: list[Event]) -> None:
        for event in events:
            exchange = ends[role]
            if isinstance(event, Prove):
                identity = CLIENT if role is Role.CLIENT else SERVER
                proof = make_proof(exchange.binding, event, identity, b"")
                take(role, exchange.proof_made(event.round, proof, 0))
            elif isinstance(event, Appraise):
                take(role, exchange.decide(event.round, Verdict.ACCEPTED))
            elif isinstance(event, Opened):
                opened.add(role)

    take(Role.CLIENT, ends[Role.CLIENT].start(0))
    client.see_peer(digest(SERVER))
    flights, sender = 0, Role.CLIENT
    while flight := ends[sender].messages_to_send():
        flights += 1
        if flights == 1:
            # What the server asks goes out together with what it answers.
            take(Role.SERVER, ends[Role.SERVER].start(0))
        for message in flight:
            take(sender.other, ends[sender.other].receive(message, 0))
        sender = sender.other
    assert flights == 4
    assert opened == {Role.CLIENT, Role.SERVER}


def test_a_side_that_asks_for_nothing_still_decides() -> None:
    exchange = Exchange(binding(Role.SERVER, SERVER, CLIENT), None, random=bytes)
    assert exchange.start(0) == [DecideIdentity()]
