# SPDX-License-Identifier: Apache-2.0
"""Endorsements by query, over HTTP: from what is provisioned here, or from another service.

An answer is made once for each query and set of Endorsements and handed out from memory while it
is good for long enough. What is not provisioned here is asked for upstream, where one is
configured, and handed on as that service signed it.

Source: draft-ietf-rats-coserv (472a81a) "CoSERV Transactions over HTTP"; veraison/services
(6b88102), whose path is served beside the draft's own.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth import __version__
from troth.clock import Clock
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.problem import TITLES
from troth.control_plane.server.rate_limit import RateLimiter
from troth.control_plane.server.worker import Worker
from troth.control_plane.verification.callers import bucket_of
from troth.control_plane.verification.messages import CoservCapability, CoservConfiguration
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.negotiation import Choice, negotiate
from troth.control_plane.verification.problems import concise_problem, status_of, wait_headers
from troth.endorsement.coserv import answer
from troth.endorsement.profiles import PROFILES
from troth.endorsement.repository import EndorsementRepository
from troth.errors import DecodeError, LimitExceededError, TrothError, UnsupportedError
from troth.formats import cbor
from troth.formats.base64url import decode_base64url
from troth.formats.corim.key_material import key_tag
from troth.formats.cose_key import CoseKey
from troth.formats.coserv import MEDIA_TYPE, SIGNED_MEDIA_TYPE, Coserv, CoservResults, sign_coserv
from troth.formats.jwk import required_members
from troth.formats.limits import Limits
from troth.formats.media_type import MediaType
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import VerificationKey

__all__ = ["MAX_CACHED_ANSWERS", "MAX_QUERY_CHARACTERS", "CoservRoutes", "CoservUpstream"]

_LOG = logging.getLogger(__name__)

QUERY_PATHS: Final = ("/coserv/{query}", "/endorsement-distribution/v1/coserv/{query}")
CONFIGURATION: Final = "/.well-known/coserv-configuration"
DISCOVERY_JSON: Final = "application/coserv-discovery+json"
DISCOVERY_CBOR: Final = "application/coserv-discovery+cbor"

MAX_QUERY_CHARACTERS = 8192
"""One query in the path; one with a class and an instance has about 300."""

MAX_CACHED_ANSWERS = 1024
"""Answers kept in memory, the least recently used first to go."""

_QUERY_LIMITS: Final = Limits(max_bytes=6144, max_items=2048, max_depth=12)
_MAX_AGE: Final = timedelta(hours=1)


class CoservUpstream(Protocol):
    """Another CoSERV service; answers are verified before they are returned."""

    def signed_answer(self, query: Coserv, *, now: datetime) -> tuple[bytes, Coserv]:
        """Return its answer as it signed it, and what it says; may be an earlier one. Blocks.

        Raises:
            UnavailableError: it does not answer, and no earlier answer is in force.
            DecodeError, VerificationError: what it answers cannot be believed.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    body: bytes = field(repr=False)
    expiry: datetime
    made: datetime

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


