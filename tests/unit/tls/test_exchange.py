# SPDX-License-Identifier: Apache-2.0
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.exchange import PASSPORT, End, Identity, make_proof, pump
from troth.errors import ApiMisuseError
from troth.formats.exported_authenticator import Role
from troth.tls.core.exchange import Appraise, Ended, Exchange, Opened, Prove, Renewed, Timeouts
from troth.tls.core.messages import (
    Message,
    MessageKind,
    RequestParameters,
    Verdict,
    decode_message,
    encode_message,
)
from troth.tls.core.session import SessionBinding
from troth.tls.core.states import (
    ATTESTER_TABLE,
    FLOWING,
    RELYING_PARTY_TABLE,
    AttesterInput,
    AttesterState,
    RelyingPartyInput,
    RelyingPartyState,
    mermaid,
)

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "exchange.md"


def pair(
    client: RequestParameters | None = PASSPORT, server: RequestParameters | None = PASSPORT
) -> tuple[End, End]:
    return End(Role.CLIENT, client), End(Role.SERVER, server)


@pytest.mark.parametrize(("client", "server"), list(itertools.product([None, PASSPORT], repeat=2)))
def test_any_mix_of_demands_opens_when_both_accept(
    client: RequestParameters | None, server: RequestParameters | None
) -> None:
    one, other = pair(client, server)
    one.start()
    other.start()
    pump(one, other)
    assert one.exchange.flowing
    assert other.exchange.flowing
    assert one.saw(Opened)
    assert other.saw(Opened)


@pytest.mark.parametrize("refuser", [Role.CLIENT, Role.SERVER])
@pytest.mark.parametrize("demand", [None, PASSPORT])
def test_one_refusal_closes_both_ends_for_good(
    refuser: Role, demand: RequestParameters | None
) -> None:
    one, other = pair(demand, demand)
    (one if refuser is Role.CLIENT else other).verdict = Verdict.REFUSED
    one.start()
    other.start()
    pump(one, other)
    for end in (one, other):
        assert not end.exchange.flowing
        assert not end.saw(Opened)
        assert end.exchange.ended is not None
        assert (
            end.exchange.receive(encode_message(Message(MessageKind.DECISION, 0, b"\0")), 1) == []
        )
        assert not end.exchange.flowing


def test_nothing_flows_before_the_peer_has_accepted_too() -> None:
    one, other = pair()
    one.start()
    other.start()
    for message in other.exchange.messages_to_send():
        one.take(one.exchange.receive(message, 0))
    for message in one.exchange.messages_to_send():
        other.take(other.exchange.receive(message, 0))
    # The server has the client's proof and has accepted; the client has not heard of it.
    assert not one.exchange.flowing


@pytest.mark.parametrize("secret", [b"session", b"another session"])
def test_proof_is_accepted_on_its_own_session_only(secret: bytes) -> None:
    one, other = pair()
    other.secret = secret
    other.__post_init__()
    one.start()
    other.start()
    pump(one, other)
    assert one.exchange.flowing is (secret == b"session")


def test_a_proof_of_an_earlier_round_is_refused_in_a_later_one() -> None:
    one, other = pair()
    recorded: list[bytes] = []

    def record(message: bytes) -> bytes:
        if decode_message(message).kind is MessageKind.PROOF:
            recorded.append(message)
        return message

    one.start()
    other.start()
    pump(one, other, record)
    assert one.exchange.flowing
    one.take(one.exchange.ask(1.0))
    one.exchange.messages_to_send()
    old = decode_message(recorded[0])
    one.take(one.exchange.receive(encode_message(Message(MessageKind.PROOF, 1, old.body)), 1.0))
    assert one.exchange.ended is not None
    assert one.exchange.ended.verdict in (Verdict.MALFORMED, Verdict.REFUSED)


def test_our_own_request_reflected_at_us_is_refused() -> None:
    one, _ = pair()
    one.start()
    (request,) = one.exchange.messages_to_send()
    one.take(one.exchange.receive(request, 0))
    assert one.exchange.ended is not None
    assert not one.saw(Prove)


