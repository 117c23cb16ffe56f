# SPDX-License-Identifier: Apache-2.0
"""The routes over HTTPS: for nodes that join, and for members."""

from __future__ import annotations

import logging

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from troth.control_plane.openapi import openapi_route
from troth.control_plane.server.agent_routes import agent_routes
from troth.control_plane.server.appraisal_route import appraise_for_member
from troth.control_plane.server.common_routes import (
    common_routes,
    exception_handlers,
    metrics_route,
)
from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.feed_route import MemberFeed
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.logical_tee_routes import ltee_routes
from troth.control_plane.server.operations import server_operations
from troth.control_plane.server.placement_routes import placement_routes
from troth.control_plane.server.problem import problem, problem_for
from troth.control_plane.server.refusal import JoinRefusedError
from troth.control_plane.server.requests import read_message
from troth.errors import TrothError
from troth.mesh.join_messages import ActivationMessage, JoinRequest, SessionRequest

__all__ = ["create_app"]

_LOG = logging.getLogger(__name__)


def create_app(context: ServerContext) -> Starlette:
    """Return the application for the HTTPS listener."""
    join = _JoinRoutes(context)
    feed = MemberFeed(context)

    async def nodes(request: Request) -> Response:
        await context.members.member(caller_of(request.scope))
        snapshot = await context.registry_worker.run(context.registry.snapshot)
        return _json(snapshot)

    async def appraisals(request: Request) -> Response:
        return await appraise_for_member(context, request)

    routes: list[BaseRoute] = [
        *common_routes(context),
        Route("/v1/join/sessions", join.open_session, methods=["POST"]),
        Route("/v1/join/sessions/{session}", join.join, methods=["POST"]),
        Route("/v1/join/sessions/{session}/activation", join.activate, methods=["POST"]),
        Route("/v1/feed", feed.stream),
        Route("/v1/feed/ack", feed.acknowledge, methods=["POST"]),
        Route("/v1/nodes", nodes),
        *agent_routes(context),
        *ltee_routes(context),
        *placement_routes(context),
        Route("/v1/appraisals", appraisals, methods=["POST"]),
    ]
    if context.config.public_metrics:
        routes.append(metrics_route(context))
    described = openapi_route("Troth server", server_operations(context))
    routes += [described, *context.standard.apis.mounted()]
    return Starlette(routes=routes, exception_handlers=exception_handlers(operator=False))


class _JoinRoutes:
    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._body_limit = context.config.limits.body_bytes

    async def open_session(self, request: Request) -> Response:
        """`POST /v1/join/sessions`."""
        caller = caller_of(request.scope)
        if (limited := self._limited(caller.address)) is not None:
            return limited
        message = await read_message(request, SessionRequest, limit=self._body_limit)
        reply = await self._context.joins.open_session(message, address=caller.address)
        return _json(reply, status=201, location=f"/v1/join/sessions/{reply.session}")

    async def activate(self, request: Request) -> Response:
        """`POST /v1/join/sessions/{session}/activation`."""
        caller = caller_of(request.scope)
        if (limited := self._limited(caller.address)) is not None:
            return limited
        message = await read_message(request, ActivationMessage, limit=self._body_limit)
        try:
            reply = await self._context.joins.challenge(request.path_params["session"], message)
        except JoinRefusedError as exc:
            self._context.metrics.joins.labels("refused", exc.cause.code).inc()
            return _refusal(exc)
        return _json(reply)

    async def join(self, request: Request) -> Response:
        """`POST /v1/join/sessions/{session}`."""
        caller = caller_of(request.scope)
        if (limited := self._limited(caller.address)) is not None:
            return limited
        message = await read_message(request, JoinRequest, limit=self._body_limit)
        metrics = self._context.metrics
        started = self._context.clock.monotonic()
        try:
            reply = await self._context.joins.join(
                request.path_params["session"],
                message,
                svid_key=self._context.members.verified_key(caller),
            )
        except JoinRefusedError as exc:
            metrics.joins.labels("refused", exc.cause.code).inc()
            return _refusal(exc)
        except TrothError as exc:
            metrics.joins.labels("failed", exc.code).inc()
            raise
        finally:
            metrics.join_seconds.observe(self._context.clock.monotonic() - started)
        metrics.joins.labels("admitted", "").inc()
        return _json(reply)

    def _limited(self, address: str) -> Response | None:
        wait = self._context.limiter.take(address, monotonic=self._context.clock.monotonic())
        if not wait:
            return None
        self._context.metrics.limited.inc()
        return problem(429, "rate_limited", headers={"Retry-After": str(int(wait) + 1)})


def _refusal(exc: JoinRefusedError) -> Response:
    """Tell a node the class and the refusal's id, and what was found if that is its own."""
    _LOG.warning("join %s refused (%s): %s", exc.refusal.id, exc.cause.code, exc)
    if not exc.disclosed:
        return problem_for(exc.cause, operator=False, refusal=exc.refusal.id)
    findings = [finding.to_json() for finding in exc.refusal.findings]
    return problem_for(exc.cause, operator=True, refusal=exc.refusal.id, findings=findings)


def _json(message: object, *, status: int = 200, location: str = "") -> Response:
    headers = {"Location": location} if location else {}
    return Response(
        msgspec.json.encode(message),
        status_code=status,
        headers={**headers, "Cache-Control": "no-store"},
        media_type="application/json",
    )
