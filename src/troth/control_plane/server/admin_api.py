# SPDX-License-Identifier: Apache-2.0
"""The routes on the operators' socket. Whoever can open it may do everything here."""

from __future__ import annotations

import logging

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.control_plane.openapi import openapi_route
from troth.control_plane.server.bundle_routes import bundle_routes
from troth.control_plane.server.common_routes import (
    common_routes,
    exception_handlers,
    metrics_route,
)
from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.device_routes import device_routes
from troth.control_plane.server.endorsement_routes import endorsement_routes, operator_of
from troth.control_plane.server.entry_routes import entry_routes
from troth.control_plane.server.feed_route import operator_feed
from troth.control_plane.server.logical_tee_routes import ltee_admin_routes
from troth.control_plane.server.operations import admin_operations
from troth.control_plane.server.operators import WithdrawalOutcome
from troth.control_plane.server.placement_routes import placement_admin_routes
from troth.control_plane.server.policy_routes import policy_routes
from troth.control_plane.server.problem import problem
from troth.control_plane.server.requests import query_number
from troth.control_plane.server.resource_route import resource_operations, resource_routes
from troth.mesh.admission import Step
from troth.mesh.node import Actor, Reason, Trigger
from troth.mesh.node_record import NodeRecord, member_of

__all__ = ["create_admin_app"]

_LOG = logging.getLogger(__name__)
_MAX_LIMIT = 1000
_MAX_WAIT_SECONDS = 60
_MAX_SEQUENCE = 2**63 - 1

_VERBS = {
    "expel": Step(trigger=Trigger.EXPEL, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR),
    "reattest": Step(
        trigger=Trigger.REATTEST, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR
    ),
    "retire": Step(trigger=Trigger.RETIRE, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR),
}


def create_admin_app(context: ServerContext) -> Starlette:
    """Return the application for the operators' socket."""

    async def feed(request: Request) -> Response:
        return await operator_feed(context, request)

    async def withdraw(identifier: str, *, actor: str, why: str) -> WithdrawalOutcome:
        outcome = await context.operators.withdraw(identifier, actor=actor, why=why)
        context.metrics.withdrawals.inc()
        return outcome

    routes = [
        *common_routes(context),
        metrics_route(context),
        Route("/v1/feed", feed),
        *context.standard.apis.operators_provisioning.routes(),
        openapi_route("Troth server: operators", [*admin_operations(), *resource_operations()]),
        *resource_routes(),
        *endorsement_routes(
            endorsements=context.endorsements,
            worker=context.registry_worker,
            provision=context.operators.provision,
            withdraw=withdraw,
            clock=context.clock,
        ),
        *_node_routes(context),
        *entry_routes(context),
        *ltee_admin_routes(context),
        *placement_admin_routes(context),
        *device_routes(context),
        *bundle_routes(context),
        *_record_routes(context),
        *policy_routes(context.policies, clock=context.clock),
        *_key_routes(context),
    ]
    return Starlette(routes=routes, exception_handlers=exception_handlers(operator=True))


def _node_routes(context: ServerContext) -> list[Route]:
    registry, worker = context.registry, context.registry_worker

    async def nodes(_: Request) -> Response:
        return _json([_node(node) for node in await worker.run(registry.nodes)])

    async def node(request: Request) -> Response:
        return _json(_node(await worker.run(registry.node, request.path_params["node"])))

    async def move(request: Request) -> Response:
        step = _VERBS.get(request.path_params["verb"])
        if step is None:
            return problem(404, "not_found", detail=f"a node's verbs are {', '.join(_VERBS)}")
        changed, sequence = await context.operators.move(
            request.path_params["node"], step, actor=operator_of(request)
        )
        return _json(_node(changed) | {"sequence": sequence})

    async def delivery(request: Request) -> Response:
        wait = query_number(request, "wait", default=0, maximum=_MAX_WAIT_SECONDS)
        found = await context.operators.delivery(request.path_params["sequence"], wait_seconds=wait)
        return _json(
            {
                "sequence": found.sequence,
                "done": found.done,
                "acknowledged": found.acknowledged,
                "waiting": found.waiting,
                "lapsed": found.lapsed,
            }
        )

    return [
        Route("/v1/nodes", nodes),
        Route("/v1/nodes/{node}", node),
        Route("/v1/nodes/{node}/{verb}", move, methods=["POST"]),
        Route("/v1/delivery/{sequence:int}", delivery),
    ]


def _record_routes(context: ServerContext) -> list[Route]:
    registry, worker = context.registry, context.registry_worker

    async def refusals(request: Request) -> Response:
        limit = query_number(request, "limit", default=100, maximum=_MAX_LIMIT)
        return _json(await worker.run(registry.refusals, limit=limit))

    async def refusal(request: Request) -> Response:
        found = await worker.run(registry.refusal, request.path_params["refusal"])
        return _json(found) if found is not None else problem(404, "not_found")

    async def log(request: Request) -> Response:
        after = query_number(request, "after", default=0, maximum=_MAX_SEQUENCE)
        limit = query_number(request, "limit", default=100, maximum=_MAX_LIMIT)
        found = await worker.run(registry.log_rows, after=after, limit=limit)
        rows = [
            {
                "sequence": row.sequence,
                "previous": row.previous,
                "digest": row.digest,
                "entry": msgspec.Raw(row.entry.encode()),
            }
            for row in found
        ]
        return _json(rows)

    async def verify(_: Request) -> Response:
        return _json(await worker.run(registry.verify_log))

    return [
        Route("/v1/refusals", refusals),
        Route("/v1/refusals/{refusal}", refusal),
        Route("/v1/log", log),
        Route("/v1/log/verify", verify),
    ]


def _key_routes(context: ServerContext) -> list[Route]:
    async def rotate(request: Request) -> Response:
        now = context.clock.now()
        made = await context.registry_worker.run(context.keys.results.rotate, now)
        _LOG.warning("%s made the result key %s", operator_of(request), made)
        return _json({"kid": made, **context.keys.results.jwk_set(now)}, status=201)

    return [Route("/v1/result-keys", rotate, methods=["POST"])]


def _node(node: NodeRecord) -> dict[str, object]:
    """Return a node as operators see it: without its Evidence, with what came of it."""
    appraised, svid = node.appraised, node.svid
    return {
        **msgspec.to_builtins(member_of(node)),
        "device": node.device,
        "entry_id": node.entry_id,
        "registered_at": node.registered_at,
        "changed_at": node.changed_at,
        "scheme": appraised.scheme if appraised else None,
        "boot_session": appraised.boot_session.hex() if appraised else None,
        "result": appraised.result if appraised else None,
        "svid": {
            "serial": svid.serial,
            "key_digest": svid.key_digest,
            "not_after": svid.not_after,
        }
        if svid
        else None,
    }


def _json(message: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(message), status_code=status, media_type="application/json")
