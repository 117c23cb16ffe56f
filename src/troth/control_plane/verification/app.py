# SPDX-License-Identifier: Apache-2.0
"""The applications of a Verifier alone: for everybody, and for its operators."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from troth.clock import Clock
from troth.control_plane.openapi import openapi_route
from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.server.common_routes import exception_handlers
from troth.control_plane.server.endorsement_routes import endorsement_routes, operator_of
from troth.control_plane.server.endorsement_set import Overlap
from troth.control_plane.server.worker import Worker
from troth.control_plane.verification.apis import StandardApis
from troth.control_plane.verification.challenge_response_routes import PREFIX
from troth.control_plane.verification.discovery import result_keys_route
from troth.control_plane.verification.endorsements import SharedEndorsements
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.operations import (
    verifier_admin_operations,
    verifier_operations,
)
from troth.endorsement.repository import Provisioned, Withdrawn

__all__ = ["VerifierParts", "create_verifier_admin_app", "create_verifier_app"]

_LOG = logging.getLogger(__name__)
_FAST: Final = f"{PREFIX}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierParts:
    """What the routes work with, put together once when the Verifier starts.

    Attributes:
        apis: the standard APIs.
        endorsements, endorsement_worker: what is believed, and the one thread that changes it.
        keys: sign results.
        metrics, clock: counts and time.
        public_metrics: whether everybody may read the metrics.
    """

    apis: StandardApis
    endorsements: SharedEndorsements
    endorsement_worker: Worker
    keys: ResultKeys = field(repr=False)
    metrics: VerificationMetrics
    clock: Clock
    public_metrics: bool


def create_verifier_app(parts: VerifierParts) -> ASGIApp:
    """Return the application for everybody."""
    apis = parts.apis
    routes: list[BaseRoute] = [
        *_common_routes(parts),
        result_keys_route(parts.keys, parts.clock),
        *apis.routes(),
    ]
    if parts.public_metrics:
        routes.append(_metrics_route(parts))
    described = verifier_operations(apis.operations(), metrics=parts.public_metrics)
    routes.append(openapi_route("Troth Verifier", described))
    app = Starlette(routes=routes, exception_handlers=exception_handlers(operator=False))
    return _FastPath(apis.challenge_response, app) if apis.challenge_response else app


def create_verifier_admin_app(parts: VerifierParts) -> Starlette:
    """Return the application for the operators' socket."""

    async def provision(
        data: bytes, *, source: str, actor: str, overlap: Overlap | None = None
    ) -> Provisioned:
        return await parts.endorsement_worker.run(
            parts.endorsements.provision,
            data,
            source=source,
            actor=actor,
            now=parts.clock.now(),
            overlap=overlap,
        )

    async def withdraw(identifier: str, *, actor: str, why: str) -> dict[str, object]:
        gone = await parts.endorsement_worker.run(
            parts.endorsements.withdraw, identifier, actor=actor, why=why, now=parts.clock.now()
        )
        return _withdrawn(gone)

    async def rotate(request: Request) -> Response:
        now = parts.clock.now()
        made = await parts.endorsement_worker.run(parts.keys.rotate, now)
        _LOG.warning("%s made the result key %s", operator_of(request), made)
        body = msgspec.json.encode({"kid": made, **parts.keys.jwk_set(now)})
        return Response(body, status_code=201, media_type="application/json")

    routes: list[BaseRoute] = [
        *_common_routes(parts),
        _metrics_route(parts),
        *parts.apis.operators_provisioning.routes(),
        *endorsement_routes(
            endorsements=parts.endorsements,
            worker=parts.endorsement_worker,
            provision=provision,
            withdraw=withdraw,
            clock=parts.clock,
        ),
        Route("/v1/result-keys", rotate, methods=["POST"]),
        result_keys_route(parts.keys, parts.clock),
        openapi_route("Troth Verifier: operators", verifier_admin_operations()),
    ]
    return Starlette(routes=routes, exception_handlers=exception_handlers(operator=True))


class _FastPath:
    """Sends verifications past the routing table."""

    def __init__(self, fast: ASGIApp, other: ASGIApp) -> None:
        self._fast, self._other = fast, other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fast = scope["type"] == "http" and scope["path"].startswith(_FAST)
        await (self._fast if fast else self._other)(scope, receive, send)


def _common_routes(parts: VerifierParts) -> list[Route]:
    async def live(_: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_: Request) -> Response:
        # The registry answers, and so it is known what may be believed.
        await parts.endorsement_worker.run(parts.endorsements.look, parts.clock.now())
        return PlainTextResponse("ready\n")

    return [Route("/livez", live, methods=["GET"]), Route("/readyz", ready, methods=["GET"])]


def _metrics_route(parts: VerifierParts) -> Route:
    async def metrics(_: Request) -> Response:
        body = await parts.endorsement_worker.run(parts.metrics.render)
        return Response(body, media_type=parts.metrics.CONTENT_TYPE)

    return Route("/metrics", metrics, methods=["GET"])


def _withdrawn(gone: Withdrawn) -> dict[str, object]:
    return {
        "id": gone.id,
        "reference_values": [value.id for value in gone.reference_values],
        "trust_anchors": [anchor.id for anchor in gone.trust_anchors],
    }
