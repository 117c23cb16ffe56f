# SPDX-License-Identifier: Apache-2.0
"""The route that serves the schema of the resources that files describe."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.control_plane.openapi import Answer, Content, Operation
from troth.mesh.resources import render_schema

__all__ = ["RESOURCE_SCHEMA_PATH", "resource_operations", "resource_routes"]

RESOURCE_SCHEMA_PATH: Final = "/v1/resources/schema"
_MEDIA_TYPE: Final = "application/schema+json"


def resource_routes() -> list[Route]:
    """Return the routes."""
    schema = render_schema()

    async def show(_: Request) -> Response:
        return Response(schema, media_type=_MEDIA_TYPE)

    return [Route(RESOURCE_SCHEMA_PATH, show, methods=["GET"])]


def resource_operations() -> list[Operation]:
    """Describe them."""
    return [
        Operation(
            method="GET",
            path=RESOURCE_SCHEMA_PATH,
            words="JSON Schema of the resources that `troth apply` reads.",
            tag="resources",
            answers=(Answer(status=200, content=(Content(_MEDIA_TYPE, {"type": "object"}),)),),
        )
    ]
