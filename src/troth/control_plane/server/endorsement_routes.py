# SPDX-License-Identifier: Apache-2.0
"""The operators' routes about Endorsements, the same for a server and for a Verifier alone."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.clock import Clock
from troth.control_plane.server.endorsement_set import Overlap
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.requests import query_text, read_body
from troth.control_plane.server.worker import Worker
from troth.endorsement.repository import HeldCorim, Provisioned
from troth.errors import DecodeError
from troth.formats.limits import RIM_LIMITS

__all__ = ["CorimMessage", "Endorsed", "endorsement_routes", "operator_of"]

_MAX_WORDS = 256


class CorimMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A CoRIM that is held, as operators see it; fields as in `HeldCorim`."""

    id: str
    profile: str
    scheme: str
    source: str
    authority: str
    tags: tuple[str, ...]
    withdrawn: tuple[str, ...]
    phase: str
    reference_values: int
    trust_anchors: int
    not_before: datetime | None
    not_after: datetime | None

    @classmethod
    def of(cls, held: HeldCorim) -> CorimMessage:
        """Return it without its content."""
        return cls(
            id=held.id,
            profile=held.profile,
            scheme=held.scheme,
            source=held.source,
            authority=held.authority,
            tags=held.tags,
            withdrawn=held.withdrawn,
            phase=held.phase.value,
            reference_values=held.reference_values,
            trust_anchors=held.trust_anchors,
            not_before=held.not_before,
            not_after=held.not_after,
        )


class Endorsed(Protocol):
    """What is held, for people to read. Methods may block."""

    def held(self, *, now: datetime) -> tuple[HeldCorim, ...]:
        """Return the CoRIMs."""
        ...

    def values(self, *, now: datetime) -> list[dict[str, object]]:
        """Return every Reference Value and trust anchor."""
        ...


class _Provision(Protocol):
    async def __call__(
        self, data: bytes, *, source: str, actor: str, overlap: Overlap | None = None
    ) -> Provisioned: ...


class _Withdraw(Protocol):
    def __call__(self, identifier: str, *, actor: str, why: str) -> Awaitable[object]: ...


def endorsement_routes(
    *,
    endorsements: Endorsed,
    worker: Worker,
    provision: _Provision,
    withdraw: _Withdraw,
    clock: Clock,
) -> list[Route]:
    """Return the routes.

    Args:
        endorsements: for reading.
        worker: a thread to read them in: there may be many.
        provision: takes a CoRIM in.
        withdraw: withdraws what has an identifier; what it returns is the answer.
        clock: time.
    """

    async def submit(request: Request) -> Response:
        body = await read_body(request, limit=RIM_LIMITS.max_bytes)
        source = request.query_params.get("source", "")[:_MAX_WORDS] or "admin API"
        made = await provision(
            body, source=source, actor=operator_of(request), overlap=_overlap(request, clock.now())
        )
        return _json(made, status=201)

    async def corims(_: Request) -> Response:
        found = await worker.run(endorsements.held, now=clock.now())
        return _json([CorimMessage.of(each) for each in found])

    async def values(_: Request) -> Response:
        return _json(await worker.run(endorsements.values, now=clock.now()))

    async def remove(request: Request) -> Response:
        identifier = query_text(request, "id")
        why = request.query_params.get("why", "")[:_MAX_WORDS]
        return _json(await withdraw(identifier, actor=operator_of(request), why=why))

    return [
        Route("/v1/corims", submit, methods=["POST"]),
        Route("/v1/corims", corims, methods=["GET"]),
        Route("/v1/corims", remove, methods=["DELETE"]),
        Route("/v1/reference-values", values, methods=["GET"]),
        Route("/v1/reference-values", remove, methods=["DELETE"]),
    ]


def _overlap(request: Request, now: datetime) -> Overlap | None:
    """Read `replaces` and `overlap_until`: both, or neither."""
    old, until = (request.query_params.get(name, "") for name in ("replaces", "overlap_until"))
    if not old and not until:
        return None
    try:
        end = datetime.fromisoformat(until)
    except ValueError:
        end = None
    if not old or end is None or end.tzinfo is None:
        raise DecodeError(
            "replaces, the identifier of a CoRIM, goes with overlap_until, a time with its zone",
            format="query",
            remedy="To replace it at once, provision the new one and withdraw the old one.",
        )
    if end <= now:
        raise DecodeError(f"overlap_until, {end:%FT%T%z}, has passed", format="query")
    return Overlap(old, end)


def operator_of(request: Request) -> str:
    """Return who is at the other end of the operators' socket, for the log."""
    return f"operator {caller_of(request.scope).uid}"


def _json(message: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(message), status_code=status, media_type="application/json")