def test_a_context_seen_on_this_connection_is_refused_in_either_direction() -> None:
    one, other = pair()
    one.start()
    other.start()
    pump(one, other)
    first = next(event for event in other.events if isinstance(event, Prove)).request
    replay = one.binding.make_request(first.context, PASSPORT).raw
    other.take(other.exchange.receive(encode_message(Message(MessageKind.REQUEST, 1, replay)), 2))
    assert other.exchange.ended is not None
    assert "second time" in other.exchange.ended.why
    with pytest.raises(ApiMisuseError, match="used on this connection"):
        one.exchange.ask(3, context=first.context)


def test_reattestation_keeps_bytes_flowing_and_a_refusal_then_ends_it() -> None:
    one, other = pair()
    one.start()
    other.start()
    pump(one, other)
    one.take(one.exchange.ask(1))
    assert one.exchange.flowing
    pump(one, other)
    assert one.saw(Renewed)
    assert one.exchange.flowing
    one.verdict = Verdict.REFUSED
    one.take(one.exchange.ask(2))
    pump(one, other)
    assert not one.exchange.flowing
    assert isinstance(other.events[-1], Ended)
    assert other.events[-1].by_peer


def test_a_background_check_may_follow_a_passport_that_was_not_enough() -> None:
    one, other = pair()
    asked_again = False

    def take(events: list[object]) -> None:
        nonlocal asked_again
        for event in events:
            if isinstance(event, Appraise) and not asked_again:
                asked_again = True
                take(one.exchange.ask(1))
            else:
                End.take(one, [event])

    one.take = take  # type: ignore[method-assign]
    one.start()
    other.start()
    pump(one, other)
    assert asked_again
    assert one.exchange.flowing
    assert other.exchange.flowing


def test_an_authenticated_refusal_to_prove_ends_both() -> None:
    one, other = pair()
    one.start()
    other.exchange.start(0)
    other.exchange.messages_to_send()
    for message in one.exchange.messages_to_send():
        (event,) = other.exchange.receive(message, 0)
        assert isinstance(event, Prove)
        other.take(other.exchange.decline(event.round, event.request, "nothing to show"))
    for message in other.exchange.messages_to_send():
        one.take(one.exchange.receive(message, 0))
    assert one.exchange.ended is not None
    assert one.exchange.ended.verdict is Verdict.DECLINED


@pytest.mark.parametrize("silent_after", [0, 1, 2, 3])
def test_a_peer_that_goes_silent_at_any_step_is_given_up(silent_after: int) -> None:
    one, other = pair()
    one.exchange = Exchange(
        one.binding, PASSPORT, random=lambda size: bytes(range(size)), timeouts=Timeouts(peer=5)
    )
    one.start()
    other.start()
    delivered = 0
    for _ in range(8):
        for message in one.exchange.messages_to_send():
            other.take(other.exchange.receive(message, 0))
        for message in other.exchange.messages_to_send():
            if delivered < silent_after:
                delivered += 1
                one.take(one.exchange.receive(message, 0))
    if one.exchange.flowing:
        assert silent_after == 3, "request, proof and decision were all heard"
        return
    deadline = one.exchange.next_deadline()
    assert deadline is not None
    assert one.exchange.poll(deadline - 0.001) == []
    (ended,) = one.exchange.poll(100)
    assert isinstance(ended, Ended)
    assert ended.verdict is Verdict.TIMEOUT


def test_a_verifier_that_does_not_answer_is_unavailable_not_accepted() -> None:
    one, other = pair()
    one.start()
    other.start()
    events = []
    for _ in range(4):
        for message in one.exchange.messages_to_send():
            other.take(other.exchange.receive(message, 0))
        for message in other.exchange.messages_to_send():
            events += [e for e in one.exchange.receive(message, 0) if isinstance(e, Appraise)]
    assert events
    (ended,) = one.exchange.poll(60)
    assert isinstance(ended, Ended)
    assert ended.verdict is Verdict.UNAVAILABLE
    assert one.exchange.decide(events[0].round, Verdict.ACCEPTED) == []
    assert not one.exchange.flowing


