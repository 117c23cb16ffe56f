# SPDX-License-Identifier: Apache-2.0
"""`/challenge-response/v1` as a plain ASGI application: the path that every verification takes.

It does without routing tables and request objects where it can: at some thousand requests a
second they would cost as much as the signatures.

Source: veraison/docs, api/challenge-response.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from troth.clock import Clock
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.problem import TITLES
from troth.control_plane.server.rate_limit import RateLimiter
from troth.control_plane.server.requests import read_body
from troth.control_plane.verification.callers import bucket_of
from troth.control_plane.verification.challenge_response import ChallengeResponse, SessionUsedError
from troth.control_plane.verification.messages import SessionMessage
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.negotiation import negotiate
from troth.control_plane.verification.problems import http_problem, status_of, wait_headers
from troth.control_plane.verification.session import NONCE_SIZES
from troth.errors import (
    ConflictError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    TrothError,
    UnsupportedError,
)
from troth.formats.base64url import decode_base64url
from troth.formats.ear import PROFILES, Dialect

__all__ = ["PREFIX", "SESSION_JSON", "ChallengeResponseRoutes"]

_LOG = logging.getLogger(__name__)

PREFIX: Final = "/challenge-response/v1"
SESSION_JSON: Final = "application/vnd.veraison.challenge-response-session+json"

_NEW = f"{PREFIX}/newSession"
_SESSION = f"{PREFIX}/session/"
_DEFAULT_NONCE_SIZE = 32
_MAX_QUERY_BYTES = 1024
_ENCODER = msgspec.json.Encoder()


class ChallengeResponseRoutes:
    """The ASGI application.

    Args:
        service: does it.
        limiter: how often a caller may ask.
        evidence_bytes: longest Evidence.
        dialect: of results, where the caller does not say.
        clock: time.
        metrics: counts.
    """

    def __init__(
        self,
        service: ChallengeResponse,
        *,
        limiter: RateLimiter,
        evidence_bytes: int,
        dialect: Dialect,
        clock: Clock,
        metrics: VerificationMetrics,
    ) -> None:
        self._service, self._limiter, self._clock = service, limiter, clock
        self._evidence_bytes, self._dialect, self._metrics = evidence_bytes, dialect, metrics
        self._accepted = ", ".join(service.media_types)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # pragma: no cover - the listeners speak nothing else
            return
        try:
            response = await self._respond(scope, receive)
        except TrothError as exc:
            response = self._refused(exc)
        except Exception:  # noqa: BLE001 - the edge: whoever asks gets an answer, the log the rest
            _LOG.exception("%s %s failed", scope["method"], scope["path"])
            response = http_problem(500, TITLES["internal"], code="internal")
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        caller = caller_of(scope)
        wait = self._limiter.take(bucket_of(caller), monotonic=self._clock.monotonic())
        if wait:
            self._metrics.refused.labels("challenge_response", "rate_limited").inc()
            headers = {"Retry-After": str(int(wait) + 1)}
            return http_problem(429, TITLES["rate_limited"], code="rate_limited", headers=headers)
        path: str = scope["path"]
        if path == _NEW:
            return self._new(scope)
        if path.startswith(_SESSION):
            return await self._session(scope, receive, path[len(_SESSION) :])
        return http_problem(404, "no such resource", code="not_found")

    def _new(self, scope: Scope) -> Response:
        if scope["method"] != "POST":
            return _not_allowed("POST")
        if (chosen := self._negotiated(scope)) is None:
            return _not_acceptable()
        nonce, size = _nonce_request(scope["query_string"])
        session, message = self._service.open(nonce=nonce, size=size)
        return _document(message, chosen, status=201, location=f"session/{session.id}")

    async def _session(self, scope: Scope, receive: Receive, identifier: str) -> Response:
        method = scope["method"]
        if method not in {"GET", "HEAD", "POST", "DELETE"}:
            return _not_allowed("DELETE, GET, HEAD, POST")
        if method == "DELETE":
            await self._service.give_up(identifier)
            return Response(status_code=204)
        if (chosen := self._negotiated(scope)) is None:
            return _not_acceptable()
        if method == "POST":
            return await self._submit(scope, receive, identifier, chosen)
        return _document(await self._service.look(identifier), chosen)

    async def _submit(
        self, scope: Scope, receive: Receive, identifier: str, chosen: tuple[str, Dialect]
    ) -> Response:
        session = self._service.session(identifier)
        headers = dict(scope["headers"])
        media_type = headers.get(b"content-type", b"").decode("latin-1")
        if not media_type:
            raise UnsupportedError("no Content-Type, so it does not say what it is", format="body")
        evidence = await read_body(Request(scope, receive), limit=self._evidence_bytes)
        if not evidence:
            raise DecodeError("unable to read evidence from the request body", format="body")
        message = await self._service.submit(
            session, evidence, media_type=media_type, dialect=chosen[1]
        )
        return _document(message, chosen)

    def _negotiated(self, scope: Scope) -> tuple[str, Dialect] | None:
        """Return the content type and the dialect of results that the caller takes, or None."""
        accept = [value for name, value in scope["headers"] if name == b"accept"]
        found = _negotiated(b", ".join(accept))
        if found is None:
            return None
        content_type, dialect = found
        return content_type, dialect or self._dialect

    def _refused(self, error: TrothError) -> Response:
        status, headers = status_of(error), wait_headers(error)
        gone = isinstance(error, ConflictError) and not isinstance(error, SessionUsedError)
        if gone or isinstance(error, FreshnessError):
            status = 404
        elif isinstance(error, UnsupportedError):
            headers["Accept"] = self._accepted
        elif isinstance(error, LimitExceededError):
            headers["Connection"] = "close"
        self._metrics.refused.labels("challenge_response", error.code).inc()
        detail = str(error) if status < 500 else TITLES[error.code]
        return http_problem(status, detail, code=error.code, headers=headers)


@lru_cache(maxsize=256)
def _negotiated(accept: bytes) -> tuple[str, Dialect | None] | None:
    choice = negotiate(accept.decode("latin-1"), (SESSION_JSON,))
    if choice is None:
        return None
    profile = choice.parameters.get("eat_profile")
    if profile is None:
        return SESSION_JSON, None
    dialect = PROFILES.get(profile)
    return (f'{SESSION_JSON}; eat_profile="{profile}"', dialect) if dialect else None


def _nonce_request(query: bytes) -> tuple[bytes | None, int]:
    """Return the caller's nonce, or None and the size of a random one.

    Raises:
        DecodeError: both, or neither in its form.
    """
    if not query:
        return None, _DEFAULT_NONCE_SIZE
    if len(query) > _MAX_QUERY_BYTES:
        raise LimitExceededError(format="query", limit="_MAX_QUERY_BYTES", value=_MAX_QUERY_BYTES)
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        raise _nonce_error("a parameter is given twice")
    return _nonce_of(given)


def _nonce_of(given: Mapping[str, str]) -> tuple[bytes | None, int]:
    nonce, size = given.get("nonce", ""), given.get("nonceSize", "")
    if nonce and size:
        raise _nonce_error("nonce and nonceSize are mutually exclusive")
    if size:
        if not (size.isascii() and size.isdigit() and len(size) < 4 and int(size) in NONCE_SIZES):
            raise _nonce_error("nonceSize must be in range 8..64")
        return None, int(size)
    if not nonce:
        return None, _DEFAULT_NONCE_SIZE
    octets = _nonce_octets(nonce)
    if len(octets) not in NONCE_SIZES:
        raise _nonce_error(f"nonce must be between 8 and 64 bytes long; got {len(octets)}")
    return octets, len(octets)


def _nonce_octets(text: str) -> bytes:
    # Veraison sends base64url without padding and takes it with.
    bare = text.rstrip("=")
    padding = len(text) - len(bare)
    if padding and (padding > 2 or len(text) % 4):
        raise _nonce_error("nonce must be valid base64")
    try:
        return decode_base64url(bare, format="nonce")
    except DecodeError as exc:
        raise _nonce_error("nonce must be valid base64") from exc


def _nonce_error(why: str) -> DecodeError:
    # The text that Veraison's clients know.
    return DecodeError(why, format="failed handling nonce request")


def _document(
    message: SessionMessage, chosen: tuple[str, Dialect], *, status: int = 200, location: str = ""
) -> Response:
    headers = {"Cache-Control": "no-store"}
    if location:
        headers["Location"] = location
    return Response(
        _ENCODER.encode(message), status_code=status, headers=headers, media_type=chosen[0]
    )


def _not_acceptable() -> Response:
    return http_problem(406, f"the only supported output format is {SESSION_JSON}", code="protocol")


def _not_allowed(methods: str) -> Response:
    return http_problem(405, f"allowed are {methods}", code="protocol", headers={"Allow": methods})
