# SPDX-License-Identifier: Apache-2.0
"""The agent's client: who it talks to, what it makes of answers, and how it follows the feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.members import NOW
from support.server_world import SERVER_ID, World, new_key, new_platform, world
from troth.adapters.server_client import RefusedByServerError, ServerClient
from troth.adapters.server_errors import error_of
from troth.errors import (
    AuthorizationError,
    BindingError,
    ChainError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    FreshnessError,
    TrothError,
    UnavailableError,
    VerificationError,
)
from troth.mesh.event import Event, FeedMessage, Heartbeat, Snapshot
from troth.mesh.member import Member, Service
from troth.mesh.node import NodeState


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def test_joining_gives_identity_bundle_and_when_to_come_again(here: World) -> None:
    platform = here.platform()
    async with here.serve() as running:
        client, key = here.client(), new_key()
        service = Service(name="web", protocol="http", address="127.0.0.1:80")
        joined = await client.join(platform, key, node_name="edge-1", services=[service])
        assert joined.svid.private_key is key
        assert joined.svid.node_id == joined.node_id
        assert (
            joined.bundle.x509_authorities == running.context.issuer.trust_bundle().x509_authorities
        )
        assert joined.refresh_after.total_seconds() == pytest.approx(1200, abs=2)
        nodes = await client.nodes()
        assert [(m.name, m.services) for m in nodes.members] == [("edge-1", (service,))]
        assert (await client.bundle()).x509_authorities == joined.bundle.x509_authorities
        assert b'"kid"' in await client.result_keys()
        renewed = await client.join(platform, new_key())
        assert renewed.generation == joined.generation + 1
        await client.close()


async def test_a_refusal_carries_its_class_its_id_and_the_findings(here: World) -> None:
    changed = here.platform().with_measurement(0, b"\x66" * 32)
    async with here.serve():
        client = here.client()
        with pytest.raises(RefusedByServerError) as caught:
            await client.join(changed, new_key())
        assert caught.value.reason == "refused"
        assert caught.value.refusal in str(caught.value)
        assert any("66" * 32 in finding.actual for finding in caught.value.findings)
        with pytest.raises(RefusedByServerError) as caught:
            await client.join(new_platform(), new_key())
        assert caught.value.reason == "not_authentic"
        assert caught.value.findings == ()
        assert f"troth explain {caught.value.refusal}" in caught.value.remedy
        await client.close()


async def test_a_server_with_another_name_gets_no_request(here: World) -> None:
    platform = here.platform()
    async with here.serve() as running:
        client = here.client(server_id=SERVER_ID + "2")
        with pytest.raises(ChainError, match=r"not spiffe://mesh\.example/troth/server2"):
            await client.join(platform, new_key())
        await client.close()
        assert running.context.metrics.join_seconds._sum.get() == 0


async def test_a_server_of_another_authority_gets_no_request(here: World) -> None:
    async with world() as elsewhere, here.serve(), elsewhere.serve() as other:
        client = here.client(trust_bundle=other.trust_bundle.read_text())
        with pytest.raises(ChainError, match="not the expected one"):
            await client.nodes()
        await client.close()


async def test_a_member_is_not_the_server(here: World) -> None:
    """A node's SVID is of the same authority: its name is what tells it from the server."""
    platform = here.platform("edge")
    async with here.serve() as running:
        client = here.client()
        joined = await client.join(platform, new_key())
        impostor = await _impostor(joined.svid)
        port = impostor.sockets[0].getsockname()[1]
        misled = ServerClient(
            f"https://127.0.0.1:{port}",
            trust_bundle=running.trust_bundle.read_text(),
            server_id=SERVER_ID,
        )
        with pytest.raises(ChainError, match=r"the server is spiffe://mesh\.example/edge"):
            await misled.nodes()
        impostor.close()
        await misled.close()
        await client.close()


async def _impostor(svid: Any) -> asyncio.Server:
    import ssl  # noqa: PLC0415 - one test needs a bare TLS server

    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - as above

    from troth.adapters.pinned_tls import _with_file  # noqa: PLC0415 - as above

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = svid.encode_pem() + svid.encode_private_key(Encoding.PEM)
    _with_file(pem, context.load_cert_chain)

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    return await asyncio.start_server(never, "127.0.0.1", 0, ssl=context)


