# SPDX-License-Identifier: Apache-2.0
"""Operators' routes for registration entries of nodes and of workloads."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.endorsement_routes import operator_of
from troth.control_plane.server.problem import problem
from troth.control_plane.server.requests import read_message
from troth.errors import AuthorizationError, DecodeError
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.x509_authority import INFRASTRUCTURE_PREFIX
from troth.mesh.entry_message import EntryMessage, entry_from, message_of
from troth.mesh.registration_entry import RegistrationEntry
from troth.mesh.workload_entry import WorkloadEntry

__all__ = ["entry_routes", "member_spiffe_id"]

_BODY_BYTES = 64 * 1024
_FILTERS = ("spiffe_id", "parent_id")


def member_spiffe_id(text: str, trust_domain: TrustDomain) -> SpiffeId:
    """Return the SPIFFE ID that an entry gives to members.

    Raises:
        DecodeError: not a SPIFFE ID.
        AuthorizationError: of another trust domain, or of Troth's own parts.
    """
    spiffe_id = SpiffeId.decode(text)
    if spiffe_id.trust_domain != trust_domain or not spiffe_id.path:
        raise AuthorizationError(f"{text} is not a workload of trust domain {trust_domain}")
    if spiffe_id.path.startswith(INFRASTRUCTURE_PREFIX):
        raise AuthorizationError(f"{text} is for Troth's own parts, not for members")
    return spiffe_id


def entry_routes(context: ServerContext) -> list[Route]:
    """Return the routes."""
    routes = _EntryRoutes(context)
    return [
        Route("/v1/entries", routes.list, methods=["GET"]),
        Route("/v1/entries", routes.create, methods=["POST"]),
        Route("/v1/entries/{entry}", routes.show, methods=["GET"]),
        Route("/v1/entries/{entry}", routes.replace, methods=["PUT"]),
        Route("/v1/entries/{entry}", routes.delete, methods=["DELETE"]),
    ]


class _EntryRoutes:
    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._operators, self._workloads = context.operators, context.workloads

    async def list(self, request: Request) -> Response:
        """`GET /v1/entries`: all, or those with a spiffe_id, a parent_id, or selectors."""
        found = [message_of(entry) for entry in await self._all()]
        return _json([message for message in found if _wanted(message, request)])

    async def show(self, request: Request) -> Response:
        """`GET /v1/entries/{entry}`."""
        wanted = request.path_params["entry"]
        for each in await self._all():
            if each.id == wanted:
                return _json(message_of(each))
        return problem(404, "not_found", detail=f"there is no registration entry {wanted!r}")

    async def create(self, request: Request) -> Response:
        """`POST /v1/entries`."""
        message = await read_message(request, EntryMessage, limit=_BODY_BYTES)
        made = self._checked(message, message.id or f"e{secrets.token_hex(8)}")
        if isinstance(made, RegistrationEntry):
            await self._operators.create_entry(made, actor=operator_of(request))
        else:
            await self._workloads.create(made, actor=operator_of(request))
        return _json(message_of(made), status=201)

    async def replace(self, request: Request) -> Response:
        """`PUT /v1/entries/{entry}`."""
        message = await read_message(request, EntryMessage, limit=_BODY_BYTES)
        entry_id = request.path_params["entry"]
        if message.id not in ("", entry_id):
            raise DecodeError(f"{message.id!r} is not the id in the address", format="field id")
        made = self._checked(message, entry_id)
        if isinstance(made, RegistrationEntry):
            await self._operators.amend_entry(made, actor=operator_of(request))
        else:
            await self._workloads.replace(made, actor=operator_of(request))
        return _json(message_of(made))

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/entries/{entry}`."""
        entry_id, actor = request.path_params["entry"], operator_of(request)
        if any(entry.id == entry_id for entry in await self._workloads.all()):
            await self._workloads.delete(entry_id, actor=actor)
            return _json({"quarantined": []})
        return _json({"quarantined": await self._operators.delete_entry(entry_id, actor=actor)})

    async def _all(self) -> Sequence[RegistrationEntry | WorkloadEntry]:
        registry, worker = self._context.registry, self._context.registry_worker
        return [*await worker.run(registry.entries), *await self._workloads.all()]

    def _checked(self, message: EntryMessage, entry_id: str) -> RegistrationEntry | WorkloadEntry:
        member_spiffe_id(message.spiffe_id, self._context.keys.authorities.trust_domain)
        return entry_from(message, entry_id=entry_id)


def _wanted(message: EntryMessage, request: Request) -> bool:
    """Say whether the query asks for this entry: each filter that is given has to hold."""
    query = request.query_params
    return all(
        query.get(name, value) == value for name in _FILTERS for value in [getattr(message, name)]
    ) and all(selector in message.selectors for selector in query.getlist("selector"))


def _json(message: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(message), status_code=status, media_type="application/json")
