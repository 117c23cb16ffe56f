# SPDX-License-Identifier: Apache-2.0
"""The gate inside stock Envoys, both ends: what flows, what does not, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes

from native.agent_simulator import SimulatedConnection, decide
from native.gate_pair import GREETING, GatePair, eventually, fetch, gate_pair, is_closed
from native.stock_envoy import envoy_binaries
from troth.control_plane.gate.frames import (
    Close,
    CloseReason,
    GateRole,
    PeerClass,
    Resume,
    encode,
)

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

TRANSFER_MB = int(os.environ.get("TROTH_GATE_TRANSFER_MB", "16"))
CLIENT_PRELUDE = b"\xf5TROTH\x01C"
SERVER_PRELUDE = b"\xf5TROTH\x01S"
OPEN = b"\x02\x00\x00\x00"


def record(kind: int, payload: bytes = b"") -> bytes:
    return bytes([kind]) + len(payload).to_bytes(3) + payload


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_pair(gate_module: Path, envoy_binary: Path) -> AsyncIterator[GatePair]:
    async with gate_pair(gate_module, envoy_binary) as pair:
        yield pair


@pytest_asyncio.fixture(loop_scope="module")
async def pair(the_pair: GatePair) -> AsyncIterator[GatePair]:
    the_pair.use()
    yield the_pair
    await the_pair.hang_up()
    assert the_pair.client.alive, the_pair.client.log.read_text()[-4000:]
    assert the_pair.server.alive, the_pair.server.log.read_text()[-4000:]
    assert the_pair.client_agent.errors == []
    assert the_pair.server_agent.errors == []


async def echoes(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    reader, writer = streams
    writer.write(b"ping")
    return await asyncio.wait_for(reader.readexactly(4), 10) == b"ping"


async def never(_connection: SimulatedConnection) -> None:
    """An agent that does not decide."""


# ---- both sides decide ----


async def test_application_bytes_flow_once_both_agents_have_admitted(pair: GatePair) -> None:
    streams = await pair.open("tcp")
    assert await echoes(streams)
    client = await pair.client_agent.next_connection()
    server = await pair.server_agent.next_connection()
    assert (client.role, server.role) == (GateRole.CLIENT, GateRole.SERVER)
    assert server.opening.label == "inbound"
    streams[1].close()
    for connection in (client, server):  # who closed first depends on which end is seen first
        closed = await asyncio.wait_for(connection.closed, 10)
        assert closed.reason in {CloseReason.LOCAL, CloseReason.PEER}


async def test_each_agent_is_told_which_certificate_the_other_side_presented(
    pair: GatePair,
) -> None:
    streams = await pair.open("tcp")
    assert await echoes(streams)
    at_client = await (await pair.client_agent.next_connection()).peer
    at_server = await (await pair.server_agent.next_connection()).peer
    for seen, credential in (
        (at_client, pair.server_credential),
        (at_server, pair.client_credential),
    ):
        assert seen.digest == credential.certificate.fingerprint(hashes.SHA256())
    assert at_client.spiffe_id == "spiffe://example.test/server"
    assert at_server.spiffe_id == "spiffe://example.test/client"


@pytest.mark.parametrize("late", ["client", "server"])
async def test_no_byte_reaches_the_application_while_one_agent_has_not_decided(
    pair: GatePair, late: str
) -> None:
    may_decide = asyncio.Event()

    async def wait_then_admit(connection: SimulatedConnection) -> None:
        await connection.receive()
        await may_decide.wait()
        connection.admit()

    async def admit_at_once(connection: SimulatedConnection) -> None:
        connection.send(b"x")
        connection.admit()

    async def talk_then_wait(connection: SimulatedConnection) -> None:
        connection.send(b"x")
        await may_decide.wait()
        connection.admit()

    if late == "server":
        pair.use(client=admit_at_once, server=wait_then_admit)
    else:
        pair.use(client=talk_then_wait, server=admit_at_once)
    reader, writer = await pair.open("tcp")
    writer.write(b"ping")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.5)
    assert pair.accepted["echo"] == 0
    may_decide.set()
    assert await asyncio.wait_for(reader.readexactly(4), 10) == b"ping"


@pytest.mark.parametrize("refuser", ["client", "server"])
async def test_a_refusal_by_either_agent_ends_the_connection_and_names_the_reason(
    pair: GatePair, refuser: str
) -> None:
    async def refuse(connection: SimulatedConnection) -> None:
        if connection.role is GateRole.CLIENT:
            connection.send(b"nonce")
        await connection.receive()
        connection.refuse(1, f"measurement of the {refuser}'s peer is not known")

    if refuser == "client":
        pair.use(client=refuse)
    else:
        pair.use(server=refuse)
    reader, writer = await pair.open("tcp")
    writer.write(b"ping")
    assert await is_closed(reader)
    assert pair.accepted["echo"] == 0
    agents = {"client": pair.client_agent, "server": pair.server_agent}
    refused = await (await agents.pop(refuser).next_connection()).closed
    told = await (await agents.popitem()[1].next_connection()).closed
    assert refused.reason is CloseReason.REFUSED
    assert (told.reason, told.peer_class) == (CloseReason.PEER_REFUSED, PeerClass.REFUSED)
    other = "server" if refuser == "client" else "client"
    await pair.record(refuser, details=f"troth_refused: measurement of the {refuser}'s peer")
    await pair.record(other, details="troth_peer_refused: class 1")


# ---- peers without a gate, and peers that break the protocol ----


async def test_a_client_without_a_gate_is_closed_and_told_nothing(pair: GatePair) -> None:
    reader, writer = await pair.dial("s_tcp")
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await is_closed(reader)
    assert pair.accepted["echo"] == 0
    await pair.record("server", details="troth_plain: the peer has no gate")


async def test_a_silent_client_is_closed_at_the_deadline_of_the_exchange(pair: GatePair) -> None:
    reader, _writer = await pair.dial("s_hello")
    begun = time.monotonic()
    assert await is_closed(reader)
    assert 1.0 < time.monotonic() - begun < 4
    await pair.record("server", details="troth_timeout: TLS was not finished, or the peer was")


async def test_an_attesting_client_gives_up_on_a_silent_server_with_a_reason(
    pair: GatePair,
) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    pair.foreign = silent
    reader, writer = await pair.open("foreign")
    writer.write(b"ping")
    assert await is_closed(reader)
    await pair.record("client", details="troth_timeout: the peer did not answer: it may have no")
    closed = await (await pair.client_agent.next_connection()).closed
    assert closed.reason is CloseReason.TIMEOUT


@pytest.mark.parametrize(
    ("answer", "details"),
    [
        pytest.param(GREETING, "troth_plain", id="greeting"),
        pytest.param(b"\xf5TROTH\x01C", "troth_protocol: the peer's gate does not", id="echo"),
        pytest.param(b"\xf5TROTH\x02S", "troth_protocol: the peer's gate speaks", id="version"),
        pytest.param(
            SERVER_PRELUDE + OPEN + b"GET", "troth_protocol: application bytes", id="early"
        ),
        pytest.param(SERVER_PRELUDE + record(9), "troth_protocol: the peer's", id="unknown"),
        pytest.param(SERVER_PRELUDE + record(3, b"\x0f"), "troth_peer_refused: class 15", id="no"),
        pytest.param(SERVER_PRELUDE + b"\x01\x04\x00\x01", "troth_protocol", id="too-long"),
        pytest.param(SERVER_PRELUDE + record(1), "troth_protocol", id="empty-message"),
        pytest.param(SERVER_PRELUDE + record(1, b"x") * 65, "troth_protocol", id="many-records"),
    ],
)
async def test_a_server_that_does_not_follow_the_protocol_is_refused(
    pair: GatePair, answer: bytes, details: str
) -> None:
    received = asyncio.get_running_loop().create_future()

    async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = await reader.readexactly(8)
        writer.write(answer)
        received.set_result(greeting + await reader.read())

    async def talk(connection: SimulatedConnection) -> None:
        connection.send(b"nonce")

    pair.foreign = misbehave
    pair.use(client=talk)
    reader, writer = await pair.open("foreign")
    writer.write(b"application data")
    assert await is_closed(reader)
    await pair.record("client", details=details)
    said = await asyncio.wait_for(received, 10)
    assert said.startswith(CLIENT_PRELUDE + record(1, b"nonce"))
    assert b"application" not in said


async def test_a_server_that_closes_before_deciding_is_reported(pair: GatePair) -> None:
    async def leave(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)

    pair.foreign = leave
    reader, _writer = await pair.open("foreign")
    assert await is_closed(reader)
    closed = await (await pair.client_agent.next_connection()).closed
    assert closed.reason is CloseReason.PEER


async def test_a_client_that_sends_application_bytes_too_early_is_refused(pair: GatePair) -> None:
    pair.use(server=never)
    reader, writer = await pair.dial("s_tcp")
    writer.write(CLIENT_PRELUDE + record(1, b"nonce") + OPEN + b"early")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer == SERVER_PRELUDE + record(3, bytes([PeerClass.PROTOCOL]))
    assert pair.accepted["echo"] == 0
    await pair.record("server", details="troth_protocol: application bytes came before")


async def test_a_peer_that_sends_one_octet_at_a_time_is_understood(pair: GatePair) -> None:
    async def admit(connection: SimulatedConnection) -> None:
        assert await connection.receive() == b"nonce"
        connection.admit()

    pair.use(server=admit)
    reader, writer = await pair.dial("s_tcp")
    for octet in CLIENT_PRELUDE + record(1, b"nonce"):
        writer.write(bytes([octet]))
        await asyncio.sleep(0.005)
    assert await asyncio.wait_for(reader.readexactly(12), 10) == SERVER_PRELUDE + OPEN
    writer.write(OPEN + b"ping")
    assert await asyncio.wait_for(reader.readexactly(4), 10) == b"ping"


async def test_messages_larger_than_the_connection_buffer_arrive_whole(pair: GatePair) -> None:
    large = os.urandom(200_000)
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def send(connection: SimulatedConnection) -> None:
        connection.send(large)
        got.set_result(await connection.receive())
        connection.admit()

    async def give_back(connection: SimulatedConnection) -> None:
        connection.send(await connection.receive())
        connection.admit()

    pair.use(client=send, server=give_back)
    streams = await pair.open("small")
    assert await echoes(streams)
    assert await got == large
    assert (await pair.server_agent.next_connection()).pieces > 1


# ---- the agents ----


async def test_an_agent_that_does_not_decide_in_time_ends_the_connection(pair: GatePair) -> None:
    pair.use(server=never)
    reader, _writer = await pair.open("tcp")
    assert await is_closed(reader)
    await pair.record("server", details="troth_timeout: our agent did not decide")
    closed = await (await pair.server_agent.next_connection()).closed
    assert closed.reason is CloseReason.TIMEOUT


async def test_an_agent_that_dies_during_the_exchange_refuses_at_once_and_recovers(
    pair: GatePair,
) -> None:
    pair.use(server=never)
    reader, _writer = await pair.open("tcp")
    await (await pair.server_agent.next_connection()).peer
    begun = time.monotonic()
    await pair.server_agent.stop()
    assert await is_closed(reader)
    assert time.monotonic() - begun < 1
    await pair.record("server", details="troth_unavailable: no link to the agent")
    await pair.server_agent.start()
    pair.use()
    streams = await pair.open("tcp")
    assert await echoes(streams)


async def test_a_connection_waits_for_an_agent_that_restarts(pair: GatePair) -> None:
    await pair.client_agent.stop()
    streams = await pair.open("tcp")
    streams[1].write(b"ping")
    await asyncio.sleep(0.3)
    assert pair.accepted["echo"] == 0
    await pair.client_agent.start()
    assert await asyncio.wait_for(streams[0].readexactly(4), 10) == b"ping"


async def test_without_an_agent_connections_are_refused(pair: GatePair) -> None:
    await pair.client_agent.stop()
    try:
        begun = time.monotonic()
        while time.monotonic() - begun < 2.2:  # each of these waits, for the agent to come back
            assert await pair.is_refused("tcp")
        begun = time.monotonic()
        assert await pair.is_refused("tcp")  # nobody waits for an agent that is away for long
        assert time.monotonic() - begun < 1
        await pair.record("client", details="troth_unavailable: the agent is away")
        assert pair.accepted["echo"] == 0
    finally:
        await pair.client_agent.start()
    pair.use()
    await eventually(lambda: pair.client_agent.links != [])
    assert await echoes(await pair.open("tcp"))


async def test_an_agent_that_does_not_read_costs_bounded_memory_and_refuses(
    pair: GatePair,
) -> None:
    bystander = await pair.open("tcp")
    assert await echoes(bystander)
    pair.use(server=never)
    pair.server_agent.reads.clear()
    large = CLIENT_PRELUDE + record(1, bytes(200_000))
    peers = [await pair.dial("s_tcp") for _ in range(50)]  # 10 MB; the queue holds 8 MiB
    for _, writer in peers:
        writer.write(large)
    await pair.record("server", details="troth_unavailable: the agent is away, or does not keep")
    await pair.record("server", details="troth_timeout: our agent did not decide")
    answers = await asyncio.gather(*(asyncio.wait_for(reader.read(), 10) for reader, _ in peers))
    refusals = {SERVER_PRELUDE + record(3, bytes([told])) for told in (2, 3)}
    assert set(answers) == refusals  # unavailable for the last ones, timeout for the others
    assert await echoes(bystander)
    pair.use()
    pair.server_agent.reads.set()
    assert await echoes(await pair.open("tcp"))


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\x00" * 16, id="unknown-type"),
        pytest.param(b"\xff\xff\xff\xff\x82\x00\x00\x00" + b"\x00" * 8, id="too-long"),
        pytest.param(b"\x00\x00\x00\x00\x82\x01\x00\x00" + b"\x00" * 7 + b"\x01", id="flags"),
        pytest.param(b"\x00\x00\x00\x00\x83\x00\x00\x00" + b"\x00" * 7 + b"\x01", id="no-deadline"),
    ],
)
async def test_an_agent_that_sends_malformed_frames_loses_its_link(
    pair: GatePair, octets: bytes
) -> None:
    async def babble(connection: SimulatedConnection) -> None:
        connection.link.write(octets)

    pair.use(server=babble)
    reader, _writer = await pair.open("tcp")
    assert await is_closed(reader)
    await pair.record("server", details="troth_unavailable: no link to the agent")
    pair.use()
    streams = await pair.open("tcp")
    assert await echoes(streams)


@pytest.mark.parametrize("wrong", ["send after admit", "admit twice", "update before admit"])
async def test_an_agent_that_breaks_the_order_of_frames_ends_that_connection_alone(
    pair: GatePair, wrong: str
) -> None:
    bystander = await pair.open("tcp")
    assert await echoes(bystander)

    async def disorder(connection: SimulatedConnection) -> None:
        if wrong == "update before admit":
            return connection.update(deadline_ms=1000)
        connection.admit()
        if wrong == "admit twice":
            return connection.admit()
        return connection.send(b"one more")

    pair.use(server=disorder)
    reader, _writer = await pair.open("tcp")
    assert await is_closed(reader)
    closed = await (await pair.server_agent.next_connection()).closed
    assert closed.reason is CloseReason.AGENT_PROTOCOL
    assert await echoes(bystander)


# ---- live connections ----


async def test_the_deadline_of_an_admission_closes_a_live_connection(pair: GatePair) -> None:
    async def briefly(connection: SimulatedConnection) -> None:
        await connection.receive()
        connection.send(b"x")
        await connection.receive()
        connection.admit(deadline_ms=700)

    pair.use(server=briefly)
    reader, writer = await pair.open("tcp")
    assert await echoes((reader, writer))
    begun = time.monotonic()
    assert await is_closed(reader)
    assert 0.4 < time.monotonic() - begun < 1.5
    await pair.record("server", details="troth_deadline: the deadline of the last admission")
    closed = await (await pair.server_agent.next_connection()).closed
    assert closed.reason is CloseReason.DEADLINE


async def test_an_update_moves_the_deadline(pair: GatePair) -> None:
    streams = await pair.open("tcp")
    assert await echoes(streams)
    server = await pair.server_agent.next_connection()
    server.update(deadline_ms=300)
    server.update(deadline_ms=60_000)
    await asyncio.sleep(0.7)
    assert await echoes(streams)
    server.update(deadline_ms=1)
    assert await is_closed(streams[0])


async def test_the_deadline_holds_without_an_agent(pair: GatePair) -> None:
    streams = await pair.open("tcp")
    assert await echoes(streams)
    server = await pair.server_agent.next_connection()
    server.update(deadline_ms=800)
    assert await echoes(streams)
    await asyncio.sleep(0.1)
    await pair.server_agent.stop()
    try:
        assert await echoes(streams)  # an agent that is away harms no admitted connection
        assert await is_closed(streams[0])
    finally:
        await pair.server_agent.start()
    await pair.record("server", details="troth_deadline")


async def test_close_ends_exactly_that_connection(pair: GatePair) -> None:
    one, other = await pair.open("tcp"), await pair.open("tcp")
    assert await echoes(one)
    assert await echoes(other)
    server = await pair.server_agent.next_connection()
    server.close("node expelled")
    assert (await asyncio.wait_for(server.closed, 5)).reason is CloseReason.REVOKED
    ends = {asyncio.ensure_future(is_closed(streams[0])): streams for streams in (one, other)}
    done, living = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [True]
    done, living = await asyncio.wait(living, timeout=0.3)
    assert done == set()
    (survivor,) = living
    survivor.cancel()
    await asyncio.gather(survivor, return_exceptions=True)
    assert await echoes(ends[survivor])
    await pair.record("server", details="troth_revoked: node expelled")


async def test_close_ends_a_running_http_stream(pair: GatePair) -> None:
    reader, writer = await pair.open("h2")
    writer.write(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b"hello" in await asyncio.wait_for(reader.readuntil(b"hello"), 10)
    (await pair.server_agent.next_connection()).close()
    assert b"world" not in await asyncio.wait_for(reader.read(), 5)


async def test_close_of_an_unknown_connection_is_acknowledged(pair: GatePair) -> None:
    streams = await pair.open("tcp")
    assert await echoes(streams)
    server = await pair.server_agent.next_connection()
    server.link.write(encode(Close(server.number + 77)))
    await eventually(lambda: server.link.unknown_closed != [])
    assert server.link.unknown_closed[0].reason is CloseReason.UNKNOWN
    assert await echoes(streams)


async def test_a_restarted_agent_learns_of_every_admitted_connection(pair: GatePair) -> None:
    async def remember(connection: SimulatedConnection) -> None:
        await connection.receive()
        connection.send(b"x")
        await connection.receive()
        connection.admit(deadline_ms=60_000, context=b"exchange 42")

    pair.use(server=remember)
    streams = await pair.open("tcp")
    assert await echoes(streams)
    before = await pair.server_agent.next_connection()
    peer = await before.peer
    await pair.server_agent.stop()
    pair.use()
    await pair.server_agent.start()
    after = await asyncio.wait_for(pair.server_agent.next_connection(), 5)
    resume = after.opening
    assert isinstance(resume, Resume)
    assert (resume.connection, resume.digest) == (before.number, peer.digest)
    assert (resume.context, resume.label) == (b"exchange 42", "inbound")
    assert 50_000 < resume.deadline_ms <= 60_000
    await asyncio.wait_for(after.link.resumed.wait(), 5)
    assert await echoes(streams)
    after.close()
    assert (await asyncio.wait_for(after.closed, 5)).reason is CloseReason.REVOKED
    assert await is_closed(streams[0])


# ---- traffic ----


async def test_http_1_and_2_pass_and_carry_the_tier_that_the_agent_gave(pair: GatePair) -> None:
    for listener in ("h1", "h2"):
        assert await fetch(pair.ports[listener]) == (200, b"measured")
    line = await pair.record("server-http", response="200")
    assert (line["status"], line["tier"]) == ("attested", "measured")
    assert line["peer"] == "spiffe://example.test/client"


async def test_rbac_decides_by_filter_state_and_sees_updates(pair: GatePair) -> None:
    # A connection of its own: Envoy's pools keep the ones of other tests.
    streams = await pair.open("h2")

    async def ask(path: bytes) -> bytes:
        streams[1].write(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path)
        head = await asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), 10)
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await streams[0].readexactly(size)
        return head.split()[1]

    async def answers(status: bytes) -> bool:
        return await ask(b"/secret") == status

    def give(tier: str) -> None:
        for link in pair.server_agent.links:
            for connection in link.connections.values():
                connection.update(tier=tier)

    assert await ask(b"/") == b"200"
    assert await answers(b"403")
    give("confidential")
    await eventually(lambda: answers(b"200"))
    give("measured")
    await eventually(lambda: answers(b"403"))


async def test_requests_share_one_attested_http_2_connection(pair: GatePair) -> None:
    before = await pair.server.counter("opened")
    answers = await asyncio.gather(*(fetch(pair.ports["h2"]) for _ in range(20)))
    assert {status for status, _ in answers} == {200}
    assert await pair.server.counter("opened") - before <= pair.client.workers


async def test_an_application_that_speaks_first_is_heard_after_opening(pair: GatePair) -> None:
    may_decide = asyncio.Event()

    async def later(connection: SimulatedConnection) -> None:
        await may_decide.wait()
        await decide(connection)

    pair.use(server=later)
    reader, writer = await pair.open("hello")
    await asyncio.sleep(0.2)
    assert pair.accepted["greet"] == 0
    may_decide.set()
    assert await asyncio.wait_for(reader.readexactly(len(GREETING)), 10) == GREETING
    assert await echoes((reader, writer))


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
async def test_half_close_passes_in_both_directions(pair: GatePair, size: int) -> None:
    data = os.urandom(size)
    reader, writer = await pair.open("tcp")
    writer.write(data)
    writer.write_eof()  # the end may be seen long before the connection opens
    assert await asyncio.wait_for(reader.read(), 20) == data


async def test_a_large_transfer_arrives_with_equal_digests(pair: GatePair) -> None:
    reader, writer = await pair.open("tcp")
    sent, received = hashlib.sha256(), hashlib.sha256()
    block = os.urandom(1 << 20)

    async def write() -> None:
        for index in range(TRANSFER_MB):
            piece = index.to_bytes(4) + block[4:]
            sent.update(piece)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async def read() -> None:
        while data := await reader.read(1 << 18):
            received.update(data)

    await asyncio.wait_for(asyncio.gather(write(), read()), 30 + TRANSFER_MB)
    assert received.hexdigest() == sent.hexdigest()


# ---- modes and limits ----


async def test_a_permissive_server_lets_a_plain_client_through_and_marks_it(
    pair: GatePair,
) -> None:
    streams = await pair.dial("s_open")
    assert await echoes(streams)
    await pair.hang_up()
    line = await pair.record("server", status="none")
    assert line["tier"] is None


async def test_a_permissive_server_still_attests_a_client_with_a_gate(pair: GatePair) -> None:
    streams = await pair.open("open")
    assert await echoes(streams)
    assert (await pair.server_agent.next_connection()).admitted

    async def refuse(connection: SimulatedConnection) -> None:
        connection.refuse()

    pair.use(server=refuse)
    reader, _writer = await pair.open("open")
    assert await is_closed(reader)


async def test_a_permissive_server_lets_a_silent_client_hear_a_greeting(pair: GatePair) -> None:
    reader, _writer = await pair.dial("s_open_hello")
    assert await asyncio.wait_for(reader.readexactly(len(GREETING)), 5) == GREETING


async def test_a_permissive_server_gives_back_the_octets_that_looked_like_a_prelude(
    pair: GatePair,
) -> None:
    reader, writer = await pair.dial("s_open")
    writer.write(b"\xf5TRO")
    await asyncio.sleep(0.05)
    writer.write(b"UT")
    assert await asyncio.wait_for(reader.readexactly(6), 10) == b"\xf5TROUT"


async def test_more_exchanges_than_allowed_are_refused(pair: GatePair) -> None:
    may_decide = asyncio.Event()

    async def later(connection: SimulatedConnection) -> None:
        await may_decide.wait()
        await decide(connection)

    pair.use(server=later)
    first = await pair.open("one")
    await pair.server_agent.next_connection()
    second = await pair.open("one")
    assert await is_closed(second[0])
    await pair.record("server", details="troth_limit: max_exchanges=1")
    may_decide.set()
    assert await echoes(first)
    third = await pair.open("one")
    assert await echoes(third)


async def test_a_chain_without_tls_is_refused(pair: GatePair) -> None:
    reader, writer = await pair.open("s_raw")
    writer.write(CLIENT_PRELUDE)
    assert await is_closed(reader)
    await pair.record("server", details="troth_misconfigured: this filter chain has no TLS")


async def test_a_tcp_proxy_that_keeps_the_gate_from_reading_is_refused(pair: GatePair) -> None:
    with contextlib.suppress(ConnectionError):  # the end may come before TLS is done
        reader, _writer = await pair.dial("s_late")
        assert await is_closed(reader)
    await pair.record("server", details="troth_misconfigured: the tcp_proxy after the gate needs")


async def test_every_ended_connection_is_counted_by_its_reason(pair: GatePair) -> None:
    before = await pair.server.counter("closed_plain")
    reader, writer = await pair.dial("s_tcp")
    writer.write(b"plain")
    assert await is_closed(reader)
    assert await pair.server.counter("closed_plain") == before + 1


async def test_the_older_supported_envoy_is_tested_too() -> None:
    if not any(name.startswith("1.39") for name in envoy_binaries()):
        pytest.skip("set TROTH_ENVOY_1_39 to an envoy 1.39 binary to test that version as well")