async def test_a_server_that_is_not_there_is_unavailable(here: World) -> None:
    async with here.serve() as running:
        client = here.client()
        await client.result_keys()
    with pytest.raises(UnavailableError):
        await client.nodes()
    await client.close()
    assert running


async def test_a_stranger_and_a_quarantined_node_may_not_read_the_feed(here: World) -> None:
    platform = here.platform()
    async with here.serve():
        client = here.client()
        with pytest.raises(AuthorizationError):
            await anext(client.feed())
        await client.join(platform, new_key())
        await here.ask("DELETE", "/v1/corims", params={"id": "maker-of-edge"})
        with pytest.raises(AuthorizationError):
            await anext(client.feed())
        with pytest.raises(AuthorizationError):
            await client.acknowledge(1)
        with pytest.raises(AuthorizationError):
            await client.nodes()
        await client.close()


async def test_a_reader_hears_of_its_own_quarantine_and_then_nothing_more(here: World) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    async with here.serve():
        client, other = here.client(), here.client()
        await client.join(edge, new_key())
        await other.join(cloud, new_key())
        feed = client.feed()
        await anext(feed)
        await here.ask("DELETE", "/v1/corims", params={"id": "maker-of-edge"})
        event = await anext(feed)
        assert isinstance(event, Event)
        assert event.member.state is NodeState.QUARANTINED
        with pytest.raises(AuthorizationError):
            await anext(feed)
        await client.close()
        await other.close()


async def test_the_feed_goes_on_after_a_restart_of_the_server(here: World) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    async with here.serve() as running:
        port = running.url.rpartition(":")[2]
        client = here.client()
        await client.join(edge, new_key())
        feed = client.feed()
        snapshot = await anext(feed)
        assert isinstance(snapshot, Snapshot)
    here.options["listen"] = f"127.0.0.1:{port}"
    async with here.serve():
        other = here.client()
        await other.join(cloud, new_key())
        async with asyncio.timeout(15):
            messages = [await anext(feed) for _ in range(3)]
        assert [type(message) for message in messages] == [Event] * 3
        assert [m.sequence for m in messages] == list(
            range(snapshot.sequence + 1, snapshot.sequence + 4)
        )
        await feed.aclose()
        await client.close()
        await other.close()


async def test_heartbeats_are_passed_on(here: World) -> None:
    platform = here.platform()
    here.options["heartbeat_seconds"] = 0.05
    async with here.serve():
        client = here.client()
        await client.join(platform, new_key())
        feed = client.feed()
        first = await anext(feed)
        assert await anext(feed) == Heartbeat(sequence=first.sequence)
        await feed.aclose()
        await client.close()


# Several servers


def clients_of_two(here: World, turn: int) -> ServerClient:
    """Return a client of a server that is not there and of one that is; `turn` says who is first."""
    client = here.client()
    client._urls = ("https://127.0.0.1:1", here.running.url)
    client._turn = turn
    client._client = client._connect()
    return client


@pytest.mark.parametrize("turn", [0, 1])
async def test_a_server_that_does_not_answer_is_left_for_the_next_one(
    here: World, turn: int
) -> None:
    platform = here.platform()
    async with here.serve():
        client = clients_of_two(here, turn)
        joined = await client.join(platform, new_key())
        assert client._turn == 1
        client._turn = turn - 1
        client._client = client._connect()
        assert [each.node_id for each in (await client.nodes()).members] == [joined.node_id]
        await client.close()


async def test_the_feed_goes_on_at_the_next_server_where_it_was(here: World) -> None:
    edge, cloud = here.platform("edge"), here.platform("cloud")
    async with here.serve():
        client, other = here.client(), here.client()
        await client.join(edge, new_key())
        await other.join(cloud, new_key())
        client._urls = ("https://127.0.0.1:1", here.running.url)
        client._turn = 0
        client._client = client._connect()
        feed = client.feed(4)
        async with asyncio.timeout(15):
            assert [(await anext(feed)).sequence for _ in range(2)] == [5, 6]
        await feed.aclose()
        await client.close()
        await other.close()


async def test_a_server_that_refuses_has_answered_and_no_other_one_is_asked(here: World) -> None:
    async with here.serve():
        client = clients_of_two(here, 1)
        with pytest.raises(RefusedByServerError):
            await client.join(new_platform(), new_key())
        with pytest.raises(AuthorizationError):
            await client.nodes()
        assert client._turn == 1
        await client.close()


