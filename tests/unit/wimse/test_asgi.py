# SPDX-License-Identifier: Apache-2.0
"""The middleware lets callers through and tells the others no more than a class of error."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from support.ears import NOW
from support.wimse import FixedClock, check, credentials
from troth.errors import ApiMisuseError, UnavailableError
from troth.identity.replay_cache import MemoryReplayCache
from troth.wimse import RequestCheck, WimseAuth, WimseMiddleware, ext_authz_app

ORDERS = "https://orders.example"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the caller and the body."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    caller = scope["extensions"]["wimse"]["caller"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": caller.subject.encode() + b" " + body})


def client(
    known: RequestCheck | None = None, *, proof: str = "wpt", app: Any = None, **options: Any
) -> httpx.AsyncClient:
    app = app or WimseMiddleware(echo, known or check(), clock=FixedClock(), **options)
    auth = WimseAuth(credentials, proof=proof, clock=FixedClock())  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), auth=auth, base_url=ORDERS)


@pytest.mark.parametrize("proof", ["wpt", "signature"])
async def test_a_caller_gets_through_with_its_body(proof: str) -> None:
    async with client(proof=proof) as web:
        answer = await web.post("/pay?sum=1", content=b"12 apples")
        assert answer.text == "spiffe://mesh.example/web 12 apples"
        answer = await web.get("/a%20b/c?d=e%2Ff")
        assert answer.status_code == 200


async def test_a_refusal_is_a_class_and_nothing_else() -> None:
    for known, status, code in (
        (check(origins=["https://others.example"]), 400, "not_bound"),
        (check(callers=[]), 403, "refused"),
        (check(issuers=lambda _: []), 400, "not_authentic"),
    ):
        async with client(known) as web:
            answer = await web.get("/")
            assert answer.status_code == status
            assert answer.json() == {"type": "about:blank", "status": status, "code": code}


async def test_a_signed_body_has_a_limit_and_a_streamed_one_beside_a_wpt_has_none() -> None:
    async with client(proof="signature", max_body_bytes=10) as web:
        assert (await web.post("/", content=b"a" * 10)).status_code == 200
        assert (await web.post("/", content=b"a" * 11)).status_code == 413
    async with client(max_body_bytes=10) as web:
        assert (await web.post("/", content=b"a" * 11)).status_code == 200


async def test_the_body_is_not_read_for_whoever_shows_no_wit_that_holds() -> None:
    middleware = WimseMiddleware(echo, check(), clock=FixedClock())
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"workload-identity-token", b"a.b.c"), (b"signature-input", b"x")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    await middleware(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_a_full_replay_cache_refuses_and_asks_to_come_back() -> None:
    async with client(check(replay=MemoryReplayCache(limit_of_one=1))) as web:
        assert (await web.get("/")).status_code == 200
        assert (await web.get("/")).status_code == 503


async def test_websockets_without_proof_are_closed_and_lifespan_passes() -> None:
    seen: list[str] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        seen.append(scope["type"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    middleware = WimseMiddleware(app, check())
    await middleware({"type": "lifespan"}, receive, send)
    await middleware({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert seen == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_the_service_for_envoy_says_who_it_is_and_always_all_of_it() -> None:
    app = ext_authz_app(check(results=None), clock=FixedClock())
    async with client(app=app) as web:
        answer = await web.get("/")
        assert answer.headers["x-wimse-subject"] == "spiffe://mesh.example/web"
        assert answer.headers["x-wimse-proof"] == "wpt"
        assert answer.headers["x-wimse-tier"] == "none"
    async with client(app=ext_authz_app(check(callers=[]), clock=FixedClock())) as web:
        answer = await web.get("/")
        assert answer.status_code == 403
        assert "x-wimse-subject" not in answer.headers


def test_a_request_that_has_a_proof_already_is_a_mistake() -> None:
    sent = httpx.Request("GET", ORDERS, headers={"workload-proof-token": "x"})
    with pytest.raises(ApiMisuseError, match="already"):
        next(WimseAuth(credentials()).auth_flow(sent))


def test_a_replay_cache_forgets_what_has_ended_and_keeps_the_rest() -> None:
    minute = timedelta(minutes=1)
    cache = MemoryReplayCache(limit=3, limit_of_one=2)
    cache.remember("a", "1", until=NOW + minute, now=NOW)
    cache.remember("a", "2", until=NOW + 2 * minute, now=NOW)
    with pytest.raises(UnavailableError, match="no room"):
        cache.remember("a", "3", until=NOW + minute, now=NOW)
    cache.remember("b", "1", until=NOW + 3 * minute, now=NOW)
    with pytest.raises(UnavailableError, match="no room"):
        cache.remember("c", "1", until=NOW + minute, now=NOW)
    cache.remember("c", "1", until=NOW + 3 * minute, now=NOW + minute)
    assert len(cache) == 3
    cache.remember("a", "1", until=NOW + 3 * minute, now=NOW + 2 * minute)
    assert len(cache) == 3
