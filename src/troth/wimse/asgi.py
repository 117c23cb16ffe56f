# SPDX-License-Identifier: Apache-2.0
"""ASGI applications whose callers show who they are and in what state, in headers.

    app = WimseMiddleware(app, check)

A request finds its caller in `scope["extensions"]["wimse"]["caller"]`. WebSockets have it too.
`ext_authz_app` is the same as a service that Envoy asks.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import quote

import structlog

from troth.clock import Clock, SystemClock
from troth.errors import (
    AuthorizationError,
    DecodeError,
    LimitExceededError,
    TrothError,
    UnavailableError,
    VerificationError,
)
from troth.formats.http_signature import HttpMessage
from troth.wimse.check import RequestCheck, WimseCaller
from troth.wimse.envoy import PROOF_HEADER, SUBJECT_HEADER, TIER_HEADER

__all__ = ["MAX_BODY_BYTES", "WimseMiddleware", "ext_authz_app"]

MAX_BODY_BYTES: Final = 1 << 20
"""Body of a signed request, which is read whole before the application sees any of it."""

_log = structlog.get_logger("troth.wimse")

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class WimseMiddleware:
    """Lets requests through to `app` whose headers `check` accepts.

    Refusals are problem details (RFC 9457) with the class of the error and nothing else: 400 for
    what was not proved (the drafts advise against 401), 403 for who is not admitted, 413, 503. The
    cause goes to the log. Streaming of requests works with WPTs; signed bodies are read first.

    Args:
        app: the application.
        check: what requests must show.
        max_body_bytes: of a signed request.
        clock: time.
    """

    def __init__(
        self,
        app: _App,
        check: RequestCheck,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self._app, self._check = app, check
        self._max_body_bytes = max_body_bytes
        self._clock = clock or SystemClock()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Handle one request; see ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            caller, receive = await self._caller(scope, receive)
        except (DecodeError, VerificationError, AuthorizationError, UnavailableError) as exc:
            _log.warning("request refused", cause=str(exc), remedy=exc.remedy, code=exc.code)
            await _refuse(scope, send, exc)
            return
        extensions = {**(scope.get("extensions") or {}), "wimse": {"caller": caller}}
        await self._app({**scope, "extensions": extensions}, receive, send)

    async def _caller(self, scope: _Scope, receive: _Receive) -> tuple[WimseCaller, _Receive]:
        message = _request(scope)
        now = self._clock.now()
        wit = self._check.identify(message, now=now)
        body = b""
        if self._check.proof_of(message) == "signature" and scope["type"] == "http":
            body, receive = await self._read(receive)
        return self._check.prove(message, wit, body=body, now=self._clock.now()), receive

    async def _read(self, receive: _Receive) -> tuple[bytes, _Receive]:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise DecodeError("the body ended before its end", format="request")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self._max_body_bytes:
                raise LimitExceededError(
                    format="request", limit="max_body_bytes", value=self._max_body_bytes
                )
        body = b"".join(parts)
        replayed: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> _Message:
            return replayed.pop() if replayed else await receive()

        return body, again


def ext_authz_app(check: RequestCheck, *, clock: Clock | None = None) -> WimseMiddleware:
    """Return an ASGI application that Envoy's `ext_authz` filter asks over HTTP.

    200 with who it is in headers, which Envoy puts into the request in place of any that the
    caller sent; anything else is a refusal. See `ext_authz_filter`.
    """
    return WimseMiddleware(_say_who, check, clock=clock)


async def _say_who(scope: _Scope, receive: _Receive, send: _Send) -> None:
    del receive
    caller: WimseCaller = scope["extensions"]["wimse"]["caller"]
    # All three, always: Envoy overwrites what it is given, and leaves what it is not.
    headers = [
        (SUBJECT_HEADER.encode(), caller.subject.encode("ascii")),
        (PROOF_HEADER.encode(), caller.proof.encode()),
        (TIER_HEADER.encode(), (caller.tier or "none").encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _request(scope: _Scope) -> HttpMessage:
    path = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    query = scope.get("query_string", b"")
    target = path + b"?" + query if query else path
    return HttpMessage(
        method=scope.get("method", "GET"),
        target=target.decode("latin-1"),
        headers=[(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]],
    )


async def _refuse(scope: _Scope, send: _Send, exc: TrothError) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1008})
        return
    status = 400
    if isinstance(exc, AuthorizationError):
        status = 403
    elif isinstance(exc, UnavailableError):
        status = 503
    elif isinstance(exc, LimitExceededError):
        status = 413
    body = json.dumps({"type": "about:blank", "status": status, "code": exc.code}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
