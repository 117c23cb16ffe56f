# SPDX-License-Identifier: Apache-2.0
"""Routes over HTTPS for the agents of members: their workloads and the SVIDs of these."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.requests import read_message
from troth.mesh.workload_messages import (
    JwtSvidReply,
    JwtSvidRequest,
    SvidBatchReply,
    SvidBatchRequest,
    WitReply,
    WitRequest,
)

__all__ = ["agent_routes"]


def agent_routes(context: ServerContext) -> list[Route]:
    """Return the routes."""
    members, workloads = context.members, context.workloads
    limit = context.config.limits.body_bytes

    async def entries(request: Request) -> Response:
        node = await members.member(caller_of(request.scope))
        return _json(await workloads.entries(node))

    async def x509_svids(request: Request) -> Response:
        node = await members.member(caller_of(request.scope))
        message = await read_message(request, SvidBatchRequest, limit=limit)
        return _json(SvidBatchReply(outcomes=await workloads.issue(node, message.requests)))

    async def jwt_svid(request: Request) -> Response:
        node = await members.member(caller_of(request.scope))
        message = await read_message(request, JwtSvidRequest, limit=limit)
        svid = await workloads.issue_jwt(node, message.entry_id, message.audience)
        return _json(JwtSvidReply(token=svid.token))

    async def wit(request: Request) -> Response:
        node = await members.member(caller_of(request.scope))
        message = await read_message(request, WitRequest, limit=limit)
        issued = await workloads.issue_wit(node, message)
        return _json(WitReply(token=issued.wit.token, result=issued.result))

    async def bundles(request: Request) -> Response:
        await members.member(caller_of(request.scope))
        return _json(context.bundles.message())

    return [
        Route("/v1/agent/entries", entries),
        Route("/v1/agent/x509-svids", x509_svids, methods=["POST"]),
        Route("/v1/agent/jwt-svids", jwt_svid, methods=["POST"]),
        Route("/v1/agent/wits", wit, methods=["POST"]),
        Route("/v1/agent/bundles", bundles),
    ]


def _json(message: object) -> Response:
    return Response(
        msgspec.json.encode(message),
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )
