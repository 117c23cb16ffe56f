# SPDX-License-Identifier: Apache-2.0
"""`/endorsement-provisioning/v1`: CoRIMs from Endorsers, by Veraison's interface.

Nobody may provision over the network unless the configuration names them, and what they send has
to be signed unless it says otherwise. Operators do it on their socket.

Source: veraison/docs, api/endorsement-provisioning; veraison/services (6b88102).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth import __version__
from troth.clock import Clock
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.problem import TITLES
from troth.control_plane.server.rate_limit import RateLimiter
from troth.control_plane.server.requests import read_body
from troth.control_plane.verification.callers import Provisioners, bucket_of
from troth.control_plane.verification.discovery import discovery_response
from troth.control_plane.verification.messages import Discovery, ProvisioningMessage
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.negotiation import negotiate
from troth.control_plane.verification.problems import http_problem, status_of, wait_headers
from troth.endorsement.profiles import PROFILES
from troth.endorsement.repository import Provisioned
from troth.errors import DecodeError, SignatureError, TrothError, UnavailableError, UnsupportedError
from troth.formats.corim.corim import MEDIA_TYPE
from troth.formats.corim.signed import SIGNED_MEDIA_TYPE, SignedCorim, decode_any, is_signed
from troth.formats.limits import RIM_LIMITS
from troth.formats.media_type import MediaType, parse_media_type

__all__ = ["PROVISIONING_JSON", "SUBMIT", "Provision", "ProvisioningRoutes", "rim_media_types"]

_LOG = logging.getLogger(__name__)

SUBMIT: Final = "/endorsement-provisioning/v1/submit"
WELL_KNOWN: Final = "/.well-known/veraison/provisioning"
PROVISIONING_JSON: Final = "application/vnd.veraison.provisioning-session+json"

Provision = Callable[[bytes, str, str], Awaitable[Provisioned]]
"""Takes in (CoRIM, source, actor); raises as `EndorsementSet.provision`."""


def rim_media_types() -> tuple[str, ...]:
    """Return the media types of CoRIMs that can be provisioned: unsigned and signed, by profile."""
    return tuple(
        str(MediaType(name, {"profile": profile}))
        for name in (MEDIA_TYPE, SIGNED_MEDIA_TYPE)
        for profile in PROFILES
    )


class ProvisioningRoutes:
    """The routes.

    Args:
        provision: takes a CoRIM in.
        provisioners: who may; None on the operators' socket, where whoever is there may.
        unsigned: whether unsigned CoRIMs are taken.
        limiter: how often a caller may ask; None for as often as it likes.
        clock: time.
        metrics: counts.
    """

    def __init__(
        self,
        provision: Provision,
        *,
        provisioners: Provisioners | None,
        unsigned: bool,
        limiter: RateLimiter | None,
        clock: Clock,
        metrics: VerificationMetrics,
    ) -> None:
        self._provision, self._provisioners, self._unsigned = provision, provisioners, unsigned
        self._limiter, self._clock, self._metrics = limiter, clock, metrics

    def routes(self) -> list[Route]:
        """Return them."""
        return [
            Route(SUBMIT, self.submit, methods=["POST"]),
            Route(WELL_KNOWN, self.well_known, methods=["GET"]),
        ]

    async def well_known(self, request: Request) -> Response:
        """`GET /.well-known/veraison/provisioning`."""
        return discovery_response(
            request,
            Discovery(
                media_types=rim_media_types(),
                version=__version__,
                service_state="READY",
                api_endpoints={"provisioningSubmit": SUBMIT},
            ),
        )

    async def submit(self, request: Request) -> Response:
        """`POST /endorsement-provisioning/v1/submit`."""
        caller = caller_of(request.scope)
        if self._limiter is not None:
            wait = self._limiter.take(bucket_of(caller), monotonic=self._clock.monotonic())
            if wait:
                return self._refused(429, "rate_limited", {"Retry-After": str(int(wait) + 1)})
        actor = f"operator {caller.uid}"
        if self._provisioners is not None:
            name = self._provisioners.recognise(request)
            if name is None:
                return self._refused(401, "unauthenticated", {"WWW-Authenticate": "Bearer"})
            actor = f"provisioner {name}"
        try:
            return await self._submit(request, actor)
        except TrothError as exc:
            status, headers = status_of(exc), wait_headers(exc)
            if isinstance(exc, UnsupportedError):
                headers["Accept"] = ", ".join(rim_media_types())
            self._metrics.refused.labels("provisioning", exc.code).inc()
            detail = str(exc) if status < 500 else TITLES[exc.code]
            return http_problem(status, detail, code=exc.code, headers=headers)

    def _refused(self, status: int, code: str, headers: dict[str, str]) -> Response:
        self._metrics.refused.labels("provisioning", code).inc()
        return http_problem(status, _WORDS[code], code=code, headers=headers)

    async def _submit(self, request: Request, actor: str) -> Response:
        if negotiate(request.headers.get("accept", ""), (PROVISIONING_JSON,)) is None:
            return http_problem(
                406,
                f"the only supported output format is {PROVISIONING_JSON}",
                code="protocol",
            )
        media_type = _rim_type(request.headers.get("content-type", ""))
        body = await read_body(request, limit=RIM_LIMITS.max_bytes)
        if not body:
            return http_problem(400, "empty body", code="malformed")
        try:
            _check_form(body, media_type, unsigned=self._unsigned)
            provisioned = await self._provision(body, f"{actor} by {SUBMIT}", actor)
        except UnavailableError:
            raise
        except TrothError as exc:
            _LOG.warning("%s: a CoRIM is not provisioned: %s", actor, exc)
            self._metrics.provisioned.labels("failed").inc()
            return self._outcome(f"submit endorsement returned error: {exc}")
        _LOG.info("%s provisioned %s", actor, provisioned.id)
        self._metrics.provisioned.labels("success").inc()
        return self._outcome("")

    def _outcome(self, failure: str) -> Response:
        now = self._clock.now().replace(microsecond=0)
        message = (
            ProvisioningMessage(status="failed", expiry=now, failure_reason=failure)
            if failure
            else ProvisioningMessage(status="success", expiry=now)
        )
        return Response(
            msgspec.json.encode(message),
            headers={"Cache-Control": "no-store"},
            media_type=PROVISIONING_JSON,
        )


_WORDS: Final = {
    "rate_limited": TITLES["rate_limited"],
    "unauthenticated": "show a bearer token or client certificate that is configured here",
}


def _rim_type(header: str) -> MediaType:
    """Return the media type of the body, with a profile that is known, or none.

    Raises:
        UnsupportedError: of something else. DecodeError: not a media type.
    """
    if not header:
        raise UnsupportedError("no Content-Type", format="body")
    given = parse_media_type(header)
    if given.name not in {MEDIA_TYPE, SIGNED_MEDIA_TYPE}:
        raise UnsupportedError(f"no active plugin found for {given.name}", format="body")
    profile = given.parameters.get("profile")
    if profile is not None and profile not in PROFILES:
        raise UnsupportedError(
            f"no active plugin found for the profile {profile!r:.128}", format="body"
        )
    return given


def _check_form(body: bytes, media_type: MediaType, *, unsigned: bool) -> None:
    """Refuse a CoRIM that is not what its media type says, or not signed where it has to be.

    Raises:
        DecodeError, SignatureError: naming what is wrong.
    """
    signed = is_signed(body)
    if signed != (media_type.name == SIGNED_MEDIA_TYPE):
        found = "signed" if signed else "not signed"
        raise DecodeError(f"it came as {media_type.name} and is {found}", format="CoRIM")
    if not signed and not unsigned:
        raise SignatureError(
            "an unsigned CoRIM, which is not taken over the network",
            remedy="sign it, or set provisioning.unsigned",
        )
    stated = media_type.parameters.get("profile")
    if stated is None:
        return
    decoded = decode_any(body)
    corim = decoded.unverified_corim() if isinstance(decoded, SignedCorim) else decoded
    if corim.profile_name != stated:
        raise DecodeError(
            f"it came as of profile {stated} and is of {corim.profile_name or 'none'}",
            format="CoRIM",
        )
