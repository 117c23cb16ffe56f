# SPDX-License-Identifier: Apache-2.0
"""The well-known documents of the verification API.

Source: veraison/docs, api/well-known; veraison/services (6b88102).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from email.utils import format_datetime
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth import __version__
from troth.clock import Clock
from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.verification.challenge_response_routes import PREFIX
from troth.control_plane.verification.messages import Discovery
from troth.control_plane.verification.negotiation import negotiate
from troth.control_plane.verification.problems import http_problem

__all__ = [
    "DISCOVERY_JSON",
    "RESULT_KEYS",
    "WELL_KNOWN",
    "discovery_response",
    "discovery_routes",
    "result_keys_route",
]

DISCOVERY_JSON: Final = "application/vnd.veraison.discovery+json"
WELL_KNOWN: Final = "/.well-known/veraison/verification"
RESULT_KEYS: Final = "/.well-known/troth/result-keys"
MAX_AGE: Final = timedelta(seconds=60)
"""How long discovery documents may be cached. Keys are announced for much longer."""


def discovery_response(request: Request, document: Discovery) -> Response:
    """Return a discovery document, or 406 where it is not wanted."""
    offered = (DISCOVERY_JSON, "application/json")
    if negotiate(request.headers.get("accept", ""), offered) is None:
        return http_problem(
            406, f"the only supported output format is {DISCOVERY_JSON}", code="protocol"
        )
    return Response(
        msgspec.json.encode(document),
        headers={"Cache-Control": f"max-age={MAX_AGE.seconds}"},
        media_type=DISCOVERY_JSON,
    )


def discovery_routes(keys: ResultKeys, media_types: Sequence[str], clock: Clock) -> list[Route]:
    """Return the well-known document of the verification API.

    Args:
        keys: that results verify with.
        media_types: of Evidence that is taken.
        clock: time.
    """

    async def verification(request: Request) -> Response:
        return discovery_response(
            request,
            Discovery(
                ear_verification_key=keys.jwk(clock.now()),
                media_types=tuple(media_types),
                version=__version__,
                service_state="READY",
                api_endpoints={"newChallengeResponseSession": f"{PREFIX}/newSession"},
            ),
        )

    return [Route(WELL_KNOWN, verification, methods=["GET"])]


def result_keys_route(keys: ResultKeys, clock: Clock) -> Route:
    """Return the route of the JWK Set that results verify with."""

    async def result_keys(_: Request) -> Response:
        now = clock.now()
        headers = {
            "Cache-Control": f"max-age={MAX_AGE.seconds}",
            "Expires": format_datetime(now + MAX_AGE, usegmt=True),
        }
        return Response(
            msgspec.json.encode(keys.jwk_set(now)), headers=headers, media_type="application/json"
        )

    return Route(RESULT_KEYS, result_keys, methods=["GET"])