async def test_when_no_server_answers_each_was_asked_once() -> None:
    asked: list[int] = []

    class Nobody(Scripted):
        async def _send_once(self, method: str, path: str, message: object = None) -> Any:
            del method, path, message
            asked.append(self._turn % 3)
            raise UnavailableError("nobody there")

        async def _go_on(self, turn: int) -> None:
            assert turn == self._turn
            self._turn += 1

    client = Nobody()
    client._urls = ("a", "b", "c")
    with pytest.raises(UnavailableError):
        await client.acknowledge(1)
    assert asked == [0, 1, 2]


# Gaps


def event(sequence: int) -> Event:
    member = Member(
        node_id="n1",
        spiffe_id="spiffe://mesh.example/x",
        state=NodeState.ADMITTED,
        reason=None,
        generation=sequence,
    )
    return Event(sequence=sequence, at=NOW, member=member)


class Scripted(ServerClient):
    """A client whose connections bring what a script says."""

    def __init__(self, *connections: list[FeedMessage | TrothError]) -> None:
        self.asked: list[int | None] = []
        self._script = list(connections)

    async def _lines(self, after: int | None) -> AsyncIterator[FeedMessage]:
        self.asked.append(after)
        for message in self._script.pop(0):
            if isinstance(message, TrothError):
                raise message
            yield message


SNAPSHOT = Snapshot(sequence=9, members=())
END = AuthorizationError("end of the script")


async def read(client: ServerClient, after: int | None = None) -> list[FeedMessage]:
    messages: list[FeedMessage] = []

    async def all_of_it() -> None:
        async for message in client.feed(after):
            messages.append(message)  # noqa: PERF401 - what came before the end counts

    with pytest.raises(AuthorizationError, match="end of the script"):
        await all_of_it()
    return messages


async def test_a_missing_event_brings_a_snapshot_in_its_place() -> None:
    client = Scripted([SNAPSHOT, event(10), event(12)], [SNAPSHOT, END])
    assert await read(client) == [SNAPSHOT, event(10), SNAPSHOT]
    assert client.asked == [None, None]


async def test_a_heartbeat_that_knows_more_than_we_do_means_a_gap() -> None:
    client = Scripted([SNAPSHOT, Heartbeat(sequence=9), Heartbeat(sequence=11)], [SNAPSHOT, END])
    assert await read(client) == [SNAPSHOT, Heartbeat(sequence=9), SNAPSHOT]


async def test_an_event_that_comes_twice_is_passed_on_once() -> None:
    client = Scripted([event(5), event(5), event(4), event(6), END])
    assert await read(client, after=4) == [event(5), event(6)]


async def test_a_lost_connection_begins_where_it_ended() -> None:
    lost = UnavailableError("lost")
    client = Scripted([event(5), lost], [DecodeError("cut", format="line")], [event(6), END])
    assert await read(client, after=4) == [event(5), event(6)]
    assert client.asked == [4, 5, 5]


# Answers


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "not_authentic", VerificationError),
        (403, "not_fresh", FreshnessError),
        (403, "not_bound", BindingError),
        (403, "refused", AuthorizationError),
        (409, "conflict", ConflictError),
        (404, "not_found", ConflictError),
        (400, "malformed", DecodeError),
        (413, "too_large", DecodeError),
        (415, "unsupported", DecodeError),
        (429, "rate_limited", UnavailableError),
        (503, "unavailable", UnavailableError),
        (500, "internal", UnavailableError),
        (502, "", UnavailableError),
    ],
)
def test_each_problem_becomes_the_error_that_it_is(
    status: int, code: str, kind: type[TrothError]
) -> None:
    response = httpx.Response(status, json={"code": code, "title": "it says", "remedy": "do"})
    error = error_of(response)
    assert type(error) is kind
    assert "it says" in str(error)


def test_when_to_come_back_is_kept() -> None:
    response = httpx.Response(429, json={"code": "rate_limited"}, headers={"retry-after": "7"})
    error = error_of(response)
    assert isinstance(error, UnavailableError)
    assert error.retry_after_seconds == 7


def test_an_answer_that_is_no_problem_document_is_unavailable() -> None:
    assert isinstance(error_of(httpx.Response(502, text="<html>")), UnavailableError)


def test_a_bundle_without_certificates_is_a_wrong_configuration() -> None:
    with pytest.raises(ConfigurationError, match="trust bundle"):
        ServerClient("https://127.0.0.1:1", trust_bundle="", server_id=SERVER_ID)
