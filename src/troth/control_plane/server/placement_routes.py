# SPDX-License-Identifier: Apache-2.0
"""Routes about placements: operators define them, members are told what is theirs."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.control_plane.openapi import Answer, Content, Operation, Parameter, problems
from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.endorsement_routes import operator_of
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.requests import read_body, read_message
from troth.control_plane.verification.operations import PROBLEM
from troth.errors import DecodeError
from troth.mesh.placement import MAX_SECRET_BYTES, Assignment, Placement

__all__ = [
    "placement_admin_operations",
    "placement_admin_routes",
    "placement_operations",
    "placement_routes",
]

_BODY_BYTES: Final = 256 * 1024
_PATH: Final = "/v1/placements/{name}"
_SECRET: Final = f"{_PATH}/secrets/{{secret}}"


def placement_admin_routes(context: ServerContext) -> list[Route]:
    """Return the operators' routes."""
    placements = context.placements

    async def every(_: Request) -> Response:
        return _json(await placements.all())

    async def show(request: Request) -> Response:
        return _json(await placements.one(request.path_params["name"]))

    async def put(request: Request) -> Response:
        placement = await read_message(request, Placement, limit=_BODY_BYTES)
        if placement.name != request.path_params["name"]:
            raise DecodeError(
                f"{placement.name!r} is not the name in the address", format="field name"
            )
        changed = await placements.put(placement, actor=operator_of(request))
        return _json({"changed": changed})

    async def delete(request: Request) -> Response:
        await placements.delete(request.path_params["name"], actor=operator_of(request))
        return Response(status_code=204)

    async def put_secret(request: Request) -> Response:
        """`PUT …/secrets/{secret}`: the body is the value, as octets."""
        value = await read_body(request, limit=MAX_SECRET_BYTES)
        names = request.path_params
        await placements.put_secret(
            names["name"], names["secret"], value, actor=operator_of(request)
        )
        return Response(status_code=204)

    return [
        Route("/v1/placements", every, methods=["GET"]),
        Route(_PATH, show, methods=["GET"]),
        Route(_PATH, put, methods=["PUT"]),
        Route(_PATH, delete, methods=["DELETE"]),
        Route(_SECRET, put_secret, methods=["PUT"]),
    ]


def placement_routes(context: ServerContext) -> list[Route]:
    """Return the routes over HTTPS."""

    async def assignments(request: Request) -> Response:
        """`GET /v1/agent/placements`: over the connection that the node's SVID secures."""
        node = await context.members.member(caller_of(request.scope))
        return _json(await context.placements.assignments(node.id))

    return [Route("/v1/agent/placements", assignments, methods=["GET"])]


def placement_admin_operations() -> list[Operation]:
    """Describe the operators' routes."""
    name = Parameter(name="name", place="path", words="Its name.", schema={"type": "string"})
    secret = Parameter(
        name="secret", place="path", words="The secret's name.", schema={"type": "string"}
    )
    changed = {"type": "object", "properties": {"changed": {"type": "boolean"}}}
    gone = Answer(status=204)
    return [
        _operation("GET", "/v1/placements", "All placements.", _ok(list[Placement]), (503,)),
        _operation("GET", _PATH, "One placement.", _ok(Placement), (409, 503), name),
        _operation(
            "PUT",
            _PATH,
            "Write a placement, in the place of what has its name.",
            _ok(changed),
            (400, 409, 413, 503),
            name,
            body=Content("application/json", Placement),
        ),
        _operation("DELETE", _PATH, "Delete a placement with its secrets.", gone, (409, 503), name),
        _operation(
            "PUT",
            _SECRET,
            "Set the value of a secret; nothing gives it back but the release to members.",
            gone,
            (400, 409, 413, 503),
            name,
            secret,
            body=Content("application/octet-stream"),
        ),
    ]


def placement_operations() -> list[Operation]:
    """Describe the routes over HTTPS."""
    words = "What the asking node is to run, with its secrets; what is not named is drained."
    answer = _ok(list[Assignment])
    return [_operation("GET", "/v1/agent/placements", words, answer, (403, 503))]


def _ok(schema: object) -> Answer:
    return Answer(status=200, content=(Content("application/json", schema),))


def _operation(
    method: str,
    path: str,
    words: str,
    answer: Answer,
    refused: tuple[int, ...],
    /,
    *parameters: Parameter,
    body: Content | None = None,
) -> Operation:
    return Operation(
        method=method,
        path=path,
        words=words,
        tag="placement",
        parameters=parameters,
        body=(body,) if body else (),
        answers=(answer, *problems(refused, PROBLEM)),
    )


def _json(message: object) -> Response:
    return Response(
        msgspec.json.encode(message),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
