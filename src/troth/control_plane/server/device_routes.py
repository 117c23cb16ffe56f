# SPDX-License-Identifier: Apache-2.0
"""Operators' routes for the inventory of devices."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.endorsement_routes import operator_of
from troth.control_plane.server.requests import read_message
from troth.mesh.device_message import (
    DeviceMessage,
    RevocationMessage,
    TokenReply,
    TokenRequest,
    device_from,
    device_message,
)

__all__ = ["device_routes"]

_BODY_BYTES = 64 * 1024


def device_routes(context: ServerContext) -> list[Route]:
    """Return the routes."""
    routes = _DeviceRoutes(context)
    return [
        Route("/v1/devices", routes.list, methods=["GET"]),
        Route("/v1/devices", routes.add, methods=["POST"]),
        Route("/v1/devices/{device}", routes.show, methods=["GET"]),
        Route("/v1/devices/{device}/approve", routes.approve, methods=["POST"]),
        Route("/v1/devices/{device}/revoke", routes.revoke, methods=["POST"]),
        Route("/v1/devices/{device}/token", routes.token, methods=["POST"]),
    ]


class _DeviceRoutes:
    def __init__(self, context: ServerContext) -> None:
        self._context, self._inventory = context, context.inventory

    async def list(self, _: Request) -> Response:
        """`GET /v1/devices`."""
        return _json([device_message(each) for each in await self._inventory.devices()])

    async def show(self, request: Request) -> Response:
        """`GET /v1/devices/{device}`."""
        return _json(device_message(await self._inventory.device(request.path_params["device"])))

    async def add(self, request: Request) -> Response:
        """`POST /v1/devices`."""
        message = await read_message(request, DeviceMessage, limit=_BODY_BYTES)
        added = await self._inventory.add(
            device_from(message), actor=operator_of(request), now=self._context.clock.now()
        )
        return _json(device_message(added), status=201)

    async def approve(self, request: Request) -> Response:
        """`POST /v1/devices/{device}/approve`."""
        approved = await self._inventory.approve(
            request.path_params["device"],
            actor=operator_of(request),
            now=self._context.clock.now(),
        )
        return _json(device_message(approved))

    async def revoke(self, request: Request) -> Response:
        """`POST /v1/devices/{device}/revoke`."""
        async with self._context.admission:
            revoked = await self._inventory.revoke(
                request.path_params["device"],
                actor=operator_of(request),
                now=self._context.clock.now(),
            )
        self._context.hub.wake()
        return _json(
            RevocationMessage(device=device_message(revoked.device), quarantined=revoked.nodes)
        )

    async def token(self, request: Request) -> Response:
        """`POST /v1/devices/{device}/token`."""
        message = await read_message(request, TokenRequest, limit=_BODY_BYTES)
        device = request.path_params["device"]
        token, expires = await self._inventory.token(
            device,
            seconds=message.seconds,
            actor=operator_of(request),
            now=self._context.clock.now(),
        )
        reply = TokenReply(device=device, token=token, expires=expires)
        return _json(reply, status=201)


def _json(message: object, *, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(message),
        status_code=status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )
