# SPDX-License-Identifier: Apache-2.0
"""Operators' routes for trust bundles: our own with its authorities, and those of others."""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec
from cryptography.x509 import load_pem_x509_certificates
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.control_plane.rotating_keys import RotatingKeys
from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.endorsement_routes import operator_of
from troth.control_plane.server.federations import FederationStatus
from troth.control_plane.server.problem import problem
from troth.control_plane.server.requests import read_message
from troth.errors import DecodeError, LimitExceededError
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import BUNDLE_LIMITS, TrustBundle
from troth.mesh.federation import EndpointProfile, Federation
from troth.mesh.workload_entry import parse_trust_domain, refused_field

__all__ = ["FederationMessage", "bundle_routes"]

_LOG = logging.getLogger(__name__)
_BODY_BYTES = 2 * BUNDLE_LIMITS.max_bytes  # JSON text inside JSON


class FederationMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator says about a foreign trust domain.

    Attributes:
        bundle: its bundle as text, SPIFFE's JSON or PEM certificates; empty to keep what is known.
        endpoint_url: where it is fetched, or "".
        profile: `https_web` or `https_spiffe`, with an endpoint.
        endpoint_spiffe_id: whom `https_spiffe` expects.
    """

    bundle: str = ""
    endpoint_url: str = ""
    profile: EndpointProfile | None = None
    endpoint_spiffe_id: str = ""


def bundle_routes(context: ServerContext) -> list[Route]:
    """Return the routes."""
    bundles, federations = context.bundles, context.federations

    async def list_all(_: Request) -> Response:
        foreign = [_foreign(status) for status in federations.list()]
        return _json([{"own": True, **_summary(bundles.own)}, *foreign])

    async def show(request: Request) -> Response:
        domain = _domain(request)
        own = domain == bundles.own.trust_domain
        shown = (
            {"own": True, **_summary(bundles.own)} if own else _foreign(federations.find(domain))
        )
        known = bundles.known(domain)
        document = msgspec.Raw(known.encode()) if known is not None else None
        return _json(shown | {"bundle": document})

    async def put(request: Request) -> Response:
        domain = _domain(request)
        message = await read_message(request, FederationMessage, limit=_BODY_BYTES)
        now = context.clock.now()
        known = bundles.federations.get(domain)
        federation = _federation(message, domain, known, now)
        await federations.put(federation, actor=operator_of(request))
        return _json(_foreign(federations.find(domain)))

    async def delete(request: Request) -> Response:
        await federations.delete(_domain(request), actor=operator_of(request))
        return Response(status_code=204)

    async def refresh(request: Request) -> Response:
        return _json(_foreign(await federations.refresh(_domain(request))))

    return [
        Route("/v1/bundles", list_all, methods=["GET"]),
        Route("/v1/bundles/{domain}", show, methods=["GET"]),
        Route("/v1/bundles/{domain}", put, methods=["PUT"]),
        Route("/v1/bundles/{domain}", delete, methods=["DELETE"]),
        Route("/v1/bundles/{domain}/refresh", refresh, methods=["POST"]),
        *_authority_routes(context),
    ]


def _authority_routes(context: ServerContext) -> list[Route]:
    authorities = context.keys.authorities
    kinds = {"x509": authorities.x509, "jwt": authorities.jwt}

    def status() -> Response:
        return _json(authorities.status(context.clock.now()))

    async def list_all(_: Request) -> Response:
        return status()

    async def change(request: Request) -> Response:
        keys = kinds.get(request.path_params["kind"])
        verb = request.path_params["verb"]
        if keys is None or verb not in ("prepare", "activate"):
            detail = "/v1/authorities/(x509|jwt)/(prepare|activate)"
            return problem(404, "not_found", detail=detail)
        changed = await context.registry_worker.run(_change, keys, verb, context.clock.now())
        _LOG.warning("%s: %s the authority %s", operator_of(request), verb, changed)
        await context.federations.look()
        return status()

    return [
        Route("/v1/authorities", list_all, methods=["GET"]),
        Route("/v1/authorities/{kind}/{verb}", change, methods=["POST"]),
    ]


def _change(keys: RotatingKeys, verb: str, now: datetime) -> str:
    return keys.rotate(now) if verb == "prepare" else keys.activate(now)


def _domain(request: Request) -> TrustDomain:
    return parse_trust_domain(request.path_params["domain"])


def _federation(
    message: FederationMessage, domain: TrustDomain, known: Federation | None, now: datetime
) -> Federation:
    bundle = known.bundle if known else None
    refreshed_at = known.refreshed_at if known else None
    if message.bundle:
        bundle, refreshed_at = _bundle(message.bundle, domain), now
    try:
        endpoint_id = (
            SpiffeId.decode(message.endpoint_spiffe_id) if message.endpoint_spiffe_id else None
        )
    except DecodeError as exc:
        raise refused_field("endpoint_spiffe_id", str(exc)) from exc
    return Federation(
        trust_domain=domain,
        bundle=bundle,
        endpoint_url=message.endpoint_url,
        profile=message.profile,
        endpoint_spiffe_id=endpoint_id,
        refreshed_at=refreshed_at,
    )


def _bundle(text: str, domain: TrustDomain) -> TrustBundle:
    if len(text) > BUNDLE_LIMITS.max_bytes:
        raise LimitExceededError(
            format="SPIFFE bundle", limit="max_bytes", value=BUNDLE_LIMITS.max_bytes
        )
    try:
        if text.lstrip().startswith("-----BEGIN "):
            certificates = load_pem_x509_certificates(text.encode())
            return TrustBundle(trust_domain=domain, x509_authorities=certificates)
        return TrustBundle.decode(text.encode(), trust_domain=domain)
    except (ValueError, DecodeError) as exc:
        raise refused_field(
            "bundle", f"is neither a SPIFFE bundle nor PEM certificates ({exc})"
        ) from exc


def _summary(bundle: TrustBundle) -> dict[str, object]:
    return {
        "trust_domain": bundle.trust_domain.name,
        "sequence": bundle.sequence,
        "refresh_hint": bundle.refresh_hint_seconds,
        "x509_authorities": len(bundle.x509_authorities),
        "jwt_authorities": len(bundle.jwt_authorities),
    }


def _foreign(status: FederationStatus) -> dict[str, object]:
    federation = status.federation
    bundle = federation.bundle or TrustBundle(trust_domain=federation.trust_domain)
    return {
        "own": False,
        **_summary(bundle),
        "endpoint_url": federation.endpoint_url,
        "profile": federation.profile,
        "endpoint_spiffe_id": str(federation.endpoint_spiffe_id or ""),
        "refreshed_at": federation.refreshed_at,
        "next_refresh": status.next_refresh,
        "problem": status.problem,
    }


def _json(message: object) -> Response:
    return Response(msgspec.json.encode(message), media_type="application/json")
