# SPDX-License-Identifier: Apache-2.0
"""Routes about Logical TEEs: for operators, for members, and for anybody."""

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
from troth.control_plane.server.problem import problem
from troth.control_plane.server.requests import read_message
from troth.control_plane.verification.operations import PROBLEM
from troth.errors import DecodeError
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.logical_tee_messages import ResultReply, StatusReply

__all__ = [
    "RESULT_MEDIA_TYPE",
    "ltee_admin_operations",
    "ltee_admin_routes",
    "ltee_operations",
    "ltee_routes",
]

RESULT_MEDIA_TYPE: Final = "application/eat+jwt"
_BODY_BYTES: Final = 256 * 1024
_NAME: Final = Parameter(name="name", place="path", words="Its name.", schema={"type": "string"})


def ltee_admin_routes(context: ServerContext) -> list[Route]:
    """Return the operators' routes."""
    tees = context.logical_tees

    async def every(_: Request) -> Response:
        return _json(await tees.all())

    async def show(request: Request) -> Response:
        return _json(await tees.definition(request.path_params["name"]))

    async def put(request: Request) -> Response:
        tee = await read_message(request, LogicalTee, limit=_BODY_BYTES)
        if tee.name != request.path_params["name"]:
            raise DecodeError(f"{tee.name!r} is not the name in the address", format="field name")
        changed = await tees.put(tee, actor=operator_of(request))
        return _json({"changed": changed, "definition": tee.definition_digest})

    async def delete(request: Request) -> Response:
        await tees.delete(request.path_params["name"], actor=operator_of(request))
        return Response(status_code=204)

    async def status(request: Request) -> Response:
        return _json(await tees.status(request.path_params["name"]))

    async def result(request: Request) -> Response:
        return _json(await tees.result(request.path_params["name"]))

    return [
        Route("/v1/ltees", every, methods=["GET"]),
        Route("/v1/ltees/{name}", show, methods=["GET"]),
        Route("/v1/ltees/{name}", put, methods=["PUT"]),
        Route("/v1/ltees/{name}", delete, methods=["DELETE"]),
        Route("/v1/ltees/{name}/status", status, methods=["GET"]),
        Route("/v1/ltees/{name}/result", result, methods=["GET"]),
    ]


def ltee_routes(context: ServerContext) -> list[Route]:
    """Return the routes over HTTPS."""
    tees = context.logical_tees

    async def public(request: Request) -> Response:
        """`GET /v1/ltees/{name}/result`: for anybody, where the owner says so."""
        wait = context.limiter.take(
            caller_of(request.scope).address, monotonic=context.clock.monotonic()
        )
        if wait:
            context.metrics.limited.inc()
            return problem(429, "rate_limited", headers={"Retry-After": str(int(wait) + 1)})
        token = await tees.public_result(request.path_params["name"])
        if token is None:
            return problem(404, "not_found")
        return Response(token, media_type=RESULT_MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    async def proofs(request: Request) -> Response:
        """`GET /v1/agent/ltees/{name}/proofs`: that the calling node is a member."""
        node = await context.members.member(caller_of(request.scope))
        return _json(await tees.result(request.path_params["name"], node_id=node.id))

    return [
        Route("/v1/ltees/{name}/result", public, methods=["GET"]),
        Route("/v1/agent/ltees/{name}/proofs", proofs, methods=["GET"]),
    ]


def ltee_admin_operations() -> list[Operation]:
    """Describe the operators' routes."""
    name = "/v1/ltees/{name}"
    unknown = problems((409, 503), PROBLEM)
    changed = {
        "type": "object",
        "properties": {"changed": {"type": "boolean"}, "definition": {"type": "string"}},
    }
    return [
        _operation("GET", "/v1/ltees", "All Logical TEEs.", list[LogicalTee], (503,)),
        _operation("GET", name, "The definition of one.", LogicalTee, (409, 503)),
        Operation(
            method="PUT",
            path=name,
            words="Define one, in the place of what has its name.",
            tag="ltee",
            parameters=(_NAME,),
            body=(Content("application/json", LogicalTee),),
            answers=(
                Answer(status=200, content=(Content("application/json", changed),)),
                *problems((400, 409, 413, 503), PROBLEM),
            ),
        ),
        Operation(
            method="DELETE",
            path=name,
            words="Delete a definition; nothing happens to the nodes.",
            tag="ltee",
            parameters=(_NAME,),
            answers=(Answer(status=204), *unknown),
        ),
        _operation("GET", f"{name}/status", "Who is a member now.", StatusReply, (409, 503)),
        _operation(
            "GET",
            f"{name}/result",
            "The Aggregated Attestation Result, with all members.",
            ResultReply,
            (409, 503),
        ),
    ]


def ltee_operations() -> list[Operation]:
    """Describe the routes over HTTPS."""
    token = Content(RESULT_MEDIA_TYPE, {"type": "string"})
    return [
        Operation(
            method="GET",
            path="/v1/ltees/{name}/result",
            words="The Aggregated Attestation Result of a Logical TEE that is public.",
            tag="ltee",
            parameters=(_NAME,),
            answers=(
                Answer(status=200, content=(token,)),
                *problems((404, 429, 503), PROBLEM),
            ),
        ),
        _operation(
            "GET",
            "/v1/agent/ltees/{name}/proofs",
            "The result, and proofs that the asking node is a member.",
            ResultReply,
            (403, 409, 503),
        ),
    ]


def _operation(
    method: str, path: str, words: str, answer: object, refused: tuple[int, ...]
) -> Operation:
    return Operation(
        method=method,
        path=path,
        words=words,
        tag="ltee",
        parameters=(_NAME,) if "{name}" in path else (),
        answers=(
            Answer(status=200, content=(Content("application/json", answer),)),
            *problems(refused, PROBLEM),
        ),
    )


def _json(message: object) -> Response:
    return Response(
        msgspec.json.encode(message),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
