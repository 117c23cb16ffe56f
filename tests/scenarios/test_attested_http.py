# SPDX-License-Identifier: Apache-2.0
"""Existing HTTP clients and applications over attested connections, beyond the tutorial."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from support.attested_world import Node, World
from support.waiting import until
from troth.errors import ConfigurationError, UnavailableError
from troth.tls import AttestationRefusedError, open_connection
from troth.tls.asgi import serve, serving
from troth.tls.httpx import AttestedTransport


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def orders(world: World) -> Node:
    return world.join("orders")


@pytest.fixture(scope="module")
def web(world: World) -> Node:
    return world.join("web")


async def whoami(request: Request) -> JSONResponse:
    troth = request.scope["extensions"]["troth"]
    if request.query_params.get("again"):
        await troth["connection"].reattest()
    peer = troth["connection"].peer
    return JSONResponse({"url_scheme": request.url.scheme, **peer.describe()})


async def digest(request: Request) -> PlainTextResponse:
    state = hashlib.sha256()
    async for part in request.stream():
        state.update(part)
    return PlainTextResponse(state.hexdigest())


async def count(_: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(64):
            yield number.to_bytes(2, "big") * 4096

    return StreamingResponse(parts())


async def hang_up(request: Request) -> PlainTextResponse:
    loop = asyncio.get_running_loop()
    connection = request.scope["extensions"]["troth"]["connection"]
    loop.call_later(0.01, connection.close)
    return PlainTextResponse("bye")


async def ws(socket: WebSocket) -> None:
    await socket.accept()
    peer = socket.scope["extensions"]["troth"]["peer"]
    await socket.send_text(f"{socket.url.scheme} {peer.node_id} {await socket.receive_text()}")
    await socket.close()


APP = Starlette(
    routes=[
        Route("/whoami", whoami),
        Route("/digest", digest, methods=["POST"]),
        Route("/count", count),
        Route("/hang-up", hang_up),
        WebSocketRoute("/ws", ws),
    ]
)


@pytest.fixture
async def origin(world: World, orders: Node) -> AsyncIterator[str]:
    async with serving(
        APP, credentials=world.credentials(orders), policy=world.policy(renew=False)
    ) as addresses:
        yield f"https://127.0.0.1:{addresses[0][1]}"


def client(world: World, node: Node, **policy: Any) -> httpx.AsyncClient:
    transport = AttestedTransport(
        credentials=world.credentials(node), policy=world.policy(**policy), verifier=world.check
    )
    return httpx.AsyncClient(transport=transport)


async def test_requests_know_their_peer_and_responses_theirs(
    world: World, web: Node, origin: str
) -> None:
    async with client(world, web, model="background_check") as http:
        response = await http.get(f"{origin}/whoami")
        seen = response.json()
        assert (seen["url_scheme"], seen["node_id"], seen["binding"]) == ("https", "web", "session")
        assert response.extensions["troth"].node_id == "orders"
        again = (await http.get(f"{origin}/whoami", params={"again": "1"})).json()
        assert again["attested_at"] >= seen["attested_at"]
        # Bodies in both directions, and one connection for all of it.
        payload = os.urandom(1 << 20)
        answer = await http.post(f"{origin}/digest", content=payload)
        assert answer.text == hashlib.sha256(payload).hexdigest()
        assert len((await http.get(f"{origin}/count")).content) == 64 * 8192
        assert response.extensions["troth"] is answer.extensions["troth"]


async def test_a_connection_that_has_ended_is_not_used_again(
    world: World, web: Node, origin: str
) -> None:
    async with client(world, web) as http:
        first = await http.get(f"{origin}/hang-up")
        stream = first.extensions["network_stream"]
        await until(lambda: stream.get_extra_info("is_readable"))
        second = await http.get(f"{origin}/whoami")
        assert second.status_code == 200
        assert second.extensions["network_stream"] is not stream


async def test_refusals_and_outages_are_httpx_errors_with_their_reason(
    world: World, web: Node, origin: str
) -> None:
    async with client(world, web, min_tier="confidential") as http:
        with pytest.raises(httpx.ConnectError, match="tier is measured") as caught:
            await http.get(origin)
        assert isinstance(caught.value.__cause__, AttestationRefusedError)
        with pytest.raises(httpx.ConnectError):
            await http.get("https://127.0.0.1:1/")
        with pytest.raises(httpx.UnsupportedProtocol, match="https"):
            await http.get(origin.replace("https", "http"))
    silent = await asyncio.start_server(_swallow, "127.0.0.1")
    async with silent, client(world, web) as http:
        with pytest.raises(httpx.ConnectTimeout):
            await http.get(
                f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}/",
                timeout=httpx.Timeout(5, connect=0.05),
            )


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)
    writer.close()


async def test_a_web_socket_knows_its_peer_too(world: World, web: Node, origin: str) -> None:
    port = int(origin.rpartition(":")[2])
    stream = await open_connection(
        "127.0.0.1", port, credentials=world.credentials(web), policy=world.policy()
    )
    stream.writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    head = await stream.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    # One masked text frame whose mask is zero.
    stream.writer.write(bytes([0x81, 0x80 | 5, 0, 0, 0, 0]) + b"hello")
    first, size = await stream.reader.readexactly(2)
    assert first == 0x81
    assert await stream.reader.readexactly(size) == b"wss web hello"
    stream.writer.close()


async def test_an_application_that_does_not_start_is_said_at_once(
    world: World, orders: Node
) -> None:
    async def broken(_: Any) -> AsyncIterator[None]:
        raise LookupError
        yield

    app = Starlette(lifespan=asynccontextmanager(broken))
    own = {"credentials": world.credentials(orders), "policy": world.policy()}
    with pytest.raises(UnavailableError, match="start-up failed"):
        async with serving(app, **own):
            pytest.fail("it started")
    with pytest.raises(ConfigurationError):
        async with serving(APP, credentials=own["credentials"], policy=world.policy(model="any")):
            pytest.fail("it started")


async def test_serving_ends_by_a_signal_and_by_cancellation(world: World, orders: Node) -> None:
    own = {"credentials": world.credentials(orders), "policy": world.policy()}
    heard = []
    previous = signal.signal(signal.SIGTERM, lambda *_: heard.append("term"))
    try:
        task = asyncio.create_task(serve(APP, **own))
        await until(lambda: signal.getsignal(signal.SIGTERM).__name__ == "handle_exit")  # type: ignore[union-attr]
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await task
        assert heard == ["term"]
    finally:
        signal.signal(signal.SIGTERM, previous)
    task = asyncio.create_task(serve(APP, **own))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await task
