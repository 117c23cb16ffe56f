# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/appraisals`: background checks for members, by the server's Verifier."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.problem import problem
from troth.control_plane.server.requests import read_message
from troth.errors import LimitExceededError
from troth.formats.base64url import decode_base64url
from troth.mesh.join_messages import AppraisalReply, AppraisalRequest

__all__ = ["appraise_for_member"]


async def appraise_for_member(context: ServerContext, request: Request) -> Response:
    """Appraise Evidence that a peer showed to the calling member.

    Raises:
        AuthorizationError: the caller is no member.
        DecodeError, VerificationError: the Evidence is refused.
    """
    caller = caller_of(request.scope)
    member = await context.members.member(caller)
    # Members pay like strangers: one of them must not keep the Verifier from the others.
    wait = context.limiter.take(str(member.id), monotonic=context.clock.monotonic())
    if wait:
        return problem(429, "rate_limited", headers={"Retry-After": str(int(wait) + 1)})
    limits = context.config.limits
    message = await read_message(request, AppraisalRequest, limit=limits.body_bytes)
    evidence = decode_base64url(message.evidence, format="Evidence")
    if len(evidence) > limits.evidence_bytes:
        raise LimitExceededError(
            format="Evidence", limit="evidence_bytes", value=limits.evidence_bytes
        )
    ear = await context.appraisal_worker.run(
        context.appraiser.check,
        evidence,
        media_type=message.media_type,
        challenge=decode_base64url(message.challenge, format="challenge"),
        now=context.clock.now(),
    )
    return Response(
        msgspec.json.encode(AppraisalReply(ear=ear.decode("ascii"))),
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )
