# SPDX-License-Identifier: Apache-2.0
"""The agent's side of the gate, with a wire in place of two Envoys."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.attested_world import Node, World
from support.gate_pair import (
    ADMIT,
    CLOSE,
    CLOSED,
    REFUSE,
    UPDATE,
    Agent,
    Outcome,
    Pair,
    attributes,
    pair,
)
from support.waiting import until
from troth.control_plane.gate.frames import GateRole
from troth.evidence.simulator import CcaOptions
from troth.mesh.deadline import Deadline
from troth.tls.core.exchange import Timeouts

MODELS = ["passport", "background_check", "any", "svid_only"]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def cloud(world: World) -> Node:
    return world.join("cloud", world.platform(CcaOptions()))


@pytest.fixture(scope="module")
def edge(world: World) -> Node:
    return world.join("edge", world.platform())


@pytest.fixture
async def wire(world: World) -> AsyncIterator[Pair]:
    async with pair(world) as made:
        started: list[Agent] = []
        make = made.agent

        async def agent(*arguments: Any, **options: Any) -> Agent:
            started.append(await make(*arguments, **options))
            return started[-1]

        made.agent = agent  # type: ignore[method-assign]
        yield made
        for each in started:
            await each.gate.close()
            await each.service.stop()


@pytest.mark.parametrize("models", list(itertools.product(MODELS, repeat=2)))
async def test_each_side_decides_by_its_own_pattern(
    world: World, cloud: Node, edge: Node, wire: Pair, models: tuple[Any, Any]
) -> None:
    client, server = models
    one = await wire.agent("c", cloud, world.policy(model=client))
    other = await wire.agent("s", edge, world.policy(model=server))
    outcome = await wire.exchange(one, other)
    assert outcome.admitted
    expected = "none" if client == "svid_only" else "key"
    assert outcome.state("client")["troth.binding"] == expected
    if client != "svid_only":
        assert outcome.state("client")["troth.scheme"] == "psa"
        assert outcome.state("client")["troth.tier"] == "measured"
    if server != "svid_only":
        assert outcome.state("server")["troth.scheme"] == "cca"
        assert outcome.state("server")["troth.verifier"] in ("home", "here")


async def test_messages_in_pieces_are_put_together(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    assert (await wire.exchange(one, other, pieces=7)).admitted


async def test_a_peer_below_the_tier_is_refused_on_both_sides_with_a_class_only(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy(min_tier="confidential"))
    other = await wire.agent("s", edge, world.policy())
    outcome = await wire.exchange(one, other)
    assert outcome.client is not None
    assert outcome.server is not None
    assert outcome.client[0] == outcome.server[0] == REFUSE
    assert b"tier" in outcome.client[1][14][0], "the operator of the refusing side reads why"
    assert b"tier" not in outcome.server[1][14][0], "the other side does not"
    assert not any(b"confidential" in message for _, message in outcome.messages)


async def test_a_node_without_rules_or_membership_refuses(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, None)
    outcome = await wire.exchange(one, other, seconds=0.5)
    assert outcome.server is not None
    assert outcome.server[0] == REFUSE
    third = await wire.agent("t", edge, world.policy())
    third.own = None
    outcome = await wire.exchange(one, third, seconds=0.5)
    assert outcome.server is not None
    assert outcome.server[0] == REFUSE


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_proof_relayed_to_a_connection_with_another_certificate_is_refused(
    world: World, cloud: Node, edge: Node, wire: Pair, side: str
) -> None:
    """The peer's proxy saw another certificate than ours: somebody stands between us."""
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    seen = (bytes(32), one.spiffe_id if side == "server" else other.spiffe_id)
    sees = {"server_sees": seen} if side == "server" else {"client_sees": seen}
    outcome = await wire.exchange(one, other, **sees)
    assert not outcome.admitted


async def test_a_proof_recorded_on_one_connection_is_refused_on_the_next(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    first = await wire.exchange(one, other)
    assert first.admitted
    recorded = [message for side, message in first.messages if side == "server"]
    replay = iter(recorded)
    second = await wire.exchange(
        one,
        other,
        tamper=lambda side, message: next(replay, None) if side == "server" else message,
        seconds=1,
    )
    assert not second.admitted


async def test_a_peer_with_another_spiffe_id_than_its_proof_is_refused(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    outcome = await wire.exchange(
        one, other, server_sees=(one.digest, "spiffe://mesh.example/node/other")
    )
    assert not outcome.admitted


async def test_any_changed_message_is_refused(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    count = len((await wire.exchange(one, other)).messages)
    for victim in range(count):
        seen = itertools.count()

        def tamper(_: str, message: bytes, victim: int = victim, seen: Any = seen) -> bytes:
            return message[:-1] + bytes([message[-1] ^ 1]) if next(seen) == victim else message

        outcome = await wire.exchange(one, other, tamper=tamper, seconds=1)
        assert not outcome.admitted, victim


async def test_a_silent_peer_is_given_up_with_a_reason(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    fast = Timeouts(peer=0.2, prove=0.2, appraise=0.2)
    one = await wire.agent("c", cloud, world.policy(), timeouts=fast)
    other = await wire.agent("s", edge, world.policy(), timeouts=fast)
    outcome = await wire.exchange(
        one, other, tamper=lambda side, m: None if side == "server" else m, seconds=3
    )
    assert outcome.client is not None
    assert outcome.client[0] == REFUSE


def reason(final: tuple[int, dict[int, list[bytes]]] | None) -> bytes:
    assert final is not None
    assert final[0] == REFUSE
    return final[1][14][0]


async def test_a_verifier_that_does_not_answer_is_named_to_the_operator_alone(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    class Silent:
        name = "here"

        async def appraise(self, *_: Any, **__: Any) -> Any:
            await asyncio.sleep(60)

    quick = Timeouts(peer=5, prove=5, appraise=0.1)
    one = await wire.agent(
        "c", cloud, world.policy(model="background_check"), check=Silent(), timeouts=quick
    )
    other = await wire.agent("s", edge, world.policy())
    outcome = await wire.exchange(one, other)
    assert b"the Verifier did not answer in time" in reason(outcome.client)
    assert b"Verifier" not in reason(outcome.server)


async def test_an_attester_that_hangs_is_named_to_its_own_operator_alone(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    class Hanging:
        scheme, media_type = edge.platform.scheme, edge.platform.media_type
        challenge_size = edge.platform.challenge_size

        def attest(self, challenge: bytes) -> bytes:
            released.wait(5)
            return edge.platform.attest(challenge)

    released = threading.Event()
    one = await wire.agent("c", cloud, world.policy(model="background_check"))
    quick = Timeouts(peer=5, prove=0.1, appraise=5)
    other = await wire.agent("s", edge, world.policy(), timeouts=quick, attester=Hanging())
    try:
        outcome = await wire.exchange(one, other)
    finally:
        released.set()
    assert b"Attester took too long" in reason(outcome.server)
    assert b"Attester" not in reason(outcome.client)


def proving(outcome: Outcome) -> set[str]:
    # A proof is as long as its certificate; a request or a decision is far shorter.
    return {side for side, message in outcome.messages if len(message) > 600}


@pytest.mark.parametrize("role", ["client", "server"])
async def test_whom_no_proof_could_help_is_refused_by_name_before_anything_is_proved(
    world: World, cloud: Node, edge: Node, wire: Pair, role: str
) -> None:
    strict = world.policy(peers=["spiffe://mesh.example/somebody-else"])
    one = await wire.agent("c", cloud, strict if role == "client" else world.policy())
    other = await wire.agent("s", edge, strict if role == "server" else world.policy())
    outcome = await wire.exchange(one, other)
    refusing = outcome.client if role == "client" else outcome.server
    assert b"SPIFFE ID" in reason(refusing)
    assert (refusing is outcome.client) == (role == "client")
    assert role not in proving(outcome)
    third = await wire.agent("t", edge, world.policy())
    fourth = await wire.agent("f", cloud, world.policy())
    assert proving(await wire.exchange(fourth, third)) == {"client", "server"}


@pytest.mark.parametrize("spiffe_id", ["", "https://mesh.example/edge"])
async def test_a_peer_without_a_spiffe_id_is_refused(
    world: World, cloud: Node, edge: Node, wire: Pair, spiffe_id: str
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    outcome = await wire.exchange(one, other, client_sees=(other.digest, spiffe_id))
    assert reason(outcome.client)


async def test_what_arrives_after_the_admission_is_answered_by_nothing(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    outcome = await wire.exchange(one, other, number=31)
    assert outcome.admitted
    for _, message in outcome.messages:
        one.gate.data(31, message)
    one.gate.open(32, GateRole.CLIENT, other.spiffe_id)
    kind, number, _ = await one.gate.heard.get()
    assert number == 32, (kind, "the admitted connection said something")


async def test_an_expelled_peer_is_closed_and_the_end_acknowledged(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    assert (await wire.exchange(one, other, number=77)).admitted
    await until(lambda: len(one.service.live()) == 1)
    live = one.service.live()[0]
    assert (live.role, live.spiffe_id) == (GateRole.CLIENT, other.spiffe_id)
    assert live.key_digest == hashlib.sha256(edge.svid.spki).digest()
    closing = asyncio.create_task(one.service.close_where(lambda _: True, "expelled"))
    kind, number, body = await one.gate.heard.get()
    assert (kind, number) == (CLOSE, 77)
    assert attributes(body)[14] == [b"expelled"]
    assert not closing.done()
    one.gate.closed(77, reason=11)
    assert await closing is True
    assert one.service.live() == []


async def test_a_gate_that_does_not_acknowledge_is_told_apart(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    assert (await wire.exchange(one, other)).admitted
    await until(lambda: len(one.service.live()) == 1)
    assert await one.service.close_where(lambda _: True, "expelled", seconds=0.1) is False


async def test_a_deadline_is_extended_without_another_exchange(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    outcome = await wire.exchange(one, other, number=5)
    assert outcome.admitted
    await until(lambda: len(one.service.live()) == 1)
    live = one.service.live()[0]
    assert live.peer is not None
    later = Deadline(at=datetime.now(UTC) + timedelta(hours=1), because="renewed")
    assert one.service.extend_where(lambda _: True, later, live.peer) == 1
    kind, number, body = await one.gate.heard.get()
    assert (kind, number) == (UPDATE, 5)
    milliseconds = int.from_bytes(attributes(body)[11][0])
    assert 3_500_000 < milliseconds <= 3_600_000


async def test_the_admission_never_outlasts_the_result(
    world: World, cloud: Node, edge: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    other = await wire.agent("s", edge, world.policy())
    outcome = await wire.exchange(one, other)
    assert outcome.client is not None
    assert outcome.client[0] == ADMIT
    milliseconds = int.from_bytes(outcome.client[1][11][0])
    assert milliseconds <= world.lifetime.total_seconds() * 1000


async def test_a_gate_that_breaks_the_protocol_loses_its_link(
    world: World, cloud: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    one.gate.say(0x55, 1, b"nonsense")
    kind, _, _ = await one.gate.heard.get()
    assert kind == 0, "the link has ended"


async def test_a_number_that_comes_twice_ends_the_link(
    world: World, cloud: Node, wire: Pair
) -> None:
    one = await wire.agent("c", cloud, world.policy())
    one.gate.open(9, GateRole.SERVER)
    one.gate.open(9, GateRole.SERVER)
    while (frame := await one.gate.heard.get())[0] != 0:
        assert frame[0] in (CLOSED, REFUSE)