def test_a_peer_that_asks_too_often_is_cut_off() -> None:
    one, other = pair(PASSPORT, None)
    one.start()
    other.start()
    pump(one, other)
    for _ in range(40):
        if one.exchange.ended:
            break
        one.take(one.exchange.ask(1.0))
        pump(one, other)
    assert other.exchange.ended is not None
    assert "too often" in other.exchange.ended.why


def test_a_proof_signed_by_another_key_than_its_certificate_is_refused() -> None:
    one, other = pair()
    thief = Identity("thief")
    thief.certificate = other.identity.certificate
    other.identity = thief
    one.start()
    other.start()
    pump(one, other)
    assert one.exchange.ended is not None
    assert not one.saw(Appraise)


@pytest.mark.parametrize(
    ("table", "states", "inputs"),
    [
        (RELYING_PARTY_TABLE, RelyingPartyState, RelyingPartyInput),
        (ATTESTER_TABLE, AttesterState, AttesterInput),
    ],
)
def test_no_input_leads_out_of_ended_and_every_state_can_end(
    table: dict, states: type, inputs: type
) -> None:
    for state in states:
        for given_input in inputs:
            if state is states.ENDED:
                assert (state, given_input) not in table
        if state is not states.ENDED:
            assert states.ENDED in {new for (old, _), new in table.items() if old is state}


def test_bytes_flow_only_after_a_positive_decision() -> None:
    """A state that flows is entered only from one that flows, or by a decision to accept."""
    for table, accept in (
        (RELYING_PARTY_TABLE, RelyingPartyInput.ACCEPT),
        (ATTESTER_TABLE, AttesterInput.PEER_ACCEPTS),
    ):
        for (old, given_input), new in table.items():
            if new in FLOWING and old not in FLOWING:
                assert given_input is accept


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_garbage_never_opens_and_never_escapes(messages: list[bytes]) -> None:
    one, _ = pair()
    one.start()
    for message in messages:
        one.take(one.exchange.receive(message, 0))
    assert not one.exchange.flowing


@given(st.permutations(range(6)), st.integers(0, 5))
def test_reordered_or_repeated_messages_never_open_both_by_mistake(
    order: list[int], repeat: int
) -> None:
    one, other = pair()
    one.start()
    other.start()
    heard: list[bytes] = []
    for _ in range(3):
        for message in one.exchange.messages_to_send():
            other.take(other.exchange.receive(message, 0))
        heard += other.exchange.messages_to_send()
    victim, _ = pair()
    victim.start()
    for index in [*order, repeat]:
        if index < len(heard):
            victim.take(victim.exchange.receive(heard[index], 0))
    if victim.exchange.flowing:
        kinds = [decode_message(heard[i]).kind for i in order if i < len(heard)]
        assert kinds.index(MessageKind.PROOF) < kinds.index(MessageKind.DECISION)


def test_a_binding_does_not_answer_its_own_request() -> None:
    one, _ = pair()
    request = one.binding.make_request(bytes(32), PASSPORT)
    with pytest.raises(ApiMisuseError):
        make_proof(one.binding, Prove(0, request), one.identity, b"")


def test_the_challenge_differs_by_session_key_and_context_and_fits_its_field() -> None:
    def challenge(secret: bytes, context: bytes, spki: bytes, size: int = 64) -> bytes:
        end = End(Role.CLIENT, PASSPORT, secret=secret)
        return end.binding.challenge(end.binding.make_request(context, PASSPORT), spki, size)

    base = challenge(b"s", bytes(32), b"k")
    assert len(base) == 64
    assert base[32:] == bytes(32)
    others = [
        challenge(b"t", bytes(32), b"k"),
        challenge(b"s", bytes([1] * 32), b"k"),
        challenge(b"s", bytes(32), b"l"),
    ]
    assert len({base, *others}) == 4
    assert challenge(b"s", bytes(32), b"k", 32) == base[:32]


def test_a_session_binding_wants_a_tls_13_hash() -> None:
    with pytest.raises(ApiMisuseError):
        SessionBinding(role=Role.CLIENT, exporter=lambda *_: b"", hash_name="md5")


def test_the_page_shows_the_tables_that_run() -> None:
    page = PAGE.read_text()
    assert mermaid(RELYING_PARTY_TABLE) in page
    assert mermaid(ATTESTER_TABLE) in page
