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
from troth.control_plane.server.worker import Worker
from troth.control_plane.verification.challenge_response import ChallengeResponse
from troth.control_plane.verification.challenge_response_routes import (
    PREFIX,
    ChallengeResponseRoutes,
)
from troth.control_plane.verification.coserv_routes import CoservRoutes
from troth.control_plane.verification.discovery import discovery_routes
from troth.control_plane.verification.endorsements import SharedEndorsements
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.operations import (
    verifier_admin_operations,
    verifier_operations,
)
from troth.control_plane.verification.provisioning import ProvisioningRoutes
from troth.endorsement.repository import Provisioned, Withdrawn

__all__ = ["VerifierParts", "create_verifier_admin_app", "create_verifier_app"]

_LOG = logging.getLogger(__name__)
_FAST: Final = f"{PREFIX}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierParts:
    """What the routes work with, put together once when the Verifier starts.

    Attributes:
        service: challenge-response, or None where that is not served.
        challenge_response: its routes, likewise.
        provisioning, operators_provisioning: over the network, and for operators.
        coserv: distribution, or None where it is not served.
        endorsements, endorsement_worker: what is believed, and the one thread that changes it.
    """

    service: ChallengeResponse | None
    challenge_response: ChallengeResponseRoutes | None
    provisioning: ProvisioningRoutes
    operators_provisioning: ProvisioningRoutes
    coserv: CoservRoutes | None
    endorsements: SharedEndorsements
    endorsement_worker: Worker
    keys: ResultKeys = field(repr=False)
    metrics: VerificationMetrics
    clock: Clock
    public_metrics: bool


def create_verifier_app(parts: VerifierParts) -> ASGIApp:
    """Return the application for everybody."""
    routes: list[BaseRoute] = [
        *_common_routes(parts),
        *parts.provisioning.routes(),
        *(parts.coserv.routes() if parts.coserv else ()),
    ]
    if parts.service is not None:
        routes += discovery_routes(
            parts.keys, parts.service.media_types, parts.clock, with_keys=True
        )
    if parts.public_metrics:
        routes.append(_metrics_route(parts))
    described = verifier_operations(
        parts.service.media_types if parts.service else (),
        verification=parts.service is not None,
        coserv=parts.coserv is not None,
        metrics=parts.public_metrics,
    )
    routes.append(openapi_route("Troth Verifier", described))
    app = Starlette(routes=routes, exception_handlers=exception_handlers(operator=False))
    return _FastPath(parts.challenge_response, app) if parts.challenge_response else app


def create_verifier_admin_app(parts: VerifierParts) -> Starlette:
    """Return the application for the operators' socket."""

    async def provision(data: bytes, *, source: str, actor: str) -> Provisioned:
        return await parts.endorsement_worker.run(
            parts.endorsements.provision, data, source=source, actor=actor, now=parts.clock.now()
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
        *parts.operators_provisioning.routes(),
        *endorsement_routes(
            endorsements=parts.endorsements,
            provision=provision,
            withdraw=withdraw,
            clock=parts.clock,
        ),
        Route("/v1/result-keys", rotate, methods=["POST"]),
        *discovery_routes(parts.keys, (), parts.clock, with_keys=True)[1:],
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