class CoservRoutes:
    """The routes.

    Args:
        repository: what is provisioned here.
        signer: signs answers, and nothing else.
        lifetime: of an answer at most.
        upstream: who is asked for what is not here, or None.
        worker: a thread to look things up in.
        limiter: how often a caller may ask.
        clock: time.
        metrics: counts.
    """

    def __init__(
        self,
        repository: RepositorySource,
        *,
        signer: LocalSigner,
        lifetime: timedelta,
        upstream: CoservUpstream | None,
        worker: Worker,
        limiter: RateLimiter,
        clock: Clock,
        metrics: VerificationMetrics,
    ) -> None:
        self._repository, self._signer, self._lifetime = repository, signer, lifetime
        self._upstream, self._worker, self._limiter = upstream, worker, limiter
        self._clock, self._metrics = clock, metrics
        self._authorities = (key_tag(signer.public_key),)
        self._cache: OrderedDict[tuple[bytes, bool, str], _Answer] = OrderedDict()
        self._configuration = _configuration(signer)

    def routes(self) -> list[Route]:
        """Return them."""
        return [
            *(Route(path, self.query, methods=["GET"]) for path in QUERY_PATHS),
            Route(CONFIGURATION, self.configuration, methods=["GET"]),
        ]

    async def configuration(self, request: Request) -> Response:
        """`GET /.well-known/coserv-configuration`, in JSON or CBOR."""
        offered = (DISCOVERY_JSON, DISCOVERY_CBOR, "application/json")
        choice = negotiate(request.headers.get("accept", ""), offered)
        if choice is None:
            return concise_problem(406, f"supported format(s): {DISCOVERY_JSON}, {DISCOVERY_CBOR}")
        binary = choice.name == DISCOVERY_CBOR
        return Response(
            self._configuration[1 if binary else 0],
            headers={"Cache-Control": f"max-age={int(_MAX_AGE.total_seconds())}"},
            media_type=DISCOVERY_CBOR if binary else DISCOVERY_JSON,
        )

    async def query(self, request: Request) -> Response:
        """`GET /coserv/{query}`."""
        try:
            return await self._query(request)
        except TrothError as exc:
            status = 400 if isinstance(exc, UnsupportedError) else status_of(exc)
            if isinstance(exc, _UnknownProfileError):
                status = 406
            self._metrics.refused.labels("coserv", exc.code).inc()
            detail = str(exc) if status < 500 else TITLES[exc.code]
            return concise_problem(status, detail, headers=wait_headers(exc))

    async def _query(self, request: Request) -> Response:
        caller = caller_of(request.scope)
        wait = self._limiter.take(bucket_of(caller), monotonic=self._clock.monotonic())
        if wait:
            self._metrics.refused.labels("coserv", "rate_limited").inc()
            headers = {"Retry-After": str(int(wait) + 1)}
            return concise_problem(429, TITLES["rate_limited"], headers=headers)
        choice = negotiate(request.headers.get("accept", ""), (SIGNED_MEDIA_TYPE, MEDIA_TYPE))
        if choice is None:
            return concise_problem(
                406, f"the only supported output formats are {MEDIA_TYPE} or {SIGNED_MEDIA_TYPE}"
            )
        query, encoded = _query_of(request.path_params["query"], choice)
        signed = choice.name == SIGNED_MEDIA_TYPE
        found = await self._worker.run(self._answer, query, encoded, signed)
        return self._document(request, query, found, choice)

    def _answer(self, query: Coserv, encoded: bytes, signed: bool) -> _Answer:  # noqa: FBT001 - called by position through the worker
        now = self._clock.now()
        repository = self._repository.current(now)
        key = (encoded, signed, repository.snapshot(now).epoch)
        kept = self._cache.get(key)
        # A third of its life is what a client may count on.
        if kept is not None and now < kept.expiry - (kept.expiry - kept.made) / 3:
            self._cache.move_to_end(key)
            return kept
        found = self._fresh(query, repository, now, signed=signed)
        self._cache[key] = found
        while len(self._cache) > MAX_CACHED_ANSWERS:
            self._cache.popitem(last=False)
        return found

    def _fresh(
        self, query: Coserv, repository: EndorsementRepository, now: datetime, *, signed: bool
    ) -> _Answer:
        answered = self._own_answer(query, repository, now)
        if answered is not None:
            body = sign_coserv(answered, self._signer) if signed else answered.encode()
            source = "here"
        else:
            original, answered = _asked(self._upstream).signed_answer(query, now=now)
            body = original if signed else answered.encode()
            source = "upstream"
        self._metrics.answers.labels(source).inc()
        return _Answer(body, answered.results.expiry if answered.results else now, now)

    def _own_answer(
        self, query: Coserv, repository: EndorsementRepository, now: datetime
    ) -> Coserv | None:
        """Return what is known here, or None where upstream has to be asked."""
        try:
            answered = answer(
                query,
                repository,
                now=now,
                lifetime=self._lifetime,
                authorities=self._authorities,
            )
        except UnsupportedError:
            if self._upstream is None:
                raise
            return None
        if self._upstream is not None and answered.results and _empty(answered.results):
            return None
        return answered

    def _document(
        self, request: Request, query: Coserv, found: _Answer, choice: Choice
    ) -> Response:
        left = int((found.expiry - self._clock.now()).total_seconds())
        headers = {
            # "MUST NOT exceed the result set expiry timestamp"
            "Cache-Control": f"max-age={max(0, left)}",
            "Expires": format_datetime(found.expiry.astimezone(UTC), usegmt=True),
            "ETag": found.tag,
            "Vary": "Accept",
        }
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        media_type = MediaType(choice.name, {"profile": _profile_of(query)})
        return Response(found.body, headers=headers, media_type=str(media_type))


def _asked(upstream: CoservUpstream | None) -> CoservUpstream:
    if upstream is None:  # pragma: no cover - only asked where there is one
        raise UnsupportedError("nobody to ask", format="CoSERV query")
    return upstream


class RepositorySource(Protocol):
    """Gives what is provisioned, with what other processes have changed taken over."""

    def current(self, now: datetime) -> EndorsementRepository:
        """Return the repository; may block."""
        ...


class _UnknownProfileError(UnsupportedError):
    """A profile that is not served: it is negotiated, so it has a status of its own."""


def _query_of(text: str, choice: Choice) -> tuple[Coserv, bytes]:
    if len(text) > MAX_QUERY_CHARACTERS:
        raise LimitExceededError(
            format="CoSERV query", limit="MAX_QUERY_CHARACTERS", value=MAX_QUERY_CHARACTERS
        )
    encoded = decode_base64url(text, format="CoSERV query")
    query = Coserv.decode(encoded, limits=_QUERY_LIMITS)
    if query.results is not None:
        raise DecodeError("a query with results", format="CoSERV query")
    profile = _profile_of(query)
    wanted = choice.parameters.get("profile", profile)
    if profile not in PROFILES or wanted != profile:
        raise _UnknownProfileError(f"Profile {wanted!r:.256} not supported", format="CoSERV query")
    return query, encoded


def _profile_of(query: Coserv) -> str:
    return query.profile if isinstance(query.profile, str) else f"oid:{query.profile.hex()}"


def _empty(results: CoservResults) -> bool:
    return not (any(results.quads.values()) or results.source_artifacts or results.rims)


def _configuration(signer: LocalSigner) -> tuple[bytes, bytes]:
    """Return the discovery document in JSON and in CBOR."""
    public = signer.public_key
    jwk = {**required_members(public), "kid": signer.key_id, "alg": signer.algorithm, "use": "sig"}
    support: Final = ("source", "collected", "rims")
    types = [
        str(MediaType(name, {"profile": profile}))
        for name in (SIGNED_MEDIA_TYPE, MEDIA_TYPE)
        for profile in PROFILES
    ]
    endpoints = {"CoSERVRequestResponse": QUERY_PATHS[0]}
    document = CoservConfiguration(
        version=__version__,
        capabilities=tuple(CoservCapability(media_type=t, artifact_support=support) for t in types),
        api_endpoints=endpoints,
        result_verification_key=(jwk,),
    )
    key = CoseKey.to_value(VerificationKey(public, key_id=signer.key_id))
    binary = {
        1: __version__,
        2: [{1: each, 2: list(support)} for each in types],
        3: endpoints,
        4: [key],
    }
    return msgspec.json.encode(document), cbor.encode(binary)
