# SPDX-License-Identifier: Apache-2.0
"""Routes that both listeners have: health, keys, bundle, metrics, and the handling of errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.problem import problem, problem_for
from troth.errors import TrothError

__all__ = ["common_routes", "exception_handlers", "metrics_route"]

_LOG = logging.getLogger(__name__)
_HTTP_CODES = {404: "not_found", 405: "protocol", 406: "protocol"}


def common_routes(context: ServerContext) -> list[Route]:
    """Return the routes that answer anybody."""

    async def live(_: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_: Request) -> Response:
        # The registry answers: without it nothing can be decided.
        await context.registry_worker.run(context.registry.count_by_state)
        return PlainTextResponse("ready\n")

    async def bundle(request: Request) -> Response:
        found = context.issuer.trust_bundle()
        if request.query_params.get("format") == "pem":
            return Response(found.encode_pem(), media_type="application/x-pem-file")
        return Response(found.encode(), media_type="application/json")

    async def result_keys(_: Request) -> Response:
        return JSONResponse(result_key_set(context))

    return [
        Route("/livez", live),
        Route("/readyz", ready),
        Route("/v1/bundle", bundle),
        Route("/.well-known/troth/result-keys", result_keys),
    ]


def result_key_set(context: ServerContext) -> dict[str, object]:
    """Return the keys that Attestation Results verify with, as a JWK Set (RFC 7517 section 5)."""
    return context.keys.results.jwk_set(context.clock.now())


def metrics_route(context: ServerContext) -> Route:
    """Return the route of the metrics."""

    async def metrics(_: Request) -> Response:
        counts = await context.registry_worker.run(context.registry.count_by_state)
        body = context.metrics.render(counts)
        return Response(body, media_type=context.metrics.CONTENT_TYPE)

    return Route("/metrics", metrics)


def exception_handlers(*, operator: bool) -> dict[type[Exception] | int, ExceptionHandler]:
    """Return what turns exceptions into problem documents.

    Args:
        operator: the readers are operators, who are told the cause.
    """

    async def ours(_: Request, exc: Exception) -> Response:
        if not isinstance(exc, TrothError):
            raise exc
        _LOG.log(logging.INFO, "%s: %s", exc.code, exc)
        return problem_for(exc, operator=operator)

    async def http(_: Request, exc: Exception) -> Response:
        if not isinstance(exc, HTTPException):
            raise exc
        code = _HTTP_CODES.get(exc.status_code, "error")
        return problem(exc.status_code, code, headers=exc.headers)

    async def bug(request: Request, exc: Exception) -> Response:
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=exc)
        return problem(500, "internal")

    handlers: dict[type[Exception] | int, Callable[[Request, Exception], Awaitable[Response]]] = {
        TrothError: ours,
        HTTPException: http,
        Exception: bug,
    }
    return dict(handlers)
